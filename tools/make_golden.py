"""Make the files that every later version has to read, in `tests/golden`.

Run it once, when the format is new. A file that is there is never replaced: a change that needs other files needs
another version of the format.

    python tools/make_golden.py
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import pixelcnn
from pixelcnn import Downsample, ImageModel, LogisticMixture, QuantizedGrayscale
from pixelcnn.common.files import write_atomically
from pixelcnn.models.decompression import Restorer, open_files
from pixelcnn.models.restored import Restored

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
SMALL: dict[str, Any] = {
    "filters": 4,
    "blocks": 1,
    "embedding_filters": 3,
    "embedding_blocks": 1,
    "components": 2,
    "dropout": 0.0,
}
SMALLER: dict[str, Any] = {**SMALL, "filters": 3}
MODELS = {
    # Strided networks, both kinds of auxiliary variables, classes, both likelihoods, and another stride.
    "color": lambda: ImageModel(
        3, 256, [Downsample(3), QuantizedGrayscale(4)], scales=(1, 1, 2), embedding_scales=(2, 1), classes=3, **SMALL
    ),
    "gray": lambda: ImageModel(1, 256, [Downsample(2)], scales=(2, 1), embedding_scales=1, consistent=False, **SMALL),
    # Three scales everywhere.
    "deep": lambda: ImageModel(1, 256, [QuantizedGrayscale(3)], scales=3, embedding_scales=3, **SMALLER),
    # Raster order within bounds, a lag that the bounds decide, a likelihood of its own, and weights of half precision.
    "mixed": lambda: ImageModel(
        3,
        256,
        [Downsample(2), Downsample(5)],
        scales=(2, 1, 1),
        embedding_scales=(2, 1),
        likelihoods=[None, LogisticMixture(3, 256, 2, (-4.0, 0.5)), None],
        **SMALL,
    ),
}


def make_model(name: str, x: torch.Tensor) -> ImageModel:
    """Make a model with weights that depend on the data, so that it uses what it is given."""
    torch.manual_seed(1)
    model = MODELS[name]()
    labels = torch.arange(len(x)) % 3 if model.classes else None
    for factor, link in zip(model.factors, model.links(x), strict=True):
        factor.initialize(*link, labels)
    return model.eval()


def photographs(size: int, number: int) -> torch.Tensor:
    images = pixelcnn.load_images("photos", "test", size=size)
    return torch.stack([images[i] for i in range(number)])


def main() -> None:
    photos = photographs(32, 4)
    for name in MODELS:
        x = photos if name in ("color", "mixed") else photos[:, :1]
        if not (GOLDEN / name / "config.json").exists():
            pixelcnn.save(make_model(name, x), GOLDEN / name, torch.bfloat16 if name == "mixed" else torch.float32)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (5, 4), dtype=np.uint8)
    (alpha,) = pixelcnn.to_pil(photos[1:2, :, 4:23, 3:20])
    alpha.putalpha(Image.fromarray(rng.integers(0, 256, (19, 17), dtype=np.uint8)))
    gray, color, mixed, deep = (pixelcnn.load(GOLDEN / name) for name in ("gray", "color", "mixed", "deep"))
    small = [*pixelcnn.to_pil(photos[:3, :, :9, :10]), Image.fromarray(noise), alpha]
    contents = {
        "gray/photo.pxc": gray.compress(photos[1, :1, :21, :14]),
        "gray/noise.pxc": gray.compress(noise),
        "color/photo.pxc": color.compress(photos[1, :, 4:23, 3:20], labels=2),
        "color/alpha.pxc": color.compress(alpha, labels=0),
        "color/flat.pxc": color.compress(np.full((40, 30, 3), 200, dtype=np.uint8), labels=1),
        "color/small.pxa": color.compress(small, labels=1),
        "deep/photo.pxc": deep.compress(photos[1, :1, 5:18, 3:20]),
        "mixed/photo.pxc": mixed.compress(photos[1, :, 3:8, 6:21]),
    }
    for name, content in contents.items():
        path = GOLDEN / name
        if not path.exists():
            write_atomically(path, content)
            restored = Restorer(pixelcnn.load(path.parent)).restore(open_files(content))
            for i, each in enumerate(restored):
                assert isinstance(each, Restored), each
                write_atomically(path.with_suffix(f".{i}.png"), each.original.to_png())


if __name__ == "__main__":
    main()
