"""Make the pictures of the studio in the documentation, with Debian's Chromium.

    python tools/make_screenshots.py

The photographs in them are among those that come with the package.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
FACE = "#draw?model=faces128-pyramid&seed=4&map=on&size=128"


def wait(page: Page, place: str) -> None:
    expect(page.locator(place)).to_have_text(re.compile("^done"), timeout=60_000)


def main() -> None:
    command = [sys.executable, "-m", "pixelcnn", "studio", "--port", "0", "--no-browser"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    address = re.findall(r"http://\S+", server.stderr.readline())[0]
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 960})
            page.goto(f"{address}/{FACE}")
            wait(page, "#draw .status")
            page.hover("#draw .stage canvas", position={"x": 330, "y": 300})
            page.wait_for_timeout(500)
            page.screenshot(path=FIGURES / "studio-draw.png")
            page.click(".photos button:nth-child(5)")
            wait(page, ".opening")
            page.locator(".facts").evaluate("facts => window.scrollTo(0, facts.offsetTop - 60)")
            page.hover("#picture .stage canvas", position={"x": 170, "y": 260})
            page.wait_for_timeout(500)
            page.screenshot(path=FIGURES / "studio-picture.png")
            phone = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark", device_scale_factor=2)
            phone.goto(f"{address}/{FACE}")
            wait(phone, "#draw .status")
            phone.evaluate("window.scrollTo(0, document.querySelector('#draw').offsetTop)")
            phone.screenshot(path=FIGURES / "studio-phone.png")
            browser.close()
    finally:
        server.kill()


if __name__ == "__main__":
    main()
