"""Pictures that were decoded: checked against what their file says of them, and given back the form that they had."""

__all__ = ["Restored", "finish", "packed_pixels", "preview", "unpack_png"]

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pixelcnn.auxiliary.chain import Chain
from pixelcnn.codec.chunks import DamagedError
from pixelcnn.codec.container import File, pixel_checksum
from pixelcnn.data.decode import open_picture
from pixelcnn.data.given import PICTURE_LEVELS, to_picture
from pixelcnn.data.originals import Original, read_original


class Restored(NamedTuple):
    """A picture that was read: the number of its view, 0 for the whole picture, and the levels of its pixels."""

    original: Original
    view: int
    levels: int


def finish(file: File, x: Tensor, levels: int) -> Restored | DamagedError:
    """Give pixels (C, H, W) back the form of the picture, and check them."""
    if (pixels := _as_given(file, x)) is None:
        return DamagedError("it claims to be gray and has colors")
    if pixel_checksum(packed_pixels(pixels, levels)) != file.shape.checksum:
        return DamagedError("its pixels do not have the checksum in its header")
    if file.alpha is not None and not _is_alpha(file.alpha, pixels):
        return DamagedError("its transparency is no gray PNG of its size")
    return Restored(Original(pixels, file.alpha, file.profile, file.exif), 0, levels)


def preview(file: File, x: Tensor, view: int, chain: Chain) -> Restored | DamagedError:
    """Give a view (C, H, W) the form of a picture, if the model is of pictures."""
    if (pixels := _as_given(file, x)) is None:
        return DamagedError("it claims to be gray and has colors")
    levels = chain.formats[view][1]
    if chain.formats[0][1] == PICTURE_LEVELS:
        stretched, levels = np.array(to_picture(pixels, levels)), PICTURE_LEVELS
        pixels = torch.from_numpy(stretched).reshape(*pixels.shape[1:], -1).permute(2, 0, 1)
    return Restored(Original(pixels, profile=file.profile), view, levels)


def _as_given(file: File, x: Tensor) -> Tensor | None:
    """Return one of three equal channels if the picture is gray; None if they differ."""
    x = x.cpu()
    if file.shape.channels == 3 or len(x) == 1:
        return x
    return x[:1] if bool((x[:1] == x).all()) else None


def _is_alpha(alpha: bytes, pixels: Tensor) -> bool:
    try:
        picture = open_picture(alpha, "the transparency")
        fits = (picture.height, picture.width) == pixels.shape[1:] and (picture.format, picture.mode) == ("PNG", "L")
        read_original(alpha, "the transparency")
        return fits
    except ValueError:
        return False


def unpack_png(file: File) -> Restored | DamagedError:
    """Restore a picture that is stored as PNG, which needs no model."""
    C, H, W = file.shape[:3]
    try:
        picture = open_picture(file.png or b"", "its PNG")
        if picture.format != "PNG" or (picture.height, picture.width) != (H, W) or file.coding.levels != PICTURE_LEVELS:
            return DamagedError("its PNG is not what its header says")
        x = read_original(file.png or b"", "its PNG").x
    except ValueError:
        return DamagedError("its PNG cannot be read")
    return finish(file, x, PICTURE_LEVELS) if len(x) == C else DamagedError("its PNG is not what its header says")


def packed_pixels(x: Tensor, levels: int) -> np.ndarray:
    """Return an image (C, H, W) as an array (H, W, C), of uint8 for up to 256 levels."""
    return x.permute(1, 2, 0).cpu().numpy().astype(np.uint8 if levels <= PICTURE_LEVELS else np.uint16)
