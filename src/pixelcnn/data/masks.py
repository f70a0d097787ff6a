"""Masks of unknown pixels: pictures, read as a person sees them on a black background, arrays and tensors.

Whatever is lighter than half counts as white, and is unknown; what is transparent counts as black.
"""

__all__ = ["MaskLike", "MasksLike", "Painted", "read_painted", "take_masks"]

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from pixelcnn.common.text import first_line
from pixelcnn.data.decode import BrokenImageError, open_picture, read_file
from pixelcnn.data.given import Given

MaskLike = Image.Image | np.ndarray | Tensor | str | Path
"""A picture (PIL) or its path, white where pixels are unknown, or bool (H, W), an array or a tensor."""
MasksLike = MaskLike | Sequence[MaskLike]
"""A mask for all images, a mask for each, or bool (B, H, W)."""
WHITES = (1, 2**8 - 1, 2**16 - 1, 2**31 - 1, 2**32 - 1)  # white in formats that do not state their range
DEEP_FORMATS = ("PNG", "PPM", "JPEG2000")  # store more than 8 bits as numbers up to 2^16 - 1
REMEDY = "save it as an 8-bit gray picture, white where pixels are to be drawn and black elsewhere"
NO_UNKNOWN = "the mask has no unknown pixels: mark the ones to draw as true, or white"


def take_masks(masks: object, images: Given) -> list[Tensor]:
    """Turn masks as people have them into bool (n, H, W), for each batch of some images.

    Raises:
        ValueError: if a mask has another type or size than fits its images, or if no pixel at all is unknown.
    """
    if isinstance(masks, list | tuple):
        if len(masks) != images.number:
            raise ValueError(f"unknown: a list of {len(masks)} masks; use one mask, or one for each of {images.number}")
        each = [_to_bool(mask, f"unknown[{i}]") for i, mask in enumerate(masks)]
    else:
        one = _to_bool(masks, "unknown")
        each = [*one] if one.dim() == 3 and len(one) == images.number else [one] * images.number
    taken = []
    for places, x in images.batches:
        H, W = x.shape[2:]
        for i in places:
            if each[i].shape != (H, W):
                raise ValueError(_describe_misfit(each[i], (H, W), images.number, isinstance(masks, list | tuple), i))
        taken.append(torch.stack([each[i] for i in places]).to(x.device))
    if not any(bool(mask.any()) for mask in taken):
        raise ValueError(NO_UNKNOWN)
    return taken


def _describe_misfit(mask: Tensor, size: tuple[int, int], number: int, listed: bool, i: int) -> str:
    many = "" if listed or number == 1 else f", or {(number, *size)}"
    name = f"unknown[{i}]" if listed else "unknown"
    return f"{name}: a mask of shape {tuple(mask.shape)}; the image has (H, W) = {size}, so use {size}{many}"


def _to_bool(mask: object, name: str) -> Tensor:
    if isinstance(mask, str | Path):
        try:
            mask = open_picture(read_file(Path(mask).expanduser()), repr(str(mask)))
        except BrokenImageError as error:
            raise ValueError(f"{name}: {str(error).rpartition(': ')[0]}; name another mask") from None
    if isinstance(mask, Image.Image):
        return torch.from_numpy(read_painted(mask, name).unknown)
    if not isinstance(mask, np.ndarray | Tensor):
        raise ValueError(
            f"{name} of type {type(mask).__name__}: use a picture (PIL) or its path, or an array or a tensor of bool"
        )
    if mask.dtype not in (np.bool_, torch.bool):
        half = float(mask.max()) / 2 if np.prod(mask.shape) else 0
        remedy = f"use bool, true where to draw, such as unknown > {half:g}"
        raise ValueError(f"{name}: a mask of type {mask.dtype}; {remedy}")
    return mask if isinstance(mask, Tensor) else torch.tensor(mask)


@dataclass(frozen=True, eq=False)
class Painted:
    """A mask as a person sees it on black: its lightness, (H, W) from 0 to 1, and whether some of it is `clear`."""

    light: np.ndarray
    clear: bool

    @property
    def unknown(self) -> np.ndarray:
        """The pixels that count as white, bool (H, W)."""
        return self.light > 0.5


def read_painted(file: Image.Image, name: str) -> Painted:
    """Read a mask of any mode and depth; `name` is what errors call it, quotes included.

    Raises:
        ValueError: if it cannot be read, has no white, or is ambiguous.
    """
    try:
        picture = ImageOps.exif_transpose(file)
        light = None if _has_black_above(file) else _read_light(picture, file.format)
        alpha = _read_alpha(picture)
    except Exception as error:  # Pillow's decoders raise a dozen different exceptions
        raise ValueError(f"the mask {name} cannot be read ({first_line(error)}): {REMEDY}") from None
    if light is None:
        raise ValueError(f"the mask {name} has pixels of mode {picture.mode}, or out of range: {REMEDY}")
    if alpha is not None and alpha.max() == 0:
        raise ValueError(f"the mask {name} is fully transparent: {REMEDY}")
    clear = alpha is not None and bool(alpha.min() < alpha.max())
    painted = Painted(light * alpha if clear else light, clear)
    if not painted.unknown.any():
        most = f"only {100 * painted.light.max():.0f} % of it at most"
        seen = "all that is not transparent is dark" if clear else most
        raise ValueError(f"the mask {name} has no white, {seen}: {REMEDY}")
    return painted


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
