"""Measure the studio: how soon the page is there, what showing the pixels costs, and twenty pages at once.

    python benchmarks/studio.py --json benchmarks/studio.json

Needs Chromium. Seconds are medians. *Over sampling* is the time of a drawing whose pixels go to a page, over that of
`sample` in a process of its own, taken in turns: once to a client that only reads (what making and sending frames
costs), and once to the page in Chromium, which paints on the same cores.
"""

import argparse
import asyncio
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from playwright.async_api import Locator, Page, async_playwright, expect
from websockets.asyncio.client import connect
from websockets.typing import Origin

import pixelcnn
from pixelcnn.apps.studio.messages import pack, unpack
from pixelcnn.common.files import write_json

MODEL, SEED, REPEATS, TABS = "faces128-pyramid", 4, 7, 20
PAGE = Path(pixelcnn.__file__).parent / "apps" / "studio" / "page"
SAMPLING = f"""
import sys, time, pixelcnn
model = pixelcnn.load("{MODEL}")
options = pixelcnn.DrawOptions(map=True)
model.sample(1, 16, options=options)
for line in sys.stdin:
    start = time.perf_counter()
    model.sample(1, seed={SEED}, options=options)
    print(time.perf_counter() - start, flush=True)
"""


async def draw(host: str) -> float:
    """Draw to a client that only reads, and return the seconds that the server took."""
    origin = Origin(f"http://{host}")
    async with connect(f"ws://{host}/tab", origin=origin, compression=None, max_size=None) as socket:
        await socket.send(pack({"id": 1, "do": "draw", "model": MODEL, "seed": SEED, "map": True}))
        async for message in socket:
            fields, _ = unpack(message)
            if fields["event"] == "done":
                return fields["seconds"]
    raise RuntimeError("the studio has left")


async def is_drawn(page: Page) -> Locator:
    """Wait until the page says that its drawing is done, and return what says so."""
    status = page.locator("#draw .status")
    await expect(status).to_have_text(re.compile("^done"), timeout=60_000)
    return status


async def drawn_by(page: Page) -> float:
    """Draw on the page, and return the seconds that it shows."""
    await page.click("#draw [name=go]")
    status = await is_drawn(page)
    return float(re.findall(r"[\d.]+", await status.text_content() or "")[0])


async def first_looks(browser: Any, host: str) -> tuple[float, float]:
    """Open the page, and return the seconds to its first paint, and from there to the first pixels."""
    page = await browser.new_page()
    await page.goto(f"http://{host}/#draw?model={MODEL}&seed={SEED}&map=on&size=128")
    await page.locator("#draw .stage canvas").first.wait_for()
    seconds = "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
    while not await page.evaluate(f"performance.getEntriesByName('first-contentful-paint').length && {seconds}"):
        await asyncio.sleep(0.01)
    paint = await page.evaluate(seconds)
    await is_drawn(page)
    pixels = await page.evaluate("performance.getEntriesByName('pixels')[0].startTime / 1000")
    await page.close()
    return paint, pixels


async def many(host: str, process: psutil.Process) -> dict[str, float]:
    """Draw from twenty pages at once, and measure the server's memory and how soon it answers meanwhile."""
    before, peak, waits = process.memory_info().rss, 0, []
    drawings = [asyncio.create_task(draw(host)) for _ in range(TABS)]
    start = time.perf_counter()
    while not all(drawing.done() for drawing in drawings):
        asked = time.perf_counter()
        reader, writer = await asyncio.open_connection(*host.split(":"))
        writer.write(f"GET /facts HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await reader.read()
        writer.close()
        waits.append(time.perf_counter() - asked)
        peak = max(peak, process.memory_info().rss)
        await asyncio.sleep(0.1)
    for drawing in drawings:
        drawing.result()
    seconds = time.perf_counter() - start
    return {
        "tabs": TABS,
        "seconds": seconds,
        "megabytes_before": before / 1e6,
        "megabytes_at_most": peak / 1e6,
        "seconds_to_answer_median": statistics.median(waits),
        "seconds_to_answer_at_most": max(waits),
    }


async def measure(host: str, process: psutil.Process, sample: Callable[[], float]) -> dict[str, Any]:
    async with async_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        looks = [await first_looks(browser, host) for _ in range(REPEATS)]
        page = await browser.new_page()
        await page.goto(f"http://{host}/#draw?model={MODEL}&seed={SEED}&map=on&size=128")
        await is_drawn(page)
        turns = [(sample(), await draw(host), await drawn_by(page)) for _ in range(REPEATS)]
        await browser.close()
    return {
        "first_paint": statistics.median(paint for paint, _ in looks),
        "first_pixels": statistics.median(pixels for _, pixels in looks),
        "sample": statistics.median(alone for alone, _, _ in turns),
        "frames_over_sampling": statistics.median(sent / alone for alone, sent, _ in turns),
        "page_over_sampling": statistics.median(shown / alone for alone, _, shown in turns),
        "many": await many(host, process),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    path = parser.parse_args().json
    sampler = subprocess.Popen(
        [sys.executable, "-c", SAMPLING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    command = [sys.executable, "-m", "pixelcnn", "studio", "--port", "0", "--no-browser"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    assert sampler.stdin is not None
    assert sampler.stdout is not None
    stdin, stdout = sampler.stdin, sampler.stdout

    def sample() -> float:
        print(file=stdin, flush=True)
        return float(stdout.readline())

    try:
        sample()
        host = re.findall(r"http://(\S+)", server.stderr.readline())[0]
        found = asyncio.run(measure(host, psutil.Process(server.pid), sample))
    finally:
        server.kill()
        sampler.kill()
    files = [entry.read_bytes() for entry in PAGE.iterdir()]
    found |= {"page_bytes": sum(map(len, files)), "page_lines": sum(file.count(b"\n") for file in files)}
    for name, value in found.items():
        print(f"{name}: {value}")
    write_json(path, found)


if __name__ == "__main__":
    main()
