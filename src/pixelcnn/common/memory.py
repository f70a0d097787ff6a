"""Memory: how much is free, and how much a computation would take.

To find out how much a computation would take, we *rehearse* it: we run it on tensors that have shapes but no values.
"""

__all__ = ["check_sampling_memory", "free_memory", "peak_memory"]

import os
import weakref
from collections.abc import Callable
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def check_sampling_memory(needed: int, device: torch.device) -> None:
    """Raise a MemoryError, before anything is allocated, if sampling needs more bytes than are free."""
    free = free_memory(device)
    if needed > free:
        raise MemoryError(
            f"sampling needs at least {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: draw fewer images at "
            "once, or smaller ones"
        )


def free_memory(device: torch.device) -> int:
    """Return the bytes that this process can still use. Processes on one machine share its memory evenly.

    On a GPU, torch keeps the memory of tensors that are gone; the process can use that too. If there are more processes
    than GPUs, several share one.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] // -(-processes // torch.cuda.device_count()) + kept
    return psutil.virtual_memory().available // processes


def peak_memory(function: Callable[[], object]) -> int:
    """Run a function and return the peak number of bytes held by the tensors that it makes."""
    with _Meter() as meter:
        kept = function()
    del kept
    return meter.peak


class _Meter(TorchDispatchMode):
    """A meter of the tensors made while it is active: the bytes alive now, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.bytes = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._notice(leaf.untyped_storage())
        return result

    def _notice(self, storage: torch.UntypedStorage) -> None:
        """Count a storage once, however many views it has, for as long as one of them is alive."""
        if id(storage) not in self.alive:
            self.alive[id(storage)] = storage.nbytes()
            self.bytes += storage.nbytes()
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._forget, id(storage))

    def _forget(self, key: int) -> None:
        self.bytes -= self.alive.pop(key)
