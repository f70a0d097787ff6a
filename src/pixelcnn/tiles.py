"""Large images in tiles: the pixels of a tile score as in the whole image, in a fraction of its memory.

A network of convolutions looks only so far. So a tile is computed with a margin around it that is as wide as what the
zeros beyond it spoil, which is counted along the recorded forward pass, from layer to layer. Where the image ends, so
does the tile, and there is nothing to spoil. Tiles begin at multiples of all strides, so that a pixel is at the same
place in its squares of pixels as in the whole image.

    auxiliary image   seen ---trunk---> given ---enlarged---> window
    image                                                     window ---causal network---> core
"""

__all__ = ["Tiling", "link_by_bands", "plan", "score_by_tiles"]

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, fx, nn

from pixelcnn.layers import Conv, Edges, TransposedConv
from pixelcnn.memory import Allowance, meta_twin, peak_memory
from pixelcnn.models import Factor, ImageModel, check_images
from pixelcnn.network import HALF

BAND = 2**20  # pixels whose view is made at once; their sums are integers of eight bytes
NO_MATTER = 1.2 * 10**9  # bytes, generously estimated, up to which no more is asked
MORE_WORK = 1.25  # times the work that smaller tiles may be, where larger ones do fit


class Stretch(NamedTuple):
    """One axis of a tile, as ranges of pixels."""

    core: slice  # of the image: those that are scored
    window: slice  # of the image: those that the causal network sees
    cells: slice  # of the auxiliary image: those of the core
    given: slice  # of the auxiliary image: those whose embedding the window needs
    seen: slice  # of the auxiliary image: those that the embedding sees


class Tiling(NamedTuple):
    """How many images are scored at once, and in which tiles: each of the rows with each of the columns."""

    images: int
    rows: list[Stretch]
    cols: list[Stretch]

    @property
    def work(self) -> int:
        """Pixels that the networks see, of both images."""

        def pixels(seen: Callable[[Stretch], slice]) -> int:
            rows, cols = (sum(_length(seen(each)) for each in axis) for axis in (self.rows, self.cols))
            return rows * cols

        return pixels(lambda each: each.window) + pixels(lambda each: each.seen)

    def largest(self) -> tuple[Stretch, Stretch]:
        """The tile that needs the most memory."""

        def size(stretch: Stretch) -> tuple[int, int]:
            return _length(stretch.window), _length(stretch.seen)

        return max(self.rows, key=size), max(self.cols, key=size)


def plan(model: ImageModel, number: int, size: tuple[int, int]) -> list[Tiling]:
    """The tiles in which each factor scores `number` images (H, W), from what is free on the model's device.

    The images are scored at once where that needs little memory. Otherwise fewer of them are, and of a single one the
    longer side is halved until little is enough, or until the margins would be most of the work.

    Raises:
        MemoryError: where not even the smallest tile fits.
    """
    return [_plan_factor(model, k, number, view) for k, view in enumerate(model.sizes(size))]


def link_by_bands(model: ImageModel, x: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    """What `model.links` gives, the views of a large image made band by band."""
    check_images(x, *model.formats[0])
    views = [x]
    for auxiliary, (_, levels) in zip(model.auxiliaries, model.formats, strict=False):
        image = views[-1]
        rows = max(1, BAND // max(1, len(image) * image.shape[3] * auxiliary.shrinkage)) * auxiliary.shrinkage
        bands = [auxiliary(image[:, :, row : row + rows], levels) for row in range(0, image.shape[2], rows)]
        views.append(torch.cat(bands, 2))
    return list(zip(views, [*views[1:], None], strict=True))


def score_by_tiles(
    factor: Factor,
    tiling: Tiling,
    x: Tensor,
    auxiliary: Tensor | None,
    labels: Tensor | None,
    done: Callable[[int], None],
) -> Tensor:
    """What `factor.pixel_log_prob` gives, tile by tile: integers (B, C, H, W) to (B, H, W).

    Args:
        factor: in evaluation mode.
        tiling: for images of this size, in any number.
        x, auxiliary, labels: as for `pixel_log_prob`; the auxiliary image is the image's.
        done: is called after every tile with the number of pixels that it scored.
    """
    scores = []
    for first in range(0, len(x), tiling.images):
        part = slice(first, first + tiling.images)
        inputs = x[part], None if auxiliary is None else auxiliary[part], None if labels is None else labels[part]
        rows = []
        for row in tiling.rows:
            tiles = []
            for col in tiling.cols:
                tiles.append(score_tile(factor, *inputs, row, col))
                done(tiles[-1].numel())
            rows.append(torch.cat(tiles, 2))
        scores.append(torch.cat(rows, 1))
    return torch.cat(scores)


def score_tile(
    factor: Factor, x: Tensor, auxiliary: Tensor | None, labels: Tensor | None, row: Stretch, col: Stretch
) -> Tensor:
    """Log-probability of each pixel of a tile's core, in nats, from whole images."""
    context = cells = None
    if factor.embedding is not None and auxiliary is not None:
        trunk = factor.embedding.trunk(auxiliary[:, :, row.seen, col.seen])
        trunk = trunk[:, :, _within(row.given, row.seen), _within(col.given, col.seen)]
        height, width = (
            _enlarged(stretch.given, factor.embedding.upsample, side)
            for stretch, side in zip((row, col), x.shape[2:], strict=True)
        )
        context = factor.embedding.enlarge_to(trunk, (_length(height), _length(width)))
        context = context[:, :, _within(row.window, height), _within(col.window, width)]
        cells = auxiliary[:, :, row.cells, col.cells]
    params = factor.network(x[:, :, row.window, col.window], factor.add_class(context, labels))
    params = params[:, :, _within(row.core, row.window), _within(col.core, col.window)]
    return factor.log_prob_of(factor.count_from_guess(params, cells), x[:, :, row.core, col.core], cells)


def _plan_factor(model: ImageModel, k: int, number: int, size: tuple[int, int]) -> Tiling:
    factor = model.factors[k]
    device = next(factor.parameters()).device
    whole = Tiling(max(1, number), *([_whole(factor, side)] for side in size))
    allowance = Allowance.of(device)
    if number * math.prod(size) * _generous_memory(factor) <= min(allowance.most, NO_MATTER):
        return whole
    twin, margins = meta_twin(factor), _Margins(factor)
    chosen, needed = whole, math.inf
    for images, height, width in _halvings(number, size, margins.step):
        smaller = Tiling(images, margins.cut(0, size[0], height), margins.cut(1, size[1], width))
        if needed <= allowance.most and smaller.work > MORE_WORK * chosen.work:
            break
        chosen, needed = smaller, allowance.margin * _tile_memory(twin, smaller, size)
        if needed <= allowance.little:
            break
    if needed > allowance.most:
        rows, cols = (_length(stretch.window) for stretch in chosen.largest())
        raise MemoryError(
            f"to score factor {k} even in tiles needs about {needed / 1e9:.2g} GB, for {cols}x{rows} pixels at once, "
            f"and {allowance.most / 1e9:.2g} GB are free: end other programs, or use a smaller model"
        )
    return chosen


def _whole(factor: Factor, side: int) -> Stretch:
    image, view = slice(0, side), slice(0, -(-side // _shrinkage(factor)))
    return Stretch(image, image, view, view, view)


def _halvings(number: int, size: tuple[int, int], step: int) -> Iterator[tuple[int, int, int]]:
    """Ever fewer images at once, and then ever smaller tiles: (images, height, width)."""
    images, (height, width) = number, size
    while True:
        yield images, height, width
        if images > 1:
            images = -(-images // 2)
        elif max(height, width) <= step:
            return
        elif height > width:
            height = _round_up(-(-height // 2), step)
        else:
            width = _round_up(-(-width // 2), step)


def _tile_memory(twin: Factor, tiling: Tiling, size: tuple[int, int]) -> int:
    """The most bytes that a tile needs beside the images; nothing is computed."""

    def empty(channels: int, *sides: int) -> Tensor:
        return torch.empty(tiling.images, channels, *sides, dtype=torch.uint8, device="meta")

    x, auxiliary, labels = empty(twin.likelihood.channels, *size), None, None
    if twin.embedding is not None:
        auxiliary = empty(twin.embedding.channels, *(-(-side // twin.embedding.upsample) for side in size))
    if twin.classes is not None:
        labels = torch.empty(tiling.images, dtype=torch.int64, device="meta")
    with torch.no_grad():
        return peak_memory(lambda: score_tile(twin, x, auxiliary, labels, *tiling.largest()))


def _generous_memory(factor: Factor) -> int:
    """More bytes a pixel than scoring needs: as if the result of every layer were kept, at full size, and a copy of it.

    The first rehearsal takes a second, since torch imports a compiler for it: longer than a small image needs.
    """
    layers = [module for module in factor.modules() if isinstance(module, Conv | TransposedConv)]
    values = 2 * sum(layer.bias.numel() for layer in layers) + 18 * factor.likelihood.num_params
    return values * layers[0].bias.element_size()


class _Margins:
    """How far the window of a tile must go beyond its core, and what the embedding must see beyond the window.

    Args:
        factor: whose forward pass is recorded.
    """

    def __init__(self, factor: Factor) -> None:
        network, embedding = factor.network, factor.embedding
        self.shrinkage = _shrinkage(factor)
        self.step = math.lcm(HALF ** (network.scales - 1), self.shrinkage)
        # Contexts are read by convolutions of one pixel, so that they reach no further than what they are added to.
        self.window = _spoilt(network, lambda x: network.evaluate(x, []))
        self.trunk_step, self.enlarged, self.trunk = 1, Edges(), Edges()
        if embedding is not None:
            self.trunk_step = HALF ** (len(embedding.down) - 1)
            self.enlarged = _spoilt(embedding, lambda x: embedding.enlarge_to(x, (x.shape[2], x.shape[3])))
            self.trunk = _spoilt(embedding, embedding.trunk)

    def cut(self, axis: int, side: int, length: int) -> list[Stretch]:
        """Rows (axis 0) or columns (axis 1) of an image into cores of this length, or what is left of them."""
        length, f = _round_up(length, self.step), self.shrinkage
        view = -(-side // f)
        stretches = []
        for start in range(0, side, length):
            core = slice(start, min(side, start + length))
            window = _widen(core, self.window, axis, self.step, side)
            wide = _widen(window, self.enlarged, axis, f, side)
            cells, given = (slice(part.start // f, -(-part.stop // f)) for part in (core, wide))
            seen = _widen(given, self.trunk, axis, self.trunk_step, view)
            stretches.append(Stretch(core, window, cells, given, seen))
        return stretches


class _Recorder(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Conv | TransposedConv)


class _Part(nn.Module):
    """A part of the forward pass of a module, as a module."""

    def __init__(self, module: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.module, self.function = module, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _spoilt(module: nn.Module, function: Callable[[Tensor], Tensor]) -> Edges:
    """The edges of what a part of a module's forward pass makes of a window. All but convolutions is element-wise."""
    part = _Part(module, function)
    edges: dict[fx.Node, Edges] = {}
    for node in _Recorder().trace(part).nodes:
        layer = part.get_submodule(str(node.target)) if node.op == "call_module" else None
        # The second argument of a transposed convolution is a size.
        sources = node.all_input_nodes[:1] if isinstance(layer, TransposedConv) else node.all_input_nodes
        worst = Edges(*(max(sides) for sides in zip(Edges(), *(edges[source] for source in sources), strict=True)))
        edges[node] = worst if layer is None else cast("Conv | TransposedConv", layer).spoil(worst)
    return list(edges.values())[-1]  # that of the output


def _shrinkage(factor: Factor) -> int:
    return 1 if factor.embedding is None else factor.embedding.upsample


def _widen(part: slice, edges: Edges, axis: int, step: int, side: int) -> slice:
    """A range with its margins, from and to a multiple of the step or the end of the image."""
    before, after = edges[2 * axis : 2 * axis + 2]
    return slice(max(0, (part.start - before) // step * step), min(side, _round_up(part.stop + after, step)))


def _enlarged(given: slice, factor: int, side: int) -> slice:
    return slice(factor * given.start, min(side, factor * given.stop))


def _within(inner: slice, outer: slice) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)


def _length(part: slice) -> int:
    return part.stop - part.start


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
