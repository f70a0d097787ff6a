"""Pictures with everything that a lossless file keeps, instead of what a model is trained on.

Pixels are taken as they are stored: an EXIF orientation is kept as it is, not applied. A palette becomes its colors.
Transparency, the color profile (ICC) and the EXIF data are kept apart. Nothing else that a file may hold is kept, such
as its comments and its resolution.
"""

__all__ = ["Original", "take_original", "take_originals"]

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pixelcnn.codec.container import MOST_EXTRA
from pixelcnn.common.text import first_line
from pixelcnn.data.decode import BrokenImageError, is_deep, open_picture, read_file
from pixelcnn.data.given import GRAY_MODES, PICTURE_LEVELS, ImagesLike, take_images

GRAY, COLOR = (*GRAY_MODES, "La"), ("P", "PA", "RGB", "RGBA", "RGBX")
ADVICE = "remove it or use --skip-broken"


class Original(NamedTuple):
    """A picture that is kept whole.

    Attributes:
        x: its pixels, integers (C, H, W).
        alpha: its transparency, as a gray PNG; None if it has none.
        profile, exif: its color profile and EXIF data.
    """

    x: Tensor
    alpha: bytes | None = None
    profile: bytes | None = None
    exif: bytes | None = None

    @property
    def plain(self) -> bool:
        """Whether it has nothing but pixels."""
        return self.alpha is None and self.profile is None and self.exif is None

    def to_picture(self) -> Image.Image:
        """Return it as an 8-bit picture (PIL), with what belongs to it."""
        pixels = self.x.byte().permute(1, 2, 0).cpu().numpy()
        picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        if self.alpha is not None:
            picture.putalpha(open_picture(self.alpha, "the transparency"))
        extras = {"icc_profile": self.profile, "exif": self.exif}
        picture.info.update({name: extra for name, extra in extras.items() if extra is not None})
        return picture

    def to_png(self) -> bytes:
        """Return it as the content of a PNG file."""
        buffer, picture = io.BytesIO(), self.to_picture()
        picture.save(buffer, "PNG", optimize=True, exif=picture.info.get("exif", b""))
        return buffer.getvalue()


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn what Pillow's decoders raise, a dozen kinds, into a `BrokenImageError`."""
    try:
        yield
    except Exception as error:
        raise BrokenImageError(f"{name} cannot be read ({first_line(error)}): {ADVICE}") from error


def take_original(picture: Image.Image, name: str) -> Original:
    """Take a picture with all that is kept.

    Raises:
        BrokenImageError: if it cannot be decoded.
        ValueError: if it is an animation, or not of 8-bit gray or color.
    """
    if not picture.width * picture.height:
        raise ValueError(f"{name} has no pixels: give one that has")
    with _decoding(name):
        frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        raise ValueError(f"{name} has {frames} frames: compress them one by one, as pictures of their own")
    if picture.mode not in (*GRAY, *COLOR):
        raise ValueError(f"{name} has pixels of mode {picture.mode}: convert it to 8-bit color or gray")
    kind, alpha = "L" if picture.mode in GRAY else "RGB", None
    with _decoding(name):
        if picture.has_transparency_data:
            whole = picture.convert(kind + "A")  # a palette may have transparent entries
            buffer = io.BytesIO()
            Image.fromarray(np.array(whole.getchannel("A"))).save(buffer, "PNG", optimize=True)  # without the profile
            alpha, picture_ = buffer.getvalue(), whole.convert(kind)
        else:
            picture_ = picture.convert(kind)
    pixels = np.array(picture_).reshape(picture.height, picture.width, -1)
    found = (picture.info.get(each) for each in ("icc_profile", "exif"))
    profile, exif = (each if isinstance(each, bytes) and each else None for each in found)
    if max(len(profile or b""), len(exif or b"")) > MOST_EXTRA:
        raise ValueError(f"{name} has a color profile or EXIF data of more than {MOST_EXTRA:,} bytes: remove them")
    return Original(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), alpha, profile, exif)


def read_original(content: bytes, name: str) -> Original:
    """Decode a picture with all that is kept; errors are those of `take_original`."""
    picture = open_picture(content, name)
    with _decoding(name):
        deep = is_deep(picture, content)
    if deep:
        raise ValueError(f"{name} has more than 8 bits a channel: convert it to 8-bit color or gray")
    return take_original(picture, name)


def take_originals(pictures: ImagesLike, channels: int, levels: int) -> list[Original]:
    """Take one picture or more, in any form that `pixelcnn.data.given` lists.

    Args:
        pictures: pictures (PIL) and paths, which are taken with all that is kept; arrays and tensors.
        channels, levels: of arrays and tensors; gray ones also fit.

    Raises:
        ValueError: if something is not a picture, does not fit, or cannot be read.
    """
    if isinstance(pictures, list | tuple):
        if not pictures:
            raise ValueError(f"pictures={pictures!r} is empty: give at least one picture")
        return [original for each in pictures for original in take_originals(each, channels, levels)]
    if isinstance(pictures, str | Path | Image.Image) and levels != PICTURE_LEVELS:
        raise ValueError(f"pictures of {PICTURE_LEVELS} levels: use arrays or tensors in [0, {levels})")
    if isinstance(pictures, str | Path):
        name = f"image {str(pictures)!r}"
        return [read_original(read_file(Path(pictures).expanduser()), name)]
    if isinstance(pictures, Image.Image):
        return [take_original(pictures, "the picture")]
    taken = take_images(pictures, channels, levels, gray=True, name="pictures")
    return [Original(x) for batch in taken.xs for x in batch]
