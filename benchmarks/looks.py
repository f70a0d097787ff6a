"""Judge drawn faces: save sheets of plain draws, and measure how far draws of small views are from test faces.

    python benchmarks/looks.py --data FOLDER --out FOLDER [--model faces128-pyramid] [--draws 3500] [--json FILE]

The data folder holds `celeba-32x32` and `celeba-89x109`. The sheets, at 64x64 and 128x128, show 36 plain draws each,
of the seeds 0 to 35: they are for people to look at. The distance is the Fréchet distance between Gaussians fitted to
all sub-pixels of draws and of test faces at 8x8, 16x16 and 32x32, scaled to [-1, 1]. Beside it is the distance of
equally many training faces, which is small, but not zero, since both sets are finite. It measures structure and color.
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
from pixelcnn.models.sampling import sample
from pixelcnn.pictures.sheets import save_picture, sheet

FRAME = (12, 13, 25, 20)  # the paper's crop of CelebA, at half size
SIDES = (8, 16, 32)
ROWS = 6


def faces(data: Path, split: str, size: int) -> Images:
    """Load the faces of both sets, on which the coarse factors of the model were trained."""
    small, half = "celeba-32x32", "celeba-89x109"
    parts = [load_images(data / small, split, size=size), load_images(data / half, split, size=size, crop=FRAME)]
    return JoinedImages(parts)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Measure mean (D,) and covariance (D, D) of all sub-pixels of images (N, C, H, W), scaled to [-1, 1]."""
    values = x.flatten(1).double() / 127.5 - 1
    return values.mean(0), values.T.cov()


def draw(model: ImageModel, number: int, size: int, batch_size: int = 64) -> Tensor:
    """Draw (N, C, H, W) with the seeds 0 to N - 1."""
    starts = range(0, number, batch_size)
    return torch.cat([sample(model, min(batch_size, number - seed), size, seed=seed) for seed in starts])


def distances(model: ImageModel, data: Path, size: int, number: int) -> dict[str, float]:
    """Measure the distances of draws, and of equally many training faces, to all test faces."""
    view = [H for H, _ in model.sizes((128, 128))].index(size)
    test, train = (faces(data, split, size) for split in ("test", "train"))
    real = moments(test.batch(range(len(test))))
    drawn = moments(draw(model.of_view(view), number, size))
    # Spread evenly, since one set comes after the other.
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
