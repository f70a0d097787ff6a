"""The one loop that visits the pixels of an image in a causal order.

With pixel (i, j) at time `j + lag * i`, the pixels of one time depend only on those of earlier times, so they are
visited together: for a plain network that is an anti-diagonal, W + lag * (H - 1) groups instead of H * W pixels. A
`source` says what a group is filled with: draws (`pixelcnn.sampling`), known pixels, what a codec decodes.

Three schedules show a source the same parameters:

    naive       a full forward pass for every group: exact by construction, and slow
    raster      pixel by pixel, from cached activations: works for every network
    wavefront   anti-diagonal by anti-diagonal, from cached activations: for networks that declare their lag
"""

__all__ = ["Schedule", "Source", "groups", "traverse"]

import math
from collections.abc import Callable, Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor

from pixelcnn.cached import CachedNetwork, Group, group_at
from pixelcnn.models import Factor
from pixelcnn.network import CausalNetwork

Source = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`source(params, rows, cols)` maps parameters (B, P, N) of pixels at rows (N,), cols (N,) to values (B, C, N)."""

Schedule = Literal["auto", "naive", "raster", "wavefront"]


def groups(size: tuple[int, int], lag: int | None = None) -> Iterator[Group]:
    """The groups of pixels of an image (H, W) in the order of their times; in raster order for a lag of None."""
    H, W = size
    lag = W if lag is None else lag
    return (group_at(time, size, lag) for time in range(W + lag * (H - 1)))


def wavefront_lag(factor: Factor, size: tuple[int, int], schedule: Schedule = "auto") -> int | None:
    """The lag of the groups of a schedule; None for raster order.

    Raises:
        ValueError: for an unknown schedule, or a wavefront where the factor's network needs raster order.
    """
    if schedule not in ("auto", "naive", "raster", "wavefront"):
        raise ValueError(f"schedule={schedule!r}: use auto, naive, raster or wavefront")
    if schedule == "wavefront" and factor.lag is None:
        raise ValueError(f"schedule={schedule!r}: a network with {factor.network.scales} scales has no lag; use raster")
    # From a lag of W on the times of two rows do not overlap: that is raster order.
    return None if schedule == "raster" or factor.lag is None or factor.lag >= size[1] else factor.lag


class _Evaluator(Protocol):
    """Gives the parameters of one group after another, and is told the pixels of each."""

    def params(self, group: Group) -> Tensor: ...

    def update(self, group: Group, x: Tensor) -> None: ...


class _FullNetwork:
    """A full forward pass over the canvas for every group: the oracle."""

    def __init__(self, network: CausalNetwork, x: Tensor, context: Tensor | None, lag: int) -> None:
        self.network, self.x, self.context, self.lag = network, x, context, lag

    def params(self, group: Group) -> Tensor:
        rows, cols = group.pixels(self.lag)
        return self.network(self.x, self.context)[:, :, rows, cols]

    def update(self, group: Group, x: Tensor) -> None:
        pass


@torch.no_grad()
def traverse(
    factor: Factor,
    x: Tensor,
    source: Source,
    *,
    auxiliary: Tensor | None = None,
    labels: Tensor | None = None,
    schedule: Schedule = "auto",
    dtype: torch.dtype | None = None,
    progress: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Fill the canvas `x` in place, group by group, with what `source` makes of the parameters there.

    Args:
        factor: the factor whose image is visited, in evaluation mode.
        x: integers (B, C, H, W); what is not visited yet is never looked at.
        source: gives the values of a group of pixels.
        auxiliary: the next view of the chain, (B, C', H', W'); None for the last.
        labels: (B,) class labels, for a model with classes.
        schedule: by default the wavefront where the network has a lag and the image is wider, else raster order.
        dtype: of cached activations and weights; by default that of the network. With torch.bfloat16 the embedding is
            evaluated under autocast.
        progress: called after each group with the canvas.

    Returns:
        The canvas.

    Raises:
        ValueError: where the canvas, the auxiliary image or the schedule do not fit the factor.
        MemoryError: where the cached activations need more memory than there is.
        FloatingPointError: where the network gives parameters that are not finite.
    """
    H, W = x.shape[-2:]
    if auxiliary is not None and len(auxiliary) != len(x):
        raise ValueError(f"auxiliary of {len(auxiliary)} images: the canvas is of {len(x)}")
    half = dtype if dtype in (torch.bfloat16, torch.float16) else None
    with torch.autocast(x.device.type, half, enabled=half is not None):
        context = factor.context((H, W), auxiliary, labels)
    guess = factor.guess((H, W), auxiliary)
    lag = wavefront_lag(factor, (H, W), schedule)
    evaluator: _Evaluator = (
        _FullNetwork(factor.network, x, context, lag or W)
        if schedule == "naive"
        else CachedNetwork(factor.network, (H, W), len(x), context, lag=lag, dtype=dtype)
    )
    for group in groups((H, W), lag):
        params = evaluator.params(group)
        rows, cols = group.pixels(lag or W)
        if not math.isfinite(params.sum()):
            _check_finite(params, rows, cols)
        if guess is not None:
            params = factor.likelihood.count_from(params, guess[:, :, rows, cols])
        values = source(params, rows, cols)
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
