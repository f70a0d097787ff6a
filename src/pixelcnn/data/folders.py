"""The files of a folder, and the parts (train, test, validation) that their names assign them to."""

__all__ = [
    "OTHER",
    "PARQUET",
    "TAR",
    "FolderFiles",
    "find_files",
    "find_parts",
    "is_table",
    "part_of",
    "settle",
    "visible_files",
]

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

PARTS = {  # usual names of parts, in any case
    "train": "train|training|trainset",
    "test": "test|testing|testset",
    "validation": "val|valid|validation|dev|eval|evaluation",
}
OTHER = "other"  # files that belong to no part
PARQUET = ".parquet"
TAR = ".tar"  # WebDataset shards, which only a stream reads
RUN_FILE = "run.json"  # marks a folder as a training run
MADE_FILES, MADE_FOLDER = (RUN_FILE, "config.json", "model.safetensors"), r"factor-\d+"  # written by training
# Suffixes of files that a person would call pictures, whether we can read them or not.
PICTURES = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jpx"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".svg", ".tif", ".tiff", ".webp"),
)


@dataclass
class FolderFiles:
    """The files of a folder at any depth, in an order that is the same on every machine.

    Attributes:
        visible: every file that is not hidden, even if it cannot be read, such as a broken link or a pipe.
        hidden: pictures and parquet files whose own name, or a parent folder's name, begins with a dot.
        repeated: links to folders that were read before.
        made: files that training runs wrote, in folders with a `run.json`. Sample sheets are not training images.
    """

    visible: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    repeated: list[Path] = field(default_factory=list)
    made: list[Path] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        notes = [f"left out {len(self.hidden)} hidden files, such as {str(self.hidden[0])!r}"] if self.hidden else []
        if self.repeated:
            notes.append(f"skipped links to folders that were read before, such as {str(self.repeated[0])!r}")
        if self.made:
            notes.append(f"left out files that training wrote, such as {str(self.made[0])!r}")
        return notes


def find_files(folder: Path) -> FolderFiles:
    """Find all files below a folder; links to folders are followed, and each folder is read once."""
    found, seen, hidden_folders = FolderFiles(), set(), []

    def walk(top: Path) -> Iterator[Path]:
        # A folder that cannot be listed is reported later, like a file that cannot be read.
        unlisted: list[Path] = []
        for root, folders, names in os.walk(top, onerror=lambda e: unlisted.append(Path(e.filename)), followlinks=True):
            status = os.stat(root)
            if (status.st_dev, status.st_ino) in seen:
                found.repeated.append(Path(root))
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            # Visited last, since a visible link may lead into a hidden folder.
            hidden_folders.extend(Path(root, name) for name in folders if name.startswith("."))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if RUN_FILE in names:
                made = [name for name in folders if re.fullmatch(MADE_FOLDER, name)]
                made += [name for name in names if name in MADE_FILES]
                found.made.extend(Path(root, name) for name in made)
                folders[:], names = ([name for name in each if name not in made] for each in (folders, names))
            yield from (Path(root, name) for name in names)
        yield from unlisted

    for path in walk(folder):
        (found.hidden if path.name.startswith(".") else found.visible).append(path)
    for hidden in hidden_folders:  # the list grows during this loop
        found.hidden += walk(hidden)
    found.hidden = [path for path in found.hidden if _is_meant(path)]
    for paths in (found.visible, found.hidden):
        paths.sort(key=lambda path: path.relative_to(folder).as_posix())
    return found


def visible_files(folder: Path, pattern: str = "**/*") -> list[Path]:
    """List the regular, visible files at any depth whose name matches what follows `**/`, sorted by path."""
    name = pattern.removeprefix("**/")
    return [path for path in find_files(folder).visible if path.is_file() and fnmatchcase(path.name, name)]


def is_table(file: Path) -> bool:
    return file.suffix.lower() == PARQUET


def _is_meant(file: Path) -> bool:
    """Whether the name says that this is an image file, or a table of images."""
    return file.suffix.lower() in PICTURES or is_table(file)


def part_of(name: str, *, whole: bool) -> str | None:
    """Find the part a name stands for: its `whole`, up to digits (`val2017`), or its start (`train-0-of-2`)."""
    end = r"[-_ ]?\d*$" if whole else r"(?![a-z])"
    return next((part for part, names in PARTS.items() if re.match(f"({names}){end}", name.lower())), None)


def _find_part(file: Path, folder: Path) -> str | None:
    """Find the part of a picture from its top folder, or of a shard from any folder or the start of its name."""
    parents = file.relative_to(folder).parts[:-1]
    if not (is_table(file) or file.suffix.lower() == TAR):
        return part_of(parents[0], whole=True) if parents else None
    parts = (part_of(name, whole=True) for name in parents)
    return next((part for part in parts if part), None) or part_of(file.stem, whole=False)


def find_parts(folder: Path, files: list[Path]) -> tuple[dict[str, list[Path]], list[Path]]:
    """Sort files into parts, all into `train` if there are none; also return files that only describe the images."""
    parts: dict[str, list[Path]] = {}
    for file in files:
        parts.setdefault(_find_part(file, folder) or OTHER, []).append(file)
    others = parts.get(OTHER, [])
    if any(is_table(file) for file in files):
        described = [file for file in files if not _is_meant(file)]
    elif len(parts) > 1 and not any(_is_meant(file) for file in others):
        described = others
    else:
        described = []
    left_out = set(described)
    parts = {part: [file for file in files if file not in left_out] for part, files in parts.items()}
    parts = {part: files for part, files in parts.items() if files}
    if parts.keys() == {"train", OTHER} and not any(is_table(file) for file in parts["train"]):
        return {"train": files}, []  # pictures of trains, next to folders of other things
    return settle(parts), described


def settle(parts: dict[str, Any]) -> dict[str, Any]:
    """Use what belongs to no part as `train` if there is no `train`, and put the parts in their usual order."""
    if OTHER in parts and "train" not in parts:
        parts["train"] = parts.pop(OTHER)
    return {part: parts[part] for part in ("train", "test", "validation", OTHER) if part in parts}
