"""Exact-likelihood image models: PixelCNN++ and PixelCNN models with auxiliary variables.

An image model is a chain of ever simpler views of an image, `x = x_0, x_1 = a_1(x_0), ..., x_K`, each made by an
auxiliary variable `a_k`, and one autoregressive factor for each link:
`log p(x) >= log p(x_K) + sum_k log p(x_k | x_{k+1})`, with equality where the factors are consistent.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

from pixelcnn.common.lazy import lazy_names

if TYPE_CHECKING:
    from pixelcnn.auxiliary.base import Auxiliary, register_auxiliary
    from pixelcnn.auxiliary.cells import CellAuxiliary
    from pixelcnn.auxiliary.check import check_auxiliary
    from pixelcnn.auxiliary.downsample import Downsample
    from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
    from pixelcnn.data.images import load_images
    from pixelcnn.likelihoods.base import Likelihood, register_likelihood
    from pixelcnn.likelihoods.check import check_likelihood
    from pixelcnn.likelihoods.logistic import LogisticMixture
    from pixelcnn.likelihoods.tabular import Categorical, TabularLikelihood
    from pixelcnn.models.compression import compress
    from pixelcnn.models.decompression import decompress
    from pixelcnn.models.draw import DrawOptions
    from pixelcnn.models.image_model import ImageModel
    from pixelcnn.models.load import load, save
    from pixelcnn.models.presets import GrayscalePixelCNN, PixelCNN, PyramidPixelCNN
    from pixelcnn.models.sampling import colorize, complete, sample, sample_views, upscale
    from pixelcnn.models.shipped import list_models
    from pixelcnn.pictures.notebooks import show, to_pil
    from pixelcnn.tasks import cluster
    from pixelcnn.tasks.inspecting import pixel_distribution
    from pixelcnn.tasks.scoring import evaluate, surprisal
    from pixelcnn.training.loop import train
    from pixelcnn.training.options import Run, Training
    from pixelcnn.zoo.published import import_checkpoint

__version__ = version("pixelcnn")

__all__ = [
    "Auxiliary",
    "Categorical",
    "CellAuxiliary",
    "Downsample",
    "DrawOptions",
    "GrayscalePixelCNN",
    "ImageModel",
    "Likelihood",
    "LogisticMixture",
    "PixelCNN",
    "PyramidPixelCNN",
    "QuantizedGrayscale",
    "Run",
    "TabularLikelihood",
    "Training",
    "check_auxiliary",
    "check_likelihood",
    "cluster",
    "colorize",
    "complete",
    "compress",
    "decompress",
    "evaluate",
    "import_checkpoint",
    "list_models",
    "load",
    "load_images",
    "pixel_distribution",
    "register_auxiliary",
    "register_likelihood",
    "sample",
    "sample_views",
    "save",
    "show",
    "surprisal",
    "to_pil",
    "train",
    "upscale",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "auxiliary.base": ["Auxiliary", "register_auxiliary"],
        "auxiliary.cells": ["CellAuxiliary"],
        "auxiliary.check": ["check_auxiliary"],
        "auxiliary.downsample": ["Downsample"],
        "auxiliary.grayscale": ["QuantizedGrayscale"],
        "data.images": ["load_images"],
        "likelihoods.base": ["Likelihood", "register_likelihood"],
        "likelihoods.check": ["check_likelihood"],
        "likelihoods.logistic": ["LogisticMixture"],
        "likelihoods.tabular": ["Categorical", "TabularLikelihood"],
        "models.decompression": ["decompress"],
        "models.draw": ["DrawOptions"],
        "models.image_model": ["ImageModel"],
        "models.load": ["load", "save"],
        "models.compression": ["compress"],
        "models.presets": ["GrayscalePixelCNN", "PixelCNN", "PyramidPixelCNN"],
        "models.sampling": ["colorize", "complete", "sample", "sample_views", "upscale"],
        "models.shipped": ["list_models"],
        "pictures.notebooks": ["show", "to_pil"],
        "tasks.inspecting": ["pixel_distribution"],
        "tasks.scoring": ["evaluate", "surprisal"],
        "training.loop": ["train"],
        "training.options": ["Run", "Training"],
        "zoo.published": ["import_checkpoint"],
    },
    modules={"cluster": "tasks.cluster"},
)
