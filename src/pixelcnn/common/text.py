"""Text for messages: one readable line."""

__all__ = ["LONGEST_MESSAGE", "first_line", "printable", "shorten"]

import re

LONGEST_MESSAGE = 400


def shorten(text: str) -> str:
    """One readable line, with the beginning and the end of what is longer: a message may quote a whole file."""
    text = " ".join(text.split())
    half = LONGEST_MESSAGE // 2
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:half]} ... {text[-half:]}"


def printable(text: object) -> str:
    """The text without what moves the cursor of a terminal: control characters as their escapes."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], str(text))


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
