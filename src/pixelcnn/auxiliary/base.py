"""Auxiliary variables: the simpler view of an image that is modeled first.

An auxiliary variable is a deterministic function `a` of an image whose value is an image again, so that
`log p(x) >= log p(a(x)) + log p(x | a(x))`, and so that auxiliary variables can be chained. All arithmetic is done in
integers: a view is the same on every machine.

Reference: Kolesnikov & Lampert, PixelCNN models with auxiliary variables (ICML 2017), section 3.
"""

__all__ = ["AUXILIARIES", "Auxiliary", "register_auxiliary"]

from abc import ABC, abstractmethod

from torch import Tensor

from pixelcnn.common.registry import Registry


class Auxiliary(ABC):
    """A view of images with a given number of channels and levels.

    The view itself, `view_format` and `__call__`, is all that a free model needs (`consistent=False`). What a
    consistent model needs as well is in `CellAuxiliary`. A subclass is a frozen dataclass; with `register_auxiliary`
    models of it can be saved and loaded.
    """

    @property
    def shrinkage(self) -> int:
        """How many times smaller the view is in each direction, rounded up; 1 by default."""
        return 1

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
        """Map integers (B, C, H, W) in [0, levels) to their view, of the same integer type."""

    def expectation(self, view: Tensor, channels: int, size: tuple[int, int], levels: int) -> Tensor | None:
        """Estimate each sub-pixel of an image from its view; None, the default, for no estimate.

        A factor predicts means relative to this, so that its network does not have to learn to copy the view.

        Args:
            view: (B, C', H', W').
            channels, size, levels: of the image.

        Returns:
            Numbers (B, channels, H, W), about in [0, levels).
        """
        return None

    def check(self, x: Tensor, view: Tensor, levels: int) -> None:
        """Raise a ValueError that names the first pixel of a view (B, C', H', W') that is not that of the image."""
        own = self(x, levels)
        wrong = (own != view).any(1)
        if wrong.any():
            image, row, col = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"image {image} does not have the given view: at row {row}, column {col} its view {self} is "
                f"{own[image, :, row, col].tolist()}, and the given one {view[image, :, row, col].tolist()}"
            )


AUXILIARIES: Registry[Auxiliary] = Registry("auxiliary", Auxiliary)
register_auxiliary = AUXILIARIES.register
