"""Make the files that every later version has to read, in `tests/golden`.

Run it once, when the format is new. A file that is there is never replaced: a change that needs other files needs
another version of the format.

    python tools/make_golden.py
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import pixelcnn
from pixelcnn import Downsample, ImageModel, QuantizedGrayscale
from pixelcnn.common.files import write_atomically
from pixelcnn.models.decompression import Restorer, open_files
from pixelcnn.models.restored import Restored

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
SMALL = {"filters": 4, "blocks": 1, "embedding_filters": 3, "embedding_blocks": 1, "components": 2, "dropout": 0.0}
MODELS = {
    # Strided networks, both kinds of auxiliary variables, classes, both likelihoods, and another stride.
    "color": lambda: ImageModel(
        3, 256, [Downsample(3), QuantizedGrayscale(4)], scales=(1, 1, 2), embedding_scales=(2, 1), classes=3, **SMALL
    ),
    "gray": lambda: ImageModel(1, 256, [Downsample(2)], scales=(2, 1), embedding_scales=1, consistent=False, **SMALL),
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


def read_originals(content: bytes, model: ImageModel | None) -> list[bytes]:
    """Return the pictures of a file as PNG."""
    restored = Restorer(model).restore(open_files(content))
    return [each.original.to_png() for each in restored if isinstance(each, Restored)]


def main() -> None:
    photos = photographs(32, 4)
    for name in MODELS:
        x = photos if name == "color" else photos[:, :1]
        if not (GOLDEN / name / "config.json").exists():
            pixelcnn.save(make_model(name, x), GOLDEN / name)
    rng = np.random.default_rng(0)
    alpha = Image.fromarray(rng.integers(0, 256, (13, 17), dtype=np.uint8))
    extra = pixelcnn.to_pil(photos[:1, :, 8:21, 5:22])[0]
    extra.putalpha(alpha)
    gray, color = (pixelcnn.load(GOLDEN / name) for name in ("gray", "color"))
    noise = rng.integers(0, 256, (5, 4), dtype=np.uint8)
    contents = {
        "gray.pxc": gray.compress(photos[0, :1, :11, :14]),
        "color.pxc": color.compress(photos[1, :, 4:23, 3:20], labels=2),
        "extra.pxc": color.compress(extra, labels=0),
        "noise.pxc": gray.compress(noise),
        "flat.pxc": color.compress(np.full((40, 30, 3), 200, dtype=np.uint8), labels=1),
        "photo.pxc": pixelcnn.load("photos-pyramid").compress(photos[2]),
        "small.pxa": color.compress(
            [*pixelcnn.to_pil(photos[:3, :, :9, :10]), pixelcnn.to_pil(photos[3:, :1, :7])[0]], labels=1
        ),
    }
    for name, content in contents.items():
        if not (GOLDEN / name).exists():
            write_atomically(GOLDEN / name, content)
            model = None if name == "photo.pxc" else gray if name in ("gray.pxc", "noise.pxc") else color
            for i, original in enumerate(read_originals(content, model)):
                write_atomically((GOLDEN / name).with_suffix(f".{i}.png"), original)


if __name__ == "__main__":
    main()
