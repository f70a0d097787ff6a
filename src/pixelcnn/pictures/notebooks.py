"""Pictures for notebooks, of whatever the functions of this package take and return."""

__all__ = ["show", "to_pil"]

from itertools import groupby

import torch
from PIL import Image
from torch import Tensor

from pixelcnn.common.checks import check_whole
from pixelcnn.data.given import ImagesLike, take_images, to_picture
from pixelcnn.pictures.sheets import sheet


def to_pil(images: ImagesLike, *, levels: int = 256) -> list[Image.Image]:
    """Convert images to 8-bit pictures (PIL), one for each, of their own size.

    Args:
        images: pictures, paths, arrays, tensors, or a list of these, see `pixelcnn.data.given`.
        levels: of arrays and tensors, stretched to 0 to 255: 16 for the gray view of a Grayscale model.

    Raises:
        ValueError: if something is not an image, or has values out of range.

    Example:
        >>> import pixelcnn
        >>> x = pixelcnn.load("photos-pyramid").sample(2, size=8)
        >>> [picture.size for picture in pixelcnn.to_pil(x)]
        [(8, 8), (8, 8)]
    """
    return [to_picture(x, levels) for batch in _take(images, levels) for x in batch]


def show(images: ImagesLike, *, columns: int = 8, height: int = 96, levels: int = 256) -> Image.Image:
    """Make one picture of images, which a notebook displays; small images are enlarged by a whole factor.

    Args:
        images: pictures, paths, arrays, tensors, or a list of these, see `pixelcnn.data.given`. In a list, each batch
            begins a row.
        columns: images in a row, at most.
        height: the largest side, in pixels, to which images are enlarged.
        levels: of arrays and tensors: 16 for the gray view of a Grayscale model.

    Raises:
        ValueError: if something is not an image, or has values out of range.

    Example:
        >>> import pixelcnn
        >>> model = pixelcnn.load("photos-pyramid")
        >>> views = dict(pixelcnn.sample_views(model, 4, size=8))
        >>> pixelcnn.show([*views.values()])  # three rows: 2x2, 4x4 and 8x8
        <PIL.Image.Image image mode=RGB size=406x308 at ...>
    """
    check_whole(columns=columns, height=height)
    rows = []
    for many, group in groupby(_take(images, levels), lambda batch: len(batch) > 1):
        for found in [list(batch) for batch in group] if many else [[batch[0] for batch in group]]:
            rows += [found[i : i + columns] for i in range(0, len(found), columns)]
    return sheet([("", row, levels) for row in rows], height=height)


def _take(images: ImagesLike, levels: int) -> list[Tensor]:
    """Return each thing that was given as images (n, C, H, W) of one or three channels."""
    return take_images(images, 3, levels, device=torch.device("cpu"), gray=True).xs
