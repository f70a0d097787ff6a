"""Compare how holes are filled, off the grid of the views and on it: distances to the truth, and pictures.

    python benchmarks/completing.py --data FOLDER --json benchmarks/completing.json [--sheets FOLDER]

Square boxes of several sizes are cut from held-out images, at random places and on the grid of the simplest view, and
filled again. The distance is the mean absolute difference from the true pixels, in levels. The border is the exact cost
of the known pixels around the hole (a ring of eight) in the completed image, in bits for each sub-pixel. Faces are
whole images of `lfw-128` in the data folder; photographs are the shipped ones at 128x128.
"""

import argparse
import itertools
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcnn.common.files import write_json
from pixelcnn.data.images import load_images
from pixelcnn.models.draw import DrawOptions
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load
from pixelcnn.pictures.sheets import save_picture, sheet
from pixelcnn.tasks.scoring import surprisal

SIDES = (8, 16, 32, 48)
RING = 8  # pixels around a hole
AT_ONCE = 8  # images
WAYS = {"plain": DrawOptions(), "map": DrawOptions(map=True)}


def boxes(n: int, size: int, side: int, grid: int | None) -> Tensor:
    """Choose the place of a hole for each image: bool (n, size, size)."""
    generator = torch.Generator().manual_seed(side)
    unknown = torch.zeros(n, size, size, dtype=torch.bool)
    for each in unknown:
        if grid is None:
            top, left = torch.randint(size - side + 1, (2,), generator=generator).tolist()
        else:
            top, left = (grid * torch.randint((size - side) // grid + 1, (2,), generator=generator)).tolist()
        each[top : top + side, left : left + side] = True
    return unknown


def measure(model: ImageModel, x: Tensor, unknown: Tensor, options: DrawOptions, candidates: int) -> dict[str, Any]:
    """Fill the holes; return the completed images, distances and bits of the border, each (n,)."""
    filled = torch.cat(
        [
            model.complete(x[i : i + AT_ONCE], unknown[i : i + AT_ONCE], candidates=candidates, seed=i, options=options)
            for i in range(0, len(x), AT_ONCE)
        ]
    )
    pixels = unknown.sum((1, 2))
    distance = ((filled.int() - x.int()).abs().float().mean(1) * unknown).sum((1, 2)) / pixels
    ring = F.max_pool2d(unknown[:, None].float(), 2 * RING + 1, 1, RING)[:, 0].bool() & ~unknown
    bits = torch.cat([surprisal(model, filled[i : i + 1])[0] for i in range(len(x))])
    return {"filled": filled, "distance": distance, "border": (bits * ring).sum((1, 2)) / (3 * ring.sum((1, 2)))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--sheets", type=Path)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--candidates", type=int, nargs="+", default=[1, 4])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sets = {
        "faces": ("faces128-pyramid", load_images(arguments.data / "lfw-128", "test", size=128)),
        "photographs": ("photos-pyramid", load_images("photos", "test", size=128)),
    }
    results = []
    for candidates, (data, (shipped, images)) in itertools.product(arguments.candidates, sets.items()):
        model, x = load(shipped), images.batch(range(arguments.images))
        grid = math.prod(auxiliary.shrinkage for auxiliary in model.auxiliaries)
        for side, way in itertools.product(SIDES, WAYS):
            strips = []
            row: dict[str, Any] = {"data": data, "side": side, "way": way, "candidates": candidates}
            for place, step in (("grid", grid), ("random", None)):
                unknown = boxes(len(x), 128, side, step)
                found = measure(model, x, unknown, WAYS[way], candidates)
                row |= {f"{place} {key}": float(found[key].mean()) for key in ("distance", "border")}
                given = x.masked_fill(unknown[:, None], 128)
                strips += [(f"{place}: given", given[:8], 256), ("filled", found["filled"][:8], 256)]
            results.append(row)
            print(row, flush=True)
            write_json(arguments.json, {"results": results})
            if arguments.sheets is not None:
                name = f"{data}-{side}-{way}-{candidates}.png"
                save_picture(sheet(strips, height=128), arguments.sheets / name)


if __name__ == "__main__":
    main()
