"""The training state of a factor: everything an optimizer step changes, in one file."""

__all__ = ["TrainingState", "restore_state"]

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from pixelcnn.common.files import ANEW
from pixelcnn.common.text import shorten
from pixelcnn.models.factor import Factor
from pixelcnn.models.weights import open_tensors, read_tensors, serialize


@dataclass
class TrainingState:
    """Everything an optimizer step changes."""

    factor: Factor
    averaged: AveragedModel
    optimizers: Sequence[torch.optim.Optimizer]
    random: Tensor  # (processes, bytes): the generators for dropout, as of the last save
    step: int = 0
    seconds: float = 0.0
    stream: dict[str, Tensor] = field(default_factory=dict)  # the positions of all processes in streamed images

    def to_bytes(self) -> bytes:
        tensors = {f"factor.{name}": tensor for name, tensor in self.factor.state_dict().items()}
        tensors |= {f"averaged.{name}": tensor for name, tensor in self.averaged.state_dict().items()}
        for o, optimizer in enumerate(self.optimizers):
            for i, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{o}.{i}.{name}": tensor for name, tensor in moments.items()}
        tensors["random"] = self.random
        tensors |= {f"stream.{name}": tensor for name, tensor in self.stream.items()}
        numbers = {"step": str(self.step), "seconds": repr(self.seconds)}
        return serialize(tensors, numbers)[0]

    def restore(self, path: Path) -> None:
        with open_tensors(path, ANEW) as (file, numbers):
            tensors = read_tensors(file, numbers, path, ANEW)

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        self.factor.load_state_dict(part("factor."))
        self.averaged.load_state_dict(part("averaged."))
        for o, optimizer in enumerate(self.optimizers):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            moments = {i: part(f"optimizer.{o}.{i}.") for i, _ in enumerate(parameters)}
            for i, parameter in enumerate(parameters):
                for name, moment in moments[i].items():
                    # Fused Adam reads memory linearly, so the moments need the same memory layout as their parameter.
                    if moment.shape == parameter.shape:
                        moments[i][name] = torch.empty_like(parameter, requires_grad=False).copy_(moment)
            optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
        self.stream = part("stream.")
        self.random, self.step, self.seconds = tensors["random"], int(numbers["step"]), float(numbers["seconds"])


def restore_state(state: TrainingState, path: Path) -> None:
    """Restore a state from a file; raise a one-line ValueError for anything that can be wrong with it."""
    generators = state.random.shape[1:]
    try:
        state.restore(path)
        if state.random.dtype != torch.uint8 or state.random.shape[1:] != generators:
            raise ValueError("its random state is from another kind of device")
        if not (0 <= state.step < 2**53 and 0 <= state.seconds < math.inf):
            raise ValueError(f"step {state.step} after {state.seconds} seconds")
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError, OverflowError) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path} is damaged, or belongs to another model ({shorten(str(error))}): {ANEW}") from None
