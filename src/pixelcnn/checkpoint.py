"""What is kept in files: trained models, and the state from which training resumes.

A model is a folder of `config.json`, the constructor's keyword arguments, and `model.safetensors`: the Hugging Face
layout. A training run is such a folder with `run.json` and, for each factor, `factor-K/state.safetensors`. No pickle is
ever read or written. Every file is written under a temporary name and renamed, so that it is either the old one or the
new one, whatever happens in between.
"""

__all__ = [
    "TrainingState",
    "check_empty",
    "claim_folder",
    "load",
    "publish",
    "read_json",
    "save",
    "save_factor",
    "write_atomically",
    "write_json",
]

import hashlib
import inspect
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from filelock import FileLock
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from pixelcnn.auxiliary import Auxiliary, Downsample, QuantizedGrayscale
from pixelcnn.models import Factor, ImageModel
from pixelcnn.shipped import CARD, CONFIG, check_shipped, is_shipped, shipped_names, zoo_folder

WEIGHTS = "model.safetensors"
RUN, STATE = "run.json", "state.safetensors"
AUXILIARIES: dict[str, type[Auxiliary]] = {cls.__name__: cls for cls in (Downsample, QuantizedGrayscale)}


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file as one step; on failure (a full disk, say) the old one stays and nothing else is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        reason = f"{error.strerror or error}; what was there before is still there: make room, then go on"
        raise OSError(error.errno, reason, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def check_empty(
    folder: Path, overwrite: bool, remedies: str = "--overwrite to replace what is in it, or another folder"
) -> None:
    """A ValueError where something is in the way of a new folder, unless it may be replaced."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is a file: name a folder")
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise ValueError(f"{str(folder)!r} is not empty: use {remedies}")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; a ValueError that names the file where it holds anything else."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): get the file again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, not an object: get the file again")
    return value


def save(model: ImageModel, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a model's config and weights, with a checksum of the weights inside their file.

    Args:
        model: any model.
        folder: made if need be.
        dtype: of the weights in the file; torch.bfloat16 needs half the room, and rounds them.

    Raises:
        OSError: where the disk is full or the folder cannot be written; an earlier model in it is still there then.
    """
    weights = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    write_json(Path(folder) / CONFIG, model.config)
    content = safetensors.torch.save(weights, metadata={"sha256": _checksum(weights)})
    write_atomically(Path(folder) / WEIGHTS, content)


def load(name: str | Path, **hub_options: Any) -> ImageModel:
    """Load a trained model, ready to evaluate, from a folder, the zoo or the Hugging Face hub, in this order.

    Args:
        name: a folder with `config.json` and `model.safetensors`, the name of a shipped one, or a hub id "owner/name".
        hub_options: `revision`, `token`, ... of `huggingface_hub.snapshot_download`.

    Raises:
        ValueError: where there is no such model, or its files are damaged or do not fit each other.
    """
    folder = _find(str(name), hub_options)
    if is_shipped(str(name)):
        check_shipped(str(name))
    model = _build(folder / CONFIG)
    _load_weights(model, folder / WEIGHTS)
    model.card = read_json(folder / CARD) if (folder / CARD).is_file() else {}
    return model.eval()


def _find(name: str, hub_options: dict[str, Any]) -> Path:
    folder = Path(name)
    if is_shipped(name):
        return zoo_folder(name)
    if folder.exists():
        if not (folder / CONFIG).is_file():
            raise ValueError(f"{name!r} holds no model: there is no {CONFIG} in it; name a folder that training made")
        return folder
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS], **hub_options))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"{name!r} is no folder here, and not to be had from the hub: {reason}") from None
    near = get_close_matches(name, shipped_names(), 1)
    hint = f"did you mean {near[0]!r}?" if near else "use a folder that training made, or a hub id owner/name"
    raise ValueError(f"no model {name!r}: {hint}")


def _build(path: Path) -> ImageModel:
    """The model that a config describes, with fresh weights."""
    config = read_json(path)
    known = [name for name in inspect.signature(ImageModel.__init__).parameters if name != "self"]
    for field in config:
        if field not in known:
            near = get_close_matches(field, known, 1)
            raise ValueError(
                f"{path}: unknown field {field!r}"
                + (f", did you mean {near[0]!r}?" if near else f"; the fields are {', '.join(known)}")
            )
    try:
        config["auxiliaries"] = _auxiliaries(config.get("auxiliaries", []))
        with torch.random.fork_rng(devices=[]):  # a training that saves must not lose its place in the random numbers
            return ImageModel(**config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _auxiliaries(value: Any) -> list[Auxiliary]:
    """The chain from its form in the config: [{"name": "Downsample", "factor": 2}, ...]."""
    chain = []
    for fields in value if isinstance(value, list) else [value]:
        if not isinstance(fields, dict) or fields.get("name") not in AUXILIARIES:
            names = ", ".join(AUXILIARIES)
            raise ValueError(f"auxiliaries={value!r}: use a list of objects, each with a name out of {names}")
        chain.append(AUXILIARIES[fields.pop("name")](**fields))
    return chain


def _load_weights(model: ImageModel, path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"{path} is missing: get the file again")
    weights, notes = _read_tensors(path, "get the file again")
    expected = model.state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        ours, theirs = (tuple(t[name].shape) if name in t else "none" for t in (expected, weights))
        if ours != theirs:
            raise ValueError(
                f"{path} belongs to another configuration: {name} is {theirs}, config.json asks for {ours}"
            )
    if "sha256" in notes and notes["sha256"] != _checksum(weights):
        raise ValueError(f"{path} is damaged (its checksum differs): get the file again")
    model.load_state_dict(weights)


def _read_tensors(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the notes of a safetensors file; a ValueError that names the remedy where it is damaged."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118  (no dict)
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}): {remedy}") from None


def _checksum(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of all tensors in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def claim_folder(folder: Path, model: ImageModel, run: dict[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Make the folder of a new run, or check that the run in the folder is the same one."""
    if resume:
        if not (folder / RUN).is_file():
            raise ValueError(f"{str(folder)!r} holds no run to resume: leave out --resume to begin one")
        # A config of before a field was there means its default; the size is that of the images.
        fields = inspect.signature(ImageModel.__init__).parameters.values()
        defaults = {field.name: field.default for field in fields if field.default is not field.empty}
        same = {"size": read_json(folder / CONFIG).get("size")}
        for name, ours, missing in ((CONFIG, model.config | same, defaults), (RUN, run, {})):
            theirs = json.loads(json.dumps(missing | read_json(folder / name)))
            if difference := _difference(theirs, json.loads(json.dumps(ours))):
                raise ValueError(
                    f"{folder / name} is of another run: {difference}. Resume it with the command that began "
                    "it, or use another folder"
                )
        return
    check_empty(folder, overwrite, "--resume to go on with the run in it, --overwrite to replace it, or another folder")
    (folder / RUN).unlink(missing_ok=True)
    for path in folder.glob("factor-*"):
        shutil.rmtree(path)
    save(model, folder)
    write_json(folder / RUN, run)


def _difference(old: Any, new: Any, name: str = "") -> str | None:
    """The first entry in which two JSON values differ, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in (old | new).keys() - {"fingerprint"}:  # data that changed are a warning, not another run
            if difference := _difference(old.get(key), new.get(key), f"{name}.{key}".lstrip(".")):
                return difference
        return None
    return None if old == new else f"{name} is {old!r} there and {new!r} here"


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
        return safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, numbers)

    def restore(self, path: Path) -> None:
        tensors, numbers = _read_tensors(path, "remove it to train this factor anew")

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


def save_factor(state: TrainingState, model: ImageModel, k: int, folder: Path) -> None:
    """Write the state of a factor, then the model."""
    write_atomically(folder / f"factor-{k}" / STATE, state.to_bytes())
    publish(model, k, folder)


def publish(model: ImageModel, k: int, folder: Path) -> None:
    """Put one factor into the folder's model; those that other commands train meanwhile stay as they are on disk."""
    with FileLock(folder / ".lock"):
        on_disk = load(folder)
        on_disk.factors[k].load_state_dict(model.factors[k].state_dict())
        on_disk.size = model.size
        save(on_disk, folder)
