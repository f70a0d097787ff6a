"""`EmbeddingNetwork`: turns the given view into the context of a causal network (`f_w` in the paper).

The given view is known as a whole, so there is one stream, and its convolutions look in all directions. The shape is
that of PixelCNN++: blocks on the way down, as many on the way up with shortcuts, and further up if the image is larger
than the view. With `blocks=3, scales=2, upsample=2`, there are 15 blocks, with a step down after the third and steps up
after the ninth and the twelfth: that is the Pyramid PixelCNN. With `blocks=4, scales=3, upsample=1`, there are 24: that
is the Grayscale PixelCNN.

Reference: Kolesnikov & Lampert (ICML 2017), sections 3.3, 4.1 and 4.2.
"""

__all__ = ["EmbeddingNetwork"]

from functools import partial
from typing import cast

from torch import Tensor, nn

from pixelcnn.nn.arithmetic import FLOATING, Arithmetic
from pixelcnn.nn.blocks import GatedResidual, Recomputable
from pixelcnn.nn.causal import HALF, add_ones
from pixelcnn.nn.layers import AROUND, Conv, TransposedConv

CenteredConv = partial(Conv, rows=AROUND, cols=AROUND)


def _grow(filters: int, factor: int) -> TransposedConv:
    """Make a layer that enlarges by `factor`, in which an output between two inputs depends on both."""
    offsets = range(-(factor // 2), factor)
    return TransposedConv(filters, filters, offsets, offsets, stride=factor)


class EmbeddingNetwork(Recomputable):
    """A network from a view to a context of `filters` channels, at the resolution of the image that is modeled.

    Args:
        channels, levels: of the view: integers (B, channels, h, w) in [0, levels).
        filters, blocks, scales: as in `CausalNetwork`, but with `blocks` blocks at every scale of the up pass.
        upsample: how many times larger the image is than the view: h and w are H and W divided by this, rounded up.
        dropout: fraction of the hidden units that training drops in every residual block.

    Example:
        >>> import torch
        >>> from pixelcnn.nn.embedding import EmbeddingNetwork
        >>> network = EmbeddingNetwork(channels=3, levels=256, filters=8, blocks=1, upsample=2)
        >>> view = torch.randint(0, 256, (1, 3, 4, 4))
        >>> network(view, size=(8, 8)).shape
        torch.Size([1, 8, 8, 8])
    """

    arithmetic: Arithmetic = FLOATING

    def __init__(
        self,
        channels: int,
        levels: int,
        *,
        filters: int = 100,
        blocks: int = 3,
        scales: int = 2,
        upsample: int = 1,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.channels, self.levels, self.upsample = channels, levels, upsample
        self.first = CenteredConv(channels + 1, filters)

        def make_blocks(side: int = 0) -> nn.ModuleList:
            return nn.ModuleList(
                GatedResidual(filters, CenteredConv, side=side, dropout=dropout) for _ in range(blocks)
            )

        self.down = cast("list[list[GatedResidual]]", nn.ModuleList(make_blocks() for _ in range(scales)))
        self.shrink = nn.ModuleList(CenteredConv(filters, filters, stride=HALF) for _ in range(scales - 1))
        self.grow = nn.ModuleList(_grow(filters, HALF) for _ in range(scales - 1))
        self.up = cast("list[list[GatedResidual]]", nn.ModuleList(make_blocks(2 * filters) for _ in range(scales)))
        self.enlarge = _grow(filters, upsample) if upsample > 1 else None
        self.enlarged = make_blocks() if upsample > 1 else nn.ModuleList()

    def forward(self, given: Tensor, size: tuple[int, int]) -> Tensor:
        """Map a view (B, channels, h, w) to a context `(B, filters, *size)`, where `size` is (H, W) of the image."""
        return self.enlarge_to(self.trunk(self.scale(given)), size)

    def scale(self, given: Tensor) -> Tensor:
        """Scale a view (B, channels, h, w) to the input of the first layer, (B, channels + 1, h, w)."""
        return add_ones(given, self.levels, self.first.bias.dtype, self.arithmetic)

    def trunk(self, x: Tensor) -> Tensor:
        """Evaluate the layers with the resolution of the view, or a lower one: (B, filters, h, w)."""
        return self.arithmetic.unwrap(self._trunk(self.arithmetic.wrap(x)))

    def _trunk(self, x: Tensor) -> Tensor:
        x = self.first(x)
        states: list[list[Tensor]] = []
        for scale, blocks in enumerate(self.down):
            if scale > 0:
                x = self.shrink[scale - 1](x)
            states.append([x])
            for block in blocks:
                x = block(x, self.activate(x))
                states[scale].append(x)
        states[-1].pop()
        for scale, blocks in reversed(list(enumerate(self.up))):
            for block in blocks:
                x = block(x, self.activate(x), [self.activate(states[scale].pop())])
            if scale > 0:
                x = self.grow[scale - 1](x, states[scale - 1][0].shape[-2:])
        return x

    def enlarge_to(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Evaluate the layers that follow the trunk: `(B, filters, *size)`."""
        return self.arithmetic.unwrap(self._enlarge_to(self.arithmetic.wrap(x), size))

    def _enlarge_to(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if self.enlarge is not None:
            x = self.enlarge(x, size)
        for block in self.enlarged:
            x = block(x, self.activate(x))
        return x
