"""The zoo: recipes, published checkpoints and shipped weights."""

__all__ = [
    "RECIPES",
    "describe",
    "find_recipe",
    "import_checkpoint",
]

from typing import TYPE_CHECKING

from pixelcnn.common.lazy import lazy_names

if TYPE_CHECKING:
    from pixelcnn.zoo.published import import_checkpoint
    from pixelcnn.zoo.recipes import RECIPES, describe, find_recipe

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "published": ["import_checkpoint"],
        "recipes": ["RECIPES", "describe", "find_recipe"],
    },
)
