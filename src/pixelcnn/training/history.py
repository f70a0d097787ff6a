"""Training curves, written as lines of JSON for the report and as TensorBoard events through Accelerate."""

__all__ = ["HISTORY", "Due", "History", "read_history"]

import json
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from pixelcnn.common.files import write_atomically
from pixelcnn.common.strict_json import parse_json

HISTORY = "history.jsonl"
FIGURES = ("seconds", "bits_per_dim", "images_per_second")


def read_history(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read the lines of a history, as text and as numbers by name.

    Damaged lines are left out: a full disk or a power failure may cut the last one short or fill it with zeros.
    """
    found = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            point = parse_json(line)
        except ValueError:
            continue
        if type(point.get("step")) is int and all(type(point.get(name)) is float for name in FIGURES):
            found.append((line, point))
    return found


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
            kept = [line for line, point in read_history(path) if 0 < point["step"] <= step]
            write_atomically(path, "".join(f"{line}\n" for line in kept).encode())
        self.accelerator.init_trackers(self.folder.name, init_kwargs={"tensorboard": {"purge_step": step + 1}})

    def add(self, bits: float, seconds: float) -> None:
        self.bits, self.seconds, self.steps = self.bits + bits, self.seconds + seconds, self.steps + 1

    def write(self, step: int, seconds: float, batch_size: int, share: float) -> None:
        """Write one line with the averages since the previous line, and the share of the budget that is used."""
        figures = {"bits_per_dim": self.bits / self.steps, "images_per_second": batch_size * self.steps / self.seconds}
        self.note = f"{figures['bits_per_dim']:.3f} bits/dim {figures['images_per_second']:.1f} images/s"
        if self.accelerator.is_main_process:
            with (self.folder / HISTORY).open("a") as file:
                file.write(json.dumps({"step": step, "seconds": seconds, **figures, "share": share}) + "\n")
        self.accelerator.log(figures, step)
        self.bits, self.seconds, self.steps = 0.0, 0.0, 0

    def end(self) -> None:
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.accelerator.trackers.clear()  # otherwise the next factor would be logged here too
