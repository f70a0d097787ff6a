"""The training state of a factor: everything an optimizer step changes, in one file.

The random state of dropout is not in it, since it follows from the seed and the step. Files of earlier versions have
one, which is ignored.
"""

__all__ = ["TrainingState", "restore_state"]

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from pixelcnn.common.files import ANEW
from pixelcnn.common.processes import gather, is_main, together
from pixelcnn.common.text import shorten
from pixelcnn.models.factor import Factor
from pixelcnn.models.weights import open_tensors, read_tensors, serialize


@dataclass
class TrainingState:
    """Everything an optimizer step changes."""

    factor: Factor
    averaged: AveragedModel
    optimizers: Sequence[torch.optim.Optimizer]
    step: int = 0
    seconds: float = 0.0
    stream: dict[str, Tensor] = field(default_factory=dict)  # the positions of all processes in streamed images

    def to_bytes(self) -> bytes:
        tensors = {f"factor.{name}": tensor for name, tensor in self.factor.state_dict().items()}
        tensors |= {f"averaged.{name}": tensor for name, tensor in self.averaged.state_dict().items()}
        for o, optimizer in enumerate(self.optimizers):
            for i, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{o}.{i}.{name}": tensor for name, tensor in moments.items()}
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
        self.step, self.seconds = int(numbers["step"]), float(numbers["seconds"])


def restore_state(state: TrainingState, path: Path) -> None:
    """Restore a state from a file, if there is one, in all processes.

    Raises:
        ValueError: of one line, for anything that can be wrong with the file, or if some processes do not find it.
    """
    with together():
        if path.exists():
            _restore(state, path)
    steps = gather(state.step)
    with together():
        if is_main() and len(set(steps)) > 1:
            raise ValueError(
                f"{path} is at step {steps[0]} in process 0, and in the others at {shorten(str(steps[1:]))}: use a "
                "folder that all of them share"
            )


def _restore(state: TrainingState, path: Path) -> None:
    try:
        state.restore(path)
        if not (0 <= state.step < 2**53 and 0 <= state.seconds < math.inf):
            raise ValueError(f"step {state.step} after {state.seconds} seconds")
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError, OverflowError) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path} is damaged, or belongs to another model ({shorten(str(error))}): {ANEW}") from None
