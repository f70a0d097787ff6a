"""What a page asks for, checked field by field: pages are not trusted."""

__all__ = ["Asked"]

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelcnn.apps.studio.uploads import MOST_SIDE
from pixelcnn.models.image_model import ImageModel

MOST_SHIFT = 5.0


@dataclass(frozen=True, eq=False)
class Asked:
    """A request: its fields and its payload.

    All methods raise a ValueError that names the field if it is not as it should be.
    """

    fields: dict[str, Any]
    payload: bytes

    def whole(self, name: str, least: int, most: int, default: int | None = None) -> int:
        """Return a whole number."""
        value = self.fields.get(name, default)
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"{name}={value!r}: use a whole number from {least} to {most}")
        return value

    @property
    def do(self) -> str | None:
        """What to do."""
        value = self.fields.get("do")
        return value if isinstance(value, str) else None

    @property
    def seed(self) -> int:
        return self.whole("seed", 0, 2**31 - 1, 0)

    @property
    def shift(self) -> float:
        """The scale shift."""
        value = self.fields.get("shift", 0)
        if type(value) not in (int, float) or not math.isfinite(value) or abs(value) > MOST_SHIFT:
            raise ValueError(f"shift={value!r}: use a number from {-MOST_SHIFT:g} to {MOST_SHIFT:g}")
        return float(value)

    @property
    def map(self) -> bool:
        return self.fields.get("map", False) is True

    @property
    def name(self) -> str:
        """The name of a file; it is shown, and never opened."""
        value = self.fields.get("name")
        return value[:255] if isinstance(value, str) and value else "picture"

    def size(self, model: ImageModel) -> tuple[int, int]:
        """Return (H, W) of the images to draw, which is that of the model if none is asked for."""
        if self.fields.get("size") is None:
            return model.size or (32, 32)
        side = self.whole("size", 1, MOST_SIDE)
        return side, side

    def label(self, model: ImageModel) -> int | None:
        """Return the class of the images to draw, for a model with classes."""
        return self.whole("label", 0, model.classes - 1, 0) if model.classes else None

    def mask(self, size: tuple[int, int]) -> Tensor:
        """Return the unknown pixels, bool (H, W): the payload has a byte for each."""
        if len(self.payload) != size[0] * size[1]:
            raise ValueError(
                f"a hole of {len(self.payload)} pixels in a picture of {size[1]}x{size[0]}: paint it again"
            )
        return torch.from_numpy(np.frombuffer(self.payload, np.uint8).reshape(size) != 0)
