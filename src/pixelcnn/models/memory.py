"""The memory that a factor needs, from a rehearsal that computes nothing.

The rehearsal runs on the device "meta", whose tensors have a shape, a type and strides, but no values. A meter adds up
the bytes of those that are alive.
"""

__all__ = ["CPU_MARGIN", "GPU_MARGIN", "Allowance", "check_whole_memory", "meta_twin", "rehearse"]

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import nn

from pixelcnn.common.memory import free_memory, peak_memory
from pixelcnn.models.factor import Factor

CPU_MARGIN = 1.5
GPU_MARGIN = 1.1  # not measured: torch's own allocator there leaves few gaps
SCORING_MARGIN = 1.7  # real tiles on a CPU grew by 1.3 to 1.6 times the sum
# Tiles of more bytes than this are slower on a CPU, whose allocator asks the system for each large tensor anew:
# 11 seconds a million pixels at 0.4 GB, 15 at 1.5 and 25 at 6 (`photos-pyramid`, one core).
LITTLE = 4 * 10**8


class Allowance(NamedTuple):
    """Bytes that scoring takes readily, those that it takes if it must, and what predictions are multiplied by."""

    little: float
    most: float
    margin: float

    @classmethod
    def of(cls, device: torch.device) -> "Allowance":
        free = free_memory(device)
        if device.type == "cpu":
            return cls(min(LITTLE, free), free, SCORING_MARGIN)
        return cls(free, free, GPU_MARGIN)


def meta_twin(factor: Factor) -> Factor:
    """A copy of a factor without values, to rehearse with; the values are not copied on the way."""
    tensors = [*factor.named_parameters(), *factor.named_buffers()]
    empty = {id(tensor): tensor.detach().to("meta").requires_grad_(tensor.requires_grad) for _, tensor in tensors}
    memo = {key: nn.Parameter(twin, twin.requires_grad) for key, twin in empty.items()}
    return deepcopy(factor, memo)


def rehearse(
    factor: Factor, images: int, size: tuple[int, int], *, learning: bool, consistent: bool, bf16: bool = False
) -> int:
    """The most bytes that tensors take in a forward pass, or in the data-dependent initialization.

    Args:
        factor: is not computed with.
        images, size: of the view x_k that it models.
        learning: whether it is a forward pass, after which all that the backward pass reads is alive.
        consistent: see `Factor`.
        bf16: whether the networks compute in bfloat16.
    """
    twin = meta_twin(factor)
    if bf16:  # autocast does not know of this device; what it leaves in float32 are the weights, counted elsewhere
        twin = twin.to(torch.bfloat16)
    likelihood, embedding = factor.likelihood, factor.embedding
    with torch.device("meta"):
        x = torch.empty(images, likelihood.channels, *size, dtype=torch.uint8)
        labels = torch.empty(images, dtype=torch.int64) if factor.classes is not None else None
        given = None
        if embedding is not None:
            sides = (-(-side // embedding.upsample) for side in size)
            given = torch.empty(images, embedding.channels, *sides, dtype=torch.uint8)
        if learning:
            return peak_memory(lambda: twin(x, given, labels, consistent=consistent))
        return peak_memory(lambda: twin.initialize(x, given, labels))


def check_whole_memory(
    factors: Sequence[Factor], number: int, sizes: Sequence[tuple[int, int]], *, consistent: bool
) -> None:
    """Raise a MemoryError, before anything is allocated, where `number` images cannot be scored in one piece.

    Args:
        factors, sizes: of the views, the image first.
        number: of images.
        consistent: see `Factor`.
    """
    parameters = list(factors[0].parameters())
    _, most, margin = Allowance.of(parameters[0].device)
    for k, (factor, size) in enumerate(zip(factors, sizes, strict=True)):
        needed = margin * rehearse(factor, number, size, learning=True, consistent=consistent)
        if needed > most:
            H, W = sizes[0]
            raise MemoryError(
                f"to score factor {k} of {number} images of {W}x{H} in one piece needs about {needed / 1e9:.2g} GB, "
                f"and {most / 1e9:.2g} GB are free: pixelcnn.surprisal scores large images in tiles"
            )
