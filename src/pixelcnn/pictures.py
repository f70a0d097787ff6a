"""Pictures from and to where people have them: files, folders, standard input and output.

What a model does with one picture, `draw_alternatives` does with all of them: it keeps their names, writes every result
as soon as it is there, and a contact sheet of all beside what they were drawn from.
"""

__all__ = ["Picture", "check_out", "draw_alternatives", "read_mask", "read_pictures", "score_pictures"]

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pixelcnn.data import Preparation, visible_files
from pixelcnn.evaluation import surprise
from pixelcnn.figures import Strip, heat_map, save_picture, sheet, to_picture, to_png
from pixelcnn.models import ImageModel
from pixelcnn.progress import late_bar

PIPE = "-"  # standard input or output
SHEET = "contact-sheet.png"
SHEET_PICTURES = 12  # that the contact sheet shows at most


@dataclass(frozen=True)
class Picture:
    """A picture as an image.

    Attributes:
        name: the file's, below its folder.
        x: integers (C, H, W) in [0, 256).
        note: how it had to be converted; None where it had not.
    """

    name: Path
    x: Tensor
    note: str | None = None


def read_pictures(source: str, channels: int) -> Iterator[Picture]:
    """Pictures as images of so many channels, from a file, a folder of files, or standard input for "-".

    Raises:
        ValueError: where there is no picture, or one cannot be read.
    """
    if source == PIPE:
        yield _decode(sys.stdin.buffer.read(), Path("stdin"), channels)
        return
    path = Path(source).expanduser()
    if not path.exists():
        raise ValueError(f"{source!r}: no such file or folder; name a picture, a folder of pictures, or - for stdin")
    files = [path] if path.is_file() else visible_files(path, "**/*")
    if not files:
        raise ValueError(f"{source!r} is an empty folder: put pictures into it, or name another")
    folder = path.parent if path.is_file() else path
    for file in files:
        yield _decode(file.read_bytes(), file.relative_to(folder), channels)


def _decode(content: bytes, name: Path, channels: int) -> Picture:
    pixels = Preparation(channels, None, None)({"bytes": content, "path": str(name)}, 0)
    with Image.open(io.BytesIO(content)) as file:
        grey, alpha = file.mode in ("1", "L", "LA"), file.has_transparency_data
    notes = ["its transparency is left out"] if alpha else []
    if grey and channels == 3:
        notes.append("it is grey, and taken as colour with equal channels")
    if not grey and channels == 1:
        notes.append("it is taken as grey, its luma")
    x = torch.tensor(pixels).permute(2, 0, 1).contiguous()
    return Picture(name, x, f"{name}: {', '.join(notes)}" if notes else None)


def check_out(out: Path, overwrite: bool) -> None:
    """A ValueError where writing there would replace something."""
    if str(out) != PIPE and out.exists() and not overwrite and (out.is_file() or any(out.iterdir())):
        raise ValueError(f"{str(out)!r} is there already: use --overwrite, or another --out")


def read_mask(mask: Path | None, box: tuple[int, int, int, int] | None, size: tuple[int, int]) -> Tensor:
    """Where pixels are unknown, bool (H, W): where a picture is white, or in a box (left, top, right, bottom).

    Raises:
        ValueError: for a mask of another size, or a box that is not within the picture.
    """
    H, W = size
    if mask is not None:
        (picture,) = read_pictures(str(mask), 1)
        if picture.x.shape[1:] != size:
            h, w = picture.x.shape[1:]
            raise ValueError(f"the mask {str(mask)!r} is {w}x{h}, and the picture {W}x{H}: make them alike")
        return picture.x[0] > 127
    left, top, right, bottom = box or (0, 0, W, H)
    if not (0 <= left < right <= W and 0 <= top < bottom <= H):
        raise ValueError(f"--box {left} {top} {right} {bottom}: use left < right <= {W} and top < bottom <= {H}")
    unknown = torch.zeros(size, dtype=torch.bool)
    unknown[top:bottom, left:right] = True
    return unknown


def draw_alternatives(
    pictures: Iterator[Picture],
    draw: Callable[[Tensor], tuple[Strip, Tensor]],
    out: Path,
    samples: int,
    done: Callable[[str], None],
) -> None:
    """Draw `samples` images for each picture, and write them.

    After an interruption by Ctrl-C what was finished is written, and the exception goes on.

    Args:
        pictures: what to draw from.
        draw: from (samples, C, H, W), all the same, to what to show beside the results, and these (samples, C, H, W).
        out: a folder, where results keep the names of their pictures; a .png file, or "-" for standard output, for a
            single result.
        done: is called with the name of each picture whose results are written.

    Raises:
        ValueError: where there are several results for one file.
    """
    single = str(out) == PIPE or out.suffix.lower() == ".png"
    if single and samples > 1:
        raise ValueError(f"{str(out)!r} holds one image, and there are {samples} for each picture: name a folder")
    taken: set[Path] = set()
    given: list[Tensor] = []
    drawn: list[list[Tensor]] = [[] for _ in range(samples)]
    title, levels = "", 256
    try:
        for picture in pictures:
            if single and given:
                raise ValueError(f"{str(out)!r} holds one image, and there are several pictures: name a folder")
            (title, shown, levels), results = draw(picture.x.expand(samples, -1, -1, -1))
            for i, x in enumerate(results):
                _write(x, out if single else out / _result_name(picture.name, i, samples, taken))
            taken.add(picture.name.with_suffix(""))
            if len(given) < SHEET_PICTURES:
                given.append(shown[0])
                for images, x in zip(drawn, results, strict=True):
                    images.append(x)
            done(str(picture.name))
    finally:
        if given and not single:
            results = [(f"result {i}", images, 256) for i, images in enumerate(drawn, 1)]
            save_picture(sheet([(title, given, levels), *results]), out / SHEET)


def score_pictures(
    model: ImageModel, pictures: Iterator[Picture], heat_maps: Path | None = None, *, progress: bool = False
) -> Iterator[tuple[str, list[float]]]:
    """For each picture its name and its bits per dimension, the total first and then the factors.

    Args:
        model: any model.
        pictures: of the model's channels.
        heat_maps: folder for a picture of each one's views beside the bits of each of their pixels.
        progress: show a progress bar for each picture that takes longer than two seconds.
    """
    for picture in pictures:
        x = picture.x[None]
        with late_bar(f"scoring {picture.name}", visible=progress) as show:
            maps = surprise(model, x, callback=show)
        bits = [float(each.double().sum()) / x.numel() for each in maps]
        if heat_maps is not None:
            strips = []
            for view, each, (channels, levels) in zip(model.views(x), maps, model.formats, strict=True):
                costs = each[0] / channels
                size = f"{view.shape[3]}x{view.shape[2]}"
                most = max(float(costs.max()), 1e-9)
                title = f"{size}: surprise from 0 (black) to {most:.1f} bits a sub-pixel"
                stretched = (view[0].long() * 255 // (levels - 1)).expand(3, -1, -1)
                strips.append((title, [stretched, heat_map(costs, most)], 256))
            save_picture(sheet(strips, height=256), heat_maps / picture.name.with_suffix(".png"))
        yield str(picture.name), [sum(bits), *bits]


def _result_name(name: Path, i: int, samples: int, taken: set[Path]) -> Path:
    """The name of a picture, as PNG; with its old ending where another picture has the same name but for that."""
    stem = name.name if name.with_suffix("") in taken else name.stem
    return name.with_name(f"{stem}-{i + 1}.png" if samples > 1 else f"{stem}.png")


def _write(x: Tensor, path: Path) -> None:
    if str(path) == PIPE:
        sys.stdout.buffer.write(to_png(to_picture(x, 256)))
        sys.stdout.buffer.flush()
    else:
        save_picture(to_picture(x, 256), path)
