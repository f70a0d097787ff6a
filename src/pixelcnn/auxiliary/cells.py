"""Views in which each pixel bounds a weighted sum over its *cell*, a few sub-pixels of the image.

A *sub-pixel* is one channel of one pixel. A cell is a square of `shrinkage` x `shrinkage` pixels, either of one channel
or of all channels together. For `Downsample` it is a square of one channel; for `QuantizedGrayscale` it is the channels
of one pixel. So each sub-pixel, given those before it in its cell, lies in an interval:

    lowest  = ceil((least sum - sum before - most that can follow) / weight)
    highest = floor((greatest sum - sum before - least that can follow) / weight)

If every value in its interval leaves a non-empty interval for the next sub-pixel, then a factor that draws within these
bounds can draw every image that has the view, and no other image.
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
    """A view that bounds sums over cells, as consistent models need.

    The view must not decrease when a sub-pixel increases. Every view within its format must belong to some image, and
    no weight may be so large that it skips a possible sum. `check_auxiliary` checks the last two on tiny images.

    Example:
        >>> from dataclasses import dataclass
        >>> from pixelcnn import CellAuxiliary, check_auxiliary
        >>> from pixelcnn.likelihoods import Bounds
        >>> @dataclass(frozen=True)
        ... class HalfTheLevels(CellAuxiliary):
        ...     def view_format(self, channels, levels):
        ...         return channels, levels // 2
        ...
        ...     def __call__(self, x, levels):
        ...         return x // 2
        ...
        ...     def weights(self, channels):
        ...         return [1] * channels
        ...
        ...     def sums(self, view, size, levels):
        ...         return Bounds(2 * view, 2 * view + 1)
        >>> check_auxiliary(HalfTheLevels(), levels=4)
    """

    joint_channels = False
    """Whether a cell holds all channels of its pixels, instead of one channel."""

    @abstractmethod
    def weights(self, channels: int) -> list[int]:
        """Return the weight of each channel in the sum of its cell: positive integers."""

    @abstractmethod
    def sums(self, view: Tensor, size: tuple[int, int], levels: int) -> Bounds:
        """Return the bounds that a view sets on the sum of each cell, both ends included.

        Args:
            view: int64 (B, C', H', W').
            size, levels: of the image.

        Returns:
            Integers (B, C, H', W'), or (B, 1, H', W') for joint channels.
        """

    def expectation(self, view: Tensor, channels: int, size: tuple[int, int], levels: int) -> Tensor:
        """Estimate each sub-pixel by the mean of its cell, from the middle of the sums that the view allows."""
        ones = per_channel(self.weights(channels), view.device).expand(1, channels, *size)
        before, after = self.partial_sums(ones)
        sums = self.sums_of_pixels(view, size, levels)
        # In float32 whatever the default type, since compressed files depend on every bit of it.
        middle, count = (each.to(torch.float32) for each in (sums.lowest + sums.highest, 2 * (before + ones + after)))
        return middle / count

    def bounds(self, x: Tensor, view: Tensor, levels: int) -> Bounds:
        """Return the bounds that a view sets on each sub-pixel of an image, given the sub-pixels before it.

        Args:
            x: integers (B, C, H, W) in [0, levels). The bounds of a sub-pixel depend on those before it in raster
                order, and in the order red, green, blue within a pixel.
            view: (B, C', H', W').
            levels: of `x`.

        Returns:
            Bounds (B, C, H, W), both ends included. If the sub-pixels before are within their bounds, there is at least
            one value within these.
        """
        weights = per_channel(self.weights(x.shape[1]), x.device)
        before, _ = self.partial_sums(weights * x.to(torch.int64))
        box = whole_box(x.shape, levels, x.device)
        return interval(self.limits(box, view, levels), before, weights, box)

    def limits(self, box: Bounds, view: Tensor, levels: int) -> Bounds:
        """Bound the sum of each cell up to each sub-pixel, (B, C, H, W), if all sub-pixels lie in a box."""
        _, C, H, W = box.lowest.shape
        weights = per_channel(self.weights(C), box.lowest.device)
        sums = self.sums_of_pixels(view, (H, W), levels)
        least, most = (self.partial_sums(weights * end)[1] for end in box)
        return Bounds(sums.lowest - most, sums.highest - least)

    def partial_sums(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """For each sub-pixel, sum those before it in its cell, and those after it: (B, C, H, W) each."""
        _, C, H, W = x.shape
        f = self.shrinkage
        h, w = self.view_size((H, W))
        squares = F.pad(x, (0, w * f - W, 0, h * f - H)).view(-1, C, h, f, w, f).permute(0, 2, 4, 3, 5, 1)
        cells = squares.flatten(3) if self.joint_channels else squares.flatten(3, 4)  # each in the order of visits
        up_to = cells.cumsum(3)
        before, after = (
            sums.view(-1, h, w, f, f, C).permute(0, 5, 1, 3, 2, 4).reshape(-1, C, h * f, w * f)[:, :, :H, :W]
            for sums in (up_to - cells, up_to[:, :, :, -1:] - up_to)
        )
        return before, after

    def sums_of_pixels(self, view: Tensor, size: tuple[int, int], levels: int) -> Bounds:
        """Return the bounds of the sum of the cell that each pixel lies in: (B, C or 1, H, W)."""
        sums, f = self.sums(view.to(torch.int64), size, levels), self.shrinkage
        if f == 1:
            return sums
        H, W = size
        return Bounds(*(end.repeat_interleave(f, 2).repeat_interleave(f, 3)[:, :, :H, :W] for end in sums))


def whole_box(shape: torch.Size | tuple[int, ...], levels: int, device: torch.device) -> Bounds:
    """Make bounds that allow every level."""
    lowest = torch.zeros(shape, dtype=torch.int64, device=device)
    return Bounds(lowest, lowest + levels - 1)


def per_channel(weights: list[int], device: torch.device) -> Tensor:
    """Make a tensor (C, 1, 1) of the weights of channels."""
    return torch.tensor(weights, device=device).view(-1, 1, 1)


def interval(limits: Bounds, before: Tensor, weight: Tensor | int, box: Bounds) -> Bounds:
    """Return the bounds of sub-pixels with the sum `before` them in their cell."""
    lowest = -((before - limits.lowest) // weight)
    highest = (limits.highest - before) // weight
    return Bounds(torch.maximum(lowest, box.lowest), torch.minimum(highest, box.highest))


class CellBounds(NamedTuple):
    """The bounds of a group of pixels (B, C, N), channel by channel, in the form that `Likelihood.sample` takes."""

    limits: Tensor  # (2, B, C, N)
    box: Tensor  # (2, B, C, N)
    spent: Tensor  # (B, C, N): the sum of the pixels before in their cells
    weights: tuple[int, ...]
    joint_channels: bool

    def __call__(self, drawn: list[Tensor]) -> Bounds:
        channel = len(drawn)
        limits, box = Bounds(*self.limits[:, :, channel]), Bounds(*self.box[:, :, channel])
        return interval(limits, self.before(drawn), self.weights[channel], box)

    def before(self, drawn: list[Tensor]) -> Tensor:
        """Sum what comes before the next channel in its cell, (B, N)."""
        before = self.spent[:, len(drawn)]
        if self.joint_channels:
            for weight, values in zip(self.weights, drawn, strict=False):
                before = before + weight * values
        return before

    def of(self, values: Tensor) -> Bounds:
        """Return the bounds of all channels of a group that has these values, (B, C, N) each."""
        channels = list(values.unbind(1))
        return Bounds(*map(torch.stack, zip(*(self(channels[:c]) for c in range(len(channels))), strict=True), [1, 1]))


class Filling:
    """The bounds of the next pixels of an image while it is filled in a causal order, group by group.

    The pixels of a group must lie in different cells, and all pixels before them in their cells must be filled. A lag
    (the number of columns that a row runs ahead of the next) of at least `shrinkage` makes sure of that.

    Args:
        box: bounds of the sub-pixels apart from the view, (B, C, H, W) each.
        auxiliary: the auxiliary variable that made the given view; None if no view is given.
        view: the given view, (B, C', H', W').
        levels: of the image.

    Raises:
        ValueError: if a weight of the auxiliary variable is not positive.
    """

    def __init__(self, box: Bounds, auxiliary: CellAuxiliary | None, view: Tensor | None, levels: int) -> None:
        B, C, H, W = box.lowest.shape
        self.box = self.limits = torch.stack(box).contiguous()
        self.side, self.weights, self.joint_channels = 1, (1,) * C, False
        if auxiliary is not None and view is not None:
            self.side, self.weights = auxiliary.shrinkage, tuple(auxiliary.weights(C))
            if min(self.weights) < 1:
                raise ValueError(f"weights({C}) of {auxiliary} are {list(self.weights)}: use positive integers")
            self.limits = torch.stack(auxiliary.limits(box, view, levels)).contiguous()  # `stack` may keep a layout
            self.joint_channels = auxiliary.joint_channels
        unequal = any(weight != 1 for weight in self.weights)
        self.unequal = per_channel(list(self.weights), box.lowest.device)[:, :, 0] if unequal else None
        cells = -(-H // self.side), -(-W // self.side)
        self.spent = torch.zeros(B, C, *cells, dtype=torch.int64, device=box.lowest.device)

    def next_bounds(self, rows: Tensor, cols: Tensor) -> CellBounds:
        """Return the bounds of the pixels at rows (N,) and cols (N,)."""
        limits, box = self.limits[..., rows, cols], self.box[..., rows, cols]
        spent = self.spent[:, :, rows // self.side, cols // self.side]
        return CellBounds(limits, box, spent, self.weights, self.joint_channels)

    def fill(self, rows: Tensor, cols: Tensor, values: Tensor) -> None:
        """Record the values (B, C, N) that the pixels at rows (N,) and cols (N,) were filled with."""
        if self.side == 1:
            return  # each cell lies within one pixel
        if self.unequal is not None:
            values = values * self.unequal
        if self.joint_channels:
            values = values.sum(1, keepdim=True)
        self.spent[:, :, rows // self.side, cols // self.side] += values

    def words(self) -> list[int]:
        """Describe the tensors to the compiled kernel, as `struct filling` of `kernel/cells.h`."""
        ends = [end.data_ptr() for each in (self.limits, self.box) for end in each]
        H, W = self.box.shape[3:]
        weights = [*self.weights, 0, 0][:3]
        return [*ends, self.spent.data_ptr(), len(self.weights), H, W, self.side, int(self.joint_channels), *weights]
