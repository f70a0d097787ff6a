"""Compressing pictures with one call, which is a method of models too."""

__all__ = ["compress"]

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from pixelcnn.common.progress import counting_bar
from pixelcnn.data.given import ImagesLike
from pixelcnn.data.originals import take_originals
from pixelcnn.models.base import ChainModel, LabelsLike
from pixelcnn.models.codec import Codec


def compress(
    model: ChainModel,
    pictures: ImagesLike,
    *,
    labels: LabelsLike | None = None,
    names: Sequence[str] | None = None,
    progress: bool = False,
) -> bytes:
    """Compress pictures without loss.

    This is also a method of models: `model.compress(pictures)`. The result can be read on any machine, by
    `pixelcnn.decompress`. It takes about the time of scoring; getting the pictures back takes about that of drawing.

    Args:
        model: any model whose likelihoods are `LogisticMixture` or `Categorical`, which the defaults are.
        pictures: one picture (PIL), path, array (H, W, C) or tensor (C, H, W); or a list or a batch of them. Pictures
            and paths are kept with their transparency, color profile and EXIF data.
        labels: a class label for all, or one for each, for a model with classes.
        names: for an archive, the relative path of each picture; "000000.png" and so on by default.
        progress: show a progress bar if this takes longer than two seconds.

    Returns:
        The content of a file: of a compressed picture (`.pxc`) for one picture, of an archive (`.pxa`) for a list or a
        batch.

    Raises:
        ValueError: if the pictures, the labels or the names do not fit, or the model cannot be put into exact
            arithmetic.
        MemoryError: if not even a small tile of one picture fits in memory.

    Example:
        >>> import pixelcnn
        >>> from PIL import Image
        >>> model = pixelcnn.load("photos-pyramid")
        >>> content = pixelcnn.compress(model, Image.new("RGB", (20, 10), "teal"))
        >>> pixelcnn.decompress(content).size
        (20, 10)
        >>> archive = pixelcnn.compress(model, [Image.new("L", (8, 8)), Image.new("RGB", (5, 7), "red")])
        >>> [picture.mode for picture in pixelcnn.decompress(archive)]
        ['L', 'RGB']
    """
    originals, codec = take_originals(pictures, *model.formats[0]), Codec(model)
    with counting_bar("compressing", codec.pixels(originals), visible=progress) as count:
        if not _is_batch(pictures):
            if names is not None:
                raise ValueError(f"names={names!r}: only pictures of an archive have names; give a list")
            return codec.compress(originals, labels, count=count)[0]
        names = [f"{i:06}.png" for i in range(len(originals))] if names is None else names
        return codec.archive(originals, names, labels, count=count)


def _is_batch(pictures: ImagesLike) -> bool:
    """Whether this is a list or a batch of pictures, instead of one."""
    return isinstance(pictures, list | tuple) or (isinstance(pictures, Tensor | np.ndarray) and pictures.ndim == 4)
