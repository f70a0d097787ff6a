"""Make the models that come with the package: train each factor on the images that it needs, and pack the results.

    python tools/make_zoo.py train faces128-pyramid --data DATA --runs RUNS     # with --factor 4, only that one
    python tools/make_zoo.py pack faces128-pyramid --data DATA --runs RUNS
    python tools/make_zoo.py card faces128-pyramid                              # README.md again, from card.json

`DATA` is the folder with the sets of images that are named below. Interrupted training is resumed. Factors share no
parameters, so each one has a run of its own on images of the size of its view, and several can run at once. Training
begins with the weights in the package: each version of the zoo continues from the one before, whose plans are in the
history of this file.
"""

import argparse
import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelcnn.common.files import read_json, write_atomically, write_json
from pixelcnn.data.decode import Crop
from pixelcnn.data.images import Images, JoinedImages, load_images
from pixelcnn.models.cards import card_data
from pixelcnn.models.draw import DrawOptions
from pixelcnn.models.files import WEIGHTS
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load, save
from pixelcnn.models.sampling import colorize, sample, sample_views, upscale
from pixelcnn.models.shipped import CARD, CONFIG, RESEARCH_ONLY, list_models, zoo_card, zoo_folder
from pixelcnn.pictures.sheets import Strip, sheet
from pixelcnn.tasks.lossless import codec_bits_per_dim
from pixelcnn.tasks.scoring import evaluate
from pixelcnn.training.history import HISTORY
from pixelcnn.training.loop import train
from pixelcnn.training.options import Budget, Run, Training
from pixelcnn.training.runs import STATE
from pixelcnn.zoo.recipes import find_recipe


class Tiles(Images):
    """Larger images cut into squares of one size, so that images of several sizes can be joined."""

    def __init__(self, images: Images, side: int) -> None:
        self.name, self.size, self.channels, self.labels = images.name, (side, side), images.channels, None
        self.images, self.skipped, self.part = images, images.skipped, images.part
        self.notes, self.fingerprint = images.notes, images.fingerprint
        self.rows, self.columns = (size // side for size in images.size)

    def __len__(self) -> int:
        return len(self.images) * self.rows * self.columns

    def batch(self, indices: Iterable[int]) -> Tensor:
        """Load the squares at these indices: uint8 (B, C, side, side)."""
        side, found = self.size[0], []
        for index in indices:
            image, place = divmod(int(index), self.rows * self.columns)
            row, column = divmod(place, self.columns)
            found.append(self.images[image][:, side * row :, side * column :][:, :side, :side])
        return torch.stack(found)


@dataclass(frozen=True)
class Source:
    """A set of images in the data folder.

    Args:
        name: of its folder, or "photos" for the photographs that come with the package.
        size, crop: see `load_images`.
        tiles: side of the squares into which each image is cut; None for whole images.
        times: how many times each image is in the set.
    """

    name: str
    size: int
    crop: Crop | None = None
    tiles: int | None = None
    times: int = 1

    def load(self, data: Path, split: str) -> Images:
        source = self.name if self.name == "photos" else str(data / self.name)
        images = load_images(source, split, size=self.size, crop=self.crop, progress=True)
        return images if self.tiles is None else Tiles(images, self.tiles)


def load_all(sources: Sequence[Source], data: Path) -> Images:
    """Load the training images of all sources."""
    parts = [images for s in sources for images in [s.load(data, "train")] * s.times]
    return parts[0] if len(parts) == 1 else JoinedImages(parts)  # joined, they have no labels


def last_line(history: Path) -> dict[str, Any]:
    """Read where a run stands: its steps and seconds."""
    return json.loads(history.read_text().splitlines()[-1])


@dataclass(frozen=True)
class Stage:
    """A part of the training of a factor, with a rate that falls to its end.

    Args:
        steps: of the optimizer; None for a budget of minutes.
        training: how.
        consistent: whether it is trained consistently; free steps are faster, and consistent draws need some of these.
        minutes: a budget of time instead of steps, for a GPU.
    """

    steps: int | None
    training: Training
    consistent: bool = False
    minutes: float | None = None

    def is_done(self, history: Path) -> bool:
        """Whether the run with this history has used up its budget."""
        if not history.is_file():
            return False
        budget, end = Budget(self.steps, self.minutes), last_line(history)
        return budget.used(end["step"], end["seconds"]) >= budget.total


@dataclass(frozen=True)
class Plan:
    """Plan for training the factor of one view, from the weights in the package if it has any, else from fresh ones.

    Args:
        sources: the images.
        stages: one after another.
        fresh: start from fresh weights even if the package has some, because the network has changed.
    """

    sources: Sequence[Source]
    stages: Sequence[Stage]
    fresh: bool = False


@dataclass(frozen=True)
class Test:
    """Held-out images on which the model of a view is scored."""

    source: Source
    view: int = 0
    limit: int = 300


@dataclass(frozen=True)
class Shipped:
    """A model of the zoo: a recipe, a plan for each factor, the finest first, and the images to score it on."""

    title: str
    recipe: str
    terms: str
    plans: Sequence[Plan]
    tests: Sequence[Test]
    size: int


FACES_TERMS = "CelebA: non-commercial research; LFW: none stated. For research"
WAYS = {"samples": DrawOptions(progress=True), "map": DrawOptions(map=True, progress=True)}
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FRAME = (12, 13, 25, 20)  # the paper's crop of CelebA, at half size
CELEBA = Source("celeba-89x109", 64, FRAME)
LFW = Source("lfw-128", 128)
# For weights that are trained already: a lower rate than for fresh ones, which falls during most of the steps.
MUON = Training(4, "muon", 0.012, warmup=100, decay=1.0, cooldown=0.7, average=0.999, bf16=True)
# For factors with hours of training behind them: an even lower rate, and larger batches.
LONG = replace(MUON, batch_size=16, learning_rate=0.004, cooldown=0.9)
CROPS = replace(MUON, batch_size=8, random_crop=32)
# What a freely trained factor draws between bounds can go astray. So the last steps are consistent ones.
SETTLED = replace(MUON, learning_rate=0.006, cooldown=0.9)
COLORS = Stage(6_000, replace(SETTLED, batch_size=8), consistent=True)
# On a GPU, a step of a small factor takes as long for hundreds of images as for one. There, the training had the faces
# of LFW at 64x64, stored as lossless WebP, and the first 18,500 of celeba-32x32: what could be sent there.
GPU = replace(MUON, batch_size=64, learning_rate=0.015, average=0.998)
GPU_MINUTES = 5.9  # for seven factors at once
CORE = "one core of an AMD EPYC (AVX-512, bf16), shared"
H100 = "an NVIDIA H100 that trained seven factors at once"


def on_gpu(**changes: Any) -> Stage:
    """Make a stage on a GPU, with other options than most."""
    return Stage(None, replace(GPU, **changes), consistent=True, minutes=GPU_MINUTES)


LONG_ON_GPU = on_gpu(batch_size=128, learning_rate=0.008, cooldown=0.9)


def faces(size: int) -> list[Source]:
    """Choose all sets with faces of at least this size."""
    sources = [replace(LFW, size=size), replace(CELEBA, size=size), Source("celeba-32x32", size)]
    return sources[: 1 if size > 64 else 2 if size > 32 else 3]


def photos(side: int, largest: int) -> list[Source]:
    """Choose photographs at their native resolution, at a half and at a quarter of it, cut into squares.

    People use photographs as they come from a camera as well as reduced ones, so there are about as many squares of
    each kind.

    Args:
        side: of the squares.
        largest: side of whole photographs at the native resolution in this view: 512 for the image itself.
    """
    native = Source("cid22-512" if largest == 512 else "cid22-256", largest, tiles=side)
    half = Source("cid22-256", largest // 2, tiles=side)
    return [native, replace(half, times=2), Source("photos", largest // 4, tiles=side, times=8)]


PLANS = {
    "faces128-pyramid": Shipped(
        "Faces, from 8x8 to 128x128",
        "celeba128-pyramid-small",
        FACES_TERMS,
        (
            Plan(
                faces(128),
                [
                    Stage(12_000, replace(MUON, random_crop=64)),
                    Stage(6_000, replace(SETTLED, random_crop=64), consistent=True),
                ],
            ),
            Plan(faces(64), [on_gpu(batch_size=24)], fresh=True),
            Plan(faces(32), [on_gpu()], fresh=True),
            Plan(faces(16), [Stage(3_000, LONG), LONG_ON_GPU]),
            Plan(faces(8), [Stage(3_000, replace(LONG, batch_size=32)), LONG_ON_GPU]),
        ),
        [Test(LFW), Test(CELEBA, 1, 100)],
        size=128,
    ),
    "faces32-grayscale": Shipped(
        "Faces at 32x32, gray first",
        "faces32-grayscale-small",
        FACES_TERMS,
        (Plan(faces(32)[1:], [Stage(9_000, MUON), COLORS]), Plan(faces(32)[1:], [Stage(9_000, MUON)])),
        [Test(Source("celeba-32x32", 32)), Test(replace(CELEBA, size=32))],
        size=32,
    ),
    "cifar10-grayscale": Shipped(
        "Objects and animals at 32x32, gray first",
        "cifar10-grayscale-small",
        "CIFAR-10: none stated. For research",
        (
            Plan([Source("cifar10-jpeg", 32)], [Stage(9_000, MUON), COLORS]),
            Plan([Source("cifar10-jpeg", 32)], [Stage(9_000, MUON)]),
        ),
        [Test(Source("cifar10-jpeg", 32))],
        size=32,
    ),
    "cifar10-classes": Shipped(
        "Objects and animals at 32x32, of a class you choose",
        "cifar10-classes-small",
        "CIFAR-10: none stated. For research",
        (
            Plan([Source("cifar10-jpeg", 32)], [on_gpu()]),
            Plan([Source("cifar10-jpeg", 16)], [on_gpu()]),
            Plan([Source("cifar10-jpeg", 8)], [on_gpu(batch_size=128)]),
        ),
        [Test(Source("cifar10-jpeg", 32))],
        size=32,
    ),
    "photos-pyramid": Shipped(
        "Photographs, twice and four times as large",
        "photos128-pyramid-small",
        "CID22 by Cloudinary: CC BY-SA 4.0",
        (
            Plan(
                photos(128, 512),
                [
                    Stage(12_000, replace(MUON, random_crop=64)),
                    Stage(9_000, replace(MUON, random_crop=64, learning_rate=0.006, cooldown=0.9)),
                ],
            ),
            Plan(photos(64, 256), [Stage(6_000, CROPS)]),
            Plan(photos(32, 128), [Stage(6_000, replace(MUON, batch_size=8))]),
        ),
        [Test(Source("photos", 128)), Test(Source("cid22-512", 512))],
        size=128,
    ),
}


def is_packed(name: str) -> bool:
    """Whether there are weights of this model already, to begin with."""
    return name in list_models() and (zoo_folder(name) / CONFIG).is_file()


def run_folder(runs: Path, name: str, k: int, stage: int = 0) -> Path:
    """The run of a stage of a factor."""
    return runs / name / (f"view-{k}" if stage == 0 else f"view-{k}-stage-{stage}")


@lru_cache
def view_of(name: str, k: int) -> int:
    """Find the view whose images train factor k: k itself, or the one before a gray view, since images are in color."""
    formats = find_recipe(PLANS[name].recipe).model().formats
    return max(view for view in range(k + 1) if formats[view] == formats[0])


def history_of(runs: Path, name: str, k: int, stage: int) -> Path:
    """The history of a stage of a factor."""
    return run_folder(runs, name, k, stage) / f"factor-{k - view_of(name, k)}" / HISTORY


def train_factor(name: str, k: int, data: Path, runs: Path) -> None:
    """Train the factor of view k as part of a model of that view, each stage in a run of its own."""
    shipped = PLANS[name]
    plan, view = shipped.plans[k], view_of(name, k)
    for i, stage in enumerate(plan.stages):
        history = history_of(runs, name, k, i)
        if stage.is_done(history):
            continue
        fresh = i == 0 and (plan.fresh or not is_packed(name))
        torch.manual_seed(k)
        if i > 0:
            model = load(run_folder(runs, name, k, i - 1))
        else:
            model = (find_recipe(shipped.recipe).model() if fresh else load(name)).of_view(view)
        model.consistent = stage.consistent
        train(
            model,
            load_all(plan.sources, data),
            run_folder(runs, name, k, i),
            stage.training,
            steps=stage.steps,
            minutes=stage.minutes,
            run=Run(
                factor=k - view,
                initialize=fresh,
                resume=(history.parent / STATE).exists(),
                overwrite=True,
                sheet_minutes=0,
                save_minutes=1,
                notes={"recipe": shipped.recipe, "view": view, "sources": [s.name for s in plan.sources]},
                progress=True,
            ),
        )


def pack(name: str, data: Path, runs: Path) -> None:
    """Put the factors together, round the weights to bf16, score that model, and write its card and pictures."""
    shipped, folder = PLANS[name], runs / name / "packed"
    spent = budget(name, runs)
    model = find_recipe(shipped.recipe).model()
    for k, factor in enumerate(model.factors):
        last = run_folder(runs, name, k, len(shipped.plans[k].stages) - 1)
        trained = load(last).factors[k - view_of(name, k)]
        factor.load_state_dict(trained.state_dict())
    model.consistent = True  # likelihoods are exact, even where training was free
    model.size = shipped.size
    shutil.rmtree(folder, ignore_errors=True)  # otherwise pictures of earlier weights would stay
    save(model, folder, torch.bfloat16)
    model = load(folder)
    card: dict[str, Any] = {
        "title": shipped.title,
        "size": shipped.size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "data": [
            {"view": k, "source": source.name, "images": len(source.load(data, "train"))}
            for k, plan in enumerate(shipped.plans)
            for source in plan.sources
        ],
        "terms": shipped.terms,
        **terms(name, shipped),
        "scores": {
            "train": score(model, replace(shipped.tests[0], limit=100), data, "train"),
            "test": score(model, shipped.tests[0], data, "test"),
        },
        "other_scores": [score(model, test, data, "test") | {"view": test.view} for test in shipped.tests[1:]],
        "recipe": shipped.recipe,
        "command": f"python tools/make_zoo.py train {name} --data DATA --runs RUNS",
        **spent,
        "machine": ", and ".join([CORE] * any(spent["minutes"]) + [H100] * any(spent["gpu_minutes"])),
        "sha256": {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in (CONFIG, WEIGHTS)},
    }
    test = card["scores"]["test"]
    card["bits_per_dim"] = {"total": test["total"], "factors": test["factors"]}
    card["held_out"] = f"{test['images']} images of {test['source']}"
    held_out = shipped.tests[0].source.load(data, "test")
    card["codecs"] = codec_bits_per_dim(held_out, limit=test["images"], progress=True)
    model.consistent = False
    card["free"] = score(model, replace(shipped.tests[0], limit=100), data, "test")
    model.consistent = True
    write_json(folder / CARD, card)
    for picture, strips in pictures(name, model, shipped).items():
        # JPEG, since pictures of draws are noisy, and would be large.
        sheet(strips, height=max(96, shipped.size)).save(folder / f"{picture}.jpg", quality=80)
    write_readme(name, folder)
    place = zoo_folder(name)  # before it is gone, or there would be no model of that name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place)


def terms(name: str, shipped: Shipped) -> dict[str, Any]:
    """Look up the license and the data sets for the front matter of a card."""
    names = {"celeba": "celeba", "lfw": "lfw", "cifar10": "cifar10", "cid22": "cid22", "photos": "cid22"}
    sources = [source.name for plan in shipped.plans for source in plan.sources]
    research = {"license": "other", "license_name": "research-only"}
    license = research if name in RESEARCH_ONLY else {"license": "cc-by-sa-4.0"}
    return license | {"datasets": sorted({names[source.split("-")[0]] for source in sources})}


def write_readme(name: str, folder: Path) -> None:
    pictures = sorted(path.name for path in folder.glob("*.jpg"))
    label = " --label 0" if read_json(folder / CONFIG)["classes"] else ""
    write_atomically(folder / "README.md", readme(name, read_json(folder / CARD), pictures, label).encode())


def score(model: ImageModel, test: Test, data: Path, split: str) -> dict[str, Any]:
    """Measure bits per dimension, in total and by factor."""
    images = test.source.load(data, split)
    # Large images are scored one at a time.
    batch_size = max(1, 8 * 128**2 // math.prod(images.size))
    result = evaluate(model.of_view(test.view), images, batch_size=batch_size, limit=test.limit, progress=True)
    return {
        "total": result.bits_per_dim,
        "factors": result.factors,
        "images": result.images,
        "source": f"{test.source.name} ({split}) at {images.size[1]}x{images.size[0]}",
    }


def budget(name: str, runs: Path) -> dict[str, list[float]]:
    """Add up the steps and minutes of each factor, the finest first, including those of the version before."""
    none = [0] * len(PLANS[name].plans)
    before = zoo_card(name) if is_packed(name) else {"steps": none, "minutes": none}
    found: dict[str, list[float]] = {"steps": [], "minutes": [], "gpu_minutes": []}
    for k, plan in enumerate(PLANS[name].plans):
        for amount, so_far in found.items():
            so_far.append(0 if plan.fresh else before.get(amount, none)[k])
        for i, stage in enumerate(plan.stages):
            history = history_of(runs, name, k, i)
            if not stage.is_done(history):
                raise ValueError(f"{history} is not at its end: finish the training first")
            end = last_line(history)
            found["steps"][k] += end["step"]
            minutes = found["minutes" if stage.minutes is None else "gpu_minutes"]
            minutes[k] = round(minutes[k] + end["seconds"] / 60, 1)
    return found


def pictures(name: str, model: ImageModel, shipped: Shipped) -> dict[str, list[Strip]]:
    """Draw the sheets for the card; of real images they only show photographs that may be passed on."""
    found: dict[str, list[Strip]] = {}
    sizes = [f"{W}x{H}" for H, W in model.sizes((shipped.size, shipped.size))]
    levels = [levels for _, levels in model.formats]
    photos = load_images("photos", "test", size=shipped.size).batch(range(8))
    if model.classes:
        classes = range(model.classes)
        for title, options in WAYS.items():
            labels = torch.arange(model.classes).repeat_interleave(8)
            drawn = sample(model, len(labels), shipped.size, labels=labels, options=options)
            found[title] = [(CIFAR10_CLASSES[k], x, 256) for k, x in zip(classes, drawn.split(8), strict=True)]
    elif name != "photos-pyramid":
        for title, options in WAYS.items():
            views = sample_views(model, 8, shipped.size, options=options)
            found[title] = [(sizes[k], x, levels[k]) for k, x in views]
    if "grayscale" in name:
        gray = model.views(photos)[1]
        drawn = [(f"colorization {i + 1}", colorize(model, photos, seed=8 * i), 256) for i in range(2)]
        found["colorized"] = [("photographs", photos, 256), ("their gray view", gray, levels[1]), *drawn]
    if name == "photos-pyramid":
        small = model.views(photos)[2]
        drawn = [
            (f"upscaled: {title}", upscale(model, small, 4, options=options), 256) for title, options in WAYS.items()
        ]
        found["upscaled"] = [("given", small, 256), *drawn, ("the photographs", photos, 256)]
    return found


def readme(name: str, card: dict[str, Any], images: list[str], label: str) -> str:
    """Write the text of the card for people; the label is an option for the command that draws, if it needs one."""
    data = "\n".join(f"| {part['view']} | {part['source']} | {part['images']:,} |" for part in card["data"])
    factors = " + ".join(f"{bits:.3f}" for bits in card["bits_per_dim"]["factors"])
    gpu_minutes = card.get("gpu_minutes", [0] * len(card["steps"]))
    trained = ", ".join(
        " and ".join([f"{core:g} minutes"] * (core > 0) + [f"{gpu:g} minutes on a GPU"] * (gpu > 0))
        + f" ({steps:,} steps)"
        for core, gpu, steps in zip(card["minutes"], gpu_minutes, card["steps"], strict=True)
    )
    others = "".join(
        f"- view {found['view']}: {found['total']:.3f} ({found['images']} images of {found['source']})\n"
        for found in card["other_scores"]
    )
    shown = "\n\n".join(f"![{image.removesuffix('.jpg')}]({image})" for image in images)
    photographs = any(image in ("colorized.jpg", "upscaled.jpg") for image in images)
    notice = "\n\nThe photographs are from CID22 by Cloudinary, CC BY-SA 4.0, reduced." if photographs else ""
    files = ", ".join(f"{codec} {bits:.3f}" for codec, bits in card["codecs"].items())
    return f"""---
{card_data(name, card).to_yaml()}
---

# {name}

{card["title"]}: {card["parameters"] / 1e6:.2f} million parameters, bf16 weights. Terms of the data: {card["terms"]}.

```
pixelcnn sample {name}{label} --out samples.png
```

## Bits per dimension

- **{card["bits_per_dim"]["total"]:.3f}** = {factors}, the finest view first ({card["held_out"]}); exact
- the same images as lossless files: {files}
- on training images: {card["scores"]["train"]["total"]:.3f} (the first {card["scores"]["train"]["images"]})
- scored the paper's way, as a bound: at most {card["free"]["total"]:.3f} (the first {card["free"]["images"]} of them)
{others}
## Training

| view | images | number |
|---|---|---|
{data}

No image of a test part is among them. Each factor alone, the finest first: {trained}, on {card["machine"]}, with

```
{card["command"]}
```

## Pictures

{shown}{notice}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["train", "pack", "card"])
    parser.add_argument("name", choices=PLANS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--factor", type=int)
    arguments = parser.parse_args()
    if arguments.step == "card":
        write_readme(arguments.name, zoo_folder(arguments.name))
        return
    if arguments.data is None or arguments.runs is None:
        parser.error(f"{arguments.step} needs --data and --runs")
    if arguments.step == "pack":
        pack(arguments.name, arguments.data, arguments.runs)
        return
    factors = range(len(PLANS[arguments.name].plans)) if arguments.factor is None else [arguments.factor]
    for k in factors:
        train_factor(arguments.name, k, arguments.data, arguments.runs)


if __name__ == "__main__":
    main()
