"""The interface of auxiliary variables, which make the simpler view of an image that is modeled first.

An auxiliary variable is a fixed function `a` that turns an image into another image, the *view*. Then
`log p(x) >= log p(a(x)) + log p(x | a(x))`. Since a view is an image, auxiliary variables can be chained. All
arithmetic is done in integers, so that a view is the same on every machine.

A model is *consistent* if it gives probability only to images that have the given view; the inequality is then an
equality. Otherwise it is *free*: the view is a hint, and a drawn image may turn out to have another one.

Reference: Kolesnikov & Lampert, PixelCNN models with auxiliary variables (ICML 2017), section 3.
"""

__all__ = ["AUXILIARIES", "Auxiliary", "register_auxiliary"]

from abc import ABC, abstractmethod
from typing import TypeVar

from torch import Tensor

from pixelcnn.common.registry import Registry

C = TypeVar("C", bound=type)


class Auxiliary(ABC):
    """A function that makes a view of an image.

    For a free model (`consistent=False`), `view_format` and `__call__` are enough. For a consistent model, extend
    `CellAuxiliary` instead. A subclass should be a frozen dataclass; decorate it with `register_auxiliary` to save and
    load models that use it, and try it with `check_auxiliary`.

    Example:
        >>> import torch
        >>> from dataclasses import dataclass
        >>> from pixelcnn import Auxiliary, ImageModel, check_auxiliary
        >>> @dataclass(frozen=True)
        ... class Parity(Auxiliary):
        ...     def view_format(self, channels, levels):
        ...         return channels, 2
        ...
        ...     def __call__(self, x, levels):
        ...         return x % 2
        >>> check_auxiliary(Parity())
        >>> model = ImageModel(1, 16, [Parity()], consistent=False, filters=4, blocks=1, scales=1)
        >>> model.formats
        [(1, 16), (1, 2)]
    """

    @property
    def shrinkage(self) -> int:
        """How many times smaller the view is than the image in each direction, rounded up; 1 by default."""
        return 1

    def view_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (H, W) of the view of an image of size (H, W)."""
        return -(-size[0] // self.shrinkage), -(-size[1] // self.shrinkage)

    @abstractmethod
    def view_format(self, channels: int, levels: int) -> tuple[int, int]:
        """Return the channels and levels of the view of an image with these channels and levels.

        Raises:
            ValueError: if such an image has no view.
        """

    @abstractmethod
    def __call__(self, x: Tensor, levels: int) -> Tensor:
        """Make the view of images: integers (B, C, H, W) in [0, levels) to (B, C', H', W') of the same integer type."""

    def expectation(self, view: Tensor, channels: int, size: tuple[int, int], levels: int) -> Tensor | None:
        """Estimate each sub-pixel (one channel of one pixel) from the view; None, the default, for no estimate.

        A factor predicts means relative to this estimate, so that its network does not have to learn to copy the view.

        Args:
            view: (B, C', H', W').
            channels, size, levels: of the image.

        Returns:
            Numbers (B, channels, H, W), roughly in [0, levels).
        """
        return None

    def check(self, x: Tensor, view: Tensor, levels: int) -> None:
        """Raise a ValueError if images do not have the view (B, C', H', W'), and name the first pixel that differs."""
        own = self(x, levels)
        wrong = (own != view).any(1)
        if wrong.any():
            image, row, col = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"image {image} does not have the given view: at row {row}, column {col} its view {self} is "
                f"{own[image, :, row, col].tolist()}, and the given one {view[image, :, row, col].tolist()}"
            )


AUXILIARIES: Registry[Auxiliary] = Registry("auxiliary", Auxiliary)


def register_auxiliary(cls: C) -> C:
    """Register an auxiliary variable under the name of its class, so that models that use it can be saved and loaded.

    Use it as a decorator above `@dataclass(frozen=True)`, on a class that extends `Auxiliary`.

    Raises:
        ValueError: if the class is not a frozen dataclass that extends `Auxiliary`, or its name is taken.

    Example:
        >>> from dataclasses import dataclass
        >>> from pixelcnn import Auxiliary, ImageModel, register_auxiliary
        >>> @register_auxiliary
        ... @dataclass(frozen=True)
        ... class Inverted(Auxiliary):
        ...     def view_format(self, channels, levels):
        ...         return channels, levels
        ...
        ...     def __call__(self, x, levels):
        ...         return levels - 1 - x
        >>> model = ImageModel(1, 16, [Inverted()], consistent=False, filters=4, blocks=1, scales=1)
        >>> model.config.to_json()["auxiliaries"]
        [{'name': 'Inverted'}]
    """
    return AUXILIARIES.register(cls)
