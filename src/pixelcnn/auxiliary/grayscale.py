"""A gray view of an image with a few bits, enough to show its shapes."""

__all__ = ["QuantizedGrayscale"]

from dataclasses import dataclass

import torch
from torch import Tensor

from pixelcnn.auxiliary.base import register_auxiliary
from pixelcnn.auxiliary.cells import CellAuxiliary, per_channel
from pixelcnn.common.checks import check_whole
from pixelcnn.likelihoods.base import Bounds

LUMA = [299, 587, 114]  # thousandths of red, green and blue in the luma of ITU-R BT.601
MOST_BITS = 16


@register_auxiliary
@dataclass(frozen=True)
class QuantizedGrayscale(CellAuxiliary):
    """The top bits of the luma, as one channel: `floor(y * 2^bits / levels)`.

    The *luma* is the brightness of a color as ITU-R BT.601 defines it, `y = 0.299 r + 0.587 g + 0.114 b`, with halves
    rounded up. The luma of an image of one channel is the image itself. The Grayscale PixelCNN of the paper has
    `bits=4`.

    Args:
        bits: of the view, from 1 to 16, and no more than the image has.

    Example:
        >>> import torch
        >>> from pixelcnn import QuantizedGrayscale
        >>> QuantizedGrayscale(bits=4)(torch.tensor([[[[255]], [[128]], [[0]]]]), levels=256)  # an orange pixel
        tensor([[[[9]]]])
    """

    bits: int = 4

    joint_channels = True

    def __post_init__(self) -> None:
        check_whole(bits=self.bits)
        if self.bits > MOST_BITS:
            raise ValueError(f"bits={self.bits!r}: use at most {MOST_BITS}")

    def view_format(self, channels: int, levels: int) -> tuple[int, int]:
        if 2**self.bits > levels:
            raise ValueError(f"bits={self.bits!r}: the image has only {levels} levels; use fewer bits")
        return 1, 2**self.bits

    def __call__(self, x: Tensor, levels: int) -> Tensor:
        if x.shape[1] == 3:
            luma = ((x * per_channel(LUMA, x.device)).sum(1, keepdim=True) + 500) // 1000
        else:
            luma = x.to(torch.int64)
        return (luma * 2**self.bits // levels).to(x.dtype)

    def weights(self, channels: int) -> list[int]:
        return LUMA if channels == 3 else [sum(LUMA)]

    def sums(self, view: Tensor, size: tuple[int, int], levels: int) -> Bounds:
        # A view covers at least one level of luma, and 1000 sums round to each level. That is more than any weight, so
        # no view is skipped: each has a sum that some color reaches.
        lowest, beyond = (-(-(view + side) * levels // 2**self.bits) for side in (0, 1))
        return Bounds(1000 * lowest - 500, 1000 * beyond - 501)
