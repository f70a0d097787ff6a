"""A causal network evaluated at a few pixels at a time, from the activations that earlier pixels left behind.

No layer is written twice: `torch.fx` records the forward pass of the network, and every convolution in it becomes one
matrix product for each row of its kernel, with the weight normalised once. The activations lie in canvases, one for
each value that is read at other pixels than it was computed at. Pixel (i, j) of image b of B is at

    (i * B + b) * (W + 1) + lag * i + j

so that the columns that a row of a kernel reads are neighbours, and the pixels of one time, `j + lag * i = t`, of all
images stand at equal distances: they are a matrix with a leading dimension, which is multiplied where it lies. A canvas
holds a window of rows, which moves down with the pixels.

Values are evaluated in two phases. What depends on the pixels of a line and those after it in no way (the context, and
the rows above that a kernel reads) is evaluated for many pixels at once: in raster order for a row, in a wavefront for
as many columns as the lag. The rest is evaluated group by group, in raster order at stride s where s divides the row
and the column. In a wavefront a value whose reader looks c columns to the right runs c columns ahead.
"""

__all__ = ["CachedNetwork", "Group", "check_memory", "group_at"]

import operator
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple, cast

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from pixelcnn.layers import HERE, Conv, TransposedConv, concat_elu, gate
from pixelcnn.likelihoods import scale_levels
from pixelcnn.network import HALF, CausalNetwork

ROWS_ABOVE = 2  # kept above the window: no kernel reads further up
WINDOW = 3  # times the rows that one time needs: a longer window takes more memory, a shorter one moves more often


class Group(NamedTuple):
    """Pixels (row, col), (row + 1, col - lag), ..., `number` of them: those of one time."""

    row: int
    col: int
    number: int

    def pixels(self, lag: int) -> tuple[Tensor, Tensor]:
        """Rows and columns, each (number,)."""
        steps = torch.arange(self.number)
        return self.row + steps, self.col - lag * steps


def group_at(time: int, size: tuple[int, int], lag: int) -> Group:
    """The pixels (i, j) of an image (H, W) with `j + lag * i = time`."""
    H, W = size
    first = max(0, -(-(time - W + 1) // lag))
    last = min(H - 1, time // lag)
    return Group(first, time - lag * first, max(0, last - first + 1))


ELEMENTWISE = {concat_elu, gate, F.elu, operator.add}


class Phase(IntEnum):
    """When a value is evaluated; what depends on values of both phases belongs to the second."""

    LINE = 0
    GROUP = 1


class _Canvas:
    """A value of `features` numbers at the pixels of a window of rows, with zeros beyond the borders of the image.

    Offsets count pixels from pixel (top, 0) of the first image, `top` being the first row of the window.
    """

    def __init__(self, features: int, size: tuple[int, int], batch: int, lag: int) -> None:
        self.features, self.batch = features, batch
        self.rows, self.width = size
        self.pitch = self.width + 1  # from an image to the next: between them lies a column of zeros
        self.row = batch * self.pitch + lag  # from a pixel to the one below it
        self.origin = ROWS_ABOVE * self.row + 1
        self.numel = (self.origin + self.rows * self.row + 1) * features

    def allocate(self, like: Tensor) -> None:
        self.buffer = like.new_zeros(self.numel)

    def group(self, offset: int, count: int, cols: int = 1) -> Tensor:
        """What `cols` columns hold, for `count` pixels at the distance of a group: a view (count, cols * features)."""
        start = (self.origin + offset) * self.features
        return self.buffer.as_strided((count, cols * self.features), (self.pitch * self.features, 1), start)

    def line(self, offset: int, count: int, number: int, cols: int = 1, step: int = 1) -> Tensor:
        """`number` such groups, `step` columns apart: a view (number, count, cols * features)."""
        start = (self.origin + offset) * self.features
        strides = step * self.features, self.pitch * self.features, 1
        return self.buffer.as_strided((number, count, cols * self.features), strides, start)

    def image(self) -> Tensor:
        """The whole window: a view (B, features, rows, W)."""
        strides = self.pitch * self.features, 1, self.row * self.features, self.features
        shape = self.batch, self.features, self.rows, self.width
        return self.buffer.as_strided(shape, strides, self.origin * self.features)

    def move(self, rows: int) -> None:
        """Move the window down: its upper rows are forgotten, and what lies where the new ones belong is arbitrary."""
        end = self.origin + self.rows * self.row
        kept = self.buffer[rows * self.row * self.features : end * self.features].clone()
        self.buffer[: len(kept)] = kept


class _Place(NamedTuple):
    """Where values are evaluated: `count` pixels at the distance of a group, or a line of pixels from each of them on.

    The lists have an entry for each scale.
    """

    row: int  # of the first pixel
    col: int
    count: int
    offsets: list[int]  # of the first pixel on the canvases
    numbers: list[int]  # pixels in a line
    first: int = 0  # for a group: the first of its pixels among those of the last line
    steps: Sequence[int] = ()  # and how far along the line they are


class _Value:
    """One value of the forward pass: `features` numbers a pixel, at 1 / 2 ** scale of the size of the image.

    Evaluated at n pixels it is a matrix (n, features).
    """

    now: Tensor  # what it was at the last place
    canvas: _Canvas | None = None
    ahead = 0  # columns that it runs ahead of the wavefront

    def __init__(self, features: int, scale: int, phase: Phase, reads: "list[_Read]") -> None:
        self.features, self.scale, self.phase, self.reads = features, scale, phase, reads

    def compute(self, inputs: list[Tensor]) -> Tensor:
        """The value, (n, features), from what is read."""
        raise NotImplementedError

    def visit_group(self, place: _Place) -> None:
        """Evaluate it at a group of pixels of every image."""
        self.now = self.compute([read.group(place) for read in self.reads])
        if self.canvas is not None:
            self.canvas.group(place.offsets[self.scale], place.count).copy_(self.now)

    def visit_line(self, place: _Place) -> None:
        """Evaluate it along a line of pixels of every image."""
        self.now = self.compute([read.line(place) for read in self.reads])
        self.line = self.now.view(place.numbers[self.scale], place.count, self.features)
        if self.canvas is not None:
            self.canvas.line(place.offsets[self.scale], place.count, len(self.line)).copy_(self.line)


class _Source(_Value):
    """What is not evaluated: the image itself, and a context. It is read from its canvas."""

    def __init__(self, features: int, scale: int, phase: Phase) -> None:
        super().__init__(features, scale, phase, [])


class _Read:
    """A value as one of its readers sees it: `cols` of a row, from its canvas unless it was evaluated just there."""

    def __init__(self, value: _Value, row: int = 0, cols: range = HERE, stride: int = 1) -> None:
        self.value, self.row, self.cols, self.stride = value, row, cols, stride

    def needs_canvas(self, reader: _Value) -> bool:
        same = (self.value.scale, self.value.ahead) == (reader.scale, reader.ahead)
        return not same or self.row != 0 or self.cols != HERE or isinstance(self.value, _Source)

    def bind(self, reader: _Value) -> None:
        """Prepare for reading, once the canvases are there."""
        self.from_canvas, self.from_line = self.needs_canvas(reader), self.value.phase < reader.phase
        self.scale = reader.scale
        if self.from_canvas:
            self.canvas = cast("_Canvas", self.value.canvas)
            self.offset = self.row * self.canvas.row + self.cols[0]

    def group(self, place: _Place) -> Tensor:
        if self.from_canvas:
            return self.canvas.group(place.offsets[self.value.scale] + self.offset, place.count, len(self.cols))
        if self.from_line:
            return self.value.line[place.steps[self.scale], place.first : place.first + place.count]
        return self.value.now

    def line(self, place: _Place) -> Tensor:
        if not self.from_canvas:
            return self.value.now
        offset = place.offsets[self.value.scale] + self.offset
        return self.canvas.line(offset, place.count, place.numbers[self.scale], len(self.cols), self.stride).flatten(
            0, 1
        )


class _Elementwise(_Value):
    """A function of values at the same pixel, whose features are in the second dimension here as in an image."""

    def __init__(self, function: Callable[..., Tensor], inputs: list[_Value]) -> None:
        features = function(*[torch.empty(1, value.features) for value in inputs]).shape[1]
        super().__init__(features, inputs[0].scale, max(v.phase for v in inputs), [_Read(v) for v in inputs])
        self.function = function

    def compute(self, inputs: list[Tensor]) -> Tensor:
        return self.function(*inputs)


class _Term(NamedTuple):
    """One row of the kernel of a convolution."""

    value: _Value
    row: int
    cols: range
    stride: int
    weight: Tensor  # (columns, inputs, outputs)


class _Product(_Value):
    """A base, a constant or a value, and for each row of each kernel the product of its columns with a matrix."""

    def __init__(self, base: Tensor | _Value, terms: list[_Term], phase: Phase) -> None:
        self.bias = base if isinstance(base, Tensor) else None
        self.weights = [term.weight.flatten(0, 1).contiguous() for term in terms]
        reads = [_Read(term.value, term.row, term.cols, term.stride) for term in terms]
        if isinstance(base, _Value):
            reads.append(_Read(base))
        scale = terms[0].value.scale + (terms[0].stride == HALF)
        super().__init__(self.weights[0].shape[1], scale, phase, reads)

    def compute(self, inputs: list[Tensor]) -> Tensor:
        # The base has no other reader, so that the products are added to it in place.
        out = inputs[-1] if self.bias is None else torch.addmm(self.bias, inputs[0], self.weights[0])
        first = 0 if self.bias is None else 1
        for matrix, weight in zip(inputs[first:], self.weights[first:], strict=False):
            out.addmm_(matrix, weight)
        return out


class _Enlarged(_Value):
    """A transposed convolution of stride 2: another convolution of the small value for even and odd rows and columns."""

    def __init__(self, layer: TransposedConv, value: _Value, dtype: torch.dtype) -> None:
        super().__init__(len(layer.bias), value.scale - 1, value.phase, [_Read(value, stride=HALF)])
        self.bias, weight = layer.bias.detach().to(dtype), layer.weight().detach().to(dtype)
        # Output column j reads the columns (j - c) / 2 for those offsets c that have its parity.
        offsets = [[c for c in reversed(layer.cols) if c % HALF == parity] for parity in range(HALF)]
        self.first = [(parity - offsets[parity][0]) // HALF for parity in range(HALF)]
        self.weights = [
            [weight[:, :, r, [c - layer.cols[0] for c in cols]].permute(2, 1, 0).flatten(0, 1) for cols in offsets]
            for r in range(HALF)
        ]

    def visit_group(self, place: _Place) -> None:
        (odd_row, odd_col), (read,) = self._parities(place), self.reads
        weight = self.weights[odd_row][odd_col]
        offset = place.offsets[self.scale + 1] + self.first[odd_col]
        small = read.canvas.group(offset, place.count, len(weight) // read.value.features)
        out = cast("_Canvas", self.canvas).group(place.offsets[self.scale], place.count)
        self.now = torch.addmm(self.bias, small, weight, out=out)

    def visit_line(self, place: _Place) -> None:
        (odd_row, _), (read,) = self._parities(place), self.reads
        self.line = cast("_Canvas", self.canvas).line(place.offsets[self.scale], place.count, place.numbers[self.scale])
        for odd_col, weight in enumerate(self.weights[odd_row]):
            part = self.line[odd_col::HALF]
            offset = place.offsets[self.scale + 1] + self.first[odd_col]
            small = read.canvas.line(offset, place.count, len(part), len(weight) // read.value.features)
            part.copy_(torch.addmm(self.bias, small.flatten(0, 1), weight).view(part.shape))
        self.now = self.line.flatten(0, 1)

    def _parities(self, place: _Place) -> tuple[int, int]:
        return (place.row >> self.scale) % HALF, (place.col >> self.scale) % HALF


class _Sum(NamedTuple):
    """A sum of convolutions that is still being put together."""

    bias: Tensor
    terms: list[_Term]


class _Recorder(fx.Tracer):
    """Records a forward pass with convolutions and element-wise functions for its nodes."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(concat_elu, gate))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Conv | TransposedConv)


class _Body(nn.Module):
    """What is recorded: the network from its first layer on, its contexts as one argument."""

    def __init__(self, network: CausalNetwork, *, given: bool) -> None:
        super().__init__()
        self.network, self.given = network, given

    def forward(self, x: Tensor, contexts: list[Tensor]) -> Tensor:
        scales = range(self.network.scales)
        return self.network.evaluate(x, [[contexts[scale]] if self.given else [] for scale in scales])


class _Translation:
    """Translates the recorded forward pass into values, each after those that it reads."""

    def __init__(self, network: CausalNetwork, contexts: list[Tensor], *, raster: bool, dtype: torch.dtype) -> None:
        self.raster, self.dtype = raster, dtype
        self.values: list[_Value] = []
        self.body = _Body(network, given=bool(contexts))
        self.x = _Source(network.first.u.direction.shape[1], 0, Phase.GROUP)
        self.contexts = [_Source(context.shape[1], scale, Phase.LINE) for scale, context in enumerate(contexts)]
        nodes: dict[fx.Node, _Value | _Sum | None] = {}
        for node in _Recorder().trace(self.body).nodes:
            if node.op == "output":
                self.output = self._close(nodes[node.args[0]])
            else:
                nodes[node] = self._translate(node, [nodes[a] for a in node.args if isinstance(a, fx.Node)])

    def _translate(self, node: fx.Node, inputs: "list[_Value | _Sum | None]") -> "_Value | _Sum | None":
        if node.op == "placeholder":
            return self.x if node.name == "x" else None
        if node.op == "call_module":
            layer = self.body.get_submodule(str(node.target))
            values = [self._close(value) for value in inputs if value is not None]
            if isinstance(layer, Conv):
                return self._convolution(layer, values)
            return self._add(_Enlarged(cast("TransposedConv", layer), values[0], self.dtype))
        if node.target is operator.getitem and str(node.args[0]) == "contexts":
            return self.contexts[cast("int", node.args[1])]
        if node.target in ELEMENTWISE:
            if node.target is operator.add and all(isinstance(value, _Sum) for value in inputs):
                first, second = cast("list[_Sum]", inputs)
                return _Sum(first.bias + second.bias, first.terms + second.terms)
            function = cast("Callable[..., Tensor]", node.target)
            return self._add(_Elementwise(function, [self._close(value) for value in inputs]))
        return None  # a size

    def _add(self, value: _Value) -> _Value:
        self.values.append(value)
        return value

    def _convolution(self, layer: Conv, values: list[_Value]) -> _Sum:
        weights = layer.weight().detach().to(self.dtype).split([value.features for value in values], 1)
        return _Sum(
            layer.bias.detach().to(self.dtype),
            [
                _Term(value, row, layer.cols, layer.stride, weight[:, :, r].permute(2, 1, 0))
                for value, weight in zip(values, weights, strict=True)
                for r, row in enumerate(layer.rows)
            ],
        )

    def _phase(self, term: _Term) -> Phase:
        """Rows above are known early, in a wavefront just not early enough for pixels themselves."""
        above = term.row < 0 and (self.raster or term.value is not self.x)
        return Phase.LINE if above else term.value.phase

    def _close(self, value: "_Value | _Sum | None") -> _Value:
        """A value from a sum: what is known earlier is summed earlier, and is the base of the rest."""
        if not isinstance(value, _Sum):
            return cast("_Value", value)
        base: Tensor | _Value = value.bias
        for phase in Phase:
            if terms := _merge([term for term in value.terms if self._phase(term) == phase]):
                base = self._add(_Product(base, terms, phase))
        return cast("_Value", base)


def _merge(terms: list[_Term]) -> list[_Term]:
    """Terms that read the same row of the same value as one, over all their columns."""
    merged: dict[tuple[int, int], _Term] = {}
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


class CachedNetwork:
    """A causal network on a batch of images whose pixels become known group by group.

    Args:
        network: in evaluation mode.
        size: (H, W) of the images.
        batch: B, the number of images.
        context: (B, context, H, W) or (B, context, 1, 1), as for the network; None for none.
        lag: of the groups, below W; None for raster order, a pixel a group.
        dtype: of activations and weights; by default that of the network's parameters.

    Raises:
        ValueError: for a lag below the network's own, or where the network has none; for a context of another shape.
        MemoryError: where the activations need more memory than is free.
    """

    @torch.no_grad()
    def __init__(
        self,
        network: CausalNetwork,
        size: tuple[int, int],
        batch: int,
        context: Tensor | None = None,
        *,
        lag: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if lag is not None and (network.lag is None or lag < network.lag):
            raise ValueError(f"lag={lag!r}: this network needs {network.lag or 'raster order'}")
        H, W = size
        shape = None if context is None else tuple(context.shape)
        if shape not in (
            [(batch, network.context, H, W), (batch, network.context, 1, 1)] if network.context else [None]
        ):
            wanted = f"({batch}, {network.context}, {H}, {W})" if network.context else "none"
            raise ValueError(f"context of shape {shape}: this network wants {wanted}")
        self.levels, self.size, self.batch, self.lag = network.levels, size, batch, lag
        like = network.last.bias.detach().to(dtype or network.last.bias.dtype)
        contexts = [side for sides in network.contexts(context, size) for side in sides]
        translation = _Translation(network, contexts, raster=lag is None, dtype=like.dtype)
        values, self.x, self.output = translation.values, translation.x, translation.output
        if lag is not None:
            _run_ahead(values, self.x, lag)
        self.contexts = list(zip(translation.contexts, contexts, strict=True))
        self.lines, self.groups = ([value for value in values if value.phase == phase] for phase in Phase)
        self.ahead = max(value.ahead for value in self.groups)
        self.time = -self.ahead
        self._allocate(values, network.scales, like)

    def _allocate(self, values: list[_Value], scales: int, like: Tensor) -> None:
        """Make the canvases that values are read from."""
        H, W = self.size
        self.block = HALF ** (scales - 1)  # rows of the image for one row of the smallest canvas
        needed = self.block if self.lag is None else -(-(W + self.ahead) // self.lag) + 2
        self.window = min(H, -(-WINDOW * needed // self.block) * self.block)
        self.top = 0
        sizes = [(-(-self.window // HALF**scale), -(-W // HALF**scale)) for scale in range(scales)]
        self.frames = [_Canvas(1, size, self.batch, self.lag or 0) for size in sizes]
        stored: set[_Value] = {read.value for value in values for read in value.reads if read.needs_canvas(value)}
        stored |= {value for value in values if isinstance(value, _Enlarged)}  # put together on its canvas
        for value in stored:
            value.canvas = _Canvas(value.features, sizes[value.scale], self.batch, self.lag or 0)
        self.canvases = [(value.scale, cast("_Canvas", value.canvas)) for value in stored]
        check_memory(sum(canvas.numel for _, canvas in self.canvases) * like.element_size(), like.device)
        for _, canvas in self.canvases:
            canvas.allocate(like)
        for value in values:
            for read in value.reads:
                read.bind(value)
        self.pixels = cast("_Canvas", self.x.canvas)
        self.pixels.image()[:, -1] = 1  # the channel of ones
        self._fill_contexts(0)

    def params(self, group: Group) -> Tensor:
        """What the network gives at the next group of the schedule: (B, P, number)."""
        if self.lag is None:
            self._visit_pixel(group.row, group.col)
        else:
            time = group.col + self.lag * group.row
            while self.time <= time:
                self._visit_time(self.time, self.lag)
                self.time += 1
        return self.output.now.view(group.number, self.batch, -1).permute(1, 2, 0)

    def update(self, group: Group, x: Tensor) -> None:
        """Take notice of the pixels of a group: integers (B, C, number)."""
        values = scale_levels(x, self.levels, self.pixels.buffer.dtype).permute(2, 0, 1)
        (offset, *_), count = self._offsets(group.row, group.col), group.number * self.batch
        self.pixels.group(offset, count)[:, :-1] = values.flatten(0, 1)

    def _offsets(self, row: int, col: int) -> list[int]:
        """Where a pixel of the first image is, on the canvases of each scale."""
        return [((row - self.top) >> scale) * frame.row + (col >> scale) for scale, frame in enumerate(self.frames)]

    def _visit_time(self, time: int, lag: int) -> None:
        """Evaluate every value at the pixels of its own time; every `lag` times, first the lines that begin there."""
        since = (time + self.ahead) % lag
        if since == 0:
            self._move(group_at(time, self.size, lag).row, min(self.size[0] - 1, (time + self.ahead) // lag + 1))
            self.line_rows = {value.ahead: 0 for value in self.groups}
            for ahead in self.line_rows:
                first = group_at(time + ahead, self.size, lag)
                last_row = min(self.size[0] - 1, (time + ahead + lag - 1) // lag)
                count = (last_row + 1 - first.row) * self.batch
                if count > 0:
                    self.line_rows[ahead] = first.row
                    place = _Place(first.row, first.col, count, self._offsets(first.row, first.col), [lag])
                    for value in self.lines:
                        if value.ahead == ahead:
                            value.visit_line(place)
        places: dict[int, _Place] = {}
        for ahead, first_row in self.line_rows.items():
            row, col, number = group_at(time + ahead, self.size, lag)
            first = (row - first_row) * self.batch
            places[ahead] = _Place(row, col, number * self.batch, self._offsets(row, col), [], first, [since])
        for value in self.groups:
            if places[value.ahead].count:
                value.visit_group(places[value.ahead])

    def _visit_pixel(self, row: int, col: int) -> None:
        """Evaluate what a pixel needs, and before the first of a row what the row needs."""
        if col == 0:
            self._move(row, row)
            place = _Place(row, 0, self.batch, self._offsets(row, 0), [frame.width for frame in self.frames])
            for value in self.lines:
                if row % HALF**value.scale == 0:
                    value.visit_line(place)
        steps = [col >> scale for scale in range(len(self.frames))]
        place = _Place(row, col, self.batch, self._offsets(row, col), [], 0, steps)
        for value in self.groups:
            if row % HALF**value.scale == 0 and col % HALF**value.scale == 0:
                value.visit_group(place)

    def _move(self, first: int, last: int) -> None:
        """Move the window down if rows up to `last` are beyond it; rows above `first` may be forgotten."""
        if last < self.top + self.window:
            return
        end, top = self.top + self.window, first // self.block * self.block
        for scale, canvas in self.canvases:
            canvas.move((top - self.top) >> scale)
        self.top = top
        self._fill_contexts(end)

    def _fill_contexts(self, start: int) -> None:
        """Put the context's rows from `start` to the end of the window onto its canvases."""
        end = min(self.top + self.window, self.size[0])
        for value, context in self.contexts:
            first, last = start >> value.scale, -(-end // HALF**value.scale)
            top = self.top >> value.scale
            cast("_Canvas", value.canvas).image()[:, :, first - top : last - top] = context[:, :, first:last]


def _run_ahead(values: list[_Value], x: _Value, lag: int) -> None:
    """How many columns each value must run ahead, so that all that a reader looks at is there at its time."""
    for value in reversed(values):
        for read in value.reads:
            # A line is evaluated at the time of its first pixel, and its last is lag - 1 columns further.
            needed = value.ahead + read.cols[-1] + lag * (read.row + (value.phase == Phase.LINE and read.row < 0))
            if read.value is x:
                if needed >= 0:
                    raise ValueError(f"lag={lag}: the network looks {needed + 1} columns too far")
            elif not isinstance(read.value, _Source):
                read.value.ahead = max(read.value.ahead, needed)


def check_memory(needed: int, device: torch.device) -> None:
    """Raise a MemoryError, before anything is allocated, for more bytes than are free."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(
            f"sampling needs at least {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: draw fewer images at "
            "once, or smaller ones"
        )
