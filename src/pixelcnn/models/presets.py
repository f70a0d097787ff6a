"""The published models: subclasses of `ImageModel` that only choose arguments."""

__all__ = ["GrayscalePixelCNN", "PixelCNN", "PyramidPixelCNN"]

from typing import Unpack

from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.common.checks import check_whole
from pixelcnn.models.config import ModelOptions
from pixelcnn.models.image_model import ImageModel


class PixelCNN(ImageModel):
    """PixelCNN++ as published: no auxiliary variables, three scales, five blocks per scale and 160 filters.

    Example:
        >>> from pixelcnn import PixelCNN
        >>> len(PixelCNN(filters=8, blocks=1).factors)
        1
    """

    def __init__(self, channels: int = 3, levels: int = 256, **options: Unpack[ModelOptions]) -> None:
        super().__init__(channels, levels, **options)


class GrayscalePixelCNN(ImageModel):
    """The Grayscale PixelCNN: a gray view of a few bits, and the image given that view.

    Both factors have the shape of PixelCNN++, and the factor of the image is less deep. The paper has "24 residual
    blocks instead of 36" for the colors and their embedding (recalled from the paper, not confirmed). The code of
    PixelCNN++ has 5 blocks per scale. This is taken to mean 4 instead of 6 blocks per scale and direction.

    Example:
        >>> from pixelcnn import GrayscalePixelCNN
        >>> GrayscalePixelCNN(bits=4, filters=8, blocks=1, embedding_blocks=1).formats
        [(3, 256), (1, 16)]
    """

    def __init__(self, bits: int = 4, channels: int = 3, levels: int = 256, **options: Unpack[ModelOptions]) -> None:
        chosen: ModelOptions = {"blocks": (4, 5), "embedding_blocks": 4, "embedding_scales": 3}
        super().__init__(channels, levels, [QuantizedGrayscale(bits)], **{**chosen, **options})


class PyramidPixelCNN(ImageModel):
    """The Pyramid PixelCNN: an image given the same image at half the size, and so on, `depth` times.

    The networks are plain (one scale), with three blocks and 100 filters. Each embedding has 15 blocks (recalled from
    the paper, not confirmed). The paper models 128x128 faces with `depth=4`, which starts from 8x8.

    Example:
        >>> from pixelcnn import PyramidPixelCNN
        >>> PyramidPixelCNN(depth=2, filters=8, blocks=1, embedding_blocks=1).sizes((32, 32))
        [(32, 32), (16, 16), (8, 8)]
    """

    def __init__(self, depth: int = 4, channels: int = 3, levels: int = 256, **options: Unpack[ModelOptions]) -> None:
        check_whole(depth=depth)
        chosen: ModelOptions = {
            "filters": 100,
            "blocks": 3,
            "scales": 1,
            "embedding_blocks": 3,
            "embedding_scales": 2,
        }
        super().__init__(channels, levels, [Downsample(2)] * depth, **{**chosen, **options})
