"""The compiled kernel: the inner loops of drawing in C, for processors that it was compiled for.

It is a library beside this file, built from the folder `kernel` of the source. Everything that it computes is also
there in plain torch, for other devices and processors, and a test holds one to the other.
"""

__all__ = ["TERMS", "Kernel", "MissingKernelWarning", "address_of", "find_kernel", "using_processor"]

import ctypes
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec
from typing import Any, cast

PROCESSORS = {256: "avx2", 512: "avx512"}  # by the bits of a vector
LAYOUT = 1  # of the structures that Python writes; it changes with them, here and in `kernel/program.h`
TERMS = 32  # of a sum, at most
_CHOSEN: ContextVar[str | None] = ContextVar("pixelcnn.processor", default="best")


class MissingKernelWarning(UserWarning):
    """A warning that there is no kernel for this processor."""


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
        # One that was built from another state of the source may take other structures.
        return (library, library.pixelcnn_processor()) if library.pixelcnn_layout() == LAYOUT else (None, 0)
    except (OSError, AttributeError):  # it is for another kind of machine, or of an early version
        return None, 0


@cache
def _kernel(processor: str) -> Kernel | None:
    library, bits = _library()
    fitting = [name for size, name in PROCESSORS.items() if size <= bits]
    if processor == "best" and fitting:
        return Kernel(library, fitting[-1])
    return Kernel(library, processor) if processor in fitting else None


@cache
def _say_why(processor: str) -> None:
    """Warn, once, that there is no kernel."""
    if _library()[0] is None:
        reason = "it is not there, or of another version; install pixelcnn again, from a wheel or where there is gcc"
    else:
        reason = "it is for x86 processors with AVX2 and FMA, or AVX-512"
    which = "the compiled kernel" if processor == "best" else f"the compiled kernel for {processor}"
    warnings.warn(f"computing without {which}, which is several times slower: {reason}", MissingKernelWarning, 3)


def find_kernel() -> Kernel | None:
    """Return the kernel for this processor; None if there is none, which a warning says the first time.

    Example:
        >>> from pixelcnn.common.kernel import find_kernel, using_processor
        >>> with using_processor(None):
        ...     find_kernel() is None
        True
    """
    chosen = _CHOSEN.get()
    if chosen is None:
        return None
    kernel = _kernel(chosen)
    if kernel is None:
        _say_why(chosen)
    return kernel


@contextmanager
def using_processor(processor: str | None) -> Iterator[None]:
    """Use the kernel for "avx2" or "avx512", or with None plain torch, in this thread; to test and to compare."""
    token = _CHOSEN.set(processor)
    try:
        yield
    finally:
        _CHOSEN.reset(token)
