"""Exact-likelihood image models: PixelCNN++ and PixelCNN models with auxiliary variables.

An image model is a chain of ever simpler views of an image, `x = x_0, x_1 = a_1(x_0), ..., x_K`, each made by an
auxiliary variable `a_k`, and one autoregressive factor for each link:
`log p(x) >= log p(x_K) + sum_k log p(x_k | x_{k+1})`, with equality where the factors are consistent.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixelcnn.auxiliary import Auxiliary, Downsample, QuantizedGrayscale
    from pixelcnn.checkpoint import load, save
    from pixelcnn.data import load_images
    from pixelcnn.evaluation import evaluate, surprise
    from pixelcnn.imports import import_checkpoint
    from pixelcnn.likelihoods import Categorical, LogisticMixture
    from pixelcnn.models import GrayscalePixelCNN, ImageModel, PixelCNN, PyramidPixelCNN
    from pixelcnn.sampling import colorize, complete, sample, upscale
    from pixelcnn.training import Training, train

__version__ = version("pixelcnn")

__all__ = [
    "Auxiliary",
    "Categorical",
    "Downsample",
    "GrayscalePixelCNN",
    "ImageModel",
    "LogisticMixture",
    "PixelCNN",
    "PyramidPixelCNN",
    "QuantizedGrayscale",
    "Training",
    "colorize",
    "complete",
    "evaluate",
    "import_checkpoint",
    "load",
    "load_images",
    "sample",
    "save",
    "surprise",
    "train",
    "upscale",
]

_HOMES = {
    "auxiliary": ["Auxiliary", "Downsample", "QuantizedGrayscale"],
    "checkpoint": ["load", "save"],
    "data": ["load_images"],
    "evaluation": ["evaluate", "surprise"],
    "imports": ["import_checkpoint"],
    "likelihoods": ["Categorical", "LogisticMixture"],
    "models": ["GrayscalePixelCNN", "ImageModel", "PixelCNN", "PyramidPixelCNN"],
    "sampling": ["colorize", "complete", "sample", "upscale"],
    "training": ["Training", "train"],
}


def __getattr__(name: str) -> Any:
    """Import on first use: `pixelcnn --help` must not wait for torch."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"pixelcnn.{module}"), name)
    raise AttributeError(f"module 'pixelcnn' has no attribute {name!r}")
