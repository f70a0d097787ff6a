"""Images as picture files, and contact sheets of them."""

__all__ = ["Strip", "color_map", "heat_map", "save_picture", "sheet", "to_picture", "to_png"]

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pixelcnn.common.files import write_atomically
from pixelcnn.data.given import to_picture

Strip = tuple[str, Sequence[Tensor] | Tensor, int]
"""A row of images, as a title, integers (n, C, H, W) or a list of images (C, H, W), and the number of levels."""
GAP, MARGIN, FONT_SIZE = 2, 8, 14
STEPS = 256  # colors of a heat map
PAPER, INK = (238, 238, 238), (34, 34, 34)


def color_map() -> np.ndarray:
    """Return the colors of heat maps, from black through red to pale yellow: uint8 (256, 3)."""
    from matplotlib import colormaps

    return colormaps["magma"](np.arange(STEPS), bytes=True)[:, :3]


def heat_map(values: Tensor, most: float) -> Tensor:
    """Color numbers (H, W) from 0 to `most` from black through red to pale yellow: an image (3, H, W) of 256 levels."""
    steps = (values.cpu().double() / most).clamp(0, 1).mul(STEPS).long().clamp_max(STEPS - 1)
    return torch.from_numpy(color_map())[steps].permute(2, 0, 1)


def to_png(picture: Image.Image) -> bytes:
    """Encode a picture as the bytes of a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG file in one step, making its folder if needed.

    Raises:
        ValueError: if the name does not end in .png.
    """
    if path.suffix.lower() != ".png":
        raise ValueError(f"{str(path)!r}: pictures are saved as lossless PNG; name a .png file")
    write_atomically(path, to_png(picture))


def sheet(strips: Sequence[Strip], *, height: int = 96) -> Image.Image:
    """Make a contact sheet: each strip is a row with a title, and image i of every strip is in column i.

    Args:
        strips: the rows, from top to bottom. An empty title takes no room.
        height: largest side, in pixels, to which images are enlarged. Smaller images are enlarged to the size of the
            largest, or as close as a whole factor gets, and centered in their cell.
    """
    largest = max(max(x.shape[-2:]) for _, images, _ in strips for x in images)
    side = largest * max(1, height // largest)
    rows = [[_enlarge(to_picture(x, levels), side) for x in images] for _, images, levels in strips]
    W, H = (max(picture.size[i] for row in rows for picture in row) for i in range(2))
    font = ImageFont.load_default(FONT_SIZE)
    widths = [len(row) * (W + GAP) - GAP for row in rows] + [int(font.getlength(title)) for title, _, _ in strips]
    lines = [FONT_SIZE + MARGIN if title else 0 for title, _, _ in strips]
    gaps = [MARGIN if title else GAP for title, _, _ in [*strips[1:], ("-", [], 0)]]  # below each row
    paper = Image.new("RGB", (max(widths) + 2 * MARGIN, MARGIN + sum(lines) + len(rows) * H + sum(gaps)), PAPER)
    top = MARGIN
    for (title, _, _), row, line, gap in zip(strips, rows, lines, gaps, strict=True):
        ImageDraw.Draw(paper).text((MARGIN, top), title, INK, font)
        for j, picture in enumerate(row):
            left = MARGIN + j * (W + GAP)
            paper.paste(picture, (left + (W - picture.width) // 2, top + line + (H - picture.height) // 2))
        top += line + H + gap
    return paper


def _enlarge(picture: Image.Image, side: int) -> Image.Image:
    factor = max(1, side // max(picture.size))
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)
