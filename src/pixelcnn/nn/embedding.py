"""`EmbeddingNetwork`: the function `f_w` that tells a causal network of the auxiliary image.

The auxiliary image is known as a whole, so there is one stream and nothing is shifted. The shape is that of PixelCNN++:
blocks on the way down, as many on the way up with short-cuts, and further up if the image that it conditions is larger
than the auxiliary image. With `blocks=3, scales=2, upsample=2` there are 15 blocks, down after the third, up after the
ninth and the twelfth: the Pyramid PixelCNN. With `blocks=4, scales=3, upsample=1` there are 24: the Grayscale PixelCNN.

Reference: Kolesnikov & Lampert (ICML 2017), sections 3.3, 4.1 and 4.2.
"""

__all__ = ["EmbeddingNetwork"]

from functools import partial
from typing import cast

from torch import Tensor, nn

from pixelcnn.nn.causal import HALF, add_ones
from pixelcnn.nn.layers import AROUND, Conv, GatedResidual, TransposedConv, concat_elu

CentredConv = partial(Conv, rows=AROUND, cols=AROUND)


def _grow(filters: int, factor: int) -> TransposedConv:
    """Enlarges by `factor`: every output is written, and those between two inputs by both."""
    offsets = range(-(factor // 2), factor)
    return TransposedConv(filters, filters, offsets, offsets, stride=factor)


class EmbeddingNetwork(nn.Module):
    """Auxiliary image to a context of `filters` channels at the resolution of the image that it conditions.

    Args:
        channels, levels: of the auxiliary image: integers (B, channels, h, w) in [0, levels).
        filters, blocks, scales: as in `CausalNetwork`, but with `blocks` blocks at every scale of the up pass.
        upsample: how many times larger the conditioned image is; h and w are its height and width over it, rounded up.
        dropout: share of the hidden units that training drops in every residual block.
    """

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
        self.first = CentredConv(channels + 1, filters)

        def make_blocks(side: int = 0) -> nn.ModuleList:
            return nn.ModuleList(GatedResidual(filters, CentredConv, side=side, dropout=dropout) for _ in range(blocks))

        self.down = cast("list[list[GatedResidual]]", nn.ModuleList(make_blocks() for _ in range(scales)))
        self.shrink = nn.ModuleList(CentredConv(filters, filters, stride=HALF) for _ in range(scales - 1))
        self.grow = nn.ModuleList(_grow(filters, HALF) for _ in range(scales - 1))
        self.up = cast("list[list[GatedResidual]]", nn.ModuleList(make_blocks(2 * filters) for _ in range(scales)))
        self.enlarge = _grow(filters, upsample) if upsample > 1 else None
        self.enlarged = make_blocks() if upsample > 1 else nn.ModuleList()

    def forward(self, given: Tensor, size: tuple[int, int]) -> Tensor:
        """Integers (B, channels, h, w) to `(B, filters, *size)`, `size` being that of the image it conditions."""
        return self.enlarge_to(self.trunk(self.scale(given)), size)

    def scale(self, given: Tensor) -> Tensor:
        """Integers (B, channels, h, w) to the numbers that the first layer reads, (B, channels + 1, h, w)."""
        return add_ones(given, self.levels, self.first.bias.dtype)

    def trunk(self, x: Tensor) -> Tensor:
        """Evaluate all that has the resolution of the auxiliary image, or a lower one: (B, filters, h, w)."""
        x = self.first(x)
        states: list[list[Tensor]] = []
        for scale, blocks in enumerate(self.down):
            if scale > 0:
                x = self.shrink[scale - 1](x)
            states.append([x])
            for block in blocks:
                x = block(x, concat_elu(x))
                states[scale].append(x)
        states[-1].pop()
        for scale, blocks in reversed(list(enumerate(self.up))):
            for block in blocks:
                x = block(x, concat_elu(x), [concat_elu(states[scale].pop())])
            if scale > 0:
                x = self.grow[scale - 1](x, states[scale - 1][0].shape[-2:])
        return x

    def enlarge_to(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Evaluate what follows the trunk: `(B, filters, *size)`."""
        if self.enlarge is not None:
            x = self.enlarge(x, size)
        for block in self.enlarged:
            x = block(x, concat_elu(x))
        return x
