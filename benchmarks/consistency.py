"""Measure whether consistent conditionals help: train the same network free and consistent, and score it both ways.

    python benchmarks/consistency.py --data FOLDER --runs FOLDER [--json FILE] [--minutes 1.75] [--seeds 3] [--limit N]

The images are the shipped photographs, and CIFAR-10 and faces from the data folder (`cifar10-jpeg`, `celeba-32x32`),
all at 32x32. For each set of images, seed and way, a pyramid of three views is trained for the same number of minutes.
They are turned into steps by timing a few steps first, so that other work on the machine changes little. Then the face
models have to tell faces from the other images by their total bits, and by those of each factor (area under the ROC
curve: 0.5 is chance, and 1 says that every face has fewer bits than any other image).

Finished runs are not repeated.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pixelcnn.data.images import Images, load_images
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load
from pixelcnn.models.presets import PyramidPixelCNN
from pixelcnn.nn.layers import evaluating
from pixelcnn.tasks.scoring import evaluate
from pixelcnn.training.history import HISTORY
from pixelcnn.training.loop import train
from pixelcnn.training.options import Run, Training

SHARES = (0.6, 0.25, 0.15)  # the finest factor first
WAYS = {"free": False, "consistent": True}
TRAINING = Training(batch_size=16, learning_rate=2e-3, decay=0.9998, average=0.998, bf16=True)
CALIBRATION_STEPS = 60
SCORED = 500  # images of each kind, for the ROC curve


def make_model(seed: int, *, consistent: bool) -> ImageModel:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"filters": (24, 32, 32), "blocks": (2, 3, 3), "embedding_blocks": 1}
    return PyramidPixelCNN(2, **sizes, dropout=0.0, consistent=consistent)


def open_sets(data: Path) -> dict[str, dict[str, Images]]:
    sources: dict[str, dict[str, Any]] = {
        "photographs": {"source": "photos", "size": 32},
        "CIFAR-10": {"source": data / "cifar10-jpeg"},
        "faces": {"source": data / "celeba-32x32"},
    }
    return {
        name: {split: load_images(**source, split=split, progress=True) for split in ("train", "test")}
        for name, source in sources.items()
    }


def seconds_a_step(images: Images, *, consistent: bool) -> list[float]:
    """Measure each factor: the median over the lines of its history."""
    model, seconds = make_model(0, consistent=consistent), []
    with tempfile.TemporaryDirectory() as folder:
        for k in range(3):
            run = Run(factor=k, resume=k > 0, sheet_minutes=0)
            train(model, images, folder, TRAINING, steps=CALIBRATION_STEPS, run=run)
            lines = (Path(folder) / f"factor-{k}" / HISTORY).read_text().splitlines()
            seconds.append(TRAINING.batch_size / statistics.median(json.loads(x)["images_per_second"] for x in lines))
    return seconds


def measure(folder: Path, images: dict[str, Images], steps: list[int], seed: int, way: str, limit: int | None) -> Any:
    """Train one model and score it both ways, or read its results if they exist."""
    results = folder / "results.json"
    if results.exists():
        return json.loads(results.read_text())
    model = make_model(seed, consistent=WAYS[way])
    training = replace(TRAINING, seed=seed)
    for k in reversed(range(3)):
        run = Run(factor=k, resume=k < 2, overwrite=k == 2, sheet_minutes=0, progress=True)
        train(model, images["train"], folder, training, steps=steps[k], run=run)
    scores = {}
    for scored, consistent in WAYS.items():
        model.consistent = consistent
        result = evaluate(model, images["test"], batch_size=64, limit=limit, progress=True)
        scores[scored] = [result.bits_per_dim, *result.factors]
    results.write_text(json.dumps(scores))
    return scores


def score(model: ImageModel, images: Images) -> torch.Tensor:
    """Measure the bits per dimension of the first images, the total and those of the factors: (n, 1 + factors)."""
    found = []
    with evaluating():
        for start in range(0, min(SCORED, len(images)), 64):
            bits = model.bits_per_dim(images.batch(range(start, min(start + 64, SCORED, len(images)))))
            found.append(torch.cat([bits.total[:, None], bits.factors], 1))
    return torch.cat(found)


def area_under_roc(positive: torch.Tensor, negative: torch.Tensor) -> list[float]:
    """Compute, for each column, the share of pairs in which the positive has fewer bits; ties count half."""
    fewer = (positive[:, None] < negative).double() + 0.5 * (positive[:, None] == negative)
    return fewer.mean((0, 1)).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="folder for the trained models")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--minutes", type=float, default=1.75, help="training time of a model")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, help="score at most this many held-out images")
    options = parser.parse_args()

    sets = open_sets(options.data)
    options.runs.mkdir(parents=True, exist_ok=True)
    calibration = options.runs / f"steps-{options.minutes:g}.json"
    if not calibration.exists():
        times = {way: seconds_a_step(sets["CIFAR-10"]["train"], consistent=c) for way, c in WAYS.items()}
        steps = {
            way: [round(60 * options.minutes * share / time) for share, time in zip(SHARES, each, strict=True)]
            for way, each in times.items()
        }
        calibration.write_text(json.dumps(steps))
    steps = json.loads(calibration.read_text())
    results: dict[str, Any] = {"minutes": options.minutes, "steps": steps, "bits_per_dim": {}, "area_under_roc": {}}
    print("steps of each factor:", steps)
    for name, images in sets.items():
        for way in WAYS:
            for seed in range(options.seeds):
                folder = options.runs / f"{name}-{way}-{seed}"
                scored = measure(folder, images, steps[way], seed, way, options.limit)
                results["bits_per_dim"].setdefault(name, {}).setdefault(way, []).append(scored)
                print(f"{name}, trained {way}, seed {seed}: {scored}", flush=True)
    for way in WAYS:
        for seed in range(options.seeds):
            model = load(options.runs / f"faces-{way}-{seed}")
            faces = score(model, sets["faces"]["test"])
            for other in ("photographs", "CIFAR-10"):
                areas = area_under_roc(faces, score(model, sets[other]["test"]))
                results["area_under_roc"].setdefault(other, {}).setdefault(way, []).append(areas)
                print(f"faces from {other}, trained {way}, seed {seed}: total and factors {areas}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
