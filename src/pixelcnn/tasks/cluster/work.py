"""The work on one unit, the same in this process and in a worker on another machine.

A worker never raises an error that it can explain: it returns it, since an engine would try again, or bury it.
"""

__all__ = ["Job", "Report", "Worker", "versions"]

import hashlib
import json
import os
import pickle
import platform
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pixelcnn.common.devices import find_device
from pixelcnn.common.text import first_line, shorten
from pixelcnn.data.decode import BrokenImageError
from pixelcnn.models.image_model import ImageModel
from pixelcnn.tasks.cluster.output import Marker, part_name, to_parquet, write_part
from pixelcnn.tasks.cluster.units import Item, Unit
from pixelcnn.tasks.cluster.verbs import Row, Taken, Verb, Work

MOST_DEATHS = 2  # of careful workers, before a picture is left out
PACKAGES = ("pixelcnn", "torch", "numpy", "pillow", "pyarrow", "constriction")
REASONS = (ValueError, MemoryError, FloatingPointError)  # for leaving out a picture
Report = dict[str, Any]


def versions(*more: str) -> dict[str, str]:
    """Return the versions of what the results depend on, and of some more packages, in this process."""
    found = {"python": platform.python_version()}
    for name in (*PACKAGES, *more):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


@dataclass(frozen=True)
class Job:
    """What is asked of every worker: a verb with its options, a model, a folder for results, and a device."""

    verb: Verb
    model: ImageModel
    folder: Path
    device: str


class Worker:
    """A process with a model, which works on one unit after another.

    Args:
        expected: the versions that the process which asks has; a worker with others says so and does nothing.
        job: a pickled `Job`, which is opened only if the versions agree.
    """

    def __init__(self, expected: Mapping[str, str], job: bytes) -> None:
        here = versions(*(name for name in expected if name not in ("python", *PACKAGES)))
        self.problem = _difference(expected, here)
        if self.problem:
            return
        self.job: Job = pickle.loads(job)  # from the process that asks, over the engine's own connection
        try:
            self.steps: Work = self.job.verb.start(self.job.model.to(find_device(self.job.device)))
        except (*REASONS, RuntimeError) as error:
            self.problem = shorten(str(error))

    def __call__(self, batch: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Work on some units, as Ray Data passes them."""
        return {"report": [json.dumps(self.work(Unit.from_text(str(text)))) for text in batch["unit"]]}

    def work(self, unit: Unit) -> Report:
        """Write the results of a unit, and report what was written, or that nothing can be."""
        if self.problem:
            return {"problem": self.problem}
        try:
            with _one_thread():
                return self._work(unit)
        except OSError as error:  # the disk is full, say
            place = f"{error.filename!r}: " if error.filename else ""
            return {"problem": shorten(f"{place}{error.strerror or error} (on {socket.gethostname()})")}

    def _work(self, unit: Unit) -> Report:
        job, marker = self.job, Marker(self.job.folder, unit.part)
        rows: list[Row] = []
        for start, group in _groups(unit.items(), job.verb.together):
            rows += self._rows(start, group, marker)
        marker.about_to("finish")
        rows = [{"error": None, **row} for row in rows]
        content = to_parquet(rows, job.verb.schema())
        write_part(job.folder, unit.part, content)
        marker.done()
        return {
            "part": unit.part,
            "file": {
                "file": part_name(unit.part),
                "rows": len(rows),
                "bytes": len(content),
                "blake2b": hashlib.blake2b(content, digest_size=16).hexdigest(),
            },
            "failed": [{"name": row["name"], "error": row["error"]} for row in rows if row["error"]],
            "sums": {column: _total(rows, column) for column in job.verb.sums},
        }

    def _rows(self, start: int, group: Sequence[Item], marker: Marker) -> list[Row]:
        """Answer for pictures that are taken together, the first of which has the number `start` in its unit."""
        what = f"{start}-{start + len(group) - 1}"
        deaths = marker.killed(what)
        if deaths and len(group) > 1:
            return self._one_by_one(start, group, marker)
        name = _clean(group[0].name)
        if deaths >= MOST_DEATHS:
            return [_failure(name, f"{deaths} workers ended while they worked on {name!r}, for lack of memory perhaps")]
        marker.about_to(what)
        rows: dict[int, Row] = {}
        taken: dict[int, Taken] = {}
        for i, item in enumerate(group):
            try:
                if isinstance(item.content, ValueError):
                    raise item.content
                name = _clean(item.name)
                taken[i] = Taken(name, item.content, self.steps.take(item.content, name))
            except REASONS as error:
                rows[i] = _failure(_clean(item.name), _explain(error))
        try:
            answers = self.steps.answer(list(taken.values())) if taken else []
        except REASONS as error:
            if len(group) > 1:
                return self._one_by_one(start, group, marker)
            answers = [_failure(name, _explain(error))]
        rows |= zip(taken, answers, strict=True)
        return [rows[i] for i in range(len(group))]

    def _one_by_one(self, start: int, group: Sequence[Item], marker: Marker) -> list[Row]:
        return [row for i, item in enumerate(group, start) for row in self._rows(i, [item], marker)]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread, so that sums have the same order everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _groups(items: Iterator[Item], number: int) -> Iterator[tuple[int, list[Item]]]:
    """Put so many consecutive pictures together, and yield them with the place of the first."""
    start, group = 0, []
    for item in items:
        group.append(item)
        if len(group) == number:
            yield start, group
            start, group = start + number, []
    if group:
        yield start, group


def _clean(name: str) -> str:
    """Return a name that can be written as UTF-8; names of files may have any bytes."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _explain(error: BaseException) -> str:
    text = str(error) or first_line(error)
    return shorten(text.rpartition(": ")[0] if isinstance(error, BrokenImageError) else text)


def _failure(name: str, reason: str) -> Row:
    return {"name": name, "error": reason}


def _total(rows: Sequence[Row], column: str) -> list[str]:
    """Sum a column of numbers, or of lists of them, exactly: fractions as text, which do not depend on the order."""
    found = [row[column] if isinstance(row[column], list) else [row[column]] for row in rows if column in row]
    return [str(sum(map(Fraction, each), Fraction())) for each in zip(*found, strict=True)]


def _difference(expected: Mapping[str, str], here: Mapping[str, str]) -> str | None:
    """Say which versions differ, in one line; None if they agree."""
    found = [
        f"{name} {here.get(name)} instead of {wanted}" for name, wanted in expected.items() if here[name] != wanted
    ]
    if not found:
        return None
    return f"the worker on {socket.gethostname()} has {', '.join(found)}: install the same versions on all machines"
