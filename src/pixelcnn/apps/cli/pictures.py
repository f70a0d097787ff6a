"""The commands `colorize`, `upscale`, `complete` and `score`, which work on picture files."""

__all__ = ["colorize", "complete", "score", "upscale"]

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import pixelcnn
import pixelcnn.pictures
import pixelcnn.tasks
from pixelcnn.apps.cli.options import (
    Compile,
    Consistent,
    Json,
    Map,
    Model,
    Overwrite,
    Precision,
    ScaleShift,
    Seed,
    SkipBroken,
    app,
    drawing_options,
    fail,
    load_model,
)
from pixelcnn.common.checks import check_whole
from pixelcnn.common.text import printable

if TYPE_CHECKING:
    from torch import Tensor

    from pixelcnn.models.image_model import ImageModel
    from pixelcnn.pictures.inputs import Origin
    from pixelcnn.pictures.sheets import Strip
    from pixelcnn.tasks.batches import Draw
    from pixelcnn.tasks.results import Results

Arguments = Annotated[
    list[str],
    typer.Argument(metavar="PICTURES", help="Pictures, folders of pictures, patterns, or - for standard input."),
]
Out = Annotated[Path, typer.Option(help="A folder; or, for a single result, a .png file or - for standard output.")]
Samples = Annotated[int, typer.Option(help="Number of results per picture, with seeds starting at --seed.")]
BatchSize = Annotated[int, typer.Option(help="Images of the same size drawn at once, memory permitting.")]
AT_ONCE = 8  # images: drawing several takes about as long per step as drawing one


@dataclass(frozen=True)
class _Task:
    """The common part of the drawing commands, with their options as attributes."""

    model: str
    pictures: list[str]
    out: Path
    samples: int
    seed: int
    batch_size: int
    skip_broken: bool
    overwrite: bool

    def run(
        self,
        draw: "Callable[[ImageModel, Tensor, Sequence[int], str], tuple[Strip, Tensor]]",
        *,
        mask: Path | None = None,
        gray: bool = False,
    ) -> None:
        """Draw from every picture and write the results; `gray` says that gray pictures are expected."""

        check_whole(samples=self.samples, batch_size=self.batch_size)
        check_whole(seed=self.seed, at_least=0)
        pixelcnn.tasks.check_out(self.out, self.overwrite)
        origins = pixelcnn.pictures.find_pictures(self.pictures, [self.out, *([mask] if mask else [])], _say)
        results = pixelcnn.tasks.plan_results(origins, self.out, self.samples, mask=mask)
        loaded = _load_for_pictures(self.model, None)
        self._draw(origins, loaded.formats[0][0], partial(draw, loaded), results, gray)
        if results.sheet is not None:
            print(printable(results.sheet))

    def _draw(self, origins: "Sequence[Origin]", channels: int, draw: "Draw", results: "Results", gray: bool) -> None:

        read = pixelcnn.pictures.Pictures(origins, channels, _say, skip_broken=self.skip_broken, gray=gray)
        finished = 0

        def show(file: Path, last: bool) -> None:
            nonlocal finished
            finished += last
            if str(file) != "-":
                print(printable(file), flush=True)

        with _counting(lambda: finished, len(origins), f"see {self.out}"):
            seeds = range(self.seed, self.seed + self.samples)
            pixelcnn.tasks.draw_alternatives(read, draw, results, seeds=seeds, batch_size=self.batch_size, done=show)
        _say_left_out(read.left_out, len(origins))


@app.command()
def colorize(
    model: Model,
    pictures: Arguments,
    out: Out,
    samples: Samples = 1,
    seed: Seed = 0,
    batch_size: BatchSize = AT_ONCE,
    scale_shift: ScaleShift = 0.0,
    map: Map = False,
    precision: Precision = "float32",
    compile: Compile = False,
    skip_broken: SkipBroken = False,
    overwrite: Overwrite = False,
) -> None:
    """Colorize gray pictures with a Grayscale model; the result has the same gray view as the picture."""

    drawing = drawing_options(precision, scale_shift, map, compile)

    def draw(loaded: "ImageModel", x: "Tensor", seeds: Sequence[int], title: str) -> "tuple[Strip, Tensor]":
        drawn = pixelcnn.colorize(loaded, x, seed=seeds, options=replace(drawing, progress=title))
        return ("gray view", loaded.views(drawn)[1], loaded.formats[1][1]), drawn

    task = _Task(model, pictures, out, samples, seed, batch_size, skip_broken, overwrite)
    task.run(draw, gray=True)


@app.command()
def upscale(
    model: Model,
    pictures: Arguments,
    out: Out,
    factor: Annotated[int, typer.Option(help="Enlargement: 2, 4, ... up to the depth of the model.")] = 2,
    samples: Samples = 1,
    seed: Seed = 0,
    batch_size: BatchSize = AT_ONCE,
    scale_shift: ScaleShift = 0.0,
    map: Map = False,
    precision: Precision = "float32",
    compile: Compile = False,
    skip_broken: SkipBroken = False,
    overwrite: Overwrite = False,
) -> None:
    """Enlarge pictures with a Pyramid model; the result, reduced again, is identical to the picture."""

    drawing = drawing_options(precision, scale_shift, map, compile)

    def draw(loaded: "ImageModel", x: "Tensor", seeds: Sequence[int], title: str) -> "tuple[Strip, Tensor]":
        drawn = pixelcnn.upscale(loaded, x, factor, seed=seeds, options=replace(drawing, progress=title))
        return ("given", x, loaded.levels), drawn

    task = _Task(model, pictures, out, samples, seed, batch_size, skip_broken, overwrite)
    task.run(draw)


@app.command()
def complete(
    model: Model,
    pictures: Arguments,
    out: Out,
    mask: Annotated[Path | None, typer.Option(help="A picture that is white where pixels should be drawn.")] = None,
    box: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(
            metavar="LEFT TOP RIGHT BOTTOM", help="The box to draw instead, in pixels from the upper left corner."
        ),
    ] = None,
    samples: Samples = 1,
    seed: Seed = 0,
    batch_size: BatchSize = AT_ONCE,
    scale_shift: ScaleShift = 0.0,
    map: Map = False,
    precision: Precision = "float32",
    compile: Compile = False,
    skip_broken: SkipBroken = False,
    overwrite: Overwrite = False,
) -> None:
    """Fill in the unknown part of pictures and keep the rest."""

    if (mask is None) == (box is None):
        raise ValueError("give the part to draw: use either --mask FILE or --box LEFT TOP RIGHT BOTTOM")
    if str(mask) == "-" and "-" in pictures:
        raise ValueError("standard input can hold the picture or the mask, not both: name a file for one of the two")
    painted = pixelcnn.pictures.read_mask(mask) if mask else None
    for note in painted.notes if painted else ():
        _say(f"the mask {mask}: {note}")
    drawing = drawing_options(precision, scale_shift, map, compile)

    def draw(loaded: "ImageModel", x: "Tensor", seeds: Sequence[int], title: str) -> "tuple[Strip, Tensor]":
        size = x.shape[2], x.shape[3]
        unknown = painted.of_size(size) if painted else pixelcnn.pictures.box_mask(box or (0, 0, 0, 0), size)
        given = ("given", x.masked_fill(unknown, loaded.levels // 2), loaded.levels)
        return given, pixelcnn.complete(loaded, x, unknown, seed=seeds, options=replace(drawing, progress=title))

    task = _Task(model, pictures, out, samples, seed, batch_size, skip_broken, overwrite)
    task.run(draw, mask=mask)


@app.command()
def score(
    model: Model,
    pictures: Arguments,
    heat_maps: Annotated[
        Path | None,
        typer.Option(help="A folder for maps of the bits that each pixel costs; or, for a single map, a .png file."),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print figures as CSV.")] = False,
    consistent: Consistent = None,
    skip_broken: SkipBroken = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Score each picture in bits per dimension, in total and per factor."""

    if csv and json:
        raise ValueError("--csv and --json: use one of the two")
    results = None
    if heat_maps is not None:
        if str(heat_maps) == "-":
            raise ValueError("--heat-maps '-': standard output is for the scores; name a folder")
        pixelcnn.tasks.check_out(heat_maps, overwrite, "--heat-maps")
    origins = pixelcnn.pictures.find_pictures(pictures, [heat_maps] if heat_maps else [], _say)
    if heat_maps is not None:
        results = pixelcnn.tasks.plan_results(origins, heat_maps, option="--heat-maps")
    loaded = _load_for_pictures(model, consistent)
    read = pixelcnn.pictures.Pictures(origins, loaded.formats[0][0], _say, skip_broken=skip_broken)
    names = ["total", *[f"factor {k}" for k in range(len(loaded.factors))]]
    finished = 0
    with (
        _printing(names, csv=csv, json=json) as show,
        _counting(lambda: finished, len(origins), "with the scores above"),
    ):
        for name, bits in pixelcnn.tasks.score_pictures(loaded, read, results, progress=True):
            show(name, bits)
            finished += 1
    _say_left_out(read.left_out, len(origins))


@contextmanager
def _printing(names: list[str], *, csv: bool, json: bool) -> "Iterator[Callable[[str, list[float]], None]]":
    """Print scores picture by picture; the output is complete and valid even after an interruption."""
    from csv import writer

    rows = 0
    table = writer(sys.stdout, lineterminator="\n")

    def show(name: str, bits: list[float]) -> None:
        nonlocal rows
        if json:
            print("[" if rows == 0 else ",", dumps({"picture": name} | dict(zip(names, bits, strict=True))), sep="")
        elif csv:
            table.writerow([name, *bits])
        else:
            if rows == 0:
                print("bits per dimension")
                print("  ".join([f"{each:>8}" for each in names] + ["picture"]))
            print("  ".join([f"{each:>8.4f}" for each in bits] + [printable(name)]))
        rows += 1
        sys.stdout.flush()

    if csv:
        table.writerow(["picture", *names])
    try:
        yield show
    finally:
        if json:
            print("]" if rows else "[]")


@contextmanager
def _counting(finished: Callable[[], int], number: int, where: str) -> Iterator[None]:
    """Add the number of finished pictures to errors."""
    try:
        yield
    except KeyboardInterrupt:
        fail(f"interrupted: {finished()} of {number} pictures are done" + (f"; {where}" if finished() else ""), 130)
    except BrokenPipeError:
        raise
    except (ValueError, FloatingPointError, MemoryError, OSError) as error:
        fail(str(error) + (f"; {finished()} of {number} pictures are done, {where}" if finished() else ""), 2)


def _load_for_pictures(model: str, consistent: bool | None) -> "ImageModel":
    """Load a model, which must have the 256 levels of pictures.

    Raises:
        ValueError: if the model has another number of levels, so that it cannot read or draw pictures.
    """
    loaded = load_model(model, consistent)
    if loaded.levels != 256:
        raise ValueError(f"{model!r} has levels={loaded.levels}, and pictures have 256: use another model")
    return loaded


def _say(note: str) -> None:
    print(f"pixelcnn: {printable(note)}", file=sys.stderr)


def _say_left_out(left_out: int, number: int) -> None:
    if left_out:
        _say(f"left out {left_out} of {number} pictures that cannot be read")
