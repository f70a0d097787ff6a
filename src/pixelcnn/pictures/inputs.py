"""Find and read the pictures that a user names: files, folders, patterns, standard input.

All pictures are found before the first is decoded, since the files of the results must be planned first. Then they are
decoded one by one. A note says what a picture loses on its way to integers, such as transparency.
"""

__all__ = ["PIPE", "Origin", "Picture", "Pictures", "describe_losses", "find_pictures", "heeding"]

import glob
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pixelcnn.data.decode import FILTERS, Preparation, open_picture, read_file
from pixelcnn.data.folders import find_files
from pixelcnn.data.given import GRAY_MODES

PIPE = "-"  # standard input or output
USUAL_GAMMA = 1 / 2.2


@dataclass(frozen=True)
class Origin:
    """Where a picture comes from.

    Attributes:
        name: path of the file relative to the innermost folder that contains everything that was asked for.
        file: path of the file; None for standard input.
    """

    name: Path
    file: Path | None

    def read(self) -> bytes:
        return sys.stdin.buffer.read() if self.file is None else read_file(self.file)


@dataclass(frozen=True)
class Picture:
    """A decoded picture: integers `x` (C, H, W) in [0, 256), and notes on what was lost."""

    origin: Origin
    x: Tensor
    notes: list[str]


def find_pictures(
    arguments: Sequence[str], besides: Iterable[Path], say: Callable[[str], None], suffixes: Sequence[str] = ()
) -> list[Origin]:
    """Find all pictures, in an order that is the same on every machine, without opening them.

    Args:
        arguments: files, folders of any nesting, patterns such as "*.png", or "-" for standard input.
        besides: files and folders not to read, such as the folder for results. They are left out of folders and
            patterns. A picture that is named twice is read once.
        say: called with a sentence about each kind of file that was left out.
        suffixes: of the files to read in folders; empty for any.

    Raises:
        ValueError: if nothing is found, or only what is in `besides`.
    """
    leave_out = [path.resolve() for path in besides]
    found: dict[str, Path] = {}
    bases = []
    for argument in (each for each in arguments if each != PIPE):
        for path in _match(argument):
            if path.is_dir() and path.resolve() in leave_out:
                if [argument] == [*arguments] and os.path.lexists(Path(argument).expanduser()):
                    raise ValueError(f"{argument!r} holds the pictures: name another folder for results")
                say(f"left out {str(path)!r}, the folder for results")
                continue
            files = _list(path, say, suffixes)
            explicit = str(path) == str(Path(argument).expanduser()) and not path.is_dir()
            for file in files:
                if explicit or not _is_below(file, leave_out):
                    found.setdefault(os.path.abspath(file), file)
            bases.append(os.path.abspath(path if path.is_dir() else path.parent))
    base = os.path.commonpath(bases) if bases else ""
    origins = [Origin(Path(os.path.relpath(name, base)), file) for name, file in found.items()]
    origins += [Origin(Path("stdin"), None)] if PIPE in arguments else []
    if not origins:
        asked = ", ".join(map(repr, arguments))
        if suffixes:
            raise ValueError(f"{asked} holds no {' or '.join(suffixes)} file: name another folder, or the files")
        raise ValueError(f"{asked} is an empty folder, apart from what is left out: add pictures or name another")
    return origins


def _match(argument: str) -> list[Path]:
    """Expand an argument into files and folders, as the shell would."""
    path = Path(argument).expanduser()
    if os.path.lexists(path):
        return [path]
    matches = sorted(glob.glob(str(path), recursive=True))
    if not matches:
        raise ValueError(f"{argument!r}: no such file or folder; name pictures, folders of pictures, or - for stdin")
    return [Path(match) for match in matches]


def _list(path: Path, say: Callable[[str], None], suffixes: Sequence[str]) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = find_files(path)
    for note in found.notes:
        say(note)
    return [file for file in found.visible if not suffixes or file.suffix.lower() in suffixes]


def _is_below(file: Path, folders: Sequence[Path]) -> bool:
    resolved = file.resolve()
    return any(resolved == folder or folder in resolved.parents for folder in folders)


class Pictures:
    """An iterable that decodes pictures one after another.

    Args:
        origins: the pictures that were found.
        channels: 3 for color, 1 for gray.
        say: called with a sentence for each picture that is converted or left out.
        skip_broken: leave out pictures that cannot be read, instead of stopping at the first.
        gray: gray pictures are expected, so do not mention that they are treated as color.

    Attributes:
        left_out: number of pictures that could not be read so far.
    """

    def __init__(
        self,
        origins: Sequence[Origin],
        channels: int,
        say: Callable[[str], None],
        *,
        skip_broken: bool = False,
        gray: bool = False,
    ) -> None:
        self.origins, self.channels, self.say, self.skip_broken, self.gray = origins, channels, say, skip_broken, gray
        self.left_out = 0

    def __iter__(self) -> Iterator[Picture]:
        """Decode the pictures in order.

        Raises:
            ValueError: for the first picture that cannot be read, unless `skip_broken`; or if none can be read.
        """
        self.left_out = 0
        for origin in self.origins:
            try:
                picture = _decode(origin, self.channels, self.gray)
            except ValueError as error:
                if not self.skip_broken:
                    raise
                self.left_out += 1
                self.say(f"left out: {str(error).rpartition(': ')[0]}")  # cut off the advice to skip it
                continue
            if picture.notes:
                self.say(f"{origin.name}: {', '.join(picture.notes)}")
            yield picture
        if self.left_out == len(self.origins):
            raise ValueError(f"none of {self.left_out} files can be read as a picture: name other files")


def _decode(origin: Origin, channels: int, gray: bool) -> Picture:
    content = origin.read()
    with heeding() as notes:
        pixels = Preparation(channels, None, None)({"bytes": content, "path": str(origin.name)}, 0)
        notes += describe_losses(open_picture(content, str(origin.name)), channels, gray)
    return Picture(origin, torch.tensor(pixels).permute(2, 0, 1).contiguous(), notes)


@contextmanager
def heeding() -> Iterator[list[str]]:
    """Give a list of notes, and add warnings of Pillow's decoders to it at the end instead of printing them."""
    notes: list[str] = []
    with FILTERS, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
    if caught:
        notes.append(f"it may be damaged ({' '.join(str(caught[0].message).split())})")


def describe_losses(file: Image.Image, channels: int, gray: bool) -> list[str]:
    """Describe what a file has that its integers, of so many channels, do not; `gray` says that gray is expected."""
    notes = ["its transparency is ignored"] if file.has_transparency_data else []
    if file.mode in GRAY_MODES and channels == 3 and not gray:
        notes.append("it is gray, and treated as color with equal channels")
    if file.mode not in GRAY_MODES and channels == 1:
        notes.append("it is converted to gray (luma)")
    if file.mode == "CMYK":
        notes.append("its CMYK inks are converted to red, green and blue without a color profile")
    if (frames := _count_frames(file)) > 1:
        notes.append(f"only the first of its {frames} frames is used")
    return notes + _describe_colors(file.info)


def _count_frames(file: Image.Image) -> int:
    try:
        return getattr(file, "n_frames", 1)
    except Exception:  # Pillow's decoders raise a dozen kinds, and a damaged second frame does not affect the first
        return 1


def _describe_colors(info: Mapping[Any, Any]) -> list[str]:
    """Describe color information in the file that we ignore."""
    profile, gamma = info.get("icc_profile"), info.get("gamma")
    if isinstance(profile, bytes) and not any("sRGB".encode(code) in profile for code in ("ascii", "utf-16-be")):
        return ["its color profile is ignored, so colors may look different"]
    if profile is None and "srgb" not in info and isinstance(gamma, float) and abs(gamma - USUAL_GAMMA) > 0.01:
        return [f"its gamma of {gamma:.3g} is ignored, so it may look lighter or darker"]
    return []
