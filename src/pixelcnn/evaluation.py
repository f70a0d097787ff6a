"""Bits per dimension of real images, in total and for each factor; `pixelcnn.codecs` has those of lossless files."""

__all__ = ["Evaluation", "evaluate", "surprise"]

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelcnn.data import Images
from pixelcnn.likelihoods import check_whole
from pixelcnn.models import ImageModel, evaluating
from pixelcnn.progress import progress_bar


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
        batch_size: images scored at once; it does not change the result.
        limit: score the first so many images only.
        progress: show a progress bar.

    Returns:
        Means over the images, in bits for each sub-pixel of an image.
    """
    check_whole(batch_size=batch_size)
    number = _limited(images, limit)
    device = next(model.parameters()).device
    total = torch.zeros(len(model.factors), dtype=torch.float64)
    start = time.perf_counter()
    with evaluating(model), progress_bar(visible=progress, fields="{task.fields[note]}") as bar:
        task = bar.add_task("scoring", total=number, note="")
        for first in range(0, number, batch_size):
            indices = range(first, min(first + batch_size, number))
            labels = torch.tensor([images.labels[i] for i in indices]) if model.classes and images.labels else None
            total += model.bits_per_dim(images.batch(indices).to(device), labels).factors.double().sum(0).cpu()
            bar.update(task, completed=indices.stop, note=f"{total.sum() / indices.stop:.3f} bits/dim")
    factors = (total / number).tolist()
    return Evaluation(sum(factors), factors, number, number / (time.perf_counter() - start))


def surprise(model: ImageModel, x: Tensor, labels: Tensor | None = None) -> list[Tensor]:
    """Bits that each pixel of each view costs given those before it: (B, C, H, W) to K + 1 maps (B, H_k, W_k)."""
    labels = model.check_labels(labels, len(x))
    with evaluating(model):
        links = zip(model.factors, model.links(x), strict=True)
        return [factor.pixel_log_prob(view, given, labels) / -math.log(2) for factor, (view, given) in links]


def _limited(images: Images, limit: int | None) -> int:
    if limit is None:
        return len(images)
    check_whole(limit=limit)
    return min(limit, len(images))
