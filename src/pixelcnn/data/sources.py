"""Open sources of images by name, without decoding: which parts a source has, and which images are in a split.

Images are identified by the BLAKE2b hash of their encoded bytes. If a source has no test or validation part, an image
is held out when the first 64 bits of its hash, read as a fraction, are below 0.05. So adding or removing images never
moves another image between splits, and copies stay together.
"""

__all__ = [
    "HUB",
    "HUB_ID",
    "TERMS",
    "NothingHeldOutError",
    "Selection",
    "Source",
    "UnfetchedError",
    "is_same_source",
    "open_given",
    "open_source",
    "reach_hub",
    "unfetched",
]

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from pixelcnn.common.text import first_line
from pixelcnn.data.decode import Crop
from pixelcnn.data.fingerprints import hash_row, is_held_out
from pixelcnn.data.folders import OTHER, find_files, find_parts, part_of, settle
from pixelcnn.data.rows import for_each, read_files, select_columns, with_files
from pixelcnn.data.tables import read_dataset, read_sequence

if TYPE_CHECKING:
    from datasets import Dataset as Rows

# Data sets of the Hugging Face hub that have a short name here: hub id and default crop.
HUB: dict[str, tuple[str, Crop | None]] = {
    "cifar10": ("uoft-cs/cifar10", None),
    # The aligned faces, 178x218, all in one part. This crop is from the paper and leaves 128x128.
    "celeba": ("nielsr/CelebA-faces", (25, 25, 50, 40)),
}
# Terms of use of the named sources. They also apply to models trained on them.
TERMS = {
    "photos": "CC BY-SA 4.0",
    "cifar10": "none stated: research",
    "celeba": "non-commercial research",
}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PHOTOS = Path(__file__).parent / "photos"


class UnfetchedError(ValueError):
    """A hub data set that is not available here; `options` are the command-line options to use once it is."""

    def __init__(self, message: str, options: str) -> None:
        super().__init__(message)
        self.options = options


class NothingHeldOutError(ValueError):
    """A source with so few images that a split is empty."""


@dataclass(frozen=True)
class Selection:
    """The images of a split, not decoded.

    Args:
        rows: table with the columns `image` (records of `bytes` and `path`), `file` (paths we found) and `label`.
        hashes: hash of the content of each image.
        part: which images of the source these are, in words.
        notes: sentences on what was found but is not in this split.
    """

    rows: "Rows"
    hashes: list[bytes]
    part: str
    notes: list[str]


@dataclass(frozen=True)
class Source:
    """A source with all its parts, not decoded.

    Args:
        name: the name that was asked for.
        parts: tables of `train`, `test`, `validation` and `other`, as far as they exist.
        notes: sentences on files that were not read.
        hashes: hashes of the images of each part, filled in on first use.
    """

    name: str
    parts: dict[str, "Rows"]
    notes: list[str]
    hashes: dict[str, list[bytes]] = field(default_factory=dict)

    @property
    def held_out(self) -> str | None:
        """The part to test on, if there is one."""
        return next((part for part in ("test", "validation") if part in self.parts), None)

    def hash(self, part: str, progress: bool) -> list[bytes]:
        if part not in self.hashes:
            self.hashes[part] = for_each(self.parts[part], hash_row, "identifying images", progress)
        return self.hashes[part]

    def training_hashes(self, progress: bool) -> list[bytes]:
        """Hash the images to train on."""
        hashes = self.hash("train", progress) if "train" in self.parts else []
        return hashes if self.held_out else [hash for hash in hashes if not is_held_out(hash)]

    def select(self, split: str, progress: bool) -> Selection:
        """Select the images of a split.

        Raises:
            ValueError: if there are none.
        """
        from datasets import concatenate_datasets

        notes = [*self.notes]
        if split == "all":
            hashes = chain.from_iterable(self.hash(part, progress) for part in self.parts)
            return Selection(concatenate_datasets([*self.parts.values()]), [*hashes], "all of it", notes)
        if OTHER in self.parts:
            notes.append(f"{len(self.parts[OTHER])} images belong to no part; only split 'all' includes them")
        if self.held_out is None and split != "validation":
            return self._select_by_content(split, progress, notes)
        part = (self.held_out or split) if split == "test" else split
        if part not in self.parts:
            raise ValueError(self._describe_missing(split))
        if {"test", "validation"} <= self.parts.keys() and part != "validation":
            notes.append(f"{len(self.parts['validation'])} images are in the part validation, which is not used")
        return Selection(self.parts[part], self.hash(part, progress), f"its part {part}", notes)

    def _select_by_content(self, split: str, progress: bool, notes: list[str]) -> Selection:
        hashes, test = self.hash("train", progress), split == "test"
        chosen = [index for index, hash in enumerate(hashes) if is_held_out(hash) == test]
        if not chosen:
            which = "none" if test else "all"
            raise NothingHeldOutError(
                f"split={split!r}: {which} of the {len(hashes)} images of {self.name!r} are among the 5 % held "
                "out: add images, sort them into folders train and test, or use split 'all'"
            )
        part = "the 5 % held out by content hash" if test else "all but the 5 % held out by content hash"
        return Selection(self.parts["train"].select(chosen), [hashes[index] for index in chosen], part, notes)

    def _describe_missing(self, split: str) -> str:
        there = [part for part in self.parts if part != OTHER]
        if split == "train":
            return (
                f"split='train': source={self.name!r} has only a {there[0]} part, use 'test' or 'all', or add a train "
                "part"
            )
        others = [*dict.fromkeys([*there, "test", "all"])]
        return f"split={split!r}: source={self.name!r} has no such part, use one of {others}"


def _fetch(hub_id: str, crop: Crop | None = None) -> dict[str, "Rows"]:
    """Download every part of a data set of the Hugging Face hub."""
    from datasets import load_dataset

    try:
        reach_hub(hub_id)
        return {str(part): rows for part, rows in load_dataset(hub_id).items()}
    except Exception as error:  # no network, no such data set, a full disk: no common base class
        raise unfetched(hub_id, crop, error) from error


def reach_hub(hub_id: str) -> None:
    """Ask for a data set, to fail at once if there is no network; `datasets` would retry for half a minute."""
    from huggingface_hub import HfApi, constants

    if not constants.HF_HUB_OFFLINE:
        HfApi().dataset_info(hub_id, timeout=5)


def unfetched(hub_id: str, crop: Crop | None, error: Exception) -> UnfetchedError:
    """Word the error for a data set that could not be had."""
    reason = f"{hub_id!r} was not found locally or on the Hugging Face hub ({first_line(error)})"
    options = "--data FOLDER" + (f" --crop {' '.join(map(str, crop))}" if crop else "")
    remedy = f"run 'hf download {hub_id} --repo-type dataset --local-dir FOLDER' on a machine with a network"
    return UnfetchedError(f"{reason}: {remedy}, then use {options}", options)


def _open_hub(name: str, hub_id: str, crop: Crop | None = None) -> Source:
    parts: dict[str, list[Rows]] = {}
    for part, rows in _fetch(hub_id, crop).items():
        rows = with_files(select_columns(rows, name), hub_id)
        parts.setdefault(part_of(part, whole=True) or OTHER, []).append(rows)
    return _join(name, parts)


def open_given(source: object) -> Source:
    """Open a `datasets.Dataset`, a dictionary of these by part, or a sequence of pictures.

    Raises:
        ValueError: if it is none of these, or holds something else than pictures.
    """
    from datasets import Dataset

    if isinstance(source, Mapping):
        named = "the data set"
        parts: dict[str, list[Rows]] = {}
        for part, rows in source.items():
            parts.setdefault(part_of(str(part), whole=True) or OTHER, []).append(read_dataset(rows, named))
        return _join(named, parts)
    if isinstance(source, Dataset):
        return Source("the data set", {"train": read_dataset(source, "the data set")}, [])
    return Source("the pictures", {"train": read_sequence(source)}, [])


def _join(name: str, parts: Mapping[str, "list[Rows]"]) -> Source:
    from datasets import concatenate_datasets

    return Source(name, {part: concatenate_datasets(rows) for part, rows in settle(dict(parts)).items()}, [])


def open_source(source: str) -> Source:
    """Open every part of a named source without decoding it."""
    if source in HUB:
        return _open_hub(source, *HUB[source])
    path = _PHOTOS if source == "photos" else Path(source).expanduser()
    if path.is_dir():
        found = find_files(path)
        if not found.visible:
            besides = ", apart from hidden files" if found.hidden else ""
            raise ValueError(f"source={source!r} is an empty folder{besides}: put images into it or use another one")
        parts, described = find_parts(path, found.visible)
        notes = [*found.notes]
        if described and path != _PHOTOS:  # in ours they are the license and its terms
            notes.append(
                f"left out {len(described)} files that do not look like pictures, such as {str(described[0])!r}"
            )
        return Source(source, {part: read_files(files) for part, files in parts.items()}, notes)
    if path.is_file():
        return Source(source, {"train": read_files([path])}, [])
    if path.exists():
        raise ValueError(f"source={source!r} is neither a folder nor a regular file: name one that is")
    if HUB_ID.fullmatch(source):
        return _open_hub(source, source)
    names = ["photos", *HUB]
    nearest = difflib.get_close_matches(source, names, n=1)
    remedy = f"did you mean {nearest[0]!r}?" if nearest else f"use a path, owner/name or one of {names}"
    raise ValueError(f"source={source!r}: no such file or folder, {remedy}")


def is_same_source(a: str, b: str | None) -> bool:
    if b is None or {a, b} & {"photos", *HUB}:
        return a == b
    return Path(a).expanduser().resolve() == Path(b).expanduser().resolve()
