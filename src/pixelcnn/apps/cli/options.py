"""Shared parts of the command line: the app, options of several commands, and error messages."""

__all__ = [
    "DEVICES",
    "DRAWING",
    "IMAGES",
    "INTERRUPTED",
    "MODELS",
    "Address",
    "Consistent",
    "Crop",
    "Data",
    "Device",
    "EngineName",
    "Json",
    "Map",
    "Model",
    "Overwrite",
    "Precision",
    "Rows",
    "ScaleShift",
    "Seed",
    "Size",
    "SkipBroken",
    "Stream",
    "Workers",
    "app",
    "command",
    "drawing_options",
    "explain",
    "fail",
    "load_model",
]

import errno
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

import pixelcnn
import pixelcnn.models
from pixelcnn.apps.cli.help import Command, Commands

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixelcnn import DrawOptions, ImageModel

PRECISIONS = {"float32": "float32", "bf16": "bfloat16"}
SOURCES = ("photos", "cifar10", "celeba")
INTERRUPTED = 130  # the exit code of a process that Ctrl-C ends; Typer makes it of a KeyboardInterrupt
UNUSABLE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
IMAGES, DRAWING, MANY = "Images", "Drawing", "Very many pictures"  # groups of options
HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    name="pixelcnn",
    cls=Commands,
    context_settings=HELP,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Exact-likelihood image models: train, score and sample PixelCNNs with auxiliary variables.",
    epilog="'pixelcnn COMMAND -h' shows the options of a command. 'pixelcnn demo' is a good start.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pixelcnn {pixelcnn.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def show_help(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


def command(group: str, name: str | None = None) -> "Callable[[Callable], Callable]":
    """Add a function to the command line as a command, in one of the groups of the help."""
    return app.command(name, cls=Command, context_settings=HELP, rich_help_panel=group)


MODELS = "A folder made by training, the name of a shipped model, or a hub id."
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help=MODELS,
        autocompletion=pixelcnn.models.shipped_names,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="photos, cifar10, celeba, a folder of images or of parquet files, a parquet file, or a hub id.",
        autocompletion=lambda: list(SOURCES),
        rich_help_panel=IMAGES,
    ),
]
DEVICES = "cpu, cuda, cuda:1, ...; by default the accelerator if there is one."
Device = Annotated[str, typer.Option(help=DEVICES)]
Size = Annotated[
    int | None, typer.Option(help="Crop to the center square and average it down to this side.", rich_help_panel=IMAGES)
]
Crop = Annotated[
    tuple[int, int, int, int] | None,
    typer.Option(
        metavar="LEFT RIGHT TOP BOTTOM",
        help="Pixels to cut off the edges before resizing.",
        rich_help_panel=IMAGES,
    ),
]
SkipBroken = Annotated[
    bool,
    typer.Option("--skip-broken", help="Skip and count files that cannot be read.", rich_help_panel=IMAGES),
]
Stream = Annotated[
    bool,
    typer.Option(
        "--stream",
        help="Read shards (parquet, WebDataset) while training, never all at once.",
        rich_help_panel=IMAGES,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print figures as JSON.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
ScaleShift = Annotated[
    float, typer.Option(help="Added to the log-scales: -0.5 for cleaner images.", rich_help_panel=DRAWING)
]
Map = Annotated[
    bool,
    typer.Option("--map", help="Draw a component for each pixel and take its mode.", rich_help_panel=DRAWING),
]
Precision = Annotated[
    str,
    typer.Option(
        help="float32, or bf16: approximate draws, sooner.",
        autocompletion=lambda: list(PRECISIONS),
        rich_help_panel=DRAWING,
    ),
]
Consistent = Annotated[
    bool | None,
    typer.Option("--consistent/--free", help="Rule out images that contradict the given views, or not."),
]
EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="ENGINE",
        help="Write parquet files to the folder --out: local (this process) or ray (a worker for each CPU or GPU).",
        autocompletion=lambda: ["local", "ray"],
        rich_help_panel=MANY,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Of a Ray cluster: HOST:PORT, or auto; by default Ray starts on this machine.", rich_help_panel=MANY
    ),
]
Workers = Annotated[
    int | None, typer.Option(help="Number of workers; by default one for each CPU or GPU.", rich_help_panel=MANY)
]
Rows = Annotated[int | None, typer.Option(help="Pictures for each parquet file.", rich_help_panel=MANY)]


def fail(message: str, code: int) -> NoReturn:
    print(f"pixelcnn: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def explain(error: BaseException) -> str:
    """Word an error for one line; the system's own errors get the name of the file first, and a remedy."""
    if not isinstance(error, OSError) or error.filename is None:
        return str(error)
    remedy = "; name another place" if error.errno in UNUSABLE else ""
    return f"{str(error.filename)!r}: {error.strerror}{remedy}"


def load_model(model: str, consistent: bool | None, device: str = "cpu") -> "ImageModel":
    loaded = pixelcnn.load(model, device=device)
    if consistent is not None:
        loaded.consistent = consistent
    return loaded


def drawing_options(precision: str, scale_shift: float, map: bool) -> "DrawOptions":
    """Combine the options that all drawing commands share."""
    import torch

    if precision not in PRECISIONS:
        raise ValueError(f"--precision {precision!r}: use {' or '.join(PRECISIONS)}")
    dtype = getattr(torch, PRECISIONS[precision])
    return pixelcnn.DrawOptions(scale_shift, map, dtype=dtype, progress=True)
