"""Compare ways to train by what is learned in the same CPU seconds: optimizers, rates, batches, precision, and more.

    python benchmarks/learning.py --data FOLDER --json benchmarks/learning.json [--plot docs/figures/learning.svg]

A factor of 32x32 images given their 16x16 view is trained from fresh weights on one thread, for a fixed number of CPU
seconds. The result is the exact number of bits per dimension that this factor, with its averaged weights, then needs
for held-out images. The seconds are turned into steps by timing a few steps first; since a process that waits uses no
CPU, other work on the machine changes little. Faces are whole images of `celeba-32x32` in the data folder; photographs
are random crops of the shipped ones. "paper" stands for the factor of the paper: 100 filters, three blocks, and an
embedding of 15 blocks.

Results that are in the JSON file already are kept, so a run can be interrupted, or continued with new settings.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from pixelcnn.common.files import write_json
from pixelcnn.data.images import Images, load_images
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.presets import PyramidPixelCNN
from pixelcnn.tasks.scoring import evaluate
from pixelcnn.training.loop import train
from pixelcnn.training.options import Run, Training

SEEDS = range(3)
TIMED_STEPS = 5, 35
SECONDS = {"small": 40.0, "paper": 120.0}
SIZES: dict[str, dict[str, Any]] = {
    "small": {"filters": 32, "blocks": 2, "embedding_blocks": 1},
    "paper": {"filters": 100, "blocks": 3, "embedding_blocks": 3},
}


@dataclass(frozen=True)
class Setting:
    """A way to train a factor of some size."""

    name: str
    training: Training
    size: str = "small"
    model: tuple[tuple[str, Any], ...] = ()


MUON = Training(4, "muon", 0.015, warmup=50, decay=1.0, cooldown=0.5, average=0.998, bf16=True)
ADAM = replace(MUON, optimizer="adam", learning_rate=4e-3)
SETTINGS = [
    Setting("Adam, 0.002", replace(ADAM, learning_rate=2e-3)),
    Setting("Adam, 0.004", ADAM),
    Setting("Adam, 0.008", replace(ADAM, learning_rate=8e-3)),
    Setting("Adam, 0.004, decay instead of cooldown", replace(ADAM, warmup=0, cooldown=0.0, decay=0.9997)),
    Setting("Muon, 0.01", replace(MUON, learning_rate=0.01)),
    Setting("Muon, 0.015", MUON),
    Setting("Muon, 0.025", replace(MUON, learning_rate=0.025)),
    Setting("Muon, 0.04", replace(MUON, learning_rate=0.04)),
    Setting("Muon, no cooldown", replace(MUON, cooldown=0.0)),
    Setting("Muon, cooldown 0.8", replace(MUON, cooldown=0.8)),
    Setting("Muon, average 0.99", replace(MUON, average=0.99)),
    Setting("Muon, average 0.9995", replace(MUON, average=0.9995)),
    Setting("Muon, batches of 2", replace(MUON, batch_size=2)),
    Setting("Muon, batches of 8", replace(MUON, batch_size=8)),
    Setting("Muon, batches of 16", replace(MUON, batch_size=16)),
    Setting("Muon, 16 crops of 16x16", replace(MUON, batch_size=16, random_crop=16)),
    Setting("Muon, float32", replace(MUON, bf16=False)),
    Setting("Muon, consistent", MUON, model=(("consistent", True),)),
    Setting("Muon, dropout 0.1", MUON, model=(("dropout", 0.1),)),
    Setting("Adam, 0.001", replace(ADAM, learning_rate=1e-3, warmup=10), "paper"),
    Setting("Adam, 0.002", replace(ADAM, learning_rate=2e-3, warmup=10), "paper"),
    Setting("Muon, 0.01", replace(MUON, learning_rate=0.01, warmup=10), "paper"),
    Setting("Muon, 0.02", replace(MUON, learning_rate=0.02, warmup=10), "paper"),
]


@dataclass(frozen=True, eq=False)
class DataSet:
    """Images to train on and to score, and the side of the crops to train on."""

    name: str
    images: Images
    held_out: Images
    crop: int | None
    scored: int


def open_data(data: Path) -> list[DataSet]:
    faces, held_out = (load_images(data / "celeba-32x32", split, size=32) for split in ("train", "test"))
    photos, others = (load_images("photos", split, size=128) for split in ("train", "test"))
    return [DataSet("faces", faces, held_out, None, 200), DataSet("photographs", photos, others, 32, 24)]


def make_model(setting: Setting) -> ImageModel:
    options: dict[str, Any] = {"dropout": 0.0, "consistent": False} | SIZES[setting.size] | dict(setting.model)
    return PyramidPixelCNN(1, **options)


def learn(setting: Setting, data: DataSet, seed: int, steps: int) -> tuple[ImageModel, float]:
    """Train a model; return it, and the CPU seconds of the whole training."""
    torch.manual_seed(seed)
    training = replace(setting.training, seed=seed, random_crop=setting.training.random_crop or data.crop)
    run = Run(factor=0, save_minutes=1e6, sheet_minutes=0)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        model = train(make_model(setting), data.images, folder, training, steps=steps, run=run)
        return model, time.process_time() - started


@cache
def seconds_a_step(setting: Setting, data: DataSet) -> float:
    """Measure CPU seconds by the difference of two short runs, which leaves out what each of them does once."""
    learn(setting, data, 0, 1)  # does what a process does once
    few, more = (learn(setting, data, 0, steps)[1] for steps in TIMED_STEPS)
    return (more - few) / (TIMED_STEPS[1] - TIMED_STEPS[0])


def measure(setting: Setting, data: DataSet, seed: int) -> dict[str, Any]:
    steps = round(SECONDS[setting.size] / seconds_a_step(setting, data))
    model, used = learn(setting, data, seed, steps)
    model.consistent = True
    bits = evaluate(model, data.held_out, batch_size=8, limit=data.scored).factors[0]
    return {"steps": steps, "seconds": used, "bits_per_dim": bits}


def rows(results: list[dict[str, Any]]) -> Iterator[str]:
    """Format the means and standard deviations over the seeds as a table, line by line."""
    yield "| factor | setting | faces | steps | photographs | steps |"
    yield "|---|---|---|---|---|---|"
    for setting in SETTINGS:
        cells = [setting.size, setting.name]
        for data in ("faces", "photographs"):
            key = {"size": setting.size, "setting": setting.name, "data": data}
            found = [each for each in results if key.items() <= each.items()]
            bits = [each["bits_per_dim"] for each in found]
            spread = f" ± {statistics.stdev(bits):.3f}" if len(bits) > 1 else ""
            cells += [f"{statistics.mean(bits):.3f}{spread}" if bits else ""]
            cells += [f"{statistics.mean(each['steps'] for each in found):,.0f}" if bits else ""]
        yield f"| {' | '.join(cells)} |"


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Plot a dot for each run, in a row for each setting of the small factor."""
    from matplotlib.figure import Figure

    figure = Figure((9, 6), layout="constrained")
    names = [setting.name for setting in SETTINGS if setting.size == "small"][::-1]
    for axes, data in zip(figure.subplots(1, 2, sharey=True), ("faces", "photographs"), strict=True):
        found = [each for each in results if each["data"] == data and each["size"] == "small"]
        axes.scatter([each["bits_per_dim"] for each in found], [names.index(each["setting"]) for each in found], s=14)
        axes.set(title=data, xlabel="bits per dimension", yticks=range(len(names)), yticklabels=names)
        axes.grid(axis="y", alpha=0.3)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--hours", type=float, default=math.inf, help="start no new run after this many hours")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(arguments.json.read_text())["results"] if arguments.json.exists() else []
    started = time.monotonic()
    sets = open_data(arguments.data)
    # All settings with one seed before the next seed, so that an early end leaves complete rows.
    for seed in SEEDS:
        for setting in SETTINGS:
            for data in sets:
                key = {"size": setting.size, "setting": setting.name, "data": data.name, "seed": seed}
                if any(key.items() <= each.items() for each in results):
                    continue
                if time.monotonic() - started > 3600 * arguments.hours:
                    break
                results.append(key | measure(setting, data, seed))
                write_json(arguments.json, {"results": results})
                print(results[-1], flush=True)
    print("\n".join(rows(results)))
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
