"""Choose the files of results, and write them.

The files of all results are chosen before anything is drawn: a different file for each result, and never one of the
pictures that are read. Results are written as soon as they are finished.
"""

__all__ = [
    "PNG",
    "Results",
    "check_inputs_stay",
    "check_out",
    "is_file_name",
    "plan_results",
    "write_picture",
    "write_result",
]

import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from PIL import Image

from pixelcnn.common.files import write_atomically
from pixelcnn.pictures.inputs import PIPE, Origin
from pixelcnn.pictures.sheets import to_png

PNG, SHEET = ".png", "contact-sheet"
MOST_SAMPLES = 10_000  # per picture, since all names are chosen before anything is drawn
LONGEST_STEM = 200  # bytes; file systems allow 255, and we add a number and a suffix
OTHER_FILES = (
    ".csv",
    ".heic",
    ".html",
    ".json",
    ".pxa",
    ".pxc",
    ".svg",
    ".txt",
    ".zip",
)  # besides the formats that Pillow writes


def is_file_name(out: Path, suffix: str = PNG) -> bool:
    """Whether this names a single result (a file of this kind, or standard output), not a folder of results."""
    return str(out) == PIPE or (out.suffix.lower() == suffix and not out.is_dir())


def check_out(out: Path, overwrite: bool, option: str = "--out", suffix: str = PNG) -> None:
    """Check that results can be written to `out`, before any is made.

    Raises:
        ValueError: if something would be replaced, or if `out` cannot be written to or has the wrong suffix.
    """
    name = f"{option} {str(out)!r}"
    if str(out) == PIPE:
        return
    if not is_file_name(out, suffix) and not out.is_dir():
        if out.exists():
            raise ValueError(f"{name} is a file: name a folder, or a {suffix} file for a single result")
        if out.suffix.lower() in {*Image.registered_extensions(), *OTHER_FILES}:
            kind = "lossless PNG" if suffix == PNG else suffix
            raise ValueError(f"{name}: results are saved as {kind}; name a {suffix} file or a folder")
    if not overwrite and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise ValueError(f"{name} already exists: use --overwrite, or name another")
    nearest = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if nearest.is_file() and nearest != out.absolute():
        raise ValueError(f"{name}: {str(nearest)!r} is a file, not a folder; name another")
    if not os.access(nearest.parent if nearest.is_file() else nearest, os.W_OK):
        raise ValueError(f"{name}: {str(nearest)!r} is not writable; name another, or ask for permission")


@dataclass(frozen=True)
class Results:
    """The files for the results of each picture, and the file for the contact sheet, if there is one."""

    files: dict[Origin, list[Path]]
    sheet: Path | None = None


def plan_results(
    origins: Sequence[Origin],
    out: Path,
    samples: int = 1,
    *,
    option: str = "--out",
    mask: Path | None = None,
    suffix: str = PNG,
) -> Results:
    """Choose where the results of all pictures go.

    A result is named after its picture, with the suffix. If two names would clash, ignoring case, a picture that has
    the suffix keeps its name, or else a PNG does, and the others get their full file name or a number. Alternatives are
    numbered.

    Raises:
        ValueError: if several results would share one file, a result would replace an input picture or the mask, or
            something other than a file is in its place.
    """
    if samples > MOST_SAMPLES:
        raise ValueError(f"samples={samples}: use at most {MOST_SAMPLES} for each picture; for more, use other seeds")
    if is_file_name(out, suffix):
        if samples > 1:
            raise ValueError(f"{option} {str(out)!r} holds one image, not {samples} for each picture: name a folder")
        if len(origins) > 1:
            raise ValueError(f"{option} {str(out)!r} holds one image, and there are several pictures: name a folder")
        files = {origin: [out] for origin in origins}
        sheet = None
    else:
        names = _choose_names([origin.name for origin in origins], samples, suffix)
        files = {origin: [out / name for name in each] for origin, each in zip(origins, names, strict=True)}
        sheet = out / _choose_sheet([name for each in names for name in each])
    check_inputs_stay([each for some in files.values() for each in some] + [sheet or Path(PIPE)], origins, option, mask)
    for file in (file for each in [*files.values(), [sheet or Path(PIPE)]] for file in each if str(file) != PIPE):
        nearest = next(each for each in (file, *file.absolute().parents) if each.exists())
        if nearest.is_dir() == (nearest == file):
            raise ValueError(
                f"the result {str(file)!r} cannot be written, {str(nearest)!r} is in the way: name another {option}"
            )
    return Results(files, sheet)


def check_inputs_stay(
    files: Sequence[Path], origins: Sequence[Origin], option: str = "--out", mask: Path | None = None
) -> None:
    """Raise a ValueError if a result would replace an input picture or the mask."""
    read = [mask, *(origin.file for origin in origins)]
    inputs = {_identify(file) for file in read if file is not None} - {None}
    for file in files:
        if str(file) != PIPE and _identify(file) in inputs:
            raise ValueError(f"the result {str(file)!r} would replace an input picture: name another {option}")


def _choose_names(names: Sequence[Path], samples: int, suffix: str) -> list[list[Path]]:
    folders = {_key(folder) for name in names for folder in name.parents}
    taken: set[str] = set()
    chosen: list[list[Path]] = [[]] * len(names)
    for i in sorted(range(len(names)), key=lambda i: (names[i].suffix != suffix, names[i].suffix != PNG)):
        stems = _stems(names[i])
        while not chosen[i]:
            stem = next(stems)
            ends = [f"-{n}{suffix}" for n in range(1, samples + 1)] if samples > 1 else [suffix]
            files = [names[i].with_name(stem + end) for end in ends]
            if not {_key(file) for file in files} & (taken | folders):
                chosen[i] = files
                taken |= {_key(file) for file in files}
    return chosen


def _choose_sheet(names: Sequence[Path]) -> Path:
    taken = {_key(each) for name in names for each in (name, *name.parents)}
    candidates = (Path(f"{SHEET}-{n}.png" if n > 1 else f"{SHEET}.png") for n in count(1))
    return next(name for name in candidates if _key(name) not in taken)


def _stems(name: Path) -> Iterator[str]:
    """Yield candidate names without a suffix, endlessly."""

    def cut(text: str) -> str:
        return (
            os.fsencode(text)[:LONGEST_STEM].decode(errors="ignore") if len(os.fsencode(text)) > LONGEST_STEM else text
        )

    yield cut(name.stem)
    yield cut(name.name)
    yield from (f"{cut(name.name)}-{n}" for n in count(2))


def _key(name: Path) -> str:
    """Normalize a name: two names get the same key if some file system treats them as one file (case, accents)."""
    return unicodedata.normalize("NFC", str(name)).casefold()


def _identify(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:  # there is no such file
        return None
    return status.st_dev, status.st_ino


def write_picture(picture: Image.Image, out: Path) -> None:
    """Write a picture as PNG to a file, or to standard output for "-"."""
    write_result(to_png(picture), out)


def write_result(content: bytes, out: Path) -> None:
    """Write the content of a file in one step, or to standard output for "-"."""
    if str(out) == PIPE:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        write_atomically(out, content)
