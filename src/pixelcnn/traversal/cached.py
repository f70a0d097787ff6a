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

import math
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor

from pixelcnn.common.memory import check_sampling_memory
from pixelcnn.nn.causal import HALF, CausalNetwork
from pixelcnn.traversal.canvas import ROWS_ABOVE, Canvas, Window, new_memory
from pixelcnn.traversal.compiled import CompiledProgram, find_backend, fits
from pixelcnn.traversal.filler import Filler, open_filler
from pixelcnn.traversal.plain import Layout, PlainProgram
from pixelcnn.traversal.program import Enlarged, Phase
from pixelcnn.traversal.record import Translation, run_ahead
from pixelcnn.traversal.schedule import Group, group_at

AT_ONCE = 32  # groups that are filled before somebody can see how far it is, or stop it: a tenth of a second or two
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
        dtype: of activations and weights; by default that of the network's parameters. In the compiled kernel,
            torch.bfloat16 is for the weights in raster order only.

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
        self.size, self.batch, self.lag = size, batch, lag
        like = network.last.bias.detach().to(dtype or network.last.bias.dtype)
        backend = find_backend(network, like, lag)
        if backend is not None:
            like = like.to(backend.activations)
        contexts = network.contexts(None if context is None else context.to(like.dtype), size)
        translation = Translation(network, contexts, raster=lag is None, dtype=like.dtype)
        values = translation.values
        if lag is not None:
            run_ahead(values, translation.x, lag)
        # The activations of a pixel are next to each other, as they are on a canvas.
        contexts = [
            context if context.stride(1) == 1 else context.contiguous(memory_format=torch.channels_last)
            for context in contexts
        ]
        self.contexts = list(zip(translation.contexts, contexts, strict=True))
        self._allocate(translation, network.scales, like)
        layout = self.layout = Layout(values, translation.output, self.canvases, self.window, size, lag, network)
        self.output, self.ahead = translation.output, layout.ahead
        self.time = -self.ahead  # in raster order, the number of a pixel
        self.end = math.prod(size) if lag is None else size[1] + lag * (size[0] - 1)
        if backend is not None and fits(layout):
            self.program = CompiledProgram(backend, layout)
        else:
            self.program = PlainProgram(layout)
        self._fill_contexts()

    def _allocate(self, translation: Translation, scales: int, like: Tensor) -> None:
        """Allocate the canvases that values are read from."""
        values, (H, W) = translation.values, self.size
        ahead = max(value.ahead for value in values)
        if self.lag is None:
            base, self.kept = 0, W + 1
            self.rows = min(H, SPAN * HALF ** (scales - 1))  # a row of the smallest canvas, and a few more
            sizes = [(-(-self.rows // HALF**scale), -(-W // HALF**scale) + 1) for scale in range(scales)]
        else:
            self.kept = ROWS_ABOVE * self.lag + 2 + ahead  # the first layer looks up, and a column to the left
            base = -self.kept
            pitch = min(SPAN * self.kept, W + self.lag * H + self.kept + ahead)
            self.rows = min(H, (W + pitch) // self.lag + 2)
            sizes = [(self.rows, pitch)]
        batch, lag = self.batch, self.lag or 0
        frames = [Canvas(1, scale, size, batch, lag) for scale, size in enumerate(sizes)]
        self.window = Window(frames, lag, base)
        stored = {translation.x: None}  # first, and then those that are read from
        stored |= {read.value: None for value in values for read in value.reads if read.needs_canvas(value)}
        stored |= {value: None for value in values if isinstance(value, Enlarged)}  # assembled on its canvas
        for value in stored:
            value.canvas = Canvas(value.features, value.scale, sizes[value.scale], batch, lag)
        self.canvases = [cast("Canvas", value.canvas) for value in stored]
        kept = [value.features for value in values if value.phase == Phase.LINE and value not in stored]
        lines = sum(kept) * batch * (W + 2 * lag)  # of those that are read only where they were computed
        numbers = lines + sum(canvas.numel for canvas in self.canvases)
        check_sampling_memory(numbers * like.element_size(), like.device)
        numels = [canvas.numel for canvas in self.canvases]
        memory = new_memory(sum(numels), like).zero_()  # in one piece, which is faster to get
        for canvas, first in zip(self.canvases, accumulate(numels, initial=0), strict=False):
            canvas.put(memory, first)
        for value in values:
            for read in value.reads:
                read.bind(value)

    def params(self, group: Group) -> Tensor:
        """Evaluate the network at the next group of the schedule: (B, P, number), only until the next call."""
        if self.lag is None:
            self._begin(group.row * self.size[1] + group.col)
            self.program.visit_pixel(group.row, group.col)
        else:
            time = group.col + self.lag * group.row
            while self.time <= time:
                self._begin(self.time)
                self.program.visit_time(self.time, self.lag)
                self.time += 1
        return self.shown(group)

    def shown(self, group: Group) -> Tensor:
        """Return the parameters of the group that was evaluated last: (B, P, number)."""
        now = self.output.now[: group.number * self.batch]
        return now.view(group.number, self.batch, -1).permute(1, 2, 0)

    def filler(self, x: Tensor, fill: object) -> Filler | None:
        """Return what fills a canvas in the kernel; None if it is filled group by group."""
        return open_filler(self.program, x, fill) if isinstance(self.program, CompiledProgram) else None

    def run(self, filler: Filler) -> bool:
        """Fill groups from `time` on, some at once, at most until new lines are needed; False if the next one fails."""
        self._begin(self.time)
        cycle = self.lag or self.size[1]
        since = (self.time + self.ahead) % cycle
        end = min(self.end, self.time + cycle - since, self.time + AT_ONCE)
        self.time = filler.run(self.time, end, lines=since == 0)
        return self.time == end

    def update(self, group: Group, values: Tensor) -> None:
        """Record the pixels of a group: integers (B, C, number)."""
        self.program.update(group, values)

    def _begin(self, time: int) -> None:
        """Make room on the canvases for the lines of a time, if it has some; in raster order, of a pixel."""
        row, col = divmod(time, self.size[1])
        if self.lag is not None and (time + self.ahead) % self.lag == 0:
            self._advance(time, self.lag)
        elif self.lag is None and col == 0 and row >= self.window.top + self.rows:
            self._move(row, 0, row)

    def _advance(self, time: int, lag: int) -> None:
        """Make room on the canvases for the values of the next `lag` times."""
        H, W = self.size
        newest = time + self.ahead
        if newest + lag >= self.window.base + self.window.frames[0].pitch:
            self._move(group_at(time, self.size, lag).row, newest - self.kept, min(H, newest // lag + 1))
        # The new slots are also the columns left of one row and right of another, which must read as zeros.
        for row, col in ((newest // lag + 1, -1), (newest // lag - W // lag, W)):
            if 0 <= row < H:
                self.program.clear(row, col)

    def _move(self, top: int, base: int, end: int) -> None:
        """Move the window to `top` and `base`, and keep `kept` times of the rows before `end`."""
        window = self.window
        for canvas in self.canvases:
            above = -ROWS_ABOVE * self.batch * canvas.pitch
            down = ((top - window.top) >> canvas.scale) * self.batch * canvas.pitch
            count = (ROWS_ABOVE + end - top) * self.batch
            source = above + down + base - window.base
            self.program.move(canvas, source, above, count, min(self.kept, canvas.pitch))
        window.top, window.base = top, base
        self._fill_contexts()

    def _fill_contexts(self) -> None:
        """Copy the part of the contexts inside the window onto their canvases."""
        for value, context in self.contexts:
            self.program.fill(cast("Canvas", value.canvas), context)
