"""How faces look: sheets of plain draws, and how far the draws of small views are from test faces.

    python benchmarks/looks.py --data FOLDER --out FOLDER [--model faces128-pyramid] [--draws 3500] [--json FILE]

FOLDER of the data is that of the real data of the project. There are sheets of 36 plain draws, seeds 0 to 35, at 64x64
and at 128x128, to be looked at. The distance is the Fréchet distance of Gaussians over all sub-pixels of a view, in
units of half the range, between draws and test faces, beside that of as many training faces; at 8x8, 16x16 and 32x32.
It sees structure and color, and is small for two sets of real faces, though not zero, since both are finite.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from comparison import frechet_distance
from torch import Tensor

from pixelcnn.common.files import write_json
from pixelcnn.data.images import Images, JoinedImages, load_images
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load
from pixelcnn.pictures.sheets import save_picture, sheet
from pixelcnn.tasks.sampling import sample

FRAME = (12, 13, 25, 20)  # the paper's crop of CelebA, at half size
SIDES = (8, 16, 32)
ROWS = 6


def faces(data: Path, split: str, size: int) -> Images:
    """Faces of both sets, as the coarse factors of the model were trained on."""
    small, half = "celeba-32x32", "celeba-89x109"
    parts = [load_images(data / small, split, size=size), load_images(data / half, split, size=size, crop=FRAME)]
    return JoinedImages(parts)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance over all sub-pixels, in units of half the range: integers (N, C, H, W) to (D,) and (D, D)."""
    values = x.flatten(1).double() / 127.5 - 1
    return values.mean(0), values.T.cov()


def draw(model: ImageModel, number: int, size: int, batch_size: int = 64) -> Tensor:
    """Plain draws (N, C, H, W), seeds 0 to N - 1."""
    starts = range(0, number, batch_size)
    return torch.cat([sample(model, min(batch_size, number - seed), size, seed=seed)[0] for seed in starts])


def distances(model: ImageModel, data: Path, size: int, number: int) -> dict[str, float]:
    """Of draws, and of as many training faces, to all test faces."""
    view = [H for H, _ in model.sizes((128, 128))].index(size)
    test, train = (faces(data, split, size) for split in ("test", "train"))
    real = moments(test.batch(range(len(test))))
    drawn = moments(draw(model.of_view(view), number, size))
    # Evenly over both sets, as they come one after the other.
    others = moments(train.batch(range(0, len(train), len(train) // number)))
    return {"draws": frechet_distance(drawn, real), "training faces": frechet_distance(others, real)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="faces128-pyramid")
    parser.add_argument("--draws", type=int, default=3500)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model = load(arguments.model)
    for view, size in ((1, 64), (0, 128)):
        rows = draw(model.of_view(view), ROWS**2, size, batch_size=ROWS**2).split(ROWS)
        strips = [(f"seeds {ROWS * i} to {ROWS * i + ROWS - 1}", row, 256) for i, row in enumerate(rows)]
        save_picture(sheet(strips, height=128), arguments.out / f"draws-{size}.png")
    results: dict[str, Any] = {}
    for size in SIDES:
        results[f"{size}x{size}"] = distances(model, arguments.data, size, arguments.draws)
        print(f"{size}x{size}", results[f"{size}x{size}"], flush=True)
    if arguments.json:
        write_json(arguments.json, {"draws": arguments.draws, "frechet": results})


if __name__ == "__main__":
    main()
