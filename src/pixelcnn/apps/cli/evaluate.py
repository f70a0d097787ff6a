"""The commands `evaluate`, `sample`, `report` and `models`, which use trained models."""

__all__ = ["models", "report", "sample"]

import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import pixelcnn
import pixelcnn.apps
import pixelcnn.data
import pixelcnn.models as shipped
import pixelcnn.pictures
import pixelcnn.tasks
import pixelcnn.training
import pixelcnn.zoo
from pixelcnn.apps.cli.help import USE
from pixelcnn.apps.cli.messages import count_images, data_of_model, say_data, where_images_are
from pixelcnn.apps.cli.options import (
    DRAWING,
    IMAGES,
    Address,
    Consistent,
    Crop,
    Data,
    Device,
    EngineName,
    Json,
    Map,
    Model,
    Overwrite,
    Precision,
    Rows,
    ScaleShift,
    Seed,
    Size,
    SkipBroken,
    Workers,
    command,
    drawing_options,
    fail,
    load_model,
)
from pixelcnn.apps.cli.shared import Many, load_for_pictures
from pixelcnn.common.checks import check_whole
from pixelcnn.common.processes import is_main, leave_processes, own_device

if TYPE_CHECKING:
    from PIL.Image import Image


@command(USE)
def evaluate(
    model: Model,
    data: Data = None,
    size: Size = None,
    crop: Crop = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="train, test, validation or all; by default images the model was not trained on.",
            autocompletion=lambda: ["train", "test", "validation", "all"],
            rich_help_panel=IMAGES,
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Score at most this many images.", rich_help_panel=IMAGES)] = None,
    batch_size: Annotated[int, typer.Option(help="Number of images to score at once.")] = 32,
    codecs: Annotated[bool, typer.Option("--codecs", help="Compare with lossless PNG, WebP and JPEG XL.")] = False,
    skip_broken: SkipBroken = False,
    consistent: Consistent = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Score a set of images in bits per dimension.

    By default those that were held out from training. In total and per factor.
    """
    from dataclasses import asdict

    loaded = load_model(model, consistent, own_device(device))
    trained = data_of_model(model)
    if data is None and "source" not in trained:
        raise ValueError(where_images_are(model))
    options: dict[str, Any] = {
        "size": trained.get("size", loaded.side) if size is None else size,
        "crop": trained.get("crop") if data is None and crop is None else crop,
        "channels": loaded.formats[0][0],
        "skip_broken": skip_broken,
        "progress": is_main(),
    }
    source = data or trained["source"]
    images = (
        pixelcnn.data.load_unseen(source, trained, **options)
        if split is None
        else pixelcnn.load_images(source, split, **options)
    )
    say_data(f"{images.name}: scoring {count_images(images)}", images)
    try:
        result = pixelcnn.evaluate(loaded, images, batch_size=batch_size, limit=limit, progress=True)
        if not is_main():
            return
    finally:
        leave_processes()
    others = pixelcnn.tasks.codec_bits_per_dim(images, limit=limit, progress=True) if codecs else {}
    if json:
        print(dumps(asdict(result) | ({"codecs": others} if codecs else {})))
        return
    print(f"bits per dimension of {result.images} images, scored at {result.images_per_second:.1f} per second")
    factors = {f"factor {k}": bits for k, bits in enumerate(result.factors)}
    for name, bits in ({"total": result.bits_per_dim} | factors | others).items():
        print(f"  {name:<10}{bits:8.4f}")


@command(USE)
def sample(
    model: Model,
    out: Annotated[
        Path, typer.Option(help="A .png file or - (standard output) for one sheet, or a folder for one file per image.")
    ] = Path("samples.png"),
    n: Annotated[int, typer.Option("-n", help="Number of images.")] = 8,
    size: Annotated[
        int | None, typer.Option(help="Side of the images; by default that of the training images, or 32 if unknown.")
    ] = None,
    seed: Seed = 0,
    scale_shift: ScaleShift = 0.0,
    map: Map = False,
    label: Annotated[int | None, typer.Option(help="Class of the images, for a model with classes.")] = None,
    batch_size: Annotated[
        int,
        typer.Option(help="Images drawn at once: more is faster, but needs more memory.", rich_help_panel=DRAWING),
    ] = 16,
    precision: Precision = "float32",
    consistent: Consistent = None,
    device: Device = "auto",
    stages: Annotated[
        bool, typer.Option("--stages", help="With a folder: also write the views that the images grew from.")
    ] = False,
    overwrite: Overwrite = False,
    engine: EngineName = None,
    address: Address = None,
    workers: Workers = None,
    rows: Rows = None,
) -> None:
    """Draw images from a model. The sheet also shows the views that they grew from."""
    import torch

    check_whole(n=n, batch_size=batch_size)
    drawing = drawing_options(precision, scale_shift, map)
    many = Many(engine, address, workers, rows, device, overwrite)
    if many.wanted({"--stages": stages}):
        how = pixelcnn.cluster.Drawing(seed, batch_size, label, drawing)
        loaded = load_for_pictures(model, consistent, "cpu")
        many.show(pixelcnn.cluster.sample(loaded, out, n, size, how, many.how()), out)
        return
    pixelcnn.tasks.check_out(out, overwrite)
    loaded = load_model(model, consistent, device)
    if label is not None and loaded.classes and not 0 <= label < loaded.classes:
        raise ValueError(f"--label {label}: {model!r} has the classes 0 to {loaded.classes - 1}")
    is_sheet = pixelcnn.tasks.is_file_name(out)
    finished: dict[int, list[torch.Tensor]] = {k: [] for k in reversed(range(len(loaded.factors)))}
    unsaved: list[tuple[Image, Path]] = []
    interrupted = False
    try:
        for start in range(0, n, batch_size):
            number = min(batch_size, n - start)
            for k, view in pixelcnn.sample_views(
                loaded, number, size, seed=seed + start, labels=label, options=drawing
            ):
                finished[k].append(view)
                if not is_sheet and (k == 0 or stages):
                    folder = out / f"view-{k}" if stages else out
                    pictures = [pixelcnn.pictures.to_picture(x, loaded.formats[k][1]) for x in view]
                    unsaved += [(each, folder / f"{seed + start + i:06d}.png") for i, each in enumerate(pictures)]
                    _save_all(unsaved)
    except KeyboardInterrupt:
        interrupted = True
        _save_all(unsaved)
    views = {k: torch.cat(batches) for k, batches in finished.items() if batches}
    if is_sheet and views:
        strips = [(f"{x.shape[3]}x{x.shape[2]}", x, loaded.formats[k][1]) for k, x in views.items()]
        pixelcnn.tasks.write_picture(pixelcnn.pictures.sheet(strips), out)
    if interrupted:
        drawn = ", ".join(f"{len(views.get(k, ()))} of {n} of view {k}" for k in finished)
        fail(
            f"interrupted: drew {drawn}"
            + (f"; see {out}" if out.exists() or (views and is_sheet) else "; nothing was saved"),
            130,
        )
    if str(out) != "-":
        print(out)


def _save_all(unsaved: "list[tuple[Image, Path]]") -> None:
    """Save pictures, and take each off the list only when it is saved: an interruption leaves the rest on it."""
    while unsaved:
        pixelcnn.pictures.save_picture(*unsaved[0])
        unsaved.pop(0)


@command(USE)
def report(
    models: Annotated[
        list[str], typer.Argument(metavar="MODELS", help="One or more models: folders, shipped models or hub ids.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for report.html and the pictures.")] = Path("report"),
    data: Data = None,
    size: Size = None,
    crop: Crop = None,
    skip_broken: SkipBroken = False,
    limit: Annotated[
        int, typer.Option(help="Score at most this many images of each part.", rich_help_panel=IMAGES)
    ] = 200,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Make the paper's tables and figures for trained models. The report is one page and PNG files."""
    options = pixelcnn.apps.ReportOptions(data, size, crop, skip_broken, limit, seed, device, progress=True)
    print(pixelcnn.apps.write_report(models, out, options, overwrite=overwrite))


@command(USE)
def models(json: Json = False) -> None:
    """List the recipes and models that come with pixelcnn."""
    recipes = {name: pixelcnn.zoo.describe(name) for name in pixelcnn.zoo.recipe_names()}
    names = shipped.shipped_names()
    missing = {name: reason for name in names if (reason := shipped.why_missing(name))}
    installed = [name for name in names if name not in missing]
    zoo: dict[str, Any] = {
        name: {"comes with": shipped.distribution(name)} | shipped.zoo_card(name) for name in installed
    }
    if json:
        print(dumps({"recipes": recipes, "models": zoo, "missing": missing}))
        return
    expected = "bits/dim: the result to expect, published or measured with this package; see --json for the source"
    _print_listing("recipes, for 'pixelcnn train'", recipes, expected)
    shown = {
        name: card
        | {
            "what": card["title"],
            "data": ", ".join(dict.fromkeys(each["source"] for each in card["data"])),
            "bits_per_dim": card["bits_per_dim"]["total"],
        }
        for name, card in zoo.items()
    }
    _print_listing("trained models", shown, "bits/dim: on held-out images", "comes with")
    for reason in missing.values():
        print(reason)


def _print_listing(title: str, listing: dict[str, dict[str, Any]], note: str, *extra: str) -> None:
    """Print a table, with `extra` columns at the end."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, caption=note, title_justify="left", caption_justify="left")
    table.add_column("name", no_wrap=True)
    for heading in ("what", "size", "parameters", "data", "terms of the data", "bits/dim", *extra):
        table.add_column(heading, justify="right" if heading in ("size", "parameters", "bits/dim") else "left")
    for name, row in listing.items():
        bits = "" if row["bits_per_dim"] is None else f"{row['bits_per_dim']:.2f}"
        size, millions = f"{row['size']}x{row['size']}", f"{row['parameters'] / 1e6:.1f} M"
        table.add_row(name, row["what"], size, millions, row["data"], row["terms"], bits, *map(row.get, extra))
    # Rich assumes 80 columns for a pipe or file, which would wrap the table.
    Console(width=None if sys.stdout.isatty() else 150).print(table)
