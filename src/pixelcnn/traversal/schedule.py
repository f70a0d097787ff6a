"""Schedules: which pixels are visited together, and in which order.

Pixel (i, j) is visited at time `j + lag * i`, where the *lag* is how many columns a row runs ahead of the next one. The
pixels of one time are a *group*. As time goes on the groups sweep over the image like a *wavefront*. Raster order (row
by row, each from left to right) is the special case of a lag of at least the width.
"""

__all__ = ["Group", "Schedule", "group_at", "groups", "most_pixels", "visiting_times", "visits", "wavefront_lag"]

from collections.abc import Iterator
from itertools import islice
from typing import Literal, NamedTuple

import torch
from torch import Tensor

AT_ONCE = 256  # groups whose pixels are cut out of a list of all of them


class Group(NamedTuple):
    """The pixels of one time: `number` of them, (row, col), (row + 1, col - lag), and so on."""

    row: int
    col: int
    number: int

    def pixels(self, lag: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Return the rows and the columns, (number,) each."""
        steps = torch.arange(self.number, device=device)
        return self.row + steps, self.col - lag * steps


def group_at(time: int, size: tuple[int, int], lag: int) -> Group:
    """Return the pixels (i, j) of an image (H, W) with `j + lag * i = time`."""
    H, W = size
    first = max(0, -(-(time - W + 1) // lag))
    last = min(H - 1, time // lag)
    return Group(first, time - lag * first, max(0, last - first + 1))


Schedule = Literal["auto", "naive", "raster", "wavefront"]


def groups(size: tuple[int, int], lag: int | None = None) -> Iterator[Group]:
    """Iterate over the groups of pixels of an image (H, W) in order of time; a lag of None means raster order.

    Example:
        >>> from pixelcnn.traversal.schedule import groups
        >>> [list(zip(*(each.tolist() for each in group.pixels(lag=2)))) for group in groups((2, 3), lag=2)]
        [[(0, 0)], [(0, 1)], [(0, 2), (1, 0)], [(1, 1)], [(1, 2)]]
    """
    H, W = size
    lag = W if lag is None else lag
    return (group_at(time, size, lag) for time in range(W + lag * (H - 1)))


def visiting_times(size: tuple[int, int], lag: int | None = None, device: torch.device | None = None) -> Tensor:
    """Return when each pixel of an image (H, W) is visited, row by row: (H * W,). Those of one time are a group."""
    H, W = size
    times = torch.arange(W, device=device) + (W if lag is None else lag) * torch.arange(H, device=device)[:, None]
    return times.flatten()


def visits(
    size: tuple[int, int], lag: int | None = None, device: torch.device | None = None
) -> Iterator[tuple[Group, Tensor, Tensor]]:
    """Iterate over `groups`, each with the rows and the columns of its pixels, (number,) each, on a device.

    They are parts of two tensors, which are made once, so that nothing is sent to the device for a group. Those of many
    groups are cut at once, which is faster.
    """
    W = size[1]
    order = visiting_times(size, lag, device).argsort(stable=True)  # within a group from the first row on
    rows, cols = order // W, order % W
    start, every = 0, groups(size, lag)
    while some := list(islice(every, AT_ONCE)):
        numbers = [group.number for group in some]
        part = slice(start, start + sum(numbers))
        yield from zip(some, rows[part].split(numbers), cols[part].split(numbers), strict=True)
        start = part.stop


def most_pixels(size: tuple[int, int], lag: int | None) -> int:
    """Return the number of pixels of the largest group."""
    H, W = size
    return 1 if lag is None else min(H, -(-W // lag))


def wavefront_lag(lag: int | None, width: int, schedule: Schedule = "auto") -> int | None:
    """Return the lag of the groups of a schedule; None for raster order.

    Args:
        lag: the smallest lag that the network allows; None if it needs raster order.
        width: of the image.
        schedule: "auto" is the wavefront if the network has a lag below the width of the image, else raster order.

    Raises:
        ValueError: if the schedule is unknown, or is a wavefront and the network needs raster order.
    """
    if schedule not in ("auto", "naive", "raster", "wavefront"):
        raise ValueError(f"schedule={schedule!r}: use auto, naive, raster or wavefront")
    if schedule == "wavefront" and lag is None:
        raise ValueError(f"schedule={schedule!r}: a network with several scales has no lag; use raster")
    # If the lag is at least the width, the times of two rows do not overlap: that is raster order.
    return None if schedule == "raster" or lag is None or lag >= width else lag
