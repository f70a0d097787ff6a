"""A causal network that is evaluated a few pixels at a time, and reuses the activations of earlier pixels.

No layer is written a second time here. The forward pass of the network is recorded (`pixelcnn.traversal.record`), and
every convolution in it becomes one matrix product for each row of its kernel, with weights that are normalized once.
Activations are called *values* here. Values that are read at other pixels than they were computed at are kept in
canvases (`pixelcnn.traversal.canvas`).

Values are evaluated in two phases. Some do not depend on the pixels that are being filled: the context, and everything
that a kernel reads from the rows above. These are evaluated for a whole *line* of pixels at once, which is a row in
raster order, and as many columns as the lag in a wavefront. The others are evaluated group by group. In raster order, a
value at stride s is evaluated only if s divides the row and the column. In a wavefront, a value whose reader looks c
columns to the right is computed c columns ahead.
"""

__all__ = ["CachedNetwork"]

from typing import cast

import torch
from torch import Tensor

from pixelcnn.common.kernel import find_kernel
from pixelcnn.common.memory import check_sampling_memory
from pixelcnn.nn.causal import HALF, CausalNetwork
from pixelcnn.nn.layers import concat_elu
from pixelcnn.traversal.canvas import ROWS_ABOVE, Canvas, Place
from pixelcnn.traversal.compiled import CompiledProgram, compiled_types
from pixelcnn.traversal.program import Enlarged, Phase, Value
from pixelcnn.traversal.record import Translation, run_ahead
from pixelcnn.traversal.schedule import Group, group_at

SPAN = 3  # size of the window over what must be kept: a larger one takes more memory, a smaller one moves more often


class CachedNetwork:
    """A causal network on a batch of images whose pixels become known group by group.

    It gives the same parameters as a full forward pass, up to rounding, without dropout.

    Args:
        network: any causal network.
        size: (H, W) of the images.
        batch: B, the number of images.
        context: (B, context, H, W) or (B, context, 1, 1), as for the network; None for none.
        lag: of the groups, below W; None for raster order, where each group is one pixel.
        dtype: of activations and weights; by default that of the network's parameters.

    Raises:
        ValueError: if the lag is below the network's own, the network has none, or the context has the wrong shape.
        MemoryError: if the activations need more memory than is free.

    Example:
        >>> import torch
        >>> from pixelcnn.nn.causal import CausalNetwork
        >>> from pixelcnn.traversal.cached import CachedNetwork
        >>> from pixelcnn.traversal.schedule import groups
        >>> network = CausalNetwork(channels=1, levels=4, outputs=5, filters=4, blocks=1, scales=1).eval()
        >>> x = torch.randint(0, 4, (2, 1, 6, 8))
        >>> cached, params = CachedNetwork(network, size=(6, 8), batch=2, lag=4), torch.empty(2, 5, 6, 8)
        >>> for group in groups((6, 8), lag=4):
        ...     rows, cols = group.pixels(lag=4)
        ...     params[:, :, rows, cols] = cached.params(group)
        ...     cached.update(group, x[:, :, rows, cols])
        >>> with torch.no_grad():
        ...     torch.allclose(params, network(x), atol=1e-5)
        True
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
        wanted = [(batch, network.context, *sides) for sides in ((H, W), (1, 1))] if network.context else [None]
        if (shape := None if context is None else tuple(context.shape)) not in wanted:
            raise ValueError(f"context of shape {shape}: this network needs {wanted[0]}")
        self.levels, self.size, self.batch, self.lag = network.levels, size, batch, lag
        self.arithmetic = network.arithmetic
        like = network.last.bias.detach().to(dtype or network.last.bias.dtype)
        contexts = network.contexts(context, size)
        kernel = find_kernel() if like.device.type == "cpu" else None
        types = compiled_types(network.arithmetic, like.dtype) if kernel else None
        if types is not None:  # which has bfloat16 for weights only
            like = like.to(types[1])
        translation = Translation(network, contexts, raster=lag is None, dtype=like.dtype)
        values, self.x, self.output = translation.values, translation.x, translation.output
        if lag is not None:
            run_ahead(values, self.x, lag)
        self.contexts = list(zip(translation.contexts, contexts, strict=True))
        self.lines, self.groups = ([value for value in values if value.phase == phase] for phase in Phase)
        self.ahead = max(value.ahead for value in self.groups)
        self.time = -self.ahead
        self._allocate(values, network.scales, like)
        self.compiled = None
        if kernel is not None and types is not None:
            canvases = [canvas for _, canvas in self.canvases if canvas is not self.pixels]
            self.compiled = CompiledProgram(
                kernel, types[0], values, [self.pixels, *canvases], size, lag, self.frames
            )
            self.scaled = self.arithmetic.scale(torch.arange(self.levels), self.levels, like.dtype).contiguous()
            self.compiled.move(self.top, self.base)

    def _allocate(self, values: list[Value], scales: int, like: Tensor) -> None:
        """Allocate the canvases that values are read from."""
        H, W = self.size
        if self.lag is None:
            self.base, self.kept = 0, W + 1
            self.window = min(H, SPAN * HALF ** (scales - 1))  # a row of the smallest canvas, and a few more
            sizes = [(-(-self.window // HALF**scale), -(-W // HALF**scale) + 1) for scale in range(scales)]
        else:
            self.kept = ROWS_ABOVE * self.lag + 2 + self.ahead  # the first layer looks up, and a column to the left
            self.base = -self.kept
            pitch = min(SPAN * self.kept, W + self.lag * H + self.kept + self.ahead)
            self.window = min(H, (W + pitch) // self.lag + 2)
            sizes = [(self.window, pitch)]
        self.top = 0
        self.frames = [Canvas(1, size, self.batch, self.lag or 0) for size in sizes]
        stored = {read.value: None for value in values for read in value.reads if read.needs_canvas(value)}
        stored |= {value: None for value in values if isinstance(value, Enlarged)}  # assembled on its canvas
        for value in stored:
            value.canvas = Canvas(value.features, sizes[value.scale], self.batch, self.lag or 0)
        self.canvases = [(value.scale, cast("Canvas", value.canvas)) for value in stored]
        check_sampling_memory(sum(canvas.numel for _, canvas in self.canvases) * like.element_size(), like.device)
        for _, canvas in self.canvases:
            canvas.allocate(like)
        for value in values:
            for read in value.reads:
                read.bind(value)
        self.pixels = cast("Canvas", self.x.canvas)
        self._fill_contexts()

    def params(self, group: Group) -> Tensor:
        """Evaluate the network at the next group of the schedule: (B, P, number)."""
        if self.lag is None:
            self._visit_pixel(group.row, group.col)
        else:
            time = group.col + self.lag * group.row
            while self.time <= time:
                self._visit_time(self.time, self.lag)
                self.time += 1
        now = self.output.now[: group.number * self.batch]
        return now.view(group.number, self.batch, -1).permute(1, 2, 0)

    def update(self, group: Group, values: Tensor) -> None:
        """Record the pixels of a group: integers (B, C, number)."""
        if self.compiled is not None:
            values = values.to(torch.int64).contiguous()
            self.compiled.put(
                self.compiled.address, group.row, group.col, group.number, values.data_ptr(), self.scaled.data_ptr(), self.levels
            )
            return
        scaled = self.arithmetic.scale(values, self.levels, self.pixels.buffer.dtype).permute(2, 0, 1)
        (offset, *_), count = self._offsets(group.row, group.col), group.number * self.batch
        pixels = self.pixels.group(offset, count)
        pixels.fill_(1)  # for the last channel, which is all ones
        pixels[:, :-1] = scaled.flatten(0, 1)

    def _offsets(self, row: int, col: int) -> list[int]:
        """Return the offset of a pixel of the first image on the canvases of each scale."""
        row, col = row - self.top, col + self.top * (self.lag or 0) - self.base
        return [(row >> scale) * frame.row + (col >> scale) for scale, frame in enumerate(self.frames)]

    def _visit_time(self, time: int, lag: int) -> None:
        """Evaluate every value at the pixels of its time; at every `lag`-th time, first the lines that start there."""
        since = (time + self.ahead) % lag
        if since == 0:
            self._advance(time, lag)
        if self.compiled is not None:
            self.compiled.visit(time)
            return
        if since == 0:
            self.line_rows = {value.ahead: 0 for value in self.groups}
            for ahead in self.line_rows:
                first = group_at(time + ahead, self.size, lag)
                last_row = min(self.size[0] - 1, (time + ahead + lag - 1) // lag)
                count = (last_row + 1 - first.row) * self.batch
                if count > 0:
                    self.line_rows[ahead] = first.row
                    place = Place(first.row, first.col, count, self._offsets(first.row, first.col), [lag])
                    for value in self.lines:
                        if value.ahead == ahead:
                            value.visit_line(place)
        places: dict[int, Place | None] = {}
        steps = [since]
        for ahead, first_row in self.line_rows.items():
            row, col, number = group_at(time + ahead, self.size, lag)
            first, count = (row - first_row) * self.batch, number * self.batch
            places[ahead] = Place(row, col, count, self._offsets(row, col), [], first, steps) if number else None
        for value in self.groups:
            place = places[value.ahead]
            if place is not None:
                value.visit_group(place)

    def _visit_pixel(self, row: int, col: int) -> None:
        """Evaluate the values of a pixel and, before the first pixel of a row, the lines of that row."""
        if col == 0:
            if row >= self.top + self.window:
                self._move(row, 0, row)
        if self.compiled is not None:
            self.compiled.visit_at(row, col)
            return
        if col == 0:
            place = Place(row, 0, self.batch, self._offsets(row, 0), [frame.pitch - 1 for frame in self.frames])
            for value in self.lines:
                if row % HALF**value.scale == 0:
                    value.visit_line(place)
        steps = [col >> scale for scale in range(len(self.frames))]
        place = Place(row, col, self.batch, self._offsets(row, col), [], 0, steps)
        for value in self.groups:
            if row % HALF**value.scale == 0 and col % HALF**value.scale == 0:
                value.visit_group(place)

    def _advance(self, time: int, lag: int) -> None:
        """Make room on the canvases for the values of the next `lag` times."""
        H, W = self.size
        newest = time + self.ahead
        if newest + lag >= self.base + self.frames[0].pitch:
            self._move(group_at(time, self.size, lag).row, newest - self.kept, min(H, newest // lag + 1))
        # The new slots are also the columns left of one row and right of another, which must read as zeros.
        for row, col in ((newest // lag + 1, -1), (newest // lag - W // lag, W)):
            if 0 <= row < H and self.compiled is not None:
                self.compiled.clear(self.compiled.address, row, col)
            elif 0 <= row < H:
                for _, canvas in self.canvases:
                    canvas.group(self._offsets(row, col)[0], self.batch).zero_()

    def _move(self, top: int, base: int, end: int) -> None:
        """Move the window to `top` and `base`, and keep `kept` times of the rows before `end`."""
        for scale, canvas in self.canvases:
            above = -ROWS_ABOVE * self.batch * canvas.pitch
            down = ((top - self.top) >> scale) * self.batch * canvas.pitch
            count = (ROWS_ABOVE + end - top) * self.batch
            canvas.move(above + down + base - self.base, above, count, min(self.kept, canvas.pitch))
        self.top, self.base = top, base
        if self.compiled is not None:
            self.compiled.move(top, base)
        self._fill_contexts()

    def _fill_contexts(self) -> None:
        """Copy the part of the contexts inside the window onto their canvases."""
        activate = self.arithmetic.function(concat_elu)
        for value, context in self.contexts:
            H, W = context.shape[2:]
            canvas, step = cast("Canvas", value.canvas), 2**value.scale
            for row in range(self.top // step, min(H, self.top // step + canvas.rows)):
                start = self.base - row * (self.lag or 0)
                first, last = max(0, start), min(W, start + canvas.pitch)
                if first < last:
                    offset = self._offsets(row * step, first * step)[value.scale]
                    side = activate(context[:, :, row : row + 1, first:last])
                    canvas.image(offset, 1, last - first).copy_(side)
