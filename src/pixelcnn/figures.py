"""Pictures of integer images, charts as SVG, and reports as one HTML page that needs no other file and no network.

A picture has every pixel of its image, enlarged by whole factors and never interpolated. Charts need matplotlib, which
is slow to import, so they alone import it.
"""

__all__ = [
    "Chart", "Code", "Drawing", "Gallery", "Part", "Section", "Strip", "Table", "bars", "curves", "heat_map", "page",
    "save_picture", "sheet", "to_picture", "to_png",
]  # fmt: skip

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pixelcnn.checkpoint import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Strip = tuple[str, Sequence[Tensor] | Tensor, int]
"""A row of images, as its title, integers (n, C, H, W) or images (C, H, W) of several sizes, and their levels."""

GAP, MARGIN, FONT_SIZE = 2, 8, 14
PAPER, INK = (238, 238, 238), (34, 34, 34)
# Of Okabe and Ito: the colour-blind can tell them apart, on light and on dark pages.
COLOURS, MARKERS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"), "os^Dv*"
PAGE_INK = "#010203"  # stands for the colour of the page's text, for which matplotlib has no name
INKS = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), PAGE_INK)
CHART_STYLE: dict[Any, Any] = INKS | {
    "svg.fonttype": "none",
    "svg.hashsalt": "pixelcnn",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def to_picture(x: Tensor, levels: int) -> Image.Image:
    """One image (C, H, W) of integers in [0, levels) as an 8-bit picture, the levels stretched to 0 to 255.

    Raises:
        ValueError: for values that are out of range, which would wrap.
    """
    if x.numel() and not (int(x.min()) >= 0 and int(x.max()) < levels):
        raise ValueError(f"an image with values from {int(x.min())} to {int(x.max())}: use integers in [0, {levels})")
    stretched = (x.cpu().long() * 255 + (levels - 1) // 2) // (levels - 1)
    pixels = stretched.byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def heat_map(values: Tensor, most: float) -> Tensor:
    """Numbers (H, W) from 0 to `most` as an image (3, H, W) of 256 levels: from black over red to pale yellow."""
    from matplotlib import colormaps

    shares = (values.cpu().double() / most).clamp(0, 1).numpy()
    return torch.from_numpy(colormaps["magma"](shares, bytes=True)[:, :, :3].copy()).permute(2, 0, 1)


def to_png(picture: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG file as one step; its folder is made if need be.

    Raises:
        ValueError: for a file that is not called as what it is.
    """
    if path.suffix.lower() != ".png":
        raise ValueError(f"{str(path)!r}: pictures are written as PNG, without loss; name a .png file")
    write_atomically(path, to_png(picture))


def sheet(strips: Sequence[Strip], *, height: int = 96) -> Image.Image:
    """A contact sheet: each strip a titled row, and image i of every strip in column i.

    Args:
        strips: the rows, from top to bottom.
        height: pixels to which the largest images are enlarged at most. The others are enlarged to the same size, or
            as near to it as a whole factor comes, and stand in the middle of their place.
    """
    largest = max(max(x.shape[-2:]) for _, images, _ in strips for x in images)
    side = largest * max(1, height // largest)
    rows = [[_enlarge(to_picture(x, levels), side) for x in images] for _, images, levels in strips]
    W, H = (max(picture.size[i] for row in rows for picture in row) for i in range(2))
    font = ImageFont.load_default(FONT_SIZE)
    line = FONT_SIZE + MARGIN
    widths = [len(row) * (W + GAP) - GAP for row in rows] + [int(font.getlength(title)) for title, _, _ in strips]
    paper = Image.new("RGB", (max(widths) + 2 * MARGIN, len(rows) * (line + H + MARGIN) + MARGIN), PAPER)
    for i, ((title, _, _), row) in enumerate(zip(strips, rows, strict=True)):
        top = MARGIN + i * (line + H + MARGIN)
        ImageDraw.Draw(paper).text((MARGIN, top), title, INK, font)
        for j, picture in enumerate(row):
            left = MARGIN + j * (W + GAP)
            paper.paste(picture, (left + (W - picture.width) // 2, top + line + (H - picture.height) // 2))
    return paper


def _enlarge(picture: Image.Image, side: int) -> Image.Image:
    factor = max(1, side // max(picture.size))
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)


class Drawing(NamedTuple):
    """A chart, in the colour of a page's text and as a file of its own."""

    svg: str
    png: bytes


def curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Drawing:
    """Bits per dimension over minutes of training.

    Args:
        histories: for each line its name and its points with `seconds` and `bits_per_dim`, as in `history.jsonl`.
    """

    def draw(axes: "Axes") -> None:
        for i, (name, points) in enumerate(histories.items()):
            minutes, bits = [p["seconds"] / 60 for p in points], [p["bits_per_dim"] for p in points]
            look = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 4}
            axes.plot(minutes, bits, label=name, markevery=max(1, len(points) // 12), **look)
        axes.set(xlabel="minutes of training, for each factor", ylabel="bits per dimension")
        axes.set(xlim=(0, None), ylim=(0, None))
        axes.grid(axis="y", alpha=0.2)
        axes.legend()

    return _draw_chart(draw, 3.0, f"Lines of bits per dimension over minutes: {', '.join(histories)}")


def bars(
    values: Mapping[str, float], label: str = "bits per dimension", *, digits: int = 2, log: bool = False
) -> Drawing:
    """A horizontal bar for each name, the first on top.

    Args:
        values: above 0.
        label: what they are.
        digits: after the point.
        log: for values of several orders of magnitude.
    """

    def draw(axes: "Axes") -> None:
        drawn = axes.barh(list(values), list(values.values()), 0.7, color=COLOURS[0], log=log)
        axes.bar_label(drawn, fmt=f"%.{digits}f", padding=4)
        least, most = min(values.values()), max(values.values())
        axes.set(xlabel=label, xlim=(least / 3, 5 * most) if log else (0, 1.15 * most))
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)

    figures = ", ".join(f"{name} {value:.{digits}f}" for name, value in values.items())
    return _draw_chart(draw, 0.8 + 0.32 * len(values), f"Bars of {label}: {figures}")


def _draw_chart(draw: Callable[["Axes"], None], height: float, description: str) -> Drawing:
    """A chart of so many inches in the colour and font of the page's text; narrow, so that phones show it readably."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    file, png = io.StringIO(), io.BytesIO()
    with rc_context(CHART_STYLE):
        figure = Figure(figsize=(5.2, height), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"])
        )
        figure.savefig(png, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(PAGE_INK, "currentColor")
    svg = re.sub(r' id="[a-z]+_\d+"', "", svg)  # they are the same in every chart of a page
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
    return Drawing(svg, png.getvalue())


@dataclass(frozen=True)
class Table:
    """Rows of text below a header; the first entry of a row names it."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str

    def html(self) -> str:
        header = "".join(f'<th scope="col">{_to_html(entry)}</th>' for entry in self.header)
        rows = "\n".join(self._row(*row) for row in self.rows)
        table = f"<caption>{_to_html(self.caption)}</caption>\n<thead><tr>{header}</tr></thead>\n<tbody>{rows}</tbody>"
        return f'<div class="wide"><table>{table}</table></div>'

    def _row(self, name: str, *entries: str) -> str:
        return f'<tr><th scope="row">{_to_html(name)}</th>{"".join(f"<td>{_to_html(e)}</td>" for e in entries)}</tr>'


@dataclass(frozen=True)
class Gallery:
    """Strips as a grid of pictures that the page enlarges to one size, image i of every strip in column i."""

    strips: Sequence[Strip]
    caption: str

    def html(self) -> str:
        rows = "\n".join(self._row(*strip) for strip in self.strips)
        columns = max(len(images) for _, images, _ in self.strips)
        return _figure(f'<div class="gallery" style="--columns: {columns}">\n{rows}\n</div>', self.caption)

    def _row(self, title: str, images: Sequence[Tensor] | Tensor, levels: int) -> str:
        pictures = [_img(to_picture(x, levels), f"{title}, {i} of {len(images)}") for i, x in enumerate(images, 1)]
        return f"<p>{_to_html(title)}</p>\n<div>{''.join(pictures)}</div>"


@dataclass(frozen=True)
class Chart:
    """What `curves` or `bars` drew."""

    drawing: Drawing
    caption: str

    def html(self) -> str:
        return _figure(self.drawing.svg, self.caption)


@dataclass(frozen=True)
class Code:
    """Formulas or commands, line by line."""

    text: str

    def html(self) -> str:
        return f"<pre><code>{escape(self.text)}</code></pre>"


Part = str | Table | Gallery | Chart | Code
"""What a report is made of. A string is a paragraph, in which `code` and https addresses are marked up."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    parts: Sequence[Part]

    def html(self) -> str:
        parts = [f"<p>{_to_html(part)}</p>" if isinstance(part, str) else part.html() for part in self.parts]
        return "\n".join(["<section>", f"<h2>{escape(self.title)}</h2>", *parts, "</section>"])


def page(title: str, sections: Sequence[Section]) -> str:
    """One HTML page that holds all that it shows: it loads nothing, and its policy forbids it to."""
    body = "\n".join(section.html() for section in sections)
    return PAGE.format(title=escape(title), style=STYLE, body=body)


def _to_html(text: str) -> str:
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(r'https://[^\s<>"]*[\w/]', r'<a href="\g<0>">\g<0></a>', marked)


def _figure(content: str, caption: str) -> str:
    return f"<figure>{content}<figcaption>{_to_html(caption)}</figcaption></figure>"


def _img(picture: Image.Image, description: str) -> str:
    data = base64.b64encode(to_png(picture)).decode()
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<img src="data:image/png;base64,{data}" alt="{escape(description)}" {size}>'


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fdfdfc; --soft: #5c6370; --line: #d8dade; --link: #0b62a8 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e5e8; --paper: #16181b; --soft: #9aa1ac; --line: #3a3e45; --link: #6cb6f0 }
}
body { margin: 0 auto; padding: 1rem; max-width: 46rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem }
a { color: var(--link); overflow-wrap: anywhere }
code { font: .9em ui-monospace, monospace }
.wide { overflow-x: auto }
pre { padding: .75rem 1rem; border: 1px solid var(--line); border-radius: .4rem;
  white-space: pre-wrap; overflow-wrap: anywhere }
figure { margin: 1.5rem 0 }
figcaption, caption { color: var(--soft); font-size: .9rem; text-align: left; padding: .4rem 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem 0 .3rem 1rem; border-bottom: 1px solid var(--line); text-align: right }
th:first-child { padding-left: 0; text-align: left; font-weight: normal }
svg { max-width: 100%; height: auto }
svg text { font-family: inherit !important }
.gallery { max-width: calc(8rem * var(--columns)) }
.gallery p { margin: .6rem 0 .2rem; font-size: .9rem }
.gallery div { display: grid; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); gap: 3px }
img { display: block; width: 100%; height: auto; image-rendering: pixelated }
"""
