"""`CausalNetwork`: the two-stream network of PixelCNN++, with or without down- and up-sampling.

A network is *causal* if its output at a pixel depends only on the pixels before it in raster order (row by row, each
from left to right). Two streams of convolutions make sure of that. The stream `u` ("up") sees the rows above a pixel.
The stream `ul` ("up and left") sees the row above and the pixels to the left, and takes `u` as a side input in every
block.

    down   scale 0: blocks   scale 1: blocks       scale 2: blocks
    up     scale 2: blocks   scale 1: blocks + 1   scale 0: blocks + 1

Each *scale* has half the resolution of the one before. Every state of the down pass is a side input (a *shortcut*) of
one block of the up pass, the last state first. With one scale, nothing is lost on the way down, so there is no up pass:
that is the plain network of the Pyramid PixelCNN.

Reference: Salimans et al., PixelCNN++ (ICLR 2017), figure 2 and its code; Kolesnikov & Lampert (ICML 2017), section
3.3.
"""

__all__ = ["HALF", "CausalNetwork", "add_ones"]

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelcnn.nn.arithmetic import FLOATING, Arithmetic
from pixelcnn.nn.blocks import GatedResidual, Recomputable
from pixelcnn.nn.layers import ABOVE_AND_HERE, AROUND, LEFT_AND_HERE, Conv, TransposedConv, concat_elu

DownConv = partial(Conv, rows=ABOVE_AND_HERE, cols=AROUND)
DownRightConv = partial(Conv, rows=ABOVE_AND_HERE, cols=LEFT_AND_HERE)
HALF = 2


def add_ones(x: Tensor, levels: int, dtype: torch.dtype, arithmetic: Arithmetic) -> Tensor:
    """Scale an image (B, C, H, W) to [-1, 1] and add a channel of ones, which tells gray pixels from the border."""
    values = arithmetic.scale(x, levels, dtype)
    values = torch.cat([values, torch.ones_like(values[:, :1])], 1)
    # Later layers inherit this layout. Convolutions are fastest in it, on a CPU and in bfloat16 on a GPU.
    return values.contiguous(memory_format=torch.channels_last)


class _Streams(NamedTuple):
    """The two streams, each with its `concat_elu`, since several convolutions read it (but see `Recomputable`)."""

    u: Tensor
    ul: Tensor
    active_u: Tensor
    active_ul: Tensor

    @classmethod
    def of(cls, u: Tensor, ul: Tensor, activate: Callable[[Tensor], Tensor]) -> "_Streams":
        """Apply the `activate` of a module to both streams."""
        return cls(u, ul, activate(u), activate(ul))


class _FirstLayer(Recomputable):
    """The only layer that leaves out the pixel itself: `u` leaves out its whole row, `ul` the rest of it."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.u = Conv(inputs, filters, range(-2, 0), AROUND)
        self.ul_above = Conv(inputs, filters, range(-1, 0), AROUND)
        self.ul_left = Conv(inputs, filters, ABOVE_AND_HERE, range(-1, 0))

    def forward(self, x: Tensor) -> _Streams:
        return _Streams.of(self.u(x), self.ul_above(x) + self.ul_left(x), self.activate)


class _Block(Recomputable):
    """A gated residual block in each stream. Both take the shortcut and the context, and `ul` also takes `u`."""

    def __init__(self, filters: int, context: int, dropout: float, *, shortcut: bool) -> None:
        super().__init__()
        side = 2 * filters * shortcut + 2 * context
        self.u = GatedResidual(filters, DownConv, side=side, dropout=dropout)
        self.ul = GatedResidual(filters, DownRightConv, side=2 * filters + side, dropout=dropout)

    def forward(self, streams: _Streams, context: list[Tensor], shortcut: _Streams | None = None) -> _Streams:
        shortcut_u, shortcut_ul = ([shortcut.active_u], [shortcut.active_ul]) if shortcut else ([], [])
        u = self.u(streams.u, streams.active_u, [*shortcut_u, *context])
        active_u = self.activate(u)
        ul = self.ul(streams.ul, streams.active_ul, [active_u, *shortcut_ul, *context])
        return _Streams(u, ul, active_u, self.activate(ul))


class _Shrink(Recomputable):
    """Layers that shrink both streams to half the size, rounded up."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.u = DownConv(filters, filters, stride=HALF)
        self.ul = DownRightConv(filters, filters, stride=HALF)

    def forward(self, streams: _Streams) -> _Streams:
        return _Streams.of(self.u(streams.u), self.ul(streams.ul), self.activate)


class _Grow(Recomputable):
    """Layers that enlarge both streams to twice the size, without looking at later pixels."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.u = TransposedConv(filters, filters, range(2), AROUND, stride=HALF)
        self.ul = TransposedConv(filters, filters, range(2), range(2), stride=HALF)

    def forward(self, streams: _Streams, size: tuple[int, int]) -> _Streams:
        return _Streams.of(self.u(streams.u, size), self.ul(streams.ul, size), self.activate)


class CausalNetwork(Recomputable):
    """A network whose output at a pixel depends only on the pixels before it, and on all of a *context*.

    Args:
        channels, levels: of the image: integers (B, channels, H, W) in [0, levels).
        outputs: values per pixel: the `num_params` of a likelihood.
        filters, blocks, scales: the channels of each stream, the blocks per scale, and the number of scales, each half
            the size of the one before. `CausalNetwork(..., filters=160, blocks=5, scales=3)` is PixelCNN++.
        context: channels of the context (B, context, H, W), such as the embedding of a view; 0 for none.
        dropout: fraction of the hidden units that training drops in every residual block.

    Example:
        >>> import torch
        >>> from pixelcnn.nn.causal import CausalNetwork
        >>> network = CausalNetwork(channels=1, levels=4, outputs=4, filters=8, blocks=1, scales=1)
        >>> x = torch.randint(0, 4, (2, 1, 6, 6))
        >>> network(x).shape
        torch.Size([2, 4, 6, 6])
        >>> network.lag
        4
    """

    arithmetic: Arithmetic = FLOATING

    def __init__(
        self,
        channels: int,
        levels: int,
        outputs: int,
        *,
        filters: int = 160,
        blocks: int = 5,
        scales: int = 3,
        context: int = 0,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.levels, self.blocks, self.scales, self.context = levels, blocks, scales, context
        self.first = _FirstLayer(channels + 1, filters)

        def make_blocks(number: int, *, shortcut: bool) -> nn.ModuleList:
            return nn.ModuleList(_Block(filters, context, dropout, shortcut=shortcut) for _ in range(number))

        self.down = cast(
            "list[list[_Block]]", nn.ModuleList(make_blocks(blocks, shortcut=False) for _ in range(scales))
        )
        self.shrink = nn.ModuleList(_Shrink(filters) for _ in range(scales - 1))
        self.grow = nn.ModuleList(_Grow(filters) for _ in range(scales - 1))
        numbers = [blocks + (scale < scales - 1) for scale in range(scales)] if scales > 1 else []
        self.up = cast("list[list[_Block]]", nn.ModuleList(make_blocks(number, shortcut=True) for number in numbers))
        self.last = Conv(filters, outputs)

    @property
    def lag(self) -> int | None:
        """The smallest valid lag; None if the network needs raster order.

        A *lag* is how many columns a row must run ahead of the next one. It is valid if, with pixel (i, j) visited at
        time `j + lag * i`, a pixel depends only on pixels of earlier times. The first layer and both convolutions of
        each block look one column to the right in the row above, which makes 2 * blocks + 1 columns in all.
        """
        return 2 * self.blocks + 2 if self.scales == 1 else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map integers (B, channels, H, W), and a context (B, context, H, W), to outputs (B, outputs, H, W)."""
        arithmetic = self.arithmetic
        activate = self.activate if self.recomputing else arithmetic.function(concat_elu)
        sides = [arithmetic.wrap(activate(context)) for context in self.contexts(context, x.shape[-2:])]
        pixels = add_ones(x, self.levels, self.last.bias.dtype, arithmetic)
        return arithmetic.unwrap(self.evaluate(arithmetic.wrap(pixels), sides))

    def evaluate(self, x: Tensor, sides: list[Tensor]) -> Tensor:
        """Evaluate all layers, from the image after `add_ones` and the contexts of all scales after `concat_elu`.

        This uses nothing but convolutions and elementwise functions, so that it can be recorded (see
        `pixelcnn.traversal.record`).
        """
        streams = self.first(x)
        states: list[list[_Streams]] = []
        for scale, blocks in enumerate(self.down):
            if scale > 0:
                streams = self.shrink[scale - 1](streams)
            states.append([streams])
            for block in blocks:
                streams = block(streams, sides[scale : scale + 1])
                states[scale].append(streams)
        states[-1].pop()
        for scale, blocks in reversed(list(enumerate(self.up))):
            for block in blocks:
                streams = block(streams, sides[scale : scale + 1], states[scale].pop())
            if scale > 0:
                streams = self.grow[scale - 1](streams, states[scale - 1][0].u.shape[-2:])
        return self.last(F.elu(streams.ul))

    def contexts(self, context: Tensor | None, size: tuple[int, ...]) -> list[Tensor]:
        """Average the context to every scale, over the pixels that exist; an empty list if there is no context."""
        if context is None:
            return []
        contexts = [context.expand(-1, -1, *size)]
        for _ in range(self.scales - 1):
            contexts.append(F.avg_pool2d(contexts[-1], HALF, ceil_mode=True))
        return contexts
