"""The gray view of a few bits, where the objects of an image are."""

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

    The luma, the brightness of a color, is that of ITU-R BT.601, `y = 0.299 r + 0.587 g + 0.114 b`, rounded half up; an
    image of one channel is its own luma. The paper's Grayscale PixelCNN has `bits=4`.

    Args:
        bits: of the view, from 1 to 16, and at most those of the image.

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
            raise ValueError(f"bits={self.bits!r}: {2**self.bits} gray levels of an image of {levels}; use fewer bits")
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
        # The luma is in a bucket of at least one level, and 1000 sums round to a level: more than any weight, so that
        # the sums that can be reached leave no bucket out.
        lowest, beyond = (-(-(view + side) * levels // 2**self.bits) for side in (0, 1))
        return Bounds(1000 * lowest - 500, 1000 * beyond - 501)
