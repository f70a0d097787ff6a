"""Estimates of the memory that a factor needs, from a rehearsal that computes nothing.

The rehearsal runs on the device "meta", whose tensors have a shape, a type and strides, but no values. A meter adds up
the bytes of the tensors that are alive.
"""

__all__ = [
    "CPU_MARGIN",
    "GPU_MARGIN",
    "IN_TILES",
    "Allowance",
    "check_whole_memory",
    "meta_inputs",
    "meta_twin",
    "rehearse",
]

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pixelcnn.auxiliary.chain import Link
from pixelcnn.common.devices import device_of
from pixelcnn.common.memory import free_memory, peak_memory
from pixelcnn.models.factor import Factor
from pixelcnn.nn.blocks import recompute_activations

CPU_MARGIN = 1.5
GPU_MARGIN = 1.1  # not measured: torch's allocator on a GPU leaves few gaps
IN_TILES = "score fewer images at once; pixelcnn.surprisal scores large images in tiles"
SCORING_MARGIN = 1.7  # real tiles on a CPU grew by 1.3 to 1.6 times the sum
# Tiles of more bytes than this are slower on a CPU, whose allocator asks the system for every large tensor: it took 11
# seconds per million pixels at 0.4 GB, 15 at 1.5 GB and 25 at 6 GB (`photos-pyramid`, one core).
LITTLE = 4 * 10**8


class Allowance(NamedTuple):
    """The memory for scoring: bytes to use by choice, bytes to use at most, and a safety factor for estimates."""

    little: float
    most: float
    margin: float

    @classmethod
    def of(cls, device: torch.device) -> "Allowance":
        """Measure the free memory of a device."""
        free = free_memory(device)
        if device.type == "cpu":
            return cls(min(LITTLE, free), free, SCORING_MARGIN)
        return cls(free, free, GPU_MARGIN)

    def shared(self, number: int) -> "Allowance":
        """Return the allowance of one of several computations at the same time."""
        return self._replace(little=self.little / number, most=self.most / number)


def meta_twin(factor: Factor) -> Factor:
    """Make a copy of a factor on the device "meta" to rehearse with, without copying its values."""
    tensors = [*factor.named_parameters(), *factor.named_buffers()]
    empty = {id(tensor): tensor.detach().to("meta").requires_grad_(tensor.requires_grad) for _, tensor in tensors}
    memo = {key: nn.Parameter(twin, twin.requires_grad) for key, twin in empty.items()}
    return deepcopy(factor, memo)


def meta_inputs(factor: Factor, images: int, size: tuple[int, int]) -> tuple[Link, Tensor | None]:
    """Make the inputs of a factor on the device "meta": views (H, W) with their given views, and labels."""
    likelihood, embedding = factor.likelihood, factor.embedding
    with torch.device("meta"):
        x = torch.empty(images, likelihood.channels, *size, dtype=torch.uint8)
        labels = torch.empty(images, dtype=torch.int64) if factor.classes is not None else None
        given = None
        if embedding is not None:
            sides = (-(-side // embedding.upsample) for side in size)
            given = torch.empty(images, embedding.channels, *sides, dtype=torch.uint8)
    return Link(x, given), labels


def rehearse(
    factor: Factor,
    images: int,
    size: tuple[int, int],
    *,
    learning: bool,
    consistent: bool,
    bf16: bool = False,
    recompute: bool = False,
) -> int:
    """Estimate the peak bytes of all tensors in a forward pass, or in the data-dependent initialization.

    While activations are recomputed, this includes the backward pass, in which the peak may be. Otherwise, it is at the
    end of the forward pass.

    Args:
        factor: the factor to rehearse. Its values are not used.
        images, size: the number of images, and (H, W) of the view that the factor models.
        learning: True for a forward pass that keeps everything for the backward pass, False for the initialization.
        consistent: see `Factor`.
        bf16: whether the networks compute in bfloat16.
        recompute: see `pixelcnn.nn.blocks`.
    """
    twin = meta_twin(factor)
    recompute_activations(twin, recompute=recompute)
    if bf16:  # autocast does not work on "meta". It would leave the weights in float32, but those are counted elsewhere
        twin = twin.to(torch.bfloat16)
    link, labels = meta_inputs(factor, images, size)
    with torch.device("meta"):
        if learning:
            if recompute:
                return peak_memory(lambda: _learn(twin, *link, labels, consistent=consistent))
            return peak_memory(lambda: twin(*link, labels, consistent=consistent))
        return peak_memory(lambda: twin.initialize(*link, labels))


def _learn(twin: Factor, *inputs: Tensor | None, consistent: bool) -> None:
    """Rehearse a step with recomputed activations. Gradients of weights go at once, as they are counted elsewhere."""
    for parameter in twin.parameters():
        parameter.register_post_accumulate_grad_hook(lambda parameter: setattr(parameter, "grad", None))
    twin(*inputs, consistent=consistent).sum().backward()


def check_whole_memory(
    factors: Sequence[Factor], number: int, sizes: Sequence[tuple[int, int]], *, consistent: bool
) -> None:
    """Raise a MemoryError, before anything is allocated, if images are too large to score in one piece.

    Args:
        factors, sizes: of the views, the image first.
        number: the number of images.
        consistent: see `Factor`.
    """
    _, most, margin = Allowance.of(device_of(factors[0]))
    for k, (factor, size) in enumerate(zip(factors, sizes, strict=True)):
        needed = margin * rehearse(factor, number, size, learning=True, consistent=consistent)
        if needed > most:
            H, W = sizes[0]
            raise MemoryError(
                f"scoring factor {k} of {number} images of {W}x{H} in one piece needs about {needed / 1e9:.2g} GB, "
                f"and {most / 1e9:.2g} GB are free: {IN_TILES}"
            )
