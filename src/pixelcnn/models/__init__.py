"""Image models: factors, chains of factors, and the files that hold them."""

__all__ = [
    "CONFIG",
    "WEIGHTS",
    "Codec",
    "DrawOptions",
    "GrayscalePixelCNN",
    "ImageModel",
    "PixelCNN",
    "PyramidPixelCNN",
    "Restorer",
    "colorize",
    "complete",
    "distribution",
    "is_shipped",
    "list_models",
    "read_config",
    "sample",
    "sample_views",
    "shipped_names",
    "upscale",
    "why_missing",
    "zoo_card",
]

from typing import TYPE_CHECKING

from pixelcnn.common.lazy import lazy_names

if TYPE_CHECKING:
    from pixelcnn.models.codec import Codec
    from pixelcnn.models.decompression import Restorer
    from pixelcnn.models.draw import DrawOptions
    from pixelcnn.models.files import WEIGHTS, read_config
    from pixelcnn.models.image_model import ImageModel
    from pixelcnn.models.presets import GrayscalePixelCNN, PixelCNN, PyramidPixelCNN
    from pixelcnn.models.sampling import colorize, complete, sample, sample_views, upscale
    from pixelcnn.models.shipped import (
        CONFIG,
        distribution,
        is_shipped,
        list_models,
        shipped_names,
        why_missing,
        zoo_card,
    )

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "codec": ["Codec"],
        "decompression": ["Restorer"],
        "draw": ["DrawOptions"],
        "files": ["WEIGHTS", "read_config"],
        "image_model": ["ImageModel"],
        "presets": ["GrayscalePixelCNN", "PixelCNN", "PyramidPixelCNN"],
        "sampling": ["colorize", "complete", "sample", "sample_views", "upscale"],
        "shipped": ["CONFIG", "distribution", "is_shipped", "list_models", "shipped_names", "why_missing", "zoo_card"],
    },
)
