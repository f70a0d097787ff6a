"""Several processes that share one task: how many there are, what the others have, and errors that end all of them.

They are those of `torchrun`, `accelerate launch`, or a program that calls `torch.distributed.init_process_group`
itself. The main process is number 0. A program that no launcher started is its own main process, and the only one.
"""

__all__ = [
    "LostError",
    "SharedError",
    "gather",
    "is_main",
    "join_processes",
    "launched",
    "leave_processes",
    "naming_lost",
    "own_device",
    "together",
]

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what a launcher says to its processes


class SharedError(ValueError):
    """An error of another process that ends this one too. The other one reports it."""


class LostError(ConnectionError):
    """The other processes can no longer be reached, since one of them has ended."""


def launched() -> bool:
    """Tell whether a launcher has started this process together with others."""
    return all(name in os.environ for name in LAUNCHER) and int(os.environ["WORLD_SIZE"]) > 1


def _joined() -> Any | None:
    """Return `torch.distributed` if this process has joined others with it."""
    distributed = sys.modules.get("torch.distributed")
    return (
        distributed if distributed is not None and distributed.is_available() and distributed.is_initialized() else None
    )


def _number() -> int:
    """Return the number of this process."""
    if (distributed := _joined()) is not None:
        return distributed.get_rank()
    return int(os.environ["RANK"]) if launched() else 0


def is_main() -> bool:
    """Tell whether this is the main process, which speaks for all.

    Example:
        >>> from pixelcnn.common.processes import is_main
        >>> is_main()
        True
    """
    return _number() == 0


def join_processes(patience: timedelta | None = None) -> tuple[int, int]:
    """Join the processes that a launcher has started, if it did; return the number of this one, and of all.

    Args:
        patience: how long to wait for the others, later on; by default as long as torch does.
    """
    import torch.distributed

    distributed: Any = torch.distributed  # its stubs leave out some names
    if launched() and _joined() is None:
        store, rank, size = next(distributed.rendezvous("env://"))
        # On one machine, torchrun keeps the store of addresses over its restarts, with those of processes that ended.
        if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
            restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = distributed.PrefixStore(f"restart {restarts}", store)
        distributed.init_process_group(timeout=patience, store=store, rank=rank, world_size=size)
    return (0, 1) if _joined() is None else (distributed.get_rank(), distributed.get_world_size())


def leave_processes() -> None:
    """Leave the group of processes, at the end of a program; otherwise torch's threads may abort it."""
    if (distributed := _joined()) is not None:
        distributed.destroy_process_group()


def own_device(device: str) -> str:
    """Name an accelerator of its own for each of several processes on a machine, unless the name has a number already.

    Example:
        >>> from pixelcnn.common.processes import own_device
        >>> own_device("cpu")
        'cpu'
    """
    import torch

    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if not launched() or there is None or device not in ("auto", there.type):
        return device
    return f"{there.type}:{int(os.environ['LOCAL_RANK']) % torch.accelerator.device_count()}"


def gather(value: Any) -> list[Any]:
    """Collect what all processes have, in their order; it travels as a pickle, between processes of one program."""
    if (distributed := _joined()) is None or distributed.get_world_size() == 1:
        return [value]
    values = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


@contextmanager
def together() -> Iterator[None]:
    """End all processes if one of them fails inside, instead of leaving the others to wait for it.

    The first process that failed raises its own error, and all others a SharedError. It is also a place where
    processes wait for each other, so all of them have to come here.

    Example:
        >>> from pixelcnn.common.processes import is_main, together
        >>> with together():
        ...     if is_main():
        ...         raise ValueError("no such folder")
        Traceback (most recent call last):
        ValueError: no such folder
    """
    problem: Exception | None = None
    try:
        yield
    except Exception as error:
        problem = error
    told = gather(None if problem is None else str(problem))
    failed = [number for number, each in enumerate(told) if each is not None]
    if not failed:
        return
    if problem is not None and failed[0] == _number():
        raise problem
    raise SharedError(told[failed[0]]) from None


@contextmanager
def naming_lost() -> Iterator[None]:
    """Turn torch's errors about processes that have ended into a LostError of one line."""
    import torch.distributed

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error).lower():
            raise
        raise LostError(
            f"process {_number()} has lost the others: one of them has ended, and says why; start all of them again"
        ) from None
