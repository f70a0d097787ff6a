"""The one loop that visits the pixels of an image in a causal order.

With pixel (i, j) at time `j + lag * i`, the pixels of one time depend only on pixels of earlier times, so they are
visited together as a *group*. For a plain network, a group is a slanted line of pixels, and there are W + lag * (H - 1)
groups instead of H * W pixels. A *fill* decides what the pixels of a group become: draws (`pixelcnn.models.draw`), or
known pixels, or whatever a codec decodes.

There are three schedules, which give a fill the same parameters:

    naive       a full forward pass for every group: correct by construction, and slow
    raster      pixel by pixel, with cached activations: works for every network
    wavefront   group by group, with cached activations: for networks that declare their lag
"""

__all__ = ["Evaluator", "Fill", "FullNetwork", "Watch", "open_evaluator", "traverse"]

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from pixelcnn.nn.causal import CausalNetwork
from pixelcnn.traversal.cached import CachedNetwork
from pixelcnn.traversal.filler import Filler
from pixelcnn.traversal.schedule import Group, Schedule, group_at, visits

Fill = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`fill(params, rows, cols)` maps parameters (B, P, N) of pixels at rows (N,), cols (N,) to values (B, C, N).

All of these are on the device of the canvas.
"""


class Watch(NamedTuple):
    """Who wants to know how far a traversal is, and what is on the canvas.

    Args:
        progress: called with the canvas after each group.
        advance: called with the number of pixels of an image that were filled since the last call.
    """

    progress: Callable[[Tensor], None] | None = None
    advance: Callable[[int], None] | None = None


LONGEST = 1024  # groups between two looks at whether the parameters are finite


class Evaluator(Protocol):
    """An object that gives the parameters of one group after another, and is told the pixels of each."""

    def params(self, group: Group) -> Tensor:
        """Evaluate the network at the next group of the schedule: (B, P, number)."""
        ...

    def update(self, group: Group, values: Tensor) -> None:
        """Record the pixels of a group: integers (B, C, number)."""
        ...


class FullNetwork:
    """An evaluator that runs a full forward pass for every group, to compare faster ones with.

    Args:
        network: the network to evaluate.
        x: the canvas that the traversal fills, integers (B, C, H, W).
        context: of the network; None for none.
        lag: of the groups; the width of the canvas for raster order.
    """

    def __init__(self, network: CausalNetwork, x: Tensor, context: Tensor | None, lag: int) -> None:
        self.network, self.x, self.context, self.lag = network, x, context, lag

    def params(self, group: Group) -> Tensor:
        rows, cols = group.pixels(self.lag, self.x.device)
        return self.network(self.x, self.context)[:, :, rows, cols]

    def update(self, group: Group, values: Tensor) -> None:
        pass  # the traversal puts them on the canvas, which `params` reads


def open_evaluator(
    network: CausalNetwork,
    x: Tensor,
    context: Tensor | None,
    *,
    lag: int | None,
    schedule: Schedule = "auto",
    dtype: torch.dtype | None = None,
) -> Evaluator:
    """Make the evaluator of a schedule.

    Args:
        network: the network to evaluate.
        x: the canvas, integers (B, C, H, W).
        context: (B, context, H, W), (B, context, 1, 1) or None.
        lag: of the groups, from `wavefront_lag`; None for raster order.
        schedule: "naive" for a `FullNetwork`; all others use a `CachedNetwork`.
        dtype: of cached activations and weights; by default that of the network.

    Raises:
        MemoryError: if the cached activations need more memory than is free.
    """
    B, _, H, W = x.shape
    if schedule == "naive":
        return FullNetwork(network, x, context, lag or W)
    return CachedNetwork(network, (H, W), B, context, lag=lag, dtype=dtype)


def traverse(
    evaluator: Evaluator,
    x: Tensor,
    fill: Fill,
    lag: int | None = None,
    watch: Watch | None = None,
) -> Tensor:
    """Fill a canvas in place, group by group, with values that `fill` makes from the parameters.

    If nobody looks at the canvas meanwhile, the kernel does many groups in one call, where it knows the fill.

    Args:
        evaluator: for a canvas of this size.
        x: the canvas, integers (B, C, H, W). Pixels that are not visited yet have no influence.
        fill: a function that gives the values of a group of pixels.
        lag: of the groups; None for raster order.
        watch: who is told of it.

    Returns:
        The canvas.

    Raises:
        FloatingPointError: if the network gives parameters that are not finite.

    Example:
        Fill an image with the most likely level of each pixel.

        >>> import torch
        >>> from pixelcnn.nn.causal import CausalNetwork
        >>> from pixelcnn.traversal.loop import open_evaluator, traverse
        >>> network = CausalNetwork(channels=1, levels=4, outputs=4, filters=4, blocks=1, scales=1).eval()
        >>> x = torch.zeros(1, 1, 8, 8, dtype=torch.int64)
        >>> def most_likely(params, rows, cols):
        ...     return params.argmax(1, keepdim=True)
        >>> with torch.no_grad():
        ...     evaluator = open_evaluator(network, x, context=None, lag=network.lag)
        ...     traverse(evaluator, x, most_likely, lag=network.lag).shape
        torch.Size([1, 1, 8, 8])
    """
    H, W = x.shape[-2:]
    inspection, watch = _Inspection(seldom=x.device.type != "cpu"), watch or Watch()
    if watch.progress is None and isinstance(evaluator, CachedNetwork):
        filler = evaluator.filler(x, fill)
        if filler is not None:
            _run(evaluator, filler, inspection, watch)
            return x
    put = _writer(x, lag)
    for group, rows, cols in visits((H, W), lag, x.device):
        params = evaluator.params(group)
        inspection.note(params, rows, cols)
        try:
            values = fill(params, rows, cols)
        except Exception:
            inspection.look()  # the parameters may be why it failed
            raise
        put(group, values)
        evaluator.update(group, values)
        if watch.progress is not None:
            watch.progress(x)
        if watch.advance is not None:
            watch.advance(group.number)
    inspection.look()
    return x


def _run(evaluator: CachedNetwork, filler: Filler, inspection: "_Inspection", watch: Watch) -> None:
    """Fill a canvas in the kernel."""
    size, lag = evaluator.size, evaluator.lag or evaluator.size[1]
    while (start := evaluator.time) < evaluator.end:
        filled = evaluator.run(filler)
        if watch.advance is not None:
            watch.advance(sum(group_at(time, size, lag).number for time in range(max(0, start), evaluator.time)))
        if not filled:
            group = group_at(evaluator.time, size, lag)
            inspection.note(evaluator.shown(group), *group.pixels(lag))
            filler.fill.fail()
            raise RuntimeError(f"the kernel stopped at {group}, where nothing is wrong")


def _writer(x: Tensor, lag: int | None) -> Callable[[Group, Tensor], None]:
    """Return a function that puts values on a canvas at the pixels of a group, which are equally spaced in memory."""
    B, C = x.shape[:2]
    along = x.stride(2) - (lag or 0) * x.stride(3)
    if along <= 0:  # its columns are further apart than its rows

        def put_anywhere(group: Group, values: Tensor) -> None:
            rows, cols = group.pixels(lag or 0, x.device)
            x[:, :, rows, cols] = values.to(x.dtype)

        return put_anywhere

    def put(group: Group, values: Tensor) -> None:
        start = x.storage_offset() + group.row * x.stride(2) + group.col * x.stride(3)
        x.as_strided((B, C, group.number), (x.stride(0), x.stride(1), along), start).copy_(values)

    return put


class _Inspection:
    """A check that all parameters are finite.

    Args:
        seldom: whether to look only after 1, 2, 4, 8, ... groups, then after every `LONGEST` groups, and at the end,
            since each look waits for the device. Else it looks at once, first at the sum of a group.
    """

    def __init__(self, *, seldom: bool) -> None:
        self.noted: list[tuple[Tensor, Tensor, Tensor]] = []
        self.seldom, self.groups, self.due = seldom, 0, 1

    def note(self, params: Tensor, rows: Tensor, cols: Tensor) -> None:
        """Take note of the parameters (B, P, N) of a group, and look if it is time."""
        if not self.seldom and math.isfinite(params.sum()):
            return
        self.noted.append((params.mul(0).sum(1), rows, cols))  # zeros, or NaN where any is infinite or NaN
        self.groups += 1
        if not self.seldom:
            self.look()
        elif self.groups == self.due:
            self.look()
            self.due += min(self.groups, LONGEST)

    def look(self) -> None:
        """Raise a FloatingPointError that names the first pixel whose parameters are not finite, if there is one."""
        noted, self.noted = self.noted, []
        if not noted or math.isfinite(torch.cat([zeros for zeros, _, _ in noted], 1).sum()):
            return
        for zeros, rows, cols in noted:
            for image, n in zeros.isnan().nonzero().tolist():
                raise FloatingPointError(
                    f"the network's parameters are not finite at row {int(rows[n])}, column {int(cols[n])} of image "
                    f"{image}: the weights are damaged, or the precision is too low for them"
                )
