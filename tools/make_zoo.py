"""Make the models that come with the package: train each factor on the images that it needs, and pack the results.

    python tools/make_zoo.py train faces128-pyramid --data DATA --runs RUNS     # and --factor 4 for one alone
    python tools/make_zoo.py pack faces128-pyramid --data DATA --runs RUNS
    python tools/make_zoo.py card faces128-pyramid                              # its README.md anew, from its card.json

`DATA` is the folder with the sets of images that are named below. Training goes on where it was interrupted. Factors
share no parameters, so each has a run of its own, on images of its view's size; several can run at once. The weights in
the package are those that training begins with: each version of the zoo goes on from the one before it, whose own plans
are in the history of this file.
"""

import argparse
import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
from pixelcnn.models.shipped import CARD, CONFIG, RESEARCH_ONLY, zoo_card, zoo_folder, zoo_names
from pixelcnn.pictures.sheets import Strip, sheet
from pixelcnn.tasks.lossless import codec_bits_per_dim
from pixelcnn.tasks.sampling import colorize, sample, upscale
from pixelcnn.tasks.scoring import evaluate
from pixelcnn.training.history import HISTORY
from pixelcnn.training.loop import train
from pixelcnn.training.options import Run, Training
from pixelcnn.training.runs import STATE
from pixelcnn.zoo.recipes import find_recipe


class Tiles(Images):
    """The squares of a side that larger images consist of, so that images of several sizes can be joined."""

    def __init__(self, images: Images, side: int) -> None:
        self.name, self.size, self.channels, self.labels = images.name, (side, side), images.channels, None
        self.images, self.skipped, self.part = images, images.skipped, images.part
        self.notes, self.fingerprint = images.notes, images.fingerprint
        self.rows, self.columns = (size // side for size in images.size)

    def __len__(self) -> int:
        return len(self.images) * self.rows * self.columns

    def batch(self, indices: Iterable[int]) -> Tensor:
        """The squares at these indices: uint8 (B, C, side, side)."""
        side, found = self.size[0], []
        for index in indices:
            image, place = divmod(int(index), self.rows * self.columns)
            row, column = divmod(place, self.columns)
            found.append(self.images[image][:, side * row :, side * column :][:, :side, :side])
        return torch.stack(found)


@dataclass(frozen=True)
class Source:
    """A set of images in the folder of data, prepared as `load_images` does; "photos" are the package's own.

    Args:
        name: of the folder.
        size, crop: see `load_images`.
        tiles: side of the squares that each image is cut into; None for whole images.
        times: how often each image counts.
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


def load_all(sources: Sequence[Source], data: Path, split: str) -> Images:
    parts = [images for s in sources for images in [s.load(data, split)] * s.times]
    return parts[0] if len(parts) == 1 else JoinedImages(parts)  # joined, they have no labels


@dataclass(frozen=True)
class Plan:
    """How the factor of one view is trained: from the weights in the package, or fresh ones if there are none."""

    sources: Sequence[Source]
    steps: int
    training: Training


@dataclass(frozen=True)
class Test:
    """Held-out images that a view is scored on."""

    source: Source
    view: int = 0
    limit: int = 300


@dataclass(frozen=True)
class Shipped:
    """A model of the zoo: a recipe, a plan for each of its factors, the finest first, and what it is measured on."""

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
# From trained weights: the rate is not that of fresh ones, and most of the budget it falls.
MUON = Training(4, "muon", 0.012, warmup=100, decay=1.0, cooldown=0.7, average=0.999, bf16=True)
# Factors that have had hours already want a lower rate, and larger batches.
LONG = replace(MUON, batch_size=16, learning_rate=0.004, cooldown=0.9)
CROPS = replace(MUON, batch_size=8, random_crop=32)
FRESH = replace(MUON, learning_rate=0.02)


def faces(size: int) -> list[Source]:
    """All faces that are at least this large."""
    sources = [replace(LFW, size=size), replace(CELEBA, size=size), Source("celeba-32x32", size)]
    return sources[: 1 if size > 64 else 2 if size > 32 else 3]


def photos(side: int, largest: int) -> list[Source]:
    """Photographs at native pixels and reduced, as squares of a side; views of them, if the largest have fewer pixels.

    About as many squares of each: photographs are used as they come from a camera, and made smaller.
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
            Plan(faces(128), 12_000, replace(MUON, random_crop=64)),
            Plan(faces(64), 6_000, CROPS),
            Plan(faces(32), 3_000, replace(LONG, batch_size=8)),
            Plan(faces(16), 3_000, LONG),
            Plan(faces(8), 3_000, replace(LONG, batch_size=32)),
        ),
        [Test(LFW), Test(CELEBA, 1, 100)],
        size=128,
    ),
    "faces32-grayscale": Shipped(
        "Faces at 32x32, gray first",
        "faces32-grayscale-small",
        FACES_TERMS,
        tuple(Plan(faces(32)[1:], 9_000, MUON) for _ in range(2)),
        [Test(Source("celeba-32x32", 32)), Test(replace(CELEBA, size=32))],
        size=32,
    ),
    "cifar10-grayscale": Shipped(
        "Objects and animals at 32x32, gray first",
        "cifar10-grayscale-small",
        "CIFAR-10: none stated. For research",
        tuple(Plan([Source("cifar10-jpeg", 32)], 9_000, MUON) for _ in range(2)),
        [Test(Source("cifar10-jpeg", 32))],
        size=32,
    ),
    "cifar10-classes": Shipped(
        "Objects and animals at 32x32, of a class that you name",
        "cifar10-classes-small",
        "CIFAR-10: none stated. For research",
        (
            Plan([Source("cifar10-jpeg", 32)], 8_000, FRESH),
            Plan([Source("cifar10-jpeg", 16)], 8_000, replace(FRESH, batch_size=8)),
            Plan([Source("cifar10-jpeg", 8)], 15_000, replace(FRESH, batch_size=16)),
        ),
        [Test(Source("cifar10-jpeg", 32))],
        size=32,
    ),
    "photos-pyramid": Shipped(
        "Photographs, twice and four times as large",
        "photos128-pyramid-small",
        "CID22 by Cloudinary: CC BY-SA 4.0",
        (
            Plan(photos(128, 512), 12_000, replace(MUON, random_crop=64)),
            Plan(photos(64, 256), 6_000, CROPS),
            Plan(photos(32, 128), 6_000, replace(MUON, batch_size=8)),
        ),
        [Test(Source("photos", 128)), Test(Source("cid22-512", 512))],
        size=128,
    ),
}


def colour_view(model: ImageModel, k: int) -> int:
    """The view whose images train factor k: that view, or the one before a grey one, since images are in colour."""
    return max(view for view in range(k + 1) if model.formats[view] == model.formats[0])


def run_folder(runs: Path, name: str, k: int) -> Path:
    return runs / name / f"view-{k}"


def train_factor(name: str, k: int, data: Path, runs: Path) -> None:
    """Train the factor of view k as part of a model of that view, in a run of its own."""
    shipped = PLANS[name]
    plan = shipped.plans[k]
    fresh = name not in zoo_names()
    torch.manual_seed(k)
    model = find_recipe(shipped.recipe).model() if fresh else load(name)
    model.consistent = False  # faster to train, and scored consistently as good in the same time
    view = colour_view(model, k)
    folder = run_folder(runs, name, k)
    train(
        model.of_view(view),
        load_all(plan.sources, data, "train"),
        folder,
        plan.training,
        steps=plan.steps,
        run=Run(
            factor=k - view,
            initialize=fresh,
            resume=(folder / f"factor-{k - view}" / STATE).exists(),
            overwrite=True,
            held_out=load_all(plan.sources, data, "test"),
            sheet_minutes=0,
            notes={"recipe": shipped.recipe, "view": view, "sources": [s.name for s in plan.sources]},
            progress=True,
        ),
    )


def pack(name: str, data: Path, runs: Path) -> None:
    """Put the factors together, score what is shipped, bf16 weights and all, and write its card and pictures."""
    shipped, folder = PLANS[name], runs / name / "packed"
    model = find_recipe(shipped.recipe).model()
    for k, factor in enumerate(model.factors):
        trained = load(run_folder(runs, name, k)).factors[k - colour_view(model, k)]
        factor.load_state_dict(trained.state_dict())
    model.consistent = True  # exact, though trained freely, which is faster
    model.size = shipped.size
    shutil.rmtree(folder, ignore_errors=True)  # or pictures of earlier weights would stay
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
        **budget(name, model, runs),
        "machine": "one core of an AMD EPYC (AVX-512, bf16), shared, no GPU",
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
        # As JPEG, since those of draws are noisy, and all models together may have 25 MB.
        sheet(strips, height=max(96, shipped.size)).save(folder / f"{picture}.jpg", quality=80)
    write_readme(name, folder)
    place = zoo_folder(name)  # before it is gone, or there would be no model of that name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place)


def terms(name: str, shipped: Shipped) -> dict[str, Any]:
    """License and data sets, as the front matter of a card has them."""
    names = {"celeba": "celeba", "lfw": "lfw", "cifar10": "cifar10", "cid22": "cid22", "photos": "cid22"}
    sources = [source.name for plan in shipped.plans for source in plan.sources]
    research = {"license": "other", "license_name": "research-only"}
    license = research if name in RESEARCH_ONLY else {"license": "cc-by-sa-4.0"}
    return license | {"datasets": sorted({names[source.split("-")[0]] for source in sources})}


def write_readme(name: str, folder: Path) -> None:
    pictures = sorted(path.name for path in folder.glob("*.jpg"))
    write_atomically(folder / "README.md", readme(name, read_json(folder / CARD), pictures).encode())


def score(model: ImageModel, test: Test, data: Path, split: str) -> dict[str, Any]:
    """Bits per dimension, as a report takes them."""
    images = test.source.load(data, split)
    # Large images are scored one by one.
    batch_size = max(1, 8 * 128**2 // math.prod(images.size))
    result = evaluate(model.of_view(test.view), images, batch_size=batch_size, limit=test.limit, progress=True)
    return {
        "total": result.bits_per_dim,
        "factors": result.factors,
        "images": result.images,
        "source": f"{test.source.name} ({split}) at {images.size[1]}x{images.size[0]}",
    }


def budget(name: str, model: ImageModel, runs: Path) -> dict[str, list[float]]:
    """Steps and minutes of the factors, the finest first, with those of the version before."""
    none = [0] * len(PLANS[name].plans)
    before = zoo_card(name) if name in zoo_names() else {"steps": none, "minutes": none}
    steps, minutes = [], []
    for k, plan in enumerate(PLANS[name].plans):
        history = run_folder(runs, name, k) / f"factor-{k - colour_view(model, k)}" / HISTORY
        end = json.loads(history.read_text().splitlines()[-1])
        if end["step"] < plan.steps:
            raise ValueError(f"{history}: step {end['step']} of {plan.steps}; train it to its end first")
        steps.append(before["steps"][k] + end["step"])
        minutes.append(round(before["minutes"][k] + end["seconds"] / 60, 1))
    return {"steps": steps, "minutes": minutes}


def pictures(name: str, model: ImageModel, shipped: Shipped) -> dict[str, list[Strip]]:
    """Sheets for the card: draws, and nothing of any training image but photographs that may be shown."""
    found: dict[str, list[Strip]] = {}
    sizes = [f"{W}x{H}" for H, W in model.sizes((shipped.size, shipped.size))]
    levels = [levels for _, levels in model.formats]
    photos = load_images("photos", "test", size=shipped.size).batch(range(8))
    if model.classes:
        classes = range(model.classes)
        for title, options in WAYS.items():
            labels = torch.arange(model.classes).repeat_interleave(8)
            drawn = sample(model, len(labels), shipped.size, labels=labels, options=options)[0]
            found[title] = [(CIFAR10_CLASSES[k], x, 256) for k, x in zip(classes, drawn.split(8), strict=True)]
    elif name != "photos-pyramid":
        for title, options in WAYS.items():
            views = sample(model, 8, shipped.size, options=options)
            strips: list[Strip] = [(size, x, n) for size, x, n in zip(sizes, views, levels, strict=True)]
            found[title] = strips[::-1]
    if "grayscale" in name:
        grey = model.views(photos)[1]
        drawn = [(f"colouring {i + 1}", colorize(model, photos, seed=8 * i), 256) for i in range(2)]
        found["colourings"] = [("photographs", photos, 256), ("their grey view", grey, levels[1]), *drawn]
    if name == "photos-pyramid":
        small = model.views(photos)[2]
        drawn = [
            (f"drawn as {title}", upscale(model, small, 4, options=options), 256) for title, options in WAYS.items()
        ]
        found["upscaled"] = [("given", small, 256), *drawn, ("the photographs", photos, 256)]
    return found


def readme(name: str, card: dict[str, Any], images: list[str]) -> str:
    """The card for people."""
    data = "\n".join(f"| {part['view']} | {part['source']} | {part['images']:,} |" for part in card["data"])
    factors = " + ".join(f"{bits:.3f}" for bits in card["bits_per_dim"]["factors"])
    budgets = zip(card["minutes"], card["steps"], strict=True)
    trained = ", ".join(f"{minutes:g} minutes ({steps:,} steps)" for minutes, steps in budgets)
    others = "".join(
        f"- view {found['view']}: {found['total']:.3f} ({found['images']} images of {found['source']})\n"
        for found in card["other_scores"]
    )
    shown = "\n\n".join(f"![{image.removesuffix('.jpg')}]({image})" for image in images)
    photographs = any(image in ("colourings.jpg", "upscaled.jpg") for image in images)
    notice = "\n\nThe photographs are from CID22 by Cloudinary, CC BY-SA 4.0, reduced." if photographs else ""
    files = ", ".join(f"{codec} {bits:.3f}" for codec, bits in card["codecs"].items())
    return f"""---
{card_data(name, card).to_yaml()}
---

# {name}

{card["title"]}: {card["parameters"] / 1e6:.2f} million parameters, bf16 weights. Terms of the data: {card["terms"]}.

```
pixelcnn sample {name} --out samples.png
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
