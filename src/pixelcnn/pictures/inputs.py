"""Pictures from where people have them: files, folders, patterns, standard input.

All are found before the first is decoded, so that it is known where each result goes; then they are decoded one by one.
What a picture loses on the way to integers is said in a note.
"""

__all__ = ["PIPE", "Origin", "Picture", "Pictures", "find_pictures", "heeding"]

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

from pixelcnn.data.decode import Preparation, open_picture, read_file
from pixelcnn.data.folders import find_files

PIPE = "-"  # standard input or output
GREY_MODES = ("1", "L", "LA")
USUAL_GAMMA = 1 / 2.2


@dataclass(frozen=True)
class Origin:
    """Where a picture comes from.

    Attributes:
        name: the file's, below the innermost folder that holds all that was asked for.
        file: None for standard input.
    """

    name: Path
    file: Path | None

    def read(self) -> bytes:
        return sys.stdin.buffer.read() if self.file is None else read_file(self.file)


@dataclass(frozen=True)
class Picture:
    """A picture as an image: integers `x` (C, H, W) in [0, 256), and notes on what is not in them."""

    origin: Origin
    x: Tensor
    notes: list[str]


def find_pictures(arguments: Sequence[str], besides: Iterable[Path], say: Callable[[str], None]) -> list[Origin]:
    """Find all that is asked for, in an order that is the same on every machine, without opening it.

    Args:
        arguments: files, folders of any nesting, patterns such as "*.png", or "-" for standard input.
        besides: files and folders that are no pictures to read, such as where results go. In a folder or a pattern they
            are left out. A picture that is named twice is read once.
        say: is called with a sentence on each kind of file that was left out.

    Raises:
        ValueError: where there is nothing, or all that is asked for is one of `besides`.
    """
    leave_out = [path.resolve() for path in besides]
    found: dict[str, Path] = {}
    bases = []
    for argument in (each for each in arguments if each != PIPE):
        for path in _match(argument):
            if path.is_dir() and path.resolve() in leave_out:
                if [argument] == [*arguments] and os.path.lexists(Path(argument).expanduser()):
                    raise ValueError(f"{argument!r} is where the pictures are: name another folder for results")
                say(f"left out {str(path)!r}, where results go")
                continue
            files, explicit = _list(path, say), str(path) == str(Path(argument).expanduser()) and not path.is_dir()
            for file in files:
                if explicit or not _is_below(file, leave_out):
                    found.setdefault(os.path.abspath(file), file)
            bases.append(os.path.abspath(path if path.is_dir() else path.parent))
    base = os.path.commonpath(bases) if bases else ""
    origins = [Origin(Path(os.path.relpath(name, base)), file) for name, file in found.items()]
    origins += [Origin(Path("stdin"), None)] if PIPE in arguments else []
    if not origins:
        asked = ", ".join(map(repr, arguments))
        raise ValueError(f"{asked} is an empty folder, but for what is left out: put pictures there, or name another")
    return origins


def _match(argument: str) -> list[Path]:
    """The files and folders that an argument stands for, as the shell would find them."""
    path = Path(argument).expanduser()
    if os.path.lexists(path):
        return [path]
    matches = sorted(glob.glob(str(path), recursive=True))
    if not matches:
        raise ValueError(f"{argument!r}: no such file or folder; name pictures, folders of pictures, or - for stdin")
    return [Path(match) for match in matches]


def _list(path: Path, say: Callable[[str], None]) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = find_files(path)
    for note in found.notes:
        say(note)
    return found.visible


def _is_below(file: Path, folders: Sequence[Path]) -> bool:
    resolved = file.resolve()
    return any(resolved == folder or folder in resolved.parents for folder in folders)


class Pictures:
    """The pictures that were found, decoded one after another.

    Args:
        origins: what was found.
        channels: 3 for colour, 1 for grey.
        say: is called with a sentence for each picture that is converted, or left out.
        skip_broken: leave out those that cannot be read, instead of stopping at the first.
        grey: whether it goes without saying that grey is taken as colour.

    Attributes:
        left_out: how many could not be read so far.
    """

    def __init__(
        self,
        origins: Sequence[Origin],
        channels: int,
        say: Callable[[str], None],
        *,
        skip_broken: bool = False,
        grey: bool = False,
    ) -> None:
        self.origins, self.channels, self.say, self.skip_broken, self.grey = origins, channels, say, skip_broken, grey
        self.left_out = 0

    def __iter__(self) -> Iterator[Picture]:
        """Decode them.

        Raises:
            ValueError: for the first that cannot be read, unless such are left out; or where none can be read.
        """
        self.left_out = 0
        for origin in self.origins:
            try:
                picture = _decode(origin, self.channels, self.grey)
            except ValueError as error:
                if not self.skip_broken:
                    raise
                self.left_out += 1
                self.say(f"left out: {str(error).rpartition(': ')[0]}")  # the rest is advice to leave it out
                continue
            if picture.notes:
                self.say(f"{origin.name}: {', '.join(picture.notes)}")
            yield picture
        if self.left_out == len(self.origins):
            raise ValueError(f"none of {self.left_out} files can be read as a picture: name others")


def _decode(origin: Origin, channels: int, grey: bool) -> Picture:
    content = origin.read()
    with heeding() as notes:
        pixels = Preparation(channels, None, None)({"bytes": content, "path": str(origin.name)}, 0)
        notes += _describe_losses(open_picture(content, str(origin.name)), channels, grey)
    return Picture(origin, torch.tensor(pixels).permute(2, 0, 1).contiguous(), notes)


@contextmanager
def heeding() -> Iterator[list[str]]:
    """Notes, to which the warnings of Pillow's decoders are added in the end, instead of being printed with code."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
    if caught:
        notes.append(f"it may be damaged ({' '.join(str(caught[0].message).split())})")


def _describe_losses(file: Image.Image, channels: int, grey: bool) -> list[str]:
    """What of a file is not in its integers."""
    notes = ["its transparency is left out"] if file.has_transparency_data else []
    if file.mode in GREY_MODES and channels == 3 and not grey:
        notes.append("it is grey, and taken as colour with equal channels")
    if file.mode not in GREY_MODES and channels == 1:
        notes.append("it is taken as grey, its luma")
    if file.mode == "CMYK":
        notes.append("its inks are taken as red, green and blue, without a profile")
    if (frames := _count_frames(file)) > 1:
        notes.append(f"only the first of its {frames} frames is taken")
    return notes + _describe_colours(file.info)


def _count_frames(file: Image.Image) -> int:
    try:
        return getattr(file, "n_frames", 1)
    except Exception:  # Pillow's decoders raise a dozen kinds; and a damaged second frame is no matter of the first
        return 1


def _describe_colours(info: Mapping[Any, Any]) -> list[str]:
    """What a file says of its colours, where that is not what they are taken as."""
    profile, gamma = info.get("icc_profile"), info.get("gamma")
    if isinstance(profile, bytes) and not any("sRGB".encode(code) in profile for code in ("ascii", "utf-16-be")):
        return ["its colour profile is left out, so that colours may look different"]
    if profile is None and "srgb" not in info and isinstance(gamma, float) and abs(gamma - USUAL_GAMMA) > 0.01:
        return [f"its gamma of {gamma:.3g} is left out, so that it may look lighter or darker"]
    return []
