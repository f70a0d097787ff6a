"""Compare two processes of one thread with one process of two, for training, scoring and coding.

    python benchmarks/scaling.py --json benchmarks/scaling.json

Each pair takes turns. *Efficiency* is the speed of two processes together over that of one process with two threads:
above 1, sharing the work among processes pays. Starting is left out of the speeds, and reported by itself: the seconds
from the command to the first image. `scaling_ray.py` measures Ray.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pixelcnn.common.files import write_json

REPEATS = 3
RECIPE, STEPS, BATCH, SIZE = "photos32-pyramid-small", 40, 16, 32
MODEL, SIDE, PICTURES = "photos-pyramid", 64, 64
HOUR = 3600
CODING = f"""
import sys, time
import pixelcnn
from pixelcnn.models.codec import Codec
from pixelcnn.data.originals import Original
import torch

first, number, threads = map(int, sys.argv[1:])
torch.set_num_threads(threads)
photos = pixelcnn.load_images("photos", "train", size={SIDE})
codec = Codec(pixelcnn.load("{MODEL}"))
originals = [Original(photos[i]) for i in range(first, first + number)]
codec.compress(originals[:1])
print("ready", flush=True)
sys.stdin.readline()
start = time.perf_counter()
for original in originals:
    codec.compress([original])
print(time.perf_counter() - start, flush=True)
"""


def run(command: list[str], threads: int) -> tuple[str, float]:
    """Run a command with so many threads in each process; return its output and its seconds."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout, time.perf_counter() - start


def command(processes: int, *arguments: object) -> list[str]:
    """Make a command line of `pixelcnn`, for one process or for several that `torchrun` starts."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *(launcher if processes > 1 else []), "-m", "pixelcnn", *map(str, arguments)]


def train(processes: int, threads: int) -> tuple[float, float]:
    """Train the finest factor; return images a second after the first lines of its history, and the seconds before."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("--factor", 0, "--steps", STEPS, "--batch-size", BATCH, "--size", SIZE, "--sheet-minutes", 0)
        _, seconds = run(command(processes, "train", RECIPE, *options, "--out", Path(folder) / "run"), threads)
        lines = (Path(folder) / "run" / "factor-0" / "history.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    return BATCH * last["step"] / last["seconds"], seconds - last["seconds"]


def score(processes: int, threads: int) -> tuple[float, float]:
    """Score photographs; return images a second, and the seconds besides."""
    options = ("--data", "photos", "--split", "train", "--size", SIDE, "--limit", PICTURES, "--batch-size", 8, "--json")
    output, seconds = run(command(processes, "evaluate", MODEL, *options), threads)
    found = json.loads(output)
    return found["images_per_second"], seconds - found["images"] / found["images_per_second"]


def code(processes: int, threads: int) -> tuple[float, float]:
    """Compress photographs one by one; return images a second of all processes together, and the seconds to begin."""
    share = PICTURES // processes
    environment, start = os.environ | {"OMP_NUM_THREADS": str(threads)}, time.perf_counter()
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    coders = [
        subprocess.Popen([sys.executable, "-c", CODING, *map(str, (i * share, share, threads))], **pipes)
        for i in range(processes)
    ]
    for coder in coders:
        assert coder.stdout is not None
        assert coder.stdout.readline() == "ready\n"
    begun = time.perf_counter() - start
    for coder in coders:
        assert coder.stdin is not None
        coder.stdin.write("\n")
        coder.stdin.flush()
    seconds = max(float(coder.communicate()[0]) for coder in coders)
    return PICTURES / seconds, begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    path = parser.parse_args().json
    works: dict[str, Callable[[int, int], tuple[float, float]]] = {"training": train, "scoring": score, "coding": code}
    found = {}
    for name, work in works.items():
        turns = [(work(1, 2), work(2, 1)) for _ in range(REPEATS)]
        one, two = (statistics.median(turn[i][0] for turn in turns) for i in range(2))
        found[name] = {
            "one_process_of_two_threads": one,
            "two_processes_of_one_thread": two,
            "efficiency": statistics.median(both[0] / alone[0] for alone, both in turns),
            "images_an_hour": HOUR * max(one, two),
            "seconds_to_start_one": statistics.median(alone[1] for alone, _ in turns),
            "seconds_to_start_two": statistics.median(both[1] for _, both in turns),
        }
        print(name, {key: round(value, 2) for key, value in found[name].items()}, flush=True)
    write_json(path, found)


if __name__ == "__main__":
    main()
