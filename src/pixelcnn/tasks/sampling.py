"""Draw whole images from a model, or the missing part of images.

`colorize`, `upscale` and `complete` always draw consistently, even from a free model: the result agrees exactly with
what it was asked to agree with. (A consistent factor gives probability only to images that have the given view; a free
one may also draw others.)
"""

__all__ = ["colorize", "complete", "sample", "sample_views", "upscale"]

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pixelcnn.auxiliary.chain import check_images
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.likelihoods.base import Bounds
from pixelcnn.models.draw import DrawOptions, Request
from pixelcnn.models.image_model import ImageModel

Seed = int | Sequence[int]
"""The seed of the first image, where image i gets seed + i; or a sequence with the seed of each image."""


def sample_views(
    model: ImageModel,
    n: int = 1,
    size: int | tuple[int, int] | None = None,
    *,
    seed: Seed = 0,
    labels: Tensor | None = None,
    given: tuple[int, Tensor] | None = None,
    options: DrawOptions | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Draw images view by view: (k, x_k) for k = K, ..., 0, each as soon as it is finished.

    Args:
        model: any model.
        n: number of images.
        size: side of square images, or (H, W); None for the size of the training images, or 32 if that is unknown.
        seed: seed of the first image, where image i is the image that seed + i would give alone, up to rounding; or a
            sequence with the seed of each image.
        labels: (n,) class labels, for a model with classes.
        given: (k, x_k) with x_k integers (n, C_k, H_k, W_k): draw only the views before it, given this one.
        options: how to draw.

    Raises:
        ValueError: if the number or size is below 1, or options do not fit the model.
        MemoryError: if the cached activations need more memory than is free: draw fewer images at once.
        FloatingPointError: if the network gives parameters that are not finite.

    Example:
        >>> import pixelcnn
        >>> model = pixelcnn.load("photos-pyramid")
        >>> [(k, tuple(x.shape)) for k, x in pixelcnn.sample_views(model, 2, size=(8, 6))]
        [(2, (2, 3, 2, 2)), (1, (2, 3, 4, 3)), (0, (2, 3, 8, 6))]
    """
    return model.draw(Request(n, size, seed, labels, given), options)


def sample(
    model: ImageModel,
    n: int = 1,
    size: int | tuple[int, int] | None = None,
    *,
    seed: Seed = 0,
    labels: Tensor | None = None,
    given: tuple[int, Tensor] | None = None,
    options: DrawOptions | None = None,
) -> list[Tensor]:
    """Draw n images from a model together with their views; arguments and errors are those of `sample_views`.

    Returns:
        The views x_0, ..., x_K, each (n, C, H, W); x_0 are the images. The type is uint8 (int64 above 256 levels). With
        `given`, only the views before the given one.

    Example:
        >>> import pixelcnn
        >>> images, half, quarter = pixelcnn.sample(pixelcnn.load("photos-pyramid"), n=2, size=8)
        >>> images.shape, quarter.shape
        (torch.Size([2, 3, 8, 8]), torch.Size([2, 3, 2, 2]))
    """
    return _all(model, Request(n, size, seed, labels, given), options)


def colorize(
    model: ImageModel,
    x: Tensor,
    *,
    seed: Seed = 0,
    labels: Tensor | None = None,
    options: DrawOptions | None = None,
) -> Tensor:
    """Draw colors for gray images; the result always has the gray view of the images.

    Args:
        model: a model whose first auxiliary variable is `QuantizedGrayscale`, such as `GrayscalePixelCNN`.
        x: gray integers (B, 1, H, W) in [0, levels), or color images (B, 3, H, W), whose gray view is used.
        seed, labels, options: see `sample_views`.

    Returns:
        Images (B, 3, H, W), of the type that `sample` returns.

    Raises:
        ValueError: if the model has no gray view, or the images are neither gray nor color.

    Example:
        >>> import torch, pixelcnn
        >>> model = pixelcnn.GrayscalePixelCNN(filters=8, blocks=1, embedding_blocks=1)
        >>> pixelcnn.colorize(model, torch.full((1, 1, 4, 4), 128, dtype=torch.uint8)).shape
        torch.Size([1, 3, 4, 4])
    """
    gray = model.auxiliaries[0] if model.auxiliaries else None
    if not isinstance(gray, QuantizedGrayscale) or model.formats[0][0] != 3:
        raise ValueError(f"auxiliaries={list(model.auxiliaries)!r}: to colorize, use a Grayscale model")
    check_images(x, 1 if x.dim() == 4 and x.shape[1] == 1 else 3, model.levels)
    x = x.to(model.device)
    H, W = x.shape[2:]
    return _draw_consistently(model, Request(len(x), (H, W), seed, labels, (1, gray(x, model.levels))), options)


def upscale(
    model: ImageModel,
    x: Tensor,
    factor: int = 2,
    *,
    seed: Seed = 0,
    labels: Tensor | None = None,
    options: DrawOptions | None = None,
) -> Tensor:
    """Draw larger images; averaging them over 2x2 squares, repeatedly, always gives back `x`.

    Args:
        model: a model whose first auxiliary variables are `Downsample`, such as `PyramidPixelCNN`.
        x: integers (B, C, H, W), with the channels and levels of the model.
        factor: how many times larger: 2, 4, ..., up to the total reduction of these auxiliary variables.
        seed, labels, options: see `sample_views`.

    Returns:
        Images (B, C, factor * H, factor * W), of the type that `sample` returns.

    Raises:
        ValueError: if the model does not support the factor, or the images have other channels.

    Example:
        >>> import torch, pixelcnn
        >>> small = torch.full((1, 3, 4, 4), 128, dtype=torch.uint8)
        >>> pixelcnn.upscale(pixelcnn.load("photos-pyramid"), small).shape
        torch.Size([1, 3, 8, 8])
    """
    depths, product = {}, 1
    for k, auxiliary in enumerate(model.auxiliaries, 1):
        if not isinstance(auxiliary, Downsample):
            break
        product *= auxiliary.factor
        depths[product] = k
    if factor not in depths:
        offered = f"use one of {', '.join(map(str, depths))}" if depths else "this model has no smaller view"
        raise ValueError(f"factor={factor!r}: {offered}")
    check_images(x, *model.formats[0])
    H, W = (factor * side for side in x.shape[2:])
    return _draw_consistently(model, Request(len(x), (H, W), seed, labels, (depths[factor], x)), options)


def complete(
    model: ImageModel,
    x: Tensor,
    unknown: Tensor,
    *,
    seed: Seed = 0,
    labels: Tensor | None = None,
    options: DrawOptions | None = None,
) -> Tensor:
    """Draw the unknown pixels of images; the known ones stay.

    The views are completed one after another, the simplest first. A view's pixel is known if it is computed from known
    pixels only. If it is computed from known and unknown pixels, it is drawn between the smallest and the largest value
    that the known ones allow, channel by channel, with red drawn as if green and blue could be anything. Within a view,
    pixels are drawn in raster order, each given what is known or drawn above and to the left of it. Known pixels below
    and to the right have an influence only through the simpler views.

    Args:
        model: any model.
        x: integers (B, C, H, W); the values of unknown pixels are ignored.
        unknown: bool (H, W) or (B, H, W): where to draw.
        seed, labels, options: see `sample_views`.

    Returns:
        Images (B, C, H, W), of the type that `sample` returns.

    Raises:
        ValueError: if the mask has another size or type, or no unknown pixel.

    Example:
        >>> import torch, pixelcnn
        >>> x = torch.full((1, 3, 8, 8), 128, dtype=torch.uint8)
        >>> right = torch.arange(8).expand(8, 8) >= 4
        >>> completed = pixelcnn.complete(pixelcnn.load("photos-pyramid"), x, right)
        >>> bool((completed[..., :4] == x[..., :4]).all())
        True
    """
    check_images(x, *model.formats[0])
    if unknown.dtype != torch.bool or unknown.shape not in (x.shape[2:], (len(x), *x.shape[2:])):
        raise ValueError(
            f"a mask of shape {tuple(unknown.shape)} and type {unknown.dtype}: use a bool tensor {tuple(x.shape[2:])}"
        )
    if not unknown.any():
        raise ValueError("the mask has no unknown pixels: mark the ones to draw as true, or white")
    unknown = unknown.to(model.device).expand(len(x), -1, -1)[:, None]
    known = x.to(model.device, torch.int64)
    box = Bounds(known.masked_fill(unknown, 0), known.masked_fill(unknown, model.levels - 1))
    H, W = x.shape[2:]
    return _draw_consistently(model, Request(len(x), (H, W), seed, labels, box=box), options)


def _draw_consistently(model: ImageModel, request: Request, options: DrawOptions | None) -> Tensor:
    return _all(model, request, replace(options or DrawOptions(), consistent=True))[0]


def _all(model: ImageModel, request: Request, options: DrawOptions | None) -> list[Tensor]:
    return [view for _, view in model.draw(request, options)][::-1]
