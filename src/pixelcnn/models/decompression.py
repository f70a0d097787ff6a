"""Getting compressed pictures back: finding the model that compressed them, and reading files and archives."""

__all__ = ["Restorer", "decompress", "find_model", "open_files"]

from collections.abc import Sequence
from typing import Any

import torch

from pixelcnn.codec.archive import Archive, is_archive
from pixelcnn.codec.chunks import DamagedError
from pixelcnn.codec.container import MODEL, TABLES, Coding, File, read_file
from pixelcnn.common.devices import find_device
from pixelcnn.data.given import PICTURE_LEVELS
from pixelcnn.models.base import ChainModel
from pixelcnn.models.codec import Codec, Count, uncounted
from pixelcnn.models.exact import model_hash
from pixelcnn.models.load import load
from pixelcnn.models.restored import Restored, unpack_png
from pixelcnn.models.shipped import list_models
from pixelcnn.nn.tables import TABLES_HASH


def matches(model: ChainModel, coding: Coding) -> bool:
    """Whether this is the model that coded something."""
    return model_hash(model)[:MODEL] == coding.model


def find_model(coding: Coding, *, device: str | torch.device = "cpu") -> ChainModel:
    """Load the shipped model that coded something. Its name in the file is only a hint, and nothing is downloaded.

    Raises:
        ValueError: if no installed model is the one.
    """
    for name in sorted(list_models(), key=lambda name: name != coding.name):
        if matches(model := load(name, device=device), coding):
            return model
    raise ValueError(
        f"it was compressed with the model {coding.name!r} (hash {coding.model.hex()}), which is not among the shipped "
        "models that are installed: pass the model (model=..., or --model)"
    )


def check_model(coding: Coding, model: ChainModel) -> None:
    """Raise a ValueError unless this is the model that coded something."""
    if (found := model_hash(model)[:MODEL]) != coding.model:
        raise ValueError(
            f"it was compressed with the model {coding.name!r} (hash {coding.model.hex()}), and the hash of this model "
            f"is {found.hex()}: pass that model (model=..., or --model)"
        )


def open_files(content: bytes) -> list[File]:
    """Read a compressed picture, or all pictures of an archive.

    Raises:
        DamagedError: if the file is neither, is damaged, or ends before a picture begins.
    """
    if not is_archive(content):
        return [read_file(content)]
    archive = Archive(content)
    return [archive.open(i) for i in range(len(archive.entries))]


def decompress(content: bytes, model: ChainModel | None = None, *, view: int | None = 0) -> Any:
    """Get pictures back from what `compress` returned, or from the content of a file.

    Args:
        content: of a compressed picture or an archive.
        model: the model that compressed it; None to find it among the shipped models.
        view: the view to stop at: 0 for the whole picture, more for smaller or gray ones, None for the simplest one. A
            compressed picture that was cut off gives its last whole view, so compare the size.

    Returns:
        A picture (PIL), with its transparency, color profile and EXIF data; for a model of other than 256 levels, a
        tensor (C, H, W). For an archive a list of them.

    Raises:
        ValueError: if this is neither, or is damaged, or was compressed with another model.
        MemoryError: if the cached activations need more memory than is free.

    Example:
        >>> import pixelcnn
        >>> from PIL import Image
        >>> content = pixelcnn.load("photos-pyramid").compress(Image.new("RGB", (20, 10), "teal"))
        >>> pixelcnn.decompress(content).getpixel((0, 0))
        (0, 128, 128)
        >>> pixelcnn.decompress(content, view=1).size
        (10, 5)
    """
    restored = Restorer(model).restore(open_files(content), view)
    pictures = []
    for i, each in enumerate(restored):
        if isinstance(each, ValueError):
            raise ValueError(f"picture {i}: {each}" if len(restored) > 1 else str(each))
        pictures.append(_as_picture(each))
    return pictures if is_archive(content) else pictures[0]


class Restorer:
    """A restorer of pictures, with as many models as they need.

    Args:
        model: that compressed them; None to find it among the shipped models.
        device: to put shipped models on; "auto" is the accelerator if there is one.
    """

    def __init__(self, model: ChainModel | None = None, device: str | torch.device = "cpu") -> None:
        self.model, self.device = model, find_device(device)
        self.codecs: dict[Coding, Codec | ValueError] = {}

    def codec(self, coding: Coding) -> Codec:
        """Return the codec of a model, which is made once.

        Raises:
            ValueError: if the model is another, or none of the shipped ones.
        """
        key = coding._replace(name="")  # which is only a hint
        if key not in self.codecs:
            try:
                self.codecs[key] = self._make_codec(coding)
            except ValueError as error:
                self.codecs[key] = error
        if isinstance(found := self.codecs[key], ValueError):
            raise found
        return found

    def _make_codec(self, coding: Coding) -> Codec:
        if coding.tables != bytes.fromhex(TABLES_HASH)[:TABLES]:
            raise DamagedError("it was compressed with other tables: get the pixelcnn that wrote it")
        if self.model is None:
            model = find_model(coding, device=self.device)
        else:
            check_model(coding, model := self.model)
        if coding.levels != model.levels:
            raise DamagedError(f"it claims pixels of {coding.levels} levels, and its model has {model.levels}")
        return Codec(model, consistent=coding.consistent)

    def pixels(self, file: File, view: int | None = 0) -> int:
        """Return the number of pixels of all views to decode; 0 if there are none to decode, or no model to do it."""
        if file.png is not None:
            return 0
        try:
            chain = self.codec(file.coding).chain
        except ValueError:
            return 0
        first = len(chain.formats) - 1 if view is None else max(view, file.missing)
        # A stream of all views is decoded to its end.
        return chain.pixels((file.shape.height, file.shape.width), 0 if file.joint else first)

    def restore(
        self, files: Sequence[File], view: int | None = 0, *, count: Count = uncounted
    ) -> list[Restored | ValueError]:
        """Restore pictures; one that cannot be restored gives an error.

        Args:
            files: the pictures.
            view: the view to stop at: 0 for whole pictures, None for the simplest one.
            count: called with the number of pixels of any view that are done.
        """
        results: dict[int, Restored | ValueError] = {}
        alike: dict[Coding, list[int]] = {}
        for i, file in enumerate(files):
            if file.png is not None and view == 0:
                results[i] = unpack_png(file)
            else:
                alike.setdefault(file.coding, []).append(i)
        for coding, places in alike.items():
            found: Sequence[Restored | ValueError]
            try:
                found = self.codec(coding).restore([files[i] for i in places], view, count=count)
            except ValueError as error:
                found = [error] * len(places)
            results |= zip(places, found, strict=True)
        return [results[i] for i in range(len(files))]


def _as_picture(restored: Restored) -> Any:
    x = restored.original.x
    return restored.original.to_picture() if restored.levels == PICTURE_LEVELS else x
