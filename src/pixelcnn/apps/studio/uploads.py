"""Pictures that people bring: checked before they are decoded, and made small enough to work on."""

__all__ = ["MOST_BYTES", "MOST_PIXELS", "MOST_SIDE", "Photo", "is_packed", "open_packed", "open_photo", "sample_photos"]

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pixelcnn.codec.chunks import DamagedError
from pixelcnn.codec.container import SIGNATURE, read_file
from pixelcnn.data.decode import BrokenImageError, Preparation, open_picture
from pixelcnn.data.given import GRAY_MODES
from pixelcnn.data.images import load_images
from pixelcnn.models.codec import Codec
from pixelcnn.models.restored import unpack_png
from pixelcnn.pictures.inputs import describe_losses, heeding

MOST_BYTES = 2**24  # of a file
MOST_PIXELS = 2**24  # of a picture before it is made smaller
MOST_SIDE = 512  # of a picture that is worked on
Counter = Callable[[int], Callable[[int], None]]
SAMPLES = (0, 3, 7, 12, 18, 24, 30, 36)  # of the held-out photographs


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture on the page: integers (C, H, W) in [0, 256), gray or color, and notes on what was changed."""

    name: str
    x: Tensor
    notes: list[str]

    @property
    def size(self) -> tuple[int, int]:
        return self.x.shape[1], self.x.shape[2]


def is_packed(content: bytes) -> bool:
    """Whether this is a compressed picture (`.pxc`)."""
    return content[: len(SIGNATURE)] == SIGNATURE


def open_photo(content: bytes, name: str, side: int) -> Photo:
    """Decode a picture upright, and average it down until no side is longer than `side`.

    Raises:
        ValueError: if it is too large, or cannot be read.
    """
    _check_bytes(content, name)
    try:
        with heeding() as notes:
            picture = open_picture(content, repr(name), MOST_PIXELS)
            channels = 1 if picture.mode in GRAY_MODES else 3
            notes += describe_losses(picture, channels, gray=True)
            pixels = Preparation(channels, None, None)({"bytes": content, "path": name}, 0)
    except BrokenImageError as error:
        raise ValueError(f"{str(error).rpartition(': ')[0]}: choose another picture") from None  # other advice
    H, W, C = pixels.shape
    if max(H, W) > side:
        width, height = (max(1, round(each * side / max(H, W))) for each in (W, H))
        small = Image.fromarray(pixels[:, :, 0] if C == 1 else pixels).resize((width, height), Image.Resampling.BOX)
        pixels = np.asarray(small).reshape(small.height, small.width, C)
        notes.append(f"it was scaled down from {W}x{H}")
    return Photo(name, torch.tensor(pixels).permute(2, 0, 1).contiguous(), notes)


def open_packed(content: bytes, name: str, codecs: list[Codec], counter: Counter) -> Photo:
    """Decode a compressed picture.

    Args:
        content, name: of the file.
        codecs: of the models that may have compressed it.
        counter: makes a function that is called with the number of pixels that are decoded, given that of all.

    Raises:
        ValueError: if it is damaged, too large, or compressed with another model.
    """
    _check_bytes(content, name)
    file = read_file(content)
    H, W = file.shape.height, file.shape.width
    if H * W > MOST_SIDE**2:
        raise ValueError(f"{name!r} is {W}x{H}: compressed pictures can have at most {MOST_SIDE**2:,} pixels here")
    if file.png is not None:
        restored = unpack_png(file)
    else:
        fitting = [each for each in codecs if each.coding._replace(name="") == file.coding._replace(name="")]
        if not fitting:
            raise ValueError(
                f"{name!r} was compressed with a model that this studio does not have ({file.coding.name!r})"
            )
        (restored,) = fitting[0].restore([file], count=counter(fitting[0].chain.pixels((H, W))))
    if isinstance(restored, DamagedError):
        raise restored
    notes = ["the file is cut off, and this is its last whole view"] if restored.view else []
    notes += ["its transparency is ignored"] if restored.original.alpha is not None else []
    return Photo(name, restored.original.x, notes)


def _check_bytes(content: bytes, name: str) -> None:
    if len(content) > MOST_BYTES:
        raise ValueError(f"{name!r} is {len(content) / 1e6:.1f} MB: use files of at most {MOST_BYTES / 1e6:.1f} MB")


@cache
def sample_photos() -> list[Photo]:
    """Return photographs to try, which the shipped models have not seen."""
    photos = load_images("photos", "test")
    return [Photo(f"photograph {i}", photos[index], []) for i, index in enumerate(SAMPLES, 1)]
