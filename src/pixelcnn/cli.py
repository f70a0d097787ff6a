"""The command line: every verb is a thin caller of one library function.

torch is imported inside the commands, so that `--help` answers at once.
"""

__all__ = ["app", "main"]

import os
import sys
from io import TextIOWrapper
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.exceptions import Abort, Exit, TyperException

if TYPE_CHECKING:
    from PIL.Image import Image

    from pixelcnn.data import Images
    from pixelcnn.models import ImageModel

app = typer.Typer(
    name="pixelcnn",
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Exact-likelihood image models: train, score and sample PixelCNNs with auxiliary variables.",
)

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A folder that training made, a shipped model, or a hub id.")
]
Source = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="photos, cifar10, celeba, a folder of images or of parquet files, a parquet file, or a hub id.",
    ),
]
Size = Annotated[int | None, typer.Option(help="Cut out the centre square and average its areas to this side.")]
Crop = Annotated[
    tuple[int, int, int, int] | None, typer.Option(metavar="LEFT RIGHT TOP BOTTOM", help="Pixels to cut off first.")
]
SkipBroken = Annotated[bool, typer.Option("--skip-broken", help="Leave out and count files that cannot be read.")]
Json = Annotated[bool, typer.Option("--json", help="Print figures as JSON.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
ScaleShift = Annotated[float, typer.Option(help="Added to the log-scales: -0.5 for cleaner images.")]
Map = Annotated[bool, typer.Option("--map", help="Take the mode of a drawn component for each pixel.")]
Precision = Annotated[str, typer.Option(help="float32 or bf16, which needs half the memory.")]
Compile = Annotated[bool, typer.Option("--compile", help="Fuse the draws: pays for large images.")]
Consistent = Annotated[
    bool | None,
    typer.Option("--consistent/--free", help="Whether images must have the views they are given."),
]
PRECISIONS = {"float32": "float32", "bf16": "bfloat16"}


def main() -> NoReturn:
    """Run the command line. Whatever a user can cause ends in one line on standard error and exit code 2."""
    import pixelcnn.cli_import
    import pixelcnn.cli_pictures  # noqa: F401  (both add their verbs to the app)

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a pipe may have an encoding that lacks what a file's name has
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # its bars tell of its own cache
    os.environ.setdefault("DATASETS_VERBOSITY", "critical")  # its errors come as exceptions too
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except Exit as exit:
        sys.exit(exit.exit_code)
    except (KeyboardInterrupt, Abort):
        fail("interrupted", 130)
    except TyperException as error:
        fail(error.format_message(), 2)
    except BrokenPipeError:  # who reads the results has enough of them, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains while it ends
        sys.exit(1)
    except (ValueError, FloatingPointError, MemoryError, OSError) as error:
        fail(str(error), 2)


def fail(message: str, code: int) -> NoReturn:
    print(f"pixelcnn: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the model and the report.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(help="Training time.")] = 1.0,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Train a small model on the shipped photographs for a minute, and show what it does in a report."""
    from pixelcnn.demo import demo

    demo(out, minutes=minutes, seed=seed, overwrite=overwrite)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="See 'pixelcnn models'.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    data: Source = None,
    size: Size = None,
    crop: Crop = None,
    skip_broken: SkipBroken = False,
    minutes: Annotated[float | None, typer.Option(help="Training time of each factor.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps of each factor, instead of a time.")] = None,
    factor: Annotated[int | None, typer.Option(help="Train this factor alone; 0 is that of the image itself.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Go on from this model instead of a fresh one.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    overwrite: Overwrite = False,
    batch_size: Annotated[int | None, typer.Option(help="Images in a step, over all processes.")] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Parts that a batch is computed in, to need less memory.")
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam or muon.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="The highest: of Adam about 0.001, of Muon about 0.015, less with --from.")
    ] = None,
    warmup: Annotated[int | None, typer.Option(help="Steps in which the rate rises to its highest.")] = None,
    cooldown: Annotated[
        float | None, typer.Option(help="Last share of the budget, in which the rate falls to 3 %.")
    ] = None,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradient; 0 for no limit.")] = None,
    random_crop: Annotated[int | None, typer.Option(help="Train on random crops of this side.")] = None,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="Mirror half of the images.")] = None,
    bf16: Annotated[bool | None, typer.Option("--bf16/--float32", help="Precision of the networks.")] = None,
    compile: Annotated[
        bool | None, typer.Option("--compile/--eager", help="Fuse operations with torch.compile.")
    ] = None,
    consistent: Consistent = None,
    workers: Annotated[int | None, typer.Option(help="Processes that decode images.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of fresh weights, order, augmentation and dropout.")] = None,
    save_minutes: Annotated[float, typer.Option(help="Time between saved states; 0 for every step.")] = 5.0,
    sheet_minutes: Annotated[float, typer.Option(help="Time between sheets of samples; 0 for none.")] = 10.0,
) -> None:
    """Train a model; the same command with --resume goes on after an interruption."""
    from dataclasses import fields, replace

    import torch

    from pixelcnn.checkpoint import CONFIG
    from pixelcnn.data import NothingHeldOutError, UnfetchedError, changed_since, load_images
    from pixelcnn.recipes import find_recipe
    from pixelcnn.training import Training, train

    given = locals()
    chosen = find_recipe(recipe)
    changes = {field.name: given[field.name] for field in fields(Training) if given.get(field.name) is not None}
    training = replace(chosen.training if start is None else chosen.training.continued(), **changes)
    source: dict[str, Any] = {
        "source": data or chosen.source,
        "size": chosen.size if size is None else size,
        "crop": crop,
    }
    torch.manual_seed(training.seed)
    if start is None:
        model = chosen.model()
    else:  # a run that is resumed holds the weights that it began with
        model = load_model(str(out) if resume and (out / CONFIG).is_file() else start, None)
    if consistent is not None:
        model.consistent = consistent
    options: dict[str, Any] = {"channels": model.formats[0][0], "skip_broken": skip_broken, "progress": True}
    try:
        images = load_images(**source, split="train", **options)
    except UnfetchedError as error:
        raise ValueError(f"{error}, as in 'pixelcnn train {recipe} {error.options} --out {out}'") from error
    try:
        held_out = load_images(**source, split="test", **options)
        _say(f"{images.name}: {_count(images)} to train on, {_count(held_out)} held out", images, held_out)
    except NothingHeldOutError:
        held_out = None
        _say(f"{images.name}: {_count(images)} to train on, too few to hold any out: sheets show those", images)
    if resume and (changed := changed_since(_data_of(str(out)).get("fingerprint"), images.fingerprint)):
        _say(changed)
    try:
        train(
            model,
            images,
            out,
            training,
            **chosen.budget if steps is None and minutes is None else {"steps": steps, "minutes": minutes},
            factor=factor,
            initialize=start is None,
            resume=resume,
            overwrite=overwrite,
            held_out=held_out,
            save_minutes=save_minutes,
            sheet_minutes=sheet_minutes,
            notes={"recipe": recipe, "from": start, "data": source | {"fingerprint": images.fingerprint}},
            progress=True,
        )
    finally:
        if torch.distributed.is_initialized():  # or its threads may abort the process while it ends
            torch.distributed.destroy_process_group()


@app.command()
def evaluate(
    model: Model,
    data: Source = None,
    size: Size = None,
    crop: Crop = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, test, validation or all; by default what the model was not trained on."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Score the first so many images only.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images scored at once.")] = 32,
    codecs: Annotated[bool, typer.Option("--codecs", help="Also those of PNG, WebP and JPEG XL, lossless.")] = False,
    skip_broken: SkipBroken = False,
    consistent: Consistent = None,
    json: Json = False,
) -> None:
    """Bits per dimension of images, in total and for each factor; by default of those held out from training."""
    from dataclasses import asdict

    from pixelcnn.codecs import codec_bits_per_dim
    from pixelcnn.data import load_images, load_unseen
    from pixelcnn.evaluation import evaluate

    loaded = load_model(model, consistent)
    trained = _data_of(model)
    if data is None and "source" not in trained:
        raise ValueError(_where_images_are(model))
    options: dict[str, Any] = {
        "size": trained.get("size", loaded.side) if size is None else size,
        "crop": trained.get("crop") if data is None and crop is None else crop,
        "channels": loaded.formats[0][0],
        "skip_broken": skip_broken,
        "progress": True,
    }
    source = data or trained["source"]
    images = load_unseen(source, trained, **options) if split is None else load_images(source, split, **options)
    _say(f"{images.name}: scoring {_count(images)}", images)
    result = evaluate(loaded, images, batch_size=batch_size, limit=limit, progress=True)
    others = codec_bits_per_dim(images, limit=limit, progress=True) if codecs else {}
    if json:
        print(dumps(asdict(result) | ({"codecs": others} if codecs else {})))
        return
    print(f"bits per dimension of {result.images} images, scored at {result.images_per_second:.1f} a second")
    factors = {f"factor {k}": bits for k, bits in enumerate(result.factors)}
    for name, bits in ({"total": result.bits_per_dim} | factors | others).items():
        print(f"  {name:<10}{bits:8.4f}")


@app.command()
def sample(
    model: Model,
    out: Annotated[
        Path, typer.Option(help="A .png file, or - for standard output, for one sheet; or a folder for a file each.")
    ] = Path("samples.png"),
    n: Annotated[int, typer.Option("-n", help="Number of images.")] = 8,
    size: Annotated[
        int | None, typer.Option(help="Side of the images; by default that of the training images, 32 if unknown.")
    ] = None,
    seed: Seed = 0,
    scale_shift: ScaleShift = 0.0,
    map: Map = False,
    label: Annotated[int | None, typer.Option(help="Class of the images, for a model with classes.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images drawn at once: more are faster and need more memory.")] = 16,
    precision: Precision = "float32",
    compile: Compile = False,
    consistent: Consistent = None,
    stages: Annotated[bool, typer.Option("--stages", help="In a folder: also write the views they grew from.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Draw images from a model, of the size that it was trained at; the sheet shows the views that they grew from."""
    import torch

    from pixelcnn.figures import save_picture, sheet, to_picture
    from pixelcnn.likelihoods import check_whole
    from pixelcnn.results import check_out, is_file_name, write_picture
    from pixelcnn.sampling import sample_views

    check_out(out, overwrite)
    check_whole(n=n, batch_size=batch_size)
    drawing = drawing_options(precision, scale_shift, map, compile)
    loaded = load_model(model, consistent)
    is_sheet = is_file_name(out)
    finished: dict[int, list[torch.Tensor]] = {k: [] for k in reversed(range(len(loaded.factors)))}
    unsaved: list[tuple[Image, Path]] = []
    interrupted = False
    try:
        for start in range(0, n, batch_size):
            number = min(batch_size, n - start)
            labels = None if label is None else torch.tensor([label] * number)
            for k, view in sample_views(loaded, number, size, seed=seed + start, labels=labels, **drawing):
                finished[k].append(view)
                if not is_sheet and (k == 0 or stages):
                    folder = out / f"view-{k}" if stages else out
                    names = [folder / f"{seed + start + i:06d}.png" for i in range(number)]
                    unsaved += [
                        (to_picture(x, loaded.formats[k][1]), name) for x, name in zip(view, names, strict=True)
                    ]
                while unsaved:
                    save_picture(*unsaved[0])
                    unsaved.pop(0)
    except KeyboardInterrupt:
        interrupted = True
        for picture, path in unsaved:
            save_picture(picture, path)
    views = {k: torch.cat(batches) for k, batches in finished.items() if batches}
    if is_sheet and views:
        strips = [(f"{x.shape[3]}x{x.shape[2]}", x, loaded.formats[k][1]) for k, x in views.items()]
        write_picture(sheet(strips), out)
    if interrupted:
        drawn = ", ".join(f"{len(views.get(k, ()))} of {n} of view {k}" for k in finished)
        fail(
            f"interrupted: drawn are {drawn}"
            + (f"; see {out}" if out.exists() or (views and is_sheet) else "; nothing is saved"),
            130,
        )
    if str(out) != "-":
        print(out)


@app.command()
def report(
    models: Annotated[list[str], typer.Argument(metavar="MODELS", help="As for the other verbs; one or several.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html and the pictures.")] = Path("report"),
    data: Source = None,
    size: Size = None,
    crop: Crop = None,
    skip_broken: SkipBroken = False,
    limit: Annotated[int, typer.Option(help="Images of each part that are scored.")] = 200,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """The paper's tables and figures from trained models, as one page and PNG files."""
    from pixelcnn.report import report

    images: dict[str, Any] = {"data": data, "size": size, "crop": crop, "skip_broken": skip_broken, "limit": limit}
    print(report(models, out, **images, seed=seed, overwrite=overwrite, progress=True))


@app.command()
def models(json: Json = False) -> None:
    """List the recipes, and the models that come with the package."""
    from pixelcnn.recipes import RECIPES, describe
    from pixelcnn.shipped import distribution, shipped_names, why_missing, zoo_card

    recipes = {name: describe(name) for name in RECIPES}
    missing = {name: reason for name in shipped_names() if (reason := why_missing(name))}
    installed = [name for name in shipped_names() if name not in missing]
    zoo: dict[str, Any] = {name: {"comes with": distribution(name)} | zoo_card(name) for name in installed}
    if json:
        print(dumps({"recipes": recipes, "models": zoo, "missing": missing}))
        return
    expected = "bits per dimension are what to expect: published, or measured with this package; see --json for whose"
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
    _print_listing("trained models", shown, "bits per dimension are of held-out images", "comes with")
    for reason in missing.values():
        print(reason)


def _print_listing(title: str, listing: dict[str, dict[str, Any]], note: str, *extra: str) -> None:
    """Print a table; `extra` are further columns."""
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
    # Piped into a file or a pager it is not folded to the 80 columns that are assumed there.
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def load_model(model: str, consistent: bool | None) -> "ImageModel":
    from pixelcnn.checkpoint import load

    loaded = load(model)
    if consistent is not None:
        loaded.consistent = consistent
    return loaded


def drawing_options(precision: str, scale_shift: float, map: bool, compile: bool) -> dict[str, Any]:
    """The options of `sample_views` that all verbs that draw have."""
    import torch

    if precision not in PRECISIONS:
        raise ValueError(f"--precision {precision!r}: use {' or '.join(PRECISIONS)}")
    dtype = getattr(torch, PRECISIONS[precision])
    return {"scale_shift": scale_shift, "map": map, "dtype": dtype, "compile": compile, "progress": True}


def _count(images: "Images") -> str:
    return f"{len(images)} images ({images.part})"


def _say(line: str, *sets: "Images") -> None:
    """Say on standard error which images these are, and what of their source is left out."""
    print(f"data: {line}", file=sys.stderr)
    for note in dict.fromkeys(note for images in sets for note in images.notes):
        print(f"data: {note}", file=sys.stderr)
    if skipped := sum(images.skipped for images in sets):
        print(f"pixelcnn: left out {skipped} files that cannot be read", file=sys.stderr)


def _data_of(model: str) -> dict[str, Any]:
    """What a run was trained on; of a shipped model the images, if they are shipped too."""
    from pixelcnn.runs import data_of
    from pixelcnn.shipped import is_shipped, zoo_card

    if is_shipped(model):
        sources = {each["source"] for each in zoo_card(model)["data"]}
        return {"source": "photos"} if "photos" in sources else {}
    return data_of(Path(model))


def _where_images_are(model: str) -> str:
    """How to get the images that a model can be scored on."""
    from pixelcnn.recipes import find_recipe
    from pixelcnn.shipped import is_shipped, zoo_card

    if not is_shipped(model):
        return f"{model!r} does not say what it was trained on: name images with --data"
    card = zoo_card(model)
    names = ", ".join(dict.fromkeys(each["source"] for each in card["data"]))
    source = find_recipe(card["recipe"]).source
    seen = ", of which it has seen some" if source == "celeba" else ""  # whose images are all in one part
    return (
        f"{model!r} was trained on {names}, and scored on {card['held_out']}, which do not come with the package: use "
        f"'pixelcnn evaluate {model} --data FOLDER' for images of yours, or --data {source} for those that the "
        f"Hugging Face hub has{seen}"
    )


if __name__ == "__main__":
    from pixelcnn.cli import main  # not this copy of the module, whose app lacks the verbs of the other

    main()
