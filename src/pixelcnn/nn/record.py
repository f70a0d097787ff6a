"""Recording a forward pass: run it once with symbols instead of tensors.

The layers and `concat_elu`, `gate`, `F.elu` and `+` ask their arguments what to do (`__torch_function__`), so a class
of symbols sees each of them as it is called. Nothing of torch is patched for it, unlike in `torch.fx`, so that other
threads can use the same network meanwhile.
"""

__all__ = ["Layer", "Symbol"]

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from pixelcnn.nn.layers import Conv, TransposedConv

Layer = Conv | TransposedConv


class Symbol(ABC):
    """Stands for an activation in a forward pass that is recorded."""

    shape = ()
    """Nothing is known of it: a size is only handed on to a `TransposedConv`."""

    @classmethod
    @abstractmethod
    def layer(cls, layer: Layer, inputs: Sequence[Self]) -> Self:
        """Return what stands for the output of a convolution."""

    @classmethod
    @abstractmethod
    def elementwise(cls, function: Callable[..., Any], inputs: Sequence[Self]) -> Self:
        """Return what stands for a function of activations at the same pixel."""

    def __add__(self, other: Self) -> Self:
        return self.elementwise(operator.add, [self, other])

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Self:
        inputs = [x for x in args if isinstance(x, cls)]
        layer = getattr(func, "__self__", None)
        return cls.layer(layer, inputs) if isinstance(layer, Layer) else cls.elementwise(func, inputs)
