"""Memory estimates for training, from a dry run of the first step that computes nothing.

The dry run (`pixelcnn.models.memory`) adds up the bytes of all live tensors. The peak is at the end of the forward
pass, when everything the backward pass will read is in memory. On top of that, each weight takes up space for itself,
its average, its gradient and Adam's two moments:

    bytes = 5 * weights + max(margin * max(forward pass of a step, data-dependent initialization), writing the state)

The margin covers the working memory of convolutions and what the allocator cannot reuse. Without it, real runs on a
CPU grew by 1.2 to 1.5 times the estimate when the step dominates (a Grayscale model and Pyramids of 24 to 100 filters,
batches of 16 and 32, float32 and bf16) and by 1.7 times when the initialization does. When writing the state dominates
(PixelCNN++ with 160 filters, a batch of 4), they grew by 0.7 times the estimate, so that term has no margin.
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

LASTING = 5  # copies of the weights: themselves, their average, their gradient, two moments
WRITING = 12  # copies of the weights: the saved state has four, each copied, serialized and joined
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
    """Estimate the peak memory of training factor k, in bytes, without allocating it or drawing random numbers.

    Args:
        model: the model.
        k: the factor; 0 is the factor of the image itself.
        size: (H, W) of the images x_0.
        images: the number of images computed at once.
        initial: the number of images used by the data-dependent initialization; 0 if there is none.
        bf16: whether the networks compute in bfloat16.
        margin: the factor applied to the activations, to make room for the working memory of convolutions.
    """
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.factors[k].parameters())
    # Autograd keeps activations and `initialize` does not, so a step on as many images always needs more.
    factor, view, consistent = model.factors[k], model.sizes(size)[k], model.consistent
    covered = initial <= images
    initialization = 0 if covered else rehearse(factor, initial, view, learning=False, consistent=consistent)
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
    """Raise a MemoryError that suggests a remedy if one of the factors does not fit in the free memory.

    Args:
        model, size, initial: see `training_memory`.
        factors: the factors to train.
        training: how to train them.
        processes: the number of processes that share each part of a batch.
        device: the device to train on.
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
            else f"no split of the batch fits, given {initial} images to start; use a smaller --random-crop or model"
        )
        raise MemoryError(
            f"training factor {k} on {batch_size // (accumulate * processes)} images of {W}x{H} at once needs about "
            f"{now / 1e9:.2g} GB, and {free / 1e9:.2g} GB are free: {remedy}"
        )
