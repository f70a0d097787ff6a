"""Drawing images: thin callers of the traversal.

The noise of a pixel belongs to the image and to the position, not to the order in which pixels are visited: image i of
seed s is image 0 of seed s + i, alone or inside a batch.
"""

__all__ = ["sample", "sample_factor", "sample_views"]

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelcnn.cached import check_memory
from pixelcnn.likelihoods import Likelihood, check_whole
from pixelcnn.models import Factor, ImageModel, evaluating
from pixelcnn.progress import progress_bar
from pixelcnn.traversal import Schedule, groups, traverse, wavefront_lag


def position_noise(likelihood: Likelihood, size: tuple[int, int], seeds: range, factor: int) -> Tensor:
    """Uniform numbers in [0, 1), (len(seeds), num_noise, H, W): an independent canvas for each seed and factor."""
    # numpy keeps (seed, factor) pairs apart; a generator of torch looks at 32 bits of its seed.
    shape = (likelihood.num_noise, *size)
    canvases = [np.random.default_rng((seed, factor)).random(shape, dtype=np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(canvases))


@torch.no_grad()
def sample_factor(
    factor: Factor,
    n: int,
    size: tuple[int, int],
    *,
    seed: int = 0,
    index: int = 0,
    scale_shift: float = 0.0,
    map: bool = False,
    auxiliary: Tensor | None = None,
    labels: Tensor | None = None,
    schedule: Schedule = "auto",
    dtype: torch.dtype | None = None,
    progress: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Draw n views (n, C, H, W) from one factor in evaluation mode.

    The arguments are those of `sample_views` and `traverse`.

    Args:
        index: of the factor in its chain, so that every factor has noise of its own.
    """
    likelihood, device = factor.likelihood, next(factor.parameters()).device
    # The noise, and the embedding with what its last block is computed from.
    check_memory(4 * n * math.prod(size) * (likelihood.num_noise + 6 * factor.network.context), device)
    noise = position_noise(likelihood, size, range(seed, seed + n), index).to(device)

    def draw(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        return likelihood.sample(params, noise[:, :, rows, cols], scale_shift=scale_shift, map=map)

    levels_dtype = torch.uint8 if likelihood.levels <= 256 else torch.int64
    canvas = torch.zeros(n, likelihood.channels, *size, dtype=levels_dtype, device=device)
    try:
        return traverse(
            factor, canvas, draw, auxiliary=auxiliary, labels=labels, schedule=schedule, dtype=dtype, progress=progress
        )
    except FloatingPointError as error:
        raise FloatingPointError(f"factor {index}: {error}") from None


def sample_views(
    model: ImageModel,
    n: int = 1,
    size: int | tuple[int, int] = 32,
    *,
    seed: int = 0,
    scale_shift: float = 0.0,
    map: bool = False,
    labels: Tensor | None = None,
    schedule: Schedule = "auto",
    dtype: torch.dtype | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
    progress: bool = False,
) -> Iterator[tuple[int, Tensor]]:
    """Draw images view by view: (k, x_k) for k = K, ..., 0, each as soon as it is finished.

    Args:
        model: any model.
        n: number of images.
        size: of the images: one number for squares, or (H, W).
        seed: of the first image; image i is that of seed + i.
        scale_shift: added to the log-scales of the logistics: -0.5, say, for cleaner and less varied images.
        map: for each pixel draw a component of the mixture and take its mode.
        labels: (n,) class labels, for a model with classes.
        schedule: how pixels are visited, see `pixelcnn.traversal`; the images are the same.
        dtype: of the activations, see `traverse`; torch.bfloat16 needs half the memory, and is not quite the model.
        callback: called after each group of pixels with k and the canvas (n, C, H, W) that is being filled.
        progress: show a progress bar.

    Raises:
        ValueError: for a number or size below 1, or options that do not fit the model.
        MemoryError: where the cached activations need more memory than is free: draw fewer images at once.
        FloatingPointError: where the network gives parameters that are not finite.
    """
    check_whole(n=n)
    check_whole(at_least=0, seed=seed)
    sides = size if isinstance(size, tuple) else (size, size)
    for side in sides:
        check_whole(size=side)
    if len(sides) != 2:
        raise ValueError(f"size={size!r}: use one number for squares, or (H, W)")
    if not math.isfinite(scale_shift):
        raise ValueError(f"scale_shift={scale_shift!r}: use a finite number, such as -0.5")
    labels = model.check_labels(labels, n)
    sizes = model.sizes(sides)
    lags = [wavefront_lag(factor.network, sizes[k], schedule) for k, factor in enumerate(model.factors)]
    number = sum(sum(1 for _ in groups(sizes[k], lag)) for k, lag in enumerate(lags))
    view: Tensor | None = None
    with evaluating(model), progress_bar(visible=progress) as bar:
        task = bar.add_task("sampling", total=number)

        def show(k: int, canvas: Tensor) -> None:
            bar.advance(task)
            if callback is not None:
                callback(k, canvas)

        for k, factor in reversed(list(enumerate(model.factors))):
            bar.update(task, description=f"sampling {sizes[k][1]}x{sizes[k][0]}")
            view = sample_factor(
                factor,
                n,
                sizes[k],
                seed=seed,
                index=k,
                scale_shift=scale_shift,
                map=map,
                auxiliary=view,
                labels=labels,
                schedule=schedule,
                dtype=dtype,
                progress=partial(show, k),
            )
            yield k, view


def sample(model: ImageModel, n: int = 1, size: int | tuple[int, int] = 32, **options: Any) -> list[Tensor]:
    """Draw n images from a model, and with them their views.

    The arguments and errors are those of `sample_views`.

    Returns:
        The views x_0, ..., x_K, each (n, C, H, W): x_0 are the images. The type is uint8 (int64 above 256 levels).
    """
    return [view for _, view in sample_views(model, n, size, **options)][::-1]
