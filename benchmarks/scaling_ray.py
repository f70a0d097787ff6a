"""What Ray costs: work on 20, 200 and 2,000 small pictures, against a plain loop and against one process.

Three ways to score the same pictures, each in a process of its own and on one thread:

- loop: `pixelcnn.tasks.score_pictures`, with the scores in a list;
- local: `pixelcnn.cluster.score` in one process, with files and a manifest;
- ray: the same with Ray Data and one worker, so that it is compared with one process.

Seconds are counted from the call to the end of the work. What it takes to start (Ray, a worker that imports torch, and
the model) is measured with one picture and subtracted; it is listed by itself.

    python benchmarks/scaling_ray.py [--numbers 20 200 2000] [--repeat 3] [--json FILE]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

import pixelcnn
from pixelcnn.pictures import Pictures, find_pictures
from pixelcnn.tasks import score_pictures

WAYS, SIDE, MODEL = ("loop", "local", "ray"), 32, "photos-pyramid"


def save_pictures(folder: Path, number: int) -> Path:
    """Save pictures of noise."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for i in range(number):
        Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(folder / f"{i:06d}.png")
    return folder


def measure(way: str, folder: Path, out: Path) -> float:
    """Score a folder of pictures one way, and return the seconds that it took."""
    import torch

    torch.set_num_threads(1)
    model = pixelcnn.load(MODEL)
    start = time.perf_counter()
    if way == "loop":
        pictures = Pictures(find_pictures([str(folder)], [], print), 3, print)
        scores = list(score_pictures(model, pictures))
        assert scores
    else:
        workers = 1 if way == "ray" else None
        engine = pixelcnn.cluster.Engine(way, workers=workers, device="cpu")
        assert not pixelcnn.cluster.score(folder, model, out, engine)["failed"]
    return time.perf_counter() - start


def run(way: str, folder: Path) -> float:
    """Measure in a process of its own."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, __file__, "--way", way, "--folder", str(folder), "--out", f"{out}/results"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return float(ended.stdout.splitlines()[-1])


def compare(numbers: list[int], repeat: int) -> dict[str, Any]:
    """Measure all ways, taking turns, and return medians."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        one = save_pictures(Path(temporary, "1"), 1)
        start = {way: median(run(way, one) for _ in range(repeat)) for way in WAYS}
        for number in numbers:
            folder = save_pictures(Path(temporary, f"{number}-pictures"), number)
            turns = [{way: run(way, folder) for way in WAYS} for _ in range(repeat)]
            whole = {way: median(turn[way] for turn in turns) for way in WAYS}
            net = {way: whole[way] - start[way] for way in WAYS}
            more = {way: 1000 * (whole[way] - whole["loop"]) / number for way in ("local", "ray")}
            rows.append(
                {
                    "pictures": number,
                    "seconds": whole,
                    "seconds_after_start": net,
                    "times_the_loop_after_start": {way: net[way] / net["loop"] for way in ("local", "ray")},
                    "milliseconds_more_for_each_picture": more,
                }
            )
    return {"model": MODEL, "side": SIDE, "seconds_to_start": start, "load": os.getloadavg()[0], "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numbers", type=int, nargs="+", default=[20, 200, 2000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(measure(options.way, options.folder, options.out))
        return
    result = compare(options.numbers, options.repeat)
    print(f"seconds to start: {', '.join(f'{way} {value:.1f}' for way, value in result['seconds_to_start'].items())}")
    print("pictures" + "".join(f"{way:>10}" for way in WAYS) + "   ray/loop   ray: ms more a picture, start included")
    for row in result["rows"]:
        times, more = row["times_the_loop_after_start"]["ray"], row["milliseconds_more_for_each_picture"]["ray"]
        seconds = "".join(f"{row['seconds_after_start'][way]:>10.1f}" for way in WAYS)
        print(f"{row['pictures']:>8}{seconds}{times:>11.2f}{more:>12.1f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
