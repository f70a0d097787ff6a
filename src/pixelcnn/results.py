"""Where results go, and what a model does with one picture done with all of them.

The files of all results are known before anything is drawn: one for each, none of which is a picture that is read.
Results are written as soon as they are there.
"""

__all__ = [
    "Results",
    "check_out",
    "draw_alternatives",
    "is_file_name",
    "plan_results",
    "score_pictures",
    "write_picture",
]

import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from PIL import Image
from torch import Tensor, stack

from pixelcnn.evaluation import surprise
from pixelcnn.figures import Strip, heat_map, save_picture, sheet, to_picture, to_png
from pixelcnn.models import ImageModel
from pixelcnn.pictures import PIPE, Origin, Picture
from pixelcnn.progress import late_bar, printable

SHEET = "contact-sheet"
MOST_SAMPLES = 10_000  # of a picture: all names are chosen before anything is drawn
SHEET_PICTURES = 12  # that the contact sheet shows at most
LONGEST_STEM = 200  # bytes; file systems take 255, and a result has an ending and a number
OTHER_FILES = (".csv", ".heic", ".html", ".json", ".svg", ".txt", ".zip")  # besides those that Pillow writes

Draw = Callable[[Tensor, Sequence[int], str], tuple[Strip, Tensor]]
"""From images (n, C, H, W), a seed for each, and what the progress bar says: images to show beside, and results."""
Job = tuple[Picture, int]  # a picture, and which of its alternatives


def is_file_name(out: Path) -> bool:
    """Whether this stands for one result, a .png file or standard output, and not for a folder of results."""
    return str(out) == PIPE or (out.suffix.lower() == ".png" and not out.is_dir())


def check_out(out: Path, overwrite: bool, option: str = "--out") -> None:
    """Check that results can be written there, before any is made.

    Raises:
        ValueError: where something would be replaced, or cannot be written as what it is called.
    """
    name = f"{option} {str(out)!r}"
    if str(out) == PIPE:
        return
    if not is_file_name(out) and not out.is_dir():
        if out.exists():
            raise ValueError(f"{name} is a file: name a folder, or a .png file for a single result")
        if out.suffix.lower() in {*Image.registered_extensions(), *OTHER_FILES}:
            raise ValueError(f"{name}: results are written as PNG, without loss; name a .png file or a folder")
    if not overwrite and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise ValueError(f"{name} is there already: use --overwrite, or name another")
    nearest = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if nearest.is_file() and nearest != out.absolute():
        raise ValueError(f"{name}: {str(nearest)!r} is a file, and no folder; name another")
    if not os.access(nearest.parent if nearest.is_file() else nearest, os.W_OK):
        raise ValueError(f"{name}: {str(nearest)!r} cannot be written to; name another, or get the permission")


@dataclass(frozen=True)
class Results:
    """The files of the results of each picture, and that of the contact sheet; None for no sheet."""

    files: dict[Origin, list[Path]]
    sheet: Path | None = None


def plan_results(
    origins: Sequence[Origin], out: Path, samples: int = 1, *, option: str = "--out", mask: Path | None = None
) -> Results:
    """Choose where the results of all pictures go.

    A result has the name of its picture, as .png. Where two would have the same, whatever their case, that of a .png
    picture keeps it, and the others are called by their full names, or numbered. Alternatives are numbered.

    Raises:
        ValueError: where there are several results for one file, a result would replace a picture that is read or the
            mask, or something else than a file is in its place.
    """
    if samples > MOST_SAMPLES:
        raise ValueError(f"samples={samples}: use at most {MOST_SAMPLES} for each picture, and other seeds for more")
    if is_file_name(out):
        if samples > 1:
            raise ValueError(f"{option} {str(out)!r} holds one image, and there are {samples} for each: name a folder")
        if len(origins) > 1:
            raise ValueError(f"{option} {str(out)!r} holds one image, and there are several pictures: name a folder")
        files = {origin: [out] for origin in origins}
        sheet = None
    else:
        names = _choose_names([origin.name for origin in origins], samples)
        files = {origin: [out / name for name in each] for origin, each in zip(origins, names, strict=True)}
        sheet = out / _choose_sheet([name for each in names for name in each])
    read = [mask, *(origin.file for origin in origins)]
    inputs = {_identify(file) for file in read if file is not None} - {None}
    for file in (file for each in [*files.values(), [sheet or Path(PIPE)]] for file in each if str(file) != PIPE):
        if _identify(file) in inputs:
            raise ValueError(f"the result {str(file)!r} would replace a picture that is read: name another {option}")
        nearest = next(each for each in (file, *file.absolute().parents) if each.exists())
        if nearest.is_dir() == (nearest == file):
            raise ValueError(
                f"the result {str(file)!r} has no place, {str(nearest)!r} is in the way: name another {option}"
            )
    return Results(files, sheet)


def _choose_names(names: Sequence[Path], samples: int) -> list[list[Path]]:
    folders = {_key(folder) for name in names for folder in name.parents}
    taken: set[str] = set()
    chosen: list[list[Path]] = [[]] * len(names)
    for i in sorted(range(len(names)), key=lambda i: names[i].suffix != ".png"):
        stems = _stems(names[i])
        while not chosen[i]:
            stem = next(stems)
            ends = [f"-{n}.png" for n in range(1, samples + 1)] if samples > 1 else [".png"]
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
    """Names to choose from, without an end and without end."""

    def cut(text: str) -> str:
        return (
            os.fsencode(text)[:LONGEST_STEM].decode(errors="ignore") if len(os.fsencode(text)) > LONGEST_STEM else text
        )

    yield cut(name.stem)
    yield cut(name.name)
    yield from (f"{cut(name.name)}-{n}" for n in count(2))


def _key(name: Path) -> str:
    """The same for names that are one file somewhere: in other letter case, or with accents written otherwise."""
    return unicodedata.normalize("NFC", str(name)).casefold()


def _identify(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:  # nothing is there
        return None
    return status.st_dev, status.st_ino


class _ContactSheet:
    """The first pictures beside all of their results."""

    def __init__(self, samples: int) -> None:
        self.title, self.levels = "", 256
        self.given: list[Tensor] = []
        self.drawn: list[list[Tensor]] = [[] for _ in range(samples)]

    def add(self, title: str, given: Tensor, levels: int, results: Sequence[Tensor]) -> None:
        if len(self.given) < SHEET_PICTURES:
            self.title, self.levels = title, levels
            self.given.append(given)
            for images, x in zip(self.drawn, results, strict=True):
                images.append(x)

    def save(self, path: Path | None) -> None:
        if self.given and path is not None:
            strips = [(f"result {i}", images, 256) for i, images in enumerate(self.drawn, 1)]
            save_picture(sheet([(self.title, self.given, self.levels), *strips]), path)


def draw_alternatives(
    pictures: Iterable[Picture],
    draw: Draw,
    results: Results,
    *,
    seeds: Sequence[int],
    batch_size: int,
    done: Callable[[Path, bool], None],
) -> None:
    """Draw an image for each picture and seed, and write them.

    Pictures of the same size that follow one another are drawn together. That changes their results by rounding alone.
    Where memory is too small for a batch, it is halved. After an interruption by Ctrl-C what was finished is written,
    and the exception goes on.

    Args:
        pictures: what to draw from.
        draw: draws a batch.
        results: where they go.
        seeds: those of the alternatives, the same for every picture.
        batch_size: images drawn at once, at most.
        done: is called with the file of each result, and whether it is its picture's last.
    """
    contact_sheet, row = _ContactSheet(len(seeds)), []
    try:
        for batch in _batches(pictures, len(seeds), batch_size):
            for (picture, i), (title, shown, levels), x in _draw_batch(draw, batch, seeds):
                file = results.files[picture.origin][i]
                write_picture(to_picture(x, 256), file)
                row.append(x)
                if last := len(row) == len(seeds):
                    contact_sheet.add(title, shown[0], levels, row)
                    row = []
                done(file, last)
    finally:
        contact_sheet.save(results.sheet)


def _batches(pictures: Iterable[Picture], samples: int, batch_size: int) -> Iterator[list[Job]]:
    batch: list[Job] = []
    try:
        for picture in pictures:
            for i in range(samples):
                if batch and (len(batch) == batch_size or batch[0][0].x.shape != picture.x.shape):
                    yield batch
                    batch = []
                batch.append((picture, i))
    except ValueError:  # a picture that cannot be read: those before it can be drawn
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _draw_batch(draw: Draw, batch: list[Job], seeds: Sequence[int]) -> Iterator[tuple[Job, Strip, Tensor]]:
    """For each job of a batch what to show beside its result, and this."""
    names = list(dict.fromkeys(printable(picture.origin.name) for picture, _ in batch))
    title = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    try:
        (text, shown, levels), drawn = draw(
            stack([picture.x for picture, _ in batch]), [seeds[i] for _, i in batch], title
        )
    except MemoryError:
        if len(batch) == 1:
            raise
    else:
        for job, given, x in zip(batch, shown, drawn, strict=True):
            yield job, (text, [given], levels), x
        return
    for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
        yield from _draw_batch(draw, half, seeds)


def score_pictures(
    model: ImageModel, pictures: Iterable[Picture], heat_maps: Results | None = None, *, progress: bool = False
) -> Iterator[tuple[str, list[float]]]:
    """For each picture its name and its bits per dimension, the total first and then the factors.

    Args:
        model: any model.
        pictures: of the model's channels.
        heat_maps: where to put a picture of each one's views beside the bits of each of their pixels.
        progress: show a progress bar for each picture that takes longer than two seconds.
    """
    for picture in pictures:
        x, name = picture.x[None], str(picture.origin.name)
        with late_bar(f"scoring {printable(name)}", visible=progress) as show:
            maps = surprise(model, x, callback=show)
        bits = [float(each.double().sum()) / x.numel() for each in maps]
        if heat_maps is not None:
            (file,) = heat_maps.files[picture.origin]
            write_picture(_draw_heat_maps(model, x, maps), file)
        yield name, [sum(bits), *bits]


def _draw_heat_maps(model: ImageModel, x: Tensor, maps: Sequence[Tensor]) -> Image.Image:
    strips = []
    for view, each, (channels, levels) in zip(model.views(x), maps, model.formats, strict=True):
        costs = each[0] / channels
        size = f"{view.shape[3]}x{view.shape[2]}"
        most = max(float(costs.max()), 1e-9)
        title = f"{size}: surprise from 0 (black) to {most:.1f} bits a sub-pixel"
        stretched = (view[0].long() * 255 // (levels - 1)).expand(3, -1, -1)
        strips.append((title, [stretched, heat_map(costs, most)], 256))
    return sheet(strips, height=256)


def write_picture(picture: Image.Image, out: Path) -> None:
    """Write a PNG file, or to standard output for "-"."""
    if str(out) == PIPE:
        sys.stdout.buffer.write(to_png(picture))
        sys.stdout.buffer.flush()
    else:
        save_picture(picture, out)
