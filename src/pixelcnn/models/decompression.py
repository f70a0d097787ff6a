"""Getting compressed pictures back: finding the model that compressed them, and reading files and archives."""

__all__ = ["decompress", "find_model", "open_files", "restore"]

from collections.abc import Sequence
from typing import Any

import torch

from pixelcnn.codec.archive import Archive, is_archive
from pixelcnn.codec.chunks import DamagedError
from pixelcnn.codec.container import MODEL, TABLES, Coding, File, read_file
from pixelcnn.data.originals import LEVELS
from pixelcnn.models.base import ChainModel
from pixelcnn.models.compression import Codec, Count, Restored, uncounted, unpack_png
from pixelcnn.models.exact import model_hash
from pixelcnn.models.load import load
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
        "models that are installed: name the model"
    )


def check_coding(coding: Coding, model: ChainModel) -> None:
    """Raise a ValueError unless something was coded with these tables and this model."""
    if coding.tables != bytes.fromhex(TABLES_HASH)[:TABLES]:
        raise DamagedError("it was compressed with other tables: get the pixelcnn that wrote it")
    if not matches(model, coding):
        raise ValueError(
            f"it was compressed with the model {coding.name!r} (hash {coding.model.hex()}), and the hash of this model "
            f"is {model_hash(model)[:MODEL].hex()}: name the other"
        )


def open_files(content: bytes | memoryview, places: Sequence[int] | None = None) -> list[File]:
    """Read a compressed picture, or the pictures of an archive.

    Args:
        content: of the file.
        places: of the pictures in an archive to read; None for all.

    Raises:
        DamagedError: if the file is neither, is damaged, or ends before a picture begins.
    """
    if not is_archive(content):
        return [read_file(content)]
    archive, files = Archive(content), []
    for i in range(len(archive.entries)) if places is None else places:
        entry = archive.entries[i]
        try:
            stream = archive.read(i)
            files.append(read_file(stream) if entry.whole else File(archive.coding, entry.shape, 1, [stream]))
        except DamagedError as error:
            raise DamagedError(f"{entry.name!r} in it: {error}") from None
    return files


def decompress(content: bytes, model: ChainModel | None = None, *, view: int = 0) -> Any:
    """Get pictures back from what `compress` returned, or from the content of a file.

    Args:
        content: of a compressed picture or an archive.
        model: the model that compressed it; None to find it among the shipped models.
        view: the view to stop at: 0 for the whole picture, and more for smaller or gray ones. A compressed picture that
            was cut off gives its last whole view, so compare the size.

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
    restored = restore(open_files(content), model, view)
    pictures = []
    for i, each in enumerate(restored):
        if isinstance(each, ValueError):
            raise ValueError(f"picture {i}: {each}" if len(restored) > 1 else str(each))
        pictures.append(_as_picture(each))
    return pictures if is_archive(content) else pictures[0]


def restore(
    files: Sequence[File],
    model: ChainModel | None = None,
    view: int = 0,
    *,
    device: str | torch.device = "cpu",
    count: Count = uncounted,
) -> list[Restored | ValueError]:
    """Restore pictures, with as many models as they need; a picture that cannot be restored gives an error.

    Args:
        files: the pictures.
        model: that compressed them; None to find it among the shipped models.
        view: the view to stop at: 0 for whole pictures.
        device: to put shipped models on.
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
        try:
            found = find_model(coding, device=device) if model is None else model
            check_coding(coding, found)
            codec = Codec(found, coding.name, consistent=coding.consistent)
            results |= zip(places, codec.restore([files[i] for i in places], view, count=count), strict=True)
        except ValueError as error:
            results |= dict.fromkeys(places, error)
    return [results[i] for i in range(len(files))]


def _as_picture(restored: Restored) -> Any:
    x = restored.original.x
    return restored.original.to_picture() if restored.levels == LEVELS else x
