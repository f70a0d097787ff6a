"""Recipes: named configurations to train, each described by the docstring of its function.

A recipe combines a model with fresh weights, a source of images, the way to train it and the result to expect. Recipes
without `-small` in their names are the published models at full size and need a GPU for days, except
`faces64-pyramid-grayscale`, which is small and has not been published. Recipes that end in `-small` finish in minutes
on two CPU cores, or in an hour or two for `celeba128-pyramid-small`.

The full-size recipes differ from the publications in two ways. The means of a pixel are offsets from a prediction based
on the given view (`pixelcnn.models.Factor`), and logistics start narrow and have a maximum width
(`pixelcnn.likelihoods.LogisticMixture`).

Not every number below could be checked against its source:

- Confirmed by a second source or the authors' code: the 2.98 and 2.92 bits per dimension of Table 1; everything in
  `cifar10-pixelcnn++`; for Grayscale, the likelihoods, the network of the gray view and the flips; for Pyramid, 100
  filters, three blocks and the views.
- Unconfirmed, from memory: for Grayscale, the 24 blocks, the two parts of the 2.98, the batch size, learning rate,
  decay and epochs; for Pyramid, the 15 embedding blocks, the batch size, learning rate, decay and epochs, the crop of
  CelebA, the 3.32 for CIFAR-10, and the figures for CelebA.

References:
    Salimans et al., PixelCNN++ (ICLR 2017), and its code, https://github.com/openai/pixel-cnn.
    Kolesnikov & Lampert, PixelCNN models with auxiliary variables (ICML 2017), section 4: "the paper" below.
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
    """The bits per dimension to expect on held-out images, and the source of this figure."""

    bits_per_dim: float
    source: str


@dataclass(frozen=True)
class Recipe:
    """The settings behind `pixelcnn train NAME`; options of the command line override them one by one.

    Args:
        model: a function that creates the model with fresh weights.
        source, size: the source and the side of the images.
        training: how to train each factor.
        minutes: training time of each factor on two CPU cores; ignored if there are steps.
        steps: training steps of each factor, starting with the factor of the image itself.
        expected: the result to expect; None if it has not been measured.
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
        """The arguments of `train` that set its length."""
        return {"steps": self.steps} if self.steps else {"minutes": self.minutes}


# Neither paper clips the gradient. Only PixelCNN++ mentions averaged weights; we use its average for both.
PUBLISHED = Training(learning_rate=1e-3, moments=(0.95, 0.9995), average=0.9995, clip=0.0)
CIFAR10_IMAGES = 50_000  # training images
CELEBA_IMAGES = 192_469  # training images: all but 5% of 202,599


def _steps(epochs: int, images: int, training: Training) -> int:
    return math.ceil(epochs * images / training.batch_size)


def cifar10_pixelcnn_plus_plus() -> Recipe:
    """PixelCNN++ for 32x32 images, as published: 160 filters, three scales of five blocks.

    From its code: a batch of 16 on each of 8 GPUs, a decay of 0.999995 per step, no flips, at most 5,000 epochs, and
    Adam's moments of 0.95 and 0.9995. Its README says that it converges in about 5 days on 8 Titan X GPUs; stop when
    the bits per dimension of test images no longer fall.
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
    """Grayscale PixelCNN for 32x32 images, as published: 160 filters, a 4-bit gray view.

    The network of the gray view is that of PixelCNN++. The color network, and the embedding of the gray view that it is
    given, have 24 blocks instead of 36 (see `GrayscalePixelCNN`). Training takes 200 epochs for the colors and 30 for
    the gray view, and images are flipped. The 2.98 are made up of 2.52 for the colors and 0.459 for the gray view. See
    the module for which of these numbers are confirmed.
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

    The paper reports only a result for CIFAR-10. The depth of 2, which starts at 8x8 as for faces, and the training,
    which is that of `celeba128_pyramid` with the flips of the Grayscale model, are our interpretation.
    """
    training = replace(PUBLISHED, batch_size=16, decay=0.999995)
    return Recipe(
        lambda: PyramidPixelCNN(2, consistent=False),
        "cifar10",
        32,
        training,
        steps=(_steps(60, CIFAR10_IMAGES, training),) * 3,
        expected=Expected(3.32, "the paper, section 4.2, unconfirmed"),
    )


def celeba128_pyramid() -> Recipe:
    """Pyramid PixelCNN for 128x128 faces, from 8x8, as published: 100 filters, three blocks per factor.

    The embeddings have 15 blocks, and training takes 60 epochs. The published bits per dimension are 1.52 at 128x128,
    and 2.61, 3.33, 4.30 and 4.58 at 64, 32, 16 and 8, each per sub-pixel of that size. The paper mentions flips only
    for CIFAR-10. See the module for which of these numbers are confirmed.
    """
    training = replace(PUBLISHED, batch_size=16, decay=0.999995, flip=False)
    return Recipe(
        lambda: PyramidPixelCNN(4, consistent=False),
        "celeba",
        128,
        training,
        steps=(_steps(60, CELEBA_IMAGES, training),) * 5,
        expected=Expected(1.52, "the paper, section 4.2, unconfirmed"),
    )


# These settings learned the most in a given time (docs/learning.md): Muon, many steps on small batches, and a rate that
# ends near zero, which leaves little for the average to do. Short runs see only a fraction of their data, once, so they
# need no dropout.
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
    """PixelCNN++ for 32x32 images, as large and trained for as long as both factors of `cifar10-grayscale-small`."""
    return Recipe(lambda: PixelCNN(filters=38, blocks=2, dropout=0.0), "cifar10", 32, SHORT, minutes=12)


def cifar10_grayscale_small() -> Recipe:
    """Grayscale PixelCNN for 32x32 images: three scales for the 4-bit gray view, one for the colors."""
    expected = Expected(3.48, "docs/results.md, on JPEG copies, 7 and 8 minutes on one core")
    sizes: ModelOptions = {**SMALL_GRAYSCALE, "filters": 32}
    return Recipe(lambda: GrayscalePixelCNN(**sizes), "cifar10", 32, SHORT, minutes=6, expected=expected)


def cifar10_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for 32x32 images, from 8x8: more blocks for the coarse views, few for the finest."""
    sizes: ModelOptions = {"filters": (32, 32, 48), "blocks": (2, 3, 4), "embedding_blocks": (1, 2), "dropout": 0.0}
    return Recipe(lambda: PyramidPixelCNN(2, **sizes), "cifar10", 32, SHORT, minutes=4)


def cifar10_classes_small() -> Recipe:
    """Pyramid PixelCNN for 32x32 images of a given class, with most parameters in the coarsest view."""
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
    """Pyramid PixelCNN for 64x64 faces, from 8x8: more blocks for the coarse views, few for the finest."""
    sizes: ModelOptions = {
        "filters": (24, 32, 32, 48),
        "blocks": (2, 3, 3, 4),
        "embedding_blocks": (1, 1, 2),
        "dropout": 0.0,
    }
    return Recipe(lambda: PyramidPixelCNN(3, **sizes), "celeba", 64, SHORT, minutes=3)


def faces64_pyramid_grayscale() -> Recipe:
    """Pyramid of 64x64 faces down to 8x8, followed by a 4-bit gray view of those 8x8 pixels: small, for two cores.

    This is the combination that the paper leaves to future work: three downsamplings, then gray. The last two factors
    split the work of the pyramid's coarsest factor into 64 gray pixels of 16 levels, and their colors.
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
    """Grayscale PixelCNN for 32x32 faces: three scales for the 4-bit gray view, one for the colors."""
    expected = Expected(3.64, "docs/results.md, on faces32-grayscale's data, 7 and 8 minutes on one core")
    return Recipe(lambda: GrayscalePixelCNN(**SMALL_GRAYSCALE), "celeba", 32, SHORT, minutes=6, expected=expected)


def celeba128_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for 128x128 faces, from 8x8, with most parameters in the coarse views."""
    sizes: ModelOptions = {
        "filters": (24, 40, 48, 64, 80),
        "blocks": (2, 3, 3, 4, 6),
        "embedding_blocks": 1,
        "dropout": 0.0,
        "consistent": False,
    }
    expected = Expected(2.61, "docs/results.md, on faces128-pyramid's data, 11 to 147 minutes per factor on one core")
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
    expected = Expected(3.72, "docs/results.md, 3 to 23 minutes per factor on one core")
    return Recipe(lambda: PyramidPixelCNN(2, **sizes), "photos", 128, training, minutes=10, expected=expected)


def photos32_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for the shipped photographs at 32x32, from 8x8: needs no internet and no data of your own."""
    sizes: ModelOptions = {"filters": (24, 32, 32), "blocks": (2, 3, 3), "embedding_blocks": 1, "dropout": 0.1}
    # There are few photographs, and `pixelcnn demo` has one minute: take many small steps.
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
    """Look up a recipe by its name.

    Raises:
        ValueError: if there is no such recipe; the message suggests the closest name.

    Example:
        >>> recipe = find_recipe("photos32-pyramid-small")
        >>> recipe.source, recipe.size, recipe.training.optimizer
        ('photos', 32, 'muon')
    """
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, 1)
        raise ValueError(
            f"no recipe {name!r}: " + (f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(RECIPES)}")
        )
    return RECIPES[name]()


def describe(name: str) -> dict[str, Any]:
    """Summarize a recipe in plain values that help people to choose one.

    Raises:
        ValueError: if there is no such recipe.
    """
    recipe = find_recipe(name)
    with torch.device("meta"):  # count the parameters without allocating up to 135 million of them
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
