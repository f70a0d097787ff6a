"""Recipes of small models, which a processor trains in minutes or hours."""

__all__ = [
    "celeba128_pyramid_small",
    "cifar10_classes_small",
    "cifar10_grayscale_small",
    "cifar10_pixelcnn_plus_plus_small",
    "cifar10_pyramid_small",
    "faces32_grayscale_small",
    "faces64_pyramid_grayscale",
    "faces64_pyramid_small",
    "photos32_pyramid_small",
    "photos128_pyramid_small",
]

from dataclasses import replace

from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.models.config import ModelOptions
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.presets import GrayscalePixelCNN, PixelCNN, PyramidPixelCNN
from pixelcnn.training.options import Training
from pixelcnn.zoo.recipe import Expected, Recipe

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
    expected = Expected(2.43, "docs/results.md, on JPEG copies, 29 and 39 minutes on one core")
    sizes: ModelOptions = {**SMALL_GRAYSCALE, "filters": 32}
    return Recipe(lambda: GrayscalePixelCNN(**sizes), "cifar10", 32, SHORT, minutes=6, expected=expected)


def cifar10_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for 32x32 images, from 8x8: more blocks for the coarse views, few for the finest."""
    sizes: ModelOptions = {"filters": (32, 32, 48), "blocks": (2, 3, 4), "embedding_blocks": (1, 2), "dropout": 0.0}
    return Recipe(lambda: PyramidPixelCNN(2, **sizes), "cifar10", 32, SHORT, minutes=4)


def cifar10_classes_small() -> Recipe:
    """Pyramid PixelCNN for 32x32 images of a given class, with most parameters in the coarsest view."""
    sizes: ModelOptions = {
        "filters": (40, 64, 96),
        "blocks": (3, 4, 6),
        "embedding_blocks": 1,
        "classes": 10,
        "dropout": 0.0,
    }
    expected = Expected(2.43, "docs/results.md, on JPEG copies, six minutes for each factor on a GPU")
    return Recipe(lambda: PyramidPixelCNN(2, **sizes), "cifar10", 32, SHORT, minutes=6, expected=expected)


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
    expected = Expected(3.13, "docs/results.md, on faces32-grayscale's data, 32 and 58 minutes on one core")
    return Recipe(lambda: GrayscalePixelCNN(**SMALL_GRAYSCALE), "celeba", 32, SHORT, minutes=6, expected=expected)


def celeba128_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for 128x128 faces, from 8x8, with most parameters in the coarse views."""
    sizes: ModelOptions = {
        "filters": (24, 64, 64, 64, 80),
        "blocks": (2, 3, 4, 4, 6),
        "embedding_blocks": 1,
        "dropout": 0.0,
    }
    expected = Expected(
        1.75, "docs/results.md, on faces128-pyramid's data, on a GPU for 6 minutes per factor but the finest"
    )
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
    expected = Expected(3.27, "docs/results.md, on larger photographs too, 14 to 135 minutes per factor on one core")
    return Recipe(lambda: PyramidPixelCNN(2, **sizes), "photos", 128, training, minutes=10, expected=expected)


def photos32_pyramid_small() -> Recipe:
    """Pyramid PixelCNN for the shipped photographs at 32x32, from 8x8: needs no internet and no data of your own."""
    sizes: ModelOptions = {"filters": (24, 32, 32), "blocks": (2, 3, 3), "embedding_blocks": 1, "dropout": 0.1}
    # There are few photographs, and `pixelcnn demo` has one minute: take many small steps.
    training = replace(SHORT, batch_size=8)
    expected = Expected(5.11, "docs/results.md, a minute for all factors")
    return Recipe(lambda: PyramidPixelCNN(2, **sizes), "photos", 32, training, 2, expected=expected)
