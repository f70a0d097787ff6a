"""Bits per dimension of real images, in total and for each factor."""

__all__ = ["Evaluation", "evaluate", "surprisal"]

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from pixelcnn.common.checks import check_whole
from pixelcnn.common.processes import gather, join_processes, naming_lost, together
from pixelcnn.common.progress import progress_bar
from pixelcnn.data.given import ImagesLike, take_images
from pixelcnn.data.images import Images, ImageSource, as_images
from pixelcnn.data.shared import check_same_images
from pixelcnn.models.base import LabelsLike
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.tiles import Tiling, plan, score_by_tiles
from pixelcnn.nn.layers import evaluating


@dataclass(frozen=True)
class Evaluation:
    """Mean bits per dimension of a set of images; `factors`, the finest first, add up to `bits_per_dim`."""

    bits_per_dim: float
    factors: list[float]
    images: int
    images_per_second: float


PATIENCE = timedelta(days=1)  # with processes that are slower; one that has ended is noticed at once


@naming_lost()
def evaluate(
    model: ImageModel,
    images: Images | ImageSource,
    *,
    batch_size: int = 32,
    limit: int | None = None,
    progress: bool = False,
) -> Evaluation:
    """Score every image of a set in float32, and average in float64.

    Under `torchrun` or `accelerate launch`, or where a program has initialized `torch.distributed`, all processes call
    this, share the batches, and get the same result, to the last bit that of one process. The processes stay joined.

    Args:
        model: any model; one loaded from a training run has the averaged weights.
        images: images with the model's channels and levels, all of one size, made by `load_images`; or a source that
            it takes. Of a named source, the images of the split `test` are scored; of a sequence or a data set, all.
        batch_size: largest number of images scored at once; it does not change the result. If memory is short, fewer
            are scored at once, and large images are scored in tiles.
        limit: score at most this many images.
        progress: show a progress bar.

    Returns:
        Means over the images, in bits per sub-pixel (one channel of one pixel) of the image.

    Raises:
        ValueError: if several processes see different images; raised before any image is scored.
        MemoryError: if not even a tile of one image fits; raised before any image is scored.

    Example:
        >>> import pixelcnn
        >>> photos = pixelcnn.load_images("photos", "test", size=16)
        >>> result = pixelcnn.evaluate(pixelcnn.load("photos-pyramid"), photos, limit=4)
        >>> result.images, len(result.factors)
        (4, 3)
        >>> 0 < result.bits_per_dim < 8  # a uniform guess of 8-bit images costs 8 bits
        True
        >>> pixelcnn.evaluate(pixelcnn.load("photos-pyramid"), pixelcnn.to_pil(photos.batch(range(3)))).images
        3
    """
    check_whole(batch_size=batch_size)
    me, processes = join_processes(PATIENCE)
    with together():
        images = as_images(images, "test", model.formats[0][0])
        number = _limited(images, limit)
        tilings = _plan(model, min(batch_size, number), images.size)
    check_same_images(images)
    # Memory may be shorter for some; with the same batches and tiles for all, the result does not depend on it.
    tilings = min(gather((number, tilings)), key=lambda each: (each[0], [_order(tiling) for tiling in each[1]]))[1]
    batch_size = max(tiling.images for tiling in tilings)
    batches = [range(first, min(first + batch_size, number)) for first in range(0, number, batch_size)]
    start = time.perf_counter()
    sums = _sums(model, images, batches[me::processes], tilings, visible=progress and me == 0)
    shares = gather((sums, time.perf_counter() - start))
    total = torch.zeros(len(model.factors), dtype=torch.float64)
    for i in range(len(batches)):  # in the order of the images, whoever has scored them
        total += shares[i % processes][0][i // processes]
    factors = (total / number).tolist()
    return Evaluation(sum(factors), factors, number, number / max(seconds for _, seconds in shares))


def _sums(
    model: ImageModel, images: Images, batches: Sequence[range], tilings: list[Tiling], *, visible: bool
) -> list[Tensor]:
    """Add up the bits per dimension of the images of each batch, for each factor."""
    sums, done = [], 0
    with progress_bar(visible=visible, fields="{task.fields[note]}") as bar:
        task = bar.add_task("scoring", total=sum(map(len, batches)), note="")
        for indices in batches:
            labels = torch.tensor([images.labels[i] for i in indices]) if model.classes and images.labels else None

            def show(share: float, done: int = done, number: int = len(indices)) -> None:
                bar.update(task, completed=done + share * number)

            x = images.batch(indices)
            found = _surprisal(model, x, labels, tilings, show)
            sums.append(torch.stack([bits.cpu().double().sum() / x[0].numel() for bits in found]))
            done += len(indices)
            bar.update(task, completed=done, note=f"{sum(map(float, map(torch.sum, sums))) / done:.3f} bits/dim")
    return sums


def surprisal(
    model: ImageModel,
    x: ImagesLike,
    labels: LabelsLike | None = None,
    *,
    callback: Callable[[float], None] | None = None,
) -> list[Any]:
    """Compute the bits that each pixel of each view costs, given the pixels before it.

    Large images are scored in tiles, with the same result up to rounding and a fraction of the memory.

    Args:
        model: any model.
        x: integer images (B, C, H, W) of any size, or images in any form that `pixelcnn.data.given` lists.
        labels: a class label for all images, or (B,) labels, for a model with classes.
        callback: called after each tile with the share of all pixels that is done.

    Returns:
        A map (B, H_k, W_k) for each of the K + 1 views, the image first, summed over channels. Of a list, whose images
        may differ in size, a list: for each of its items what the item alone would give.

    Raises:
        ValueError: if images or labels do not fit the model.
        MemoryError: if not even the smallest tile fits; raised before anything is computed.

    Example:
        >>> import torch, pixelcnn
        >>> x = torch.full((1, 3, 8, 8), 128, dtype=torch.uint8)
        >>> [tuple(bits.shape) for bits in pixelcnn.surprisal(pixelcnn.load("photos-pyramid"), x)]
        [(1, 8, 8), (1, 4, 4), (1, 2, 2)]
    """
    images = take_images(x, *model.formats[0], device=next(model.parameters()).device)
    labels = model.check_labels(labels, images.number)
    tilings = [_plan(model, len(batch.x), (batch.x.shape[2], batch.x.shape[3])) for batch in images.batches]
    total, done = sum(_pixels(model, batch.x) for batch in images.batches), 0
    maps = []
    for (places, batch), tiling in zip(images.batches, tilings, strict=True):

        def show(share: float, done: int = done, pixels: int = _pixels(model, batch)) -> None:
            if callback is not None:
                callback((done + share * pixels) / total)

        some = None if labels is None else labels[places]
        maps.append(_surprisal(model, batch, some, tiling, show))
        done += _pixels(model, batch)
    return images.listed(maps, lambda found, within: [bits[within] for bits in found])


def _order(tiling: Tiling) -> tuple[int, int, int]:
    """Return a key that sorts tilings by the memory they need."""
    return tiling.images, -len(tiling.rows), -len(tiling.cols)


def _plan(model: ImageModel, number: int, size: tuple[int, int]) -> list[Tiling]:
    return plan(model.factors, number, model.sizes(size), consistent=model.consistent)


def _pixels(model: ImageModel, x: Tensor) -> int:
    """Count the pixels of all views of images."""
    return len(x) * model.config.chain.pixels((x.shape[2], x.shape[3]))


def _surprisal(
    model: ImageModel,
    x: Tensor,
    labels: Tensor | None,
    tilings: list[Tiling],
    callback: Callable[[float], None],
) -> list[Tensor]:
    labels = model.check_labels(labels, len(x))
    total, done = _pixels(model, x), 0

    def count(pixels: int) -> None:
        nonlocal done
        done += pixels
        callback(done / total)

    with evaluating():
        return [
            score_by_tiles(factor, tiling, link, labels, count, consistent=model.consistent).div_(-math.log(2))
            for factor, tiling, link in zip(model.factors, tilings, model.links(x), strict=True)
        ]


def _limited(images: Images, limit: int | None) -> int:
    if limit is None:
        return len(images)
    check_whole(limit=limit)
    return min(limit, len(images))
