"""Exact arithmetic: a network on a binary grid, which gives the same numbers on every machine and in every order.

Sums of floating-point numbers depend on their order, and so on the batch, the number of threads and the schedule. Here,
every number is a whole multiple of a power of two, and so is every product and every sum. As long as a sum stays below
2^53 of its steps, float64 computes it exactly, in any order.

Activations are held in units of 2^-10, so that they are whole numbers:

    weights          multiples of 2^-16
    scaled pixels    multiples of 2^-12
    activations      rounded to whole numbers after each function, and at most 2^22 (4096 in floating point)
    functions        rounded to the same grid, so that they are tables (see `pixelcnn.nn.tables`)
    outputs          in units of 1, as in floating point

`freeze` turns a network into such a network, and proves that no sum can reach 2^53 steps. That is a bound for each
layer: the sum of the magnitudes of its weights times the largest activation. Rounding costs less than 0.001 bits
per sub-pixel, and no training.
"""

__all__ = ["GRID", "LARGEST", "Bound", "GridArithmetic", "check_functions", "freeze"]

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelcnn.common.kernel import find_kernel
from pixelcnn.nn.arithmetic import Arithmetic
from pixelcnn.nn.causal import CausalNetwork
from pixelcnn.nn.compiled import Taps, compiled_products
from pixelcnn.nn.embedding import EmbeddingNetwork
from pixelcnn.nn.layers import Conv, concat_elu, evaluating, gate
from pixelcnn.nn.record import Layer, Symbol
from pixelcnn.nn.tables import ELU_REACH, GATE, GATE_REACH, STEPS, tables

WEIGHT_STEPS, PIXEL_STEPS = 2**16, 2**12  # in one unit
LARGEST = 2**22  # activations are clamped to it
DIRECTION_BITS = 22  # of the numbers of a weight, relative to the largest of its output channel, before normalization
EXACT = 2**53  # float64 has all whole numbers up to here
ROUND_GATE = 1.5 * 2**52 / GATE  # adding and subtracting it rounds to multiples of 1 / GATE


def _elu(x: Tensor) -> Tensor:
    """Compute ELU of sums (the last layer reads one of the streams)."""
    return _table_elu(x.round().clamp_(-LARGEST, LARGEST))


def _table_elu(x: Tensor) -> Tensor:
    """Compute ELU of whole numbers in place."""
    return torch.ops.aten.elu_(x, STEPS, 1, 1 / STEPS).round_()


def _concat_elu(x: Tensor) -> Tensor:
    x = x.round().clamp_(-LARGEST, LARGEST)
    return _table_elu(torch.cat([x, -x], 1))


def _table_sigmoid(x: Tensor) -> Tensor:
    """Compute the sigmoid of whole numbers, in units of 1."""
    return x.mul(1 / STEPS).sigmoid_().add_(ROUND_GATE).sub_(ROUND_GATE)


def _gate(x: Tensor, ab: Tensor) -> Tensor:
    a, b = ab.round().clamp_(-LARGEST, LARGEST).chunk(2, 1)
    return torch.addcmul(x, a, _table_sigmoid(b)).round_().clamp_(-LARGEST, LARGEST)


FUNCTIONS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    concat_elu: _concat_elu,
    gate: _gate,
    F.elu: _elu,
    operator.add: torch.add,
}


class _Activation(Symbol):
    """An activation (B, F, H, W) on the grid, on which layers and functions are computed exactly."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.shape = tensor, tensor.shape

    @classmethod
    def layer(cls, layer: Layer, inputs: Sequence[Self], size: tuple[int, ...] = ()) -> Self:
        tensors, weight = [x.tensor for x in inputs], layer.weight()
        if isinstance(layer, Conv):
            parts = weight.split([x.shape[1] for x in tensors], 1)
            taps = [(x, _taps(part, layer.rows, layer.cols)) for x, part in zip(tensors, parts, strict=True)]
            return cls(_products(taps, layer.bias, layer.stride))
        # Output stride * i + p reads the inputs i - k with the offsets stride * k + p: a convolution for each p.
        B, _, h, w = tensors[0].shape
        s = layer.stride
        out = tensors[0].new_empty(B, len(layer.bias), h * s, w * s)
        for p in range(s):
            for q in range(s):
                taps = {
                    (-(r // s), -(c // s)): tap
                    for (r, c), tap in _taps(weight, layer.rows, layer.cols).items()
                    if (r % s, c % s) == (p, q)
                }
                out[:, :, p::s, q::s] = _products([(tensors[0], taps)], layer.bias, 1)
        return cls(out[:, :, : size[0], : size[1]])

    @classmethod
    def elementwise(cls, function: Callable[..., Any], inputs: Sequence[Self]) -> Self:
        return cls(FUNCTIONS[function](*[x.tensor for x in inputs]))


def _taps(weight: Tensor, rows: range, cols: range) -> Taps:
    return {(row, col): weight[:, :, r, c] for r, row in enumerate(rows) for c, col in enumerate(cols)}


def _products(inputs: list[tuple[Tensor, Taps]], bias: Tensor, stride: int) -> Tensor:
    """Convolve as a sum of matrix products, one for each offset.

    The convolutions of torch may use algorithms that leave the grid (FFT, Winograd), and in float64 are slower.
    """
    B, _, H, W = inputs[0][0].shape
    kernel = find_kernel() if bias.device.type == "cpu" else None
    if kernel is not None:
        return compiled_products(kernel, inputs, bias, stride)
    offsets = list(inputs[0][1])
    (top, bottom), (left, right) = ((max(0, -min(each)), max(0, max(each))) for each in zip(*offsets, strict=True))
    h, w = -(-H // stride), -(-W // stride)
    pitch = W + left + right if stride == 1 else w
    out = bias.new_empty(B, len(bias), h * pitch)
    used = out[:, :, : (h - 1) * pitch + w]
    base = bias[:, None].expand(B, -1, used.shape[2])
    for x, taps in inputs:
        padded = F.pad(x, (left, right, top, bottom)) if len(taps) > 1 or any(offsets[0]) else x
        for (row, col), weight in taps.items():
            if stride == 1:  # rows follow each other, so one offset shifts all pixels; the padding between is unused
                start = (row + top) * pitch + col + left
                read = padded.flatten(2)[:, :, start : start + used.shape[2]]
            else:
                read = padded[:, :, row + top :: stride, col + left :: stride][:, :, :h, :w].flatten(2)
            base = torch.baddbmm(base, weight.expand(B, -1, -1), read, out=used)
    return out.view(B, -1, h, pitch)[..., :w]


class Bound(Symbol):
    """The largest magnitude that an activation can have, and the step of its grid.

    `names` are those of the layers, for errors.
    """

    def __init__(self, largest: float, step: float, names: Mapping[nn.Module, str] | None = None) -> None:
        self.largest, self.step, self.names = largest, step, names or {}

    @classmethod
    def layer(cls, layer: Layer, inputs: Sequence[Self], size: tuple[int, ...] = ()) -> Self:
        largest, step, names = max(x.largest for x in inputs), min(x.step for x in inputs), inputs[0].names
        weight = layer.weight()
        sums = weight.abs().sum((1, 2, 3)) * largest + layer.bias.abs()
        bound = cls(float(sums.max()), step * layer.step, names)  # which divides the steps of biases too
        return bound.checked(f"layer {names[layer]}")

    @classmethod
    def elementwise(cls, function: Callable[..., Any], inputs: Sequence[Self]) -> Self:
        first = inputs[0]
        if function is operator.add:
            return cls(sum(x.largest for x in inputs), min(x.step for x in inputs), first.names).checked("a sum")
        if function is gate:
            cls(first.largest + LARGEST, min(first.step, 1 / GATE), first.names).checked("a gate")
        return cls(LARGEST, 1, first.names)

    def checked(self, place: str) -> Self:
        if not self.largest < EXACT * self.step:
            raise ValueError(
                f"{place}: its sums may reach {self.largest / STEPS:.3g}, where float64 is no longer exact: "
                "the weights are too large for exact arithmetic; train the model further, or use another"
            )
        return self


class GridArithmetic(Arithmetic):
    """The arithmetic of networks after `freeze`."""

    products = 9  # one for each pixel that a kernel reads

    def scale(self, x: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
        # The quotient of two whole numbers, rounded twice in the same way everywhere. By a number instead of a tensor,
        # a GPU would multiply by its reciprocal.
        divisor = torch.full((), levels - 1, dtype=dtype, device=x.device)
        return ((2 * x.to(dtype) - (levels - 1)) * PIXEL_STEPS / divisor).round_() / PIXEL_STEPS

    def function(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return FUNCTIONS[function]

    def wrap(self, x: Tensor | Symbol) -> Symbol:
        return x if isinstance(x, Symbol) else _Activation(x)

    def unwrap(self, x: Symbol) -> Tensor:
        return x.tensor if isinstance(x, _Activation) else cast("Tensor", x)


GRID = GridArithmetic()


def freeze(network: CausalNetwork | EmbeddingNetwork, context: Bound | None = None) -> Bound:
    """Put a network on the grid, in place and for good: float64 weights, without normalization.

    Args:
        network: the network.
        context: the bound of the context of a causal network.

    Returns:
        The bound of the outputs.

    Raises:
        ValueError: if weights are not finite, or the sums of a layer may leave the whole numbers of float64; then the
            message names the layer.
    """
    network.requires_grad_(requires_grad=False).eval().double()
    for layer, into, out in _scales(network):
        weight, bias = _normalized(layer), layer.bias.detach().cpu()
        weight = (weight * WEIGHT_STEPS).round() / WEIGHT_STEPS * (out / into)
        bias = (bias * STEPS * WEIGHT_STEPS).round() / (STEPS * WEIGHT_STEPS) * out
        if not (weight.isfinite().all() and bias.isfinite().all()):
            raise ValueError("a layer has weights that are not finite: train the model anew")
        layer.freeze(weight.to(layer.bias.device), bias.to(layer.bias.device), step=out / into / WEIGHT_STEPS)
    network.arithmetic = GRID
    return _check_bounds(network, context)


def _scales(network: CausalNetwork | EmbeddingNetwork) -> Iterator[tuple[Layer, int, int]]:
    """Yield each layer, and the steps in one unit of its inputs and its outputs."""
    first = {layer for layer in network.first.modules() if isinstance(layer, Layer)}
    last = network.last if isinstance(network, CausalNetwork) else None
    for layer in network.modules():
        if isinstance(layer, Layer):
            yield layer, 1 if layer in first else STEPS, 1 if layer is last else STEPS


def _normalized(layer: Layer) -> Tensor:
    """Compute the normalized weight in a way that is the same everywhere: the squares are summed as whole numbers."""
    direction, gain = (each.detach().cpu().double().numpy() for each in (layer.direction, layer.gain))
    _, exponent = np.frexp(np.abs(direction).max((1, 2, 3), keepdims=True))
    whole = np.rint(np.ldexp(direction, DIRECTION_BITS - exponent))
    squares = (whole.astype(np.int64) ** 2).sum((1, 2, 3), keepdims=True)
    return torch.from_numpy(whole * (gain[:, None, None, None] / np.sqrt(np.maximum(squares, 1).astype(np.float64))))


def _check_bounds(network: CausalNetwork | EmbeddingNetwork, context: Bound | None) -> Bound:
    """Prove that all sums are exact; return the bound of the outputs."""
    names: dict[nn.Module, str] = {module: name for name, module in network.named_modules()}
    pixels = Bound(1, 1 / PIXEL_STEPS, names)
    with evaluating():
        if isinstance(network, CausalNetwork):
            if context is not None:  # which is averaged over squares of four, again and again, and then clamped
                Bound(4 * context.largest, 0.25 ** (network.scales - 1) * context.step).checked("the context")
            contexts = [Bound(LARGEST, 1, names)] * network.scales if network.context else []
            output = network.evaluate(cast("Tensor", pixels), cast("list[Tensor]", contexts))
        else:
            output = network.enlarge_to(network.trunk(cast("Tensor", pixels)), (0, 0))
    return cast("Bound", output)


def check_functions(device: torch.device) -> None:
    """Check that the functions of torch on a device give the tables.

    Raises:
        ValueError: if they do not.
    """
    made = tables()
    pairs = [(made.elu, ELU_REACH, _table_elu, 1), (made.sigmoid, GATE_REACH, _table_sigmoid, GATE)]
    for table, reach, function, steps in pairs:
        x = torch.arange(len(table), dtype=torch.float64, device=device) - reach * STEPS
        if not np.array_equal((function(x) * steps).cpu().numpy(), table):
            name = f"{function.__name__} of torch {torch.__version__} on {device}"
            raise ValueError(f"{name} differs from the tables of the format: use another device, or another torch")
