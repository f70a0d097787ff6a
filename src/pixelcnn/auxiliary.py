"""Auxiliary variables: the simpler view of an image that is modelled first.

An auxiliary variable is a deterministic function `a` of an image whose value is an image again, so that
`log p(x) >= log p(a(x)) + log p(x | a(x))`, and so that auxiliary variables can be chained. All arithmetic is done in
integers: a view is the same on every machine.

A view says of each of its pixels that a weighted sum of some sub-pixels of the image, its *cell*, lies between two
integers: a square of one channel for `Downsample`, the channels of one pixel for `QuantizedGrayscale`. So each
sub-pixel, given those of its cell before it, lies in an interval, which is empty for none that can be reached:

    lowest  = ceil((least sum - sum before - most that can follow) / weight)
    highest = floor((greatest sum - sum before - least that can follow) / weight)

Reference: Kolesnikov & Lampert, PixelCNN models with auxiliary variables (ICML 2017), section 3.
"""

__all__ = ["Auxiliary", "Downsample", "Filling", "QuantizedGrayscale"]

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcnn.likelihoods import Bounds, check_whole


class Auxiliary(ABC):
    """A view of images of a given number of channels and levels, which is monotone in every sub-pixel."""

    @property
    @abstractmethod
    def shrinkage(self) -> int:
        """How many times smaller the view is in each direction, rounded up."""

    def view_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of the view of an image of that (H, W)."""
        return -(-size[0] // self.shrinkage), -(-size[1] // self.shrinkage)

    @abstractmethod
    def view_format(self, channels: int, levels: int) -> tuple[int, int]:
        """Channels and levels of the view of an image with these channels and levels.

        Raises:
            ValueError: where there is no such view.
        """

    @abstractmethod
    def __call__(self, x: Tensor, levels: int) -> Tensor:
        """The view of integers (B, C, H, W) in [0, levels), of the same integer type."""

    @abstractmethod
    def weights(self, channels: int) -> list[int]:
        """What each channel counts for in the sum of its cell."""

    @abstractmethod
    def sums(self, view: Tensor, size: tuple[int, int], levels: int) -> Bounds:
        """The least and the greatest sum of the cell of each pixel of an image (H, W): (B, C or 1, H, W)."""

    @abstractmethod
    def around(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """For each sub-pixel the sum of those of its cell before it, and of those after it: (B, C, H, W) each."""

    def bounds(self, x: Tensor, view: Tensor, levels: int) -> Bounds:
        """Between which values each sub-pixel leaves it possible that `view` is the view.

        Args:
            x: integers (B, C, H, W) in [0, levels). The bounds of a sub-pixel depend on those before it in raster
                order, and in the order red, green, blue within a pixel.
            view: (B, C', H', W').
            levels: of `x`.

        Returns:
            Bounds (B, C, H, W), both ends inclusive; not empty where the sub-pixels before are within theirs.
        """
        weights = _per_channel(self.weights(x.shape[1]), x.device)
        before, _ = self.around(weights * x.to(torch.int64))
        box = whole_box(x.shape, levels, x.device)
        return _bounds(_limits(box, self, view, levels), before, weights, box)

    def guess(self, view: Tensor, channels: int, size: tuple[int, int], levels: int) -> Tensor:
        """What the view says of each sub-pixel of an image (H, W): the mean of its cell, midway in what that can be.

        Args:
            view: (B, C', H', W').
            channels, size, levels: of the image.

        Returns:
            Numbers (B, channels, H, W), about in [0, levels).
        """
        weights = _per_channel(self.weights(channels), view.device)
        ones = weights.expand(1, channels, *size)
        before, after = self.around(ones)
        sums = self.sums(view, size, levels)
        return (sums.lowest + sums.highest) / (2 * (before + ones + after))

    def check(self, x: Tensor, view: Tensor, levels: int) -> None:
        """Raise a ValueError that names the first pixel of a view (B, C', H', W') that is not that of the image."""
        own = self(x, levels)
        wrong = (own != view).any(1)
        if wrong.any():
            image, row, col = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"image {image} has not the view that is given: at row {row}, column {col} of the view {self} is "
                f"{own[image, :, row, col].tolist()} and given is {view[image, :, row, col].tolist()}"
            )


def whole_box(shape: torch.Size | tuple[int, ...], levels: int, device: torch.device) -> Bounds:
    """Bounds that allow every level."""
    lowest = torch.zeros(shape, dtype=torch.int64, device=device)
    return Bounds(lowest, lowest + levels - 1)


def _per_channel(weights: list[int], device: torch.device) -> Tensor:
    return torch.tensor(weights, device=device).view(-1, 1, 1)


def _limits(box: Bounds, auxiliary: Auxiliary, view: Tensor, levels: int) -> Bounds:
    """The sums of the cells, less what can follow each sub-pixel when all lie in a box: bounds of the sum up to it."""
    _, C, H, W = box.lowest.shape
    weights, sums = _per_channel(auxiliary.weights(C), box.lowest.device), auxiliary.sums(view, (H, W), levels)
    least, most = (auxiliary.around(weights * end)[1] for end in box)
    return Bounds(sums.lowest - most, sums.highest - least)


def _bounds(limits: Bounds, before: Tensor, weight: Tensor | int, box: Bounds) -> Bounds:
    """Bounds of sub-pixels with this sum before them in their cell."""
    lowest = -((before - limits.lowest) // weight)
    highest = (limits.highest - before) // weight
    return Bounds(torch.maximum(lowest, box.lowest), torch.minimum(highest, box.highest))


class CellBounds(NamedTuple):
    """The bounds of some pixels (B, C, N), channel by channel, as `Likelihood.sample` asks for them."""

    limits: Tensor  # (2, B, C, N)
    box: Tensor  # (2, B, C, N)
    spent: Tensor  # (B, C, N): the sum in their cells before them
    weights: tuple[int, ...]
    shared: bool  # whether the channels of a pixel are in one cell

    def __call__(self, drawn: list[Tensor]) -> Bounds:
        channel = len(drawn)
        before = self.spent[:, channel]
        if self.shared:
            for weight, values in zip(self.weights, drawn, strict=False):
                before = before + weight * values
        limits, box = Bounds(*self.limits[:, :, channel]), Bounds(*self.box[:, :, channel])
        return _bounds(limits, before, self.weights[channel], box)


class Filling:
    """The bounds of an image that is filled in a causal order, group by group.

    The pixels of a group must be in different cells, and the cell of a pixel filled up to it: with a lag of at least
    the `shrinkage` of the auxiliary variable they are.

    Args:
        box: between which values the sub-pixels lie anyway, (B, C, H, W) each.
        auxiliary: whose value is given, if one is.
        view: that value, (B, C', H', W').
        levels: of the image.
    """

    def __init__(self, box: Bounds, auxiliary: Auxiliary | None, view: Tensor | None, levels: int) -> None:
        B, C, H, W = box.lowest.shape
        self.box = self.limits = torch.stack(box)
        self.side, self.weights, self.shared = 1, (1,) * C, False
        if auxiliary is not None and view is not None:
            self.side, self.weights = auxiliary.shrinkage, tuple(auxiliary.weights(C))
            self.limits = torch.stack(_limits(box, auxiliary, view, levels))
            self.shared = self.side == 1
        cells = -(-H // self.side), -(-W // self.side)
        self.spent = torch.zeros(B, C, *cells, dtype=torch.int64, device=box.lowest.device)

    def next_bounds(self, rows: Tensor, cols: Tensor) -> CellBounds:
        """The bounds of the pixels at rows (N,) and cols (N,)."""
        limits, box = self.limits[..., rows, cols], self.box[..., rows, cols]
        spent = self.spent[:, :, rows // self.side, cols // self.side]
        return CellBounds(limits, box, spent, self.weights, self.shared)

    def fill(self, rows: Tensor, cols: Tensor, values: Tensor) -> None:
        """Take notice of what the pixels at rows (N,) and cols (N,) were filled with: (B, C, N)."""
        if self.side > 1:
            self.spent[:, :, rows // self.side, cols // self.side] += values


LUMA = [299, 587, 114]  # thousandths of red, green and blue, of ITU-R BT.601


@dataclass(frozen=True)
class QuantizedGrayscale(Auxiliary):
    """The top bits of the luma, as one channel: `floor(y * 2^bits / levels)`.

    The luma is that of ITU-R BT.601, `y = 0.299 r + 0.587 g + 0.114 b`, rounded half up; an image of one channel is its
    own luma. The paper's Grayscale PixelCNN has `bits=4`.
    """

    bits: int = 4

    def __post_init__(self) -> None:
        check_whole(bits=self.bits)

    @property
    def shrinkage(self) -> int:
        return 1

    def view_format(self, channels: int, levels: int) -> tuple[int, int]:
        if 2**self.bits > levels:
            raise ValueError(f"bits={self.bits!r}: {2**self.bits} grey levels of an image of {levels}; use fewer bits")
        return 1, 2**self.bits

    def __call__(self, x: Tensor, levels: int) -> Tensor:
        if x.shape[1] == 3:
            luma = ((x * _per_channel(LUMA, x.device)).sum(1, keepdim=True) + 500) // 1000
        else:
            luma = x.to(torch.int64)
        return (luma * 2**self.bits // levels).to(x.dtype)

    def weights(self, channels: int) -> list[int]:
        return LUMA if channels == 3 else [sum(LUMA)]

    def sums(self, view: Tensor, size: tuple[int, int], levels: int) -> Bounds:
        # The luma is in a bucket of at least one level, and 1000 sums round to a level: more than any weight, so that
        # the sums that can be reached leave no bucket out.
        lowest, beyond = (-(-(view.to(torch.int64) + side) * levels // 2**self.bits) for side in (0, 1))
        return Bounds(1000 * lowest - 500, 1000 * beyond - 501)

    def around(self, x: Tensor) -> tuple[Tensor, Tensor]:
        up_to = x.cumsum(1)
        return up_to - x, up_to[:, -1:] - up_to


@dataclass(frozen=True)
class Downsample(Auxiliary):
    """Every channel averaged over squares of `factor` x `factor` pixels, rounded half up.

    At the right and the lower border only the pixels that exist are averaged, so that any size has a view. The paper's
    Pyramid PixelCNN chains `Downsample(2)`.
    """

    factor: int = 2

    def __post_init__(self) -> None:
        check_whole(factor=self.factor, at_least=2)

    @property
    def shrinkage(self) -> int:
        return self.factor

    def view_format(self, channels: int, levels: int) -> tuple[int, int]:
        return channels, levels

    def __call__(self, x: Tensor, levels: int) -> Tensor:
        total = self._squares(x.to(torch.int64)).sum((3, 5))
        count = self._counts(x.shape[-2:], x.device)
        return ((2 * total + count) // (2 * count)).to(x.dtype)

    def weights(self, channels: int) -> list[int]:
        return [1] * channels

    def sums(self, view: Tensor, size: tuple[int, int], levels: int) -> Bounds:
        count, value = self._counts(size, view.device), view.to(torch.int64)
        ends = Bounds(-(-(2 * value - 1) * count // 2), ((2 * value + 1) * count - 1) // 2)
        H, W = size
        return Bounds(
            *(end.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)[:, :, :H, :W] for end in ends)
        )

    def around(self, x: Tensor) -> tuple[Tensor, Tensor]:
        B, C, H, W = x.shape
        squares = self._squares(x)
        h, f, w, _ = squares.shape[2:]
        cells = squares.transpose(3, 4).flatten(4)  # (B, C, h, w, f * f), in raster order
        up_to = cells.cumsum(4)
        before, after = (
            sums.view(B, C, h, w, f, f).transpose(3, 4).reshape(B, C, h * f, w * f)[:, :, :H, :W]
            for sums in (up_to - cells, up_to[..., -1:] - up_to)
        )
        return before, after

    def _squares(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, h, f, w, f), with zeros for the pixels that do not exist."""
        B, C, H, W = x.shape
        h, w = self.view_size((H, W))
        f = self.factor
        return F.pad(x, (0, w * f - W, 0, h * f - H)).view(B, C, h, f, w, f)

    def _counts(self, size: tuple[int, ...], device: torch.device) -> Tensor:
        """The pixels that exist in each square, (h, w)."""
        f = self.factor
        rows, cols = ((side - torch.arange(0, side, f, device=device)).clamp(max=f) for side in size)
        return rows[:, None] * cols
