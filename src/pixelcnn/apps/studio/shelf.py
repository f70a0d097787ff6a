"""The models of a studio, each loaded once and shared by all pages."""

__all__ = ["Shelf"]

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.common.text import printable
from pixelcnn.models.codec import Codec
from pixelcnn.models.files import WEIGHTS
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load
from pixelcnn.models.sampling import enlargements
from pixelcnn.models.shipped import is_shipped, list_models
from pixelcnn.training.same import RUN

PICTURES = (3, 256)  # channels and levels of pictures that people bring
FIRST = "faces128-pyramid"  # drawn first, if it is there


class _Place:
    """A model on the shelf. That of a run is loaded again when training has saved it."""

    def __init__(self, name: str, device: str) -> None:
        self.name, self.device = name, device
        shipped = is_shipped(name)
        self.folder = None if shipped or not Path(name).is_dir() else Path(name)
        self.lock = threading.Lock()
        self.saved, self.codec = self._when_saved(), None
        self.model = load(name, device=device)

    def _when_saved(self) -> int:
        try:
            return 0 if self.folder is None else (self.folder / WEIGHTS).stat().st_mtime_ns
        except OSError:  # between two files of a training that saves
            return self.saved

    def get(self) -> ImageModel:
        with self.lock:
            if (now := self._when_saved()) != self.saved:
                self.model, self.codec, self.saved = load(self.name, device=self.device), None, now
            return self.model

    def get_codec(self) -> Codec:
        model = self.get()
        with self.lock:
            if self.codec is None:
                self.codec = Codec(model, Path(self.name).name)
            return self.codec


class Shelf:
    """Models by their names.

    Args:
        names: folders, shipped models and hub ids; empty for all shipped models that are installed.
        device: to compute on.

    Raises:
        ValueError: if one cannot be loaded, or has more levels than a page can show.
    """

    def __init__(self, names: Sequence[str], device: str) -> None:
        names = list(names) or sorted(list_models(), key=lambda name: name != FIRST)
        self.places = {printable(name): _Place(name, device) for name in dict.fromkeys(names)}
        for name, place in self.places.items():
            if (levels := place.model.levels) > PICTURES[1]:
                raise ValueError(f"{name!r} has levels={levels}, and pages show 256: use another model")

    @property
    def runs(self) -> dict[str, Path]:
        """The folders of runs by the names of their models."""
        folders = {name: place.folder for name, place in self.places.items()}
        return {name: folder for name, folder in folders.items() if folder is not None and (folder / RUN).is_file()}

    def model(self, name: object, *, pictures: bool = False) -> ImageModel:
        """Return a model; with `pictures`, one that pictures can be put into.

        Raises:
            ValueError: if there is no such model.
        """
        if not isinstance(name, str) or name not in self.places:
            raise ValueError(f"model={name!r}: there are {', '.join(map(repr, self.places))}")
        model = self.places[name].get()
        if pictures and not _takes_pictures(model):
            raise ValueError(f"model={name!r}: it has classes, or is not for 8-bit color pictures: use another model")
        return model

    def codec(self, name: str) -> Codec:
        """Return the codec of a model, which is made once."""
        return self.places[name].get_codec()

    def codecs(self) -> list[Codec]:
        """Return the codecs of all models that can have one."""
        return [self.codec(name) for name, place in self.places.items() if _takes_pictures(place.model)]

    def describe(self) -> list[dict[str, Any]]:
        """Describe the models for the page."""
        return [_describe(name, place.model) for name, place in self.places.items()]


def _takes_pictures(model: ImageModel) -> bool:
    return model.formats[0] == PICTURES and not model.classes


def _describe(name: str, model: ImageModel) -> dict[str, Any]:
    first = next(iter(model.auxiliaries), None)
    return {
        "name": name,
        "title": model.card.get("title", ""),
        "size": list(model.size or (32, 32)),
        "auxiliaries": [repr(each) for each in model.auxiliaries],
        "classes": model.classes,
        "pictures": _takes_pictures(model),
        "upscale": list(enlargements(model)),
        "colorize": isinstance(first, QuantizedGrayscale) and _takes_pictures(model),
    }
