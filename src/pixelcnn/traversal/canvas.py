"""Canvases: the memory layout in which a cached network keeps its activations.

A canvas holds one activation of the forward pass, at those pixels of the images that may still be read. Pixel (i, j) of
image b of B, at time `t = j + lag * i`, is in slot

    ((i - top) * B + b) * pitch + t - base

so that the columns that a row of a kernel reads are next to each other, and the pixels of one time of all images are
equally far apart. That makes them a strided matrix, which can be multiplied without a copy. The canvas is a window of
the rows from `top` on and of `pitch` times from `base` on, and it moves with the wavefront. In raster order, where a
time is a column, `pitch = W + 1` and `lag = base = 0`, and there is a column of zeros between two images.
"""

__all__ = ["ROWS_ABOVE", "Canvas", "Window", "new_memory"]

import numpy as np
import torch
from torch import Tensor

ROWS_ABOVE = 2  # rows kept above the window: no kernel reads further up


class Canvas:
    """Storage for `features` numbers at each pixel of a window of the images, with zeros beyond their borders.

    Offsets count pixels from the first slot of the first row of the first image.
    """

    def __init__(self, features: int, scale: int, size: tuple[int, int], batch: int, lag: int) -> None:
        self.features, self.scale, self.batch = features, scale, batch
        self.rows, self.pitch = size  # the pitch is the number of slots from an image to the next
        self.row = batch * self.pitch + lag  # slots from a pixel to the one below it
        self.origin = ROWS_ABOVE * self.row + 1
        self.numel = (self.origin + self.rows * self.row + 1) * features
        self.strides = self.pitch * features, 1

    def put(self, memory: Tensor, first: int) -> None:
        """Take a part of some memory that holds zeros: `numel` numbers from the first on."""
        self.buffer, self.start = memory, first + self.origin * self.features

    def group(self, offset: int, count: int, cols: int = 1) -> Tensor:
        """View `cols` columns at each of the `count` pixels of a group: (count, cols * features)."""
        features = self.features
        return self.buffer.as_strided((count, cols * features), self.strides, self.start + offset * features)

    def line(self, offset: int, count: int, number: int, cols: int = 1, step: int = 1) -> Tensor:
        """View `number` groups that are `step` columns apart: (number, count, cols * features)."""
        features = self.features
        strides = step * features, *self.strides
        return self.buffer.as_strided((number, count, cols * features), strides, self.start + offset * features)

    def image(self, offset: int, rows: int, cols: int) -> Tensor:
        """View a rectangle of every image: (B, features, rows, cols)."""
        strides = self.pitch * self.features, 1, self.row * self.features, self.features
        shape = self.batch, self.features, rows, cols
        return self.buffer.as_strided(shape, strides, self.start + offset * self.features)


def new_memory(numel: int, like: Tensor) -> Tensor:
    """Allocate memory of the type and on the device of `like`, (numel,), whatever it holds."""
    if like.device.type != "cpu":
        return like.new_empty(numel)
    # NumPy asks for huge pages, which are there several times sooner than those that torch gets.
    return torch.from_numpy(np.empty(numel * like.element_size(), np.uint8)).view(like.dtype)


class Window:
    """The part of the images that the canvases hold: rows from `top` on, and times from `base` on.

    Args:
        frames: a canvas of each scale.
        lag: of the groups; 0 in raster order.
        base: the first time.
    """

    def __init__(self, frames: list[Canvas], lag: int, base: int) -> None:
        self.frames, self.lag, self.top, self.base = frames, lag, 0, base

    def offsets(self, row: int, col: int) -> list[int]:
        """Return the offset of a pixel of the first image on the canvases of each scale."""
        row, col = row - self.top, col + self.top * self.lag - self.base
        return [(row >> scale) * frame.row + (col >> scale) for scale, frame in enumerate(self.frames)]
