"""Recipes: named configurations, each a function that says what it is.

A recipe is a model with fresh weights, a source of images, and how to train the one on the other. Those that end in
`-small` finish in minutes on two CPU cores.
"""

__all__ = ["RECIPES", "Recipe", "find_recipe"]

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

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


def cifar10_grayscale_small() -> Recipe:
    """Grayscale PixelCNN for 32x32 images: 48 filters, two scales for the 4-bit grey view, one for the colours."""
    return Recipe(
        model=lambda: GrayscalePixelCNN(
            filters=48, blocks=(3, 3), scales=(1, 2), embedding_blocks=2, embedding_scales=2, dropout=0.0
        ),
        source="cifar10",
        size=32,
        training=Training(learning_rate=2e-3, decay=0.9998, average=0.999),
        minutes=10,
    )


def cifar10_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for 32x32 images, from 8x8: the coarse views get more blocks, the finest stays light."""
    return Recipe(
        model=lambda: PyramidPixelCNN(2, filters=(40, 56, 64), blocks=(3, 4, 6), embedding_blocks=2, dropout=0.0),
        source="cifar10",
        size=32,
        training=Training(learning_rate=2e-3, decay=0.9998, average=0.999),
        minutes=6,
    )


def faces64_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for 64x64 faces, from 8x8: the coarse views get more blocks, the finest stays light."""
    return Recipe(
        model=lambda: PyramidPixelCNN(
            3, filters=(32, 40, 56, 64), blocks=(3, 3, 4, 6), embedding_blocks=2, dropout=0.0
        ),
        source="celeba",
        size=64,
        training=Training(learning_rate=2e-3, decay=0.9998, average=0.999),
        minutes=6,
    )


def photos32_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for the shipped photographs at 32x32, from 8x8: needs no network and no data of your own."""
    return Recipe(
        model=lambda: PyramidPixelCNN(2, filters=32, blocks=3, embedding_blocks=2, dropout=0.1),
        source="photos",
        size=32,
        training=Training(learning_rate=2e-3, decay=0.9998, average=0.999),
        minutes=2,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__.replace("_", "-"): recipe
    for recipe in (cifar10_grayscale_small, cifar10_pyramid_small, faces64_pyramid_small, photos32_pyramid_small)
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name; a ValueError that suggests the nearest where there is none."""
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, 1)
        raise ValueError(
            f"no recipe {name!r}: " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(RECIPES)}")
        )
    return RECIPES[name]()
