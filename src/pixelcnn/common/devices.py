"""Devices: which ones there are, and how to compute on them."""

__all__ = ["computing", "device_of", "exact_products", "find_device", "naming_memory"]

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pixelcnn.common.threads import threads_for

NO_MEMORY = "can't allocate memory"  # in the RuntimeError of torch's allocator on a CPU
IEEE = "ieee"  # float32 with all of its 24 bits


def find_device(device: str | torch.device) -> torch.device:
    """Return the device of that name, where "auto" is the accelerator if there is one, else the CPU.

    Raises:
        ValueError: if there is no such device; the message lists those there are.

    Example:
        >>> from pixelcnn.common.devices import find_device
        >>> find_device("cpu")
        device(type='cpu')
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    there = ["cpu"]
    if accelerator is not None:
        there += [accelerator.type, *(f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count()))]
    if str(device) == "auto":
        return accelerator or torch.device("cpu")
    if str(device) not in there:
        raise ValueError(f"device={str(device)!r}: there is no such device; use {' or '.join(there)}")
    return torch.device(device)


def device_of(module: nn.Module) -> torch.device:
    """Return the device that the weights of a module are on."""
    return next(module.parameters()).device


@contextmanager
def naming_memory(device: torch.device, remedy: str) -> Iterator[None]:
    """Turn torch's errors about memory that ran out into a MemoryError of one line with a remedy."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and NO_MEMORY not in str(error):
            raise
        raise MemoryError(f"the memory of {str(device)!r} is full: {remedy}") from None


class _Precision:
    """The precisions of float32 products on a kind of device, and how many computations hold them at full precision.

    These settings belong to the whole process. The first of several computations at the same time sets them, and the
    last one restores them.
    """

    def __init__(self, *settings: Any) -> None:
        self.settings, self.before, self.holders, self.lock = settings, [""] * len(settings), 0, threading.Lock()

    def hold(self) -> None:
        with self.lock:
            self.holders += 1
            if self.holders == 1:
                self.before = [each.fp32_precision for each in self.settings]
                self._set([before if before == "none" else IEEE for before in self.before])

    def release(self) -> None:
        with self.lock:
            self.holders -= 1
            if self.holders == 0:
                self._set(self.before)

    def _set(self, precisions: list[str]) -> None:
        for setting, precision in zip(self.settings, precisions, strict=True):
            if setting.fp32_precision != precision:
                setting.fp32_precision = precision


_BACKENDS: Any = torch.backends  # the stubs of torch leave out some of its settings
_PRECISIONS = {
    "cuda": _Precision(_BACKENDS.cuda.matmul, _BACKENDS.cudnn.conv),
    "cpu": _Precision(_BACKENDS.mkldnn.matmul, _BACKENDS.mkldnn.conv),
}


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Compute float32 products and convolutions in float32, not in TF32 or bfloat16, and restore the user's setting.

    By default, torch computes convolutions on a GPU in TF32, which has 11 bits: too few for likelihoods.
    """
    precision = _PRECISIONS.get(device.type)
    if precision is None:
        yield
        return
    precision.hold()
    try:
        yield
    finally:
        precision.release()


@contextmanager
def computing(module: nn.Module, pixels: int, remedy: str) -> Iterator[None]:
    """Compute with a module: in float32, on as many threads as it is worth, and with a remedy if memory runs out.

    Args:
        module: the module, whose weights are on the device to compute on.
        pixels: the number of pixels computed at once, over all images (see `threads_for`).
        remedy: what to do if memory runs out, for the message of the MemoryError.
    """
    if torch.compiler.is_compiling():  # a compiled graph can hold none of these settings
        yield
        return
    device = device_of(module)
    with naming_memory(device, remedy), exact_products(device), threads_for(module, pixels):
        yield
