"""Bits per dimension of real images, in total and for each factor; `pixelcnn.codecs` has those of lossless files."""

__all__ = ["Evaluation", "evaluate", "surprisal"]

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelcnn.auxiliary.chain import check_images
from pixelcnn.common.checks import check_whole
from pixelcnn.common.progress import progress_bar
from pixelcnn.data.images import Images
from pixelcnn.models.image_model import ImageModel
from pixelcnn.nn.layers import evaluating
from pixelcnn.tasks.tiles import Tiling, plan, score_by_tiles


@dataclass(frozen=True)
class Evaluation:
    """Mean bits per dimension of a set of images; the factors, the finest first, add up to the total."""

    bits_per_dim: float
    factors: list[float]
    images: int
    images_per_second: float


def evaluate(
    model: ImageModel, images: Images, *, batch_size: int = 32, limit: int | None = None, progress: bool = False
) -> Evaluation:
    """Score every image of a set, the last and smaller batch too, in float32, and average in float64.

    Args:
        model: any model; its averaged weights, if it was loaded from a training run.
        images: integers of the model's channels and levels, all of one size.
        batch_size: images scored at once, at most; it does not change the result. Fewer are where memory asks for it,
            and large images are scored in tiles.
        limit: score the first so many images only.
        progress: show a progress bar.

    Returns:
        Means over the images, in bits for each sub-pixel of an image.

    Raises:
        MemoryError: where not even a tile of one image fits, before any is scored.
    """
    check_whole(batch_size=batch_size)
    number = _limited(images, limit)
    device = next(model.parameters()).device
    tilings = plan(model, min(batch_size, number), images.size)
    batch_size = max(tiling.images for tiling in tilings)
    total = torch.zeros(len(model.factors), dtype=torch.float64)
    start = time.perf_counter()
    with progress_bar(visible=progress, fields="{task.fields[note]}") as bar:
        task = bar.add_task("scoring", total=number, note="")
        for first in range(0, number, batch_size):
            indices = range(first, min(first + batch_size, number))
            labels = torch.tensor([images.labels[i] for i in indices]) if model.classes and images.labels else None

            def show(share: float, indices: range = indices) -> None:
                bar.update(task, completed=indices.start + share * len(indices))

            x = images.batch(indices).to(device)
            for k, bits in enumerate(_surprisal(model, x, labels, tilings, show)):
                total[k] += float(bits.double().sum()) / x[0].numel()
            bar.update(task, completed=indices.stop, note=f"{total.sum() / indices.stop:.3f} bits/dim")
    factors = (total / number).tolist()
    return Evaluation(sum(factors), factors, number, number / (time.perf_counter() - start))


def surprisal(
    model: ImageModel, x: Tensor, labels: Tensor | None = None, *, callback: Callable[[float], None] | None = None
) -> list[Tensor]:
    """Bits that each pixel of each view costs given those before it: (B, C, H, W) to K + 1 maps (B, H_k, W_k).

    Large images are scored in tiles, in a fraction of the memory that they need in one piece, to the same numbers up to
    rounding.

    Args:
        model: any model.
        x: integer images of any size.
        labels: (B,) class labels, for a model with classes.
        callback: called after each tile with the share of all pixels that is done.

    Raises:
        ValueError: for images or labels that do not fit the model.
        MemoryError: where not even the smallest tile fits, before anything is computed.
    """
    check_images(x, *model.formats[0])
    H, W = x.shape[2:]
    return _surprisal(model, x, labels, plan(model, len(x), (H, W)), callback)


def _surprisal(
    model: ImageModel,
    x: Tensor,
    labels: Tensor | None,
    tilings: list[Tiling],
    callback: Callable[[float], None] | None,
) -> list[Tensor]:
    labels = model.check_labels(labels, len(x))
    total, done = len(x) * sum(math.prod(size) for size in model.sizes((x.shape[2], x.shape[3]))), 0

    def count(pixels: int) -> None:
        nonlocal done
        done += pixels
        if callback is not None:
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
