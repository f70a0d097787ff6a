"""Recording: translates the forward pass of a network into a program (see `pixelcnn.traversal.program`)."""

__all__ = ["Translation", "run_ahead"]

import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcnn.nn.causal import CausalNetwork
from pixelcnn.nn.layers import TransposedConv, concat_elu, evaluating, gate
from pixelcnn.nn.record import Layer, Symbol
from pixelcnn.traversal.program import Elementwise, Enlarged, Input, Phase, Product, Term, Value

ELEMENTWISE = {concat_elu, gate, F.elu, operator.add}


class _Sum(NamedTuple):
    """A sum of convolutions to which more may be added."""

    bias: Tensor
    terms: list[Term]


class _Recorded(Symbol):
    """A symbol for an activation, with the value or the sum that it has been translated to."""

    def __init__(self, translation: "Translation", value: Value | _Sum) -> None:
        self.translation, self.value = translation, value

    @classmethod
    def layer(cls, layer: Layer, inputs: Sequence[Self], size: tuple[int, ...] = ()) -> Self:
        translation = inputs[0].translation
        return cls(translation, translation.convolve(layer, [translation.close(x.value) for x in inputs]))

    @classmethod
    def elementwise(cls, function: Callable[..., Tensor], inputs: Sequence[Self]) -> Self:
        translation = inputs[0].translation
        return cls(translation, translation.apply(function, [x.value for x in inputs]))


class Translation:
    """A translator of the forward pass of a network into values, each after the values that it reads.

    Args:
        network: the network to record.
        contexts: of all scales; an empty list for none.
        raster: whether pixels are visited one by one, instead of in a wavefront.
        dtype: of the weights.
    """

    def __init__(self, network: CausalNetwork, contexts: list[Tensor], *, raster: bool, dtype: torch.dtype) -> None:
        self.raster, self.dtype, self.arithmetic = raster, dtype, network.arithmetic
        self.values: list[Value] = []
        self.closed: dict[int, tuple[_Sum, Value]] = {}
        self.x = Input(network.first.u.direction.shape[1], 0, Phase.GROUP)
        self.contexts = [Input(2 * context.shape[1], scale, Phase.LINE) for scale, context in enumerate(contexts)]
        with evaluating():
            symbols = [_Recorded(self, context) for context in self.contexts]
            output = network.evaluate(cast("Tensor", _Recorded(self, self.x)), cast("list[Tensor]", symbols))
        self.output = self.close(cast("_Recorded", output).value)

    def convolve(self, layer: Layer, values: list[Value]) -> Value | _Sum:
        """Translate a convolution of values, as if their features were concatenated."""
        if isinstance(layer, TransposedConv):
            return self._add(Enlarged(layer, values[0], self.dtype))
        weights = layer.weight().detach().to(self.dtype).split([value.features for value in values], 1)
        return _Sum(
            layer.bias.detach().to(self.dtype),
            [
                Term(value, row, layer.cols, layer.stride, weight[:, :, r].permute(2, 1, 0))
                for value, weight in zip(values, weights, strict=True)
                for r, row in enumerate(layer.rows)
            ],
        )

    def apply(self, function: Callable[..., Tensor], inputs: list[Value | _Sum]) -> Value | _Sum:
        """Translate a function of values at the same pixel."""
        if function not in ELEMENTWISE:
            raise TypeError(f"{function}: a step of the forward pass is neither a convolution nor element by element")
        if function is operator.add and all(isinstance(value, _Sum) for value in inputs):
            first, second = cast("list[_Sum]", inputs)
            return _Sum(first.bias + second.bias, first.terms + second.terms)
        return self._add(Elementwise(self.arithmetic.function(function), [self.close(value) for value in inputs]))

    def close(self, value: Value | _Sum) -> Value:
        """Turn a sum into a value. Terms that are known earlier are summed first, as the base of the rest."""
        if isinstance(value, Value):
            return value
        if id(value) in self.closed:
            return self.closed[id(value)][1]
        base: Tensor | Value = value.bias
        for phase in Phase:
            if terms := _merge([term for term in value.terms if self._phase(term) == phase]):
                base = self._add(Product(base, terms, phase))
        self.closed[id(value)] = value, cast("Value", base)  # keeps the sum alive, so that its id stays its own
        return cast("Value", base)

    def _add(self, value: Value) -> Value:
        self.values.append(value)
        return value

    def _phase(self, term: Term) -> Phase:
        """Rows above are known before a line begins, except for the pixels themselves in a wavefront."""
        above = term.row < 0 and (self.raster or term.value is not self.x)
        return Phase.LINE if above else term.value.phase


def _merge(terms: list[Term]) -> list[Term]:
    """Merge terms that read the same row of the same value into one term over all their columns."""
    merged: dict[tuple[int, int], Term] = {}
    for term in terms:
        key = id(term.value), term.row
        if key in merged:
            other = merged[key]
            cols = range(min(term.cols[0], other.cols[0]), max(term.cols[-1], other.cols[-1]) + 1)
            weight = sum(
                F.pad(t.weight, (0, 0, 0, 0, t.cols[0] - cols[0], cols[-1] - t.cols[-1])) for t in (term, other)
            )
            term = term._replace(cols=cols, weight=cast("Tensor", weight))
        merged[key] = term
    return list(merged.values())


def run_ahead(values: list[Value], x: Value, lag: int) -> None:
    """Set how many columns ahead each value is computed, so that everything its readers look at is there in time.

    Raises:
        ValueError: if the network looks at a pixel before its time.
    """
    for value in reversed(values):
        for read in value.reads:
            # A line is evaluated at the time of its first pixel, and its last pixel is lag - 1 columns further on.
            needed = value.ahead + read.cols[-1] + lag * (read.row + (value.phase == Phase.LINE and read.row < 0))
            if read.value is x:
                if needed >= 0:
                    raise ValueError(f"lag={lag}: the network looks {needed + 1} columns too far to the right")
            elif not isinstance(read.value, Input):
                read.value.ahead = max(read.value.ahead, needed)
