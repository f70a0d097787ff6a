"""Training curves, written as lines of JSON for the report and as TensorBoard events through Accelerate."""

__all__ = ["HISTORY", "Due", "History"]

import json
from pathlib import Path

from accelerate import Accelerator

from pixelcnn.common.files import write_atomically
from pixelcnn.common.strict_json import parse_json

HISTORY = "history.jsonl"


def _step_of(line: str) -> int:
    """Read the step number of a line; 0 if the line is damaged, for example cut short by a full disk."""
    try:
        step = parse_json(line).get("step")
    except ValueError:
        return 0
    return step if type(step) is int else 0


class Due:
    """A timer that is due at intervals of a given number of minutes, and once more at the end."""

    def __init__(self, minutes: float) -> None:
        self.period, self.waited = 60 * minutes, 0.0

    def __call__(self, seconds: float, done: bool) -> bool:
        self.waited += seconds
        due = self.waited >= self.period or done
        if due:
            self.waited = 0.0
        return due


class History:
    """The training curve of one factor, kept in that factor's folder."""

    def __init__(self, folder: Path, accelerator: Accelerator) -> None:
        self.folder, self.accelerator = folder, accelerator
        self.bits, self.seconds, self.steps, self.note = 0.0, 0.0, 0, ""

    def begin(self, step: int) -> None:
        """Drop the lines that an interrupted run wrote after the step we resume from."""
        if self.accelerator.is_main_process:
            path = self.folder / HISTORY
            lines = path.read_text(errors="replace").splitlines() if path.exists() else []
            kept = [line for line in lines if 0 < _step_of(line) <= step]
            write_atomically(path, "".join(f"{line}\n" for line in kept).encode())
        self.accelerator.init_trackers(self.folder.name, init_kwargs={"tensorboard": {"purge_step": step + 1}})

    def add(self, bits: float, seconds: float) -> None:
        self.bits, self.seconds, self.steps = self.bits + bits, self.seconds + seconds, self.steps + 1

    def write(self, step: int, seconds: float, batch_size: int) -> None:
        """Write one line with the averages since the previous line."""
        figures = {"bits_per_dim": self.bits / self.steps, "images_per_second": batch_size * self.steps / self.seconds}
        self.note = f"{figures['bits_per_dim']:.3f} bits/dim {figures['images_per_second']:.1f} images/s"
        if self.accelerator.is_main_process:
            with (self.folder / HISTORY).open("a") as file:
                file.write(json.dumps({"step": step, "seconds": seconds, **figures}) + "\n")
        self.accelerator.log(figures, step)
        self.bits, self.seconds, self.steps = 0.0, 0.0, 0

    def end(self) -> None:
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.accelerator.trackers.clear()  # otherwise the next factor would be logged here too
