"""Runs of training, as a page shows them: curves, the newest sheets, and what is left."""

__all__ = ["Runs"]

import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelcnn.training.history import HISTORY, read_history

MOST_POINTS = 300  # of a curve
NUMBER = re.compile(r"[0-9]{1,2}")  # of a factor
PERIOD = 2.0  # seconds between two looks at the files


class Runs:
    """The folders of runs, which are read at most every two seconds, whatever the number of pages.

    Args:
        folders: by the names of the runs.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.folders = folders
        self.lock, self.read, self.found = threading.Lock(), -PERIOD, []

    def look(self) -> list[dict[str, Any]]:
        """Describe all runs."""
        with self.lock:
            if time.monotonic() - self.read >= PERIOD:
                self.found = [_describe(name, folder) for name, folder in self.folders.items()]
                self.read = time.monotonic()
            return self.found

    def sheet(self, run: str, k: str) -> bytes | None:
        """Return the newest sheet of samples of a factor, as PNG, by their numbers; None if there is none."""
        folders = {str(i): folder for i, folder in enumerate(self.folders.values())}
        if run not in folders or not NUMBER.fullmatch(k):
            return None
        newest = _newest_sheet(folders[run] / f"factor-{k}")
        return newest.read_bytes() if newest is not None else None


def _describe(name: str, folder: Path) -> dict[str, Any]:
    factors = []
    for path in sorted(folder.glob("factor-*")):
        if NUMBER.fullmatch(number := path.name.removeprefix("factor-")):
            factors.append(_describe_factor(int(number), path))
    return {"name": name, "factors": sorted(factors, key=lambda factor: factor["k"])}


def _describe_factor(k: int, folder: Path) -> dict[str, Any]:
    points = [point for _, point in read_history(folder / HISTORY)]
    step = -(-len(points) // MOST_POINTS) or 1
    kept = [*points[:-1:step], *points[-1:]]  # the newest one always
    last, sheet = points[-1] if points else {}, _newest_sheet(folder)
    share, seconds = last.get("share"), last.get("seconds", 0.0)
    share = share if isinstance(share, float) and 0 < share <= 1 else None  # runs of older versions have none
    return {
        "k": k,
        "points": [[round(point["seconds"] / 60, 3), round(point["bits_per_dim"], 4)] for point in kept],
        "step": last.get("step", 0),
        "minutes": round(seconds / 60, 2),
        "share": share,
        "left": round(seconds * (1 / share - 1) / 60, 2) if share else None,
        "sheet": None if sheet is None else f"{sheet.name}-{sheet.stat().st_mtime_ns}",
    }


def _newest_sheet(folder: Path) -> Path | None:
    sheets = folder.glob("sheet-*.png")
    return max(sheets, key=lambda path: (len(path.name), path.name), default=None)  # by the number of the step
