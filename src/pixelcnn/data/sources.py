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
    "is_same_source",
    "open_source",
]

import difflib
import re
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from pixelcnn.common.text import first_line
from pixelcnn.data.decode import Crop
from pixelcnn.data.fingerprints import hash_row, is_held_out
from pixelcnn.data.folders import OTHER, find_files, find_parts, part_of, settle
from pixelcnn.data.rows import for_each, read_files, select_columns, with_files

if TYPE_CHECKING:
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
_PHOTOS = Path(__file__).parent / "photos"


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
            self.hashes[part] = for_each(self.parts[part], hash_row, "looking which images these are", progress)
        return self.hashes[part]

    def training_hashes(self, progress: bool) -> list[bytes]:
        """Of the images to train on."""
        hashes = self.hash("train", progress) if "train" in self.parts else []
        return hashes if self.held_out else [hash for hash in hashes if not is_held_out(hash)]

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
        chosen = [index for index, hash in enumerate(hashes) if is_held_out(hash) == test]
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
        rows = with_files(select_columns(rows, name), hub_id)
        parts.setdefault(part_of(part, whole=True) or OTHER, []).append(rows)
    return Source(name, {part: concatenate_datasets(rows) for part, rows in settle(parts).items()}, [])


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
        return Source(source, {part: read_files(files) for part, files in parts.items()}, notes)
    if path.is_file():
        return Source(source, {"train": read_files([path])}, [])
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
