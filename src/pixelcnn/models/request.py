"""Requests: which images to draw."""

__all__ = ["Hole", "Request"]

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pixelcnn.auxiliary.chain import Chain, check_images
from pixelcnn.common.checks import check_whole

UNKNOWN_SIZE = 32  # drawn by a model that does not know the size it was trained at


@dataclass(frozen=True, eq=False)
class Hole:
    """The unknown part of images, and how many fillings are tried.

    Args:
        x: integers (n, C, H, W); the values of unknown pixels do not matter.
        unknown: bool (n, 1, H, W).
        candidates: number of fillings that are drawn of each view, to choose from (see `pixelcnn.models.completion`).

    Raises:
        ValueError: if there is less than one candidate.
    """

    x: Tensor
    unknown: Tensor
    candidates: int = 1

    def __post_init__(self) -> None:
        check_whole(candidates=self.candidates)


@dataclass(frozen=True, eq=False)
class Request:
    """A description of which images to draw.

    Args:
        n: number of images.
        size: of the images: one number for squares, or (H, W); None for the size of the model.
        seed: of the first image (image i has seed + i), or a sequence with the seed of each image.
        labels: (n,) class labels, for a model with classes.
        given: (k, x_k), where x_k is view k as integers (n, C_k, H_k, W_k): only the views before it are drawn.
        hole: what to draw of images that are partly known; None to draw all of them.

    Example:
        >>> import pixelcnn
        >>> from pixelcnn.models.request import Request
        >>> model = pixelcnn.load("photos-pyramid")
        >>> [(k, tuple(view.shape)) for k, view in model.draw(Request(n=1, size=8))]
        [(2, (1, 3, 2, 2)), (1, (1, 3, 4, 4)), (0, (1, 3, 8, 8))]
    """

    n: int = 1
    size: int | tuple[int, int] | None = None
    seed: int | Sequence[int] = 0
    labels: Tensor | None = None
    given: tuple[int, Tensor] | None = None
    hole: Hole | None = None

    def to(self, device: torch.device) -> "Request":
        """Return the same request with its tensors on a device."""
        given = self.given and (self.given[0], self.given[1].to(device))
        hole = self.hole and replace(self.hole, x=self.hole.x.to(device), unknown=self.hole.unknown.to(device))
        return replace(self, given=given, hole=hole, labels=None if self.labels is None else self.labels.to(device))

    def sides(self) -> tuple[int, int]:
        """Return the size as (H, W).

        Raises:
            ValueError: if `n` or a side is below 1.
        """
        check_whole(n=self.n)
        size = UNKNOWN_SIZE if self.size is None else self.size
        sides = size if isinstance(size, tuple) else (size, size)
        for side in sides:
            check_whole(size=side)
        if len(sides) != 2:
            raise ValueError(f"size={size!r}: use one number for squares, or (H, W)")
        return sides

    def seeds(self) -> Sequence[int]:
        """Return the seed of each image.

        Raises:
            ValueError: if a seed is negative, or there is not one for each image.
        """
        if not isinstance(self.seed, Sequence):
            check_whole(at_least=0, seed=self.seed)
            return range(self.seed, self.seed + self.n)
        for each in self.seed:
            check_whole(at_least=0, seed=each)
        if len(self.seed) != self.n:
            raise ValueError(f"seed={self.seed!r}: use one number, or one for each of {self.n} images")
        return self.seed

    def given_view(self, chain: Chain) -> tuple[int, Tensor | None]:
        """Return (k, x_k) of the given view, or (K + 1, None) if all views are drawn.

        Raises:
            ValueError: if the chain has no such view, or it has another shape.
        """
        if self.given is None:
            return len(chain.formats), None
        sizes, (k, view) = chain.sizes(self.sides()), self.given
        check_images(view, *chain.given_format(k), name="given")
        if (len(view), *view.shape[2:]) != (self.n, *sizes[k]):
            raise ValueError(f"given of shape {tuple(view.shape)}: use {self.n} views of {sizes[k]}")
        return k, view
