"""Recipes: named configurations, each a function that says what it is.

A recipe is a model with fresh weights, a source of images, how to train the one on the other, and what to expect. Those
without `-small` are the published ones, in full size: they want a GPU for days, and where a number is only recalled or
not known, their text says so (`faces64-pyramid-grayscale` is nobody's yet, and small). Two things are not as there: the
means of a pixel are counted from what the given view says (`pixelcnn.models.Factor`), and logistics begin narrow and
stay below a width (`pixelcnn.likelihoods.LogisticMixture`). Those that end in `-small` finish in minutes on two CPU
cores, `celeba128-pyramid-small` in an hour or two.

Reference: Salimans et al., PixelCNN++ (ICLR 2017) and its code, https://github.com/openai/pixel-cnn; Kolesnikov &
Lampert, PixelCNN models with auxiliary variables (ICML 2017), section 4: "the paper" below.
"""

__all__ = ["RECIPES", "Expected", "Recipe", "describe", "find_recipe"]

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import torch

from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.data.sources import TERMS
from pixelcnn.models.config import ModelOptions
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.presets import GrayscalePixelCNN, PixelCNN, PyramidPixelCNN
from pixelcnn.training.options import Training


@dataclass(frozen=True)
class Expected:
    """Bits per dimension to expect of images that were held out, and who says so."""

    bits_per_dim: float
    source: str


@dataclass(frozen=True)
class Recipe:
    """What `pixelcnn train NAME` trains; every option of the command line replaces one entry.

    Args:
        model: makes it, with fresh weights.
        source, size: of the images.
        training: how each factor is trained.
        minutes: of each factor, on two CPU cores; without meaning where there are steps.
        steps: of each factor, that of the image itself first.
        expected: None where nobody has measured.
    """

    model: Callable[[], ImageModel]
    source: str
    size: int
    training: Training
    minutes: float = 0.0
    steps: tuple[int, ...] = ()
    expected: Expected | None = None

    @property
    def budget(self) -> dict[str, Any]:
        """The arguments of `train` that say how long."""
        return {"steps": self.steps} if self.steps else {"minutes": self.minutes}


# Neither paper limits the gradient. The second does not speak of averaged weights; PixelCNN++ has these.
PUBLISHED = Training(learning_rate=1e-3, moments=(0.95, 0.9995), average=0.9995, clip=0.0)
CIFAR10_IMAGES = 50_000  # to train on
CELEBA_IMAGES = 192_469  # likewise: all but 5 % of 202,599


def _steps(epochs: int, images: int, training: Training) -> int:
    return math.ceil(epochs * images / training.batch_size)


def cifar10_pixelcnn_plus_plus() -> Recipe:
    """PixelCNN++ for 32x32 images, as published: 160 filters, three scales of five blocks.

    From its code: a batch of 16 on each of 8 GPUs, a decay of 0.999995 a step, no flips, at most 5,000 epochs. Its
    README says that it converges after some 5 days on 8 Titan X: stop when the figure for test images no longer falls.
    Adam's moments, 0.95 and 0.9995, are from there too.
    """
    training = replace(PUBLISHED, batch_size=128, decay=0.999995, flip=False)
    return Recipe(
        PixelCNN,
        "cifar10",
        32,
        training,
        steps=(_steps(5000, CIFAR10_IMAGES, training),),
        expected=Expected(2.92, "Salimans et al.; the paper, Table 1"),
    )


def cifar10_grayscale() -> Recipe:
    """Grayscale PixelCNN for 32x32 images, as published: 160 filters, a 4-bit grey view.

    The grey view has the network of PixelCNN++; the colours, and the embedding of the grey view that they are given, 24
    blocks instead of 36 (see `GrayscalePixelCNN`). As recalled: those 24, a batch of 64, a learning rate of 0.001, a
    decay of 0.99999 a step, 200 epochs for the colours and 30 for the grey view; that images are flipped is certain.
    The parts of the 2.98 are, as recalled, 2.52 for the colours and 0.459 for the grey view.
    """
    training = replace(PUBLISHED, batch_size=64, decay=0.99999)
    return Recipe(
        lambda: GrayscalePixelCNN(consistent=False),
        "cifar10",
        32,
        training,
        steps=tuple(_steps(epochs, CIFAR10_IMAGES, training) for epochs in (200, 30)),
        expected=Expected(2.98, "the paper, Table 1, a bound"),
    )


def cifar10_pyramid() -> Recipe:
    """Pyramid PixelCNN for 32x32 images, from 8x8: the networks of the published one for faces.

    The paper gives a figure for CIFAR-10, 3.32 as recalled, and nothing else. The depth of 2, from 8x8 as for faces,
    and the training, that of `celeba128_pyramid` with the flips of the Grayscale model, are our reading.
    """
    training = replace(PUBLISHED, batch_size=16, decay=0.999995)
    return Recipe(
        lambda: PyramidPixelCNN(2, consistent=False),
        "cifar10",
        32,
        training,
        steps=(_steps(60, CIFAR10_IMAGES, training),) * 3,
        expected=Expected(3.32, "the paper, section 4.2, as recalled"),
    )


def celeba128_pyramid() -> Recipe:
    """Pyramid PixelCNN for 128x128 faces, from 8x8, as published: 100 filters, three blocks a factor.

    As recalled: embeddings of 15 blocks, a batch of 16, a learning rate of 0.001, a decay of 0.999995 a step, 60
    epochs, the crop, and the figures: 1.52 at 128x128, and 2.61, 3.33, 4.30 and 4.58 at 64, 32, 16 and 8, each for the
    sub-pixels of that size. Flips are mentioned for CIFAR-10 alone.
    """
    training = replace(PUBLISHED, batch_size=16, decay=0.999995, flip=False)
    return Recipe(
        lambda: PyramidPixelCNN(4, consistent=False),
        "celeba",
        128,
        training,
        steps=(_steps(60, CELEBA_IMAGES, training),) * 5,
        expected=Expected(1.52, "the paper, section 4.2, as recalled"),
    )


# What learns most in a given time (docs/learning.md): Muon, many steps of few images, a rate that ends near zero, and
# an average that is hardly needed then. Short trainings see a fraction of their data once: no dropout.
SHORT = Training(4, "muon", 0.015, warmup=50, decay=1.0, cooldown=0.6, average=0.998)
SMALL_GRAYSCALE: ModelOptions = {
    "filters": (32, 40),
    "blocks": 2,
    "scales": (1, 3),
    "embedding_blocks": 1,
    "embedding_scales": 2,
    "dropout": 0.0,
    "consistent": False,
}


def cifar10_pixelcnn_plus_plus_small() -> Recipe:
    """PixelCNN++ for 32x32 images, with the parameters and the minutes of both factors of `cifar10-grayscale-small`."""
    return Recipe(lambda: PixelCNN(filters=38, blocks=2, dropout=0.0), "cifar10", 32, SHORT, minutes=12)


def cifar10_grayscale_small() -> Recipe:
    """Grayscale PixelCNN for 32x32 images: three scales for the 4-bit grey view, one for the colours."""
    expected = Expected(3.48, "docs/results.md, on JPEG copies, 7 and 8 minutes on one core")
    sizes: ModelOptions = {**SMALL_GRAYSCALE, "filters": 32}
    return Recipe(lambda: GrayscalePixelCNN(**sizes), "cifar10", 32, SHORT, minutes=6, expected=expected)


def cifar10_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for 32x32 images, from 8x8: the coarse views have more blocks, the finest stays light."""
    sizes: ModelOptions = {"filters": (32, 32, 48), "blocks": (2, 3, 4), "embedding_blocks": (1, 2), "dropout": 0.0}
    return Recipe(lambda: PyramidPixelCNN(2, **sizes), "cifar10", 32, SHORT, minutes=4)


def cifar10_classes_small() -> Recipe:
    """Pyramid PixelCNN for 32x32 images of a class that is asked for: most parameters are in the coarsest view."""
    sizes: ModelOptions = {
        "filters": (32, 40, 64),
        "blocks": (2, 3, 5),
        "embedding_blocks": 1,
        "classes": 10,
        "dropout": 0.0,
        "consistent": False,
    }
    return Recipe(lambda: PyramidPixelCNN(2, **sizes), "cifar10", 32, SHORT, minutes=6)


def faces64_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for 64x64 faces, from 8x8: the coarse views have more blocks, the finest stays light."""
    sizes: ModelOptions = {
        "filters": (24, 32, 32, 48),
        "blocks": (2, 3, 3, 4),
        "embedding_blocks": (1, 1, 2),
        "dropout": 0.0,
    }
    return Recipe(lambda: PyramidPixelCNN(3, **sizes), "celeba", 64, SHORT, minutes=3)


def faces64_pyramid_grayscale() -> Recipe:
    """Pyramid of 64x64 faces down to 8x8, and below it the 4-bit grey view of those 8x8 pixels: small, for two cores.

    The combination that the paper leaves to future work: down, down, down, grey. The last two factors split what the
    pyramid's coarsest has to say: 64 grey pixels of 16 levels, and their colours.
    """
    chain = [*[Downsample(2)] * 3, QuantizedGrayscale(4)]
    sizes: ModelOptions = {
        "filters": (24, 32, 32, 40, 48),
        "scales": 1,
        "blocks": (2, 3, 3, 3, 4),
        "embedding_blocks": (1, 1, 2, 2),
        "dropout": 0.0,
        "consistent": False,
    }
    return Recipe(lambda: ImageModel(auxiliaries=chain, **sizes), "celeba", 64, SHORT, minutes=3)


def faces32_grayscale_small() -> Recipe:
    """Grayscale PixelCNN for 32x32 faces: three scales for the 4-bit grey view, one for the colours."""
    expected = Expected(3.64, "docs/results.md, on faces32-grayscale's data, 7 and 8 minutes on one core")
    return Recipe(lambda: GrayscalePixelCNN(**SMALL_GRAYSCALE), "celeba", 32, SHORT, minutes=6, expected=expected)


def celeba128_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for 128x128 faces, from 8x8: most parameters are in the coarse views, the finest is light."""
    sizes: ModelOptions = {
        "filters": (24, 40, 48, 64, 80),
        "blocks": (2, 3, 3, 4, 6),
        "embedding_blocks": 1,
        "dropout": 0.0,
        "consistent": False,
    }
    expected = Expected(2.61, "docs/results.md, on faces128-pyramid's data, 11 to 147 minutes a factor on one core")
    return Recipe(lambda: PyramidPixelCNN(4, **sizes), "celeba", 128, SHORT, minutes=20, expected=expected)


def photos128_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for the shipped photographs at 128x128, from 32x32: upscales any photograph."""
    sizes: ModelOptions = {
        "filters": (32, 40, 40),
        "blocks": (2, 3, 3),
        "embedding_blocks": 1,
        "dropout": 0.0,
        "consistent": False,
    }
    training = replace(SHORT, random_crop=64)
    expected = Expected(3.72, "docs/results.md, 3 to 23 minutes a factor on one core")
    return Recipe(lambda: PyramidPixelCNN(2, **sizes), "photos", 128, training, minutes=10, expected=expected)


def photos32_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for the shipped photographs at 32x32, from 8x8: needs no network and no data of your own."""
    sizes: ModelOptions = {"filters": (24, 32, 32), "blocks": (2, 3, 3), "embedding_blocks": 1, "dropout": 0.1}
    # Photographs are few, and `pixelcnn demo` has a minute: many small steps.
    training = replace(SHORT, batch_size=8)
    expected = Expected(4.98, "docs/results.md, a minute for all factors")
    return Recipe(lambda: PyramidPixelCNN(2, **sizes), "photos", 32, training, 2, expected=expected)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "cifar10-pixelcnn++": cifar10_pixelcnn_plus_plus,
    "cifar10-pixelcnn++-small": cifar10_pixelcnn_plus_plus_small,
    "cifar10-grayscale": cifar10_grayscale,
    "cifar10-grayscale-small": cifar10_grayscale_small,
    "cifar10-pyramid": cifar10_pyramid,
    "cifar10-pyramid-small": cifar10_pyramid_small,
    "celeba128-pyramid": celeba128_pyramid,
    "celeba128-pyramid-small": celeba128_pyramid_small,
    "cifar10-classes-small": cifar10_classes_small,
    "faces64-pyramid-small": faces64_pyramid_small,
    "faces64-pyramid-grayscale": faces64_pyramid_grayscale,
    "faces32-grayscale-small": faces32_grayscale_small,
    "photos32-pyramid-small": photos32_pyramid_small,
    "photos128-pyramid-small": photos128_pyramid_small,
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name; a ValueError that suggests the nearest where there is none."""
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, 1)
        raise ValueError(
            f"no recipe {name!r}: " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(RECIPES)}")
        )
    return RECIPES[name]()


def describe(name: str) -> dict[str, Any]:
    """What a recipe is, in plain values: for people to choose by.

    Raises:
        ValueError: where there is no such recipe.
    """
    recipe = find_recipe(name)
    with torch.device("meta"):  # the largest has 135 million parameters: they are counted, not made
        parameters = sum(parameter.numel() for parameter in recipe.model().parameters())
    return {
        "what": (RECIPES[name].__doc__ or "").splitlines()[0],
        "size": recipe.size,
        "parameters": parameters,
        "data": recipe.source,
        "terms": TERMS[recipe.source],
        "bits_per_dim": recipe.expected.bits_per_dim if recipe.expected else None,
        "says": recipe.expected.source if recipe.expected else None,
    }
