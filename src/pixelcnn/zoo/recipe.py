"""The parts of a recipe: a model with fresh weights, images, the way to train, and the result to expect."""

__all__ = ["Expected", "Recipe"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pixelcnn.models.image_model import ImageModel
from pixelcnn.training.options import Training


@dataclass(frozen=True)
class Expected:
    """The bits per dimension to expect on held-out images, and the source of this figure."""

    bits_per_dim: float
    source: str


@dataclass(frozen=True)
class Recipe:
    """The settings behind `pixelcnn train NAME`; options of the command line override them one by one.

    Args:
        model: a function that creates the model with fresh weights.
        source, size: the source and the side of the images.
        training: how to train each factor.
        minutes: training time of each factor on two CPU cores; ignored if there are steps.
        steps: training steps of each factor, starting with the factor of the image itself.
        expected: the result to expect; None if it has not been measured.
    """

    model: Callable[[], ImageModel]
    source: str
    size: int
    training: Training
    minutes: float = 0.0
    steps: tuple[int, ...] = ()
    expected: Expected | None = None

    @property
    def budget(self) -> dict[str, Any]:
        """The arguments of `train` that set its length."""
        return {"steps": self.steps} if self.steps else {"minutes": self.minutes}
