"""Drawing images: up the chain from the simplest view, each view given the next simpler one, pixel by pixel.

The noise of a pixel belongs to the image and the position, not to the order in which pixels are visited. So image i of
seed s is image 0 of seed s + i, alone or in a batch, up to rounding. (Sums are rounded differently in a batch of
another size. Now and then, that moves a draw to the next level, and all later pixels are drawn given that level.)
"""

__all__ = ["DrawOptions", "Request", "draw_view", "draw_views", "position_noise"]

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from pixelcnn.auxiliary.cells import Filling, whole_box
from pixelcnn.auxiliary.chain import Chain, check_images
from pixelcnn.common.checks import check_whole
from pixelcnn.common.devices import device_of
from pixelcnn.common.memory import check_sampling_memory
from pixelcnn.common.progress import progress_bar
from pixelcnn.likelihoods.base import Bounds, Likelihood
from pixelcnn.models.factor import Factor, Visit
from pixelcnn.traversal.schedule import Schedule, groups, wavefront_lag

UNKNOWN_SIZE = 32  # drawn by a model that does not know the size it was trained at


@dataclass(frozen=True)
class DrawOptions:
    """Options for drawing images.

    Args:
        scale_shift: a number added to the log-scales of the logistics: below 0, such as -0.5, for cleaner and less
            varied images.
        map: MAP sampling (*maximum a posteriori*): for each pixel, draw a component of the mixture and take its mode.
        schedule: the order in which pixels are visited, see `pixelcnn.traversal.loop`. It does not change the images.
        dtype: of the activations. torch.bfloat16 needs half the memory, and draws from the model only approximately.
        compile: fuse the draw of a pixel within bounds with `torch.compile`. This takes half a minute and a C++
            compiler, and pays off for large images.
        consistent: whether every view drawn must have the given next view; None to use the setting of the model.
        progress: show a progress bar; a string replaces its title.
        callback: called after each group of pixels with k and the canvas (n, C, H, W) of view k that is being filled.

    Example:
        >>> import pixelcnn
        >>> model = pixelcnn.load("photos-pyramid")
        >>> views = pixelcnn.sample(model, 1, 8, options=pixelcnn.DrawOptions(scale_shift=-0.5))
        >>> [tuple(view.shape) for view in views]
        [(1, 3, 8, 8), (1, 3, 4, 4), (1, 3, 2, 2)]
    """

    scale_shift: float = 0.0
    map: bool = False
    schedule: Schedule = "auto"
    dtype: torch.dtype | None = None
    compile: bool = False
    consistent: bool | None = None
    progress: bool | str = False
    callback: Callable[[int, Tensor], None] | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale_shift):
            raise ValueError(f"scale_shift={self.scale_shift!r}: use a finite number, such as -0.5")


@dataclass(frozen=True, eq=False)
class Request:
    """A description of which images to draw.

    Args:
        n: number of images.
        size: of the images: one number for squares, or (H, W); None for the size of the model.
        seed: of the first image (image i has seed + i), or a sequence with the seed of each image.
        labels: (n,) class labels, for a model with classes.
        given: (k, x_k), where x_k is view k as integers (n, C_k, H_k, W_k): only the views before it are drawn.
        box: bounds of the sub-pixels of the images, (n, C, H, W) each; None if every level is possible.

    Example:
        >>> import pixelcnn
        >>> from pixelcnn.models.draw import Request
        >>> model = pixelcnn.load("photos-pyramid")
        >>> [(k, tuple(view.shape)) for k, view in model.draw(Request(n=1, size=8))]
        [(2, (1, 3, 2, 2)), (1, (1, 3, 4, 4)), (0, (1, 3, 8, 8))]
    """

    n: int = 1
    size: int | tuple[int, int] | None = None
    seed: int | Sequence[int] = 0
    labels: Tensor | None = None
    given: tuple[int, Tensor] | None = None
    box: Bounds | None = None

    def to(self, device: torch.device) -> "Request":
        """Return the same request with its tensors on a device."""
        given = self.given and (self.given[0], self.given[1].to(device))
        box = self.box and Bounds(*(end.to(device) for end in self.box))
        return replace(self, given=given, box=box, labels=None if self.labels is None else self.labels.to(device))

    def sides(self) -> tuple[int, int]:
        """Return the size as (H, W).

        Raises:
            ValueError: if `n` or a side is below 1.
        """
        check_whole(n=self.n)
        size = UNKNOWN_SIZE if self.size is None else self.size
        sides = size if isinstance(size, tuple) else (size, size)
        for side in sides:
            check_whole(size=side)
        if len(sides) != 2:
            raise ValueError(f"size={size!r}: use one number for squares, or (H, W)")
        return sides

    def seeds(self) -> Sequence[int]:
        """Return the seed of each image.

        Raises:
            ValueError: if a seed is negative, or there is not one for each image.
        """
        if not isinstance(self.seed, Sequence):
            check_whole(at_least=0, seed=self.seed)
            return range(self.seed, self.seed + self.n)
        for each in self.seed:
            check_whole(at_least=0, seed=each)
        if len(self.seed) != self.n:
            raise ValueError(f"seed={self.seed!r}: use one number, or one for each of {self.n} images")
        return self.seed

    def given_view(self, chain: Chain, boxes: Sequence[Bounds | None]) -> tuple[int, Tensor | None]:
        """Return (k, x_k) of the given view, or (K + 1, None) if all views are drawn.

        Raises:
            ValueError: if the chain has no such view, or no image in the box has it.
        """
        if self.given is None:
            return len(chain.formats), None
        sizes, (k, view) = chain.sizes(self.sides()), self.given
        if k not in range(1, len(sizes)):
            raise ValueError(f"given={k!r}, ...: use a view from 1 to {len(sizes) - 1} of this model")
        check_images(view, *chain.formats[k], name="given")
        if (len(view), *view.shape[2:]) != (self.n, *sizes[k]):
            raise ValueError(f"given of shape {tuple(view.shape)}: use {self.n} views of {sizes[k]}")
        possible = boxes[k]
        if possible is not None and not ((view >= possible.lowest) & (view <= possible.highest)).all():
            raise ValueError("given: no image in the box has this view")
        return k, view


def position_noise(factor: Factor, size: tuple[int, int], seeds: Sequence[int], index: int = 0) -> Tensor:
    """Draw independent uniform numbers for each seed: (len(seeds), num_noise, H, W) in [0, 1).

    Args:
        factor: the factor that the noise is for.
        size: (H, W) of the view.
        seeds: of the images.
        index: of the factor in its chain, so that each factor has its own noise.

    Raises:
        MemoryError: if there is not enough memory for the noise and to compute the embedding.
    """
    _check_memory(factor, len(seeds), size)
    # A numpy generator tells all (seed, index) pairs apart; a torch generator uses only 32 bits of its seed.
    shape = (factor.likelihood.num_noise, *size)
    canvases = [np.random.default_rng((seed, index)).random(shape, dtype=np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(canvases))


def draw_view(
    factor: Factor,
    noise: Tensor,
    given: Tensor | None = None,
    labels: Tensor | None = None,
    box: Bounds | None = None,
    options: DrawOptions | None = None,
    progress: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Draw views from one factor, as a function of noise.

    Args:
        factor: the factor to draw from.
        noise: (n, num_noise, H, W), from `position_noise`.
        given: the next view of the chain, (n, C', H', W'); None for the last factor.
        labels: (n,) class labels, for a factor with classes.
        box: bounds of the sub-pixels, (n, C, H, W) each; None if every level is possible.
        options: how to draw. `progress` and `callback` apply to whole chains, and are ignored here.
        progress: called with the canvas after each group of pixels.

    Returns:
        Integers (n, C, H, W), of type uint8 for up to 256 levels.
    """
    options = options or DrawOptions()
    likelihood, device = factor.likelihood, device_of(factor)
    levels_dtype = torch.uint8 if likelihood.levels <= 256 else torch.int64
    n, _, H, W = noise.shape
    noise, given = noise.to(device), None if given is None else given.to(device)
    canvas = torch.zeros(n, likelihood.channels, H, W, dtype=levels_dtype, device=device)
    consistent, filling = bool(options.consistent), None
    constraint = factor.constraint(consistent=consistent)
    if box is not None or constraint is not None:
        box = box or whole_box(canvas.shape, likelihood.levels, device)
        filling = Filling(box, constraint, given, likelihood.levels)

    # A draw without bounds is only a few operations, and gains nothing.
    draw_pixels = _compiled_sample(likelihood) if options.compile and filling is not None else likelihood.sample

    def fill(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        bounds = filling and filling.next_bounds(rows, cols)
        values = draw_pixels(
            params, noise[:, :, rows, cols], scale_shift=options.scale_shift, map=options.map, bounds=bounds
        )
        if filling is not None:
            filling.fill(rows, cols, values)
        return values

    return factor.traverse(canvas, fill, given, labels, Visit(options.schedule, options.dtype, consistent, progress))


def draw_views(
    factors: Sequence[Factor], chain: Chain, request: Request, options: DrawOptions
) -> Iterator[tuple[int, Tensor]]:
    """Draw images view by view: yield (k, x_k) for k = K, ..., 0, each as soon as it is finished.

    Raises:
        ValueError: if the request or the options do not fit the chain.
        MemoryError: if the cached activations need more memory than is free.
        FloatingPointError: if a network gives parameters that are not finite.
    """
    sizes, seeds = chain.sizes(request.sides()), request.seeds()
    boxes = chain.boxes(request.box, (request.n, chain.formats[0][0], *sizes[0]))
    first, view = request.given_view(chain, boxes)
    drawn = list(enumerate(factors))[:first]
    for k, factor in drawn:  # before counting steps, which would take forever for a huge size
        _check_memory(factor, request.n, sizes[k])
    lags = [
        wavefront_lag(factor.lag(consistent=bool(options.consistent)), sizes[k][1], options.schedule)
        for k, factor in drawn
    ]
    total = sum(sum(1 for _ in groups(size, lag)) for size, lag in zip(sizes, lags, strict=False))
    with progress_bar(visible=bool(options.progress)) as bar:
        title = options.progress if isinstance(options.progress, str) else "sampling"
        task = bar.add_task(title, total=total)

        def show(k: int, canvas: Tensor) -> None:
            bar.advance(task)
            if options.callback is not None:
                options.callback(k, canvas)

        for k, factor in reversed(drawn):
            bar.update(task, description=f"{title} {sizes[k][1]}x{sizes[k][0]}")
            noise = position_noise(factor, sizes[k], seeds, k)
            try:
                view = draw_view(factor, noise, view, request.labels, boxes[k], options, partial(show, k))
            except FloatingPointError as error:
                raise FloatingPointError(f"factor {k}: {error}") from None
            yield k, view


def _check_memory(factor: Factor, n: int, size: tuple[int, int]) -> None:
    """Raise a MemoryError if there is not enough memory for the noise and to compute the embedding."""
    numbers = factor.likelihood.num_noise + 6 * factor.network.context
    check_sampling_memory(4 * n * math.prod(size) * numbers, device_of(factor))


@cache
def _compiled_sample(likelihood: Likelihood) -> Callable[..., Tensor]:
    """Compile the `sample` method of a likelihood, once."""
    compiled = torch.compile(likelihood.sample, dynamic=True)
    # Always the same memory layout, since another one would be compiled separately.
    return lambda params, noise, **options: compiled(params.contiguous(), noise.contiguous(), **options)
