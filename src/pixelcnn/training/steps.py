"""The parts of a training step: batches, the averaging of weights, and communication between processes."""

__all__ = ["collate", "mean_over_processes", "open_batches", "seed_dropout", "warming_average"]

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import BatchSampler, DataLoader

from pixelcnn.data.order import Shuffled, ShuffledStream
from pixelcnn.training.interrupt import ignore_signals
from pixelcnn.training.options import Training
from pixelcnn.training.streaming import StreamedBatches


def open_batches(
    shuffled: Shuffled | ShuffledStream,
    training: Training,
    step: int,
    accelerator: Accelerator,
    saved: Mapping[str, Tensor],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate without end over this process's share of the batches, images and labels.

    Args:
        shuffled: the images in their order.
        training: how to train.
        step: the step to start at.
        accelerator: the processes and their devices.
        saved: the positions in a stream at that step.
    """
    if step and bool(saved) != isinstance(shuffled, ShuffledStream):
        began = "with streamed images" if saved else "with images in memory"
        raise ValueError(f"the run began {began}: resume it with the same")
    if isinstance(shuffled, ShuffledStream):
        return StreamedBatches(shuffled, training, saved, accelerator)
    positions = BatchSampler(
        range(step * training.batch_size, 2**62), training.batch_size // training.accumulate, drop_last=True
    )
    # The loader gets its own generator, so that it does not disturb the one for dropout.
    return iter(
        accelerator.prepare(
            DataLoader(
                shuffled,
                batch_sampler=positions,
                num_workers=training.workers,
                collate_fn=collate,
                generator=torch.Generator(),
                worker_init_fn=ignore_signals,
            )
        )
    )


def collate(items: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    return torch.stack([x for x, _ in items]), torch.tensor([label for _, label in items])


def warming_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Make a Polyak average that forgets the first steps faster, with a decay of at most (1 + n) / (10 + n) after n."""

    def update(averaged: list[Tensor], current: list[Tensor], steps: Tensor) -> None:
        n = int(steps)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, steps)

    return update


def mean_over_processes(value: float, accelerator: Accelerator) -> float:
    """Average a value over all processes."""
    if accelerator.num_processes == 1:
        return value
    return cast(Tensor, accelerator.reduce(torch.tensor(value, device=accelerator.device), "mean")).item()


def seed_dropout(training: Training, k: int, step: int, accelerator: Accelerator) -> None:
    """Set the generator of dropout for one step of factor k, so that no step depends on those before it.

    It follows from the seed, the factor, the step and the number of the process, as the order of the images follows
    from the seed (`pixelcnn.data.order`), which uses the numbers 0 and 1 where this has a 2.
    """
    sequence = np.random.SeedSequence((training.seed, 2, k, step, accelerator.process_index))
    (seed,) = sequence.generate_state(1, np.uint64).tolist()
    device = accelerator.device
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.get_device_module(device).manual_seed(seed)
