"""Pictures of integer images, charts as SVG, and reports as one HTML page that needs no other file and no network.

Everything here shows what it is given: a sheet has every pixel of its images, enlarged by whole factors and never
interpolated. Only the charts need matplotlib, which is slow to import and so imported by them alone.

The colours are those of Okabe and Ito, which the colour-blind can tell apart, on light and on dark pages
(https://jfly.uni-koeln.de/color/).
"""

__all__ = ["Chart", "Code", "Gallery", "Part", "Picture", "Section", "Strip", "Table", "bars", "curves", "report", "sheet",
           "to_picture"]

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Strip = tuple[str, Tensor, int]
"""A row of images: its title, integers (n, C, H, W), and their levels."""

GAP, MARGIN, FONT_SIZE = 2, 8, 14
PAPER, INK = (238, 238, 238), (34, 34, 34)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "os^Dv*"
TEXT_COLOUR = "#010203"  # stands for the colour of the page's text, which matplotlib has no name for
CHART_STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "pixelcnn", "font.size": 10, "text.color": TEXT_COLOUR,
    "axes.labelcolor": TEXT_COLOUR, "axes.edgecolor": TEXT_COLOUR, "xtick.color": TEXT_COLOUR,
    "ytick.color": TEXT_COLOUR, "axes.spines.top": False, "axes.spines.right": False, "grid.alpha": 0.2,
    "legend.frameon": False,
}  # fmt: skip


def to_picture(x: Tensor, levels: int) -> Image.Image:
    """One image (C, H, W) of integers in [0, levels) as an 8-bit picture, the levels stretched to 0 to 255."""
    stretched = (x.cpu().long() * 255 + (levels - 1) // 2) // (levels - 1)
    pixels = stretched.byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def sheet(strips: Sequence[Strip], *, height: int = 96) -> Image.Image:
    """A contact sheet: each strip a titled row, and image i of every strip in column i.

    Args:
        strips: the rows, from top to bottom.
        height: pixels to which the largest images are enlarged at most. The others are enlarged to the same size, or
            as near as a whole factor comes, and stand in the middle of their place.
    """
    largest = max(max(images.shape[-2:]) for _, images, _ in strips)
    side = largest * max(1, height // largest)
    rows = [[_enlarge(to_picture(x, levels), side) for x in images] for _, images, levels in strips]
    W, H = (max(picture.size[i] for row in rows for picture in row) for i in range(2))
    font = ImageFont.load_default(FONT_SIZE)
    line = FONT_SIZE + MARGIN
    widest = max(max(len(row) * (W + GAP) - GAP for row in rows), *(int(font.getlength(title)) for title, _, _ in strips))
    paper = Image.new("RGB", (widest + 2 * MARGIN, len(rows) * (line + H + MARGIN) + MARGIN), PAPER)
    draw = ImageDraw.Draw(paper)
    for i, ((title, _, _), row) in enumerate(zip(strips, rows, strict=True)):
        top = MARGIN + i * (line + H + MARGIN)
        draw.text((MARGIN, top), title, INK, font)
        for j, picture in enumerate(row):
            left = MARGIN + j * (W + GAP)
            paper.paste(picture, (left + (W - picture.width) // 2, top + line + (H - picture.height) // 2))
    return paper


def _enlarge(picture: Image.Image, side: int) -> Image.Image:
    factor = max(1, side // max(picture.size))
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)


def curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Bits per dimension over minutes of training, as SVG.

    Args:
        histories: for each line its name and points with `seconds` and `bits_per_dim`: the lines of `history.jsonl`.
    """
    figure, axes = _chart(3.0)
    for i, (name, points) in enumerate(histories.items()):
        minutes, bits = [p["seconds"] / 60 for p in points], [p["bits_per_dim"] for p in points]
        axes.plot(minutes, bits, color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], markersize=4,
                  markevery=max(1, len(points) // 12), label=name)
    axes.set(xlabel="training of the factor [minutes]", ylabel="bits per dimension", xlim=(0, None), ylim=(0, None))
    axes.grid(axis="y")
    if histories:
        axes.legend()
    return _svg(figure, f"Line chart of bits per dimension over minutes: {', '.join(histories)}")


def bars(values: Mapping[str, float]) -> str:
    """Bits per dimension as one horizontal bar for each name, the first on top, as SVG."""
    figure, axes = _chart(0.8 + 0.32 * len(values))
    axes.bar_label(axes.barh(list(values), list(values.values()), 0.7, color=COLOURS[0]), fmt="%.2f", padding=4)
    axes.set(xlabel="bits per dimension", xlim=(0, 1.15 * max(values.values())))
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    return _svg(figure, "Bar chart of bits per dimension: " + ", ".join(f"{k} {v:.2f}" for k, v in values.items()))
