"""Loading and saving models."""

__all__ = ["load", "save"]

from pathlib import Path

import torch

from pixelcnn.models.files import write_model
from pixelcnn.models.image_model import ImageModel


def save(model: ImageModel, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a model's weights and config, as one step, with a hash of the weights in both.

    Args:
        model: any model.
        folder: made if need be; an earlier model in it is replaced, and nothing else is touched.
        dtype: of the weights in the file: torch.float32, or torch.bfloat16 or torch.float16, which need half the room
            and round them.

    Raises:
        ValueError: for another type, for weights that are not finite, or for an auxiliary variable or a likelihood that
            is not registered.
        OSError: where the disk is full or the folder cannot be written.
            In all cases an earlier model in it is still there.

    Example:
        >>> import pixelcnn
        >>> pixelcnn.save(pixelcnn.load("photos-pyramid"), "a-copy")
    """
    write_model(Path(folder), model.config.to_json(), model.state_dict(), dtype)


def load(
    name: str | Path,
    *,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> ImageModel:
    """Load a trained model, ready to evaluate, from a folder, the zoo or the Hugging Face hub, in this order.

    Args:
        name: a folder with `config.json` and `model.safetensors`, the name of a shipped one, or a hub id "owner/name".
        device: where it is put, such as "cuda".
        revision, force_download: of a model on the hub: which one, and whether it is fetched again. Refused for others.
        token, cache_dir, local_files_only: how a model on the hub is fetched; without meaning for others.

    Raises:
        ValueError: where there is no such model or device, or its files are damaged, do not fit each other, or ask for
            more than the limits of `pixelcnn.models.config`.

    Example:
        >>> import pixelcnn
        >>> pixelcnn.load("photos-pyramid").auxiliaries
        (Downsample(factor=2), Downsample(factor=2))
    """
    return ImageModel.from_pretrained(
        name,
        map_location=device,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        force_download=force_download,
    )
