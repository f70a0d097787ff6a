"""Masks of unknown pixels, from a box or from a picture saved by a drawing program.

A mask is read as a person would see it on a black background: whatever is lighter than half counts as white and will be
drawn. If people could reasonably disagree about what they see, there is a note or an error.
"""

__all__ = ["Mask", "box_mask", "read_mask"]

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from pixelcnn.common.text import first_line
from pixelcnn.data.decode import BrokenImageError, open_picture, read_file
from pixelcnn.pictures.inputs import PIPE, heeding

WHITES = (1, 2**8 - 1, 2**16 - 1, 2**31 - 1, 2**32 - 1)  # white in formats that do not state their range
DEEP_FORMATS = ("PNG", "PPM", "JPEG2000")  # store more than 8 bits as numbers up to 2^16 - 1
NEAR = 0.1  # of the range: closer than this counts as plain black or white
MANY = 0.02  # share of the pixels that deserves a note
REMEDY = "save it as an 8-bit gray picture, white where pixels are to be drawn and black elsewhere"


@dataclass(frozen=True)
class Mask:
    """A mask: its file name, unknown pixels as bool (H, W), and notes on anything ambiguous."""

    name: str
    unknown: Tensor
    notes: list[str]

    def of_size(self, size: tuple[int, int]) -> Tensor:
        """Return the unknown pixels for a picture of this size (H, W).

        Raises:
            ValueError: if the mask has another size.
        """
        if self.unknown.shape != size:
            (h, w), (H, W) = self.unknown.shape, size
            raise ValueError(f"the mask {self.name!r} is {w}x{h}, and the picture {W}x{H}: make them the same size")
        return self.unknown


def box_mask(box: tuple[int, int, int, int], size: tuple[int, int]) -> Tensor:
    """Make a mask, bool (H, W), that is true inside a box (left, top, right, bottom).

    Raises:
        ValueError: if the box does not lie within the picture.
    """
    (H, W), (left, top, right, bottom) = size, box
    if not (0 <= left < right <= W and 0 <= top < bottom <= H):
        raise ValueError(f"--box {left} {top} {right} {bottom}: use left < right <= {W} and top < bottom <= {H}")
    unknown = torch.zeros(size, dtype=torch.bool)
    unknown[top:bottom, left:right] = True
    return unknown


def read_mask(mask: Path) -> Mask:
    """Read a mask of any mode and depth, from a file, or from standard input for "-".

    Raises:
        ValueError: if it cannot be read, has no white, or is ambiguous.
    """
    name = str(mask)
    with heeding() as notes:
        picture, light, alpha = _decode(mask)
    clear = False
    if light is None:
        raise ValueError(f"the mask {name!r} has pixels of mode {picture.mode}, or out of range: {REMEDY}")
    if alpha is not None and alpha.min() < alpha.max():
        light, clear = light * alpha, True
        notes.append("its transparent pixels count as black, and are kept")
    elif alpha is not None and alpha.max() == 0:
        raise ValueError(f"the mask {name!r} is fully transparent: {REMEDY}")
    unknown = light > 0.5
    if not unknown.any():
        seen = "all that is not transparent is dark" if clear else f"only {100 * light.max():.0f} % of it at most"
        raise ValueError(f"the mask {name!r} has no white, {seen}: {REMEDY}")
    return Mask(name, torch.from_numpy(unknown), notes + _describe(light, unknown))


def _decode(mask: Path) -> tuple[Image.Image, np.ndarray | None, np.ndarray | None]:
    """Read the picture, the lightness of its pixels, and their opacity."""
    name = str(mask)
    try:
        content = sys.stdin.buffer.read() if name == PIPE else read_file(mask.expanduser())
        file = open_picture(content, "it")
    except BrokenImageError as error:
        raise ValueError(f"the mask {name!r}: {str(error).rpartition(': ')[0]}; name another --mask") from None
    try:
        picture = ImageOps.exif_transpose(file)
        light = None if _has_black_above(file) else _read_light(picture, file.format)
        return picture, light, _read_alpha(picture)
    except Exception as error:  # Pillow's decoders raise a dozen different exceptions
        raise ValueError(f"the mask {name!r} cannot be read ({first_line(error)}): {REMEDY}") from None


def _describe(light: np.ndarray, unknown: np.ndarray) -> list[str]:
    between = ((light > NEAR) & (light < 1 - NEAR)).mean()
    notes = []
    if between > MANY:
        notes.append(f"{between:.0%} of its pixels are neither black nor white; those lighter than half are drawn")
    if unknown.mean() > 0.5:
        notes.append(f"{unknown.mean():.0%} of it is white and will be drawn; if you meant the rest, invert the mask")
    return notes


def _has_black_above(file: Image.Image) -> bool:
    """Whether the largest value means black, which Pillow does not invert for more than 8 bits."""
    black_above = file.format == "TIFF" and file.tag_v2.get(262) == 0  # pyright: ignore  (a TIFF has it)
    return black_above and file.mode.startswith(("I", "F"))


def _read_light(picture: Image.Image, format: str | None) -> np.ndarray | None:
    """Read the lightness of pixels, (H, W) from 0 to 1, without alpha; None if no value is known to be white."""
    if picture.mode.startswith(("I", "F")):
        if picture.has_transparency_data:
            return None
        values = np.asarray(picture).astype(np.float64)
        most = values.max()
        deep = picture.mode.startswith("I;16") or format in DEEP_FORMATS
        white = WHITES[2] if deep else next((white for white in WHITES if most <= white), None)
        return values / white if white and values.min() >= 0 and most <= white else None
    if picture.mode == "1":
        return np.asarray(picture).astype(np.float64)
    if picture.mode.startswith("LAB"):
        return None
    opaque = picture.convert("RGBA") if picture.has_transparency_data else picture.convert("RGB")
    return np.asarray(opaque.convert("RGB").convert("L")) / 255


def _read_alpha(picture: Image.Image) -> np.ndarray | None:
    """Read the opacity of pixels, (H, W) from 0 to 1; None if there is no transparency."""
    if not picture.has_transparency_data or picture.mode.startswith(("I", "F")):
        return None
    return np.asarray(picture.convert("RGBA").getchannel("A")) / 255
