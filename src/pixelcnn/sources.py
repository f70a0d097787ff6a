"""Sources of images by their names, opened but not decoded: which parts they have, and which images are in a split.

An image is known by the BLAKE2b hash of its encoded bytes. Of a source without a part to hold out, an image is held out
where the first 64 bits of its hash, as a number below 1, are below 0.05. So images that are added or removed move no
other, and copies stay together.
"""

__all__ = [
    "HUB",
    "TERMS",
    "NothingHeldOutError",
    "Selection",
    "Source",
    "UnfetchedError",
    "changed_since",
    "fingerprint",
    "for_each",
    "is_same_source",
    "joined_fingerprint",
    "name_of",
    "open_source",
    "pairs",
    "to_record",
    "without_labels",
]

import difflib
import glob
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress

from pixelcnn.decoding import BrokenImageError, Crop, Preparation, first_line, read_file
from pixelcnn.files import OTHER, find_files, find_parts, is_table, part_of, settle

if TYPE_CHECKING:  # `datasets` takes a second to import: the functions that need it do so themselves
    from datasets import Dataset as Rows

# Data sets of the Hugging Face hub with a name of their own here: hub id, and the crop where none is given.
HUB: dict[str, tuple[str, Crop | None]] = {
    "cifar10": ("uoft-cs/cifar10", None),
    # The aligned faces, 178x218, all in one part. The crop is the paper's and leaves 128x128.
    "celeba": ("nielsr/CelebA-faces", (25, 25, 50, 40)),
}
# What one may do with the sources that have a name; models that are trained on them are for the same.
TERMS = {
    "photos": "CC BY-SA 4.0",
    "cifar10": "none stated: research",
    "celeba": "non-commercial research",
}
_IMAGE_COLUMNS = ("image", "img")
_PHOTOS = Path(__file__).parent / "photos"
_HELD_OUT_SHARE = 0.05


class UnfetchedError(ValueError):
    """A data set of the hub that is not to be had here; its `options` are those of the command line once it is."""

    def __init__(self, message: str, options: str) -> None:
        super().__init__(message)
        self.options = options


class NothingHeldOutError(ValueError):
    """A source of so few images that none of them is held out."""


@dataclass(frozen=True)
class Selection:
    """The images of a split, undecoded.

    Args:
        rows: of columns `image` (records of `bytes` and `path`), `file` (paths that we found ourselves), `label`.
        hashes: of the content of each.
        part: in words, which images of the source these are.
        notes: whatever of the source is not in any split, or not in the usual ones.
    """

    rows: "Rows"
    hashes: list[bytes]
    part: str
    notes: list[str]


# Rows


def _read_files(files: list[Path]) -> "Rows":
    """The rows of pictures and parquet files."""
    from datasets import Dataset, concatenate_datasets

    tables = [file for file in files if is_table(file)]
    pictures = [os.fsencode(file) for file in files if not is_table(file)]  # a name may be no UTF-8
    rows = [_read_parquet(tables)] if tables else []
    if pictures:
        rows.append(Dataset.from_dict({"file": pictures}))
    return concatenate_datasets(rows)


def _read_parquet(files: list[Path]) -> "Rows":
    import pyarrow.parquet
    from datasets import concatenate_datasets, load_dataset

    file, alike, rows = files[0], {}, []  # files with the same columns are read together
    try:
        for file in files:
            if not file.is_file():
                raise ValueError("no regular file")
            alike.setdefault(str(pyarrow.parquet.read_schema(file)), []).append(file)
        for file, *others in alike.values():
            names = [glob.escape(str(each.absolute())) for each in (file, *others)]
            rows.append((file, load_dataset("parquet", data_files=names, split="train")))
    except Exception as error:  # a bad file, an unreadable one, a full disk: no common base
        reason = first_line(error.__cause__ or error)
        raise ValueError(f"{str(file)!r} cannot be read as parquet ({reason}): check the file") from error
    return concatenate_datasets([_select_columns(each, str(file)) for file, each in rows])


def _select_columns(rows: "Rows", source: str) -> "Rows":
    """The columns `image`, undecoded, and `label`, where it has whole numbers."""
    from datasets import Image as ImageColumn
    from datasets import Value

    column = next((name for name in _IMAGE_COLUMNS if name in rows.column_names), None)
    if column is None:
        raise ValueError(f"source={source!r} has columns {rows.column_names}: rename one of them to 'image'")
    # Other kinds of labels stay unread: as an image, one could name any file.
    whole = column != "label" and re.match("u?int", str(getattr(rows.features.get("label"), "dtype", None)))
    try:
        rows = rows.select_columns([column, "label"] if whole else [column]).rename_columns({column: "image"})
        rows = rows.cast_column("image", ImageColumn(decode=False))
        return rows.cast_column("label", Value("int64")) if whole else rows
    except (RuntimeError, TypeError, ValueError) as error:
        reason = f"column {column!r} holds no images ({first_line(error)})"
        raise ValueError(f"source={source!r}: {reason}, use another file") from error


def without_labels(rows: "Rows") -> "Rows":
    return rows.select_columns([name for name in ("image", "file") if name in rows.column_names])


def pairs(batch: Mapping[str, list[Any]]) -> Iterator[tuple[Any, Any]]:
    """The columns `image` and `file` of some rows; a row has one of the two."""
    count = len(next(iter(batch.values())))
    return zip(*(batch.get(name, [None] * count) for name in ("image", "file")), strict=True)


def to_record(image: dict[str, Any] | None, file: bytes | None) -> dict[str, Any]:
    """A record of `bytes` and `path`. The path that a table brings along is a name, and never opened."""
    if file is None:
        return image or {"bytes": None, "path": None}
    path = os.fsdecode(file)
    return {"bytes": read_file(path), "path": path}


def name_of(rows: "Rows", index: int) -> str:
    ((image, file),) = pairs(without_labels(rows)[[index]])
    return os.fsdecode(file) if file else (image or {}).get("path") or f"number {index}"


def for_each(rows: "Rows", do: Callable[[int, Any, Any], Any], title: str, progress: bool) -> list[Any]:
    """Call a function with the index and the columns `image` and `file` of every row; its results, in this order."""
    rows = without_labels(rows)

    def work(start: int) -> list[Any]:
        try:
            batch = rows[start : start + 64]
        except Exception as error:  # a damaged table: no common base
            reason = f"images {start} to {start + 63} cannot be read ({first_line(error)})"
            raise ValueError(f"{reason}: get the parquet file again") from error
        return [do(index, *pair) for index, pair in enumerate(pairs(batch), start)]

    results = []
    show_at = time.monotonic() + 2
    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task(title, total=len(rows))
    try:
        # Threads are enough: Pillow decodes without holding the interpreter's lock.
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


# Which images, by their content


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _hash_row(index: int, image: dict[str, Any] | None, file: bytes | None) -> bytes:
    try:
        return _hash(to_record(image, file)["bytes"] or b"")
    except BrokenImageError:  # named by the check, or left out there
        return _hash(b"")


def _is_held_out(hash: bytes) -> bool:
    return int.from_bytes(hash[:8]) < _HELD_OUT_SHARE * 2**64


def fingerprint(hashes: Iterable[bytes], prepare: Preparation) -> dict[str, Any]:
    """The number of images, and one hash of theirs and of their preparation, whatever their order."""
    hashes = sorted(hashes)
    steps = json.dumps([prepare.channels, list(prepare.crop or (0, 0, 0, 0)), prepare.size]).encode()
    return {"images": len(hashes), "blake2b": _hash(b"".join([steps, *hashes])).hex()}


def joined_fingerprint(fingerprints: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """That of several sets of images together, whatever their order."""
    fingerprints = [*fingerprints]
    hashes = "".join(sorted(each["blake2b"] for each in fingerprints))
    return {"images": sum(each["images"] for each in fingerprints), "blake2b": _hash(hashes.encode()).hex()}


def changed_since(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str | None:
    """A sentence where two fingerprints of what a model was trained on differ; None where one was not kept."""
    if not before or before.get("blake2b") == now["blake2b"]:
        return None
    return f"the data changed since the training began: {before.get('images')} images then, {now['images']} now"


@dataclass(frozen=True)
class Source:
    """A source with all its parts, undecoded.

    Args:
        name: as it was asked for.
        parts: rows of `train`, `test`, `validation` and `other`, as far as there are such.
        notes: on what was not read.
        hashes: those of the contents of parts, once they were asked for.
    """

    name: str
    parts: dict[str, "Rows"]
    notes: list[str]
    hashes: dict[str, list[bytes]] = field(default_factory=dict)

    @property
    def held_out(self) -> str | None:
        """The part that is to test with."""
        return next((part for part in ("test", "validation") if part in self.parts), None)

    def hash(self, part: str, progress: bool) -> list[bytes]:
        if part not in self.hashes:
            self.hashes[part] = for_each(self.parts[part], _hash_row, "looking which images these are", progress)
        return self.hashes[part]

    def training_hashes(self, progress: bool) -> list[bytes]:
        """Of the images to train on."""
        hashes = self.hash("train", progress) if "train" in self.parts else []
        return hashes if self.held_out else [hash for hash in hashes if not _is_held_out(hash)]

    def select(self, split: str, progress: bool) -> Selection:
        """The images of a split.

        Raises:
            ValueError: where there are none.
        """
        from datasets import concatenate_datasets

        notes = [*self.notes]
        if split == "all":
            hashes = chain.from_iterable(self.hash(part, progress) for part in self.parts)
            return Selection(concatenate_datasets([*self.parts.values()]), [*hashes], "all of it", notes)
        if OTHER in self.parts:
            notes.append(f"{len(self.parts[OTHER])} images are in no part, and only split 'all' has them")
        if self.held_out is None and split != "validation":
            return self._select_by_content(split, progress, notes)
        part = (self.held_out or split) if split == "test" else split
        if part not in self.parts:
            raise ValueError(self._describe_missing(split))
        if {"test", "validation"} <= self.parts.keys() and part != "validation":
            notes.append(f"{len(self.parts['validation'])} images are in the part validation, which is left alone")
        return Selection(self.parts[part], self.hash(part, progress), f"its part {part}", notes)

    def _select_by_content(self, split: str, progress: bool, notes: list[str]) -> Selection:
        hashes, test = self.hash("train", progress), split == "test"
        chosen = [index for index, hash in enumerate(hashes) if _is_held_out(hash) == test]
        if not chosen:
            which = "none is" if test else "all are"
            raise NothingHeldOutError(
                f"split={split!r}: of {len(hashes)} images of {self.name!r} {which} among the 5 % that are held out: "
                "add images, sort them into folders train and test, or use split 'all'"
            )
        part = "the 5 % that their content holds out" if test else "all but 5 % that their content holds out"
        return Selection(self.parts["train"].select(chosen), [hashes[index] for index in chosen], part, notes)

    def _describe_missing(self, split: str) -> str:
        there = [part for part in self.parts if part != OTHER]
        if split == "train":
            return (
                f"split='train': source={self.name!r} has only a {there[0]} part, use 'test' or 'all', or add a part "
                "train"
            )
        others = [*dict.fromkeys([*there, "test", "all"])]
        return f"split={split!r}: source={self.name!r} has no such part, use one of {others}"


# Sources


def _fetch(hub_id: str, crop: Crop | None = None) -> dict[str, "Rows"]:
    """Every part of a data set of the Hugging Face hub."""
    from datasets import load_dataset
    from huggingface_hub import HfApi, constants

    try:
        if not constants.HF_HUB_OFFLINE:
            # Fails at once where there is no network: `load_dataset` would retry for half a minute.
            HfApi().dataset_info(hub_id, timeout=5)
        return {str(part): rows for part, rows in load_dataset(hub_id).items()}
    except Exception as error:  # no network, no such data set, a full disk: no common base either
        reason = f"{hub_id!r}: no folder here, and not given by the Hugging Face hub ({first_line(error)})"
        options = "--data FOLDER" + (f" --crop {' '.join(map(str, crop))}" if crop else "")
        remedy = f"run 'hf download {hub_id} --repo-type dataset --local-dir FOLDER' where there is a network"
        raise UnfetchedError(f"{reason}: {remedy}, and use {options}", options) from error


def _open_hub(name: str, hub_id: str, crop: Crop | None = None) -> Source:
    from datasets import concatenate_datasets

    parts: dict[str, list[Rows]] = {}
    for part, rows in _fetch(hub_id, crop).items():
        rows = _with_files(_select_columns(rows, name), hub_id)
        parts.setdefault(part_of(part, whole=True) or OTHER, []).append(rows)
    return Source(name, {part: concatenate_datasets(rows) for part, rows in settle(parts).items()}, [])


def _with_files(rows: "Rows", hub_id: str) -> "Rows":
    """Of a data set of picture files the files, if they are where the hub's client has put them."""
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


def open_source(source: str) -> Source:
    """Every part of a source, undecoded."""
    if source in HUB:
        return _open_hub(source, *HUB[source])
    path = _PHOTOS if source == "photos" else Path(source).expanduser()
    if path.is_dir():
        found = find_files(path)
        if not found.visible:
            hidden = ", hidden ones aside" if found.hidden else ""
            raise ValueError(f"source={source!r} is an empty folder{hidden}: put images into it or use another one")
        parts, described = find_parts(path, found.visible)
        notes = [*found.notes]
        if described and path != _PHOTOS:  # ours are the licence and its terms
            notes.append(
                f"left out {len(described)} files that are no pictures by their names, such as {str(described[0])!r}"
            )
        return Source(source, {part: _read_files(files) for part, files in parts.items()}, notes)
    if path.is_file():
        return Source(source, {"train": _read_files([path])}, [])
    if path.exists():
        raise ValueError(f"source={source!r} is neither a folder nor a regular file: name one that is")
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", source):
        return _open_hub(source, source)
    names = ["photos", *HUB]
    nearest = difflib.get_close_matches(source, names, n=1)
    remedy = f"did you mean {nearest[0]!r}?" if nearest else f"use a path, owner/name or one of {names}"
    raise ValueError(f"source={source!r}: no such file or folder, {remedy}")


def is_same_source(a: str, b: str | None) -> bool:
    if b is None or {a, b} & {"photos", *HUB}:
        return a == b
    return Path(a).expanduser().resolve() == Path(b).expanduser().resolve()
