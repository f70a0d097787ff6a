"""Memory estimates for training, from a dry run of the first step that computes nothing.

The dry run (`pixelcnn.models.memory`) adds up the bytes of all live tensors. The peak is at the end of the forward
pass, when everything the backward pass will read is in memory; or, if activations are recomputed, where the backward
pass computes the largest block again. On top of that, each weight takes up space for itself, its average, its gradient
and Adam's two moments:

    bytes = 5 * weights + max(margin * max(the peak of a step, data-dependent initialization), writing the state)

The margin covers the working memory of convolutions and what the allocator cannot reuse. Without it, real runs on a
CPU grew by 1.2 to 1.5 times the estimate when the step dominates (a Grayscale model and Pyramids of 24 to 100 filters,
batches of 16 and 32, float32 and bf16) and by 1.7 times when the initialization does. When writing the state dominates
(PixelCNN++ with 160 filters, a batch of 4), they grew by 0.7 times the estimate, so that term has no margin.
"""

__all__ = [
    "CPU",
    "GPU",
    "Estimate",
    "Margin",
    "check_training_memory",
    "generous_memory",
    "largest_batch",
    "print_estimate",
    "training_memory",
]

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

import torch

from pixelcnn.common.memory import free_memory
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.memory import CPU_MARGIN, GPU_MARGIN, meta_twin, rehearse
from pixelcnn.nn.layers import Conv, TransposedConv
from pixelcnn.training.options import Training

LASTING = 5  # copies of the weights: themselves, their average, their gradient, two moments
WRITING = 12  # copies of the weights: the saved state has four, each copied, serialized and joined
NO_MATTER = 4 * 10**8  # bytes up to which the generous estimate is enough, if they are free


class Margin(NamedTuple):
    """Factors applied to the activations, if they are kept and if they are computed again."""

    kept: float
    again: float


# Computing again frees and allocates tensors in another order than they were made. On a CPU, what lies between those
# below 32 MB stays with the process: real steps grew by 1.9 to 2.7 times the estimate, and by 1.1 to 1.5 times if
# nothing stayed. Larger tensors go back to the system.
CPU = Margin(CPU_MARGIN, 2.5)
GPU = Margin(GPU_MARGIN, GPU_MARGIN)


class Estimate(NamedTuple):
    """The memory that training a factor needs, in bytes.

    Attributes:
        needed: the estimate.
        generous: whether it is only an upper bound, from `generous_memory`.
    """

    needed: int
    generous: bool

    def describe(self, free: int) -> str:
        """Compare the estimate with the bytes that are free.

        Example:
            >>> from pixelcnn.training.memory import Estimate
            >>> Estimate(3_140_000_000, generous=False).describe(22_000_000_000)
            'about 3.1 GB of 22.0 GB that are free'
        """
        most = math.ceil(self.needed / 1e8) / 10
        needed = f"at most {most:.1f}" if self.generous else f"about {self.needed / 1e9:.1f}"
        return f"{needed} GB of {free / 1e9:.1f} GB that are free"


def print_estimate(k: int, estimate: Estimate, device: torch.device) -> None:
    """Print the estimate of factor k on standard error, with what is free on the device now."""
    print(f"factor {k}: {estimate.describe(free_memory(device))}", file=sys.stderr)


def training_memory(
    model: ImageModel,
    k: int,
    size: tuple[int, int],
    images: int,
    initial: int,
    training: Training,
    *,
    margin: Margin = CPU,
) -> int:
    """Estimate the peak memory of training factor k, in bytes, without allocating it or drawing random numbers.

    Args:
        model: the model.
        k: the factor; 0 is the factor of the image itself.
        size: (H, W) of the images x_0.
        images: the number of images computed at once.
        initial: the number of images used by the data-dependent initialization; 0 if there is none.
        training: how to train; of this, only `bf16` and `recompute` matter.
        margin: factors applied to the activations, to make room for the working memory of convolutions.

    Example:
        >>> import pixelcnn
        >>> from pixelcnn.training.memory import training_memory
        >>> model = pixelcnn.PixelCNN(filters=16, blocks=3, scales=1)
        >>> batches_of_16 = training_memory(model, 0, (32, 32), 16, 0, pixelcnn.Training())
        >>> training_memory(model, 0, (32, 32), 8, 0, pixelcnn.Training()) < 0.6 * batches_of_16
        True
    """
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.factors[k].parameters())
    # A model that was loaded is not in the mode of training, and has no dropout.
    factor, view, consistent = meta_twin(model.factors[k]).train(), model.sizes(size)[k], model.consistent
    bf16, recompute = training.bf16, training.recompute
    # Autograd keeps activations and `initialize` does not, so a step on as many images needs more.
    covered = initial == 0 or (initial <= images and not recompute)
    initialization = 0 if covered else rehearse(factor, initial, view, learning=False, consistent=consistent)
    step = rehearse(factor, images, view, learning=True, consistent=consistent, bf16=bf16, recompute=recompute)
    activations = max((margin.again if recompute else margin.kept) * step, margin.kept * initialization)
    return LASTING * weights + max(int(activations), WRITING * weights)


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


def largest_batch(
    model: ImageModel, k: int, size: tuple[int, int], initial: int, training: Training, memory: int, *, margin: Margin
) -> int:
    """Find the largest number of images that can be computed at once in this many bytes; 0 if there is none.

    Args:
        model, k, size, initial, training, margin: see `training_memory`.
        memory: the bytes that are free, such as 80e9 on a GPU.

    Example:
        >>> import pixelcnn
        >>> from pixelcnn.training.memory import GPU, largest_batch
        >>> model = pixelcnn.PixelCNN(filters=8, blocks=1, scales=1)
        >>> largest_batch(model, 0, (8, 8), 1, pixelcnn.Training(), 1000, margin=GPU)
        0
    """

    def fits(images: int) -> bool:
        return training_memory(model, k, size, images, initial, training, margin=margin) <= memory

    if not fits(1):
        return 0
    low = 1
    while fits(2 * low):
        low *= 2
    high = 2 * low  # which does not fit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def check_training_memory(
    model: ImageModel,
    factors: Iterable[int],
    size: tuple[int, int],
    training: Training,
    *,
    processes: int,
    initial: int,
    device: torch.device,
) -> dict[int, Estimate]:
    """Estimate the memory of each factor, and raise a MemoryError with a remedy if one does not fit in what is free.

    Args:
        model, size, initial: see `training_memory`.
        factors: the factors to train.
        training: how to train them.
        processes: the number of processes that share each part of a batch.
        device: the device to train on.
    """
    free = free_memory(device)
    margin = CPU if device.type == "cpu" else GPU
    images = training.batch_size // (training.accumulate * processes)
    estimates = {}
    for k in factors:
        most = generous_memory(
            model, k, size, max(images, initial), margin=margin.again if training.recompute else margin.kept
        )
        if most <= min(free, NO_MATTER):
            estimates[k] = Estimate(most, generous=True)
            continue

        def needed(way: Training, k: int = k) -> int:
            at_once = way.batch_size // (way.accumulate * processes)
            return training_memory(model, k, size, at_once, initial, way, margin=margin)

        estimates[k] = Estimate(needed(training), generous=False)
        if estimates[k].needed > free:
            H, W = size
            raise MemoryError(
                f"training factor {k} on {images} images of {W}x{H} at once needs about "
                f"{estimates[k].needed / 1e9:.2g} GB, and {free / 1e9:.2g} GB are free: "
                + (
                    _remedy(training, processes, lambda way, needed=needed: needed(way) <= free)
                    or f"no split of the batch fits, given {initial} images to start; use a smaller --random-crop or "
                    "model"
                )
            )
    return estimates


def _remedy(training: Training, processes: int, fits: Callable[[Training], bool]) -> str:
    """Say which options make a step fit that does not; an empty text if none do."""
    parts = range(training.accumulate + 1, training.batch_size + 1)
    more = [n for n in parts if training.batch_size % (n * processes) == 0]
    again = replace(training, recompute=True)

    def split(way: Training) -> int | None:
        return next((n for n in more if fits(replace(way, accumulate=n))), None)

    ways = [f"--accumulate {n}"] if (n := split(training)) else []
    if not training.recompute and fits(again):
        ways.append("--recompute")
    elif not training.recompute and not ways and (n := split(again)):
        ways.append(f"--recompute --accumulate {n}")
    return f"use {' or '.join(ways)}, or a smaller --batch-size or --random-crop" if ways else ""
