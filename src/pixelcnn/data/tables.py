"""Tables with one row per image, from data sets and sequences of pictures in memory.

Pictures are kept as the bytes of a PPM or PGM file, which are the same with every version of every library. So they go
through the same steps, checks, and hashes as files.
"""

__all__ = ["read_dataset", "read_sequence"]

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pixelcnn.data.given import take_images
from pixelcnn.data.rows import select_columns

if TYPE_CHECKING:
    from datasets import Dataset as Rows

LEVELS = 256
_AT_ONCE = 2**28  # bytes: a column of the table holds at most 2 GB in one piece
_FOLDERS = "imagefolder"  # the builder of data sets that are folders of files, whose paths the user named


def read_dataset(rows: "Rows", source: str) -> "Rows":
    """Make a table from a `datasets.Dataset` with a column of images, and whole numbers as labels if there are any.

    Raises:
        ValueError: if it has no such column, or holds paths instead of images.
    """
    from datasets import Value

    builder = rows.info.builder_name
    rows = select_columns(rows.with_format(None), source)
    first = rows[0]["image"] if len(rows) else None
    if first is None or first["bytes"] is not None:
        return rows
    if builder != _FOLDERS:  # a path in a table may name any file of this machine
        raise ValueError(f"source={source!r} holds paths, not images: use the list of paths, or the folder")
    files = [os.fsencode(record["path"]) if record and record["path"] else None for record in rows["image"]]
    return rows.add_column("file", files, feature=Value("binary"))


def read_sequence(pictures: Any) -> "Rows":
    """Make a table from a sequence of images in any form, or of pairs of an image and its label.

    Raises:
        ValueError: if it is no sequence, is empty, or something in it is not an image.
    """
    from datasets import Dataset, Features, Value, concatenate_datasets

    if not hasattr(pictures, "__getitem__") or not hasattr(pictures, "__len__"):
        remedy = "use a name, a path, a datasets.Dataset, or a sequence of pictures"
        raise ValueError(f"source of type {type(pictures).__name__}: {remedy}")
    binary = Value("binary")
    features = Features({"image": {"bytes": binary, "path": Value("string")}, "file": binary, "label": Value("int64")})
    tables, rows, size = [], [], 0
    for row in _rows(pictures):
        rows.append(row)
        size += len((row["image"] or {"bytes": b""})["bytes"])
        if size > _AT_ONCE:
            tables.append(Dataset.from_list(rows, features=features))
            rows, size = [], 0
    if rows:
        tables.append(Dataset.from_list(rows, features=features))
    if not tables:
        raise ValueError("source is empty: give at least one picture")
    return concatenate_datasets(tables)


def _rows(pictures: Any) -> Iterator[dict[str, Any]]:
    whole = isinstance(pictures, np.ndarray | Tensor)
    for i in range(1 if whole else len(pictures)):
        item, label = pictures if whole else pictures[i], None
        if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], int):
            item, label = item
        if isinstance(item, str | Path):
            yield {"image": None, "file": os.fsencode(Path(item).expanduser()), "label": label}
            continue
        for x in take_images(item, 3, LEVELS, gray=True, name="source" if whole else f"source[{i}]").only():
            yield {"image": {"bytes": _encode(x), "path": None}, "file": None, "label": label}


def _encode(x: Tensor) -> bytes:
    """Encode an image (C, H, W) as the bytes of a PGM or PPM file."""
    C, H, W = x.shape
    kind = "P5" if C == 1 else "P6"
    return f"{kind} {W} {H} 255\n".encode() + x.byte().permute(1, 2, 0).contiguous().cpu().numpy().tobytes()
