"""Decode one picture from the bytes of an untrusted file.

Only a fixed list of formats is read, no other file is ever opened, and the number of pixels is limited: opening a
picture reads its header, and the header is checked before any pixel is decoded.
"""

__all__ = [
    "FILTERS",
    "FORMATS",
    "MAX_PIXELS",
    "BrokenImageError",
    "Crop",
    "Preparation",
    "check_mode",
    "convert",
    "is_deep",
    "open_picture",
    "read_file",
]

import io
import os
import stat
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pixelcnn.common.text import first_line

Crop = tuple[int, int, int, int]
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Image formats we read. Pillow knows more, but for some of them, such as PostScript, it starts another program."""
MAX_PIXELS = 2**26
"""Largest number of pixels in a picture, 8192x8192. A file of a few kilobytes can claim to have any number."""
_MAX_BYTES = 2**30  # per file: more than any picture within MAX_PIXELS needs
FILTERS = threading.RLock()
"""Held while the warning filters are changed, which belong to the whole process."""
_ADVICE = "remove it or use --skip-broken"


class BrokenImageError(ValueError):
    """A file that cannot be decoded: the only error that `skip_broken` ignores."""

    def __init__(self, message: str) -> None:
        # A data loader's worker process puts the traceback in front of the message: keep only the last line.
        super().__init__(message.strip().splitlines()[-1].removeprefix(f"{__name__}.{type(self).__name__}: "))


def read_file(path: str | Path) -> bytes:
    """Read a regular file. A pipe or a device is never opened, since reading it may never end.

    Raises:
        BrokenImageError: if the path is not a regular file, cannot be read, or is too large to be a picture.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise BrokenImageError(f"{str(path)!r} is not a regular file: {_ADVICE}")
        if status.st_size > _MAX_BYTES:
            raise BrokenImageError(
                f"{str(path)!r} is {status.st_size / 1e9:.1f} GB, too large for a picture: {_ADVICE}"
            )
        return Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BrokenImageError(f"{str(path)!r} cannot be read ({reason}): put it back, {_ADVICE}") from None


def open_picture(content: bytes, name: str, most_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read the header of a picture; its pixels are not decoded yet.

    Args:
        content: bytes of the file.
        name: how error messages call the picture, quotes included.
        most_pixels: as many as it may have; at most `MAX_PIXELS`.

    Raises:
        BrokenImageError: if this is not a picture in one of `FORMATS`, or if it has too many pixels.
    """
    most = f"more than {most_pixels / 1e6:.0f} million"
    try:
        with FILTERS, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BrokenImageError(f"{name} has {most} pixels: make it smaller, {_ADVICE}") from None
    except Exception as error:  # Pillow's decoders raise a dozen different exceptions
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else first_line(error)
        raise BrokenImageError(f"{name} cannot be read ({reason}): {_ADVICE}") from error
    if picture.width * picture.height > most_pixels:
        size = f"{picture.width}x{picture.height}"
        raise BrokenImageError(f"{name} is {size}, {most} pixels: make it smaller, {_ADVICE}")
    return picture


def is_deep(picture: Image.Image, content: bytes) -> bool:
    """Whether a channel has more than 8 bits. In color images, Pillow silently drops the extra bits."""
    if picture.format == "PNG":
        return content[24] > 8  # a fixed place in the header
    if picture.format == "TIFF":
        return max(picture.tag_v2.get(258, (1,))) > 8  # pyright: ignore[reportAttributeAccessIssue]  (a TIFF has it)
    if picture.format == "PPM":
        arguments = picture.tile[0].args  # pyright: ignore[reportAttributeAccessIssue]  (every file has tiles)
        return isinstance(arguments, tuple) and arguments[-1] > 255
    if picture.format == "JPEG2000":
        start = content.find(b"\xff\x4f\xff\x51") + 40
        depths = content[start + 2 : start + 2 + 3 * int.from_bytes(content[start : start + 2]) : 3]
        return any(depth & 0x7F > 7 for depth in depths)
    if picture.format == "AVIF":
        return bool(content[content.find(b"av1C") + 6] & 0x40)
    return False


def check_mode(picture: Image.Image, name: str) -> None:
    """Raise a ValueError if the pixels of a picture are not 8-bit color or gray."""
    if picture.mode.startswith(("I", "F", "LAB")):
        raise ValueError(f"{name} has pixels of mode {picture.mode}: convert it to 8-bit color or gray")


def convert(picture: Image.Image, channels: int) -> Image.Image:
    """Turn a picture upright and convert it to color (3 channels) or gray (1); transparency is dropped."""
    image = ImageOps.exif_transpose(picture)  # turns photos upright, as `datasets` does
    if image.has_transparency_data:
        image = image.convert("RGBA")  # going straight to RGB, Pillow warns about transparent palettes
    return image.convert("L" if channels == 1 else "RGB")


@dataclass(frozen=True)
class Preparation:
    """The steps from a stored image to its pixels.

    A stored image is a record of `bytes` and `path`. The path serves only as a name; it is never opened.

    Args:
        channels: 3 for color, 1 for gray (luma, the weighted brightness of ITU-R 601); an alpha channel is dropped.
        crop: pixels to cut off first: left, right, top, bottom.
        size: side to which the center square is reduced by averaging areas; None keeps everything after the crop.
    """

    channels: int
    crop: Crop | None
    size: int | None

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"channels={self.channels!r}: use 1 (gray) or 3 (red, green, blue)")
        if self.crop is not None and (len(self.crop) != 4 or min(self.crop) < 0):
            raise ValueError(f"crop={self.crop!r}: --crop takes left right top bottom, each at least 0")
        if self.size is not None and self.size < 1:
            raise ValueError(f"size={self.size!r}: --size must be at least 1")

    def __call__(self, record: Mapping[str, Any], index: int) -> np.ndarray:
        """Decode, convert, crop and resize an image to uint8 (H, W, C); `index` names it if it has no path."""
        content, path = record["bytes"], record["path"]
        name = f"image {path!r}" if path else f"image number {index}"
        if not content:
            raise BrokenImageError(f"{name} cannot be read (it is empty): {_ADVICE}")
        picture = open_picture(content, name)
        check_mode(picture, name)
        image = self._frame(self._decode(picture, content, name), name)
        return np.asarray(image).reshape(image.height, image.width, self.channels)

    def _decode(self, picture: Image.Image, content: bytes, name: str) -> Image.Image:
        try:
            image = None if is_deep(picture, content) else convert(picture, self.channels)
        except Exception as error:  # again, a dozen kinds
            raise BrokenImageError(f"{name} cannot be read ({first_line(error)}): {_ADVICE}") from error
        if image is None:
            raise ValueError(f"{name} has more than 8 bits a channel: convert it to 8-bit color or gray")
        return image

    def _frame(self, image: Image.Image, name: str) -> Image.Image:
        left, right, top, bottom = self.crop or (0, 0, 0, 0)
        W, H = image.width - left - right, image.height - top - bottom
        if min(W, H) < 1:
            size, crop = f"{image.width}x{image.height}", f"--crop {left} {right} {top} {bottom}"
            raise ValueError(f"{name} is {size}, too small for {crop}: use a smaller crop")
        if self.size is None:
            return image.crop((left, top, left + W, top + H))
        side = min(W, H)
        if side < self.size:
            raise ValueError(f"{name} has only {W}x{H} pixels, too small for --size {self.size}: use {side} or less")
        left, top = left + (W - side) // 2, top + (H - side) // 2
        square = (left, top, left + side, top + side)
        return image.resize((self.size, self.size), Image.Resampling.BOX, square)
