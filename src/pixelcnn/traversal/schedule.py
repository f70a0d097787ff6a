"""Schedules: the groups of pixels that are visited together, and in which order."""

__all__ = ["Group", "Schedule", "group_at", "groups", "wavefront_lag"]

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor


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


Schedule = Literal["auto", "naive", "raster", "wavefront"]


def groups(size: tuple[int, int], lag: int | None = None) -> Iterator[Group]:
    """The groups of pixels of an image (H, W) in the order of their times; in raster order for a lag of None."""
    H, W = size
    lag = W if lag is None else lag
    return (group_at(time, size, lag) for time in range(W + lag * (H - 1)))


def wavefront_lag(lag: int | None, width: int, schedule: Schedule = "auto") -> int | None:
    """The lag of the groups of a schedule; None for raster order.

    Args:
        lag: the smallest that the network allows; None if it needs raster order.
        width: of the image.
        schedule: by default the wavefront where there is a lag and the image is wider, else raster order.

    Raises:
        ValueError: for an unknown schedule, or a wavefront where the network needs raster order.
    """
    if schedule not in ("auto", "naive", "raster", "wavefront"):
        raise ValueError(f"schedule={schedule!r}: use auto, naive, raster or wavefront")
    if schedule == "wavefront" and lag is None:
        raise ValueError(f"schedule={schedule!r}: a network with several scales has no lag; use raster")
    # From a lag of the width on, the times of two rows do not overlap: that is raster order.
    return None if schedule == "raster" or lag is None or lag >= width else lag
