"""What can be asked about many pictures: from some of them, each with its bytes, to a row of the results for each.

A verb says which columns its rows have and how many consecutive pictures it takes together. Which pictures these are
follows from their places among all, never from who works on them.
"""

__all__ = ["Compress", "Row", "Score", "Taken", "Verb", "Work", "columns", "decode"]

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from pixelcnn.data.decode import Preparation
from pixelcnn.data.originals import Original, read_original
from pixelcnn.models.codec import Codec
from pixelcnn.models.image_model import ImageModel
from pixelcnn.pictures.inputs import heeding
from pixelcnn.tasks.scoring import surprisal

if TYPE_CHECKING:
    import pyarrow

Row = dict[str, Any]


class Taken(NamedTuple):
    """A picture that was decoded: its name, the bytes of its file, and its pixels."""

    name: str
    content: bytes
    pixels: Tensor | Original


class Work(NamedTuple):
    """A verb with its model at hand.

    Attributes:
        take: decodes a picture from its bytes and its name; raises a ValueError if that cannot be done.
        answer: answers for pictures that are taken together, with a row for each.
    """

    take: Callable[[bytes, str], Tensor | Original]
    answer: Callable[[Sequence[Taken]], list[Row]]


class Verb(ABC):
    """A question about each of many pictures, with its options."""

    rows = 256
    """Pictures for each file of the results, unless the user says otherwise."""
    sums: Sequence[str] = ()
    """Columns that are summed over all pictures."""

    @property
    @abstractmethod
    def together(self) -> int:
        """Number of consecutive pictures that are taken together."""

    @abstractmethod
    def schema(self) -> "pyarrow.Schema":
        """Return the columns of the results."""

    @abstractmethod
    def start(self, model: ImageModel) -> Work:
        """Prepare to work with a model; raise a ValueError if it cannot do this."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """List the options that the results depend on, for the manifest."""


def columns(*columns: tuple[str, Any]) -> "pyarrow.Schema":
    """Return the columns that all results have, and some more."""
    import pyarrow

    return pyarrow.schema([("name", pyarrow.string()), ("error", pyarrow.string()), *columns])


def decode(model: ImageModel, content: bytes, name: str) -> Tensor:
    """Decode a picture to integers (C, H, W)."""
    with heeding():
        pixels = Preparation(model.formats[0][0], None, None)({"bytes": content, "path": name}, 0)
    return torch.tensor(pixels).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class Score(Verb):
    """Score each picture alone, as `pixelcnn score` does."""

    sums = "bits", "bits_of_views", "dimensions"

    @property
    def together(self) -> int:
        return 1

    def schema(self) -> "pyarrow.Schema":
        import pyarrow

        whole, number = pyarrow.int64(), pyarrow.float64()
        sizes = [(each, whole) for each in ("width", "height", "dimensions")]
        return columns(*sizes, ("bits", number), ("bits_of_views", pyarrow.list_(number)))

    def start(self, model: ImageModel) -> Work:
        def answer(taken: Sequence[Taken]) -> list[Row]:
            return [_score(model, each.name, each.pixels) for each in taken]

        return Work(partial(decode, model), answer)

    def describe(self) -> dict[str, Any]:
        return {}


def _score(model: ImageModel, name: str, x: Any) -> Row:
    bits = [float(each.cpu().double().sum()) for each in surprisal(model, x[None])]
    size = {"width": x.shape[2], "height": x.shape[1], "dimensions": x.numel()}
    return {"name": name, **size, "bits": sum(bits), "bits_of_views": bits}


@dataclass(frozen=True)
class Compress(Verb):
    """Compress each picture without loss, to what `pixelcnn compress` writes to its file.

    Args:
        model_name: a hint in the files.
        label: the class of all pictures, for a model with classes.
    """

    model_name: str = ""
    label: int | None = None
    sums = "bytes", "bytes_before"

    @property
    def together(self) -> int:
        return 16  # those of one size take less time together, and the bytes are the same

    def schema(self) -> "pyarrow.Schema":
        import pyarrow

        whole = pyarrow.int64()
        sizes = [(each, whole) for each in ("width", "height", "bytes_before", "bytes")]
        return columns(*sizes, ("content", pyarrow.binary()))

    def start(self, model: ImageModel) -> Work:
        codec = Codec(model, self.model_name)

        def take(content: bytes, name: str) -> Original:
            original = read_original(content, f"image {name!r}")
            if len(original.x) > codec.channels:
                raise ValueError(f"image {name!r} is in color, and the model of gray: use a model of color")
            return original

        def answer(taken: Sequence[Taken]) -> list[Row]:
            originals: list[Any] = [each.pixels for each in taken]
            labels = None if self.label is None else [self.label] * len(taken)
            return [
                {
                    "name": each.name,
                    "width": original.x.shape[2],
                    "height": original.x.shape[1],
                    "bytes_before": len(each.content),
                    "bytes": len(file),
                    "content": file,
                }
                for each, original, file in zip(taken, originals, codec.compress(originals, labels), strict=True)
            ]

        return Work(take, answer)

    def describe(self) -> dict[str, Any]:
        return {"label": self.label}
