"""The *values* (activations) of a recorded forward pass, each of which can be computed at a few pixels at a time.

Together, in the order of the forward pass, they are a program. `pixelcnn.traversal.record` writes it. It runs value by
value in torch (`pixelcnn.traversal.plain`), or all at once in the kernel (`pixelcnn.traversal.compiled`).
"""

__all__ = ["Elementwise", "Enlarged", "Input", "Phase", "Place", "Product", "Read", "Term", "Value"]

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple, cast

import torch
from torch import Tensor

from pixelcnn.nn.causal import HALF
from pixelcnn.nn.layers import HERE, TransposedConv
from pixelcnn.traversal.canvas import Canvas

MANY = 48  # groups of at least this many pixels are multiplied one by one; smaller ones together, from a copy


class Phase(IntEnum):
    """When a value is evaluated. A value that depends on both phases belongs to the second."""

    LINE = 0
    GROUP = 1


class Place(NamedTuple):
    """The pixels where values are evaluated: a group of `count` pixels, or a line that starts at each of them.

    The lists have an entry for each scale.
    """

    row: int  # of the first pixel
    col: int
    count: int
    offsets: list[int]  # of the first pixel on the canvases
    numbers: list[int]  # of pixels in a line
    first: int = 0  # for a group: the index of its first pixel among the starts of the last line
    steps: Sequence[int] = ()  # for a group: how far along that line it is


class Value:
    """One value of the forward pass: `features` numbers per pixel, at 1 / 2 ** scale of the size of the image.

    Evaluated at n pixels, it is a matrix (n, features).
    """

    now: Tensor  # the result at the last place
    canvas: Canvas | None = None
    ahead = 0  # how many columns it is computed ahead of the wavefront

    def __init__(self, features: int, scale: int, phase: Phase, reads: "list[Read]") -> None:
        self.features, self.scale, self.phase, self.reads = features, scale, phase, reads

    def compute(self, inputs: list[Tensor]) -> Tensor:
        """Compute the value, (n, features), from its inputs, (n, ...) each."""
        raise NotImplementedError

    def compute_line(self, inputs: list[Tensor]) -> Tensor:
        """Compute it along a line: (number, count, features), from inputs (number, count, ...)."""
        return self.compute([x.flatten(0, 1) for x in inputs]).view(*inputs[0].shape[:2], self.features)

    def visit_group(self, place: Place) -> None:
        """Evaluate it at a group of pixels of every image."""
        self.now = self.compute([read.group(place) for read in self.reads])
        if self.canvas is not None:
            self.canvas.group(place.offsets[self.scale], place.count).copy_(self.now)

    def visit_line(self, place: Place) -> None:
        """Evaluate it along a line of pixels of every image."""
        self.line = self.compute_line([read.line(place) for read in self.reads])
        if self.canvas is not None:
            self.canvas.line(place.offsets[self.scale], place.count, len(self.line)).copy_(self.line)


class Input(Value):
    """A value that is given instead of computed: the image, or a context. It is read from its canvas."""

    def __init__(self, features: int, scale: int, phase: Phase) -> None:
        super().__init__(features, scale, phase, [])


class Read:
    """The part of a value that a reader needs: `cols` of a row, from its canvas unless it was just computed there."""

    def __init__(self, value: Value, row: int = 0, cols: range = HERE, stride: int = 1) -> None:
        self.value, self.row, self.cols, self.stride = value, row, cols, stride

    def needs_canvas(self, reader: Value) -> bool:
        """Return whether the value has to be kept, since it is read at other pixels than it was computed at."""
        same = (self.value.scale, self.value.ahead) == (reader.scale, reader.ahead)
        return not same or self.row != 0 or self.cols != HERE or isinstance(self.value, Input)

    def bind(self, reader: Value) -> None:
        """Work out where to read from, once the canvases are made."""
        self.from_canvas, self.from_line = self.needs_canvas(reader), self.value.phase < reader.phase
        self.scale, self.source_scale, self.number = reader.scale, self.value.scale, len(self.cols)
        if self.from_canvas:
            self.canvas = cast("Canvas", self.value.canvas)
            self.offset = self.row * self.canvas.row + self.cols[0]

    def group(self, place: Place) -> Tensor:
        """Read at a group of pixels: (count, cols * features)."""
        if self.from_canvas:
            return self.canvas.group(place.offsets[self.source_scale] + self.offset, place.count, self.number)
        if self.from_line:
            return self.value.line[place.steps[self.scale], place.first : place.first + place.count]
        return self.value.now

    def line(self, place: Place) -> Tensor:
        """Read along a line: (number, count, cols * features)."""
        if not self.from_canvas:
            return self.value.line
        offset = place.offsets[self.source_scale] + self.offset
        return self.canvas.line(offset, place.count, place.numbers[self.scale], self.number, self.stride)


class Elementwise(Value):
    """A function of values at the same pixel. Features are in the second dimension, as they are in an image."""

    def __init__(self, function: Callable[..., Tensor], inputs: list[Value]) -> None:
        features = function(*[torch.empty(1, value.features) for value in inputs]).shape[1]
        super().__init__(features, inputs[0].scale, max(v.phase for v in inputs), [Read(v) for v in inputs])
        self.function = function

    def compute(self, inputs: list[Tensor]) -> Tensor:
        return self.function(*inputs)


class Term(NamedTuple):
    """One row of the kernel of a convolution."""

    value: Value
    row: int
    cols: range
    stride: int
    weight: Tensor  # (columns, inputs, outputs)


class Product(Value):
    """A sum of matrix products, one for each row of each kernel, and a base: a bias, or a value computed earlier."""

    def __init__(self, base: Tensor | Value, terms: list[Term], phase: Phase) -> None:
        self.bias = base if isinstance(base, Tensor) else None
        self.weights = [term.weight.flatten(0, 1).contiguous() for term in terms]
        reads = [Read(term.value, term.row, term.cols, term.stride) for term in terms]
        if isinstance(base, Value):
            reads.append(Read(base))
        scale = terms[0].value.scale + (terms[0].stride == HALF)
        super().__init__(self.weights[0].shape[1], scale, phase, reads)

    def compute(self, inputs: list[Tensor]) -> Tensor:
        return self._sum(inputs, self.weights, torch.addmm)

    def compute_line(self, inputs: list[Tensor]) -> Tensor:
        number, count, _ = inputs[0].shape
        if count < MANY:
            return super().compute_line(inputs)
        return self._sum(inputs, [weight.expand(number, -1, -1) for weight in self.weights], torch.baddbmm)

    def _sum(self, inputs: list[Tensor], weights: list[Tensor], product: Callable[..., Tensor]) -> Tensor:
        if self.bias is None:
            out, first = inputs[-1], 0  # add to the base in place, since it has no other reader
        else:
            out, first = product(self.bias, inputs[0], weights[0]), 1
        for i in range(first, len(weights)):
            product(out, inputs[i], weights[i], out=out)
        return out


class Enlarged(Value):
    """A transposed convolution of stride 2, which is a separate convolution for even and odd rows and columns."""

    def __init__(self, layer: TransposedConv, value: Value, dtype: torch.dtype) -> None:
        super().__init__(len(layer.bias), value.scale - 1, value.phase, [Read(value, stride=HALF)])
        self.bias, weight = layer.bias.detach().to(dtype), layer.weight().detach().to(dtype)
        # Output column j reads the columns (j - c) / 2 for those offsets c that have its parity.
        offsets = [[c for c in reversed(layer.cols) if c % HALF == parity] for parity in range(HALF)]
        self.first = [(parity - offsets[parity][0]) // HALF for parity in range(HALF)]
        self.weights = [
            [weight[:, :, r, [c - layer.cols[0] for c in cols]].permute(2, 1, 0).flatten(0, 1) for cols in offsets]
            for r in range(HALF)
        ]

    def visit_group(self, place: Place) -> None:
        (odd_row, odd_col), (read,) = self._parities(place), self.reads
        weight = self.weights[odd_row][odd_col]
        offset = place.offsets[self.scale + 1] + self.first[odd_col]
        small = read.canvas.group(offset, place.count, len(weight) // read.value.features)
        out = cast("Canvas", self.canvas).group(place.offsets[self.scale], place.count)
        self.now = torch.addmm(self.bias, small, weight, out=out)

    def visit_line(self, place: Place) -> None:
        (odd_row, _), (read,) = self._parities(place), self.reads
        self.line = cast("Canvas", self.canvas).line(place.offsets[self.scale], place.count, place.numbers[self.scale])
        for odd_col, weight in enumerate(self.weights[odd_row]):
            part = self.line[odd_col::HALF]
            offset = place.offsets[self.scale + 1] + self.first[odd_col]
            small = read.canvas.line(offset, place.count, len(part), len(weight) // read.value.features)
            part.copy_(torch.addmm(self.bias, small.flatten(0, 1), weight).view(part.shape))

    def _parities(self, place: Place) -> tuple[int, int]:
        return (place.row >> self.scale) % HALF, (place.col >> self.scale) % HALF
