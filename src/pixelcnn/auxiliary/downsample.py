"""A smaller view of an image: the averages of its squares."""

__all__ = ["Downsample"]

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcnn.auxiliary.base import register_auxiliary
from pixelcnn.auxiliary.cells import CellAuxiliary
from pixelcnn.common.checks import check_whole
from pixelcnn.likelihoods.base import Bounds


@register_auxiliary
@dataclass(frozen=True)
class Downsample(CellAuxiliary):
    """The average of each channel over squares of `factor` x `factor` pixels, with halves rounded up.

    At the right and the bottom border, only the pixels that exist are averaged, so that images of any size have a view.
    The Pyramid PixelCNN of the paper is a chain of `Downsample(2)`.

    Args:
        factor: how many times smaller the view is, at least 2.

    Example:
        >>> import torch
        >>> from pixelcnn import Downsample
        >>> Downsample(2)(torch.tensor([[[[1, 2, 9], [3, 4, 9]]]]), levels=256)  # the last column has no partner
        tensor([[[[3, 9]]]])
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
        f, (h, w) = self.factor, self.view_size((H, W))
        total = F.pad(x.to(torch.int64), (0, w * f - W, 0, h * f - H)).view(B, C, h, f, w, f).sum((3, 5))
        count = self._counts((H, W), x.device)
        return ((2 * total + count) // (2 * count)).to(x.dtype)

    def weights(self, channels: int) -> list[int]:
        return [1] * channels

    def sums(self, view: Tensor, size: tuple[int, int], levels: int) -> Bounds:
        count = self._counts(size, view.device)
        return Bounds(-(-(2 * view - 1) * count // 2), ((2 * view + 1) * count - 1) // 2)

    def _counts(self, size: tuple[int, int], device: torch.device) -> Tensor:
        """Count the pixels that exist in each square, (h, w)."""
        f = self.factor
        rows, cols = ((side - torch.arange(0, side, f, device=device)).clamp(max=f) for side in size)
        return rows[:, None] * cols
