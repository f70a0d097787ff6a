"""Drawing images: up the chain from the simplest view, each view given the next simpler one, pixel by pixel.

The noise of a pixel belongs to the image and the position, not to the order in which pixels are visited. So image i of
seed s is image 0 of seed s + i, alone or in a batch, up to rounding. (Sums are rounded differently in a batch of
another size. Now and then, that moves a draw to the next level, and all later pixels are drawn given that level.)
"""

__all__ = ["Draw", "DrawOptions", "canvas_type", "draw_view", "draw_views", "position_noise"]

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pixelcnn.auxiliary.cells import Filling, whole_box
from pixelcnn.auxiliary.chain import Chain
from pixelcnn.common.devices import device_of
from pixelcnn.common.memory import check_sampling_memory
from pixelcnn.common.progress import progress_bar, steps_of
from pixelcnn.models.factor import Factor, Visit
from pixelcnn.models.pixel_draw import Canvas, PixelDraw
from pixelcnn.models.request import Request
from pixelcnn.traversal.loop import Watch
from pixelcnn.traversal.schedule import Schedule


@dataclass(frozen=True)
class DrawOptions:
    """Options for drawing images.

    Args:
        scale_shift: a number added to the log-scales of the logistics: below 0, such as -0.5, for cleaner and less
            varied images.
        map: MAP sampling (*maximum a posteriori*): for each pixel, draw a component of the mixture and take its mode.
        schedule: the order in which pixels are visited, see `pixelcnn.traversal.loop`. It does not change the images.
        dtype: of the networks. torch.bfloat16 draws from the model only approximately. With the compiled kernel it is
            for embeddings, and for the weights of networks in raster order; elsewhere for all activations, which then
            need half the memory.
        consistent: whether every view drawn must have the given next view; None to use the setting of the model.
        progress: show a progress bar; a string replaces its title.
        callback: called after each group of pixels with k and the canvas (n, C, H, W) of view k that is being filled.

    Example:
        >>> import pixelcnn
        >>> model = pixelcnn.load("photos-pyramid")
        >>> pixelcnn.sample(model, 1, 8, options=pixelcnn.DrawOptions(scale_shift=-0.5)).shape
        torch.Size([1, 3, 8, 8])
    """

    scale_shift: float = 0.0
    map: bool = False
    schedule: Schedule = "auto"
    dtype: torch.dtype | None = None
    consistent: bool | None = None
    progress: bool | str = False
    callback: Callable[[int, Tensor], None] | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale_shift):
            raise ValueError(f"scale_shift={self.scale_shift!r}: use a finite number, such as -0.5")


def position_noise(
    factor: Factor, size: tuple[int, int], seeds: Sequence[int], index: int = 0, candidates: int = 1
) -> Tensor:
    """Draw independent uniform numbers for each seed: (len(seeds) * candidates, num_noise, H, W) in [0, 1).

    Args:
        factor: the factor that the noise is for.
        size: (H, W) of the view.
        seeds: of the images.
        index: of the factor in its chain, so that each factor has its own noise.
        candidates: number of independent canvases for each seed, the first of which is always the same.

    Raises:
        MemoryError: if there is not enough memory for the noise and to compute the embedding.
    """
    _check_memory(factor, len(seeds) * candidates, size)
    # A numpy generator tells all such keys apart; a torch generator uses only 32 bits of its seed.
    keys = [(seed, index, candidate) for seed in seeds for candidate in range(candidates)]
    shape = (factor.likelihood.num_noise, *size)
    canvases = [np.random.default_rng(key).random(shape, dtype=np.float32) for key in keys]
    return torch.from_numpy(np.stack(canvases))


def draw_view(
    factor: Factor,
    noise: Tensor,
    given: Tensor | None = None,
    labels: Tensor | None = None,
    options: DrawOptions | None = None,
    watch: Watch | None = None,
) -> Tensor:
    """Draw views from one factor, as a function of noise.

    Args:
        factor: the factor to draw from.
        noise: (n, num_noise, H, W), from `position_noise`.
        given: the next view of the chain, (n, C', H', W'); None for the last factor.
        labels: (n,) class labels, for a factor with classes.
        options: how to draw. `progress` and `callback` apply to whole chains, and are ignored here.
        watch: who is told of it.

    Returns:
        Integers (n, C, H, W), of type uint8 for up to 256 levels.
    """
    options = options or DrawOptions()
    likelihood, device = factor.likelihood, device_of(factor)
    n, _, H, W = noise.shape
    noise, given = noise.to(device), None if given is None else given.to(device)
    canvas = torch.zeros(n, likelihood.channels, H, W, dtype=canvas_type(likelihood.levels), device=device)
    consistent, filling = bool(options.consistent), None
    constraint = factor.constraint(consistent=consistent)
    if constraint is not None:
        filling = Filling(whole_box(canvas.shape, likelihood.levels, device), constraint, given, likelihood.levels)

    offset = factor.offset((H, W), given)
    fill = PixelDraw(likelihood, Canvas(noise, offset, filling), scale_shift=options.scale_shift, map=options.map)
    visit = Visit(options.schedule, options.dtype, consistent, watch, offset=False)
    return factor.traverse(canvas, fill, given, labels, visit)


def canvas_type(levels: int) -> torch.dtype:
    """Return the type of drawn images: uint8 for up to 256 levels, else int64."""
    return torch.uint8 if levels <= 256 else torch.int64


Draw = Callable[[int, Factor, Tensor | None, Watch], Tensor]
"""Draws the view of factor k given the next view, while someone watches."""


def draw_views(
    factors: Sequence[Factor], chain: Chain, request: Request, options: DrawOptions, draw: Draw | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Draw images view by view: yield (k, x_k) for k = K, ..., 0, each as soon as it is finished.

    Args:
        factors, chain: of the model.
        request: which images to draw.
        options: how to draw them.
        draw: how to draw one view; by default with `position_noise` and `draw_view`.

    Raises:
        ValueError: if the request or the options do not fit the chain.
        MemoryError: if the cached activations need more memory than is free.
        FloatingPointError: if a network gives parameters that are not finite.
    """
    sizes, seeds, callback = chain.sizes(request.sides()), request.seeds(), options.callback
    first, view = request.given_view(chain)
    drawn = list(enumerate(factors))[:first]
    for k, factor in drawn:
        _check_memory(factor, request.n, sizes[k])

    def draw_freely(k: int, factor: Factor, given: Tensor | None, watch: Watch) -> Tensor:
        noise = position_noise(factor, sizes[k], seeds, k)
        return draw_view(factor, noise, given, request.labels, options, watch)

    with progress_bar(visible=bool(options.progress)) as bar:
        title = options.progress if isinstance(options.progress, str) else "sampling"
        task = bar.add_task(title, total=sum(math.prod(sizes[k]) for k, _ in drawn))
        advance = steps_of(bar, task) if options.progress else None  # to count pixels takes time too
        for k, factor in reversed(drawn):
            bar.update(task, description=f"{title} {sizes[k][1]}x{sizes[k][0]}")
            try:
                view = (draw or draw_freely)(k, factor, view, Watch(callback and partial(callback, k), advance))
            except FloatingPointError as error:
                raise FloatingPointError(f"factor {k}: {error}") from None
            yield k, view


def _check_memory(factor: Factor, n: int, size: tuple[int, int]) -> None:
    """Raise a MemoryError if there is not enough memory for the noise and to compute the embedding."""
    numbers = factor.likelihood.num_noise + 6 * factor.network.context
    check_sampling_memory(4 * n * math.prod(size) * numbers, device_of(factor))
