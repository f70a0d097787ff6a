"""Programs of networks run in plain torch, value by value: on every device, and with every type of numbers."""

__all__ = ["Layout", "PlainProgram"]

from typing import NamedTuple

from torch import Tensor

from pixelcnn.nn.causal import HALF, CausalNetwork
from pixelcnn.nn.layers import concat_elu
from pixelcnn.traversal.canvas import Canvas, Window
from pixelcnn.traversal.program import Phase, Place, Value
from pixelcnn.traversal.schedule import Group, group_at


class Layout(NamedTuple):
    """A program on its canvases.

    Attributes:
        values: of the program, bound to their canvases.
        output: the value that gives the parameters.
        canvases: all of them, that of the image first.
        window: what they hold.
        size: (H, W) of the images.
        lag: of the groups; None for raster order.
        network: that the program is of.
    """

    values: list[Value]
    output: Value
    canvases: list[Canvas]
    window: Window
    size: tuple[int, int]
    lag: int | None
    network: CausalNetwork

    @property
    def batch(self) -> int:
        return self.canvases[0].batch

    @property
    def ahead(self) -> int:
        """The most columns that a value is computed ahead."""
        return max(value.ahead for value in self.values)


class PlainProgram:
    """A program that torch runs."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.window, self.batch, self.ahead = layout, layout.window, layout.batch, layout.ahead
        self.lines, self.groups = ([value for value in layout.values if value.phase == phase] for phase in Phase)
        self.first_rows: dict[int, int] = {}  # of the last lines, by how far ahead they are

    def visit_time(self, time: int, lag: int) -> None:
        """Evaluate every value at the pixels of its time; at every `lag`-th time, first the lines that start there."""
        size, since = self.layout.size, (time + self.ahead) % lag
        if since == 0:
            self.first_rows = {value.ahead: 0 for value in self.groups}
            for ahead in self.first_rows:
                first = group_at(time + ahead, size, lag)
                last_row = min(size[0] - 1, (time + ahead + lag - 1) // lag)
                count = (last_row + 1 - first.row) * self.batch
                if count > 0:
                    self.first_rows[ahead] = first.row
                    place = Place(first.row, first.col, count, self.window.offsets(first.row, first.col), [lag])
                    for value in self.lines:
                        if value.ahead == ahead:
                            value.visit_line(place)
        places: dict[int, Place | None] = {}
        steps = [since]
        for ahead, first_row in self.first_rows.items():
            row, col, number = group_at(time + ahead, size, lag)
            first, count = (row - first_row) * self.batch, number * self.batch
            places[ahead] = Place(row, col, count, self.window.offsets(row, col), [], first, steps) if number else None
        for value in self.groups:
            place = places[value.ahead]
            if place is not None:
                value.visit_group(place)

    def visit_pixel(self, row: int, col: int) -> None:
        """Evaluate the values of a pixel and, before the first pixel of a row, the lines of that row."""
        frames = self.window.frames
        if col == 0:
            place = Place(row, 0, self.batch, self.window.offsets(row, 0), [frame.pitch - 1 for frame in frames])
            for value in self.lines:
                if row % HALF**value.scale == 0:
                    value.visit_line(place)
        steps = [col >> scale for scale in range(len(frames))]
        place = Place(row, col, self.batch, self.window.offsets(row, col), [], 0, steps)
        for value in self.groups:
            if row % HALF**value.scale == 0 and col % HALF**value.scale == 0:
                value.visit_group(place)

    def clear(self, row: int, col: int) -> None:
        """Set all canvases to zero at a pixel of all images."""
        for canvas in self.layout.canvases:
            canvas.group(self.window.offsets(row, col)[0], self.batch).zero_()

    def move(self, canvas: Canvas, source: int, target: int, count: int, cols: int) -> None:
        """Copy a group of `cols` columns on a canvas from one offset to another, to keep it when the window moves."""
        kept = canvas.group(source, count, cols).clone()
        canvas.group(target, count, cols).copy_(kept)

    def fill(self, canvas: Canvas, context: Tensor) -> None:
        """Put what the window holds of a context (B, F, h, w) on its canvas, after `concat_elu`."""
        activate, window = self.layout.network.arithmetic.function(concat_elu), self.window
        h, w = context.shape[2:]
        top, step = window.top >> canvas.scale, 1 << canvas.scale
        for row in range(top, min(h, top + canvas.rows)):
            start = window.base - row * window.lag
            first, last = max(0, start), min(w, start + canvas.pitch)
            if first < last:
                offset = window.offsets(row * step, first * step)[canvas.scale]
                side = activate(context[:, :, row : row + 1, first:last])
                canvas.image(offset, 1, last - first).copy_(side)

    def update(self, group: Group, values: Tensor) -> None:
        """Put the pixels of a group, integers (B, C, number), on the canvas of the image."""
        network, canvas = self.layout.network, self.layout.canvases[0]
        scaled = network.arithmetic.scale(values, network.levels, canvas.buffer.dtype).permute(2, 0, 1)
        pixels = canvas.group(self.window.offsets(group.row, group.col)[0], group.number * self.batch)
        pixels.fill_(1)  # for the last channel, which is all ones
        pixels[:, :-1] = scaled.flatten(0, 1)
