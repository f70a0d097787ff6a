"""Verbs that draw: enlarge pictures, color them, or draw images from nothing."""

__all__ = ["Colorize", "Drawing", "Sample", "Upscale"]

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pixelcnn.common.checks import check_whole
from pixelcnn.models.draw import DrawOptions
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.sampling import colorize, sample, upscale
from pixelcnn.pictures.sheets import to_picture, to_png
from pixelcnn.tasks.cluster.verbs import Row, Taken, Verb, Work, columns, decode

if TYPE_CHECKING:
    import pyarrow


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
        return columns(("seed", pyarrow.int64()), ("image", image))

    def describe(self) -> dict[str, Any]:
        return self.drawing.describe()

    def start(self, model: ImageModel) -> Work:
        return Work(partial(decode, model), partial(self._draw, model))

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
