"""The commands `colorize`, `upscale` and `complete`, which draw from picture files."""

__all__ = ["colorize", "complete", "upscale"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import pixelcnn
import pixelcnn.pictures
import pixelcnn.tasks
from pixelcnn.apps.cli.help import PICTURES
from pixelcnn.apps.cli.options import (
    DRAWING,
    Address,
    Device,
    EngineName,
    Map,
    Model,
    Overwrite,
    Precision,
    Rows,
    ScaleShift,
    Seed,
    SkipBroken,
    Workers,
    command,
    drawing_options,
)
from pixelcnn.apps.cli.shared import Arguments, Many, counting, load_for_pictures, say, say_left_out
from pixelcnn.common.checks import check_whole
from pixelcnn.common.text import printable

if TYPE_CHECKING:
    from torch import Tensor

    from pixelcnn.models.image_model import ImageModel
    from pixelcnn.pictures.inputs import Origin
    from pixelcnn.pictures.sheets import Strip
    from pixelcnn.tasks.batches import Draw
    from pixelcnn.tasks.results import Results

Out = Annotated[Path, typer.Option(help="A folder; or, for a single result, a .png file or - for standard output.")]
Samples = Annotated[int, typer.Option(help="Number of results per picture, with seeds starting at --seed.")]
BatchSize = Annotated[
    int, typer.Option(help="Images of the same size drawn at once, memory permitting.", rich_help_panel=DRAWING)
]
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
    device: str
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
        origins = pixelcnn.pictures.find_pictures(self.pictures, [self.out, *([mask] if mask else [])], say)
        results = pixelcnn.tasks.plan_results(origins, self.out, self.samples, mask=mask)
        loaded = load_for_pictures(self.model, None, self.device)
        self._draw(origins, loaded.formats[0][0], partial(draw, loaded), results, gray)
        if results.sheet is not None:
            print(printable(results.sheet))

    def _draw(self, origins: "Sequence[Origin]", channels: int, draw: "Draw", results: "Results", gray: bool) -> None:
        read = pixelcnn.pictures.Pictures(origins, channels, say, skip_broken=self.skip_broken, gray=gray)
        finished = 0

        def show(file: Path, last: bool) -> None:
            nonlocal finished
            finished += last
            if str(file) != "-":
                print(printable(file), flush=True)

        with counting(lambda: finished, len(origins), f"see {self.out}"):
            seeds = range(self.seed, self.seed + self.samples)
            pixelcnn.tasks.draw_alternatives(read, draw, results, seeds=seeds, batch_size=self.batch_size, done=show)
        say_left_out(read.left_out, len(origins))


@command(PICTURES)
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
    device: Device = "auto",
    skip_broken: SkipBroken = False,
    overwrite: Overwrite = False,
    engine: EngineName = None,
    address: Address = None,
    workers: Workers = None,
    rows: Rows = None,
) -> None:
    """Colorize gray pictures with a Grayscale model. The result has the same gray view as the picture."""
    drawing = drawing_options(precision, scale_shift, map)
    many = Many(engine, address, workers, rows, device, overwrite)
    if many.wanted({"--samples": samples > 1}):
        how = pixelcnn.cluster.Drawing(seed, batch_size, options=drawing)
        loaded = load_for_pictures(model, None, "cpu")
        many.show(pixelcnn.cluster.colorize(pictures, loaded, out, how, many.how()), out)
        return

    def draw(loaded: "ImageModel", x: "Tensor", seeds: Sequence[int], title: str) -> "tuple[Strip, Tensor]":
        drawn = pixelcnn.colorize(loaded, x, seed=seeds, options=replace(drawing, progress=title))
        return ("gray view", loaded.views(drawn)[1], loaded.formats[1][1]), drawn

    task = _Task(model, pictures, out, samples, seed, batch_size, device, skip_broken, overwrite)
    task.run(draw, gray=True)


@command(PICTURES)
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
    device: Device = "auto",
    skip_broken: SkipBroken = False,
    overwrite: Overwrite = False,
    engine: EngineName = None,
    address: Address = None,
    workers: Workers = None,
    rows: Rows = None,
) -> None:
    """Enlarge pictures with a Pyramid model. The result, reduced again, is identical to the picture."""
    drawing = drawing_options(precision, scale_shift, map)
    many = Many(engine, address, workers, rows, device, overwrite)
    if many.wanted({"--samples": samples > 1}):
        how = pixelcnn.cluster.Drawing(seed, batch_size, options=drawing)
        loaded = load_for_pictures(model, None, "cpu")
        many.show(pixelcnn.cluster.upscale(pictures, loaded, out, factor, how, many.how()), out)
        return

    def draw(loaded: "ImageModel", x: "Tensor", seeds: Sequence[int], title: str) -> "tuple[Strip, Tensor]":
        drawn = pixelcnn.upscale(loaded, x, factor, seed=seeds, options=replace(drawing, progress=title))
        return ("given", x, loaded.levels), drawn

    task = _Task(model, pictures, out, samples, seed, batch_size, device, skip_broken, overwrite)
    task.run(draw)


@command(PICTURES)
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
    candidates: Annotated[
        int, typer.Option(help="Fillings to draw of each view and to choose from: more fit better, and take longer.")
    ] = 1,
    samples: Samples = 1,
    seed: Seed = 0,
    batch_size: BatchSize = AT_ONCE,
    scale_shift: ScaleShift = 0.0,
    map: Map = False,
    precision: Precision = "float32",
    device: Device = "auto",
    skip_broken: SkipBroken = False,
    overwrite: Overwrite = False,
) -> None:
    """Fill in the unknown part of pictures, and keep the rest."""
    check_whole(candidates=candidates)
    if (mask is None) == (box is None):
        raise ValueError("give the part to draw: use either --mask FILE or --box LEFT TOP RIGHT BOTTOM")
    if str(mask) == "-" and "-" in pictures:
        raise ValueError("standard input can hold the picture or the mask, not both: name a file for one of the two")
    painted = pixelcnn.pictures.read_mask(mask) if mask else None
    for note in painted.notes if painted else ():
        say(f"the mask {mask}: {note}")
    drawing = drawing_options(precision, scale_shift, map)

    def draw(loaded: "ImageModel", x: "Tensor", seeds: Sequence[int], title: str) -> "tuple[Strip, Tensor]":
        size = x.shape[2], x.shape[3]
        unknown = painted.of_size(size) if painted else pixelcnn.pictures.box_mask(box or (0, 0, 0, 0), size)
        given = ("given", x.masked_fill(unknown, loaded.levels // 2), loaded.levels)
        options = replace(drawing, progress=title)
        return given, pixelcnn.complete(loaded, x, unknown, candidates=candidates, seed=seeds, options=options)

    task = _Task(model, pictures, out, samples, seed, batch_size, device, skip_broken, overwrite)
    task.run(draw, mask=mask)
