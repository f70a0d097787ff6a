"""Measure the memory of training, and find the largest batches that fit a GPU.

    python benchmarks/memory.py [--recipe NAME] [--json FILE] steps|batches

`steps` trains the factor of the image for one step at the recipe's batch size, in a process of its own for each way of
saving memory, on pictures of random noise. It reports the estimate that is printed before the step, the largest
resident memory of the process, the seconds of the step, and the CPU seconds of the whole process. The first run begins
with fresh weights, so its peak includes the data-dependent initialization; the others begin with what the first one
saved. A way that needs more memory than is free is refused by the program, and its message is reported instead.

`batches` computes, from the estimates alone, the largest number of images that a GPU of 24 or 80 GB can compute at
once, for each factor, with and without `--recompute`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelcnn.training.loop import INITIAL_IMAGES
from pixelcnn.training.memory import GPU, largest_batch
from pixelcnn.training.options import Training
from pixelcnn.zoo import find_recipe

PICTURES = 16
SIZES = (24, 80)  # GB of a GPU
# The fresh start comes first, since the others begin with its weights.
WAYS = [["--recompute"], ["--recompute"], ["--accumulate", "2"], ["--accumulate", "2", "--recompute"], []]


def save_noise(folder: Path, side: int) -> None:
    """Save pictures of random noise."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(PICTURES):
        Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / f"{i}.png")


def measure_step(recipe: str, pictures: Path, out: Path, options: list[str]) -> dict[str, Any]:
    """Train for one step in a process of its own."""
    arguments = ["train", recipe, "--data", pictures, "--factor", 0, "--steps", 1, "--sheet-minutes", 0]
    command = [sys.executable, "-m", "pixelcnn", *arguments, "--device", "cpu", "--out", out, *options]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([str(each) for each in command], stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        lines = [line.strip() for line in errors]
    said = [line for line in lines if line.startswith(("factor 0:", "pixelcnn:"))]
    result: dict[str, Any] = {"options": " ".join(options), "said": (said or lines)[0 if said else -1]}
    if process.returncode == 0:
        history = (out / "factor-0" / "history.jsonl").read_text().splitlines()
        result |= {"peak GB": usage.ru_maxrss * 1024 / 1e9, "seconds": json.loads(history[-1])["seconds"]}
        result |= {"CPU seconds": usage.ru_utime + usage.ru_stime}
    return result


def measure_steps(name: str) -> list[dict[str, Any]]:
    """Measure all ways of training the factor of the image."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        save_noise(pictures, find_recipe(name).size)
        for i, way in enumerate(WAYS):
            start = ["--from", f"{folder}/0"] if i > 0 else []
            results.append(measure_step(name, pictures, Path(folder) / str(i), [*way, *start]))
            results[-1]["options"] = " ".join([*way, *(["fresh"] if i == 0 else [])])
            print(results[-1], flush=True)
    return results


def find_batches(name: str) -> list[dict[str, Any]]:
    """Find the largest batches that fit, for each factor and each size of a GPU."""
    recipe, results = find_recipe(name), []
    model, size = recipe.model(), (recipe.size, recipe.size)
    for k, (H, W) in enumerate(model.sizes(size)):
        result: dict[str, Any] = {"factor": k, "size": f"{W}x{H}"}
        for gigabytes in SIZES:
            for recompute in (False, True):
                way = Training(recompute=recompute)
                images = largest_batch(model, k, size, INITIAL_IMAGES, way, gigabytes * 10**9, margin=GPU)
                result[f"{gigabytes} GB{', --recompute' if recompute else ''}"] = images
        results.append(result)
        print(result, flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["steps", "batches"])
    parser.add_argument("--recipe", default="celeba128-pyramid")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = (measure_steps if options.what == "steps" else find_batches)(options.recipe)
    if options.json:
        old = json.loads(options.json.read_text()) if options.json.exists() else {}
        options.json.write_text(json.dumps(old | {options.what: results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
