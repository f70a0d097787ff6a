"""Draw the pictures of the pages on completing and scoring.

    python tools/make_figures.py

The photographs are held-out ones of those that come with the package. The faces are draws of `faces128-pyramid`, not
photographs of people. `report.png` is the top of `pixelcnn report photos-pyramid` in a browser.
"""

from pathlib import Path

import torch

from pixelcnn.data.images import load_images
from pixelcnn.models.draw import DrawOptions
from pixelcnn.models.load import load
from pixelcnn.pictures.sheets import heat_map, save_picture, sheet
from pixelcnn.tasks.scoring import surprisal

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
SIZE = 128
BOX = (45, 37, 85, 61)  # left, top, right, bottom: off the grid of the views


def completed() -> None:
    """Cut the same hole from drawn faces, and fill it in three ways."""
    model = load("faces128-pyramid")
    x = model.sample(6, SIZE, seed=8, options=DrawOptions(map=True))
    unknown = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    left, top, right, bottom = BOX
    unknown[top:bottom, left:right] = True
    ways = [
        ("completed, seed 0", 0, DrawOptions()),
        ("completed, seed 100", 100, DrawOptions()),
        ("completed by MAP", 0, DrawOptions(map=True)),
    ]
    rows = [(title, model.complete(x, unknown, candidates=4, seed=seed, options=how), 256) for title, seed, how in ways]
    save_picture(sheet([("given", x.masked_fill(unknown, 128), 256), *rows], height=SIZE), FIGURES / "complete.png")


def scored() -> None:
    """Show where photographs are hard to predict."""
    model = load("photos-pyramid")
    x = load_images("photos", "test", size=SIZE).batch(range(6))
    bits = surprisal(model, x)[0]
    most = float(bits.quantile(0.99))
    maps = [heat_map(each, most) for each in bits]
    strips = [("photographs", x, 256), ("bits of each pixel, given the view at half the size", maps, 256)]
    save_picture(sheet(strips, height=SIZE), FIGURES / "score.png")


if __name__ == "__main__":
    completed()
    scored()
