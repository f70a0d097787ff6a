"""Causal (shifted) convolutions, their strided and transposed forms, and the functions between them.

A convolution is described here by the pixels that it reads, as offsets from the pixel that it writes:

    out[i, j] = bias + sum over r in rows, c in cols of  weight[r, c] x[stride * i + r, stride * j + c]

with zeros beyond the border. The down-shifted 2x3 convolution of PixelCNN++ is `ABOVE_AND_HERE x AROUND`: this row and
the row above, and one column to each side. Its down-right-shifted 2x2 convolution is `ABOVE_AND_HERE x LEFT_AND_HERE`.
So the offsets show whether a convolution looks at later pixels.

Weights are normalized: `weight = gain * direction / |direction|` for each output channel (Salimans & Kingma, 2016).

Reference: Salimans et al., PixelCNN++ (ICLR 2017), section 2 and its code.
"""

__all__ = [
    "ABOVE_AND_HERE",
    "AROUND",
    "HERE",
    "LEFT_AND_HERE",
    "Conv",
    "Dropout",
    "Edges",
    "TransposedConv",
    "concat_elu",
    "evaluating",
    "gate",
    "initialize",
]

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import (
    handle_torch_function,
    has_torch_function,
    has_torch_function_unary,
    has_torch_function_variadic,
)

ABOVE_AND_HERE = LEFT_AND_HERE = range(-1, 1)
AROUND = range(-1, 2)
HERE = range(1)


_EVALUATING = ContextVar("pixelcnn.evaluating", default=False)


@contextmanager
def evaluating() -> Iterator[None]:
    """Turn off dropout and gradients in this thread, whatever the mode of the model.

    `Module.eval` would change the model itself, which another thread may be training.
    """
    token = _EVALUATING.set(True)
    try:
        with torch.no_grad():
            yield
    finally:
        _EVALUATING.reset(token)


# Convolutions, `concat_elu` and `gate` follow the `__torch_function__` protocol, as the functions of torch do: called
# with arguments that are not plain tensors, they let the arguments decide what to return. That is how a forward pass is
# recorded (see `pixelcnn.nn.record`).


def concat_elu(x: Tensor) -> Tensor:
    """Compute ELU of x and of -x: (B, F, H, W) to (B, 2F, H, W)."""
    if has_torch_function_unary(x):
        return handle_torch_function(concat_elu, (x,), x)
    return F.elu_(torch.cat([x, -x], 1))


def gate(x: Tensor, ab: Tensor) -> Tensor:
    """Compute `x + a * sigmoid(b)`: x is (B, F, H, W), and `ab` (B, 2F, H, W) holds a and then b."""
    if has_torch_function_variadic(x, ab):
        return handle_torch_function(gate, (x, ab), x, ab)
    a, b = ab.chunk(2, 1)
    return torch.addcmul(x, a.clone(), b.clone().sigmoid_())  # copies are faster here than strided halves


class Dropout(nn.Module):
    """Dropout that draws eight random bits per unit, so that the rate is rounded to a multiple of 1/256.

    On a CPU, torch draws one double per unit on a single core: `nn.Dropout` took a fifth of a training step.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.dropped = min(255, round(256 * rate))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.dropped or (not torch.compiler.is_compiling() and _EVALUATING.get()):
            return x
        words = torch.randint(-(2**63), 2**63 - 1, (x.numel() // 8 + 1,), device=x.device)
        # Compare numbers of the type of x, which are exact up to 256 in bfloat16: booleans are several times slower.
        keep = words.view(torch.uint8).as_strided(x.shape, x.stride()).to(x.dtype).ge_(self.dropped)
        return x * keep.mul_(256 / (256 - self.dropped))


class Edges(NamedTuple):
    """Rows and columns at the edges of a window that differ from the whole image, which has more inputs there."""

    above: int = 0
    below: int = 0
    left: int = 0
    right: int = 0


class _WeightNormalized(nn.Module):
    """The base of both kinds of convolution: offsets, parameters and the normalized weight."""

    frozen, step = False, 0.0

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rows: range = HERE,
        cols: range = HERE,
        *,
        stride: int = 1,
        init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.rows, self.cols, self.stride, self.init_scale = rows, cols, stride, init_scale
        direction = torch.randn(outputs, inputs, len(rows), len(cols)) * 0.05
        self.direction = nn.Parameter(direction.contiguous(memory_format=torch.channels_last))
        self.gain = nn.Parameter(torch.full((outputs,), init_scale))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def weight(self) -> Tensor:
        """Compute the normalized weight, (outputs, inputs, rows, cols), or return the one that was set by `freeze`."""
        if self.frozen:
            return self.direction
        norm = torch.linalg.vector_norm(self.direction, dim=(1, 2, 3))
        return self.direction * (self.gain / norm)[:, None, None, None]

    @torch.no_grad()
    def freeze(self, weight: Tensor, bias: Tensor, step: float) -> None:
        """Use this weight and bias from now on, as they are. The weights are multiples of a step."""
        self.step = step
        self.direction, self.bias = (nn.Parameter(each, requires_grad=False) for each in (weight, bias))
        self.frozen = True

    def spoil(self, edges: Edges) -> Edges:
        """Return the edges of the output of a window, given those of its input. The stride must divide its sides."""
        return Edges(
            max(0, self._before(edges.above, self.rows)),
            max(0, self._after(edges.below, self.rows)),
            max(0, self._before(edges.left, self.cols)),
            max(0, self._after(edges.right, self.cols)),
        )

    def _before(self, wrong: int, offsets: range) -> int:
        raise NotImplementedError

    def _after(self, wrong: int, offsets: range) -> int:
        raise NotImplementedError


class Conv(_WeightNormalized):
    """A convolution over the given row and column offsets: (B, inputs, H, W) to (B, outputs, H / stride, W / stride).

    The size is rounded up, so that every pixel is covered.
    """

    def _padding(self, size: int, offsets: range) -> tuple[int, int]:
        """Return the padding with which output `i` reads `stride * i + offset`. Negative padding crops the input."""
        last = (size - 1) // self.stride * self.stride
        return -offsets[0], last + offsets[-1] - (size - 1)

    def _before(self, wrong: int, offsets: range) -> int:
        return -((offsets[0] - wrong) // self.stride)

    def _after(self, wrong: int, offsets: range) -> int:
        return (wrong + offsets[-1]) // self.stride

    def forward(self, *inputs: Tensor) -> Tensor:
        """Convolve the inputs as if they were concatenated along the channels."""
        if has_torch_function(inputs):
            return handle_torch_function(self.forward, inputs, *inputs)
        x = inputs[0]
        padding = (*self._padding(x.shape[3], self.cols), *self._padding(x.shape[2], self.rows))
        weights = self.weight().split([x.shape[1] for x in inputs], 1)
        # A sum of convolutions, since concatenating the inputs would copy all of them.
        biases = [self.bias, *[None] * (len(inputs) - 1)]
        parts = [
            F.conv2d(F.pad(x, padding) if any(padding) else x, weight, bias, self.stride)
            for x, weight, bias in zip(inputs, weights, biases, strict=True)
        ]
        return functools.reduce(torch.add, parts)


class TransposedConv(_WeightNormalized):
    """The transpose of a strided `Conv`: input (i, j) writes the outputs (stride * i + r, stride * j + c).

    With r = stride * k + p, output stride * i + p reads the inputs i - k: that is a convolution for each remainder p.
    All of them run as one convolution, whose channels are then spread out in space. In bfloat16, that is ten times as
    fast as `F.conv_transpose2d`.
    """

    def _before(self, wrong: int, offsets: range) -> int:
        return self.stride * (wrong - 1) + offsets[-1] + 1

    def _after(self, wrong: int, offsets: range) -> int:
        return self.stride * wrong - offsets[0]

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map (B, inputs, h, w) to `(B, outputs, *size)`, where h and w are `size / stride` rounded up."""
        if has_torch_function_unary(x):
            return handle_torch_function(self.forward, (x,), x, size)
        s = self.stride
        (top, bottom), (left, right) = ((o[-1] // s, -(o[0] // s)) for o in (self.rows, self.cols))
        zeros = [side for o in (self.cols, self.rows) for side in (o[0] % s, -(o[-1] + 1) % s)]
        weight = F.pad(self.weight(), zeros).unflatten(3, (-1, s)).unflatten(2, (-1, s)).flip(2, 4)
        weight = weight.permute(0, 3, 5, 1, 2, 4).flatten(0, 2)
        x = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, self.bias.repeat_interleave(s * s))
        return F.pixel_shuffle(x, s)[:, :, : size[0], : size[1]]


def initialize(network: nn.Module, *inputs: Tensor | None) -> None:
    """Initialize a network from data, so that every convolution gives zero mean and unit deviation on this batch.

    More precisely, the deviation is the `init_scale` of the layer. This runs `network(*inputs)` once, without dropout,
    and rescales each layer as soon as it is evaluated. A channel that does not vary keeps its gain.

    Reference: Salimans & Kingma (2016), section 3.
    """

    def standardize(layer: _WeightNormalized, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
        std, mean = torch.std_mean(output, (0, 2, 3), correction=0)
        scale = layer.init_scale / torch.where(std > 1e-5, std, layer.init_scale)
        layer.gain.mul_(scale)
        layer.bias.sub_(mean).mul_(scale)
        return (output - mean[:, None, None]) * scale[:, None, None]

    hooks = [m.register_forward_hook(standardize) for m in network.modules() if isinstance(m, _WeightNormalized)]
    try:
        with evaluating():
            network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
