"""How far a network looks beyond the pixels that it computes.

See `pixelcnn.models.tiles` for the parts of a tile.
"""

__all__ = ["Margins", "Stretch", "enlarged_range", "length", "round_up", "shrinkage", "within"]

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self, cast

from torch import Tensor

from pixelcnn.models.factor import Factor
from pixelcnn.nn.causal import HALF
from pixelcnn.nn.layers import Edges, evaluating
from pixelcnn.nn.record import Layer, Symbol


class Stretch(NamedTuple):
    """Ranges of pixels along one axis of a tile."""

    core: slice  # of the image: pixels that are scored
    window: slice  # of the image: pixels that the causal network sees
    cells: slice  # of the given view: pixels that belong to the core
    given: slice  # of the given view: pixels whose embedding the window needs
    seen: slice  # of the given view: pixels that the embedding sees


class Margins:
    """How far a tile's window must extend beyond its core, and the embedding's input beyond the window.

    Args:
        factor: the factor whose forward pass is recorded to find out.
    """

    def __init__(self, factor: Factor) -> None:
        network, embedding = factor.network, factor.embedding
        self.shrinkage = shrinkage(factor)
        self.step = math.lcm(HALF ** (network.scales - 1), self.shrinkage)
        # Contexts go through 1x1 convolutions, so they reach no further than the activations they are added to.
        sides = [cast("Tensor", _Spoiled(Edges()))] * (network.scales if network.context else 0)
        self.window = _spoiled_edges(lambda x: network.evaluate(x, sides))
        self.trunk_step, self.enlarged, self.trunk = 1, Edges(), Edges()
        if embedding is not None:
            self.trunk_step = HALF ** (len(embedding.down) - 1)
            self.enlarged = _spoiled_edges(lambda x: embedding.enlarge_to(x, (0, 0)))
            self.trunk = _spoiled_edges(embedding.trunk)

    def cut(self, axis: int, side: int, length: int) -> list[Stretch]:
        """Cut the rows (axis 0) or columns (axis 1) of an image into cores of this length; the last may be shorter."""
        length, f = round_up(length, self.step), self.shrinkage
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


class _Spoiled(Symbol):
    """A symbolic activation of a window: how wide its edges are that differ from those of the whole image."""

    def __init__(self, edges: Edges) -> None:
        self.edges = edges

    @classmethod
    def layer(cls, layer: Layer, inputs: Sequence[Self], size: tuple[int, ...] = ()) -> Self:
        return cls(layer.spoil(_worst(inputs)))

    @classmethod
    def elementwise(cls, function: Callable[..., Tensor], inputs: Sequence[Self]) -> Self:
        return cls(_worst(inputs))


def _worst(inputs: "Sequence[_Spoiled]") -> Edges:
    return Edges(*(max(sides) for sides in zip(*(x.edges for x in inputs), strict=True)))


def _spoiled_edges(function: Callable[[Tensor], Tensor]) -> Edges:
    """Trace part of a forward pass over a window, and return how wide the spoiled edges of its result are."""
    with evaluating():
        return cast("_Spoiled", function(cast("Tensor", _Spoiled(Edges())))).edges


def shrinkage(factor: Factor) -> int:
    return 1 if factor.embedding is None else factor.embedding.upsample


def _widen(part: slice, edges: Edges, axis: int, step: int, side: int) -> slice:
    """Add margins to a range, rounded outward to multiples of the step or to the end of the image."""
    before, after = edges[2 * axis : 2 * axis + 2]
    return slice(max(0, (part.start - before) // step * step), min(side, round_up(part.stop + after, step)))


def enlarged_range(given: slice, factor: int, side: int) -> slice:
    return slice(factor * given.start, min(side, factor * given.stop))


def within(inner: slice, outer: slice) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)


def length(part: slice) -> int:
    return part.stop - part.start


def round_up(number: int, step: int) -> int:
    return -(-number // step) * step
