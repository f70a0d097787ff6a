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
from PIL import Image
from torch import Tensor

from pixelcnn.data.decode import BrokenImageError, open_picture, read_file
from pixelcnn.data.masks import read_painted
from pixelcnn.pictures.inputs import PIPE, heeding

NEAR = 0.1  # of the range: closer than this counts as plain black or white
MANY = 0.02  # share of the pixels that deserves a note


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
        painted = read_painted(_open(mask), repr(name))
    if painted.clear:
        notes.append("its transparent pixels count as black, and are kept")
    unknown = painted.unknown
    return Mask(name, torch.from_numpy(unknown), notes + _describe(painted.light, unknown))


def _open(mask: Path) -> Image.Image:
    name = str(mask)
    try:
        content = sys.stdin.buffer.read() if name == PIPE else read_file(mask.expanduser())
        return open_picture(content, "it")
    except BrokenImageError as error:
        raise ValueError(f"the mask {name!r}: {str(error).rpartition(': ')[0]}; name another --mask") from None


def _describe(light: np.ndarray, unknown: np.ndarray) -> list[str]:
    between = ((light > NEAR) & (light < 1 - NEAR)).mean()
    notes = []
    if between > MANY:
        notes.append(f"{between:.0%} of its pixels are neither black nor white; those lighter than half are drawn")
    if unknown.mean() > 0.5:
        notes.append(f"{unknown.mean():.0%} of it is white and will be drawn; if you meant the rest, invert the mask")
    return notes
