"""Loading and saving models."""

__all__ = ["load", "save"]

from pathlib import Path

import torch

from pixelcnn.models.files import write_model
from pixelcnn.models.image_model import ImageModel


def save(model: ImageModel, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Save a model: write its weights and its config to a folder, in one step.

    If this fails, an earlier model in the folder stays as it was.

    Args:
        model: the model to save.
        folder: created if needed. An earlier model in it is replaced; no other file is touched.
        dtype: of the weights in the file: torch.float32, or torch.bfloat16 or torch.float16, which take half the space
            and round the weights.

    Raises:
        ValueError: if `dtype` is another type, some weights are not finite, or an auxiliary variable or a likelihood is
            not registered.
        OSError: if the disk is full or the folder cannot be written to.

    Example:
        >>> import pixelcnn
        >>> pixelcnn.save(pixelcnn.load("photos-pyramid"), "my-copy")
        >>> pixelcnn.load("my-copy").size
        (128, 128)
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
    """Load a trained model, in evaluation mode, from a folder, the zoo of shipped models or the Hugging Face hub.

    Args:
        name: a folder with `config.json` and `model.safetensors`, the name of a shipped model, or a hub id
            "owner/name". They are tried in this order.
        device: where to put the model, such as "cuda"; "auto" is the accelerator if there is one, else the CPU.
        revision, force_download: the version to fetch from the hub, and whether to fetch it again. Errors for a model
            that is not on the hub.
        token, cache_dir, local_files_only: as for `huggingface_hub`; ignored for other models.

    Raises:
        ValueError: if there is no such model or device, or if the files are damaged, do not fit each other, or ask for
            more than the limits in `pixelcnn.models.config`.

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
