"""Recipes: named configurations, each a function that says what it is.

A recipe is a model with fresh weights, a source of images, and how to train the one on the other. Those that end in
`-small` finish in minutes on two CPU cores.
"""

__all__ = ["RECIPES", "Recipe", "find_recipe"]

from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from pixelcnn.models import GrayscalePixelCNN, ImageModel, PyramidPixelCNN
from pixelcnn.training import Training


@dataclass(frozen=True)
class Recipe:
    """What `pixelcnn train NAME` trains; every option of the command line replaces one entry."""

    model: Callable[[], ImageModel]
    source: str
    size: int
    training: Training
    minutes: float  # of each factor, on two CPU cores


# Short trainings see a fraction of their data once: no dropout, a higher learning rate, and a shorter average.
SHORT = Training(learning_rate=2e-3, decay=0.9998, average=0.998)


SMALL_GRAYSCALE: dict[str, Any] = {
    "filters": (32, 40),
    "blocks": 2,
    "scales": (1, 3),
    "embedding_blocks": 1,
    "embedding_scales": 2,
    "dropout": 0.0,
    "consistent": False,
}


def cifar10_grayscale_small() -> Recipe:
    """Grayscale PixelCNN for 32x32 images: three scales for the 4-bit grey view, one for the colours."""
    return Recipe(lambda: GrayscalePixelCNN(**SMALL_GRAYSCALE), "cifar10", 32, SHORT, minutes=6)


def cifar10_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for 32x32 images, from 8x8: the coarse views have more blocks, the finest stays light."""
    sizes = {"filters": (32, 32, 48), "blocks": (2, 3, 4), "embedding_blocks": (1, 2)}
    return Recipe(lambda: PyramidPixelCNN(2, **sizes, dropout=0.0), "cifar10", 32, SHORT, minutes=4)


def faces64_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for 64x64 faces, from 8x8: the coarse views have more blocks, the finest stays light."""
    sizes = {"filters": (24, 32, 32, 48), "blocks": (2, 3, 3, 4), "embedding_blocks": (1, 1, 2)}
    return Recipe(lambda: PyramidPixelCNN(3, **sizes, dropout=0.0), "celeba", 64, SHORT, minutes=3)


def faces32_grayscale_small() -> Recipe:
    """Grayscale PixelCNN for 32x32 faces: three scales for the 4-bit grey view, one for the colours."""
    return Recipe(lambda: GrayscalePixelCNN(**SMALL_GRAYSCALE), "celeba", 32, SHORT, minutes=6)


def celeba128_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for 128x128 faces, from 8x8: most parameters are in the coarse views, the finest is light."""
    sizes = {"filters": (24, 40, 48, 64, 80), "blocks": (2, 3, 3, 4, 6), "embedding_blocks": 1}
    return Recipe(lambda: PyramidPixelCNN(4, **sizes, dropout=0.0, consistent=False), "celeba", 128, SHORT, minutes=20)


def photos128_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for the shipped photographs at 128x128, from 32x32: upscales any photograph."""
    sizes = {"filters": (32, 40, 40), "blocks": (2, 3, 3), "embedding_blocks": 1}
    training = replace(SHORT, random_crop=64)
    return Recipe(lambda: PyramidPixelCNN(2, **sizes, dropout=0.0, consistent=False), "photos", 128, training, 10)


def photos32_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for the shipped photographs at 32x32, from 8x8: needs no network and no data of your own."""
    sizes = {"filters": (24, 32, 32), "blocks": (2, 3, 3), "embedding_blocks": 1}
    # Photographs are few, and `pixelcnn demo` has a minute: many small steps.
    training = replace(SHORT, batch_size=8, learning_rate=3e-3)
    return Recipe(lambda: PyramidPixelCNN(2, **sizes, dropout=0.1), "photos", 32, training, minutes=2)


RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__.replace("_", "-"): recipe
    for recipe in (
        cifar10_grayscale_small,
        cifar10_pyramid_small,
        celeba128_pyramid_small,
        faces32_grayscale_small,
        faces64_pyramid_small,
        photos32_pyramid_small,
        photos128_pyramid_small,
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name; a ValueError that suggests the nearest where there is none."""
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, 1)
        raise ValueError(
            f"no recipe {name!r}: " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(RECIPES)}")
        )
    return RECIPES[name]()
