"""The figures of a training over time: lines of JSON for the report, and the trackers of Accelerate (TensorBoard)."""

__all__ = ["HISTORY", "Due", "History"]

import json
from pathlib import Path

from accelerate import Accelerator

from pixelcnn.common.files import write_atomically
from pixelcnn.common.strict_json import parse_json

HISTORY = "history.jsonl"


def _step_of(line: str) -> int:
    """The step of a line; 0 where it is none, such as one that was cut when a disk was full."""
    try:
        step = parse_json(line).get("step")
    except ValueError:
        return 0
    return step if type(step) is int else 0


class Due:
    """True when a number of minutes of training has passed since it was last true, and at the end."""

    def __init__(self, minutes: float) -> None:
        self.period, self.waited = 60 * minutes, 0.0

    def __call__(self, seconds: float, done: bool) -> bool:
        self.waited += seconds
        due = self.waited >= self.period or done
        if due:
            self.waited = 0.0
        return due


class History:
    """The figures of one factor, in a folder of its own."""

    def __init__(self, folder: Path, accelerator: Accelerator) -> None:
        self.folder, self.accelerator = folder, accelerator
        self.bits, self.seconds, self.steps, self.note = 0.0, 0.0, 0, ""

    def begin(self, step: int) -> None:
        """Forget what an interrupted run wrote after the step from which this one goes on."""
        if self.accelerator.is_main_process:
            path = self.folder / HISTORY
            lines = path.read_text(errors="replace").splitlines() if path.exists() else []
            kept = [line for line in lines if 0 < _step_of(line) <= step]
            write_atomically(path, "".join(f"{line}\n" for line in kept).encode())
        self.accelerator.init_trackers(self.folder.name, init_kwargs={"tensorboard": {"purge_step": step + 1}})

    def add(self, bits: float, seconds: float) -> None:
        self.bits, self.seconds, self.steps = self.bits + bits, self.seconds + seconds, self.steps + 1

    def write(self, step: int, seconds: float, batch_size: int) -> None:
        """One line: means since the line before."""
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
        self.accelerator.trackers.clear()  # or the next factor's figures would go to this one's too
