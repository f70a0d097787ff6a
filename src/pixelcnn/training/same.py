"""What has to stay when a run is resumed: everything that decides what it learns, and nothing else."""

__all__ = ["AnotherRunError", "check_same", "differences_of", "taken_over"]

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from pixelcnn.common.files import read_json
from pixelcnn.common.text import shorten
from pixelcnn.data.sources import is_same_source
from pixelcnn.models.config import DEFAULTS
from pixelcnn.models.files import read_config
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.shipped import CONFIG, is_shipped
from pixelcnn.training.options import Training

RUN = "run.json"
# How the work is done: these change its time and its memory, and what is learned only by rounding and the dropout.
FREE = ("accumulate", "compile", "recompute", "workers")
USUAL = {field.name: field.default for field in fields(Training)}


class AnotherRunError(ValueError):
    """A run in a folder that differs from the one that should continue it.

    Attributes:
        what: the message without its remedy.
        differences: the settings that differ: name, value there, and value here.
    """

    def __init__(self, path: Path, differences: list[tuple[str, Any, Any]]) -> None:
        told = "; ".join(f"{name} is {old!r} there and {new!r} here" for name, old, new in differences)
        self.what, self.differences = f"{path} belongs to another run: {shorten(told)}", differences
        super().__init__(f"{self.what}. Resume it with the settings that it began with, or use another folder")


def check_same(folder: Path, model: ImageModel, run: dict[str, Any], *, begun: bool) -> None:
    """Raise an AnotherRunError if the run in a folder differs from this one in a setting that has to stay.

    Args:
        folder: of the run.
        model: to train.
        run: the content of `run.json` for this run, in the types of JSON.
        begun: whether a factor has been trained there, so that there has to be a `config.json`.
    """
    if begun or (folder / CONFIG).exists():
        # Fields missing from the config of an older version have their defaults; the size is set by the images.
        old = DEFAULTS | read_config(folder)
        old, new = (json.loads(json.dumps(each)) for each in (old, DEFAULTS | model.config.to_json()))
        if differences := list(differences_of(old, new | {"size": old["size"]})):
            raise AnotherRunError(folder / CONFIG, differences)
    old = read_json(folder / RUN)
    if differences := list(differences_of(_comparable(old, run), _comparable(run, run))):
        raise AnotherRunError(folder / RUN, differences)


def taken_over(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the `run.json` of a resumed run: as it is now, with the fingerprint of the images it began with."""
    data, before = new.get("data"), old.get("data")
    if isinstance(data, dict) and isinstance(before, dict) and "fingerprint" in before:
        return new | {"data": data | {"fingerprint": before["fingerprint"]}}
    return new


def _comparable(run: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Leave out what may change, and spell what is the same as it is spelled now."""
    training, data, start = run.get("training"), run.get("data"), run.get("from")
    if isinstance(training, dict):
        # Settings missing from the run of an older version had what is the default now.
        usual = {name: USUAL[name] for name in now.get("training", {}) if name in USUAL}
        training = json.loads(json.dumps(usual)) | training
        run = run | {"training": {name: value for name, value in training.items() if name not in FREE}}
    if isinstance(data, dict):
        data, data_now = dict(data), now.get("data")
        if isinstance(data_now, dict) and _is_same_data(data, data_now):
            data["source"] = data_now.get("source")
        data.pop("fingerprint", None)  # changed data get a warning, and are not another run
        run = run | {"data": data}
    if isinstance(start, str) and isinstance(now.get("from"), str) and _is_same_model(start, now["from"]):
        run = run | {"from": now["from"]}
    return run


def _is_same_data(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Return whether two records name the same place, or places with the same images."""
    if old.get("fingerprint") and old.get("fingerprint") == new.get("fingerprint"):
        return True
    a, b = old.get("source"), new.get("source")
    return isinstance(a, str) and isinstance(b, str) and is_same_source(a, b)


def _is_same_model(a: str, b: str) -> bool:
    if is_shipped(a) or is_shipped(b):
        return a == b
    return Path(a).expanduser().resolve() == Path(b).expanduser().resolve()


def differences_of(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Find the entries in which two JSON values differ: name, old value, new value."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old | new:
            yield from differences_of(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
    elif old != new:
        yield name, old, new
