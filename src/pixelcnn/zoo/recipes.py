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

__all__ = ["RECIPES", "find_recipe", "summarize"]

from collections.abc import Callable
from typing import Any

import torch

from pixelcnn.data.sources import TERMS
from pixelcnn.zoo import published_recipes, small_recipes
from pixelcnn.zoo.listing import no_recipe
from pixelcnn.zoo.recipe import Recipe

RECIPES: dict[str, Callable[[], Recipe]] = {
    "cifar10-pixelcnn++": published_recipes.cifar10_pixelcnn_plus_plus,
    "cifar10-pixelcnn++-small": small_recipes.cifar10_pixelcnn_plus_plus_small,
    "cifar10-grayscale": published_recipes.cifar10_grayscale,
    "cifar10-grayscale-small": small_recipes.cifar10_grayscale_small,
    "cifar10-pyramid": published_recipes.cifar10_pyramid,
    "cifar10-pyramid-small": small_recipes.cifar10_pyramid_small,
    "celeba128-pyramid": published_recipes.celeba128_pyramid,
    "celeba128-pyramid-small": small_recipes.celeba128_pyramid_small,
    "cifar10-classes-small": small_recipes.cifar10_classes_small,
    "faces64-pyramid-small": small_recipes.faces64_pyramid_small,
    "faces64-pyramid-grayscale": small_recipes.faces64_pyramid_grayscale,
    "faces32-grayscale-small": small_recipes.faces32_grayscale_small,
    "photos32-pyramid-small": small_recipes.photos32_pyramid_small,
    "photos128-pyramid-small": small_recipes.photos128_pyramid_small,
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
        raise no_recipe(name, RECIPES)
    return RECIPES[name]()


def summarize(name: str) -> dict[str, Any]:
    """Compute the entry of a recipe in the listing."""
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
