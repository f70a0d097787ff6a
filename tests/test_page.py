"""The page of the studio in a real browser, Debian's Chromium.

Whatever a test does, a message in the browser's console fails it, and so does a request to another host.
"""

import base64
import io
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, expect, sync_playwright
from studio import Served, fresh, write_history

from pixelcnn.data.images import load_images
from pixelcnn.models.decompression import decompress
from pixelcnn.models.load import load, save
from pixelcnn.models.presets import PyramidPixelCNN
from pixelcnn.models.sampling import sample

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
PATIENCE = 30_000  # milliseconds
Open = Callable[..., Page]
SLOW = Path("photos-pyramid")  # takes seconds for 512x512, long enough to do something meanwhile


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "small"
    save(fresh(PyramidPixelCNN(depth=2, filters=8, blocks=1, embedding_blocks=1)), folder)
    return folder


@pytest.fixture(scope="module")
def served(model: Path) -> Iterator[Served]:
    with Served("--port", 0, model, "photos-pyramid") as served:
        yield served


@contextmanager
def opened(browser: Browser, host: str, hash: str = "", **options: Any) -> Iterator[Page]:
    """Open the page, and fail if it asks another host for something, or the browser's console says anything."""
    settings: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}} | options
    context = browser.new_context(**settings)
    page, said = context.new_page(), []

    def note(request: Request) -> None:
        if host not in request.url:
            said.append(f"a request to {request.url}")

    def heed(message: ConsoleMessage) -> None:
        said.append(f"in the console: {message.text}")

    page.on("request", note)
    page.on("console", heed)
    page.on("pageerror", lambda error: said.append(f"an error: {error}"))
    page.set_default_timeout(PATIENCE)
    page.goto(f"http://{host}/{hash}")
    try:
        yield page
        assert said == []
    finally:
        context.close()


@pytest.fixture
def open_page(browser: Browser, served: Served) -> Iterator[Open]:
    with ExitStack() as pages:
        yield lambda hash="", **options: pages.enter_context(opened(browser, served.host, hash, **options))


def wait_for(place: Locator, text: str) -> None:
    expect(place).to_have_text(re.compile(text), timeout=PATIENCE)


def pixels(canvas: Locator) -> np.ndarray:
    """Return the pixels of a canvas, (H, W, 4)."""
    address = canvas.evaluate("canvas => canvas.toDataURL()")
    return np.array(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGBA"))


def drawing(model: Path, size: int, seed: int = 0) -> str:
    return f"#draw?model={model}&size={size}&seed={seed}"


def put_picture(page: Page, x: np.ndarray, name: str = "a picture.png") -> None:
    file = io.BytesIO()
    Image.fromarray(x).save(file, "PNG")
    page.set_input_files("[name=file]", {"name": name, "mimeType": "image/png", "buffer": file.getvalue()})
    wait_for(page.locator(".opening"), "^done")


PHOTO = load_images("photos", "test")[7].permute(1, 2, 0).numpy()[40:72, 40:80]


def test_pixels_appear_and_stop(open_page: Open) -> None:
    """Law: the picture changes before the drawing ends, and no more once it is stopped; then another can be drawn."""
    page = open_page(drawing(SLOW, 512))
    canvas, status = page.locator("#draw .stage canvas").first, page.locator("#draw .status")
    expect(canvas).to_have_attribute("width", "512", timeout=PATIENCE)
    seen = {pixels(canvas).tobytes()}
    while len(seen) == 1 and "working" in (status.text_content() or ""):
        seen.add(pixels(canvas).tobytes())
    assert len(seen) > 1
    wait_for(status, "working")
    page.click("#draw [name=go]")
    wait_for(status, "^stopped$")
    stopped = pixels(canvas)
    page.wait_for_timeout(300)
    assert (pixels(canvas) == stopped).all()
    page.fill("#draw [name=size]", "16")
    page.click("#draw [name=go]")
    wait_for(status, "^done")


def test_a_link_draws_again(open_page: Open, model: Path) -> None:
    """Law: what the page shows is what `sample` draws, and the link of an earlier drawing draws the same."""
    page = open_page(drawing(model, 16, seed=3))
    canvas, status = page.locator("#draw .stage canvas").first, page.locator("#draw .status")
    wait_for(status, "^done")
    first = pixels(canvas)
    assert (first[:, :, :3] == sample(load(model), 1, 16, seed=3)[0].permute(1, 2, 0).numpy()).all()
    assert (first[:, :, 3] == 255).all()
    page.click("#draw [name=another]")
    expect(page.locator(".strip a")).to_have_count(2, timeout=PATIENCE)
    assert (pixels(canvas) != first).any()
    assert "seed=4" in page.url
    page.locator(".strip a").last.click()
    expect(page.locator("#draw [name=seed]")).to_have_value("3")
    wait_for(status, "^done")
    assert (pixels(canvas) == first).all()
    page.click("#draw .views button:first-child")
    assert pixels(canvas).shape == (4, 4, 4)
    page.fill("#draw [name=seed]", "5")
    page.press("#draw [name=seed]", "Enter")
    expect(page.locator(".strip a")).to_have_count(3, timeout=PATIENCE)
    page.fill("#draw [name=seed]", "6")
    page.locator(".strip a").first.click()  # where the address leads already
    expect(page.locator("#draw [name=seed]")).to_have_value("5")
    wait_for(status, "^done")


def test_a_pixel_is_explained(open_page: Open, model: Path) -> None:
    page = open_page(drawing(model, 16))
    wait_for(page.locator("#draw .status"), "^done")
    canvas, title = page.locator("#draw .stage canvas").first, page.locator("#draw .look .title")
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 5.5 / 16, box["y"] + box["height"] * 9.5 / 16)
    wait_for(title, "^Row 9, column 5 of 16\u00d716: [0-9.]+ bits$")
    value = int(pixels(canvas)[9, 5, 0])
    wait_for(page.locator("#draw .look figcaption").first, rf"^red {value}: .*%; possible: \d+ to \d+$")
    assert page.locator("#draw .look svg").count() == 3
    canvas.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+ArrowRight")
    wait_for(title, "^Row 10, column 13 ")


def test_a_hole_is_where_it_was_painted(open_page: Open) -> None:
    """Law: a box on a zoomed picture covers exactly its pixels, and completing changes no other."""
    page = open_page()
    put_picture(page, PHOTO)
    page.fill("[name=zoom]", "3")
    page.check("[name=tool][value=box]")
    canvas = page.locator("#picture .two .stage canvas").first
    canvas.scroll_into_view_if_needed()
    page.locator("#picture .two .frames").first.evaluate("frames => frames.scrollTo(40, 40)")
    box = canvas.bounding_box()
    assert box is not None

    def place(row: int, col: int) -> tuple[float, float]:
        assert box is not None
        return box["x"] + box["width"] * (col + 0.5) / 40, box["y"] + box["height"] * (row + 0.5) / 32

    page.mouse.move(*place(5, 6))
    page.mouse.down()
    page.mouse.move(*place(9, 9))
    page.mouse.move(*place(8, 12))
    page.mouse.up()
    hole = pixels(page.locator(".hole"))[:, :, 3] > 0
    expected = np.zeros((32, 40), bool)
    expected[5:9, 6:13] = True
    assert (hole == expected).all()
    page.fill("[name=images]", "2")
    page.fill("[name=tries]", "1")
    page.click("[name=complete]")
    wait_for(page.locator(".working"), "^done")
    results = page.locator(".results canvas")
    expect(results).to_have_count(2)
    for i in range(2):
        changed = (pixels(results.nth(i))[:, :, :3] != PHOTO).any(2)
        assert changed.any()
        assert not (changed & ~expected).any()


def test_a_hole_belongs_to_its_picture(open_page: Open) -> None:
    """Law: scoring again keeps the hole; a new picture has none, even while its score waits in line."""
    page = open_page(drawing(SLOW, 16))
    put_picture(page, PHOTO)
    page.check("[name=tool][value=box]")
    canvas = page.locator("#picture .two .stage canvas").first
    canvas.focus()
    page.keyboard.press(" ")
    wait_for(page.locator(".working"), "a corner is at row 0, column 0")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    painted = pixels(page.locator(".hole"))[:, :, 3] > 0
    assert painted.sum() == painted[:9, :2].sum() == 18
    page.click("[name=again]")
    wait_for(page.locator(".opening"), "^done")
    assert (pixels(page.locator(".hole"))[:, :, 3] > 0).sum() == 18
    page.fill("#draw [name=size]", "512")
    page.click("#draw [name=go]")
    expect(page.locator("#draw .stage canvas").first).to_have_attribute("width", "512", timeout=PATIENCE)
    page.click(".photos button:nth-child(2)")
    wait_for(page.locator(".opening"), "waiting: number 2 in line")
    wait_for(page.locator(".notes"), "photograph 2, 128")
    assert pixels(canvas).shape == (128, 128, 4)
    assert not (pixels(page.locator(".hole"))[:, :, 3] > 0).any()
    assert page.locator("tbody.sizes tr").count() == 0
    page.click("[name=complete]")
    wait_for(page.locator(".working"), "paint a hole first")
    page.click("#draw [name=go]")
    wait_for(page.locator(".opening"), "^done")


def test_a_bad_file_is_refused(open_page: Open, tmp_path: Path) -> None:
    page, large = open_page(), tmp_path / "big.png"
    with large.open("wb") as file:
        file.truncate(2**24 + 1)
    page.set_input_files("[name=file]", {"name": "notes.png", "mimeType": "image/png", "buffer": b"not a picture"})
    wait_for(page.locator(".opening"), "'notes.png' cannot be read")
    page.set_input_files("[name=file]", large)
    wait_for(page.locator(".opening"), r"big.png is 16\.8 MB: the limit is 16\.8 MB")
    put_picture(page, PHOTO)
    page.click("[name=complete]")
    wait_for(page.locator(".working"), "paint a hole first")


def test_a_picture_becomes_a_file_and_a_picture_again(open_page: Open, tmp_path: Path) -> None:
    """Law: the slider shows the views of the file as its bytes arrive, and the saved file holds the picture."""
    page = open_page()
    put_picture(page, PHOTO)
    sizes = page.locator("tbody.sizes tr")
    assert {"PNG", "WebP", "photos-pyramid"} <= set(sizes.locator("th").all_text_contents())
    page.click("[name=compress]")
    wait_for(page.locator("#file .status"), "^done")
    wait_for(page.locator("#file output"), "40\u00d732, identical to the original$")
    canvas, slider = page.locator("#file .stage canvas").first, page.locator("[name=bytes]")
    assert (pixels(canvas)[:, :, :3] == PHOTO).all()
    most = int(slider.get_attribute("max") or 0)
    slider.fill(str(most - 1))
    wait_for(page.locator("#file output"), f"^{most - 1:,} of {most:,} bytes: 20\u00d716$")
    slider.fill("1")
    wait_for(page.locator("#file output"), "no complete view yet$")
    with page.expect_download() as saved:
        page.click("[name=save]")
    assert saved.value.suggested_filename == "a picture.pxc"
    path = tmp_path / "a.pxc"
    saved.value.save_as(path)
    assert path.stat().st_size == most
    assert (np.array(decompress(path.read_bytes())) == PHOTO).all()
    page.set_input_files("[name=file]", path)
    wait_for(page.locator(".notes"), "^a.pxc, 40\u00d732$")


def test_by_keyboard_alone(open_page: Open, model: Path) -> None:
    """Law: everything can be done without a mouse: draw, look, choose a photograph, paint, complete."""
    page = open_page(drawing(model, 8))
    wait_for(page.locator("#draw .status"), "^done")

    def go_to(selector: str) -> None:
        wanted = page.locator(selector).first
        for _ in range(120):
            if wanted.evaluate("each => each === document.activeElement"):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"{selector} cannot be reached with the Tab key")

    go_to("#draw .stage canvas")
    page.keyboard.press("ArrowRight")
    wait_for(page.locator("#draw .look .title"), "^Row 0, column 1 ")
    go_to("#draw [name=another]")
    page.keyboard.press("Enter")
    expect(page.locator(".strip a")).to_have_count(2, timeout=PATIENCE)
    go_to("[name=side]")
    put_picture(page, PHOTO[:16, :16].copy())
    go_to("[name=tool][value=look]")
    page.keyboard.press("ArrowRight")
    assert page.locator("[name=tool][value=brush]").is_checked()
    page.keyboard.press("Tab")
    page.keyboard.type("1")
    go_to("#picture .two .stage canvas")
    page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    hole = pixels(page.locator(".hole"))[:, :, 3] > 0
    assert hole.any()
    go_to("[name=complete]")
    page.keyboard.press("Enter")
    wait_for(page.locator(".working"), "^done")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_both_sizes_and_both_schemes(open_page: Open, model: Path, width: int, scheme: str) -> None:
    """Law: nothing is wider than the window, everything has a name, and pixels are not interpolated."""
    page = open_page(drawing(model, 16), viewport={"width": width, "height": 800}, color_scheme=scheme)
    wait_for(page.locator("#draw .status"), "^done")
    put_picture(page, PHOTO)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", light))) > 380) == (scheme == "light")
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, select, canvas[tabindex], img')].filter(each => "
        "!(each.getAttribute('aria-label') || each.alt || each.labels?.[0]?.textContent.trim() || "
        "each.textContent.trim() || each.querySelector('img')?.alt)).map(each => each.outerHTML)"
    )
    assert nameless == []
    for canvas in page.locator("canvas").all():
        assert canvas.evaluate("each => getComputedStyle(each).imageRendering") == "pixelated"


def test_still_pictures_if_motion_is_to_be_reduced(open_page: Open) -> None:
    """Law: then only whole views are shown."""
    page = open_page(drawing(SLOW, 512), reduced_motion="reduce")
    canvas = page.locator("#draw .stage canvas").first
    expect(canvas).to_have_attribute("width", "256", timeout=PATIENCE)
    assert (pixels(canvas)[:, :, 3] == 255).all()
    wait_for(page.locator("#draw .status"), "^done")
    assert pixels(canvas).shape[:2] == (512, 512)


def test_runs_are_shown_until_the_end(browser: Browser, tmp_path: Path) -> None:
    """Law: runs are beside each other, new figures appear, and a studio that ends is missed."""
    figures = {"bits_per_dim": 5.0, "images_per_second": 1.0}
    gray = fresh(PyramidPixelCNN(channels=1, depth=1, filters=8, blocks=1, embedding_blocks=1))
    for name in ("one", "two"):
        save(gray, tmp_path / name)  # which takes no pictures, so there is no section for them
        (tmp_path / name / "run.json").write_text('{"training": {}}')
        points = [{"step": i, "seconds": 60.0 * i, "share": i / 10, **figures} for i in range(1, 5)]
        write_history(tmp_path / name / "factor-0", points)
    Image.fromarray(PHOTO).save(tmp_path / "one" / "factor-0" / "sheet-000004.png")
    with Served("--port", 0, tmp_path / "one", tmp_path / "two") as served, opened(browser, served.host) as page:
        runs = page.locator("#training article")
        expect(runs).to_have_count(2)
        first = runs.first.locator(".factor")
        wait_for(first, r"Factor 0: step 4, 5\.000 bits, 4\.0 minutes, 6\.0 minutes left")
        assert runs.first.locator("polyline").count() == 1
        assert runs.first.locator("img").evaluate("image => image.complete && image.naturalWidth") == 40
        write_history(tmp_path / "one" / "factor-0", [*points, {"step": 9, "seconds": 600.0, "share": 1.0, **figures}])
        wait_for(first, "step 9, .* finished")
        served.process.kill()
        expect(page.locator("#ended")).to_be_visible(timeout=PATIENCE)
        expect(page.locator("#draw [name=go]")).to_have_text("Draw")
