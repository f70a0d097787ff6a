"""The memory that training needs, from a rehearsal of its first step that computes nothing.

The rehearsal (`pixelcnn.models.memory`) adds up the bytes of all tensors that are alive: most at the end of the
forward pass, when all that the backward pass reads is there. Beside them lie, for every weight, itself, its average,
its gradient and Adam's two moments:

    bytes = 5 * weights + max(margin * max(forward pass of a step, data-dependent initialisation), writing the state)

Real runs on a CPU grew by 1.2 to 1.5 times the sum without a margin where the step is the most (a Grayscale model and
Pyramids of 24 to 100 filters, batches of 16 and 32, float32 and bf16), by 1.7 times where the initialisation is, and by
0.7 times where the state is (PixelCNN++ with 160 filters, a batch of 4), which has none. The rest is what convolutions
work in, and what the allocator cannot use again.
"""

__all__ = ["check_training_memory", "generous_memory", "training_memory"]

import math
from collections.abc import Iterable

import torch

from pixelcnn.common.memory import free_memory
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.memory import CPU_MARGIN, GPU_MARGIN, rehearse
from pixelcnn.nn.layers import Conv, TransposedConv
from pixelcnn.training.options import Training

LASTING = 5  # times the weights: themselves, their average, their gradient, two moments
WRITING = 12  # times the weights: the state that is saved has four of them, each copied, turned to bytes and joined
NO_MATTER = 4 * 10**8  # bytes up to which the generous estimate is enough, if they are free


def training_memory(
    model: ImageModel,
    k: int,
    size: tuple[int, int],
    images: int,
    initial: int,
    *,
    bf16: bool,
    margin: float = CPU_MARGIN,
) -> int:
    """Bytes of all that training factor k keeps at once; nothing is allocated, and no random number is drawn.

    Args:
        model: whose factor it is.
        k: the factor, 0 being that of the image itself.
        size: (H, W) of the images x_0.
        images: that are computed at once.
        initial: images that the data-dependent initialisation looks at; 0 for none.
        bf16: whether the networks compute in bfloat16.
        margin: what activations are multiplied by, for what convolutions work in.
    """
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.factors[k].parameters())
    # As autograd keeps what it will read and `initialize` does not, a larger step has the initialisation's memory too.
    factor, view, consistent = model.factors[k], model.sizes(size)[k], model.consistent
    needless = initial <= images
    initialization = 0 if needless else rehearse(factor, initial, view, learning=False, consistent=consistent)
    step = rehearse(factor, images, view, learning=True, consistent=consistent, bf16=bf16)
    return LASTING * weights + max(int(margin * max(step, initialization)), WRITING * weights)


def generous_memory(model: ImageModel, k: int, size: tuple[int, int], images: int, *, margin: float) -> int:
    """More than `training_memory`, at once: as if every layer left five results of full size behind.

    The first rehearsal takes a second, since torch imports a compiler for it: longer than a short run needs.
    """
    factor = model.factors[k]
    layers = [module for module in factor.modules() if isinstance(module, Conv | TransposedConv)]
    values = 5 * sum(layer.bias.numel() for layer in layers) + 40 * factor.likelihood.num_params
    weights = sum(parameter.numel() * parameter.element_size() for parameter in factor.parameters())
    step = values * layers[0].bias.element_size() * images * math.prod(model.sizes(size)[k]) + 3 * weights
    return LASTING * weights + max(int(margin * step), WRITING * weights)


def check_training_memory(
    model: ImageModel,
    factors: Iterable[int],
    size: tuple[int, int],
    training: Training,
    *,
    processes: int,
    initial: int,
    device: torch.device,
) -> None:
    """Raise a MemoryError that names the remedy where one of the factors cannot be trained in what is free.

    Args:
        model, size, initial: see `training_memory`.
        factors: that are to be trained.
        training: how.
        processes: that share each part of a batch.
        device: that it is computed on.
    """
    free = free_memory(device)
    margin = CPU_MARGIN if device.type == "cpu" else GPU_MARGIN
    batch_size, accumulate = training.batch_size, training.accumulate

    def needed(k: int, parts: int) -> int:
        images = batch_size // (parts * processes)
        return training_memory(model, k, size, images, initial, bf16=training.bf16, margin=margin)

    for k in factors:
        most = max(batch_size // (accumulate * processes), initial)
        if generous_memory(model, k, size, most, margin=margin) <= min(free, NO_MATTER):
            continue
        if (now := needed(k, accumulate)) <= free:
            continue
        more = [n for n in range(accumulate + 1, batch_size + 1) if batch_size % (n * processes) == 0]
        enough = next((n for n in more if needed(k, n) <= free), None)
        H, W = size
        remedy = (
            f"use --accumulate {enough}, a smaller --batch-size or --random-crop"
            if enough
            else f"no parts fit, with the {initial} images that it begins with; use a smaller --random-crop or model"
        )
        raise MemoryError(
            f"to train factor {k} on {batch_size // (accumulate * processes)} images of {W}x{H} at once needs about "
            f"{now / 1e9:.2g} GB, and {free / 1e9:.2g} GB are free: {remedy}"
        )
