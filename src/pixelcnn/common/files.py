"""Atomic writes, which leave a whole file or none, and files that hold a JSON object."""

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

AGAIN, ANEW = "get the file again", "remove it to train this factor from scratch"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one step. If that fails (the disk is full, say), the old file stays, and nothing else."""
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Replace several files, in the given order, once all of them are on the disk under temporary names.

    If writing fails, the old files stay and nothing else is left over. If the process is killed between two renames,
    the first files are the new ones and the rest are still the old ones.
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
        remedy = ": free some space, then try again" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
        reason = f"{error.strerror or error}; nothing was changed{remedy}"
        raise OSError(error.errno, reason, str(path)) from None
    finally:
        for temporary in temporaries.values():
            with suppress(OSError):  # if the folder is not a folder, there is no temporary file in it either
                temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a file by a JSON object in one step."""
    write_atomically(path, to_json(value))


def to_json(value: Mapping[str, Any]) -> bytes:
    """Format a JSON object as the content of a file that people can read."""
    return (json.dumps(value, indent=2) + "\n").encode()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        ValueError: if the file is missing or holds anything else; the message names the file.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing: {AGAIN}")
    with path.open("rb") as file:
        content = file.read(MOST_JSON + 1)
    try:
        return parse_json(content)
    except ValueError as error:
        raise ValueError(f"{path} does not hold a readable JSON object ({shorten(str(error))}): {AGAIN}") from None
