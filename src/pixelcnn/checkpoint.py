"""What is kept in files: trained models, and the state from which training resumes.

A model is a folder of `config.json`, the constructor's keyword arguments, and `model.safetensors`: the Hugging Face
layout. A training run is such a folder with more in it (`pixelcnn.runs`). No pickle is ever read or written. Every file
is written under a temporary name and renamed, so that it is either the old one or the new one, whatever happens in
between.

The two files of a model are one: both are written to their ends before the first is renamed. `config.json` has the hash
of the weights, and the weights hold a copy of their own configuration. Where the two do not belong together, since
a process was killed between the two renames, the copy counts: a folder is the old model or the new one. What a person
edits in `config.json`, such as `consistent`, counts as long as the hash stays. Files of earlier versions have neither
hash nor copy, and are taken as they are.

Weights are finite numbers of type float32, bfloat16 or float16.
"""

__all__ = [
    "TrainingState",
    "load",
    "read_config",
    "read_json",
    "restore_state",
    "save",
    "write_atomically",
    "write_json",
    "write_together",
]

import errno
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from pixelcnn.config import MOST_JSON, build_model, parse_json, shorten
from pixelcnn.models import Factor, ImageModel
from pixelcnn.shipped import CARD, CONFIG, check_shipped, is_shipped, shipped_names, zoo_folder

WEIGHTS = "model.safetensors"
RUN, STATE = "run.json", "state.safetensors"
HASH, NOTES = "weights_sha256", "pixelcnn"  # in config.json, and in the metadata of safetensors files
MOST_HEADER = 2**24  # bytes at the beginning of a safetensors file: names and shapes
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
AGAIN, ANEW = "get the file again", "remove it to train this factor anew"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file as one step; on failure (a full disk, say) the old one stays and nothing else is left."""
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Replace files, the first first, once all of them are on the disk under temporary names.

    On failure the old ones stay and nothing else is left; a process that is killed leaves the first ones new.
    """
    temporaries = {path: path.with_name(f".{path.name}.tmp") for path in contents}
    path = next(iter(contents))
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporaries[path].open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in temporaries.items():
            temporary.replace(path)
    except OSError as error:
        remedy = ": make room, then go on" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
        reason = f"{error.strerror or error}; what was there before is still there{remedy}"
        raise OSError(error.errno, reason, str(path)) from None
    finally:
        for temporary in temporaries.values():
            with suppress(OSError):  # a folder that is none has no temporary file either
                temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomically(path, _to_json(value))


def _to_json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; a ValueError that names the file where it is missing or holds anything else."""
    if not path.is_file():
        raise ValueError(f"{path} is missing: {AGAIN}")
    with path.open("rb") as file:
        content = file.read(MOST_JSON + 1)
    try:
        return parse_json(content)
    except ValueError as error:
        raise ValueError(f"{path} is no JSON object that can be read ({shorten(str(error))}): {AGAIN}") from None


def save(model: ImageModel, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a model's weights and config, as one step, with a hash of the weights in both.

    Args:
        model: any model.
        folder: made if need be; an earlier model in it is replaced, and nothing else is touched.
        dtype: of the weights in the file: torch.float32, or torch.bfloat16 or torch.float16, which need half the room
            and round them.

    Raises:
        ValueError: for another type, or for weights that are not finite.
        OSError: where the disk is full or the folder cannot be written.
            In both cases an earlier model in it is still there.
    """
    if dtype not in DTYPES.values():
        raise ValueError(f"dtype={dtype!r}: use one of {', '.join(map(str, DTYPES.values()))}")
    weights = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    if name := _first_not_finite(weights):
        raise ValueError(f"{name} has values that are not finite in {dtype}: nothing is written to {str(folder)!r}")
    config = _to_json(model.config | {HASH: _checksum(weights)})
    content = _serialize(weights, {"config": json.dumps(model.config)})
    write_together({Path(folder) / WEIGHTS: content, Path(folder) / CONFIG: config})


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
        token, cache_dir, local_files_only: how a model on the hub is had; without meaning for others.

    Raises:
        ValueError: where there is no such model or device, or its files are damaged, do not fit each other, or ask for
            more than the limits of `pixelcnn.config`.
    """
    place = _find_device(device)
    options = {"revision": revision, "force_download": force_download}
    folder = _find_local(str(name))
    if folder is None:
        options |= {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        folder = _fetch(str(name), options)
    elif given := [f"{option}={value!r}" for option, value in options.items() if value]:
        where = "comes with the package" if is_shipped(str(name)) else "is a folder here"
        raise ValueError(f"{given[0]}: {str(name)!r} {where}, and is not on the hub; leave it out")
    if is_shipped(str(name)):
        check_shipped(str(name))
    model = _read_model(folder).to(place).eval()
    model.card = read_json(folder / CARD) if (folder / CARD).is_file() else {}
    return model


def read_config(folder: Path) -> dict[str, Any]:
    """What `config.json` says of a model, without the hash."""
    return {name: value for name, value in read_json(folder / CONFIG).items() if name != HASH}


def _find_local(name: str) -> Path | None:
    """The folder of a shipped model, or of a model here; None where there is none of that name."""
    if is_shipped(name):
        return zoo_folder(name)
    if not Path(name).exists():
        return None
    if not (Path(name) / CONFIG).is_file():
        raise ValueError(f"{name!r} holds no model: there is no {CONFIG} in it; name a folder that training made")
    return Path(name)


def _fetch(name: str, options: dict[str, Any]) -> Path:
    """The folder of a model from the hub."""
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS], **options))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"{name!r} is no folder here, and not to be had from the hub: {reason}") from None
    near = get_close_matches(name, shipped_names(), 1)
    hint = f"did you mean {near[0]!r}?" if near else "use a folder that training made, or a hub id owner/name"
    raise ValueError(f"no model {name!r}: {hint}")


def _find_device(device: str | torch.device) -> torch.device:
    """A device that there is; a ValueError that names those that there are for any other."""
    there = ["cpu"]
    if (accelerator := torch.accelerator.current_accelerator()) is not None and torch.accelerator.is_available():
        there += [accelerator.type, *(f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count()))]
    if str(device) not in there:
        raise ValueError(f"device={str(device)!r}: there is no such device; use {' or '.join(there)}")
    return torch.device(device)


def _read_model(folder: Path) -> ImageModel:
    """The model in a folder, on the CPU. What is wrong with its config or its weights is said before they are read."""
    config, source, path = read_json(folder / CONFIG), folder / CONFIG, folder / WEIGHTS
    recorded = config.pop(HASH, None)
    with _open_tensors(path, AGAIN) as (file, notes):
        if "config" in notes and recorded != notes.get("sha256"):
            source, recorded = path, None  # a save ended between its two files, so these weights count for themselves
            config = _parse_note(path, notes["config"])
        try:
            model = build_model(config)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        _check_tensors(file, model, path)
        weights = _read_tensors(file, notes, path, AGAIN)
    if recorded not in (None, _checksum(weights)):
        raise ValueError(
            f"{path} does not belong to {CONFIG} beside it, which names another hash: get both files again"
        )
    if name := _first_not_finite(weights):
        raise ValueError(f"{path}: {name} has values that are not finite; {AGAIN}")
    # In the order in memory that the layers choose.
    laid = {
        name: torch.empty_strided(meta.shape, meta.stride(), dtype=meta.dtype).copy_(weights[name])
        for name, meta in model.state_dict().items()
    }
    model.load_state_dict(laid, assign=True)
    return model


def _check_tensors(file: Any, model: ImageModel, path: Path) -> None:
    """A ValueError that names the first tensor of an open file that the model has not, or not like this."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (no dict)
    for name in sorted(expected.keys() | found.keys()):
        ours, theirs = expected.get(name, "none"), tuple(found[name].get_shape()) if name in found else "none"
        if ours != theirs:
            difference = shorten(f"{name} is {theirs}, config.json asks for {ours}")
            raise ValueError(f"{path} belongs to another configuration: {difference}")
        if (dtype := found[name].get_dtype()) not in DTYPES:
            raise ValueError(f"{path}: {name} is of type {dtype}; weights are of type {' or '.join(DTYPES)}")


@contextmanager
def _open_tensors(path: Path, remedy: str) -> Iterator[tuple[Any, dict[str, str]]]:
    """An open safetensors file and its notes; a ValueError that names the remedy where it is missing or damaged."""
    if not path.is_file():
        raise ValueError(f"{path} is missing: {remedy}")
    try:
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > MOST_HEADER:
            raise ValueError(f"{path} is damaged (a header of {header} bytes): {remedy}")
        with safetensors.safe_open(path, "pt") as file:
            notes = file.metadata() or {}
            # One entry for all of them, since safetensors writes several in any order; earlier files have several.
            yield file, (_parse_note(path, notes[NOTES]) if NOTES in notes else notes)
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged ({shorten(str(error))}): {remedy}") from None


def _parse_note(path: Path, text: object) -> dict[str, Any]:
    try:
        return parse_json(str(text))
    except ValueError as error:
        raise ValueError(f"{path} is damaged (its notes: {shorten(str(error))}): {AGAIN}") from None


def _read_tensors(file: Any, notes: Mapping[str, str], path: Path, remedy: str) -> dict[str, Tensor]:
    """The tensors of an open file; a ValueError where its own checksum is another."""
    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dict)
    if "sha256" in notes and notes["sha256"] != _checksum(tensors):
        raise ValueError(f"{path} is damaged (its checksum differs): {remedy}")
    return tensors


def _serialize(tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> bytes:
    """A safetensors file with notes, and the checksum of the tensors among them."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(tensors, {NOTES: json.dumps({**notes, "sha256": _checksum(tensors)})})


def _first_not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that has a value that is not finite."""
    return next((name for name in sorted(weights) if not weights[name].isfinite().all()), None)


def _checksum(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of all tensors in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass
class TrainingState:
    """All that an optimiser step changes."""

    factor: Factor
    averaged: AveragedModel
    optimizers: Sequence[torch.optim.Optimizer]
    random: Tensor  # (processes, bytes): the generators that draw dropout, as of the last save
    step: int = 0
    seconds: float = 0.0

    def to_bytes(self) -> bytes:
        tensors = {f"factor.{name}": tensor for name, tensor in self.factor.state_dict().items()}
        tensors |= {f"averaged.{name}": tensor for name, tensor in self.averaged.state_dict().items()}
        for o, optimizer in enumerate(self.optimizers):
            for i, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{o}.{i}.{name}": tensor for name, tensor in moments.items()}
        tensors["random"] = self.random
        numbers = {"step": str(self.step), "seconds": repr(self.seconds)}
        return _serialize(tensors, numbers)

    def restore(self, path: Path) -> None:
        with _open_tensors(path, ANEW) as (file, numbers):
            tensors = _read_tensors(file, numbers, path, ANEW)

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        self.factor.load_state_dict(part("factor."))
        self.averaged.load_state_dict(part("averaged."))
        for o, optimizer in enumerate(self.optimizers):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            moments = {i: part(f"optimizer.{o}.{i}.") for i, _ in enumerate(parameters)}
            for i, parameter in enumerate(parameters):
                for name, moment in moments[i].items():
                    # Fused Adam walks through memory: its moments must lie there in the order of their parameter.
                    if moment.shape == parameter.shape:
                        moments[i][name] = torch.empty_like(parameter, requires_grad=False).copy_(moment)
            optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
        self.random, self.step, self.seconds = tensors["random"], int(numbers["step"]), float(numbers["seconds"])


def restore_state(state: TrainingState, path: Path) -> None:
    """Restore a state from a file; a ValueError in one line for whatever can be wrong with it."""
    generators = state.random.shape[1:]
    try:
        state.restore(path)
        if state.random.dtype != torch.uint8 or state.random.shape[1:] != generators:
            raise ValueError("its random state is none of this device")
        if not (0 <= state.step < 2**53 and 0 <= state.seconds < math.inf):
            raise ValueError(f"step {state.step} after {state.seconds} seconds")
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError, OverflowError) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path} is damaged, or of another model ({shorten(str(error))}): {ANEW}") from None
