"""Messages between the page and the server: JSON, which bytes may follow.

    text      JSON
    binary    length of the JSON (four bytes, the lowest first), JSON, spaces up to a multiple of four bytes, payload

So numbers of four bytes in the payload are aligned, as typed arrays of JavaScript need it.
"""

__all__ = ["Fields", "pack", "unpack"]

import json
from collections.abc import Mapping
from typing import Any

from pixelcnn.common.strict_json import parse_json

Fields = Mapping[str, Any]
SIZE, ALIGNMENT = 4, 4  # bytes


def pack(fields: Fields, payload: bytes = b"") -> bytes | str:
    """Write a message; without a payload it is text.

    Example:
        >>> from pixelcnn.apps.studio.messages import pack, unpack
        >>> unpack(pack({"do": "open"}, b"pixels"))
        ({'do': 'open'}, b'pixels')
    """
    text = json.dumps(fields, allow_nan=False)
    if not payload:
        return text
    head = text.encode()
    head += b" " * (-len(head) % ALIGNMENT)
    return len(head).to_bytes(SIZE, "little") + head + payload


def unpack(message: bytes | str) -> tuple[dict[str, Any], bytes]:
    """Read a message: its fields and its payload.

    Raises:
        ValueError: if it is not as this module says.
    """
    if isinstance(message, str):
        return parse_json(message), b""
    end = SIZE + int.from_bytes(message[:SIZE], "little")
    if not SIZE < end <= len(message):
        raise ValueError("the message is shorter than it says")
    return parse_json(message[SIZE:end]), message[end:]
