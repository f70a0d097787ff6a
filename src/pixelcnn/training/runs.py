"""Run folders: recognizing them, locking them, and removing only what a run wrote.

A folder is a run if it has a `run.json` that training wrote. Only such a folder can be overwritten, and only files with
names that a run uses are removed; everything else stays. Each factor has a single writer, which holds
`factor-K/.lock` from start to finish, so several processes can train different factors of a run at the same time. When
a process is killed, its lock becomes free.
"""

__all__ = ["STATE", "begin_run", "check_run_folder", "claim_folder", "data_of", "merge_factor", "save_factor"]

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from pixelcnn.common.files import read_json, write_atomically, write_json
from pixelcnn.common.strict_json import parse_json
from pixelcnn.common.text import shorten
from pixelcnn.models.files import WEIGHTS
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load, save
from pixelcnn.models.shipped import CONFIG
from pixelcnn.training.same import RUN, check_same, taken_over
from pixelcnn.training.state import TrainingState

LOCK = ".lock"
PATIENCE = 60  # seconds to wait for a process that is saving
RESTART = 15  # seconds to wait, after a restart, for the processes that decoded images for one that was killed
Resume = bool | Literal["auto"]
FACTOR = re.compile(r"factor-(0|[1-9]\d*)")
# The files that training writes there, including temporary ones left by a killed process.
FILES = r"state\.safetensors|history\.jsonl|sheet-\d{6,}\.png"
IN_FACTOR = re.compile(rf"{FILES}|\.({FILES})\.tmp|events\.out\.tfevents\..+|\.lock")
REMEDIES = "--resume to continue the run in it, --overwrite to replace it, or another folder"


def check_run_folder(
    folder: Path, *, resume: Resume = False, overwrite: bool = False, remedies: str = REMEDIES
) -> None:
    """Raise a ValueError if a run can neither start in a folder nor, with `resume`, continue there."""
    name = str(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{name!r} is a file: name a folder")
    if resume is True:
        if not (folder / RUN).is_file():
            raise ValueError(f"{name!r} holds no run to resume: leave out --resume to start one")
        return
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    there = [each for each in there if each not in (LOCK, f".{RUN}.tmp")]  # left by a run killed at its start
    if not there:
        return
    if not _is_run(folder):
        quoted = ", ".join(map(repr, there[:3])) + (f" and {len(there) - 3} more" if len(there) > 3 else "")
        raise ValueError(f"{name!r} is not empty and not a run (it contains {quoted}): name another folder")
    if resume:
        return
    if not overwrite:
        raise ValueError(f"{name!r} is not empty: use {remedies}")
    if links := [path.name for path in _factor_folders(folder) if path.is_symlink()]:
        raise ValueError(f"{name!r} contains a link {links[0]!r}, whose target will not be replaced: remove the link")


def begin_run(folder: Path, run: dict[str, Any], *, overwrite: bool, remedies: str = REMEDIES) -> None:
    """Create the folder of a run, or remove the old run from it, and write `run.json`.

    Raises:
        ValueError: if the folder is neither empty nor a run to overwrite, or another process is training in it.
    """
    check_run_folder(folder, overwrite=overwrite, remedies=remedies)
    folder.mkdir(parents=True, exist_ok=True)
    with _lock_folder(folder):
        _begin(folder, run, overwrite, remedies)


@contextmanager
def claim_folder(
    folder: Path, model: ImageModel, run: dict[str, Any], factors: Sequence[int], *, resume: Resume, overwrite: bool
) -> Iterator[None]:
    """Create the folder of a new run, or check that it holds the same run, and lock the factors while in use.

    With `resume="auto"`, which of the two is decided under the lock, so that of several processes that come at the same
    time one begins the run and the others join it. A factor may then still be held for a moment, by what a killed
    process has left running, and is waited for.

    Raises:
        ValueError: if the folder holds something else or a different run, or another process is training one of the
            factors (or, to overwrite it, any factor).
    """
    run = parse_json(json.dumps(run))
    check_run_folder(folder, resume=resume, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        with _lock_folder(folder):
            if resume is True or (resume == "auto" and (folder / RUN).is_file()):
                begun = any((path / STATE).exists() for path in _factor_folders(folder))
                check_same(folder, model, run, begun=begun)
                old = read_json(folder / RUN)
                if (now := taken_over(old, run)) != old:
                    write_json(folder / RUN, now)
            else:
                _begin(folder, run, overwrite)
            if not (folder / CONFIG).exists():  # also if a process was killed while starting
                save(model, folder)
            for k in factors:
                held.enter_context(_hold_factor(folder / f"factor-{k}", RESTART if resume == "auto" else 0))
        yield


def _begin(folder: Path, run: dict[str, Any], overwrite: bool, remedies: str = REMEDIES) -> None:
    """Do the work of `begin_run` under the lock, so that the folder counts as a run even if we are killed midway."""
    check_run_folder(folder, overwrite=overwrite, remedies=remedies)
    with ExitStack() as held:
        for path in _factor_folders(folder):
            held.enter_context(_hold_factor(path))
        for path in _factor_folders(folder):
            for entry in path.iterdir():
                if IN_FACTOR.fullmatch(entry.name):
                    entry.unlink()
            if not any(path.iterdir()):
                path.rmdir()
        for name in (CONFIG, WEIGHTS):
            (folder / name).unlink(missing_ok=True)
    write_json(folder / RUN, run)


def _is_run(folder: Path) -> bool:
    try:
        return isinstance(read_json(folder / RUN).get("training"), dict)
    except ValueError:
        return False


def _factor_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if FACTOR.fullmatch(path.name) and path.is_dir())


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from starting or resuming a run there, or saving its model."""
    try:
        lock = FileLock(folder / LOCK).acquire(PATIENCE)
    except Timeout:
        raise ValueError(f"{str(folder)!r} is in use by another process: wait for it, or name another folder") from None
    with lock:
        yield


@contextmanager
def _hold_factor(folder: Path, patience: float = 0) -> Iterator[None]:
    """Lock a factor for training; raise a ValueError if another process still holds it after so many seconds."""
    folder.mkdir(exist_ok=True)
    try:
        lock = FileLock(folder / LOCK).acquire(patience)
    except Timeout:
        raise ValueError(
            f"{str(folder)!r} is being trained by another process: wait for it to end, or name another folder"
        ) from None
    with lock:
        yield


def save_factor(state: TrainingState, model: ImageModel, k: int, folder: Path) -> None:
    """Write the state of a factor, and then the model."""
    write_atomically(folder / f"factor-{k}" / STATE, state.to_bytes())
    merge_factor(model, k, folder)


def merge_factor(model: ImageModel, k: int, folder: Path) -> None:
    """Write one factor into the model on disk, keeping the factors that other processes are training."""
    with FileLock(folder / LOCK):
        on_disk = load(folder)
        on_disk.factors[k].load_state_dict(model.factors[k].state_dict())
        on_disk.size = model.size
        save(on_disk, folder)


def data_of(folder: Path) -> dict[str, Any]:
    """Read from `run.json` the data a model was trained on: source, size, crop and fingerprint, if recorded.

    Raises:
        ValueError: if an entry is not one that training writes.
    """
    path = folder / RUN
    data = read_json(path).get("data") if path.is_file() else None
    if not isinstance(data, dict):
        return {}
    source, size, crop, fingerprint = (data.get(name) for name in ("source", "size", "crop", "fingerprint"))
    fits = {
        "source": source is None or isinstance(source, str),
        "size": size is None or (type(size) is int and size > 0),
        "crop": crop is None or (isinstance(crop, list) and [type(each) for each in crop] == [int] * 4),
        "fingerprint": fingerprint is None or (source is not None and _is_fingerprint(fingerprint)),
    }
    for name, fitting in fits.items():
        if not fitting:
            raise ValueError(shorten(f"{path}: data.{name} is {data[name]!r}, which training never writes"))
    return {"crop": None} | {name: value for name, value in data.items() if value is not None}


def _is_fingerprint(value: Any) -> bool:
    """Check whether a value is a fingerprint of images: the number of them or of their shards, and a hash."""
    if not isinstance(value, dict) or value.keys() not in ({"images", "blake2b"}, {"shards", "blake2b"}):
        return False
    return all(type(each) is (str if name == "blake2b" else int) for name, each in value.items())


STATE = "state.safetensors"
