"""Programs of networks in the form of the compiled kernel, which evaluates all values of a step in one call.

What the kernel does is what `pixelcnn.traversal.plain` does, value by value. Its structures (`kernel/program.h`) have
members of eight bytes each, so here they are arrays of int64.

The pixels of a step do not depend on each other, so threads can share it: a thread takes those whose number, `row *
batch + image`, lies between two others. They wait for each other once a step, instead of once a product.
"""

__all__ = ["CompiledProgram", "find_backend", "fits"]

import operator
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcnn.common.kernel import TERMS, Kernel, find_kernel
from pixelcnn.common.threads import threads_worth
from pixelcnn.nn.arithmetic import FLOATING
from pixelcnn.nn.causal import CausalNetwork
from pixelcnn.nn.grid import GRID
from pixelcnn.nn.layers import concat_elu, gate
from pixelcnn.nn.tables import GATE, tables
from pixelcnn.traversal.canvas import Canvas, new_memory
from pixelcnn.traversal.plain import Layout
from pixelcnn.traversal.program import Elementwise, Enlarged, Phase, Product, Read, Value
from pixelcnn.traversal.schedule import Group

PRODUCT, ENLARGED = 0, 1
FUNCTIONS = {
    arithmetic.function(function): number
    for arithmetic in (FLOATING, GRID)
    for function, number in ((concat_elu, 2), (gate, 3), (F.elu, 4), (operator.add, 5))
}
CANVAS, ALONG, NOW = range(3)
SCALES = 8
EVERY = 2**62


class Backend(NamedTuple):
    """The kernel, and the types that it computes with."""

    kernel: Kernel
    name: str  # of the types, in the names of functions
    activations: torch.dtype
    weights: torch.dtype


def find_backend(network: CausalNetwork, like: Tensor, lag: int | None) -> Backend | None:
    """Return the kernel for a network whose numbers are like a tensor; None if only plain torch can evaluate it."""
    exact = network.arithmetic is GRID
    if like.device.type != "cpu" or not (exact or like.dtype in (torch.float32, torch.bfloat16)):
        return None
    kernel = find_kernel()
    if kernel is None:
        return None
    if exact:
        return Backend(kernel, "double", torch.float64, torch.float64)
    # Activations and sums are always in float32, and so are weights in a wavefront, where bfloat16 would gain nothing.
    # Few pixels at a time take as long as it takes to read the weights.
    half = like.dtype == torch.bfloat16 and lag is None
    return Backend(kernel, "bf16" if half else "float", torch.float32, torch.bfloat16 if half else torch.float32)


def fits(layout: Layout) -> bool:
    """Return whether the kernel knows all that a program consists of, as it does for the networks of this package."""
    return len(layout.window.frames) <= SCALES and all(
        len(value.reads) <= TERMS and (not isinstance(value, Elementwise) or value.function in FUNCTIONS)
        for value in layout.values
    )


class CompiledProgram:
    """A program that the kernel runs; what its methods do is what those of `PlainProgram` do.

    Args:
        backend: what it runs on.
        layout: of the program, which `fits`.
    """

    def __init__(self, backend: Backend, layout: Layout) -> None:
        self.layout, self.window, self.weight_type = layout, layout.window, backend.weights
        self.batch, self.ahead, self.like = layout.batch, layout.ahead, layout.canvases[0].buffer
        self.kept: list[Any] = []  # everything that the kernel knows the address of
        self.pool: ThreadPoolExecutor | None = None
        self._find_functions(*backend[:2])
        self._count_rows()
        self.places: dict[Value, list[int]] = {}
        self.numbers_of_canvases = {canvas: number for number, canvas in enumerate(layout.canvases)}
        computed = [value for value in layout.values if value.reads]
        aheads = sorted({value.ahead for value in computed})
        words = [word for value in computed for word in self._words(value, aheads)]
        self.work = {phase: self._work(phase) for phase in Phase}
        made = tables()
        self.words = np.array(
            [
                self._array(words),
                len(computed),
                self._array([word for canvas in layout.canvases for word in self._canvas(canvas)]),
                len(layout.canvases),
                self._groups_at_zero(),
                self._array(aheads),
                self.ahead,
                self.window.lag,
                layout.size[1],
                self.batch,
                len(self.window.frames),
                self._address(torch.from_numpy(made.elu)),
                self._address(torch.from_numpy(made.sigmoid / GATE)),
                *_padded([frame.row for frame in self.window.frames]),
                *_padded(self.numbers),
                self.window.top,
                self.window.base,
            ],
            np.int64,
        )
        self.program = self.words.ctypes.data
        network = layout.network
        scaled = network.arithmetic.scale(torch.arange(network.levels), network.levels, self.like.dtype)
        self.scaled, self.levels = self._address(scaled.contiguous()), network.levels

    def visit_time(self, time: int, lag: int) -> None:
        if (time + self.ahead) % lag == 0:
            self.visit_lines(time)
        self._share(Phase.GROUP, time)

    def visit_pixel(self, row: int, col: int) -> None:
        time = row * self.layout.size[1] + col
        if col == 0:
            self.visit_lines(time)
        self._share(Phase.GROUP, time)

    def visit_lines(self, time: int) -> None:
        """Evaluate the lines that start at a time; in raster order, times are the numbers of pixels."""
        self._take_window()
        self._share(Phase.LINE, time)

    def clear(self, row: int, col: int) -> None:
        self._take_window()
        self._clear(self.program, row, col)

    def move(self, canvas: Canvas, source: int, target: int, count: int, cols: int) -> None:
        self._move(self.program, self.numbers_of_canvases[canvas], source, target, count, cols)

    def fill(self, canvas: Canvas, context: Tensor) -> None:
        self._take_window()
        sizes, strides = (np.array(each, np.int64) for each in (context.shape, context.stride()))
        addresses = context.data_ptr(), sizes.ctypes.data, strides.ctypes.data
        self._fill(self.program, self.numbers_of_canvases[canvas], canvas.rows, *addresses)

    def update(self, group: Group, values: Tensor) -> None:
        values = values.to(torch.int64).contiguous()
        self._update(self.program, *group, values.data_ptr(), self.scaled, self.levels)

    def _share(self, phase: Phase, time: int) -> None:
        """Visit the pixels of a time, on as many threads as they are worth."""
        start, end = self.ends[time + self.ahead] if self.layout.lag else (0, self.batch)
        threads = threads_worth((end - start) * self.work[phase])
        parts = min(threads, end - start)
        if parts <= 1:
            self._visit(self.program, phase, time, 0, EVERY)
            return
        if self.pool is None:
            self.pool = ThreadPoolExecutor(threads_worth(EVERY))
        cuts = [0, *(start + (end - start) * part // parts for part in range(1, parts)), EVERY]
        others = [self.pool.submit(self._visit_part, phase, time, *cut) for cut in pairwise(cuts[1:])]
        try:
            self._visit_part(phase, time, *cuts[:2])
        finally:
            wait(others)

    def _visit_part(self, phase: Phase, time: int, start: int, end: int) -> None:
        """Visit a share. As a method, it keeps the memory until it is done, even if Ctrl-C ends the wait for it."""
        self._visit(self.program, phase, time, start, end)

    def _take_window(self) -> None:
        self.words[-2:] = self.window.top, self.window.base

    def _find_functions(self, kernel: Kernel, name: str) -> None:
        self._pack, self._packed = kernel.function(f"pack_{name}", "iipp"), kernel.function(f"packed_{name}", "ii", "i")
        self._clear = kernel.function(f"clear_{name}", "pii")
        self._move, self._fill = kernel.function(f"move_{name}", "piiiii"), kernel.function(f"fill_{name}", "piippp")
        self._update = kernel.function(f"update_{name}", "piiippi")
        self._visit, self.run = kernel.function(f"visit_{name}", "piiii"), kernel.function(f"run_{name}", "ppii", "i")

    def _count_rows(self) -> None:
        """Count the most pixels of a group, the most lines at once, and the pixels along a line of each scale."""
        lag, batch = self.layout.lag, self.batch
        if lag is None:
            self.most, self.most_lines = batch, batch
            self.numbers = [frame.pitch - 1 for frame in self.window.frames]
            return
        self.groups = _groups(self.layout.size, lag, self.ahead)
        first, end, _ = self.groups.T
        self.most = batch * int((end - first).max())
        self.most_lines = batch * int((end[lag - 1 :] - first[: len(first) - lag + 1]).max())
        self.numbers = [lag]
        self.ends = [(batch * int(a), batch * int(b)) for a, b in zip(first, end[self.ahead :], strict=False)]

    def _groups_at_zero(self) -> int:
        """Return the address of the group at time zero; 0 in raster order."""
        if self.layout.lag is None:
            return 0
        return self._address(torch.from_numpy(self.groups)) + self.ahead * self.groups.strides[0]

    def _work(self, phase: Phase) -> int:
        """Count the multiplications at a pixel of a group, or along a line, on average over the pixels."""
        work = 0.0
        for value in self.layout.values:
            if isinstance(value, Product) and value.phase == phase:
                weights, step = sum(weight.numel() for weight in value.weights), 2**value.scale
                work += weights * (1 / step**2 if phase == Phase.GROUP else self.numbers[value.scale] / step)
        return int(work)

    def _words(self, value: Value, aheads: list[int]) -> list[int]:
        """Describe a value, and everything that it needs."""
        reads, function, weights, bias, first = value.reads, PRODUCT, [0] * 4, 0, [0, 0]
        places = [self._read(read) for read in reads]
        if isinstance(value, Product):
            weights[0] = self._weights(torch.cat(value.weights))
            bias = 0 if value.bias is None else self._address(value.bias.contiguous())
        elif isinstance(value, Enlarged):
            function, bias = ENLARGED, self._address(value.bias.contiguous())
            weights = [self._weights(weight) for row in value.weights for weight in row]
            widths = [len(weight) // reads[0].value.features for weight in value.weights[0]]
            places = [[*places[0][:5], shift, 1, columns] for shift, columns in zip(value.first, widths, strict=True)]
        elif isinstance(value, Elementwise):
            function = FUNCTIONS[value.function]
        self.places[value] = self._place(value)
        terms = len(reads) - (isinstance(value, Product) and value.bias is None)
        address = self._array([word for place in places for word in place])
        kind = [function, int(value.phase), value.scale, value.features, aheads.index(value.ahead), terms, address]
        return [*kind, *self.places[value], *weights, bias, *first]

    def _read(self, read: Read) -> list[int]:
        """Describe what a reader needs of a value, which comes before it in the program."""
        value, columns = read.value, len(read.cols)
        if value.canvas is None:
            return self.places[value]
        return [
            *self._canvas(value.canvas)[:5],
            read.row * value.canvas.row + read.cols[0],
            read.stride,
            columns,
        ]

    def _place(self, value: Value) -> list[int]:
        """Say where to put a value: on its canvas if it has one, else into a buffer for a line or for a group."""
        if value.canvas is not None:
            return self._canvas(value.canvas)
        line = value.phase == Phase.LINE
        rows = self.most_lines * self.numbers[value.scale] if line else self.most
        value.now = new_memory(rows * value.features, self.like).view(rows, -1)
        kind, pitch = (ALONG, self.most_lines) if line else (NOW, 1)
        return [self._address(value.now), kind, value.scale, value.features, pitch, 0, 1, 1]

    def _canvas(self, canvas: Canvas) -> list[int]:
        address = self._address(canvas.buffer) + canvas.start * self.like.element_size()
        return [address, CANVAS, canvas.scale, canvas.features, canvas.pitch, 0, 1, 1]

    def _weights(self, weights: Tensor) -> int:
        """Sort weights (inputs, outputs) as the kernel reads them."""
        weights, sizes = weights.to(self.weight_type).contiguous(), tuple(weights.shape)
        sorted_weights = torch.empty(self._packed(*sizes), dtype=self.weight_type)
        self._pack(*sizes, weights.data_ptr(), sorted_weights.data_ptr())
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


def _padded(words: list[int]) -> list[int]:
    return words + [0] * (SCALES - len(words))
