"""What PyTorch says when it cannot compile, in one line."""

__all__ = ["explain_compiler"]

from collections.abc import Iterator
from contextlib import contextmanager

from pixelcnn.common.text import first_line, shorten

COMPILERS = ("torch._inductor", "torch._dynamo")


@contextmanager
def explain_compiler() -> Iterator[None]:
    """Turn an error of `torch.compile` into a ValueError of one line; nearly always there is no C++ compiler."""
    try:
        yield
    except RuntimeError as error:
        if not any(each.__module__.startswith(COMPILERS) for each in type(error).__mro__):
            raise
        raise ValueError(
            f"compile=True: PyTorch cannot compile on this machine ({shorten(first_line(error))}): install a C++ "
            "compiler, such as g++, or leave compile out"
        ) from error
