"""PixelCNN++, Grayscale and Pyramid with the same minutes and about the same parameters: is the paper's claim seen?

    python benchmarks/comparison.py --data FOLDER --runs FOLDER [--json FILE] [--images cifar10] [--images faces]
        [--minutes 2.5] [--seeds 3] [--figures FOLDER] [--quick]
    python benchmarks/comparison.py --data FOLDER --runs FOLDER --measure-only
    python benchmarks/comparison.py --time --json FILE
    python benchmarks/comparison.py --table --json FILE

The paper says that auxiliary variables give samples of a better global structure, and the Pyramid faster sampling.
FOLDER is that of the real data of the project (its README lists it): CIFAR-10 as JPEG, and faces, both at 32x32.

Minutes are those of a whole model, shared among its factors by `SHARES`. They become steps by rates that are measured
first (`--measure-only`), in one process, all factors in turns, so that what else the machine does meanwhile changes
nothing. All that share a folder of runs share its rates, so that several processes can run at once, each for other
images: the JSON file has what all of them have finished, and is complete when the last of them ends. Runs that are
finished are not repeated, and interrupted ones go on.

Bits per dimension are those of the first test images, scored free, as trained, and consistent; for PixelCNN++ these
are one. Drawn are as many images in both ways, the consistent ones from the coarsest views of the free ones.

Structure is the Fréchet distance between two Gaussians, one fitted to samples and one to all test images and their
mirror images (models are trained on both). What is fitted is 4x4 averages of squares of 8x8 pixels, 48 numbers in
[0, 1]. Each is a mean of 64 pixels, so texture, edges and independent noise are all but averaged out: what is left is
where light and colour lie in an image (mean) and what goes with what over distances from 8 pixels on (covariance). It
is blind to all detail, and a Gaussian to all but pairs. 8x8 averages would be 192 numbers, too many for the covariance
of so few samples. A distance from a finite sample is too large even for perfect samples, by about as much for all
models: the floor is the same distance of as many real training images, the mean over several draws of them.

The second measure looks inside images: the correlation of a strip of 8 pixels at the left border, in 8x8 averages, with
the mirrored one at the right border, 16 pixels away, after the mean image of the set is subtracted. In real images the
background, and in faces the hair and the light, go with each other there; a model that forgets the left side of an
image before it draws the right one has too low a correlation, however good its texture, and one that drifts into one
colour too high a one: what counts is how near it is to that of real images. Both measures do what they should on 256
real images (CIFAR-10): noise of a standard deviation of 40 levels leaves them where they are (0.046 and 0.57; without
it 0.039 and 0.59), the right half of each image taken from another one does not (0.41 and -0.01).

`--time` wants an idle machine. It draws from random weights, on which speed does not depend.
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
from pixelcnn.nn.layers import evaluating
from pixelcnn.pictures.sheets import Strip, save_picture, sheet
from pixelcnn.tasks.sampling import sample
from pixelcnn.training.history import HISTORY
from pixelcnn.training.loop import train
from pixelcnn.training.options import Run, Training

SIDE = 32
SETS = {"cifar10": "cifar10-jpeg", "faces": "celeba-32x32"}
TITLES = {"cifar10": "CIFAR-10", "faces": "faces"}
WAYS = {"free": False, "consistent": True}
# Widths are multiples of 8: in bf16 a step with 36 filters takes as long as one with 40.
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
VIEWS = {"Grayscale": "grey view", "Pyramid": "8x8 view"}  # the coarsest
ALIKE = 0.05  # by how much the numbers of parameters may differ
TRAINING = Training(batch_size=16, learning_rate=2e-3, average=0.998, bf16=True)
LAST_RATE = 0.2  # of the learning rate, at the end
SCORED_AT_ONCE, DRAWN_AT_ONCE = 32, 128
SHOWN = 10  # images in a row of a picture
REAL_DRAWS = 20


@dataclass(frozen=True)
class Effort:
    """How much is measured: images scored, images drawn, rounds and seconds of a factor in a round of calibration."""

    scored: int = 1000
    drawn: int = 256
    rounds: int = 5
    seconds: float = 5.0


QUICK = Effort(scored=32, drawn=64, rounds=2, seconds=2.0)


def make_model(name: str, seed: int = 0) -> ImageModel:
    torch.manual_seed(seed)
    return MODELS[name](dropout=0.0, consistent=False)


def parameters() -> dict[str, list[int]]:
    """Of each factor of each model; an error where the totals are not alike."""
    numbers = {name: [sum(p.numel() for p in f.parameters()) for f in make_model(name).factors] for name in MODELS}
    totals = [sum(each) for each in numbers.values()]
    if max(totals) > (1 + ALIKE) * min(totals):
        raise ValueError(f"models of {numbers} parameters: choose sizes whose totals differ by {ALIKE:.0%} at most")
    return numbers


def seconds_a_step(images: Images, effort: Effort) -> dict[str, list[float]]:
    """Of each factor of each model: the median over what the histories say, all factors taking turns."""
    with tempfile.TemporaryDirectory() as folder:
        turns = [(name, k, Path(folder) / name) for name in MODELS for k in range(len(SHARES[name]))]
        for turn in range(effort.rounds):
            for name, k, run in turns:
                options: dict[str, Any] = {"factor": k, "resume": run.exists(), "sheet_minutes": 0}
                train(make_model(name), images, run, TRAINING, minutes=(turn + 1) * effort.seconds / 60, **options)
        seconds: dict[str, list[float]] = {}
        for name, k, run in turns:
            rates = [line["images_per_second"] for line in history(run / f"factor-{k}")]
            seconds.setdefault(name, []).append(TRAINING.batch_size / statistics.median(rates))
    return seconds


def history(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / HISTORY).read_text().splitlines()]


def find_rates(runs: Path, data: Path, effort: Effort) -> dict[str, Any]:
    """What was measured once for all runs in a folder; measured now if it is not there."""
    path = runs / "rates.json"
    with FileLock(runs / ".rates.lock"):
        if not path.exists():
            images = load_images(data / SETS["cifar10"], "train", size=SIDE, progress=True)
            rates = {"threads": torch.get_num_threads(), "seconds_a_step": seconds_a_step(images, effort)}
            write_json(path, rates)
    return read_json(path)


def steps_of(name: str, rates: dict[str, Any], minutes: float) -> list[int]:
    """Of each factor, the finest first."""
    pairs = zip(SHARES[name], rates["seconds_a_step"][name], strict=True)
    return [max(1, round(60 * minutes * share / seconds)) for share, seconds in pairs]


def train_model(name: str, images: Images, folder: Path, steps: Sequence[int], seed: int) -> ImageModel:
    """Train each factor in a run of its own, since their learning rates do not fall alike; put them together."""
    model = make_model(name, seed)
    for k in reversed(range(len(steps))):
        run = folder / f"training-{k}"
        training = replace(TRAINING, decay=LAST_RATE ** (1 / steps[k]), seed=seed)
        resume = (run / "run.json").exists()
        options: dict[str, Any] = {"steps": steps[k], "factor": k, "sheet_minutes": 0, "progress": True}
        train(model, images, run, training, run=Run(resume=resume, overwrite=not resume, save_minutes=1), **options)
    save(model, folder)
    return model


def score(model: ImageModel, images: Images, limit: int) -> dict[str, list[float]]:
    """Bits per dimension in both ways, from one pass of the networks: the total, then the factors."""
    number = min(limit, len(images))
    nats = {way: torch.zeros(len(model.factors), dtype=torch.float64) for way in WAYS}
    with evaluating(model):
        for start in range(0, number, SCORED_AT_ONCE):
            x = images.batch(range(start, min(start + SCORED_AT_ONCE, number)))
            for k, (view, given) in enumerate(model.links(x)):
                factor = model.factors[k]
                params = factor.params(view, given)
                for way, consistent in WAYS.items():
                    levels, bounds = factor.likelihood.levels, None
                    if consistent and given is not None:
                        bounds = model.auxiliaries[k].bounds(view, given, levels)
                    nats[way][k] -= factor.likelihood.log_prob(params, view, bounds).double().sum()
    bits = {way: each / (math.log(2) * number * images[0].numel()) for way, each in nats.items()}
    return {way: [float(each.sum()), *each.tolist()] for way, each in bits.items()}


def draw(model: ImageModel, n: int, seed: int, **options: Any) -> dict[str, Tensor]:
    """Views drawn in both ways: `free-0` are the images. Both ways have the coarsest view in common."""
    drawn: dict[str, list[Tensor]] = {}
    last = len(model.auxiliaries)
    for start in range(0, n, DRAWN_AT_ONCE):
        number, batch = min(DRAWN_AT_ONCE, n - start), {"seed": 1000 * seed + start, **options}
        model.consistent = False
        free = sample(model, number, SIDE, **batch)
        model.consistent = True
        finer = sample(model, number, SIDE, given=(last, free[-1]), **batch) if last else []
        for way, views in (("free", free), ("consistent", [*finer, free[-1]])):
            for k, view in enumerate(views):
                drawn.setdefault(f"{way}-{k}", []).append(view)
    return {name: torch.cat(batches) for name, batches in drawn.items()}


Moments = tuple[Tensor, Tensor]


def moments(x: Tensor) -> Moments:
    """Mean (48,) and covariance (48, 48) of the 4x4 averages of images (n, 3, 32, 32)."""
    numbers = F.avg_pool2d(x.double() / 255, 8).flatten(1)
    return numbers.mean(0), numbers.T.cov()


def frechet_distance(a: Moments, b: Moments) -> float:
    """Of two Gaussians: `|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))`."""
    values, vectors = torch.linalg.eigh(a[1])
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # C_a C_b has the eigenvalues of this symmetric matrix.
    shared = torch.linalg.eigvalsh(root @ b[1] @ root).clamp(min=0).sqrt().sum()
    return float((a[0] - b[0]).square().sum() + a[1].trace() + b[1].trace() - 2 * shared)


def correlation_of_sides(x: Tensor) -> float:
    """Of the outer quarters of images (n, 3, 32, 32), one of them mirrored."""
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
    """The measures of draws of real training images, half of them mirrored as in training."""
    random, found = np.random.default_rng(0), []
    for _ in range(REAL_DRAWS):
        x = train_images.batch(random.choice(len(train_images), number, replace=False))
        mirrored = torch.from_numpy(random.random(number) < 0.5)[:, None, None, None]
        found.append(structure(torch.where(mirrored, x.flip(-1), x), real))
    return found


def measure(
    name: str, sets: dict[str, Images], real: Moments, folder: Path, steps: Sequence[int], seed: int, effort: Effort
) -> None:
    """Train, score and draw from one model, if that was not done."""
    if (folder / "results.json").exists():
        return
    model = train_model(name, sets["train"], folder, steps, seed)
    clock = [time.perf_counter()]
    bits = score(model, sets["test"], effort.scored)
    clock.append(time.perf_counter())
    drawn = draw(model, effort.drawn, seed)
    clock.append(time.perf_counter())
    save_file(drawn, folder / "samples.safetensors")
    results = {
        "bits_per_dim": bits,
        "structure": {way: structure(drawn[f"{way}-0"], real) for way in WAYS},
        "seconds": {
            "training": [history(folder / f"training-{k}" / f"factor-{k}")[-1]["seconds"] for k in range(len(steps))],
            "scoring": clock[1] - clock[0],
            "drawing": clock[2] - clock[1],
        },
    }
    write_json(folder / "results.json", results)


def picture(runs: Path, images: str, path: Path) -> None:
    """Samples of each model, of its first seed: free, with their coarsest view, and by MAP sampling."""
    strips: list[Strip] = []
    for name in MODELS:
        folder = runs / f"{images}-{name}-0"
        model, views = make_model(name), load_file(folder / "samples.safetensors")
        model.load_state_dict(load_file(folder / "model.safetensors"))
        last = len(model.auxiliaries)
        strips.append((f"{name}: samples", views["free-0"][:SHOWN], model.levels))
        if last:
            strips.append(
                (f"{name}: the {VIEWS[name]} of these samples", views[f"free-{last}"][:SHOWN], model.formats[last][1])
            )
        strips.append(
            (f"{name}: MAP sampling", sample(model, SHOWN, SIDE, options=DrawOptions(map=True))[0], model.levels)
        )
    save_picture(sheet(strips, height=2 * SIDE), path)


def time_sampling(repeats: int = 3) -> dict[str, Any]:
    """Median seconds for some images, the models taking turns, and how many times faster than PixelCNN++."""
    models = {name: make_model(name).eval() for name in MODELS}
    cases = [(name, way) for name in MODELS for way in WAYS if VIEWS.get(name) or way == "free"]
    results: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    for n in (16, 1):
        times: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
        for repeat in range(repeats + 1):
            for name, way in cases:
                models[name].consistent = WAYS[way]
                start = time.perf_counter()
                sample(models[name], n, SIDE)
                if repeat > 0:  # the first is for what is allocated once
                    times[name, way].append(time.perf_counter() - start)
        medians = {case: statistics.median(each) for case, each in times.items()}
        results[f"images-{n}"] = [
            {"model": name, "way": way, "seconds": seconds, "faster": medians["PixelCNN++", "free"] / seconds}
            for (name, way), seconds in medians.items()
        ]
    return results


def add_to_json(path: Path | None, found: dict[str, Any]) -> None:
    """Replace what is new in the file of figures; the rest stays."""
    if path is not None:
        write_json(path, (read_json(path) if path.exists() else {}) | found)


def collect(runs: Path, seeds: int) -> dict[str, Any]:
    """What is finished of all runs in a folder, other processes' too."""
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
    """The mean, and the standard deviation if there is one."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)) + "\n"


def tables(results: dict[str, Any]) -> str:
    """All figures as Markdown: what was trained, bits per dimension, structure, sampling time."""
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
            + [f"{case['seconds']:.2f} ({case['faster']:.1f})" for case in (sixteen, one)]
            for sixteen, one in zip(timed["images-16"], timed["images-1"], strict=True)
        ]
        header = ["model", "drawn", "seconds for 16 images (times faster than PixelCNN++)", "for one image"]
        found.append(markdown(header, rows))
    return "\n".join(found)


def run_all(options: argparse.Namespace, effort: Effort) -> None:
    numbers = parameters()
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
    parser.add_argument("--data", type=Path, help="folder of the sets of images")
    parser.add_argument("--runs", type=Path, help="folder for the rates and the trained models")
    parser.add_argument("--json", type=Path, help="also write the figures to this file; what else it has stays")
    parser.add_argument("--images", action="append", choices=SETS, help="both by default")
    parser.add_argument("--minutes", type=float, default=2.5, help="training time of a model, all factors together")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--figures", type=Path, help="folder for the pictures of samples")
    parser.add_argument("--quick", action="store_true", help="few images and short rounds: to see that it runs")
    parser.add_argument("--measure-only", action="store_true", help="measure the rates, unless they are there")
    parser.add_argument("--time", action="store_true", help="measure the time that sampling takes, and nothing else")
    parser.add_argument("--table", action="store_true", help="print what the file of figures has, as Markdown")
    options = parser.parse_args()
    if options.table or options.time:
        if options.table and options.json is None:
            parser.error("--table prints a file of figures: name it with --json")
        if options.time:
            timed = time_sampling()
            print(json.dumps(timed, indent=2))
            add_to_json(options.json, {"sampling_time": timed})
        if options.table:
            print(tables(read_json(options.json)))
        return
    if options.data is None or options.runs is None:
        parser.error("--data and --runs are needed, but for --time and --table")
    run_all(options, QUICK if options.quick else Effort())


if __name__ == "__main__":
    main()
