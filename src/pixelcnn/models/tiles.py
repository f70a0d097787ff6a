"""Evaluate large images in tiles: each pixel gets what it gets in the whole image, with a fraction of the memory.

A convolutional network sees only a limited distance. So each tile is computed with a margin, wide enough that the zero
padding beyond it does not change the tile itself; the width is counted layer by layer along a recorded forward pass. At
the border of the image the tile ends too, and no margin is needed. Tiles begin at multiples of all strides, so that
strided layers group the same pixels as in the whole image.

    given view   seen ---trunk---> given ---enlarged---> window
    image                                                window ---causal network---> core
"""

__all__ = ["Tiling", "plan", "score_by_tiles", "tile_params"]

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pixelcnn.auxiliary.chain import Link
from pixelcnn.common.devices import computing, device_of
from pixelcnn.common.memory import peak_memory
from pixelcnn.models.factor import Factor
from pixelcnn.models.margins import Margins, Stretch, enlarged_range, length, round_up, shrinkage, within
from pixelcnn.models.memory import Allowance, meta_inputs, meta_twin
from pixelcnn.nn.layers import Conv, TransposedConv, evaluating

NO_MATTER = 1.2 * 10**9  # bytes: if a generous estimate stays below this, we plan no tiles
MORE_WORK = 1.25  # smaller tiles may take this many times the work of larger ones that also fit


class Tiling(NamedTuple):
    """How many images are scored at once, and the rows and columns that make up the grid of tiles."""

    images: int
    rows: list[Stretch]
    cols: list[Stretch]

    @property
    def work(self) -> int:
        """Number of pixels that the networks see, of the image and of the given view."""

        def pixels(seen: Callable[[Stretch], slice]) -> int:
            rows, cols = (sum(length(seen(each)) for each in axis) for axis in (self.rows, self.cols))
            return rows * cols

        return pixels(lambda each: each.window) + pixels(lambda each: each.seen)

    def largest(self) -> tuple[Stretch, Stretch]:
        """Return the row and the column of the tile that needs the most memory."""

        def size(stretch: Stretch) -> tuple[int, int]:
            return length(stretch.window), length(stretch.seen)

        return max(self.rows, key=size), max(self.cols, key=size)


def plan(
    factors: Sequence[Factor],
    number: int,
    sizes: Sequence[tuple[int, int]],
    *,
    consistent: bool,
    at_once: int = 1,
    most: float = math.inf,
) -> list[Tiling]:
    """Choose the tiles in which each factor scores `number` views (H, W), given the free memory of the device.

    So many tiles are computed at once, and share this memory. They have at most about `most` pixels of all images.

    All images are scored at once if that needs little memory. Otherwise fewer images are scored at once; a single image
    is cut along its longer side, again and again, until a tile needs little memory or the margins become most of the
    work.

    Raises:
        MemoryError: if not even the smallest tile fits.
    """
    pairs = enumerate(zip(factors, sizes, strict=True))
    allowance = Allowance.of(device_of(factors[0])).shared(at_once)
    return [_plan_factor(factor, k, (allowance, most), number, size, consistent) for k, (factor, size) in pairs]


def score_by_tiles(
    factor: Factor,
    tiling: Tiling,
    link: Link,
    labels: Tensor | None,
    done: Callable[[int], None],
    *,
    consistent: bool,
) -> Tensor:
    """Score views as `factor.pixel_log_prob` does, tile by tile: integers (B, C, H, W) to (B, H, W).

    Args:
        factor: the factor that scores the view.
        tiling: tiles for images of this size, however many.
        link: the view, and the next simpler view of the same images.
        labels: (B,) class labels, for a factor with classes.
        done: called after every tile with the number of pixels that were scored.
        consistent: see `Factor`.
    """
    scores = []
    for first in range(0, len(link.view), tiling.images):
        part = slice(first, first + tiling.images)
        inputs = Link(link.view[part], None if link.given is None else link.given[part])
        some_labels = None if labels is None else labels[part]
        rows = []
        for row in tiling.rows:
            tiles = []
            for col in tiling.cols:
                pixels = len(inputs.view) * length(row.window) * length(col.window)
                with computing(factor, pixels, "end other programs, or use a smaller model"):
                    tiles.append(score_tile(factor, inputs, some_labels, row, col, consistent=consistent))
                done(tiles[-1].numel())
            rows.append(torch.cat(tiles, 2))
        scores.append(torch.cat(rows, 1))
    return torch.cat(scores)


def score_tile(
    factor: Factor, link: Link, labels: Tensor | None, row: Stretch, col: Stretch, *, consistent: bool
) -> Tensor:
    """Compute the log-probability of each pixel of a tile's core, in nats; the inputs are whole images."""
    params, cells = tile_params(factor, link, labels, row, col)
    return factor.log_prob_of(params, link.view[:, :, row.core, col.core], cells, consistent=consistent)


def tile_params(
    factor: Factor, link: Link, labels: Tensor | None, row: Stretch, col: Stretch
) -> tuple[Tensor, Tensor | None]:
    """Compute the parameters of each pixel of a tile's core, and the part of the given view that belongs to it."""
    (x, given), context, cells = link, None, None
    if factor.embedding is not None and given is not None:
        trunk = factor.embedding.trunk(factor.embedding.scale(given[:, :, row.seen, col.seen]))
        trunk = trunk[:, :, within(row.given, row.seen), within(col.given, col.seen)]
        height, width = (
            enlarged_range(stretch.given, factor.embedding.upsample, side)
            for stretch, side in zip((row, col), x.shape[2:], strict=True)
        )
        context = factor.embedding.enlarge_to(trunk, (length(height), length(width)))
        context = context[:, :, within(row.window, height), within(col.window, width)]
        cells = given[:, :, row.cells, col.cells]
    params = factor.network(x[:, :, row.window, col.window], factor.add_class(context, labels))
    params = params[:, :, within(row.core, row.window), within(col.core, col.window)]
    return factor.offset_means(params, cells), cells


def _plan_factor(
    factor: Factor,
    k: int,
    limits: tuple[Allowance, float],
    number: int,
    size: tuple[int, int],
    consistent: bool,
) -> Tiling:
    """Plan the tiles of a factor, within limits of their memory and of their pixels."""
    whole = Tiling(max(1, number), *([_whole(factor, side)] for side in size))
    (allowance, most), each = limits, _generous_memory(factor)
    if number * math.prod(size) <= min(most, allowance.most / each, NO_MATTER / each):
        return whole
    twin, margins = meta_twin(factor), Margins(factor)
    chosen, needed = whole, math.inf
    for images, height, width in _halvings(number, size, margins.step):
        smaller = Tiling(images, margins.cut(0, size[0], height), margins.cut(1, size[1], width))
        if needed <= allowance.most and smaller.work > MORE_WORK * chosen.work:
            break
        pixels = images * height * width
        chosen, needed = smaller, pixels * each
        if needed > min(allowance.little, NO_MATTER):
            needed = allowance.margin * _tile_memory(twin, smaller, size, consistent)
        if needed <= allowance.little and pixels <= most:
            break
    if needed > allowance.most:
        rows, cols = (length(stretch.window) for stretch in chosen.largest())
        raise MemoryError(
            f"factor {k} even in tiles of {cols}x{rows} pixels needs about {needed / 1e9:.2g} GB, and "
            f"{allowance.most / 1e9:.2g} GB are free: end other programs, or use a smaller model"
        )
    return chosen


def _whole(factor: Factor, side: int) -> Stretch:
    image, view = slice(0, side), slice(0, -(-side // shrinkage(factor)))
    return Stretch(image, image, view, view, view)


def _halvings(number: int, size: tuple[int, int], step: int) -> Iterator[tuple[int, int, int]]:
    """Yield ever fewer images at once, and then ever smaller tiles: (images, height, width)."""
    images, (height, width) = number, size
    while True:
        yield images, height, width
        if images > 1:
            images = -(-images // 2)
        elif max(height, width) <= step:
            return
        elif height > width:
            height = round_up(-(-height // 2), step)
        else:
            width = round_up(-(-width // 2), step)


def _tile_memory(twin: Factor, tiling: Tiling, size: tuple[int, int], consistent: bool) -> int:
    """Find the peak memory of a tile in bytes, besides the images, without computing anything."""
    link, labels = meta_inputs(twin, tiling.images, size)
    row, col = tiling.largest()
    with evaluating():
        return peak_memory(lambda: score_tile(twin, link, labels, row, col, consistent=consistent))


def _generous_memory(factor: Factor) -> int:
    """Overestimate the bytes per pixel that scoring needs, as if every layer kept its result and a copy at full size.

    This avoids the first exact estimate, which takes a second because torch imports a compiler: too long for a small
    image.
    """
    layers = [module for module in factor.modules() if isinstance(module, Conv | TransposedConv)]
    values = 2 * sum(layer.bias.numel() for layer in layers) + 18 * factor.likelihood.num_params
    return values * layers[0].bias.element_size()
