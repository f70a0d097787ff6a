"""Auxiliary variables: the simpler view of an image that is modelled first.

An auxiliary variable is a deterministic function `a` of an image whose value is an image again, so that
`log p(x) >= log p(a(x)) + log p(x | a(x))`, and so that auxiliary variables can be chained. All arithmetic is done in
integers: a view is the same on every machine.

Reference: Kolesnikov & Lampert, PixelCNN models with auxiliary variables (ICML 2017), section 3.
"""

__all__ = ["Auxiliary", "Downsample", "QuantizedGrayscale"]

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcnn.likelihoods import check_whole


class Auxiliary(ABC):
    """A view of images of a given number of channels and levels."""

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
            weights = torch.tensor([299, 587, 114], device=x.device).view(-1, 1, 1)
            luma = ((x * weights).sum(1, keepdim=True) + 500) // 1000
        else:
            luma = x.to(torch.int64)
        return (luma * 2**self.bits // levels).to(x.dtype)


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
        B, C, H, W = x.shape
        f = self.factor
        h, w = self.view_size((H, W))
        padded = F.pad(x.to(torch.int64), (0, w * f - W, 0, h * f - H))
        total = padded.reshape(B, C, h, f, w, f).sum((3, 5))
        rows = (H - f * torch.arange(h, device=x.device)).clamp(max=f)
        cols = (W - f * torch.arange(w, device=x.device)).clamp(max=f)
        count = rows[:, None] * cols
        return ((2 * total + count) // (2 * count)).to(x.dtype)
