"""Models in files.

A model is a folder of `config.json`, the constructor's keyword arguments, and `model.safetensors`: the Hugging Face
layout. A training run is such a folder with more in it (`pixelcnn.training.runs`). No pickle is ever read or
written. Every file is written under a temporary name and renamed, so that it is either the old one or the new one,
whatever happens in between.

The two files of a model are one: both are written to their ends before the first is renamed. `config.json` has the hash
of the weights, and the weights hold a copy of their own configuration. Where the two do not belong together, since
a process was killed between the two renames, the copy counts: a folder is the old model or the new one. What a person
edits in `config.json`, such as `consistent`, counts as long as the hash stays. Files of earlier versions have neither
hash nor copy, and are taken as they are.

Weights are finite numbers of type float32, bfloat16 or float16.
"""

__all__ = ["WEIGHTS", "HubOptions", "find_device", "find_folder", "read_config", "read_model", "write_model"]

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pixelcnn.common.files import AGAIN, read_json, to_json, write_together
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
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class HubOptions:
    """How a model is fetched from the hub.

    Args:
        revision: which version of it. Refused for a model that is not on the hub.
        force_download: fetch it again. Refused likewise.
        token, cache_dir, local_files_only: as for `huggingface_hub`; without meaning for other models.
    """

    revision: str | None = None
    force_download: bool = False
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False


def write_model(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Write weights and config, as one step, with a hash of the weights in both.

    Args:
        folder: made if need be; an earlier model in it is replaced, and nothing else is touched.
        config: as JSON has it.
        weights: of the model, by name.
        dtype: of the weights in the file.

    Raises:
        ValueError: for another type than those of weights, or for weights that are not finite.
        OSError: where the disk is full or the folder cannot be written.
            In both cases an earlier model in it is still there.
    """
    if dtype not in DTYPES.values():
        raise ValueError(f"dtype={dtype!r}: use one of {', '.join(map(str, DTYPES.values()))}")
    weights = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in weights.items()}
    if name := first_not_finite(weights):
        raise ValueError(f"{name} has values that are not finite in {dtype}: nothing is written to {str(folder)!r}")
    content, digest = serialize(weights, {"config": json.dumps(config)})
    write_together({folder / WEIGHTS: content, folder / CONFIG: to_json({**config, HASH: digest})})


def read_model(folder: Path, build: Callable[[dict[str, Any]], M]) -> M:
    """Read the model in a folder, on the CPU.

    Args:
        folder: of the model.
        build: makes it from its config, with any weights.

    Raises:
        ValueError: for what is wrong with the config or the weights, before these are read where that can be said.
    """
    config, source, path = read_json(folder / CONFIG), folder / CONFIG, folder / WEIGHTS
    recorded = config.pop(HASH, None)
    with open_tensors(path, AGAIN) as (file, notes):
        if "config" in notes and recorded != notes.get("sha256"):
            source, recorded = path, None  # a save ended between its two files, so these weights count for themselves
            config = parse_note(path, notes["config"])
        try:
            with torch.device("meta"), _WithoutValues():
                model = build(config)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        check_tensors(file, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, path)
        weights = read_tensors(file, notes, path, AGAIN)
    if recorded not in (None, checksum(weights)):
        raise ValueError(
            f"{path} does not belong to {CONFIG} beside it, which names another hash: get both files again"
        )
    if name := first_not_finite(weights):
        raise ValueError(f"{path}: {name} has values that are not finite; {AGAIN}")
    # In the order in memory that the layers choose.
    laid = {
        name: torch.empty_strided(meta.shape, meta.stride(), dtype=meta.dtype).copy_(weights[name])
        for name, meta in model.state_dict().items()
    }
    model.load_state_dict(laid, assign=True)
    return model


def read_config(folder: Path) -> dict[str, Any]:
    """Read what `config.json` says of a model, without the hash."""
    return {name: value for name, value in read_json(folder / CONFIG).items() if name != HASH}


def find_folder(name: str, options: HubOptions) -> Path:
    """Find the folder of a model by its name: a folder here, a shipped model, or one on the Hugging Face hub.

    Raises:
        ValueError: where there is none of that name, or options of the hub are given for one that is not there.
    """
    folder = _find_local(name)
    if folder is None:
        return _fetch(name, options)
    if given := [f"{each}={value!r}" for each in ("revision", "force_download") if (value := getattr(options, each))]:
        where = "comes with the package" if is_shipped(name) else "is a folder here"
        raise ValueError(f"{given[0]}: {name!r} {where}, and is not on the hub; leave it out")
    return folder


def find_device(device: str | torch.device) -> torch.device:
    """Find a device that exists; a ValueError that names those that do for any other."""
    there = ["cpu"]
    if (accelerator := torch.accelerator.current_accelerator()) is not None and torch.accelerator.is_available():
        there += [accelerator.type, *(f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count()))]
    if str(device) not in there:
        raise ValueError(f"device={str(device)!r}: there is no such device; use {' or '.join(there)}")
    return torch.device(device)


def _find_local(name: str) -> Path | None:
    """The folder of a shipped model, or of a model here; None where there is none of that name."""
    if is_shipped(name):
        return zoo_folder(name)
    if not Path(name).exists():
        return None
    if not (Path(name) / CONFIG).is_file():
        raise ValueError(f"{name!r} holds no model: there is no {CONFIG} in it; name a folder that training made")
    return Path(name)


def _fetch(name: str, options: HubOptions) -> Path:
    """The folder of a model from the hub."""
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS], **asdict(options)))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"{name!r} was not found locally or on the hub: {reason}") from None
    near = get_close_matches(name, shipped_names(), 1)
    hint = f"did you mean {near[0]!r}?" if near else "use a folder that training made, or a hub id owner/name"
    raise ValueError(f"no model {name!r}: {hint}")


class _WithoutValues(TorchFunctionMode):
    """Leave out the drawing of fresh weights, which on the device "meta" have no values.

    For it torch would load its compiler, which takes a second.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.nn.init.normal_, torch.Tensor.mul, torch.Tensor.__mul__):
            return args[0] if args else None
        return (torch.empty if func is torch.randn else func)(*args, **(kwargs or {}))
