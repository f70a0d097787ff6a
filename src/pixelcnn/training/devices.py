"""The device that a model is trained on."""

__all__ = ["make_accelerator"]

from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, ProjectConfiguration

from pixelcnn.common.devices import find_device
from pixelcnn.common.processes import join_processes, together
from pixelcnn.training.options import Training


def make_accelerator(training: Training, folder: Path, device: str) -> Accelerator:
    """Make the object that places the training on a device, and shares it among processes.

    Raises:
        ValueError: if there is no such device, or the batch cannot be shared evenly.
    """
    found = find_device(device)
    join_processes()
    # Reset, so that a second call in the same process can use another precision and another device.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    accelerator = Accelerator(
        cpu=found.type == "cpu",  # explicit, so that CPU processes share the work too
        mixed_precision="bf16" if training.bf16 else "no",
        gradient_accumulation_steps=training.accumulate,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        log_with="tensorboard",
        project_config=ProjectConfiguration(logging_dir=str(folder)),
    )
    with together():
        if found.index is not None:
            if accelerator.num_processes > 1:
                raise ValueError(
                    f"device={device!r}: each of {accelerator.num_processes} processes has its own; leave it out"
                )
            vars(accelerator.state)["device"] = found  # it knows no argument for this
        if training.batch_size % (training.accumulate * accelerator.num_processes):
            raise ValueError(
                f"batch_size={training.batch_size!r}: use a multiple of accumulate={training.accumulate} times "
                f"the number of processes, {accelerator.num_processes}"
            )
    return accelerator
