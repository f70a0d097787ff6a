"""Files that appear whole or not at all, and JSON objects in them."""

__all__ = ["AGAIN", "ANEW", "read_json", "to_json", "write_atomically", "write_json", "write_together"]

import errno
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pixelcnn.common.strict_json import MOST_JSON, parse_json
from pixelcnn.common.text import shorten

AGAIN, ANEW = "get the file again", "remove it to train this factor anew"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file as one step; on failure (a full disk, say) the old one stays and nothing else is left."""
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Replace files, the first first, once all of them are on the disk under temporary names.

    On failure the old ones stay and nothing else is left; a process that is killed leaves the first ones new.
    """
    temporaries = {path: path.with_name(f".{path.name}.tmp") for path in contents}
    path = next(iter(contents))
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporaries[path].open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in temporaries.items():
            temporary.replace(path)
    except OSError as error:
        remedy = ": make room, then go on" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
        reason = f"{error.strerror or error}; what was there before is still there{remedy}"
        raise OSError(error.errno, reason, str(path)) from None
    finally:
        for temporary in temporaries.values():
            with suppress(OSError):  # a folder that is none has no temporary file either
                temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomically(path, to_json(value))


def to_json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; a ValueError that names the file where it is missing or holds anything else."""
    if not path.is_file():
        raise ValueError(f"{path} is missing: {AGAIN}")
    with path.open("rb") as file:
        content = file.read(MOST_JSON + 1)
    try:
        return parse_json(content)
    except ValueError as error:
        raise ValueError(f"{path} is no JSON object that can be read ({shorten(str(error))}): {AGAIN}") from None
