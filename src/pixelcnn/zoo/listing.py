"""What `pixelcnn models` lists about recipes: from a file, since building their models takes seconds.

`python tools/list_recipes.py` writes the file anew. A test compares it with the recipes.
"""

__all__ = ["LISTING", "describe", "no_recipe", "recipe_names"]

from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pixelcnn.common.files import read_json

LISTING = Path(__file__).with_name("recipes.json")


def recipe_names() -> list[str]:
    """List the names of all recipes."""
    return list(read_json(LISTING))


def describe(name: str) -> dict[str, Any]:
    """Summarize a recipe in plain values that help people to choose one.

    Raises:
        ValueError: if there is no such recipe.

    Example:
        >>> describe("photos32-pyramid-small")["size"]
        32
    """
    listing = read_json(LISTING)
    if name not in listing:
        raise no_recipe(name, listing)
    return listing[name]


def no_recipe(name: str, there: Collection[str]) -> ValueError:
    """Make the error for a name that no recipe has; it suggests the closest name."""
    near = get_close_matches(name, there, 1)
    return ValueError(
        f"no recipe {name!r}: " + (f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(there)}")
    )
