"""Figures: pictures keep every pixel, charts show every value, and pages are self-contained."""

import base64
import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from pixelcnn.pictures.charts import bars, curves
from pixelcnn.pictures.page import Chart, Code, Gallery, Section, Table, page
from pixelcnn.pictures.sheets import FONT_SIZE, GAP, MARGIN, PAPER, sheet, to_picture

SVG = "{http://www.w3.org/2000/svg}"
NASTY = "<script>alert('&')</script> \"quoted\""


def integers(*shape: int, levels: int = 256, seed: int = 0) -> Tensor:
    return torch.randint(levels, shape, generator=torch.Generator().manual_seed(seed))


def pixels(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


class Page(HTMLParser):
    """The elements of a page and the text inside each kind; fails if an element is not closed."""

    VOID = ("meta", "img")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", " ".join(data.split())))

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, *tags: str) -> list[str]:
        return [text for tag, text in self.texts if tag in tags]


def assert_self_contained(html: str) -> None:
    """Check that the page loads nothing: no script, style sheet, font, frame, or picture other than data."""
    page = Page(html)
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "srcset", "poster", "data", "background", "action"):
                assert (value or "").startswith("data:image/png;base64,")
            if name in ("href", "xlink:href") and tag != "a":
                assert (value or "").startswith("#")
    for address in re.findall(r"url\(([^)]*)\)|@import", html):
        assert address.strip("'\"").startswith("#")


def decoded(attributes: dict[str, str | None]) -> Image.Image:
    """Decode the picture of an `img` element, which must have the size that the element states."""
    data = (attributes["src"] or "").removeprefix("data:image/png;base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    assert picture.format == "PNG"
    assert picture.size == (int(attributes["width"] or 0), int(attributes["height"] or 0))
    picture.load()
    return picture


@settings(deadline=None, max_examples=40)
@given(C=st.sampled_from([1, 3]), H=st.integers(1, 9), W=st.integers(1, 9), levels=st.integers(2, 300), data=st.data())
def test_a_picture_stretches_the_levels_to_8_bits(C, H, W, levels, data):
    x = integers(C, H, W, levels=levels, seed=data.draw(st.integers(0, 9)))
    picture = to_picture(x, levels)
    assert picture.mode == ("L" if C == 1 else "RGB")
    assert picture.size == (W, H)
    expected = (x.double() * 255 / (levels - 1)).expand(3, H, W)
    assert (pixels(picture) - expected).abs().max() <= 0.5
    if levels == 256:
        assert torch.equal(pixels(picture), x.byte().expand(3, H, W))


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=3),
    n=st.integers(1, 3), height=st.integers(1, 130), title=st.text(st.characters(codec="latin-1"), max_size=60),
)  # fmt: skip
def test_a_sheet_enlarges_every_pixel_by_a_whole_factor(sizes, n, height, title):
    strips = [(title, integers(n, 3, H, W, seed=i), 256) for i, (H, W) in enumerate(sizes)]
    picture = sheet(strips, height=height)
    largest = max(max(size) for size in sizes)
    factors = [max(1, largest * max(1, height // largest) // max(size)) for size in sizes]
    cell_H = max(H * factor for (H, _), factor in zip(sizes, factors, strict=True))
    cell_W = max(W * factor for (_, W), factor in zip(sizes, factors, strict=True))
    found = pixels(picture)
    line, gap = (FONT_SIZE + MARGIN, MARGIN) if title else (0, GAP)  # an empty title takes no room
    for i, ((_, images, _), (H, W), factor) in enumerate(zip(strips, sizes, factors, strict=True)):
        top = MARGIN + line + i * (line + cell_H + gap) + (cell_H - H * factor) // 2
        for j, x in enumerate(images):
            left = MARGIN + j * (cell_W + GAP) + (cell_W - W * factor) // 2
            enlarged = x.byte().repeat_interleave(factor, 1).repeat_interleave(factor, 2)
            assert torch.equal(found[:, top : top + H * factor, left : left + W * factor], enlarged)
    assert cell_H <= max(height, largest)


def test_views_of_one_image_share_a_column_at_one_size():
    views = [("8x8", integers(2, 3, 8, 8), 256), ("16x16 gray", integers(2, 1, 16, 16, levels=16), 16),
             ("32x32", integers(2, 3, 32, 32), 256)]  # fmt: skip
    found = pixels(sheet(views, height=96))
    assert found.shape == (3, MARGIN + 3 * (FONT_SIZE + 2 * MARGIN + 96), 2 * MARGIN + 2 * 96 + GAP)
    gap = found[:, :, MARGIN + 96 : MARGIN + 96 + GAP]
    below_titles = gap[:, MARGIN + FONT_SIZE + MARGIN : MARGIN + FONT_SIZE + MARGIN + 96]
    assert torch.equal(below_titles, torch.tensor(PAPER, dtype=torch.uint8)[:, None, None].expand(3, 96, GAP))


def test_a_sheet_is_as_wide_as_its_longest_title():
    narrow = sheet([("a", integers(1, 3, 8, 8), 256)], height=8)
    wide = sheet([("a title that is longer than the images below it are wide", integers(1, 3, 8, 8), 256)], height=8)
    assert wide.width > narrow.width
    right = pixels(wide)[:, :, -MARGIN:]
    assert torch.equal(right, torch.tensor(PAPER, dtype=torch.uint8)[:, None, None].expand_as(right))


def test_curves_have_a_line_for_each_factor_and_axes_with_units():
    points = [{"step": 10 * i, "seconds": 30.0 * i, "bits_per_dim": 5 - i, "images_per_second": 9.0} for i in range(4)]
    svg = curves({"factor 0, 32x32": points, "factor 1 <&>": points[:1]}).svg
    root = ET.fromstring(svg)
    texts = {element.text for element in root.iter(f"{SVG}text")}
    assert {"factor 0, 32x32", "factor 1 <&>", "bits per dimension"} <= texts
    assert any("minutes" in (text or "") for text in texts)
    assert root.get("role") == "img"
    assert "factor 1 <&>" in (root.get("aria-label") or "")


def test_bars_say_their_values():
    values = {"before training": 8.125, "after training": 6.5, "PNG": 6.126}
    root = ET.fromstring(bars(values).svg)
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"before training", "after training", "PNG", "8.12", "6.50", "6.13", "bits per dimension"} <= set(texts)


@pytest.mark.parametrize("svg", [curves({"a": [{"seconds": 1, "bits_per_dim": 2}]}).svg, bars({"a": 1.0}).svg])
def test_charts_use_the_text_color_of_the_page_and_load_nothing(svg):
    assert "currentColor" in svg
    assert "#000000" not in svg
    assert svg.startswith("<svg")
    assert svg.rstrip().endswith("</svg>")
    assert_self_contained(svg)


def test_charts_are_the_same_every_time():
    assert bars({"a": 1.0, "b": 2.0}) == bars({"a": 1.0, "b": 2.0})


def example() -> str:
    strips = [("gray view", integers(2, 1, 4, 5, levels=16), 16), (NASTY, integers(2, 3, 8, 10), 256)]
    return page(NASTY, [
        Section(NASTY, [NASTY, "See https://example.org/a?b=1&c=2, and `x < 1`.", Code(f"run {NASTY} {{title}}")]),
        Section("Rest", [Table(["", NASTY], [["row", "1.0"], [NASTY, "2.0"]], "caption"), Gallery(strips, NASTY),
                         Chart(bars({"PNG & co": 1.0}), "bars")]),
    ])  # fmt: skip


def test_a_page_is_well_formed_and_loads_nothing():
    html = example()
    assert html.startswith("<!doctype html>")
    assert_self_contained(html)
    page = Page(html)
    policies = [meta["content"] for meta in page.attributes("meta") if "http-equiv" in meta]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    tags = {tag for tag, _ in page.elements}
    assert {"title", "h1", "h2", "main", "section", "figure", "figcaption", "table", "caption", "pre", "svg"} <= tags


def test_a_page_shows_text_literally():
    page = Page(example())
    assert page.text("title", "h1", "h2", "p", "th").count(NASTY) >= 6
    assert page.text("code") == [f"run {NASTY} {{title}}", "x < 1"][::-1]
    assert [a["href"] for a in page.attributes("a")] == ["https://example.org/a?b=1&c=2"]


def test_a_page_has_every_image_at_its_own_size_with_a_description():
    images = Page(example()).attributes("img")
    pictures = [decoded(image) for image in images]
    assert [picture.size for picture in pictures] == [(5, 4)] * 2 + [(10, 8)] * 2
    gray = integers(2, 1, 4, 5, levels=16) * 17
    assert torch.equal(pixels(pictures[1]), gray[1].byte().expand(3, 4, 5))
    assert torch.equal(pixels(pictures[2]), integers(2, 3, 8, 10)[0].byte())
    assert [image["alt"] for image in images][1::2] == ["gray view, 2 of 2", f"{NASTY}, 2 of 2"]


def test_only_charts_import_matplotlib():
    code = "import sys, pixelcnn.pictures.page, pixelcnn.pictures.sheets; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
