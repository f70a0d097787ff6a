"""The activations of a network at a few pixels at a time: canvases that hold them, and values that are computed there.

A canvas holds one value of the forward pass at those pixels of the image that may still be read. Pixel (i, j) of image
b of B, at time `t = j + lag * i`, is at

    ((i - top) * B + b) * pitch + t - base

so that the columns that a row of a kernel reads are neighbours, and the pixels of one time of all images stand at equal
distances: they are a matrix with a leading dimension, which is multiplied where it lies. The window of the rows from
`top` on and the times from `base` on, `pitch` of them, moves with the wavefront. In raster order, where a time is a
column, `pitch = W + 1` and `lag = base = 0`: between two images lies a column of zeros.
"""

__all__ = ["ROWS_ABOVE", "Canvas", "Place"]

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

ROWS_ABOVE = 2  # kept above the window: no kernel reads further up


class Canvas:
    """A value of `features` numbers at the pixels of a window of the image, with zeros beyond the image's borders.

    Offsets count pixels from the first slot of the first row of the first image.
    """

    def __init__(self, features: int, size: tuple[int, int], batch: int, lag: int) -> None:
        self.features, self.batch = features, batch
        self.rows, self.pitch = size  # and how many slots there are from an image to the next
        self.row = batch * self.pitch + lag  # from a pixel to the one below it
        self.origin = ROWS_ABOVE * self.row + 1
        self.numel = (self.origin + self.rows * self.row + 1) * features
        self.start, self.strides = self.origin * features, (self.pitch * features, 1)

    def allocate(self, like: Tensor) -> None:
        self.buffer = like.new_zeros(self.numel)

    def group(self, offset: int, count: int, cols: int = 1) -> Tensor:
        """What `cols` columns hold, for `count` pixels at the distance of a group: a view (count, cols * features)."""
        features = self.features
        return self.buffer.as_strided((count, cols * features), self.strides, self.start + offset * features)

    def line(self, offset: int, count: int, number: int, cols: int = 1, step: int = 1) -> Tensor:
        """`number` such groups, `step` columns apart: a view (number, count, cols * features)."""
        features = self.features
        strides = step * features, *self.strides
        return self.buffer.as_strided((number, count, cols * features), strides, self.start + offset * features)

    def image(self, offset: int, rows: int, cols: int) -> Tensor:
        """A part of every image: a view (B, features, rows, cols)."""
        strides = self.pitch * self.features, 1, self.row * self.features, self.features
        shape = self.batch, self.features, rows, cols
        return self.buffer.as_strided(shape, strides, self.start + offset * self.features)

    def move(self, source: int, target: int, count: int, cols: int) -> None:
        """Keep what a group of `cols` columns holds when the window moves: it is then at another offset."""
        kept = self.group(source, count, cols).clone()
        self.group(target, count, cols).copy_(kept)


class Place(NamedTuple):
    """Where values are evaluated: `count` pixels at the distance of a group, or a line of pixels from each of them on.

    The lists have an entry for each scale.
    """

    row: int  # of the first pixel
    col: int
    count: int
    offsets: list[int]  # of the first pixel on the canvases
    numbers: list[int]  # pixels in a line
    first: int = 0  # for a group: the first of its pixels among those of the last line
    steps: Sequence[int] = ()  # and how far along the line they are
