"""Make the shipped photographs: those of CID22, averaged 2x2 from 256x256 to 128x128, as lossless WebP.

    python tools/make_photos.py ../shared/data/cid22-256 src/pixelcnn/photos

Reads and writes `train.parquet` and `test.parquet` in the Hugging Face layout; file names and the split stay.
WebP at its greatest effort takes a second an image.
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
    """Average blocks of 2x2, rounded half up in integers: uint8 (2H, 2W, C) to (H, W, C)."""
    H, W, C = pixels.shape
    blocks = pixels.reshape(H // 2, 2, W // 2, 2, C).astype(np.uint16)
    return ((blocks.sum((1, 3), dtype=np.uint16) + 2) // 4).astype(np.uint8)


def shrink(file: bytes) -> bytes:
    """An image file as one of half the size, lossless WebP at its greatest effort."""
    pixels = halve(np.asarray(PILImage.open(io.BytesIO(file)).convert("RGB")))
    smaller = io.BytesIO()
    PILImage.fromarray(pixels).save(smaller, "webp", lossless=True, quality=100, method=6, exact=True)
    return smaller.getvalue()


def convert(source: Path, target: Path) -> None:
    """Shrink every photograph of a parquet file into another, which appears only once it is whole."""
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
    parser.add_argument("source", type=Path, help="folder of train.parquet and test.parquet, 256x256")
    parser.add_argument("target", type=Path, help="folder to write train.parquet and test.parquet to")
    arguments = parser.parse_args()
    for part in ("train", "test"):
        convert(arguments.source / f"{part}.parquet", arguments.target / f"{part}.parquet")
