"""Text that is safe to show: short, on one line, without control characters."""

__all__ = ["LONGEST_MESSAGE", "first_line", "printable", "shorten"]

import re

LONGEST_MESSAGE = 400


def shorten(text: str) -> str:
    """Put text on one line, and keep only the start and the end if it is long: a message may quote a whole file."""
    text = " ".join(text.split())
    half = LONGEST_MESSAGE // 2
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:half]} ... {text[-half:]}"


def printable(text: object) -> str:
    """Escape control characters, which could otherwise move the cursor of a terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], str(text))


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]
