"""Recording a forward pass by running it once with symbols instead of tensors.

The layers, `concat_elu`, `gate`, `F.elu` and `+` let their arguments decide what to return (`__torch_function__`), so a
class of symbols sees each call. Unlike `torch.fx`, this does not patch torch, so other threads can use the same network
at the same time.
"""

__all__ = ["Layer", "Symbol"]

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from pixelcnn.nn.layers import Conv, TransposedConv

Layer = Conv | TransposedConv


class Symbol(ABC):
    """A stand-in for an activation in a recorded forward pass."""

    shape = ()
    """Sizes are only passed on to a `TransposedConv`. A symbol without a size has none to pass on."""

    @classmethod
    @abstractmethod
    def layer(cls, layer: Layer, inputs: Sequence[Self], size: tuple[int, ...] = ()) -> Self:
        """Return a symbol for the output of a convolution, which for a `TransposedConv` has the given size."""

    @classmethod
    @abstractmethod
    def elementwise(cls, function: Callable[..., Any], inputs: Sequence[Self]) -> Self:
        """Return a symbol for a function of activations at the same pixel."""

    def __add__(self, other: Self) -> Self:
        return self.elementwise(operator.add, [self, other])

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Self:
        inputs = [x for x in args if isinstance(x, cls)]
        layer = getattr(func, "__self__", None)
        if not isinstance(layer, Layer):
            return cls.elementwise(func, inputs)
        return cls.layer(layer, inputs, *args[1:]) if isinstance(layer, TransposedConv) else cls.layer(layer, inputs)
