"""Shared parts of the command line: the app, options of several commands, and error messages."""

__all__ = [
    "Compile",
    "Consistent",
    "Crop",
    "Data",
    "Device",
    "Json",
    "Map",
    "Model",
    "Overwrite",
    "Precision",
    "ScaleShift",
    "Seed",
    "Size",
    "SkipBroken",
    "app",
    "drawing_options",
    "fail",
    "load_model",
]

import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

import pixelcnn

if TYPE_CHECKING:
    from pixelcnn import DrawOptions, ImageModel

app = typer.Typer(
    name="pixelcnn",
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Exact-likelihood image models: train, score and sample PixelCNNs with auxiliary variables.",
)
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A folder made by training, the name of a shipped model, or a hub id.")
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="photos, cifar10, celeba, a folder of images or of parquet files, a parquet file, or a hub id.",
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; by default the accelerator if there is one.")]
Size = Annotated[int | None, typer.Option(help="Crop to the center square and average it down to this side.")]
Crop = Annotated[
    tuple[int, int, int, int] | None,
    typer.Option(metavar="LEFT RIGHT TOP BOTTOM", help="Pixels to cut off the edges before resizing."),
]
SkipBroken = Annotated[bool, typer.Option("--skip-broken", help="Skip and count files that cannot be read.")]
Json = Annotated[bool, typer.Option("--json", help="Print figures as JSON.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
ScaleShift = Annotated[float, typer.Option(help="Added to the log-scales: -0.5 for cleaner images.")]
Map = Annotated[bool, typer.Option("--map", help="Draw a component for each pixel and take its mode.")]
Precision = Annotated[str, typer.Option(help="float32, or bf16 for half the memory.")]
Compile = Annotated[bool, typer.Option("--compile", help="Fuse the draws of pixels: worthwhile for large images.")]
Consistent = Annotated[
    bool | None,
    typer.Option("--consistent/--free", help="Rule out images that contradict the given views, or not."),
]
PRECISIONS = {"float32": "float32", "bf16": "bfloat16"}


def fail(message: str, code: int) -> NoReturn:
    print(f"pixelcnn: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def load_model(model: str, consistent: bool | None, device: str = "cpu") -> "ImageModel":
    loaded = pixelcnn.load(model, device=device)
    if consistent is not None:
        loaded.consistent = consistent
    return loaded


def drawing_options(precision: str, scale_shift: float, map: bool, compile: bool) -> "DrawOptions":
    """Combine the options that all drawing commands share."""
    import torch

    if precision not in PRECISIONS:
        raise ValueError(f"--precision {precision!r}: use {' or '.join(PRECISIONS)}")
    dtype = getattr(torch, PRECISIONS[precision])
    return pixelcnn.DrawOptions(scale_shift, map, dtype=dtype, compile=compile, progress=True)
