"""What can be asked about many pictures: from some of them, each with its bytes, to a row of the results for each.

A verb says which columns its rows have and how many consecutive pictures it takes together. Which pictures these are
follows from their places among all, never from who works on them.
"""

__all__ = ["Colorize", "Compress", "Drawing", "Row", "Sample", "Score", "Taken", "Upscale", "Verb", "Work"]

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from pixelcnn.common.checks import check_whole
from pixelcnn.data.decode import Preparation
from pixelcnn.data.originals import Original, read_original
from pixelcnn.models.codec import Codec
from pixelcnn.models.draw import DrawOptions
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.sampling import colorize, sample, upscale
from pixelcnn.pictures.inputs import heeding
from pixelcnn.pictures.sheets import to_picture, to_png
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


def _columns(*columns: tuple[str, Any]) -> "pyarrow.Schema":
    import pyarrow

    return pyarrow.schema([("name", pyarrow.string()), ("error", pyarrow.string()), *columns])


def _decode(model: ImageModel, content: bytes, name: str) -> Tensor:
    with heeding():
        pixels = Preparation(model.formats[0][0], None, None)({"bytes": content, "path": name}, 0)
    return torch.tensor(pixels).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class Score(Verb):
    """Score each picture alone, as `pixelcnn score` does."""

    together, sums = 1, ("bits", "bits_of_views", "dimensions")

    def schema(self) -> "pyarrow.Schema":
        import pyarrow

        whole, number = pyarrow.int64(), pyarrow.float64()
        sizes = [(each, whole) for each in ("width", "height", "dimensions")]
        return _columns(*sizes, ("bits", number), ("bits_of_views", pyarrow.list_(number)))

    def start(self, model: ImageModel) -> Work:
        def answer(taken: Sequence[Taken]) -> list[Row]:
            return [_score(model, each.name, each.pixels) for each in taken]

        return Work(partial(_decode, model), answer)

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
    together, sums = 16, ("bytes", "bytes_before")  # bytes do not depend on the others

    def schema(self) -> "pyarrow.Schema":
        import pyarrow

        whole = pyarrow.int64()
        sizes = [(each, whole) for each in ("width", "height", "bytes_before", "bytes")]
        return _columns(*sizes, ("content", pyarrow.binary()))

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


@dataclass(frozen=True)
class Drawing:
    """How to draw for many pictures.

    Args:
        seed: together with the bytes of its file, it decides the random numbers of a picture, wherever it is among the
            others. `sample`, which is given no pictures, draws image i with `seed + i`.
        at_once: consecutive pictures of one size that are drawn together, which is faster. Other groups round
            differently, so results may depend on it, and on nothing else about how the work is done.
        label: the class of all images, for a model with classes.
        options: see `pixelcnn.DrawOptions`.
    """

    seed: int = 0
    at_once: int = 8
    label: int | None = None
    options: DrawOptions = field(default_factory=DrawOptions)

    def __post_init__(self) -> None:
        check_whole(at_once=self.at_once)
        check_whole(at_least=0, seed=self.seed)

    def seed_of(self, content: bytes) -> int:
        """Return the seed of a picture, from the bytes of its file."""
        digest = hashlib.blake2b(content, digest_size=6, salt=self.seed.to_bytes(16, "little")).digest()
        return int.from_bytes(digest)

    def quiet(self, *, consistent: bool | None = None) -> DrawOptions:
        """Return the options without what belongs to one process."""
        kept = self.options.consistent if consistent is None else consistent
        return replace(self.options, progress=False, callback=None, consistent=kept)

    def describe(self) -> dict[str, Any]:
        options = {
            "scale_shift": self.options.scale_shift,
            "map": self.options.map,
            "dtype": str(self.options.dtype or torch.float32).removeprefix("torch."),
        }
        return {"seed": self.seed, "at_once": self.at_once, "label": self.label, **options}


@dataclass(frozen=True)
class _Draws(Verb):
    drawing: Drawing
    rows = 64

    @property
    def together(self) -> int:
        return self.drawing.at_once

    def schema(self) -> "pyarrow.Schema":
        import pyarrow

        image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])  # as `datasets` reads it
        return _columns(("seed", pyarrow.int64()), ("image", image))

    def describe(self) -> dict[str, Any]:
        return self.drawing.describe()

    def start(self, model: ImageModel) -> Work:
        return Work(partial(_decode, model), partial(self._draw, model))

    def _draw(self, model: ImageModel, taken: Sequence[Taken]) -> list[Row]:
        """Draw for pictures, those of one size together."""
        alike: dict[tuple[int, ...], list[int]] = {}
        for i, each in enumerate(taken):
            assert isinstance(each.pixels, Tensor)
            alike.setdefault(tuple(each.pixels.shape), []).append(i)
        rows: dict[int, Row] = {}
        for places in alike.values():
            x = torch.stack([taken[i].pixels for i in places])  # pyright: ignore[reportArgumentType]
            seeds = [self.drawing.seed_of(taken[i].content) for i in places]
            for i, seed, drawn in zip(places, seeds, self.draw(model, x, seeds), strict=True):
                rows[i] = _picture(taken[i].name, seed, drawn, model.levels)
        return [rows[i] for i in range(len(taken))]

    def draw(self, model: ImageModel, x: Tensor, seeds: list[int]) -> Tensor:
        raise NotImplementedError


def _picture(name: str, seed: int, x: Tensor, levels: int) -> Row:
    content = to_png(to_picture(x, levels))
    return {"name": name, "seed": seed, "image": {"bytes": content, "path": f"{name}.png"}}


@dataclass(frozen=True)
class Upscale(_Draws):
    """Enlarge each picture."""

    factor: int = 2

    def draw(self, model: ImageModel, x: Tensor, seeds: list[int]) -> Tensor:
        label, options = self.drawing.label, self.drawing.quiet(consistent=True)
        return upscale(model, x, self.factor, seed=seeds, labels=label, options=options)

    def describe(self) -> dict[str, Any]:
        return {"factor": self.factor, **super().describe()}


@dataclass(frozen=True)
class Colorize(_Draws):
    """Draw colors for each picture."""

    def draw(self, model: ImageModel, x: Tensor, seeds: list[int]) -> Tensor:
        label, options = self.drawing.label, self.drawing.quiet(consistent=True)
        return colorize(model, x, seed=seeds, labels=label, options=options)


@dataclass(frozen=True)
class Sample(_Draws):
    """Draw images from nothing; their names are their seeds."""

    size: int | tuple[int, int] | None = None

    def start(self, model: ImageModel) -> Work:
        def draw(taken: Sequence[Taken]) -> list[Row]:
            seeds = [int(each.name) for each in taken]
            label, options = self.drawing.label, self.drawing.quiet()
            drawn = sample(model, len(seeds), self.size, seed=seeds, labels=label, options=options)
            return [_picture(each.name, int(each.name), x, model.levels) for each, x in zip(taken, drawn, strict=True)]

        return Work(lambda content, name: torch.zeros(0), draw)

    def describe(self) -> dict[str, Any]:
        return {"size": self.size, **super().describe()}
