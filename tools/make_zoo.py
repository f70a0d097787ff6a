"""Make the models that come with the package: train each factor on the images that it needs, and pack the results.

    python tools/make_zoo.py train faces128-pyramid --data DATA --runs RUNS     # and --factor 4 for one alone
    python tools/make_zoo.py pack faces128-pyramid --data DATA --runs RUNS

`DATA` is the folder with the sets of images that are named below. Training goes on where it was interrupted. Factors
share no parameters, so each has a run of its own, on images of its view's size; several can run at once.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pixelcnn.checkpoint import STATE
from pixelcnn.data import Crop, Images, JoinedImages, load_images
from pixelcnn.models import ImageModel
from pixelcnn.recipes import find_recipe
from pixelcnn.training import Training, train


@dataclass(frozen=True)
class Source:
    """A set of images in the folder of data, prepared as `load_images` does; "photos" are the package's own."""

    name: str
    size: int
    crop: Crop | None = None

    def load(self, data: Path, split: str) -> Images:
        source = self.name if self.name == "photos" else str(data / self.name)
        return load_images(source, split, size=self.size, crop=self.crop, progress=True)


@dataclass(frozen=True)
class Plan:
    """How the factor of one view is trained."""

    sources: Sequence[Source]
    minutes: float
    training: Training


@dataclass(frozen=True)
class Shipped:
    """A model of the zoo: a recipe, and a plan for each of its factors, the finest first."""

    recipe: str
    plans: Sequence[Plan]


FRAME = (12, 13, 25, 20)  # the paper's crop of CelebA, at half size
CELEBA = Source("celeba-89x109", 64, FRAME)
SMALL_FACES = (Source("celeba-32x32", 32), replace(CELEBA, size=32))
COARSE = Training(batch_size=16, learning_rate=2e-3, decay=0.9997, average=0.999, bf16=True)
FINE = replace(COARSE, decay=0.9995)

ZOO = {
    "faces128-pyramid": Shipped(
        "celeba128-pyramid-small",
        (
            Plan([Source("lfw-128", 128)], 8, replace(FINE, batch_size=8, random_crop=64)),
            Plan([CELEBA], 24, replace(FINE, random_crop=32)),
            Plan(SMALL_FACES, 24, FINE),
            Plan([replace(source, size=16) for source in SMALL_FACES], 22, COARSE),
            Plan([replace(source, size=8) for source in SMALL_FACES], 31, replace(COARSE, batch_size=32)),
        ),
    ),
    "faces32-grayscale": Shipped("faces32-grayscale-small", (Plan(SMALL_FACES, 5, FINE), Plan(SMALL_FACES, 10, FINE))),
    "cifar10-grayscale": Shipped(
        "cifar10-grayscale-small",
        (Plan([Source("cifar10-jpeg", 32)], 5, FINE), Plan([Source("cifar10-jpeg", 32)], 10, FINE)),
    ),
    "photos-pyramid": Shipped(
        "photos128-pyramid-small",
        (
            Plan([Source("photos", 128)], 6, replace(FINE, batch_size=8, random_crop=64)),
            Plan([Source("photos", 64)], 3, replace(FINE, random_crop=32)),
            Plan([Source("photos", 32)], 3, replace(FINE, random_crop=None)),
        ),
    ),
}


def train_factor(name: str, k: int, data: Path, runs: Path) -> None:
    """Train the factor of view k as the finest of a model of that view, in a run of its own."""
    shipped = ZOO[name]
    plan = shipped.plans[k]
    torch.manual_seed(k)
    model = find_recipe(shipped.recipe).model().of_view(k)
    folder = runs / name / f"view-{k}"
    images, held_out = (JoinedImages([s.load(data, split) for s in plan.sources]) for split in ("train", "test"))
    train(
        model,
        images,
        folder,
        plan.training,
        minutes=plan.minutes,
        factor=0,
        resume=(folder / "factor-0" / STATE).exists(),
        overwrite=True,
        held_out=held_out,
        sheet_minutes=5,
        notes={"recipe": shipped.recipe, "view": k, "sources": [s.name for s in plan.sources]},
        progress=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["train", "pack"])
    parser.add_argument("name", choices=ZOO)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--factor", type=int)
    arguments = parser.parse_args()
    factors = range(len(ZOO[arguments.name].plans)) if arguments.factor is None else [arguments.factor]
    for k in factors:
        train_factor(arguments.name, k, arguments.data, arguments.runs)


if __name__ == "__main__":
    main()
