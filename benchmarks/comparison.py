"""Compare PixelCNN++, Grayscale and Pyramid models of about the same size, trained for the same minutes.

    python benchmarks/comparison.py --data FOLDER --runs FOLDER [--json FILE] [--images cifar10] [--images faces]
        [--minutes 2.5] [--seeds 3] [--figures FOLDER] [--quick]
    python benchmarks/comparison.py --data FOLDER --runs FOLDER --measure-only
    python benchmarks/comparison.py --time --json FILE
    python benchmarks/comparison.py --table --json FILE

The paper says that auxiliary variables improve the global structure of samples, and that the Pyramid samples faster.
The data folder holds `cifar10-jpeg` and `celeba-32x32`, each a folder that `load_images` opens.

The minutes are for a whole model, split among its factors by `SHARES`. They are turned into steps by rates that are
measured first (`--measure-only`), in one process, with all factors taking turns, so that other work on the machine does
not favor one of them. All processes that use the same folder of runs use its rates, so several can run at once, each on
other images; the JSON file has everything that any of them has finished. Finished runs are not repeated, and
interrupted ones are resumed.

Bits per dimension are measured on the first test images, both as the models were trained (free) and consistently; for
PixelCNN++ the two are the same. Equally many images are drawn in both ways, the consistent ones given the coarsest
views of the free ones.

Structure is the Fréchet distance between two Gaussians, one fitted to samples, and one to all test images and their
mirror images (models are trained on both). They are fitted to the averages of the 4x4 squares of 8x8 pixels: 48 numbers
in [0, 1]. Each is a mean of 64 pixels, in which texture, edges and independent noise nearly cancel: what is left is
where light and color lie in an image (mean), and how places 8 or more pixels apart vary together (covariance). The
distance is blind to detail, and to anything beyond pairs. Averages of 4x4 pixels would be 192 numbers, too many for the
covariance of so few samples. The distance of a finite sample is too large even for perfect samples, by about the same
amount for all models: the floor is the mean distance of several draws of equally many real training images.

The second measure looks inside each image: the correlation between a strip of 8 pixels at the left border, averaged
over 4x4 pixels, and the mirrored strip at the right border, 16 pixels away, after subtracting the mean image of the
set. In real images the backgrounds on the two sides are related, and in faces the hair and the light. A model that
forgets the left side of an image before it draws the right one has too low a correlation, however good its texture, and
one that drifts into a single color has too high a one: what counts is how close it comes to real images. Both measures
behave as they should on 256 real images (CIFAR-10): noise with a standard deviation of 40 levels hardly moves them
(0.046 and 0.57; without it 0.039 and 0.59), but taking the right half of each image from another one does (0.41 and
-0.01).

`--time` needs an idle machine. It draws with random weights, since the speed does not depend on them.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor

from pixelcnn.common.files import read_json, write_json
from pixelcnn.data.images import Images, load_images
from pixelcnn.models.draw import DrawOptions
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import save
from pixelcnn.models.presets import GrayscalePixelCNN, PixelCNN, PyramidPixelCNN
from pixelcnn.models.sampling import sample, sample_views
from pixelcnn.nn.layers import evaluating
from pixelcnn.pictures.sheets import Strip, save_picture, sheet
from pixelcnn.training.history import HISTORY
from pixelcnn.training.loop import train
from pixelcnn.training.options import Run, Training

SIDE = 32
SETS = {"cifar10": "cifar10-jpeg", "faces": "celeba-32x32"}
TITLES = {"cifar10": "CIFAR-10", "faces": "faces"}
WAYS = {"free": False, "consistent": True}
# Widths are multiples of 8, since a bf16 step with 36 filters takes as long as one with 40.
MODELS: dict[str, Callable[..., ImageModel]] = {
    "PixelCNN++": lambda **common: PixelCNN(filters=32, blocks=2, scales=3, **common),
    "Grayscale": lambda **common: GrayscalePixelCNN(
        filters=(32, 24), blocks=2, scales=(1, 3), embedding_blocks=1, embedding_scales=2, **common
    ),
    "Pyramid": lambda **common: PyramidPixelCNN(
        2, filters=(24, 32, 32), blocks=(2, 3, 3), embedding_blocks=1, **common
    ),
}
SHARES = {"PixelCNN++": (1.0,), "Grayscale": (0.4, 0.6), "Pyramid": (0.45, 0.3, 0.25)}  # the finest factor first
VIEWS = {"Grayscale": "gray view", "Pyramid": "8x8 view"}  # the coarsest
ALIKE = 0.05  # the share by which numbers of parameters may differ
TRAINING = Training(batch_size=16, learning_rate=2e-3, average=0.998, bf16=True)
LAST_RATE = 0.2  # what is left of the learning rate at the end, as a share
SCORED_AT_ONCE, DRAWN_AT_ONCE = 32, 128
SHOWN = 10  # images in a row of a picture
REAL_DRAWS = 20


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        scored, drawn: numbers of images.
        rounds, seconds: of the calibration; the seconds are those of each factor in each round.
    """

    scored: int = 1000
    drawn: int = 256
    rounds: int = 5
    seconds: float = 5.0


QUICK = Effort(scored=32, drawn=64, rounds=2, seconds=2.0)


def make_model(name: str, seed: int = 0) -> ImageModel:
    torch.manual_seed(seed)
    return MODELS[name](dropout=0.0, consistent=False)


def count_parameters() -> dict[str, list[int]]:
    """Count the parameters of each factor of each model, and raise an error where the totals differ too much."""
    numbers = {name: [sum(p.numel() for p in f.parameters()) for f in make_model(name).factors] for name in MODELS}
    totals = [sum(each) for each in numbers.values()]
    if max(totals) > (1 + ALIKE) * min(totals):
        raise ValueError(f"models with {numbers} parameters: choose sizes whose totals differ by at most {ALIKE:.0%}")
    return numbers


def seconds_a_step(images: Images, effort: Effort) -> dict[str, list[float]]:
    """Measure each factor of each model, all taking turns: medians over the lines of their histories."""
    with tempfile.TemporaryDirectory() as folder:
        turns = [(name, k, Path(folder) / name) for name in MODELS for k in range(len(SHARES[name]))]
        for turn in range(effort.rounds):
            for name, k, run in turns:
                options = Run(factor=k, resume=run.exists(), sheet_minutes=0)
                train(make_model(name), images, run, TRAINING, minutes=(turn + 1) * effort.seconds / 60, run=options)
        seconds: dict[str, list[float]] = {}
        for name, k, run in turns:
            rates = [line["images_per_second"] for line in read_history(run / f"factor-{k}")]
            seconds.setdefault(name, []).append(TRAINING.batch_size / statistics.median(rates))
    return seconds


def read_history(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / HISTORY).read_text().splitlines()]


def find_rates(runs: Path, data: Path, effort: Effort) -> dict[str, Any]:
    """Read the rates that all runs in a folder share, or measure them if they are missing."""
    path = runs / "rates.json"
    with FileLock(runs / ".rates.lock"):
        if not path.exists():
            images = load_images(data / SETS["cifar10"], "train", size=SIDE, progress=True)
            rates = {"threads": torch.get_num_threads(), "seconds_a_step": seconds_a_step(images, effort)}
            write_json(path, rates)
    return read_json(path)


def steps_of(name: str, rates: dict[str, Any], minutes: float) -> list[int]:
    """Turn minutes into steps of each factor, the finest first."""
    pairs = zip(SHARES[name], rates["seconds_a_step"][name], strict=True)
    return [max(1, round(60 * minutes * share / seconds)) for share, seconds in pairs]


def train_model(name: str, images: Images, folder: Path, steps: Sequence[int], seed: int) -> ImageModel:
    """Train each factor in a run of its own, since each has its own decay of the rate, and put them together."""
    model = make_model(name, seed)
    for k in reversed(range(len(steps))):
        path = folder / f"training-{k}"
        training = replace(TRAINING, decay=LAST_RATE ** (1 / steps[k]), seed=seed)
        resume = (path / "run.json").exists()
        run = Run(k, resume=resume, overwrite=not resume, save_minutes=1, sheet_minutes=0, progress=True)
        train(model, images, path, training, steps=steps[k], run=run)
    save(model, folder)
    return model


def score(model: ImageModel, images: Images, limit: int) -> dict[str, list[float]]:
    """Measure bits per dimension in both ways, with one pass of the networks: the total, then the factors."""
    number = min(limit, len(images))
    nats = {way: torch.zeros(len(model.factors), dtype=torch.float64) for way in WAYS}
    with evaluating():
        for start in range(0, number, SCORED_AT_ONCE):
            x = images.batch(range(start, min(start + SCORED_AT_ONCE, number)))
            for k, (view, given) in enumerate(model.links(x)):
                factor = model.factors[k]
                params = factor.params(view, given)
                for way, consistent in WAYS.items():
                    nats[way][k] -= factor.log_prob_of(params, view, given, consistent=consistent).double().sum()
    bits = {way: each / (math.log(2) * number * images[0].numel()) for way, each in nats.items()}
    return {way: [float(each.sum()), *each.tolist()] for way, each in bits.items()}


def draw(model: ImageModel, n: int, seed: int) -> dict[str, Tensor]:
    """Draw views in both ways, with the coarsest view in common: `free-0` and `consistent-0` are the images."""
    drawn: dict[str, list[Tensor]] = {}
    last = len(model.auxiliaries)
    for start in range(0, n, DRAWN_AT_ONCE):
        number, first = min(DRAWN_AT_ONCE, n - start), 1000 * seed + start
        free, consistent = (DrawOptions(consistent=way) for way in WAYS.values())
        views = dict(sample_views(model, number, SIDE, seed=first, options=free))
        given = (last, views[last])
        finer = sample_views(model, number, SIDE, seed=first, given=given, options=consistent) if last else ()
        for way, found in (("free", views), ("consistent", {last: views[last], **dict(finer)})):
            for k, view in found.items():
                drawn.setdefault(f"{way}-{k}", []).append(view)
    return {name: torch.cat(batches) for name, batches in drawn.items()}


Moments = tuple[Tensor, Tensor]


def moments(x: Tensor) -> Moments:
    """Measure mean (48,) and covariance (48, 48) of the averages over 8x8 pixels of images (n, 3, 32, 32)."""
    numbers = F.avg_pool2d(x.double() / 255, 8).flatten(1)
    return numbers.mean(0), numbers.T.cov()


def frechet_distance(a: Moments, b: Moments) -> float:
    """Compute the distance of two Gaussians: `|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))`."""
    values, vectors = torch.linalg.eigh(a[1])
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # C_a C_b has the eigenvalues of this symmetric matrix.
    shared = torch.linalg.eigvalsh(root @ b[1] @ root).clamp(min=0).sqrt().sum()
    return float((a[0] - b[0]).square().sum() + a[1].trace() + b[1].trace() - 2 * shared)


def correlation_of_sides(x: Tensor) -> float:
    """Correlate the left quarter of images (n, 3, 32, 32) with the mirrored right one."""
    view = F.avg_pool2d(x.double() / 255, 4)
    view = view - view.mean(0)
    left, right = view[..., :2], view[..., -2:].flip(-1)
    return float((left * right).sum() / (left.square().sum() * right.square().sum()).sqrt())


def structure(x: Tensor, real: Moments) -> dict[str, float]:
    return {"frechet": frechet_distance(moments(x), real), "sides": correlation_of_sides(x)}


def real_moments(test: Images) -> Moments:
    x = test.batch(range(len(test)))
    return moments(torch.cat([x, x.flip(-1)]))


def real_structure(train_images: Images, real: Moments, number: int) -> list[dict[str, float]]:
    """Measure random subsets of the training images, half of the images mirrored as in training."""
    random, found = np.random.default_rng(0), []
    for _ in range(REAL_DRAWS):
        x = train_images.batch(random.choice(len(train_images), number, replace=False))
        mirrored = torch.from_numpy(random.random(number) < 0.5)[:, None, None, None]
        found.append(structure(torch.where(mirrored, x.flip(-1), x), real))
    return found


def measure(
    name: str, sets: dict[str, Images], real: Moments, folder: Path, steps: Sequence[int], seed: int, effort: Effort
) -> None:
    """Train, score and draw from one model, unless its results exist."""
    if (folder / "results.json").exists():
        return
    model = train_model(name, sets["train"], folder, steps, seed)
    clock = [time.perf_counter()]
    bits = score(model, sets["test"], effort.scored)
    clock.append(time.perf_counter())
    drawn = draw(model, effort.drawn, seed)
    clock.append(time.perf_counter())
    save_file(drawn, folder / "samples.safetensors")
    ends = [read_history(folder / f"training-{k}" / f"factor-{k}")[-1] for k in range(len(steps))]
    results = {
        "bits_per_dim": bits,
        "structure": {way: structure(drawn[f"{way}-0"], real) for way in WAYS},
        "seconds": {
            "training": [end["seconds"] for end in ends],
            "scoring": clock[1] - clock[0],
            "drawing": clock[2] - clock[1],
        },
    }
    write_json(folder / "results.json", results)


def picture(runs: Path, images: str, path: Path) -> None:
    """Save samples of the first seed of each model: free ones, their coarsest views, and MAP samples."""
    strips: list[Strip] = []
    for name in MODELS:
        folder = runs / f"{images}-{name}-0"
        model, views = make_model(name), load_file(folder / "samples.safetensors")
        model.load_state_dict(load_file(folder / "model.safetensors"))
        last = len(model.auxiliaries)
        strips.append((f"{name}: samples", views["free-0"][:SHOWN], model.levels))
        if last:
            strips.append(
                (f"{name}: the {VIEWS[name]} of each sample", views[f"free-{last}"][:SHOWN], model.formats[last][1])
            )
        strips.append(
            (f"{name}: MAP sampling", sample(model, SHOWN, SIDE, options=DrawOptions(map=True)), model.levels)
        )
    save_picture(sheet(strips, height=2 * SIDE), path)


def time_sampling(repeats: int = 3) -> dict[str, Any]:
    """Time the drawing of a few images, the models taking turns: median seconds, and the ratio to PixelCNN++."""
    models = {name: make_model(name).eval() for name in MODELS}
    cases = [(name, way) for name in MODELS for way in WAYS if VIEWS.get(name) or way == "free"]
    results: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    for n in (16, 1):
        times: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
        for repeat in range(repeats + 1):
            for name, way in cases:
                start = time.perf_counter()
                sample(models[name], n, SIDE, options=DrawOptions(consistent=WAYS[way]))
                if repeat > 0:  # the first one also allocates what later ones reuse
                    times[name, way].append(time.perf_counter() - start)
        medians = {case: statistics.median(each) for case, each in times.items()}
        results[f"images-{n}"] = [
            {"model": name, "way": way, "seconds": seconds, "faster": medians["PixelCNN++", "free"] / seconds}
            for (name, way), seconds in medians.items()
        ]
    return results


def add_to_json(path: Path | None, found: dict[str, Any]) -> None:
    """Add results to the JSON file, replacing those of the same name."""
    if path is not None:
        write_json(path, (read_json(path) if path.exists() else {}) | found)


def collect(runs: Path, seeds: int) -> dict[str, Any]:
    """Collect the results of all finished runs in a folder, those of other processes too."""
    results: dict[str, Any] = {}
    for images in SETS:
        folders = {
            name: [runs / f"{images}-{name}-{seed}" / "results.json" for seed in range(seeds)] for name in MODELS
        }
        finished = {name: [read_json(path) for path in paths if path.exists()] for name, paths in folders.items()}
        if any(finished.values()):
            results[images] = {"real": read_json(runs / f"{images}-real.json")["draws"], "models": finished}
    return results


def mean(values: Sequence[float], digits: int = 3) -> str:
    """Format the mean, with the standard deviation where there are several values."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)) + "\n"


def tables(results: dict[str, Any]) -> str:
    """Format all results as Markdown: what was trained, bits per dimension, structure, sampling time."""
    found = []
    if "steps" in results:
        rows = [
            [name, f"{sum(each):,}", *(" + ".join(f"{n:,}" for n in part) for part in (each, results["steps"][name]))]
            for name, each in results["parameters"].items()
        ]
        found.append(markdown(["model", "parameters", "of the factors, finest first", "steps"], rows))
        bits, structures = [], []
        for images, of_set in results["images"].items():
            for name, runs in of_set["models"].items():
                if not runs:
                    continue
                for way in WAYS:
                    if way == "free" or name in VIEWS:
                        columns = list(zip(*(run["bits_per_dim"][way] for run in runs), strict=True))
                        factors = " + ".join(mean(column) for column in columns[1:])
                        label = way if name in VIEWS else "either"
                        bits.append([TITLES[images], name, label, mean(columns[0]), factors])
                        measures = [[run["structure"][way][key] for run in runs] for key in ("frechet", "sides")]
                        structures.append([TITLES[images], name, label, *map(mean, measures)])
            real = [mean([each[key] for each in of_set["real"]]) for key in ("frechet", "sides")]
            structures.append([TITLES[images], "real training images", "", *real])
        header = ["images", "model", "scored", "bits per dimension", "of the factors, finest first"]
        found.append(markdown(header, bits))
        found.append(
            markdown(["images", "samples of", "drawn", "Fréchet distance", "correlation of sides"], structures)
        )
    if "sampling_time" in results:
        timed = results["sampling_time"]
        rows = [
            [one["model"], one["way"] if one["model"] in VIEWS else "either"]
            + [f"{case['seconds']:.3f} ({case['faster']:.1f})" for case in (sixteen, one)]
            for sixteen, one in zip(timed["images-16"], timed["images-1"], strict=True)
        ]
        header = ["model", "drawn", "seconds for 16 images (times faster than PixelCNN++)", "for one image"]
        found.append(markdown(header, rows))
    return "\n".join(found)


def run_all(options: argparse.Namespace, effort: Effort) -> None:
    numbers = count_parameters()
    options.runs.mkdir(parents=True, exist_ok=True)
    rates = find_rates(options.runs, options.data, effort)
    steps = {name: steps_of(name, rates, options.minutes) for name in MODELS}
    print(f"parameters {numbers}\nrates {rates}\nsteps of each factor {steps}", flush=True)
    if options.measure_only:
        return
    runs = options.runs / f"{options.minutes:g}-minutes"
    for images in options.images or SETS:
        folder = options.data / SETS[images]
        sets = {split: load_images(folder, split, size=SIDE, progress=True) for split in ("train", "test")}
        real = real_moments(sets["test"])
        write_json(runs / f"{images}-real.json", {"draws": real_structure(sets["train"], real, effort.drawn)})
        for seed in range(options.seeds):
            for name in MODELS:
                run = runs / f"{images}-{name}-{seed}"
                measure(name, sets, real, run, steps[name], seed, effort)
                print(f"{images}, {name}, seed {seed}: {(run / 'results.json').read_text()}", flush=True)
        if options.figures:
            picture(runs, images, options.figures / f"comparison-{images}.png")
    about = {"minutes": options.minutes, "shares": SHARES, "parameters": numbers, "rates": rates, "steps": steps}
    about |= {"scored": effort.scored, "drawn": effort.drawn}
    add_to_json(options.json, about | {"images": collect(runs, options.seeds)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the sets of images")
    parser.add_argument("--runs", type=Path, help="folder for the rates and the trained models")
    parser.add_argument("--json", type=Path, help="also add the results to this file")
    parser.add_argument("--images", action="append", choices=SETS, help="both by default")
    parser.add_argument("--minutes", type=float, default=2.5, help="training time of a model, all factors together")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--figures", type=Path, help="folder for the pictures of samples")
    parser.add_argument("--quick", action="store_true", help="few images and short rounds, to see that it runs")
    parser.add_argument("--measure-only", action="store_true", help="measure the rates, if they are missing, and stop")
    parser.add_argument("--time", action="store_true", help="measure how long sampling takes, and nothing else")
    parser.add_argument("--table", action="store_true", help="print the results in the JSON file as Markdown")
    options = parser.parse_args()
    if options.table or options.time:
        if options.table and options.json is None:
            parser.error("--table prints the results in a JSON file: name it with --json")
        if options.time:
            timed = time_sampling()
            print(json.dumps(timed, indent=2))
            add_to_json(options.json, {"sampling_time": timed})
        if options.table:
            print(tables(read_json(options.json)))
        return
    if options.data is None or options.runs is None:
        parser.error("name --data and --runs; only --time and --table do without")
    run_all(options, QUICK if options.quick else Effort())


if __name__ == "__main__":
    main()
