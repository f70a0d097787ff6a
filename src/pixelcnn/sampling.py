"""Drawing images: thin callers of the traversal.

The noise of a pixel belongs to the image and to the position, not to the order in which pixels are visited: image i of
seed s is image 0 of seed s + i, alone or inside a batch, up to rounding. (In a batch of another size sums are rounded
otherwise: now and then that moves a draw to the next value, and all that follows is drawn given it.)

What an image is asked to agree with is never left to chance: `colorize`, `upscale` and `complete` renormalise, whether
the model is consistent or not, over the values that are still possible.
"""

__all__ = ["colorize", "complete", "sample", "sample_factor", "sample_views", "upscale"]

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelcnn.auxiliary import Downsample, Filling, QuantizedGrayscale, whole_box
from pixelcnn.likelihoods import Bounds, Likelihood, check_whole
from pixelcnn.memory import check_sampling_memory
from pixelcnn.models import Factor, ImageModel, check_images, evaluating
from pixelcnn.progress import progress_bar
from pixelcnn.traversal import Schedule, groups, traverse, wavefront_lag

UNKNOWN_SIZE = (32, 32)  # of what a model draws that does not say at which size it was trained


def position_noise(likelihood: Likelihood, size: tuple[int, int], seeds: Sequence[int], factor: int) -> Tensor:
    """Uniform numbers in [0, 1), (len(seeds), num_noise, H, W): an independent canvas for each seed and factor."""
    # numpy keeps (seed, factor) pairs apart; a generator of torch looks at 32 bits of its seed.
    shape = (likelihood.num_noise, *size)
    canvases = [np.random.default_rng((seed, factor)).random(shape, dtype=np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(canvases))


def _check_memory(factor: Factor, n: int, size: tuple[int, int]) -> None:
    """Raise a MemoryError where there is no room for the noise, and the embedding with what it is computed from."""
    device = next(factor.parameters()).device
    numbers = factor.likelihood.num_noise + 6 * factor.network.context
    check_sampling_memory(4 * n * math.prod(size) * numbers, device)


@cache
def _compiled_sample(likelihood: Likelihood) -> Callable[..., Tensor]:
    compiled = torch.compile(likelihood.sample, dynamic=True)
    # Always of one memory layout, since each would be compiled for.
    return lambda params, noise, **options: compiled(params.contiguous(), noise.contiguous(), **options)


def _seeds(seed: int | Sequence[int], n: int) -> Sequence[int]:
    """The seed of each of n images."""
    if not isinstance(seed, Sequence):
        check_whole(at_least=0, seed=seed)
        return range(seed, seed + n)
    for each in seed:
        check_whole(at_least=0, seed=each)
    if len(seed) != n:
        raise ValueError(f"seed={seed!r}: use one number, or one for each of {n} images")
    return seed


@torch.no_grad()
def sample_factor(
    factor: Factor,
    n: int,
    size: tuple[int, int],
    *,
    seed: int | Sequence[int] = 0,
    index: int = 0,
    scale_shift: float = 0.0,
    map: bool = False,
    auxiliary: Tensor | None = None,
    labels: Tensor | None = None,
    schedule: Schedule = "auto",
    dtype: torch.dtype | None = None,
    compile: bool = False,
    box: Bounds | None = None,
    progress: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Draw n views (n, C, H, W) from one factor in evaluation mode.

    The arguments are those of `sample_views` and `traverse`.

    Args:
        index: of the factor in its chain, so that every factor has noise of its own.
        box: between which values the sub-pixels lie, (n, C, H, W) each; None for all levels.
    """
    likelihood, device = factor.likelihood, next(factor.parameters()).device
    _check_memory(factor, n, size)
    noise = position_noise(likelihood, size, _seeds(seed, n), index).to(device)

    levels_dtype = torch.uint8 if likelihood.levels <= 256 else torch.int64
    canvas = torch.zeros(n, likelihood.channels, *size, dtype=levels_dtype, device=device)
    filling = None
    if box is not None or factor.constraint is not None:
        box = box or whole_box(canvas.shape, likelihood.levels, device)
        filling = Filling(box, factor.constraint, auxiliary, likelihood.levels)

    # A free draw is a few operators, and gains nothing.
    draw_pixels = _compiled_sample(likelihood) if compile and filling is not None else likelihood.sample

    def draw(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        bounds = filling and filling.next_bounds(rows, cols)
        values = draw_pixels(params, noise[:, :, rows, cols], scale_shift=scale_shift, map=map, bounds=bounds)
        if filling is not None:
            filling.fill(rows, cols, values)
        return values

    try:
        return traverse(
            factor, canvas, draw, auxiliary=auxiliary, labels=labels, schedule=schedule, dtype=dtype, progress=progress
        )
    except FloatingPointError as error:
        raise FloatingPointError(f"factor {index}: {error}") from None


def sample_views(
    model: ImageModel,
    n: int = 1,
    size: int | tuple[int, int] | None = None,
    *,
    seed: int | Sequence[int] = 0,
    scale_shift: float = 0.0,
    map: bool = False,
    labels: Tensor | None = None,
    schedule: Schedule = "auto",
    dtype: torch.dtype | None = None,
    compile: bool = False,
    given: tuple[int, Tensor] | None = None,
    box: Bounds | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
    progress: bool | str = False,
) -> Iterator[tuple[int, Tensor]]:
    """Draw images view by view: (k, x_k) for k = K, ..., 0, each as soon as it is finished.

    Args:
        model: any model.
        n: number of images.
        size: of the images: one number for squares, or (H, W); None for that of the images that the model was trained
            on, or 32 where that is unknown.
        seed: of the first image, image i being that of seed + i, up to rounding; or a sequence with that of each image.
        scale_shift: added to the log-scales of the logistics: -0.5, say, for cleaner and less varied images.
        map: for each pixel draw a component of the mixture and take its mode.
        labels: (n,) class labels, for a model with classes.
        schedule: how pixels are visited, see `pixelcnn.traversal`; the images are the same.
        dtype: of the activations, see `traverse`; torch.bfloat16 needs half the memory, and is not quite the model.
        compile: fuse the draw of a pixel between bounds with `torch.compile`: takes half a minute and a C++ compiler,
            and pays for large images.
        given: (k, x_k) with x_k integers (n, C_k, H_k, W_k): draw the views before it alone.
        box: between which values the sub-pixels of the images lie, (n, C, H, W) each; None for all levels.
        callback: called after each group of pixels with k and the canvas (n, C, H, W) that is being filled.
        progress: show a progress bar; a string is what it says before the size.

    Raises:
        ValueError: for a number or size below 1, or options that do not fit the model.
        MemoryError: where the cached activations need more memory than is free: draw fewer images at once.
        FloatingPointError: where the network gives parameters that are not finite.
    """
    check_whole(n=n)
    seeds = _seeds(seed, n)
    size = model.size or UNKNOWN_SIZE if size is None else size
    sides = size if isinstance(size, tuple) else (size, size)
    for side in sides:
        check_whole(size=side)
    if len(sides) != 2:
        raise ValueError(f"size={size!r}: use one number for squares, or (H, W)")
    if not math.isfinite(scale_shift):
        raise ValueError(f"scale_shift={scale_shift!r}: use a finite number, such as -0.5")
    labels = model.check_labels(labels, n)
    sizes = model.sizes(sides)
    boxes = _boxes(model, box, (n, model.formats[0][0], *sizes[0]))
    first, view = given or (len(model.factors), None)
    if view is not None:
        if first not in range(1, len(sizes)):
            raise ValueError(f"given={first!r}, ...: use a view from 1 to {len(sizes) - 1} of this model")
        check_images(view, *model.formats[first], name="given")
        if (len(view), *view.shape[2:]) != (n, *sizes[first]):
            raise ValueError(f"given of shape {tuple(view.shape)}: use {n} views of {sizes[first]}")
        possible = boxes[first]
        if possible is not None and not ((view >= possible.lowest) & (view <= possible.highest)).all():
            raise ValueError("given: no image in the box has this view")
    drawn = list(enumerate(model.factors))[:first]
    for k, factor in drawn:  # before their steps are counted, since a size may be any number
        _check_memory(factor, n, sizes[k])
    number = sum(sum(1 for _ in groups(sizes[k], wavefront_lag(factor, sizes[k], schedule))) for k, factor in drawn)
    with evaluating(model), progress_bar(visible=bool(progress)) as bar:
        title = progress if isinstance(progress, str) else "sampling"
        task = bar.add_task(title, total=number)

        def show(k: int, canvas: Tensor) -> None:
            bar.advance(task)
            if callback is not None:
                callback(k, canvas)

        for k, factor in reversed(drawn):
            bar.update(task, description=f"{title} {sizes[k][1]}x{sizes[k][0]}")
            view = sample_factor(
                factor,
                n,
                sizes[k],
                seed=seeds,
                index=k,
                scale_shift=scale_shift,
                map=map,
                auxiliary=view,
                labels=labels,
                schedule=schedule,
                dtype=dtype,
                compile=compile,
                box=boxes[k],
                progress=partial(show, k),
            )
            yield k, view


def _boxes(model: ImageModel, box: Bounds | None, shape: tuple[int, ...]) -> list[Bounds | None]:
    """Between which values the sub-pixels of each view lie, if those of the image lie in a box."""
    if box is None:
        return [None] * len(model.factors)
    if (
        any(end.shape != shape for end in box)
        or not ((box.lowest >= 0) & (box.lowest <= box.highest) & (box.highest < model.levels)).all()
    ):
        raise ValueError(f"box: use bounds of shape {shape} with 0 <= lowest <= highest < {model.levels}")
    boxes = [box]
    for auxiliary, (_, levels) in zip(model.auxiliaries, model.formats, strict=False):
        boxes.append(Bounds(*(auxiliary(end, levels) for end in boxes[-1])))
    return list(boxes)


def sample(model: ImageModel, n: int = 1, size: int | tuple[int, int] | None = None, **options: Any) -> list[Tensor]:
    """Draw n images from a model, and with them their views.

    The arguments and errors are those of `sample_views`.

    Returns:
        The views x_0, ..., x_K, each (n, C, H, W); x_0 are the images. The type is uint8 (int64 above 256 levels). Of
        images that are drawn `given` a view, only those before it.
    """
    return [view for _, view in sample_views(model, n, size, **options)][::-1]


def colorize(model: ImageModel, x: Tensor, **options: Any) -> Tensor:
    """Draw colours for grey images; the grey view of the result is that of the images, always.

    Args:
        model: one whose first auxiliary variable is `QuantizedGrayscale`, such as `GrayscalePixelCNN`.
        x: grey integers (B, 1, H, W) in [0, levels), or images (B, 3, H, W) whose grey view is taken.
        options: those of `sample_views`.

    Returns:
        (B, 3, H, W), of the type that `sample` gives.

    Raises:
        ValueError: for a model without a grey view, or images that are neither grey nor colour.
    """
    grey = model.auxiliaries[0] if model.auxiliaries else None
    if not isinstance(grey, QuantizedGrayscale) or model.formats[0][0] != 3:
        raise ValueError(f"auxiliaries={list(model.auxiliaries)!r}: to colourise, use a Grayscale model")
    check_images(x, 1 if x.dim() == 4 and x.shape[1] == 1 else 3, model.levels)
    with _consistent(model):
        return sample(model, len(x), (x.shape[2], x.shape[3]), given=(1, grey(x, model.levels)), **options)[0]


def upscale(model: ImageModel, x: Tensor, factor: int = 2, **options: Any) -> Tensor:
    """Draw larger images; averaged over squares of 2 x 2, again and again, they are `x`, always.

    Args:
        model: one that begins with auxiliary variables `Downsample`, such as `PyramidPixelCNN`.
        x: integers (B, C, H, W), the channels and levels being those of the model.
        factor: how many times larger; what the first auxiliary variables of the model make smaller, 2, 4, ...
        options: those of `sample_views`.

    Returns:
        (B, C, factor * H, factor * W), of the type that `sample` gives.

    Raises:
        ValueError: for a factor beyond the model, or images of other channels.
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
    H, W = x.shape[2:]
    with _consistent(model):
        return sample(model, len(x), (factor * H, factor * W), given=(depths[factor], x), **options)[0]


def complete(model: ImageModel, x: Tensor, unknown: Tensor, **options: Any) -> Tensor:
    """Draw the unknown pixels of images; the known ones stay.

    Views are completed first, the simplest first. A pixel of a view that is made of known pixels is known; one that is
    made of known and unknown ones is drawn between the least and the greatest value that the known ones allow, channel
    by channel, red as if green and blue could be anything. Within
    a view pixels are drawn in raster order, each given what is known or drawn above and to the left of it: known pixels
    below and to the right speak through the simpler views alone.

    Args:
        model: any model.
        x: integers (B, C, H, W); what unknown pixels hold is not looked at.
        unknown: bool (H, W) or (B, H, W): where to draw.
        options: those of `sample_views`.

    Returns:
        (B, C, H, W), of the type that `sample` gives.

    Raises:
        ValueError: for a mask of another size or type, or without an unknown pixel.
    """
    check_images(x, *model.formats[0])
    if unknown.dtype != torch.bool or unknown.shape not in (x.shape[2:], (len(x), *x.shape[2:])):
        raise ValueError(
            f"a mask of shape {tuple(unknown.shape)} and type {unknown.dtype}: use a bool tensor {tuple(x.shape[2:])}"
        )
    if not unknown.any():
        raise ValueError("the mask has no unknown pixel: mark those to draw, as true or in white")
    unknown = unknown.expand(len(x), -1, -1)[:, None]
    known = x.to(torch.int64)
    box = Bounds(known.masked_fill(unknown, 0), known.masked_fill(unknown, model.levels - 1))
    with _consistent(model):
        return sample(model, len(x), (x.shape[2], x.shape[3]), box=box, **options)[0]


@contextmanager
def _consistent(model: ImageModel) -> Iterator[None]:
    consistent = model.consistent
    model.consistent = True
    try:
        yield
    finally:
        model.consistent = consistent
