"""Make the shipped photographs: those of CID22, averaged over 2x2 pixels to 128x128, as lossless WebP.

    python tools/make_photos.py FOLDER src/pixelcnn/data/photos

FOLDER and the target hold `train.parquet` and `test.parquet` in the Hugging Face layout; the names of the photographs
and the split stay as they are. Encoding takes a second for each photograph, since WebP has to make its best effort.
"""

import argparse
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Image, load_dataset
from PIL import Image as PILImage


def halve(pixels: np.ndarray) -> np.ndarray:
    """Average squares of 2x2 pixels, rounded half up in integers: uint8 (2H, 2W, C) to (H, W, C)."""
    H, W, C = pixels.shape
    blocks = pixels.reshape(H // 2, 2, W // 2, 2, C).astype(np.uint16)
    return ((blocks.sum((1, 3), dtype=np.uint16) + 2) // 4).astype(np.uint8)


def shrink(file: bytes) -> bytes:
    """Encode an image file again at half the size, as lossless WebP with the best effort."""
    pixels = halve(np.asarray(PILImage.open(io.BytesIO(file)).convert("RGB")))
    smaller = io.BytesIO()
    PILImage.fromarray(pixels).save(smaller, "webp", lossless=True, quality=100, method=6, exact=True)
    return smaller.getvalue()


def convert(source: Path, target: Path) -> None:
    """Shrink every photograph of a parquet file into another file, which appears only once it is complete."""
    rows = load_dataset("parquet", data_files=str(source), split="train")
    records = rows.cast_column("image", Image(decode=False))["image"][:]
    with ThreadPoolExecutor() as pool:  # Pillow encodes without holding the interpreter's lock
        files = list(pool.map(shrink, [record["bytes"] for record in records]))
    images = [{"bytes": file, "path": record["path"]} for file, record in zip(files, records, strict=True)]
    partial = target.with_suffix(".partial")
    Dataset.from_dict({"image": images}, features=Features({"image": Image()})).to_parquet(partial)
    os.replace(partial, target)
    print(f"{target}: {len(images)} photographs, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path, help="folder with train.parquet and test.parquet at 256x256")
    parser.add_argument("target", type=Path, help="folder for train.parquet and test.parquet at 128x128")
    arguments = parser.parse_args()
    for part in ("train", "test"):
        convert(arguments.source / f"{part}.parquet", arguments.target / f"{part}.parquet")
