"""Threads: as many for a computation as it is worth.

Torch splits each operation among its threads and waits for the last one. On a quiet machine that wait is a few
microseconds. If another process holds one of the cores, it is a time slice of the scheduler: with two threads on a busy
machine with two cores, a product of 16 x 192 x 32 took 15 ms instead of 5 microseconds. So small computations run on
one thread.
"""

__all__ = ["SHARE", "threads_for", "threads_worth"]

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn

# Multiplications that each thread must have: in the largest layer of what torch computes, or in a whole step of the
# kernel, which takes it a millisecond. On a busy machine with two cores, two threads of torch took 8 times as long as
# one for a product of 1.2e8 multiplications, and 3 times for 4.9e8; for a training step whose largest layer has 7.5e7,
# 14 times, and 1.7e8, 3 times. In the kernel, whose threads wait for each other only once, they took up to 1.3 times as
# long for steps of 2.2e8, and twice as long for steps of 0.8e8. On a quiet machine they can only halve the time.
SHARE = 10**8
_LOCK = threading.Lock()
_ALLOWED: ContextVar[int | None] = ContextVar("pixelcnn.threads", default=None)  # the user's setting, while changed


@contextmanager
def threads_for(module: nn.Module, pixels: int) -> Iterator[None]:
    """Compute with as many of torch's threads as a module on so many pixels is worth, and at most those that are set.

    The setting belongs to the calling thread of Python; it is restored afterwards, whatever happens.

    Args:
        module: the largest of its weights counts, each number of which is multiplied once for each pixel.
        pixels: the number of pixels computed at once, over all images.

    Example:
        >>> import torch
        >>> from pixelcnn.common.threads import threads_for
        >>> before = torch.get_num_threads()
        >>> with threads_for(torch.nn.Conv2d(64, 64, 3), pixels=16):
        ...     torch.get_num_threads()
        1
        >>> torch.get_num_threads() == before
        True
    """
    before = torch.get_num_threads()
    most = max((parameter.numel() for parameter in module.parameters()), default=0)
    threads = max(1, min(before, pixels * most // SHARE))
    if threads == before:
        yield
        return
    token = _ALLOWED.set(_ALLOWED.get() or before)
    try:
        _set_here(threads)
        yield
    finally:
        _set_here(before)
        _ALLOWED.reset(token)


def threads_worth(multiplications: int) -> int:
    """Return how many threads work is worth that they wait for only once, at most as many as the user has set."""
    return max(1, min(_ALLOWED.get() or torch.get_num_threads(), multiplications // SHARE))


def _set_here(threads: int) -> None:
    """Set the number of torch's threads for this thread of Python alone.

    `torch.set_num_threads` also sets the number that threads of Python start with when they first use torch. A thread
    that is made for it reads that number and puts it back, so that a thread which starts later does not take ours for
    the setting of the user. Only one that first uses torch within these microseconds does.
    """
    start: list[int] = []
    read, changed = threading.Event(), threading.Event()

    def keep() -> None:
        start.append(torch.get_num_threads())
        read.set()
        changed.wait()
        torch.set_num_threads(start[0])

    with _LOCK:
        keeper = threading.Thread(target=keep, daemon=True)
        keeper.start()
        try:
            read.wait()
            torch.set_num_threads(threads)
        finally:
            changed.set()
            keeper.join()
