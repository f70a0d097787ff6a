"""Draw whole images from a model, or the missing part of images.

`colorize`, `upscale` and `complete` always draw consistently, even from a free model: the result agrees exactly with
what it was asked to agree with. (A consistent factor gives probability only to images that have the given view; a free
one may also draw others.)
"""

__all__ = ["colorize", "complete", "enlargements", "sample", "sample_views", "upscale"]

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from pixelcnn.auxiliary.chain import view_in_bands
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.common.checks import check_whole
from pixelcnn.common.memory import check_sampling_memory
from pixelcnn.data.given import Given, ImagesLike, take_images
from pixelcnn.data.masks import MasksLike, take_masks
from pixelcnn.models.base import ChainModel, LabelsLike
from pixelcnn.models.draw import DrawOptions
from pixelcnn.models.request import Hole, Request
from pixelcnn.models.shipped import names_with

HOLE_BYTES = 120  # of each sub-pixel, for what is known of it in all views, and temporary copies
Seed = int | Sequence[int]
"""The seed of the first image, where image i gets seed + i; or a sequence with the seed of each image."""


def sample_views(
    model: ChainModel,
    n: int = 1,
    size: int | tuple[int, int] | None = None,
    *,
    seed: Seed = 0,
    labels: LabelsLike | None = None,
    given: tuple[int, ImagesLike] | None = None,
    options: DrawOptions | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Draw images view by view: (k, x_k) for k = K, ..., 0, each as soon as it is finished.

    This is also a method of models, and `dict(pixelcnn.sample_views(model, ...))` has all views by their number.

    Args:
        model: any model.
        n: number of images.
        size: side of square images, or (H, W); None for the size of the training images, or 32 if that is unknown.
        seed: seed of the first image, where image i is the image that seed + i would give alone, up to rounding; or a
            sequence with the seed of each image.
        labels: a class label for all images, or (n,) labels, for a model with classes.
        given: (k, x_k) with x_k integers (n, C_k, H_k, W_k), or in another form that `pixelcnn.data.given` lists: draw
            only the views before it, given this one.
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
    check_whole(n=n)
    view = None
    if given is not None:
        k, form = given[0], model.config.chain.given_format(given[0])
        view = k, take_images(given[1], *form, device=model.device, name="given").only("given")
    return model.draw(Request(n, size, seed, model.check_labels(labels, n), view), options)


def sample(
    model: ChainModel,
    n: int = 1,
    size: int | tuple[int, int] | None = None,
    *,
    seed: Seed = 0,
    labels: LabelsLike | None = None,
    given: tuple[int, ImagesLike] | None = None,
    options: DrawOptions | None = None,
) -> Tensor:
    """Draw n images from a model; arguments and errors are those of `sample_views`, which also gives the views.

    This is also a method of models: `model.sample(4)`.

    Returns:
        Images (n, C, H, W), of type uint8 (int64 above 256 levels).

    Example:
        >>> import pixelcnn
        >>> model = pixelcnn.load("photos-pyramid")
        >>> pixelcnn.sample(model, n=2, size=8).shape
        torch.Size([2, 3, 8, 8])
        >>> views = dict(pixelcnn.sample_views(model, n=2, size=8))  # the same images, and their views
        >>> views[0].shape, views[2].shape
        (torch.Size([2, 3, 8, 8]), torch.Size([2, 3, 2, 2]))
    """
    *_, (_, x) = sample_views(model, n, size, seed=seed, labels=labels, given=given, options=options)
    return x


def colorize(
    model: ChainModel,
    x: ImagesLike,
    *,
    seed: Seed = 0,
    labels: LabelsLike | None = None,
    options: DrawOptions | None = None,
) -> Any:
    """Draw colors for gray images; the result always has the gray view of the images.

    This is also a method of models: `model.colorize(x)`.

    Args:
        model: a model whose first auxiliary variable is `QuantizedGrayscale`, such as `GrayscalePixelCNN`.
        x: gray images, or color images, whose gray view is used: pictures (PIL), paths, arrays, tensors, or a list of
            these, see `pixelcnn.data.given`.
        seed, labels, options: see `sample_views`.

    Returns:
        Color images in the form of `x`: pictures for pictures, tensors (B, 3, H, W) for tensors, a list for a list.
        Arrays and tensors have the type that `sample` returns.

    Raises:
        ValueError: if the model has no gray view, or the images are neither gray nor color.

    Example:
        >>> import pixelcnn
        >>> from PIL import Image
        >>> model = pixelcnn.GrayscalePixelCNN(filters=8, blocks=1, embedding_blocks=1)
        >>> pixelcnn.colorize(model, Image.new("L", (4, 3), 128)).mode
        'RGB'
    """
    gray = model.auxiliaries[0] if model.auxiliaries else None
    if not isinstance(gray, QuantizedGrayscale) or model.formats[0][0] != 3:
        remedy = f"to colorize, use a Grayscale model{_such_as('QuantizedGrayscale')}"
        raise ValueError(f"auxiliaries={list(model.auxiliaries)!r}: {remedy}")
    images = take_images(x, 3, model.levels, device=model.device, gray=True)
    requests = [_request(batch.x, (1, view_in_bands(gray, batch.x, model.levels))) for batch in images.batches]
    return _draw_consistently(model, images, requests, seed, labels, options)


def upscale(
    model: ChainModel,
    x: ImagesLike,
    factor: int = 2,
    *,
    seed: Seed = 0,
    labels: LabelsLike | None = None,
    options: DrawOptions | None = None,
) -> Any:
    """Draw larger images; averaging them over 2x2 squares, repeatedly, always gives back `x`.

    This is also a method of models: `model.upscale(x, 4)`.

    Args:
        model: a model whose first auxiliary variables are `Downsample`, such as `PyramidPixelCNN`.
        x: pictures (PIL), paths, arrays, tensors, or a list of these, see `pixelcnn.data.given`.
        factor: how many times larger: 2, 4, ..., up to the total reduction of these auxiliary variables.
        seed, labels, options: see `sample_views`.

    Returns:
        Larger images in the form of `x`: pictures for pictures, tensors (B, C, factor * H, factor * W) for tensors, a
        list for a list. Arrays and tensors have the type that `sample` returns.

    Raises:
        ValueError: if the model does not support the factor, or the images have other channels.

    Example:
        >>> import torch, pixelcnn
        >>> from PIL import Image
        >>> model = pixelcnn.load("photos-pyramid")
        >>> pixelcnn.upscale(model, Image.new("RGB", (4, 3), "teal")).size
        (8, 6)
        >>> pixelcnn.upscale(model, torch.full((1, 3, 4, 4), 128), 4).shape
        torch.Size([1, 3, 16, 16])
    """
    depths = enlargements(model)
    if factor not in depths:
        none = f"this model has no smaller view; use a Pyramid model{_such_as('Downsample')}"
        offered = f"use one of {', '.join(map(str, depths))}" if depths else none
        raise ValueError(f"factor={factor!r}: {offered}")
    images = take_images(x, *model.formats[0], device=model.device)
    requests = [_request(batch.x, (depths[factor], batch.x), factor) for batch in images.batches]
    return _draw_consistently(model, images, requests, seed, labels, options)


def enlargements(model: ChainModel) -> dict[int, int]:
    """Return how many times larger a model can make images, each with the number of the view that is given."""
    depths, product = {}, 1
    for k, auxiliary in enumerate(model.auxiliaries, 1):
        if not isinstance(auxiliary, Downsample):
            break
        product *= auxiliary.factor
        depths[product] = k
    return depths


def complete(
    model: ChainModel,
    x: ImagesLike,
    unknown: MasksLike,
    *,
    candidates: int = 1,
    seed: Seed = 0,
    labels: LabelsLike | None = None,
    options: DrawOptions | None = None,
) -> Any:
    """Draw the unknown pixels of images; the known ones stay.

    This is also a method of models: `model.complete(x, unknown)`.

    The views are completed one after another, the simplest first. A view's pixel is known if it is computed from known
    pixels only. If it is computed from known and unknown pixels, it is drawn within the bounds that the known ones set,
    and near their mean. Within a view, pixels are drawn in raster order, each given what is known or drawn above and to
    the left of it. With several candidates, those views are preferred that make the known pixels likely, those below
    and to the right included; with more and more of them, the result is drawn from the exact conditional distribution
    (see `pixelcnn.models.completion`).

    Args:
        model: any model.
        x: pictures (PIL), paths, arrays, tensors, or a list of these, see `pixelcnn.data.given`; the values of unknown
            pixels are ignored.
        unknown: where to draw: bool (H, W) for all images or (B, H, W), as an array or a tensor, or a picture (PIL) or
            the path of one that is white there; or a list with a mask for each image.
        candidates: number of fillings that are drawn of each view, to choose from. Time and memory grow with it.
        seed, labels, options: see `sample_views`.

    Returns:
        Whole images in the form of `x`: pictures for pictures, tensors (B, C, H, W) for tensors, a list for a list.
        Arrays and tensors have the type that `sample` returns.

    Raises:
        ValueError: if the mask has another size or type, or no unknown pixel, or there is less than one candidate.

    Example:
        >>> import torch, pixelcnn
        >>> x = torch.full((1, 3, 8, 8), 128, dtype=torch.uint8)
        >>> right = torch.arange(8).expand(8, 8) >= 4
        >>> completed = pixelcnn.complete(pixelcnn.load("photos-pyramid"), x, right)
        >>> bool((completed[..., :4] == x[..., :4]).all())
        True
    """
    images = take_images(x, *model.formats[0], device=model.device)
    requests = []
    for mask, batch in zip(take_masks(unknown, images), images.batches, strict=True):
        check_sampling_memory(HOLE_BYTES * batch.x.numel(), batch.x.device)
        requests.append(replace(_request(batch.x), hole=Hole(batch.x, mask[:, None], candidates)))
    return _draw_consistently(model, images, requests, seed, labels, options)


def _request(x: Tensor, given: tuple[int, Tensor] | None = None, factor: int = 1) -> Request:
    """Ask for images `factor` times as large as these, given a view of theirs."""
    H, W = (factor * side for side in x.shape[2:])
    return Request(len(x), (H, W), given=given)


def _draw_consistently(
    model: ChainModel,
    images: Given,
    requests: Sequence[Request],
    seed: Seed,
    labels: LabelsLike | None,
    options: DrawOptions | None,
) -> Any:
    """Draw what is asked for each batch of some images, and give it back as the images came."""
    options = replace(options or DrawOptions(), consistent=True)
    seeds, labels = Request(images.number, seed=seed).seeds(), model.check_labels(labels, images.number)
    drawn = []
    for (places, _), request in zip(images.batches, requests, strict=True):
        some = None if labels is None else labels[places]
        *_, (_, x) = model.draw(replace(request, seed=[seeds[i] for i in places], labels=some), options)
        drawn.append(x)
    return images.back(drawn)


def _such_as(auxiliary: str) -> str:
    """Name the shipped models whose first auxiliary variable is of this class."""
    names = names_with(auxiliary)
    return f", such as {' or '.join(names)}" if names else ""
