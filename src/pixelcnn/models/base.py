"""The chain of an image model: what its configuration says, its views, and drawing from it."""

__all__ = ["ChainModel", "LabelsLike"]

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pixelcnn.auxiliary.base import Auxiliary
from pixelcnn.auxiliary.chain import Link
from pixelcnn.data.given import ImagesLike, as_computable, take_images
from pixelcnn.models.completion import complete_views
from pixelcnn.models.draw import DrawOptions, draw_views
from pixelcnn.models.factor import Factor
from pixelcnn.models.hub import HubModel
from pixelcnn.models.request import Request

LabelsLike = int | Sequence[int] | np.ndarray | Tensor
"""A class label for all images, or one for each, as a list, an array or a tensor (B,)."""
SHOWN = 8  # labels that an error quotes


class ChainModel(HubModel):
    """A chain of views with a factor for each; see `ImageModel`, which also scores.

    Attributes:
        factors: of the views, the image first.
    """

    factors: list[Factor]

    @property
    def auxiliaries(self) -> Sequence[Auxiliary]:
        """The chain a_1, ..., a_K."""
        return self.config.auxiliaries

    @property
    def formats(self) -> list[tuple[int, int]]:
        """Channels and levels of each view, the image first."""
        return self.config.chain.formats

    @property
    def levels(self) -> int:
        """The number of levels; a sub-pixel has a value in [0, levels)."""
        return self.config.levels

    @property
    def classes(self) -> int:
        """The number of class labels; 0 for none."""
        return self.config.classes

    @property
    def consistent(self) -> bool:
        """Whether the model scores and draws consistently by default. A trained model can do either."""
        return self.config.consistent

    @consistent.setter
    def consistent(self, consistent: bool) -> None:
        self.config = replace(self.config, consistent=consistent)

    @property
    def size(self) -> tuple[int, int] | None:
        """(H, W) of the images that the model was trained on; None if unknown. Set it to one number for squares."""
        return self.config.sides

    @size.setter
    def size(self, size: int | Sequence[int] | None) -> None:
        self.config = replace(self.config, size=size)

    @property
    def side(self) -> int | None:
        """The side of the images that the model was trained on, if they were square; otherwise None."""
        return self.size[0] if self.size and self.size[0] == self.size[1] else None

    def sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Return (H, W) of every view of an image of size (H, W), the image first."""
        return self.config.chain.sizes(size)

    def views(self, x: ImagesLike) -> list[Tensor]:
        """Make the views x_0 = x, ..., x_K of images of one size; see `Chain.views`.

        Args:
            x: integers (B, channels, H, W), or images in any form that `pixelcnn.data.given` lists.
        """
        if isinstance(x, Tensor) and x.dim() == 4:
            return self.config.chain.views(as_computable(x), self.device)
        return self.config.chain.views(take_images(x, *self.formats[0], device=self.device).only())

    def links(self, x: Tensor) -> list[Link]:
        """Pair each view with the one that its factor is given; see `Chain.links`."""
        return self.config.chain.links(x, self.device)

    def check_labels(self, labels: LabelsLike | None, number: int) -> Tensor | None:
        """Return labels (number,) on the device of the model; raise a ValueError if they do not fit its classes."""
        if not self.classes:
            if labels is not None:
                raise ValueError(f"{_quote(labels)}: this model has no classes; leave the labels out")
            return None
        taken = _take_labels(labels, number)
        if taken is None or not ((taken >= 0) & (taken < self.classes)).all():
            wanted = f"a whole number in [0, {self.classes}) for all images, or {number} of them, one for each image"
            raise ValueError(f"{_quote(labels)}: use {wanted}")
        return taken.to(self.device)

    def draw(self, request: Request, options: DrawOptions | None = None) -> Iterator[tuple[int, Tensor]]:
        """Draw images view by view: iterate over (k, x_k) for k = K, ..., 0, each as soon as it is finished.

        Raises:
            ValueError: if the request or the options do not fit the model.
            MemoryError: if the cached activations need more memory than is free. Draw fewer images at once.
            FloatingPointError: if a network gives parameters that are not finite.
        """
        options = options or DrawOptions()
        if options.consistent is None:
            options = replace(options, consistent=self.consistent)
        size = self.size if request.size is None else request.size
        labels = self.check_labels(request.labels, request.n)
        request, chain = replace(request, size=size, labels=labels).to(self.device), self.config.chain
        if request.hole is not None:
            return complete_views(self.factors, chain, request, request.hole, options)
        return draw_views(self.factors, chain, request, options)


def _take_labels(labels: LabelsLike | None, number: int) -> Tensor | None:
    """Return labels (number,) as int64; None if they are not whole numbers, or not of this number."""
    if isinstance(labels, int | np.integer) and not isinstance(labels, bool):
        labels = [int(labels)] * number
    if isinstance(labels, list | tuple | range):
        try:
            labels = np.array(labels)
        except ValueError:  # lists of different lengths
            return None
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "iu":
        labels = torch.from_numpy(labels.astype(np.int64))
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        return None
    return labels.to(torch.int64) if labels.dtype != torch.bool and labels.shape == (number,) else None


def _quote(labels: object) -> str:
    """Quote labels in an error, at most the first few."""
    if isinstance(labels, np.ndarray | Tensor):
        if len(labels.shape) != 1:
            return f"labels={type(labels).__name__} of shape {tuple(labels.shape)}"
        labels = labels.tolist()
    if isinstance(labels, list | tuple) and len(labels) > SHOWN:
        return f"labels={labels[:SHOWN]!r} and {len(labels) - SHOWN} more"
    return f"labels={labels!r}"
