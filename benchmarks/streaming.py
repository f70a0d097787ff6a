"""Stream a million small images, made on the fly, and measure the memory on the way.

    python benchmarks/streaming.py --json benchmarks/streaming.json [--images 1000000] [--kind parquet|tar|both]

The shards, PNG files of 8x8 pixels in parquet or tar files of ten thousand each, lie in a temporary folder and are
removed in the end. A process of its own reads all of them once in the order of training, in batches of 16, and reports
the resident memory after a hundredth, a tenth, a half, and all of the images. Results of the other kind that are in the
JSON file already are kept.
"""

import argparse
import io
import json
import multiprocessing
import tarfile
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from pixelcnn.common.files import write_json
from pixelcnn.data.order import ShuffledStream
from pixelcnn.data.streams import stream_images

SHARD, SIDE, BATCH = 10_000, 8, 16
SHARES = (0.01, 0.1, 0.5, 1.0)


def pictures(random: np.random.Generator) -> list[bytes]:
    """Encode a shard of pictures of noise."""
    made = []
    for pixels in random.integers(0, 256, (SHARD, SIDE, SIDE, 3), dtype=np.uint8):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=0)
        made.append(file.getvalue())
    return made


def write_shards(folder: Path, images: int, kind: str) -> int:
    """Write the shards, and return how many bytes they take."""
    random = np.random.default_rng(0)
    for shard in range(images // SHARD):
        path, encoded = folder / f"{shard:05d}.{kind}", pictures(random)
        if kind == "parquet":
            records = [{"bytes": each, "path": None} for each in encoded]
            pq.write_table(pa.table({"image": records}), path, row_group_size=1000)
            continue
        with tarfile.open(path, "w") as file:
            for i, each in enumerate(encoded):
                entry = tarfile.TarInfo(f"{i:05d}.png")
                entry.size = len(each)
                file.addfile(entry, io.BytesIO(each))
    return sum(path.stat().st_size for path in folder.iterdir())


def stream(folder: Path, images: int) -> dict[str, Any]:
    """Read an epoch in batches, and measure."""
    torch.set_num_threads(1)
    process, figures = psutil.Process(), {}
    opened = stream_images(folder, size=SIDE)
    coming = ShuffledStream(opened, seed=0, flip=True, random_crop=None).visit()
    started, seen, epoch = time.perf_counter(), 0, 0
    expected = int(0.95 * images)  # the rest is held out
    left = [*SHARES]
    while epoch == 0:
        batch = list(islice(coming, BATCH))
        torch.stack([x for x, _ in batch])
        seen, epoch = seen + len(batch), batch[-1][1].epoch
        if left and (seen >= left[0] * expected or epoch):
            figures[f"{left.pop(0):.0%}"] = process.memory_info().rss
    return {"rss": figures, "visited": seen, "seconds": time.perf_counter() - started}


def measure(images: int, kind: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        size = write_shards(Path(folder), images, kind)
        # In a fresh process, whose memory knows nothing of how the shards were made.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            figures = pool.submit(stream, Path(folder), images).result()
    return {"images": images, "bytes_of_shards": size, "images_per_second": figures["visited"] / figures["seconds"]} | (
        figures
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--kind", choices=("parquet", "tar", "both"), default="both")
    given = parser.parse_args()
    found = json.loads(given.json.read_text()) if given.json.exists() else {}
    for kind in ("parquet", "tar") if given.kind == "both" else (given.kind,):
        found[kind] = measure(given.images, kind)
        write_json(given.json, found)
        print(kind, json.dumps(found[kind]))


if __name__ == "__main__":
    main()
