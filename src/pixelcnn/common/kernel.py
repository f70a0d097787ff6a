"""The compiled kernel: the inner loops of drawing in C, for processors that it was compiled for.

It is a library beside this file, built from the folder `kernel` of the source. Everything that it computes is also
there in plain torch, for other devices and processors, and a test holds one to the other.
"""

__all__ = ["Kernel", "address_of", "find_kernel", "using_processor"]

import ctypes
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec
from typing import Any, cast

PROCESSORS = {256: "avx2", 512: "avx512"}  # by the bits of a vector
_CHOSEN: ContextVar[str | None] = ContextVar("pixelcnn.processor", default="best")


class Kernel:
    """The functions of the kernel for one kind of processor."""

    def __init__(self, library: Any, processor: str) -> None:
        self.library, self.processor = library, processor

    def function(self, name: str, arguments: str, result: str = "") -> Callable[..., Any]:
        """Return a function that takes "p" for an address, and "i" for an integer."""
        kinds = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "": None}
        function = self.library[f"pixelcnn_{name}_{self.processor}"]
        function.argtypes, function.restype = [kinds[kind] for kind in arguments], kinds[result]
        return function


def address_of(function: Callable[..., Any]) -> int:
    """Return the address of a function of the kernel, for others of its functions to call."""
    return ctypes.cast(cast("Any", function), ctypes.c_void_p).value or 0


@cache
def _library() -> tuple[Any, int]:
    """Open the library: with it, how many bits the vectors of this processor have; 0 if it fits none."""
    spec = find_spec("pixelcnn.common._kernel")
    if spec is None or spec.origin is None:
        return None, 0
    try:
        library = ctypes.CDLL(spec.origin)
    except OSError:  # for another kind of machine
        return None, 0
    return library, library.pixelcnn_processor()


@cache
def _kernel(processor: str) -> Kernel | None:
    library, bits = _library()
    fitting = [name for size, name in PROCESSORS.items() if size <= bits]
    if processor == "best" and fitting:
        return Kernel(library, fitting[-1])
    if processor in fitting:
        return Kernel(library, processor)
    if library is None:
        reason = "it is not there; install the wheel of pixelcnn for this system, or install it where there is gcc"
    else:
        reason = f"it is for processors with AVX2 and FMA, or AVX-512; {processor} is not to be had here"
    # Said once, since this function is called once.
    warnings.warn(f"computing without the compiled kernel, which is several times slower: {reason}", stacklevel=3)
    return None


def find_kernel() -> Kernel | None:
    """Return the kernel for this processor; None if there is none, which a warning says the first time.

    Example:
        >>> from pixelcnn.common.kernel import find_kernel, using_processor
        >>> with using_processor(None):
        ...     find_kernel() is None
        True
    """
    chosen = _CHOSEN.get()
    return None if chosen is None else _kernel(chosen)


@contextmanager
def using_processor(processor: str | None) -> Iterator[None]:
    """Use the kernel for "avx2" or "avx512", or with None plain torch, in this thread; to test and to compare."""
    token = _CHOSEN.set(processor)
    try:
        yield
    finally:
        _CHOSEN.reset(token)
