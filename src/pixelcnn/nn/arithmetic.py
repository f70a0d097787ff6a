"""The arithmetic of a network: floating point here, and numbers on a grid in `pixelcnn.nn.grid`.

The layers of a network are written once. What differs from one arithmetic to another are its leaves: how pixels are
scaled, and how a convolution or a function of single activations is computed.
"""

__all__ = ["FLOATING", "Arithmetic"]

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pixelcnn.likelihoods.base import scale_levels


class Arithmetic:
    """Floating point, as torch computes it. Sums depend on their order, in the last bits.

    Attributes:
        products: the number of matrix products that a typical layer is computed in, one after another. The more there
            are, the less each is worth a second thread.
    """

    products = 1

    def scale(self, x: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
        """Scale integers in [0, levels) to numbers in [-1, 1]."""
        return scale_levels(x, levels, dtype)

    def function(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return this arithmetic's version of a function of activations: `concat_elu`, `gate`, `F.elu` or a sum."""
        return function

    def wrap(self, x: Tensor) -> Any:
        """Return what the layers are given in place of an activation."""
        return x

    def unwrap(self, x: Any) -> Tensor:
        """Return the activation of something that the layers computed."""
        return x


FLOATING = Arithmetic()
