"""The commands `demo`, `train` and `import`, which make models."""

__all__ = ["import_model", "train"]

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import pixelcnn
import pixelcnn.apps
import pixelcnn.data
import pixelcnn.models
import pixelcnn.training
import pixelcnn.zoo
from pixelcnn.apps.cli.help import MAKE
from pixelcnn.apps.cli.messages import count_images, data_of_model, explain_another_run, say_broken, say_data
from pixelcnn.apps.cli.options import (
    DEVICES,
    IMAGES,
    INTERRUPTED,
    Crop,
    Data,
    Device,
    Overwrite,
    Seed,
    Size,
    SkipBroken,
    Stream,
    command,
    fail,
    load_model,
)

if TYPE_CHECKING:
    from pixelcnn.data import Images, StreamedImages

# Groups of the options of `train`.
FOLDER, BUDGET, LEARNING, MACHINE = "The run", "Budget", "Learning", "Speed and memory"


@command(MAKE)
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the model and the page.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(help="Training time of all factors together.")] = 1.0,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Train a small model for a minute, and show it on a page."""
    pixelcnn.apps.run_demo(out, minutes=minutes, seed=seed, device=device, overwrite=overwrite)


@command(MAKE)
def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="See 'pixelcnn models'.", autocompletion=pixelcnn.zoo.recipe_names)
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run.", rich_help_panel=FOLDER)],
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the folder.", rich_help_panel=FOLDER)
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in the folder.", rich_help_panel=FOLDER)
    ] = False,
    save_minutes: Annotated[
        float,
        typer.Option(help="Minutes between saved states; 0 saves after every step.", rich_help_panel=FOLDER),
    ] = 5.0,
    sheet_minutes: Annotated[
        float, typer.Option(help="Minutes between sheets of samples; 0 for none.", rich_help_panel=FOLDER)
    ] = 10.0,
    data: Data = None,
    size: Size = None,
    crop: Crop = None,
    skip_broken: SkipBroken = False,
    stream: Stream = False,
    random_crop: Annotated[
        int | None, typer.Option(help="Train on random crops of this side.", rich_help_panel=IMAGES)
    ] = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Mirror half of the images.", rich_help_panel=IMAGES)
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Training time of each factor.", rich_help_panel=BUDGET)] = None,
    steps: Annotated[
        int | None, typer.Option(help="Training steps of each factor, instead of --minutes.", rich_help_panel=BUDGET)
    ] = None,
    factor: Annotated[
        int | None,
        typer.Option(help="Train only this factor; 0 is the factor of the image itself.", rich_help_panel=BUDGET),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Continue from this trained model instead of a fresh one.",
            autocompletion=pixelcnn.models.shipped_names,
            rich_help_panel=LEARNING,
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images per step, over all processes.", rich_help_panel=LEARNING)
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(help="adam or muon.", autocompletion=lambda: ["adam", "muon"], rich_help_panel=LEARNING),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Peak learning rate: about 0.001 for Adam, 0.015 for Muon, less with --from.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(help="Steps over which the rate rises to its peak.", rich_help_panel=LEARNING)
    ] = None,
    cooldown: Annotated[
        float | None,
        typer.Option(help="Share of the budget, at its end, in which the rate falls to 3%.", rich_help_panel=LEARNING),
    ] = None,
    clip: Annotated[
        float | None,
        typer.Option(help="Largest allowed norm of the gradient; 0 for no limit.", rich_help_panel=LEARNING),
    ] = None,
    consistent: Annotated[
        bool | None,
        typer.Option(
            "--consistent/--free",
            help="Rule out images that contradict the given views, or not.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of fresh weights, image order, augmentation and dropout.", rich_help_panel=LEARNING),
    ] = None,
    bf16: Annotated[
        bool | None, typer.Option("--bf16/--float32", help="Precision of the networks.", rich_help_panel=MACHINE)
    ] = None,
    compile: Annotated[
        bool | None,
        typer.Option(
            "--compile/--eager",
            help="Fuse operations with torch.compile, which needs a C++ compiler.",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(help="Split each batch into this many parts to save memory.", rich_help_panel=MACHINE),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Number of processes that decode images; with --stream, of threads.", rich_help_panel=MACHINE
        ),
    ] = None,
    device: Annotated[str, typer.Option(help=DEVICES, rich_help_panel=MACHINE)] = "auto",
) -> None:
    """Train a model. Add --resume to the same command to continue after an interruption."""
    from dataclasses import fields, replace

    import torch

    given = locals()
    chosen = pixelcnn.zoo.find_recipe(recipe)
    changes = {
        field.name: given[field.name] for field in fields(pixelcnn.Training) if given.get(field.name) is not None
    }
    training = chosen.training if optimizer is None else chosen.training.with_optimizer(optimizer)
    training = replace(training if start is None else training.continued(), **changes)
    source: dict[str, Any] = {
        "source": data or chosen.source,
        "size": chosen.size if size is None else size,
        "crop": crop,
    }
    torch.manual_seed(training.seed)
    if start is None:
        model = chosen.model()
    else:  # a run to resume already has its weights
        model = load_model(str(out) if resume and (out / pixelcnn.models.CONFIG).is_file() else start, None)
    if consistent is not None:
        model.consistent = consistent
    try:
        load = _stream_data if stream else _load_data
        images, held_out = load(**source, channels=model.formats[0][0], skip_broken=skip_broken)
    except pixelcnn.data.UnfetchedError as error:
        raise ValueError(f"{error}, as in 'pixelcnn train {recipe} {error.options} --out {out}'") from error
    if resume and (
        changed := pixelcnn.data.changed_since(data_of_model(str(out)).get("fingerprint"), images.fingerprint)
    ):
        say_data(changed)
    run = pixelcnn.Run(
        factor=factor,
        initialize=start is None,
        resume=resume,
        overwrite=overwrite,
        held_out=held_out,
        save_minutes=save_minutes,
        sheet_minutes=sheet_minutes,
        notes={
            "recipe": recipe,
            "from": start,
            "data": source | ({"stream": True} if stream else {}) | {"fingerprint": images.fingerprint},
        },
        progress=True,
        device=device,
    )
    try:
        budget = chosen.budget if steps is None and minutes is None else {"steps": steps, "minutes": minutes}
        pixelcnn.train(model, images, out, training, **budget, run=run)
    except pixelcnn.training.AnotherRunError as error:
        raise ValueError(explain_another_run(error)) from None
    except pixelcnn.training.InterruptedTraining:
        fail(f"interrupted: the run in {out} is saved; add --resume to the same command to go on", INTERRUPTED)
    finally:
        if isinstance(images, pixelcnn.data.StreamedImages) and images.broken:
            say_broken(images.broken)
        if torch.distributed.is_initialized():  # otherwise its threads may abort the process at exit
            torch.distributed.destroy_process_group()


def _load_data(
    source: str,
    size: int | None,
    crop: tuple[int, int, int, int] | None,
    channels: int,
    skip_broken: bool,
) -> "tuple[Images, Images | None]":
    """Load the images to train on, and those held out, if there are enough to hold any out; report both."""
    options: dict[str, Any] = {"size": size, "crop": crop, "channels": channels, "skip_broken": skip_broken}
    images = pixelcnn.load_images(source, "train", progress=True, **options)
    counted = f"{images.name}: {count_images(images)} to train on"
    try:
        held_out = pixelcnn.load_images(source, "test", progress=True, **options)
    except pixelcnn.data.NothingHeldOutError:
        say_data(f"{counted}, too few to hold any out; sheets show these", images)
        return images, None
    say_data(f"{counted}, {count_images(held_out)} held out", images, held_out)
    return images, held_out


def _stream_data(
    source: str,
    size: int | None,
    crop: tuple[int, int, int, int] | None,
    channels: int,
    skip_broken: bool,
) -> "tuple[StreamedImages, Images]":
    """Open a stream of images to train on, and load a few to show; report both."""
    options: dict[str, Any] = {"size": size, "crop": crop, "channels": channels, "skip_broken": skip_broken}
    images = pixelcnn.data.stream_images(source, progress=True, **options)
    say_data(f"{images.name}: {len(images.shards)} shards to train on ({images.part}), read as they are needed", images)
    return images, images.held_out


@command(MAKE, "import")
def import_model(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A state dict of the PyTorch port, or an .npz of TensorFlow variables."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    overwrite: Overwrite = False,
) -> None:
    """Import a PixelCNN++ that another program trained. The model computes the same likelihoods."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{str(out)!r} is a file: name a folder")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise ValueError(f"{str(out)!r} is not empty: use --overwrite to replace the model in it, or another folder")
    if (out / pixelcnn.training.RUN).exists():
        raise ValueError(f"{str(out)!r} holds a training run: name another folder")
    if file.resolve() in [(out / name).resolve() for name in (pixelcnn.models.CONFIG, pixelcnn.models.WEIGHTS)]:
        raise ValueError(f"{str(file)!r} would be overwritten by its own import: name another folder")
    if out.exists() and any(out.iterdir()):
        try:
            pixelcnn.ImageModel.from_config(pixelcnn.models.read_config(out))
        except ValueError:
            raise ValueError(f"{str(out)!r} is not empty and not a model: name another folder") from None
    model = pixelcnn.import_checkpoint(file)
    pixelcnn.save(model, out)
    config = model.config.to_json()
    sizes = ", ".join(f"{name} {config[name]}" for name in ("channels", "components", "filters", "blocks"))
    print(f"pixelcnn: imported {sum(p.numel() for p in model.parameters()):,} weights; {sizes}", file=sys.stderr)
    print(out)
