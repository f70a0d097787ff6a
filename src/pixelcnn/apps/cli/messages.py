"""Messages about images, and the images that belong to a model."""

__all__ = ["count_images", "data_of_model", "explain_another_run", "say_broken", "say_data", "where_images_are"]

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pixelcnn.models as shipped
import pixelcnn.training
import pixelcnn.zoo
from pixelcnn.common.processes import is_main

if TYPE_CHECKING:
    from collections.abc import Collection

    from pixelcnn.data import Images, StreamedImages
    from pixelcnn.training import AnotherRunError

# The options of `train` that set what a run records.
OPTIONS = {
    "data.source": "--data",
    "data.size": "--size",
    "data.crop": "--crop",
    "data.stream": "--stream",
    "from": "--from",
} | {
    f"training.{name}": f"--{name.replace('_', '-')}"
    for name in ("batch_size", "optimizer", "learning_rate", "warmup", "cooldown", "clip", "random_crop", "seed")
}
FLAGS = {
    "training.flip": ("--flip", "--no-flip"),
    "training.bf16": ("--bf16", "--float32"),
    "data.stream": ("--stream", "no --stream"),
    "consistent": ("--consistent", "--free"),
}


def count_images(images: "Images") -> str:
    return f"{len(images)} images ({images.part})"


def say_broken(broken: "Collection[str]") -> None:
    """Report the images of a stream that were left out."""
    print(f"pixelcnn: left out {len(broken)} images, such as {min(broken)!r}", file=sys.stderr)


def say_data(line: str, *sets: "Images | StreamedImages") -> None:
    """Report on standard error which images are used, and which are left out; of several processes, one does."""
    if not is_main():
        return
    print(f"data: {line}", file=sys.stderr)
    for note in dict.fromkeys(note for images in sets for note in images.notes):
        print(f"data: {note}", file=sys.stderr)
    if skipped := sum(images.skipped for images in sets):
        print(f"pixelcnn: left out {skipped} files that cannot be read", file=sys.stderr)


def data_of_model(model: str) -> dict[str, Any]:
    """Find the data a run was trained on; for a shipped model, only data that are shipped too."""
    if shipped.is_shipped(model):
        sources = {each["source"] for each in shipped.zoo_card(model)["data"]}
        return {"source": "photos"} if "photos" in sources else {}
    return pixelcnn.training.data_of(Path(model))


def where_images_are(model: str) -> str:
    """Explain how to get the images to score a model on."""
    if not shipped.is_shipped(model):
        return f"{model!r} does not record its training data: name images with --data"
    card = shipped.zoo_card(model)
    names = ", ".join(dict.fromkeys(each["source"] for each in card["data"]))
    source = pixelcnn.zoo.find_recipe(card["recipe"]).source
    seen = ", some of which it has seen" if source == "celeba" else ""  # a source without held-out parts
    return (
        f"{model!r} was trained on {names}, and scored on {card['held_out']}, which do not come with the package: use "
        f"'pixelcnn evaluate {model} --data FOLDER' for your own images, or --data {source} for those on the "
        f"Hugging Face hub{seen}"
    )


def explain_another_run(error: "AnotherRunError") -> str:
    """Say which options resume the run in a folder, if it takes nothing but options."""
    options = [_option(name, there) for name, there, _ in error.differences]
    if None in options:
        return str(error)
    return f"{error.what}. Resume it with {' '.join(map(str, options))}, or use another folder"


def _option(name: str, value: Any) -> str | None:
    """Write the option that gives a setting this value; None if there is none."""
    if name in FLAGS and isinstance(value, bool):
        return FLAGS[name][not value]
    if name not in OPTIONS:
        return None
    if value is None:
        return f"no {OPTIONS[name]}"
    return " ".join(
        [OPTIONS[name], *(shlex.quote(str(each)) for each in (value if isinstance(value, list) else [value]))]
    )
