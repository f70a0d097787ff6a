"""Compare photographs enlarged by a model with bicubic ones: how far is each from the photograph?

    python benchmarks/upscaling.py --data FOLDER --json benchmarks/upscaling.json

Held-out photographs are made smaller by averaging squares, and enlarged again by `photos-pyramid` and by Pillow's
bicubic filter. The peak signal-to-noise ratio (PSNR, in decibels; higher is closer) is the mean over the photographs,
41 at 128x128 and the central 128x128 of the same 41 at native pixels (`cid22-512` in the data folder). The mean of
several draws is rounded like any other picture. The inconsistency is the mean absolute difference, in levels, between
the result made smaller again and what was given.
"""

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pixelcnn.common.files import write_json
from pixelcnn.data.images import load_images
from pixelcnn.models.draw import DrawOptions
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load

SIDE = 128
DRAWS = 16


def psnr(x: Tensor, y: Tensor) -> float:
    """Compute the mean over images (B, C, H, W) of the peak signal-to-noise ratio in decibels."""
    squares = (x.double() - y.double()).square().mean((1, 2, 3))
    return float((10 * torch.log10(255**2 / squares)).mean())


def bicubic(x: Tensor, factor: int) -> Tensor:
    """Enlarge images (B, C, H, W) with Pillow."""
    pictures = [Image.fromarray(each) for each in x.permute(0, 2, 3, 1).numpy()]
    large = [each.resize((factor * each.width, factor * each.height), Image.Resampling.BICUBIC) for each in pictures]
    return torch.from_numpy(np.stack([np.asarray(each) for each in large])).permute(0, 3, 1, 2)


def ways(model: ImageModel, small: Tensor, factor: int) -> dict[str, Tensor]:
    """Enlarge pictures in every way."""
    draws = [model.upscale(small, factor, seed=len(small) * i) for i in range(DRAWS)]
    return {
        "drawn": draws[0],
        "drawn, scale-shift -1": model.upscale(small, factor, options=DrawOptions(scale_shift=-1.0)),
        "MAP": model.upscale(small, factor, options=DrawOptions(map=True)),
        f"mean of {DRAWS} draws": torch.stack(draws).float().mean(0).round().to(torch.uint8),
        "bicubic": bicubic(small, factor),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--images", type=int, default=41)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load("photos-pyramid")
    native = load_images(arguments.data / "cid22-512", "test", size=512).batch(range(arguments.images))
    start = (512 - SIDE) // 2
    sets = {
        "reduced to 128x128": load_images("photos", "test", size=SIDE).batch(range(arguments.images)),
        "native pixels": native[:, :, start : start + SIDE, start : start + SIDE],
    }
    results: list[dict[str, Any]] = []
    for (name, x), factor in itertools.product(sets.items(), (2, 4)):
        view = factor.bit_length() - 1
        small = model.views(x)[view]
        for way, large in ways(model, small, factor).items():
            inconsistency = (model.views(large)[view].int() - small.int()).abs().float().mean()
            row = {"photographs": name, "factor": factor, "way": way, "psnr": psnr(large, x)}
            row["inconsistency"] = float(inconsistency)
            results.append(row)
            print(row, flush=True)
            write_json(arguments.json, {"results": results})


if __name__ == "__main__":
    main()
