"""What the size of a batch is worth on a CPU: one factor, the same minutes, batches of 1 to 16 images.

    python benchmarks/batches.py --data FOLDER [--minutes 1] [--json FILE]

FOLDER is that of the real data of the project. The factor is that of 64x64 faces given their 32x32 view, with the
sizes of `celeba128-pyramid-small`, trained on crops of 32x32 in bf16, with a learning rate that does not fall. Scored
are held-out faces, whole and the paper's way, with the averaged weights. One thread, as the models of the package were
trained, so that several runs can share a machine.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch

from pixelcnn.checkpoint import write_json
from pixelcnn.data import Images, load_images
from pixelcnn.evaluation import evaluate
from pixelcnn.history import HISTORY
from pixelcnn.recipes import find_recipe
from pixelcnn.training import Training, train

VIEW, SIDE = 1, 64
FRAME = (12, 13, 25, 20)  # the paper's crop of CelebA, at half size
SETTINGS = [(16, 2e-3), (16, 4e-3), (4, 2e-3), (4, 4e-3), (1, 2e-3)]  # batch, learning rate
SCORED = 64


def measure(
    images: Images, held_out: Images, batch_size: int, learning_rate: float, minutes: float
) -> dict[str, float]:
    torch.manual_seed(0)
    model = find_recipe("celeba128-pyramid-small").model().of_view(VIEW)
    how = Training(batch_size, learning_rate, decay=1.0, average=0.999, random_crop=32, bf16=True)
    with tempfile.TemporaryDirectory() as folder:
        train(model, images, folder, how, factor=0, minutes=minutes, sheet_minutes=0, progress=True)
        end = json.loads((Path(folder) / "factor-0" / HISTORY).read_text().splitlines()[-1])
    bits = evaluate(model, held_out, batch_size=8, limit=SCORED).factors[0]
    return {
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "minutes": minutes,
        "steps": end["step"],
        "bits_per_dim": bits,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images, held_out = (
        load_images(arguments.data / "celeba-89x109", split, size=SIDE, crop=FRAME, progress=True)
        for split in ("train", "test")
    )
    results = []
    for batch_size, learning_rate in SETTINGS:
        results.append(measure(images, held_out, batch_size, learning_rate, arguments.minutes))
        print("| {batch_size} | {learning_rate} | {steps:,} | {bits_per_dim:.3f} |".format(**results[-1]), flush=True)
    if arguments.json:
        write_json(arguments.json, {"results": results})


if __name__ == "__main__":
    main()
