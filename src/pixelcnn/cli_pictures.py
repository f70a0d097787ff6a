"""The verbs of the command line that take pictures: `colorize`, `upscale`, `complete` and `score`."""

__all__ = ["colorize", "complete", "score", "upscale"]

import sys
from collections.abc import Callable, Iterator
from functools import partial
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pixelcnn.cli import (
    Compile,
    Consistent,
    Json,
    Map,
    Model,
    Overwrite,
    Precision,
    ScaleShift,
    Seed,
    app,
    drawing_options,
    fail,
    load_model,
)

if TYPE_CHECKING:
    from torch import Tensor

    from pixelcnn.figures import Strip
    from pixelcnn.models import ImageModel
    from pixelcnn.pictures import Picture

Pictures = Annotated[
    str, typer.Argument(metavar="PICTURES", help="A picture, a folder of pictures, or - for standard input.")
]
Out = Annotated[Path, typer.Option(help="A folder; or, for a single result, a .png file or - for standard output.")]
Samples = Annotated[int, typer.Option(help="Alternatives for each picture, with the seeds from --seed on.")]


@app.command()
def colorize(
    model: Model,
    pictures: Pictures,
    out: Out,
    samples: Samples = 1,
    seed: Seed = 0,
    scale_shift: ScaleShift = 0.0,
    map: Map = False,
    precision: Precision = "float32",
    compile: Compile = False,
    overwrite: Overwrite = False,
) -> None:
    """Colour grey pictures with a Grayscale model; the grey view of the result is that of the picture."""
    from pixelcnn.sampling import colorize

    drawing = drawing_options(precision, scale_shift, map, compile) | {"seed": seed}

    def draw(loaded: "ImageModel", x: "Tensor") -> "tuple[Strip, Tensor]":
        drawn = colorize(loaded, x, **drawing)
        return ("grey view", loaded.views(drawn)[1], loaded.formats[1][1]), drawn

    _draw_all(model, pictures, out, samples, overwrite, draw, silent=True)  # that grey is taken as colour is the point


@app.command()
def upscale(
    model: Model,
    pictures: Pictures,
    out: Out,
    factor: Annotated[int, typer.Option(help="How many times larger: 2, 4, ... up to the model's depth.")] = 2,
    samples: Samples = 1,
    seed: Seed = 0,
    scale_shift: ScaleShift = 0.0,
    map: Map = False,
    precision: Precision = "float32",
    compile: Compile = False,
    overwrite: Overwrite = False,
) -> None:
    """Enlarge pictures with a Pyramid model; the result, made small again, is the picture."""
    from pixelcnn.sampling import upscale

    drawing = drawing_options(precision, scale_shift, map, compile) | {"seed": seed}

    def draw(loaded: "ImageModel", x: "Tensor") -> "tuple[Strip, Tensor]":
        return ("given", x, loaded.levels), upscale(loaded, x, factor, **drawing)

    _draw_all(model, pictures, out, samples, overwrite, draw)


@app.command()
def complete(
    model: Model,
    pictures: Pictures,
    out: Out,
    mask: Annotated[Path | None, typer.Option(help="A picture that is white where pixels are to be drawn.")] = None,
    box: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(metavar="LEFT TOP RIGHT BOTTOM", help="Or the box to draw: pixels from the upper left corner."),
    ] = None,
    samples: Samples = 1,
    seed: Seed = 0,
    scale_shift: ScaleShift = 0.0,
    map: Map = False,
    precision: Precision = "float32",
    compile: Compile = False,
    overwrite: Overwrite = False,
) -> None:
    """Draw the unknown part of pictures; what is known stays."""
    from pixelcnn.pictures import read_mask
    from pixelcnn.sampling import complete

    if (mask is None) == (box is None):
        raise ValueError("say what to draw: with --mask FILE or with --box LEFT TOP RIGHT BOTTOM")
    drawing = drawing_options(precision, scale_shift, map, compile) | {"seed": seed}

    def draw(loaded: "ImageModel", x: "Tensor") -> "tuple[Strip, Tensor]":
        unknown = read_mask(mask, box, (x.shape[2], x.shape[3]))
        given = ("given", x.masked_fill(unknown, loaded.levels // 2), loaded.levels)
        return given, complete(loaded, x, unknown, **drawing)

    _draw_all(model, pictures, out, samples, overwrite, draw)


@app.command()
def score(
    model: Model,
    pictures: Pictures,
    heat_maps: Annotated[
        Path | None, typer.Option(help="Folder for a picture of each picture's surprise, pixel by pixel.")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print figures as CSV.")] = False,
    consistent: Consistent = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Bits per dimension of each picture, in total and for each factor: what it is, and what its texture costs."""
    from pixelcnn.pictures import check_out, read_pictures, score_pictures

    if heat_maps is not None:
        check_out(heat_maps, overwrite)
    loaded = load_model(model, consistent)
    names = ["picture", "total", *[f"factor {k}" for k in range(len(loaded.factors))]]
    rows = []
    found = _noting(read_pictures(pictures, loaded.formats[0][0]))
    for name, bits in score_pictures(loaded, found, heat_maps, progress=True):
        rows.append(dict(zip(names, [name, *bits], strict=True)))
    if json:
        print(dumps(rows))
    elif csv:
        from csv import DictWriter

        writer = DictWriter(sys.stdout, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table("picture", *names[1:], title="bits per dimension")
        for row in rows:
            table.add_row(row["picture"], *[f"{row[name]:.4f}" for name in names[1:]])
        Console().print(table)


def _draw_all(
    model: str,
    pictures: str,
    out: Path,
    samples: int,
    overwrite: bool,
    draw: "Callable[[ImageModel, Tensor], tuple[Strip, Tensor]]",
    *,
    silent: bool = False,
) -> None:
    """Draw from every picture, and write the results."""
    from pixelcnn.likelihoods import check_whole
    from pixelcnn.pictures import check_out, draw_alternatives, read_pictures

    check_whole(samples=samples)
    check_out(out, overwrite)
    loaded = load_model(model, None)
    done: list[str] = []
    try:
        draw_alternatives(
            _noting(read_pictures(pictures, loaded.formats[0][0])), partial(draw, loaded), out, samples, done.append
        )
    except KeyboardInterrupt:
        fail(f"interrupted: done are {', '.join(done) or 'none'}" + (f"; see {out}" if done else ""), 130)
    if str(out) != "-":
        print(out)


def _noting(pictures: "Iterator[Picture]") -> "Iterator[Picture]":
    """Say how pictures had to be converted."""
    for picture in pictures:
        if picture.note:
            print(f"pixelcnn: {picture.note}", file=sys.stderr)
        yield picture
