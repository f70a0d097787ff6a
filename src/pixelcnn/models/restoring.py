"""Restoring pictures from files with the codec that wrote them."""

__all__ = ["Restored", "restore", "unpack_png"]

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pixelcnn.auxiliary.chain import Chain
from pixelcnn.codec.chunks import DamagedError
from pixelcnn.codec.container import File, pixel_checksum
from pixelcnn.data.given import to_picture
from pixelcnn.data.originals import LEVELS, Original, read_original
from pixelcnn.models.compression import Codec, Count, alike, as_array, uncounted


class Restored(NamedTuple):
    """A picture that was read: the number of its view, 0 for the whole picture, and the levels of its pixels."""

    original: Original
    view: int
    levels: int


def restore(
    codec: Codec, files: Sequence[File], view: int | None = 0, *, count: Count = uncounted
) -> list[Restored | DamagedError]:
    """Restore pictures that a model compressed, those of one size together.

    Args:
        codec: of the model.
        files: the pictures. One that was cut off gives its last whole view, one that is damaged gives an error.
        view: the view to stop at: 0 for whole pictures, K or None for the simplest view.
        count: called with the number of pixels of any view that are done.

    Raises:
        ValueError: if there is no such view.
    """
    last = len(codec.coders) - 1
    view = last if view is None else view
    if not 0 <= view <= last:
        raise ValueError(f"view={view!r}: this model has the views 0 to {last}")
    found: dict[int, Restored | DamagedError] = {}
    stops = [max(view, file.missing) for file in files]
    kinds = [(*file.shape[1:3], file.png is None, stop) for file, stop in zip(files, stops, strict=True)]
    for places in alike(kinds):
        some = [files[i] for i in places]
        found |= zip(places, _restore_alike(codec, some, stops[places[0]], count), strict=True)
    return [found[i] for i in range(len(files))]


def _restore_alike(codec: Codec, files: list[File], view: int, count: Count) -> list[Restored | DamagedError]:
    """Restore pictures of one size, all of which have PNG inside or none."""
    if files[0].png is not None:
        return [_restore_png(codec, file, view) for file in files]
    labels = [file.shape.label for file in files if file.shape.label is not None]
    try:
        taken = codec.check_labels(labels or None, len(files))
        size = files[0].shape.height, files[0].shape.width
        images = codec.decode([file.views for file in files], size, taken, view=view, count=count)
    except DamagedError as error:  # of any of them
        return [error] if len(files) == 1 else [_restore_alike(codec, [file], view, count)[0] for file in files]
    except ValueError as error:  # labels that the model does not have
        return [DamagedError(str(error))] * len(files)
    if view == 0:
        return [_finish(file, x, codec.coding.levels) for file, x in zip(files, images, strict=True)]
    return [_preview(file, x, view, codec.chain) for file, x in zip(files, images, strict=True)]


def _restore_png(codec: Codec, file: File, view: int) -> Restored | DamagedError:
    """Restore a picture that is stored as PNG, or a view of it."""
    whole = unpack_png(file)
    if view == 0 or isinstance(whole, DamagedError):
        return whole
    x = whole.original.x.expand(1, codec.chain.formats[0][0], -1, -1)
    return _preview(file, codec.chain.views(x)[view][0], view, codec.chain)


def _finish(file: File, x: Tensor, levels: int) -> Restored | DamagedError:
    """Give pixels (C, H, W) back the form of the picture, and check them."""
    if (pixels := _as_given(file, x)) is None:
        return DamagedError("it claims to be gray and has colors")
    if pixel_checksum(as_array(pixels, levels)) != file.shape.checksum:
        return DamagedError("its pixels do not have the checksum in its header")
    return Restored(Original(pixels, file.alpha, file.profile, file.exif), 0, levels)


def _preview(file: File, x: Tensor, view: int, chain: Chain) -> Restored | DamagedError:
    """Give a view (C, H, W) the form of a picture, if the model is of pictures."""
    if (pixels := _as_given(file, x)) is None:
        return DamagedError("it claims to be gray and has colors")
    levels = chain.formats[view][1]
    if chain.formats[0][1] == LEVELS:
        stretched, levels = np.array(to_picture(pixels, levels)), LEVELS
        pixels = torch.from_numpy(stretched).reshape(*pixels.shape[1:], -1).permute(2, 0, 1)
    return Restored(Original(pixels, profile=file.profile), view, levels)


def _as_given(file: File, x: Tensor) -> Tensor | None:
    """Return one channel of equal ones if the picture is gray; None if they are not equal."""
    x = x.cpu()
    if file.shape.channels == 3 or len(x) == 1:
        return x
    return x[:1] if bool((x[:1] == x).all()) else None


def unpack_png(file: File) -> Restored | DamagedError:
    """Restore a picture that is stored as PNG, which needs no model."""
    try:
        x = read_original(file.png or b"", "its PNG").x
    except ValueError as error:
        return DamagedError(str(error))
    if x.shape != (file.shape.channels, file.shape.height, file.shape.width):
        return DamagedError("its PNG has another shape than its header says")
    return _finish(file, x, LEVELS)
