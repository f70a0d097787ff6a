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
from pixelcnn.apps.cli.messages import count_images, data_of_model, say_data
from pixelcnn.apps.cli.options import (
    Consistent,
    Crop,
    Data,
    Device,
    Overwrite,
    Seed,
    Size,
    SkipBroken,
    app,
    load_model,
)

if TYPE_CHECKING:
    from pixelcnn.data import Images


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the model and the page.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(help="Training time of all factors together.")] = 1.0,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Train a small model on the shipped photographs for a minute, and show the results on a page."""
    pixelcnn.apps.run_demo(out, minutes=minutes, seed=seed, device=device, overwrite=overwrite)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="See 'pixelcnn models'.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    data: Data = None,
    size: Size = None,
    crop: Crop = None,
    skip_broken: SkipBroken = False,
    minutes: Annotated[float | None, typer.Option(help="Training time of each factor.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps of each factor, instead of --minutes.")] = None,
    factor: Annotated[
        int | None, typer.Option(help="Train only this factor; 0 is the factor of the image itself.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="MODEL", help="Continue from this trained model instead of a fresh one."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = False,
    overwrite: Overwrite = False,
    batch_size: Annotated[int | None, typer.Option(help="Images per step, over all processes.")] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Split each batch into this many parts to save memory.")
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam or muon.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate: about 0.001 for Adam, 0.015 for Muon, less with --from.")
    ] = None,
    warmup: Annotated[int | None, typer.Option(help="Steps over which the rate rises to its peak.")] = None,
    cooldown: Annotated[
        float | None, typer.Option(help="Share of the budget, at its end, in which the rate falls to 3%.")
    ] = None,
    clip: Annotated[float | None, typer.Option(help="Largest allowed norm of the gradient; 0 for no limit.")] = None,
    random_crop: Annotated[int | None, typer.Option(help="Train on random crops of this side.")] = None,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="Mirror half of the images.")] = None,
    bf16: Annotated[bool | None, typer.Option("--bf16/--float32", help="Precision of the networks.")] = None,
    compile: Annotated[
        bool | None, typer.Option("--compile/--eager", help="Fuse operations with torch.compile.")
    ] = None,
    consistent: Consistent = None,
    device: Device = "auto",
    workers: Annotated[int | None, typer.Option(help="Number of processes that decode images.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of fresh weights, image order, augmentation and dropout.")
    ] = None,
    save_minutes: Annotated[float, typer.Option(help="Minutes between saved states; 0 saves after every step.")] = 5.0,
    sheet_minutes: Annotated[float, typer.Option(help="Minutes between sheets of samples; 0 for none.")] = 10.0,
) -> None:
    """Train a model; add --resume to the same command to continue after an interruption."""
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
        images, held_out = _load_data(**source, channels=model.formats[0][0], skip_broken=skip_broken)
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
        notes={"recipe": recipe, "from": start, "data": source | {"fingerprint": images.fingerprint}},
        progress=True,
        device=device,
    )
    try:
        budget = chosen.budget if steps is None and minutes is None else {"steps": steps, "minutes": minutes}
        pixelcnn.train(model, images, out, training, **budget, run=run)
    finally:
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


@app.command("import")
def import_model(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A state dict of the PyTorch port, or an .npz of TensorFlow variables."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    overwrite: Overwrite = False,
) -> None:
    """Import a PixelCNN++ that another program trained; the model computes the same likelihoods."""
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
