"""HTML pages made of sections, each page a single file."""

__all__ = ["Chart", "Code", "Gallery", "Part", "Section", "Table", "page"]

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image
from torch import Tensor

from pixelcnn.pictures.charts import Drawing
from pixelcnn.pictures.sheets import Strip, to_picture, to_png


@dataclass(frozen=True)
class Table:
    """Rows of text below a header; the first entry of each row is its name."""

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
    """A grid of pictures that the page enlarges to one size, with image i of every strip in column i."""

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
    """A chart that `curves` or `bars` drew."""

    drawing: Drawing
    caption: str

    def html(self) -> str:
        return _figure(self.drawing.svg, self.caption)


@dataclass(frozen=True)
class Code:
    """Lines of formulas or commands."""

    text: str

    def html(self) -> str:
        return f"<pre><code>{escape(self.text)}</code></pre>"


Part = str | Table | Gallery | Chart | Code
"""An element of a section. A string is a paragraph, in which `code` and https addresses are marked up."""


@dataclass(frozen=True)
class Section:
    """A heading and the parts below it."""

    title: str
    parts: Sequence[Part]

    def html(self) -> str:
        parts = [f"<p>{_to_html(part)}</p>" if isinstance(part, str) else part.html() for part in self.parts]
        return "\n".join(["<section>", f"<h2>{escape(self.title)}</h2>", *parts, "</section>"])


def page(title: str, sections: Sequence[Section]) -> str:
    """Make an HTML page that contains everything it shows; its content policy forbids it to load anything else."""
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
