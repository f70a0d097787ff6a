"""JSON from untrusted files: an object, or one clear error."""

__all__ = ["MOST_JSON", "parse_json"]

import json
import math
from typing import Any

from pixelcnn.common.text import shorten

MOST_JSON = 2**20  # bytes
MOST_NESTED = 16  # objects and lists inside one another


def parse_json(content: bytes | str) -> dict[str, Any]:
    """Parse a JSON object, more strictly than the standard library does.

    Raises:
        ValueError: if the text is not a JSON object, repeats a name, contains NaN or infinity, or is longer or more
            deeply nested than anything that this package writes.
    """
    if len(content) > MOST_JSON:
        raise ValueError(f"{len(content)} bytes, which is over the limit of {MOST_JSON}")
    try:
        value = json.loads(content, object_pairs_hook=_object, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError(f"lists nested deeper than {MOST_NESTED}") from None
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__}, not an object")
    if _is_nested(value, MOST_NESTED):
        raise ValueError(f"lists nested deeper than {MOST_NESTED}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {shorten(repr(name))} appears twice")
        found[name] = value
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shorten(text)} is not a finite number")
    return value


def _is_nested(value: Any, levels: int) -> bool:
    """Return whether lists and objects are nested more than `levels` deep."""
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_nested(each, levels - 1) for each in inside)
