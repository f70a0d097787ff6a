"""Reading and writing models in folders, and finding the folder of a model by its name.

A model is a folder in the layout of Hugging Face: `config.json` holds the arguments of the constructor, and
`model.safetensors` the weights. A training run is such a folder with more files in it (`pixelcnn.training.runs`). No
pickle is ever read or written. Every file is written under a temporary name and then renamed, so that it is either the
old file or the new one, whatever happens.

Both files of a model are completely written before the first is renamed. `config.json` holds the hash of the weights,
and the weights hold a copy of their config. If a process is killed between the two renames, the hash does not match and
the copy is used, so a folder always holds the whole old model or the whole new one. As long as the hash matches, edits
of `config.json` by hand take effect, such as of `consistent`. Files of earlier versions have neither a hash nor a copy,
and are used as they are.

Weights are finite numbers of type float32, bfloat16 or float16.
"""

__all__ = ["WEIGHTS", "HubOptions", "find_folder", "read_config", "read_model", "write_model"]

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pixelcnn.common.files import AGAIN, read_json, to_json, write_together
from pixelcnn.common.text import first_line, shorten
from pixelcnn.models.shipped import CONFIG, is_shipped, shipped_names, zoo_folder
from pixelcnn.models.weights import (
    DTYPES,
    HASH,
    check_tensors,
    checksum,
    first_not_finite,
    open_tensors,
    parse_note,
    read_tensors,
    serialize,
)

WEIGHTS = "model.safetensors"
PATIENCE = 5  # seconds that the hub may take to answer
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class HubOptions:
    """Options for fetching a model from the hub.

    Args:
        revision: the version to fetch. An error for a model that is not on the hub.
        force_download: whether to fetch it again. An error for a model that is not on the hub.
        token, cache_dir, local_files_only: as for `huggingface_hub`; ignored for other models.
    """

    revision: str | None = None
    force_download: bool = False
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False


def write_model(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Write weights and config in one step, with a hash of the weights in both.

    If this fails, an earlier model in the folder stays as it was.

    Args:
        folder: created if needed. An earlier model in it is replaced; no other file is touched.
        config: of the model, in the types of JSON.
        weights: of the model, by name.
        dtype: of the weights in the file.

    Raises:
        ValueError: if `dtype` is not a type of weights, or some weights are not finite.
        OSError: if the disk is full or the folder cannot be written to.
    """
    if dtype not in DTYPES.values():
        raise ValueError(f"dtype={dtype!r}: use one of {', '.join(map(str, DTYPES.values()))}")
    weights = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in weights.items()}
    if name := first_not_finite(weights):
        raise ValueError(f"{name} has values that are not finite in {dtype}: nothing was written to {str(folder)!r}")
    content, digest = serialize(weights, {"config": json.dumps(config)})
    write_together({folder / WEIGHTS: content, folder / CONFIG: to_json({**config, HASH: digest})})


def read_model(folder: Path, build: Callable[[dict[str, Any]], M]) -> M:
    """Read the model in a folder, on the CPU.

    Args:
        folder: of the model.
        build: a function that makes the model from its config, with any weights.

    Raises:
        ValueError: if the config or the weights are damaged or do not fit each other. Where possible, this is found
            before the weights are read.
    """
    config, source, path = read_json(folder / CONFIG), folder / CONFIG, folder / WEIGHTS
    recorded = config.pop(HASH, None)
    with open_tensors(path, AGAIN) as (file, notes):
        if "config" in notes and recorded != notes.get("sha256"):
            source, recorded = path, None  # a save was killed between its two files, so use the copy in the weights
            config = parse_note(path, notes["config"])
        try:
            with torch.device("meta"), _WithoutValues():
                model = build(config)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        check_tensors(file, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, path)
        weights = read_tensors(file, notes, path, AGAIN)
    # The checksum that the file carries has been verified already.
    if recorded not in (None, notes.get("sha256")) and recorded != checksum(weights):
        raise ValueError(
            f"{path} does not belong to the {CONFIG} next to it, which has another hash: get both files again"
        )
    if name := first_not_finite(weights):
        raise ValueError(f"{path}: {name} has values that are not finite; {AGAIN}")
    # Keep the memory layout of fresh weights, which the layers choose for speed.
    laid = {
        name: torch.empty_strided(meta.shape, meta.stride(), dtype=meta.dtype).copy_(weights[name])
        for name, meta in model.state_dict().items()
    }
    model.load_state_dict(laid, assign=True)
    return model


def read_config(folder: Path) -> dict[str, Any]:
    """Read the `config.json` of a model, without the hash."""
    return {name: value for name, value in read_json(folder / CONFIG).items() if name != HASH}


def find_folder(name: str, options: HubOptions) -> Path:
    """Find the folder of a model by its name: a local folder, a shipped model, or a model on the Hugging Face hub.

    Raises:
        ValueError: if there is no such model, or if options of the hub are given for a model that is not there.
    """
    folder = _find_local(name)
    if folder is None:
        return _fetch(name, options)
    if given := [f"{each}={value!r}" for each in ("revision", "force_download") if (value := getattr(options, each))]:
        where = "comes with the package" if is_shipped(name) else "is a local folder"
        raise ValueError(f"{given[0]}: {name!r} {where}, not a model on the hub; leave it out")
    return folder


def _find_local(name: str) -> Path | None:
    """Return the folder of a shipped or local model; None if there is none of that name."""
    if is_shipped(name):
        return zoo_folder(name)
    if not Path(name).exists():
        return None
    if not (Path(name) / CONFIG).is_file():
        raise ValueError(f"{name!r} holds no model: there is no {CONFIG} in it; use a folder that training made")
    return Path(name)


def _fetch(name: str, options: HubOptions) -> Path:
    """Fetch a model from the hub and return its folder."""
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        near = get_close_matches(name, shipped_names(), 1)
        there = ", ".join(shipped_names())
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {there}, a folder that training made, or a hub id"
        raise ValueError(f"no model {name!r}: {hint}")
    from huggingface_hub import HfApi, snapshot_download

    chosen, reason = options, None
    try:
        if not options.local_files_only:
            # The download itself would wait for minutes for a hub that does not answer.
            HfApi(token=options.token).model_info(name, revision=options.revision, timeout=PATIENCE)
    except Exception as error:  # of whichever HTTP library this version of the hub uses
        reason, chosen = first_line(error), replace(options, local_files_only=True)  # there may be a copy from before
    try:
        if reason is None or not options.force_download:
            return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS], **asdict(chosen)))
    except Exception as error:
        reason = reason or first_line(error)
    raise ValueError(
        f"{name!r} was not found here or on the hub ({shorten(reason)}): use a folder that training made, or check "
        "the name and the connection"
    )


class _WithoutValues(TorchFunctionMode):
    """A mode that skips drawing fresh weights, which have no values on the device "meta" anyway.

    To draw them there, torch would load its compiler, which takes a second.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.nn.init.normal_, torch.Tensor.mul, torch.Tensor.__mul__):
            return args[0] if args else None
        return (torch.empty if func is torch.randn else func)(*args, **(kwargs or {}))
