"""What the command line says of images on standard error, and what it knows of the images of a model."""

__all__ = ["count_images", "data_of_model", "say_data", "where_images_are"]

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pixelcnn.models as shipped
import pixelcnn.training
import pixelcnn.zoo

if TYPE_CHECKING:
    from pixelcnn.data import Images


def count_images(images: "Images") -> str:
    return f"{len(images)} images ({images.part})"


def say_data(line: str, *sets: "Images") -> None:
    """Say on standard error which images these are, and what of their source is left out."""
    print(f"data: {line}", file=sys.stderr)
    for note in dict.fromkeys(note for images in sets for note in images.notes):
        print(f"data: {note}", file=sys.stderr)
    if skipped := sum(images.skipped for images in sets):
        print(f"pixelcnn: left out {skipped} files that cannot be read", file=sys.stderr)


def data_of_model(model: str) -> dict[str, Any]:
    """What a run was trained on; of a shipped model the images, if they are shipped too."""

    if shipped.is_shipped(model):
        sources = {each["source"] for each in shipped.zoo_card(model)["data"]}
        return {"source": "photos"} if "photos" in sources else {}
    return pixelcnn.training.data_of(Path(model))


def where_images_are(model: str) -> str:
    """How to get the images that a model can be scored on."""

    if not shipped.is_shipped(model):
        return f"{model!r} does not say what it was trained on: name images with --data"
    card = shipped.zoo_card(model)
    names = ", ".join(dict.fromkeys(each["source"] for each in card["data"]))
    source = pixelcnn.zoo.find_recipe(card["recipe"]).source
    seen = ", of which it has seen some" if source == "celeba" else ""  # whose images are all in one part
    return (
        f"{model!r} was trained on {names}, and scored on {card['held_out']}, which do not come with the package: use "
        f"'pixelcnn evaluate {model} --data FOLDER' for images of yours, or --data {source} for those that the "
        f"Hugging Face hub has{seen}"
    )
