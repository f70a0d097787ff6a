"""The one loop that visits the pixels of an image in a causal order.

With pixel (i, j) at time `j + lag * i`, the pixels of one time depend only on those of earlier times, so they are
visited together: for a plain network that is an anti-diagonal, W + lag * (H - 1) groups instead of H * W pixels. A
`source` says what a group is filled with.

This is the naive traversal: a full forward pass for every group, exact by construction.
"""

__all__ = ["Source", "schedule", "traverse"]

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pixelcnn.models import Factor

Source = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`source(params, rows, cols)`: parameters (B, P, N) of the pixels at rows (N,) and cols (N,), to values (B, C, N)."""


def schedule(size: tuple[int, int], lag: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and columns, each (N,), of the groups of pixels in the order of their times.

    Args:
        size: (H, W) of the image.
        lag: of the network; None, or one that is not below W, gives raster order, a pixel a group.
    """
    H, W = size
    lag = W if lag is None else min(lag, W)
    for time in range(W + lag * (H - 1)):
        first = max(0, -(-(time - W + 1) // lag))
        rows = torch.arange(first, min(H - 1, time // lag) + 1)
        yield rows, time - lag * rows


@torch.no_grad()
def traverse(
    factor: Factor,
    x: Tensor,
    source: Source,
    *,
    auxiliary: Tensor | None = None,
    labels: Tensor | None = None,
    progress: Callable[[], None] | None = None,
) -> Tensor:
    """Fill the canvas `x` in place, group by group, with what `source` makes of the parameters there.

    Args:
        factor: the factor whose image is visited.
        x: integers (B, C, H, W); what is not visited yet is never looked at.
        source: gives the values of a group of pixels.
        auxiliary: the next view of the chain, (B, C', H', W'); None for the last.
        labels: (B,) class labels, for a model with classes.
        progress: called after each group.

    Returns:
        The canvas.
    """
    H, W = x.shape[-2:]
    context = factor.context((H, W), auxiliary, labels)
    for rows, cols in schedule((H, W), factor.network.lag):
        params = factor.network(x, context)
        x[:, :, rows, cols] = source(params[:, :, rows, cols], rows, cols).to(x.dtype)
        if progress is not None:
            progress()
    return x
