"""The one loop that visits the pixels of an image in a causal order.

With pixel (i, j) at time `j + lag * i`, the pixels of one time depend only on those of earlier times, so they are
visited together: for a plain network that is an anti-diagonal, W + lag * (H - 1) groups instead of H * W pixels. A
*fill* says what the pixels of a group become: draws (`pixelcnn.models.draw`), known pixels, what a codec decodes.

Three schedules show a fill the same parameters:

    naive       a full forward pass for every group: exact by construction, and slow
    raster      pixel by pixel, from cached activations: works for every network
    wavefront   anti-diagonal by anti-diagonal, from cached activations: for networks that declare their lag
"""

__all__ = ["Evaluator", "Fill", "FullNetwork", "open_evaluator", "traverse"]

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from pixelcnn.nn.causal import CausalNetwork
from pixelcnn.traversal.cached import CachedNetwork
from pixelcnn.traversal.schedule import Group, Schedule, groups

Fill = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`fill(params, rows, cols)` maps parameters (B, P, N) of pixels at rows (N,), cols (N,) to values (B, C, N)."""


class Evaluator(Protocol):
    """Gives the parameters of one group after another, and is told the pixels of each."""

    def params(self, group: Group) -> Tensor:
        """Evaluate the network at the next group of the schedule: (B, P, number)."""
        ...

    def update(self, group: Group, values: Tensor) -> None:
        """Take note of the pixels of a group: integers (B, C, number)."""
        ...


class FullNetwork:
    """A full forward pass over the canvas for every group: the oracle.

    Args:
        network: to evaluate.
        x: the canvas, integers (B, C, H, W), which the traversal fills.
        context: of the network; None for none.
        lag: of the groups; the width of the canvas for raster order.
    """

    def __init__(self, network: CausalNetwork, x: Tensor, context: Tensor | None, lag: int) -> None:
        self.network, self.x, self.context, self.lag = network, x, context, lag

    def params(self, group: Group) -> Tensor:
        rows, cols = group.pixels(self.lag)
        return self.network(self.x, self.context)[:, :, rows, cols]

    def update(self, group: Group, values: Tensor) -> None:
        pass  # it is on the canvas


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
        network: whose parameters are asked for.
        x: the canvas, integers (B, C, H, W).
        context: (B, context, H, W), (B, context, 1, 1) or None.
        lag: of the groups, see `wavefront_lag`; None for raster order.
        schedule: only whether it is "naive" matters here.
        dtype: of cached activations and weights; by default that of the network.

    Raises:
        MemoryError: where the cached activations need more memory than is free.
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
    progress: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Fill a canvas in place, group by group, with what `fill` makes of the parameters there.

    Args:
        evaluator: for a canvas of this size.
        x: integers (B, C, H, W); what is not visited yet is never looked at.
        fill: gives the values of a group of pixels.
        lag: of the groups; None for raster order.
        progress: called after each group with the canvas.

    Returns:
        The canvas.

    Raises:
        FloatingPointError: where the network gives parameters that are not finite.
    """
    H, W = x.shape[-2:]
    for group in groups((H, W), lag):
        params = evaluator.params(group)
        rows, cols = group.pixels(lag or W)
        if not math.isfinite(params.sum()):
            _check_finite(params, rows, cols)
        values = fill(params, rows, cols)
        x[:, :, rows, cols] = values.to(x.dtype)
        evaluator.update(group, values)
        if progress is not None:
            progress(x)
    return x


def _check_finite(params: Tensor, rows: Tensor, cols: Tensor) -> None:
    """Name the first pixel whose parameters are not finite."""
    broken = ~params.isfinite().all(1)
    if broken.any():
        image, n = broken.nonzero()[0].tolist()
        raise FloatingPointError(
            f"the network's parameters are not finite at row {int(rows[n])}, column {int(cols[n])} of image {image}: "
            "the weights are damaged, or the precision is too low for them"
        )
