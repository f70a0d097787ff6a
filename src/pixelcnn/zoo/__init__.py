"""The zoo: recipes, published checkpoints and shipped weights."""

__all__ = [
    "RECIPES",
    "describe",
    "find_recipe",
    "import_checkpoint",
    "recipe_names",
]

from typing import TYPE_CHECKING

from pixelcnn.common.lazy import lazy_names

if TYPE_CHECKING:
    from pixelcnn.zoo.listing import describe, recipe_names
    from pixelcnn.zoo.published import import_checkpoint
    from pixelcnn.zoo.recipes import RECIPES, find_recipe

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "listing": ["describe", "recipe_names"],
        "published": ["import_checkpoint"],
        "recipes": ["RECIPES", "find_recipe"],
    },
)
