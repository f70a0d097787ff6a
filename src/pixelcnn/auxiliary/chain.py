"""The chain of views `x = x_0, x_1 = a_1(x_0), ..., x_K = a_K(x_{K-1})` of an image."""

__all__ = ["Chain", "Link", "check_images", "view_in_bands"]

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pixelcnn.auxiliary.base import Auxiliary
from pixelcnn.auxiliary.cells import CellAuxiliary
from pixelcnn.common.checks import check_integers, tensor_hint
from pixelcnn.likelihoods.base import check_format

BAND = 2**20  # pixels whose view is made at once, to save memory: sums take eight bytes each


class Link(NamedTuple):
    """A view, and the next view of the chain, which its factor is given; None for the last view."""

    view: Tensor
    given: Tensor | None


class Chain:
    """Auxiliary variables applied one after another to images of a given format.

    Args:
        channels, levels: of the images.
        auxiliaries: a_1, ..., a_K; an empty list for the image alone.

    Attributes:
        formats: channels and levels of each view, the image first.

    Raises:
        ValueError: if an auxiliary variable cannot be applied to the view before it.

    Example:
        >>> from pixelcnn import Downsample, QuantizedGrayscale
        >>> from pixelcnn.auxiliary import Chain
        >>> chain = Chain(3, 256, [Downsample(2), QuantizedGrayscale(bits=4)])
        >>> chain.formats, chain.sizes((9, 6))
        ([(3, 256), (3, 256), (1, 16)], [(9, 6), (5, 3), (5, 3)])
    """

    def __init__(self, channels: int, levels: int, auxiliaries: Sequence[Auxiliary] = ()) -> None:
        check_format(channels, levels)
        if not isinstance(auxiliaries, list | tuple) or not all(isinstance(a, Auxiliary) for a in auxiliaries):
            raise ValueError(f"auxiliaries={auxiliaries!r}: use a list such as [Downsample(2), QuantizedGrayscale(4)]")
        self.auxiliaries = tuple(auxiliaries)
        self.formats = [(channels, levels)]
        for auxiliary in self.auxiliaries:
            self.formats.append(auxiliary.view_format(*self.formats[-1]))

    def given_format(self, k: int) -> tuple[int, int]:
        """Return the channels and levels of view k, given which the views before it are drawn.

        Raises:
            ValueError: if there is no such view, or it is the image itself.
        """
        if k not in range(1, len(self.formats)):
            raise ValueError(f"given={k!r}, ...: use a view from 1 to {len(self.formats) - 1} of this model")
        return self.formats[k]

    def sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Return (H, W) of every view of an image of size (H, W), the image first."""
        sizes = [size]
        for auxiliary in self.auxiliaries:
            sizes.append(auxiliary.view_size(sizes[-1]))
        return sizes

    def pixels(self, size: tuple[int, int], first: int = 0) -> int:
        """Count the pixels of all views of an image of size (H, W), from view `first` on."""
        return sum(math.prod(each) for each in self.sizes(size)[first:])

    def views(self, x: Tensor, device: torch.device | None = None) -> list[Tensor]:
        """Make the views x_0 = x, ..., x_K of integers (B, C, H, W), each from the one before, on a device.

        Raises:
            ValueError: if `x` is not (B, C, H, W), not of an integer type, or has values out of range.
        """
        check_images(x, *self.formats[0])
        views = [x.to(device)]
        for auxiliary, (_, levels) in zip(self.auxiliaries, self.formats, strict=False):
            views.append(view_in_bands(auxiliary, views[-1], levels))
        return views

    def links(self, x: Tensor, device: torch.device | None = None) -> list[Link]:
        """Pair each view with the one that its factor is given: (x_0, x_1), ..., (x_K, None)."""
        views = self.views(x, device)
        return [Link(view, given) for view, given in zip(views, [*views[1:], None], strict=True)]


def require_cells(
    auxiliary: Auxiliary, what: str = "consistent models", remedy: str = "use consistent=False, or derive it"
) -> CellAuxiliary:
    """Return the auxiliary variable if it bounds the pixels of the image; otherwise raise a ValueError."""
    if not isinstance(auxiliary, CellAuxiliary):
        raise ValueError(
            f"{auxiliary!r} does not say which images have a given view, which {what} need: {remedy} from CellAuxiliary"
        )
    return auxiliary


def check_images(x: object, channels: int, levels: int, name: str = "x") -> None:
    """Raise a ValueError unless `x` holds integers (B, channels, H, W) in [0, levels)."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} of type {type(x).__name__}: use a tensor of images (B, {channels}, H, W)")
    if x.dim() != 4 or x.shape[1] != channels or 0 in x.shape[2:]:
        hint = tensor_hint(x.shape, channels, name)
        raise ValueError(f"{name} of shape {tuple(x.shape)}: use images (B, {channels}, H, W){hint}")
    check_integers(x.dtype, levels, name)
    if x.numel() and not (int(x.min()) >= 0 and int(x.max()) < levels):
        raise ValueError(f"{name} with values from {int(x.min())} to {int(x.max())}: use integers in [0, {levels})")


def view_in_bands(auxiliary: Auxiliary, x: Tensor, levels: int) -> Tensor:
    """Make the view of images, in bands of rows if they are large and the view of a band depends on nothing else."""
    B, _, H, W = x.shape
    f = auxiliary.shrinkage
    rows = max(1, BAND // max(1, B * W * f)) * f
    if rows >= H or not isinstance(auxiliary, CellAuxiliary):
        return auxiliary(x, levels)
    return torch.cat([auxiliary(x[:, :, row : row + rows], levels) for row in range(0, H, rows)], 2)
