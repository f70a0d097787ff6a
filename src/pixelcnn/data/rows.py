"""Tables with one row per image, from files, parquet tables and the hub."""

__all__ = [
    "IMAGE_COLUMNS",
    "for_each",
    "name_of",
    "pairs",
    "read_files",
    "select_columns",
    "to_record",
    "with_files",
    "without_labels",
]

import glob
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress

from pixelcnn.common.text import first_line
from pixelcnn.data.decode import read_file
from pixelcnn.data.folders import is_table

if TYPE_CHECKING:
    from datasets import Dataset as Rows

IMAGE_COLUMNS = ("image", "img")


def read_files(files: list[Path]) -> "Rows":
    """Make one table from pictures and parquet files."""
    from datasets import Dataset, concatenate_datasets

    tables = [file for file in files if is_table(file)]
    pictures = [os.fsencode(file) for file in files if not is_table(file)]  # bytes, since a name need not be UTF-8
    rows = [read_parquet(tables)] if tables else []
    if pictures:
        rows.append(Dataset.from_dict({"file": pictures}))
    return concatenate_datasets(rows)


def read_parquet(files: list[Path]) -> "Rows":
    import pyarrow.parquet
    from datasets import concatenate_datasets, load_dataset

    file, alike, rows = files[0], {}, []  # files with the same columns are loaded together
    try:
        for file in files:
            if not file.is_file():
                raise ValueError("not a regular file")
            alike.setdefault(str(pyarrow.parquet.read_schema(file)), []).append(file)
        for file, *others in alike.values():
            names = [glob.escape(str(each.absolute())) for each in (file, *others)]
            rows.append((file, load_dataset("parquet", data_files=names, split="train")))
    except Exception as error:  # bad or unreadable files, a full disk: these share no base class
        reason = first_line(error.__cause__ or error)
        raise ValueError(f"{str(file)!r} cannot be read as parquet ({reason}): check the file") from error
    return concatenate_datasets([select_columns(each, str(file)) for file, each in rows])


def select_columns(rows: "Rows", source: str) -> "Rows":
    """Keep the undecoded `image` column, and `label` if it holds whole numbers."""
    from datasets import Image as ImageColumn
    from datasets import Value

    column = next((name for name in IMAGE_COLUMNS if name in rows.column_names), None)
    if column is None:
        raise ValueError(f"source={source!r} has columns {rows.column_names}: rename one of them to 'image'")
    # Labels of other types are not read: a label stored as an image could name any file.
    whole = column != "label" and re.match("u?int", str(getattr(rows.features.get("label"), "dtype", None)))
    try:
        rows = rows.select_columns([column, "label"] if whole else [column]).rename_columns({column: "image"})
        rows = rows.cast_column("image", ImageColumn(decode=False))
        return rows.cast_column("label", Value("int64")) if whole else rows
    except (RuntimeError, TypeError, ValueError) as error:
        reason = f"column {column!r} does not hold images ({first_line(error)})"
        raise ValueError(f"source={source!r}: {reason}, use another file") from error


def without_labels(rows: "Rows") -> "Rows":
    return rows.select_columns([name for name in ("image", "file") if name in rows.column_names])


def pairs(batch: Mapping[str, list[Any]]) -> Iterator[tuple[Any, Any]]:
    """Pair the `image` and `file` columns of some rows; each row has one of the two."""
    count = len(next(iter(batch.values())))
    return zip(*(batch.get(name, [None] * count) for name in ("image", "file")), strict=True)


def to_record(image: dict[str, Any] | None, file: bytes | None) -> dict[str, Any]:
    """Make a record of `bytes` and `path`. A path stored in a table is only a name and is never opened."""
    if file is None:
        return image or {"bytes": None, "path": None}
    path = os.fsdecode(file)
    return {"bytes": read_file(path), "path": path}


def name_of(rows: "Rows", index: int) -> str:
    ((image, file),) = pairs(without_labels(rows)[[index]])
    return os.fsdecode(file) if file else (image or {}).get("path") or f"number {index}"


def for_each(rows: "Rows", do: Callable[[int, Any, Any], Any], title: str, progress: bool) -> list[Any]:
    """Call `do(index, image, file)` for every row in threads, and return the results in order."""
    rows = without_labels(rows)

    def work(start: int) -> list[Any]:
        try:
            batch = rows[start : start + 64]
        except Exception as error:  # damaged tables raise many kinds
            reason = f"images {start} to {start + 63} cannot be read ({first_line(error)})"
            raise ValueError(f"{reason}: download the parquet file again") from error
        return [do(index, *pair) for index, pair in enumerate(pairs(batch), start)]

    results = []
    show_at = time.monotonic() + 2
    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task(title, total=len(rows))
    try:
        # Threads are enough, since Pillow releases the interpreter lock while it decodes.
        with ThreadPoolExecutor() as pool:
            for chunk in pool.map(work, range(0, len(rows), 64)):
                results += chunk
                bar.advance(task, 64)
                if progress and time.monotonic() > show_at:
                    bar.start()
    finally:
        if bar.live.is_started:
            bar.stop()
    return results


def with_files(rows: "Rows", hub_id: str) -> "Rows":
    """Add the paths of a data set of image files, if they lie inside the cache of the hub client."""
    from datasets import Value, config
    from huggingface_hub import constants

    if not len(rows) or not rows[0]["image"] or rows[0]["image"]["bytes"] is not None:
        return rows
    caches = [Path(constants.HF_HUB_CACHE, f"datasets--{hub_id.replace('/', '--')}"), config.EXTRACTED_DATASETS_PATH]
    caches = [Path(cache).resolve() for cache in caches]

    def fetched(record: dict[str, Any] | None) -> bytes | None:
        path = str((record or {}).get("path") or "")
        inside = any(Path(path).resolve().is_relative_to(cache) for cache in caches)
        return os.fsencode(path) if inside else None

    return rows.add_column("file", [fetched(record) for record in rows["image"]], feature=Value("binary"))
