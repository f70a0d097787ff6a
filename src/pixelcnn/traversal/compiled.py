"""Programs of networks in the form of the compiled kernel, which evaluates all values of a step in one call.

What the kernel does is what `pixelcnn.traversal.program` does, value by value. Its structures (`kernel/program.h`) have
members of eight bytes each, so here they are arrays of int64.
"""

__all__ = ["CompiledProgram", "compiled_types"]

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcnn.common.kernel import Kernel
from pixelcnn.common.threads import threads_worth
from pixelcnn.nn.arithmetic import FLOATING, Arithmetic
from pixelcnn.nn.grid import GRID
from pixelcnn.nn.layers import concat_elu, gate
from pixelcnn.nn.tables import GATE, tables
from pixelcnn.traversal.canvas import Canvas
from pixelcnn.traversal.program import Elementwise, Enlarged, Phase, Product, Read, Value

PRODUCT, ENLARGED = 0, 1
FUNCTIONS = {
    arithmetic.function(function): number
    for arithmetic in (FLOATING, GRID)
    for function, number in ((concat_elu, 2), (gate, 3), (F.elu, 4))
}
CANVAS, ALONG, NOW = range(3)
SCALES, TERMS = 8, 16
EVERY = 2**62


def compiled_types(arithmetic: Arithmetic, dtype: torch.dtype) -> tuple[str, torch.dtype] | None:
    """Return the name that functions of the kernel have for a type of numbers, and the type of activations.

    In bfloat16 are only the weights. Returns None if there are no such functions.
    """
    types = {torch.float32: ("float", torch.float32), torch.bfloat16: ("bf16", torch.float32)}
    return types.get(dtype) if arithmetic is FLOATING else ("double", torch.float64)


class CompiledProgram:
    """A program in the form of the kernel: the same values, on the same canvases.

    Args:
        kernel: of this processor.
        name: of the types, from `compiled_types`.
        values: of the program, bound to their canvases.
        canvases: all of them, that of the image first.
        size: (H, W) of the images.
        lag: of the groups; None for raster order.
        frames: of the canvases of each scale.

    Raises:
        ValueError: if there is a value that the kernel does not know.
    """

    def __init__(
        self,
        kernel: Kernel,
        name: str,
        values: list[Value],
        canvases: list[Canvas],
        size: tuple[int, int],
        lag: int | None,
        frames: list[Canvas],
    ) -> None:
        self.batch, self.lag, self.height, self.like = frames[0].batch, lag, size[0], canvases[0].buffer
        self.weight_type = torch.bfloat16 if name == "bf16" else self.like.dtype
        self.kept: list[Any] = []  # everything that the kernel knows the address of
        self.pack, self.packed = kernel.function(f"pack_{name}", "iipp"), kernel.function(f"packed_{name}", "ii", "i")
        self.clear, self.put = kernel.function(f"clear_{name}", "pii"), kernel.function(f"update_{name}", "piiippi")
        self.visit_time = kernel.function(f"visit_time_{name}", "piii")
        self.visit_pixel = kernel.function(f"visit_pixel_{name}", "piiii")
        aheads = sorted({value.ahead for value in values})
        self.ahead = aheads[-1]
        numbers = [frame.pitch - 1 for frame in frames]
        self.most_rows, self.line_rows = self.batch, self.batch
        if lag is not None:
            self.groups = _groups(size, lag, self.ahead)
            first, end, _ = self.groups.T
            self.most_rows = self.batch * int((end - first).max())
            self.line_rows = self.batch * int((end[lag - 1 :] - first[: len(first) - lag + 1]).max())
            numbers = [lag]
        self.numbers = numbers
        self.places: dict[Value, list[int]] = {}
        computed = [value for value in values if value.reads]
        words = [word for value in computed for word in self._words(value, aheads)]
        self.multiplications = sum(_multiplications(value) for value in values)  # for a pixel
        table = [self._address(torch.from_numpy(each)) for each in (tables().elu, tables().sigmoid / GATE)]
        start = 0 if lag is None else self._address(torch.from_numpy(self.groups)) + 24 * self.ahead
        self.words = np.array(
            [
                self._array(words),
                len(computed),
                self._array([word for canvas in canvases for word in self._canvas(canvas)]),
                len(canvases),
                start,
                self._array(aheads),
                self.ahead,
                lag or 0,
                self.batch,
                len(frames),
                *table,
                *_padded([frame.row for frame in frames]),
                *_padded(numbers),
                0,
                0,
            ],
            np.int64,
        )
        self.address = self.words.ctypes.data
        self.pool: ThreadPoolExecutor | None = None

    def move(self, top: int, base: int) -> None:
        """Take note of where the window of the canvases is."""
        self.words[-2:] = top, base

    def visit(self, time: int) -> None:
        """Evaluate a time of a wavefront."""
        start, end = self.groups[time + self.ahead, 0], self.groups[time + 2 * self.ahead, 1]
        self._share(self.visit_time, (self.address, time), int(start) * self.batch, int(end) * self.batch)

    def visit_at(self, row: int, col: int) -> None:
        """Evaluate a pixel in raster order."""
        self._share(self.visit_pixel, (self.address, row, col), 0, self.batch)

    def _share(self, function: Callable[..., None], arguments: tuple[int, ...], start: int, end: int) -> None:
        """Call a function for the pixels between two numbers, on as many threads as they are worth."""
        parts = min(threads_worth((end - start) * self.multiplications), max(1, end - start))
        if parts == 1:
            function(*arguments, 0, EVERY)
            return
        if self.pool is None or self.pool._max_workers < parts - 1:
            self.pool = ThreadPoolExecutor(parts - 1)
        cuts = [0, *(start + (end - start) * part // parts for part in range(1, parts)), EVERY]
        others = [self.pool.submit(function, *arguments, *cut) for cut in pairwise(cuts[1:])]
        function(*arguments, *cuts[:2])
        for other in others:
            other.result()

    def _words(self, value: Value, aheads: list[int]) -> list[int]:
        """Describe a value, and everything that it needs."""
        reads, function, weights, bias, first = value.reads, PRODUCT, [0] * 4, 0, [0, 0]
        places = [self._read(read) for read in reads]
        if isinstance(value, Product):
            weights[0] = self._weights(torch.cat(value.weights))
            bias = 0 if value.bias is None else self._address(value.bias.to(self.like.dtype).contiguous())
        elif isinstance(value, Enlarged):
            function, bias = ENLARGED, self._address(value.bias.to(self.like.dtype).contiguous())
            weights = [self._weights(weight) for row in value.weights for weight in row]
            widths = [len(weight) // reads[0].value.features for weight in value.weights[0]]
            places = [
                [*places[0][:5], shift, 1, columns] for shift, columns in zip(value.first, widths, strict=True)
            ]
        elif isinstance(value, Elementwise) and value.function in FUNCTIONS:
            function = FUNCTIONS[value.function]
        else:
            raise ValueError(f"{value}: the kernel has no such value")
        self.places[value] = self._place(value)
        terms = len(reads) - (isinstance(value, Product) and value.bias is None)
        if terms > TERMS:
            raise ValueError(f"{value}: the kernel takes at most {TERMS} terms")
        address = self._array([word for place in places for word in place])
        kind = [function, int(value.phase), value.scale, value.features, aheads.index(value.ahead), terms, address]
        return [*kind, *self.places[value], *weights, bias, *first]

    def _read(self, read: Read) -> list[int]:
        """Describe what a reader needs of a value."""
        value, columns = read.value, len(read.cols)
        if value.canvas is None:
            return self.places[value]
        return [*self._canvas(value.canvas, value.scale)[:5], read.row * value.canvas.row + read.cols[0], read.stride, columns]

    def _place(self, value: Value) -> list[int]:
        """Say where to put a value: on its canvas if it has one, else into a buffer for a line or for a group."""
        if value.canvas is not None:
            return self._canvas(value.canvas, value.scale)
        line = value.phase == Phase.LINE
        rows = self.line_rows * self.numbers[value.scale] if line else self.most_rows
        value.now = self.like.new_zeros(rows, value.features)
        kind, pitch = (ALONG, self.line_rows) if line else (NOW, 1)
        return [self._address(value.now), kind, value.scale, value.features, pitch, 0, 1, 1]

    def _canvas(self, canvas: Canvas, scale: int = 0) -> list[int]:
        address = self._address(canvas.buffer) + canvas.start * self.like.element_size()
        return [address, CANVAS, scale, canvas.features, canvas.pitch, 0, 1, 1]

    def _weights(self, weights: Tensor) -> int:
        """Sort weights (inputs, outputs) as the kernel reads them."""
        weights, sizes = weights.to(self.weight_type).contiguous(), tuple(weights.shape)
        sorted_weights = torch.empty(self.packed(*sizes), dtype=self.weight_type)
        self.pack(*sizes, weights.data_ptr(), sorted_weights.data_ptr())
        return self._address(sorted_weights)

    def _address(self, tensor: Tensor) -> int:
        self.kept.append(tensor)
        return tensor.data_ptr()

    def _array(self, words: list[int]) -> int:
        return self._address(torch.tensor(words, dtype=torch.int64))


def _groups(size: tuple[int, int], lag: int, ahead: int) -> np.ndarray:
    """List the first row, the end and the first column of the group of each time: int64 (times, 3), from -ahead on."""
    H, W = size
    times = np.arange(-ahead, W + lag * H + ahead + lag)
    first = np.maximum(0, -(-(times - W + 1) // lag))
    return np.stack([first, np.minimum(H, times // lag + 1), times - lag * first], 1)


def _multiplications(value: Value) -> int:
    """Count the multiplications of a value at one pixel."""
    return sum(weight.numel() for weight in value.weights) if isinstance(value, Product) else 0


def _padded(words: list[int]) -> list[int]:
    return words + [0] * (SCALES - len(words))
