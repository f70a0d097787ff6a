"""Views whose pixels each bound a weighted sum of some sub-pixels of the image, its *cell*.

A cell is a square of `shrinkage` x `shrinkage` pixels, of one channel or of all channels together: a square of one
channel for `Downsample`, the channels of one pixel for `QuantizedGrayscale`. So each sub-pixel, given those of its cell
before it, lies in an interval:

    lowest  = ceil((least sum - sum before - most that can follow) / weight)
    highest = floor((greatest sum - sum before - least that can follow) / weight)

Wherever a value within its interval always leaves an interval for the next one, a factor that draws between these
bounds draws all images that have the view, and no others.
"""

__all__ = ["CellAuxiliary", "Filling", "whole_box"]

from abc import abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcnn.auxiliary.base import Auxiliary
from pixelcnn.likelihoods.base import Bounds


class CellAuxiliary(Auxiliary):
    """A view that bounds sums over cells, and that is monotone in every sub-pixel: what consistent models need.

    Every view must be that of some image, and a weight must not be so large that it skips a possible sum:
    `check_auxiliary` tries both on tiny images.
    """

    joint_channels = False
    """Whether the channels of a pixel lie in one cell, instead of one each."""

    @abstractmethod
    def weights(self, channels: int) -> list[int]:
        """List the weight of each channel in the sum of its cell: positive integers."""

    @abstractmethod
    def sums(self, view: Tensor, size: tuple[int, int], levels: int) -> Bounds:
        """Bound the sums of the cells that have this view, both ends inclusive.

        Args:
            view: int64 (B, C', H', W').
            size, levels: of the image.

        Returns:
            Integers (B, C, H', W'), or (B, 1, H', W') for joint channels.
        """

    def expectation(self, view: Tensor, channels: int, size: tuple[int, int], levels: int) -> Tensor:
        """Estimate each sub-pixel by the mean of its cell: midway between what its view allows."""
        ones = per_channel(self.weights(channels), view.device).expand(1, channels, *size)
        before, after = self.partial_sums(ones)
        sums = self._sums_of_pixels(view, size, levels)
        return (sums.lowest + sums.highest) / (2 * (before + ones + after))

    def bounds(self, x: Tensor, view: Tensor, levels: int) -> Bounds:
        """Bound each sub-pixel of an image by what its view leaves possible, given the sub-pixels before it.

        Args:
            x: integers (B, C, H, W) in [0, levels). The bounds of a sub-pixel depend on those before it in raster
                order, and in the order red, green, blue within a pixel.
            view: (B, C', H', W').
            levels: of `x`.

        Returns:
            Bounds (B, C, H, W), both ends inclusive; not empty where the sub-pixels before are within theirs.
        """
        weights = per_channel(self.weights(x.shape[1]), x.device)
        before, _ = self.partial_sums(weights * x.to(torch.int64))
        box = whole_box(x.shape, levels, x.device)
        return interval(self.limits(box, view, levels), before, weights, box)

    def limits(self, box: Bounds, view: Tensor, levels: int) -> Bounds:
        """Bound the sum of each cell up to each sub-pixel, when all sub-pixels lie in a box: (B, C, H, W) each."""
        _, C, H, W = box.lowest.shape
        weights = per_channel(self.weights(C), box.lowest.device)
        sums = self._sums_of_pixels(view, (H, W), levels)
        least, most = (self.partial_sums(weights * end)[1] for end in box)
        return Bounds(sums.lowest - most, sums.highest - least)

    def partial_sums(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Sum, for each sub-pixel, those of its cell before it, and those after it: (B, C, H, W) each."""
        _, C, H, W = x.shape
        f = self.shrinkage
        h, w = self.view_size((H, W))
        squares = F.pad(x, (0, w * f - W, 0, h * f - H)).view(-1, C, h, f, w, f).permute(0, 2, 4, 3, 5, 1)
        cells = squares.flatten(3) if self.joint_channels else squares.flatten(3, 4)  # each in the order of visiting
        up_to = cells.cumsum(3)
        before, after = (
            sums.view(-1, h, w, f, f, C).permute(0, 5, 1, 3, 2, 4).reshape(-1, C, h * f, w * f)[:, :, :H, :W]
            for sums in (up_to - cells, up_to[:, :, :, -1:] - up_to)
        )
        return before, after

    def _sums_of_pixels(self, view: Tensor, size: tuple[int, int], levels: int) -> Bounds:
        """The bounds of the cell that each pixel lies in: (B, C or 1, H, W)."""
        sums, f = self.sums(view.to(torch.int64), size, levels), self.shrinkage
        if f == 1:
            return sums
        H, W = size
        return Bounds(*(end.repeat_interleave(f, 2).repeat_interleave(f, 3)[:, :, :H, :W] for end in sums))


def whole_box(shape: torch.Size | tuple[int, ...], levels: int, device: torch.device) -> Bounds:
    """Bounds that allow every level."""
    lowest = torch.zeros(shape, dtype=torch.int64, device=device)
    return Bounds(lowest, lowest + levels - 1)


def per_channel(weights: list[int], device: torch.device) -> Tensor:
    """Weights as a tensor (C, 1, 1)."""
    return torch.tensor(weights, device=device).view(-1, 1, 1)


def interval(limits: Bounds, before: Tensor, weight: Tensor | int, box: Bounds) -> Bounds:
    """Bounds of sub-pixels with this sum before them in their cell."""
    lowest = -((before - limits.lowest) // weight)
    highest = (limits.highest - before) // weight
    return Bounds(torch.maximum(lowest, box.lowest), torch.minimum(highest, box.highest))


class CellBounds(NamedTuple):
    """The bounds of some pixels (B, C, N), channel by channel, as `Likelihood.sample` asks for them."""

    limits: Tensor  # (2, B, C, N)
    box: Tensor  # (2, B, C, N)
    spent: Tensor  # (B, C, N): the sum in their cells before the pixel
    weights: tuple[int, ...]
    joint_channels: bool

    def __call__(self, drawn: list[Tensor]) -> Bounds:
        channel = len(drawn)
        before = self.spent[:, channel]
        if self.joint_channels:
            for weight, values in zip(self.weights, drawn, strict=False):
                before = before + weight * values
        limits, box = Bounds(*self.limits[:, :, channel]), Bounds(*self.box[:, :, channel])
        return interval(limits, before, self.weights[channel], box)


class Filling:
    """The bounds of an image that is filled in a causal order, group by group.

    The pixels of a group must be in different cells, and the cell of a pixel filled up to it: with a lag of at least
    the `shrinkage` of the auxiliary variable they are.

    Args:
        box: bounds of the sub-pixels in any case, (B, C, H, W) each.
        auxiliary: whose view is given; None if none is.
        view: that view, (B, C', H', W').
        levels: of the image.
    """

    def __init__(self, box: Bounds, auxiliary: CellAuxiliary | None, view: Tensor | None, levels: int) -> None:
        B, C, H, W = box.lowest.shape
        self.box = self.limits = torch.stack(box)
        self.side, self.weights, self.joint_channels = 1, (1,) * C, False
        if auxiliary is not None and view is not None:
            self.side, self.weights = auxiliary.shrinkage, tuple(auxiliary.weights(C))
            self.limits = torch.stack(auxiliary.limits(box, view, levels))
            self.joint_channels = auxiliary.joint_channels
        cells = -(-H // self.side), -(-W // self.side)
        self.spent = torch.zeros(B, C, *cells, dtype=torch.int64, device=box.lowest.device)

    def next_bounds(self, rows: Tensor, cols: Tensor) -> CellBounds:
        """The bounds of the pixels at rows (N,) and cols (N,)."""
        limits, box = self.limits[..., rows, cols], self.box[..., rows, cols]
        spent = self.spent[:, :, rows // self.side, cols // self.side]
        return CellBounds(limits, box, spent, self.weights, self.joint_channels)

    def fill(self, rows: Tensor, cols: Tensor, values: Tensor) -> None:
        """Take note of what the pixels at rows (N,) and cols (N,) were filled with: (B, C, N)."""
        if self.side == 1:
            return  # no cell has another pixel
        if any(weight != 1 for weight in self.weights):
            values = values * per_channel(list(self.weights), values.device)[:, :, 0]
        if self.joint_channels:
            values = values.sum(1, keepdim=True)
        self.spent[:, :, rows // self.side, cols // self.side] += values
