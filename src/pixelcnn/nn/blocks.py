"""The gated residual block, and the choice to keep its activations for the backward pass or to compute them again."""

__all__ = ["GatedResidual", "Recomputable", "recompute_activations"]

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pixelcnn.nn.layers import Conv, Dropout, concat_elu, gate


class Recomputable(nn.Module):
    """The base of all modules that apply `concat_elu` between blocks, so that training can save the memory for it.

    Usually, a training step keeps everything that its backward pass reads. While activations are *recomputed*, which is
    known as gradient checkpointing, a step keeps only the inputs of each block, before `concat_elu`. When the backward
    pass arrives at a block, it computes the block again, with the same dropout. See `recompute_activations`.
    """

    recompute = False

    @property
    def recomputing(self) -> bool:
        """Whether activations are recomputed. Without gradients there is nothing to save."""
        return self.recompute and torch.is_grad_enabled()

    def activate(self, x: Tensor) -> Tensor:
        """Compute `concat_elu`, or leave x as it is if each block that reads it has to compute that again."""
        return x if self.recomputing else concat_elu(x)


def recompute_activations(network: nn.Module, *, recompute: bool = True) -> None:
    """Set whether a network computes the activations of its blocks again in the backward pass, to save memory.

    The gradients are the same, up to the order of sums. This is an attribute of the modules, and not saved with them.

    Example:
        >>> import torch
        >>> from pixelcnn.nn.causal import CausalNetwork
        >>> from pixelcnn.nn.blocks import recompute_activations
        >>> network = CausalNetwork(channels=1, levels=4, outputs=4, filters=8, blocks=1, scales=1)
        >>> recompute_activations(network)
        >>> network(torch.randint(0, 4, (2, 1, 6, 6))).sum().backward()
    """
    for module in network.modules():
        if isinstance(module, Recomputable):
            module.recompute = recompute


class GatedResidual(Recomputable):
    """A block that computes `x + a * sigmoid(b)`, where a and b come from convolutions of x and of the side inputs.

    The caller applies `concat_elu` to every input, because several blocks read the same one (but see `Recomputable`).

    Args:
        filters: channels F of the stream.
        conv: a function that makes a convolution with the offsets of the stream.
        side: total channels of the side inputs, after `concat_elu`; 0 for none.
        dropout: fraction of the hidden units that training drops.
    """

    def __init__(self, filters: int, conv: Callable[..., Conv], *, side: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.input = conv(2 * filters, filters)
        self.side = Conv(side, filters) if side else None
        self.dropout = Dropout(dropout)
        self.output = conv(2 * filters, 2 * filters, init_scale=0.1)

    def forward(self, x: Tensor, active: Tensor, sides: Sequence[Tensor] = ()) -> Tensor:
        """Map x (B, F, H, W), `active = concat_elu(x)` and side inputs (B, ..., H, W) to (B, F, H, W)."""
        if self.recomputing:
            return checkpoint(self._activate_all, x, *sides, use_reentrant=False)
        return self._compute(x, active, sides)

    def _activate_all(self, x: Tensor, *sides: Tensor) -> Tensor:
        return self._compute(x, concat_elu(x), [concat_elu(side) for side in sides])

    def _compute(self, x: Tensor, active: Tensor, sides: Sequence[Tensor]) -> Tensor:
        hidden = self.input(active)
        if self.side is not None:
            hidden = hidden + self.side(*sides)
        return gate(x, self.output(self.dropout(concat_elu(hidden))))
