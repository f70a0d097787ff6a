"""The memory that training needs, from a rehearsal of its first step that computes nothing.

The rehearsal runs on the device "meta", whose tensors have a shape, a type and strides, but no values. A meter adds up
the bytes of those that are alive: most at the end of the forward pass, when all that the backward pass reads is there.
Beside them lie, for every weight, itself, its average, its gradient and Adam's two moments:

    bytes = 5 * weights + max(margin * max(forward pass of a step, data-dependent initialisation), writing the state)

Real runs on a CPU grew by 1.2 to 1.5 times the sum without a margin where the step is the most (a Grayscale model and
Pyramids of 24 to 100 filters, batches of 16 and 32, float32 and bf16), by 1.7 times where the initialisation is, and by
0.7 times where the state is (PixelCNN++ with 160 filters, a batch of 4), which has none. The rest is what convolutions
work in, and what the allocator cannot use again.

Scoring is rehearsed in the same way, tile by tile (`pixelcnn.tiles`). Sampling counts its own buffers
(`pixelcnn.cached`); here it asks whether they fit.
"""

__all__ = [
    "Allowance",
    "check_sampling_memory",
    "check_training_memory",
    "check_whole_memory",
    "free_memory",
    "meta_twin",
    "peak_memory",
    "training_memory",
]

import os
import weakref
from collections.abc import Callable, Iterable
from copy import copy, deepcopy
from typing import Any, NamedTuple

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pixelcnn.models import Factor, ImageModel

LASTING = 5  # times the weights: themselves, their average, their gradient, two moments
WRITING = 12  # times the weights: the state that is saved has four of them, each copied, turned to bytes and joined
CPU_MARGIN = 1.5
GPU_MARGIN = 1.1  # not measured: torch's own allocator there leaves few gaps
SCORING_MARGIN = 1.7  # real tiles on a CPU grew by 1.3 to 1.6 times the sum
# Tiles of more bytes than this are slower on a CPU, whose allocator asks the system for each large tensor anew:
# 11 seconds a million pixels at 0.4 GB, 15 at 1.5 and 25 at 6 (`photos-pyramid`, one core).
LITTLE = 4 * 10**8


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
    initialization = _rehearse(model, k, size, initial, learning=False, bf16=False) if initial > images else 0
    step = _rehearse(model, k, size, images, learning=True, bf16=bf16)
    return LASTING * weights + max(int(margin * max(step, initialization)), WRITING * weights)


def check_training_memory(
    model: ImageModel,
    factors: Iterable[int],
    size: tuple[int, int],
    *,
    batch_size: int,
    accumulate: int,
    processes: int,
    initial: int,
    bf16: bool,
    device: torch.device,
) -> None:
    """Raise a MemoryError that names the remedy where one of the factors cannot be trained in what is free.

    Args:
        model, size, initial, bf16: see `training_memory`.
        factors: that are to be trained.
        batch_size, accumulate, processes: of a step, the parts it is computed in, and the processes that share a part.
        device: that it is computed on.
    """
    free = free_memory(device)
    margin = CPU_MARGIN if device.type == "cpu" else GPU_MARGIN

    def needed(k: int, parts: int) -> int:
        images = batch_size // (parts * processes)
        return training_memory(model, k, size, images, initial, bf16=bf16, margin=margin)

    for k in factors:
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


def check_sampling_memory(needed: int, device: torch.device) -> None:
    """Raise a MemoryError, before anything is allocated, where sampling needs more bytes than are free."""
    free = free_memory(device)
    if needed > free:
        raise MemoryError(
            f"sampling needs at least {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: draw fewer images at "
            "once, or smaller ones"
        )


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


def check_whole_memory(model: ImageModel, number: int, size: tuple[int, int]) -> None:
    """Raise a MemoryError, before anything is allocated, where `number` images (H, W) cannot be scored in one piece."""
    parameter = next(model.parameters())
    _, most, margin = Allowance.of(parameter.device)
    learning = torch.is_grad_enabled() and any(each.requires_grad for each in model.parameters())
    for k in range(len(model.factors)):
        with torch.set_grad_enabled(learning):
            needed = margin * _rehearse(model, k, size, number, learning=True, bf16=False)
        if needed > most:
            H, W = size
            raise MemoryError(
                f"to score factor {k} of {number} images of {W}x{H} in one piece needs about {needed / 1e9:.2g} GB, "
                f"and {most / 1e9:.2g} GB are free: pixelcnn.surprise scores large images in tiles"
            )


def free_memory(device: torch.device) -> int:
    """Bytes that a process can still use, where those of one machine share its memory evenly."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _rehearse(model: ImageModel, k: int, size: tuple[int, int], images: int, *, learning: bool, bf16: bool) -> int:
    """The most bytes that tensors take in the forward pass of a step, or in the initialisation."""
    arguments: dict[str, Any] = model.config | {"auxiliaries": model.auxiliaries}
    with torch.device("meta"):
        twin = ImageModel(**arguments)
        # Autocast does not know of this device. What it leaves in float32 are the weights, which are counted elsewhere.
        factor = twin.to(torch.bfloat16 if bf16 else next(model.parameters()).dtype).factors[k]
        if factor.constraint is not None:
            factor.constraint = copy(factor.constraint)
            # There are no pixels whose values could be checked; and the class is frozen.
            object.__setattr__(factor.constraint, "check", lambda *_: None)
        views = [
            torch.empty(images, channels, *view, dtype=torch.uint8)
            for (channels, _), view in zip(model.formats, model.sizes(size), strict=True)
        ]
        labels = torch.empty(images, dtype=torch.int64) if model.classes else None
        inputs = views[k], views[k + 1] if k + 1 < len(views) else None, labels
        return peak_memory(lambda: factor(*inputs) if learning else factor.initialize(*inputs))


def meta_twin(factor: Factor) -> Factor:
    """A copy of a factor without values, to rehearse with."""
    return deepcopy(factor).to("meta").eval()


def peak_memory(function: Callable[[], object]) -> int:
    """The most bytes that the tensors that a function makes take at once."""
    with _Meter() as meter:
        kept = function()
    del kept
    return meter.peak


class _Meter(TorchDispatchMode):
    """The bytes of the tensors that were made under it and are still there, and the most that there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.bytes = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._notice(leaf.untyped_storage())
        return result

    def _notice(self, storage: torch.UntypedStorage) -> None:
        """Count a storage once, however many views it has, and as long as one of them is there."""
        if id(storage) not in self.alive:
            self.alive[id(storage)] = storage.nbytes()
            self.bytes += storage.nbytes()
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._forget, id(storage))

    def _forget(self, key: int) -> None:
        self.bytes -= self.alive.pop(key)
