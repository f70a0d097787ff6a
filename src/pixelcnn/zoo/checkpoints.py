"""Read PixelCNN++ checkpoints of other programs: their tensors by name, and how these are laid out."""

__all__ = ["ORIGINAL", "Checkpoint", "read_checkpoint"]

import re
import zipfile
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

# Keys under which programs save a state dict next to other things.
WRAPPERS = ("model_state_dict", "state_dict", "model")
AVERAGE = "/ExponentialMovingAverage"
SLOT = re.compile(r"Variable(_\d+)?")  # TensorFlow's names for the moments of the optimizer
WANTED = (
    "import takes unconditional models in the layout of pclucas14/pixel-cnn-pp, or of openai/pixel-cnn as an .npz of "
    "its averaged variables (docs/tasks/import.md)"
)


class Layout(NamedTuple):
    """The names and axes that a kind of file uses for the direction, gain and bias of a layer."""

    direction: str
    gain: str
    bias: str
    axes: dict[str, str]  # of a direction, by kind of layer: outputs, inputs, height and width of the kernel
    gains_of_first_axis: bool  # with the dimensions of the direction; otherwise one per output, in one dimension

    def shapes(self, kind: str, direction: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Compute the shapes of direction, gain and bias in the file from the shape of our direction."""
        sizes = dict(zip("oihw", direction, strict=True))
        shape = tuple(sizes[axis] for axis in self.axes[kind])
        gain = (shape[0], *[1] * (len(shape) - 1)) if self.gains_of_first_axis else (sizes["o"],)
        return {self.direction: shape, self.gain: gain, self.bias: (sizes["o"],)}


PORT = Layout(".weight_v", ".weight_g", ".bias", {"conv": "oihw", "linear": "oi", "deconv": "iohw"}, True)
ORIGINAL = Layout("/V", "/g", "/b", {"conv": "hwio", "linear": "io", "deconv": "hwoi"}, False)


class Checkpoint(NamedTuple):
    """The tensors of a file by name; for the original, without the suffix that marks averages."""

    path: Path
    layout: Layout
    tensors: dict[str, Tensor]

    def refuse(self, reason: str) -> NoReturn:
        raise ValueError(f"{self.path}: {reason}; {WANTED}")

    def shape(self, name: str, dims: int) -> tuple[int, ...]:
        """Look up the shape of a tensor that determines the size of the network."""
        if name not in self.tensors:
            self.refuse(f"{self.spell(name)} is missing")
        shape = tuple(self.tensors[name].shape)
        if len(shape) != dims or 0 in shape:
            self.refuse(f"{self.spell(name)} has shape {shape}, but {dims} dimensions are expected")
        return shape

    def spell(self, name: str) -> str:
        return repr(name if self.layout is PORT else name + AVERAGE)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a state dict of the PyTorch port, or an `.npz` of the variables of the original.

    Raises:
        ValueError: if the file is damaged, or holds anything but such tensors.
    """
    return _read_original(path) if _is_npz(path) else _read_port(path)


def _is_npz(path: Path) -> bool:
    """Tell a zip file of arrays from that of PyTorch, which contains a pickle."""
    try:
        with zipfile.ZipFile(path) as file:
            return any(name.endswith(".npy") for name in file.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return False


def _read_original(path: Path) -> Checkpoint:
    """Read the averages from an `.npz`, which may also hold the variables themselves and the optimizer's moments."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names = [name for name in file.files if not SLOT.fullmatch(name)]
            arrays = {name: file[name] for name in names if name.endswith(AVERAGE)}
    except Exception as error:  # damaged files can make their readers raise almost anything
        raise ValueError(f"{path} is damaged, or holds more than numbers ({_in_short(error)})") from None
    checkpoint = Checkpoint(path, ORIGINAL, {})
    if labels := [name for name in names if "conditional_weights" in name]:
        checkpoint.refuse(f"{labels[0]!r} belongs to a model with classes")
    if not arrays:
        checkpoint.refuse(f"no name ends in {AVERAGE}, and the published figures are those of the averaged variables")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # numpy returns members of the zip that are not arrays as bytes
            checkpoint.refuse(f"{name!r} is not an array")
        if array.dtype.kind != "f" or array.dtype.itemsize > 8:
            checkpoint.refuse(f"{name!r} has type {array.dtype}: use float32")
        checkpoint.tensors[name.removesuffix(AVERAGE)] = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    for name in names:
        if name not in arrays and name not in checkpoint.tensors:
            checkpoint.refuse(f"{name!r} is left over, or its average is missing")
    return checkpoint


def _read_port(path: Path) -> Checkpoint:
    """Read the state dict from a file written by `torch.save`, with names as in the plain model of the port."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files can make their readers raise almost anything
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            remedy = "if you trust it, load it yourself and save only its state dict"
            raise ValueError(f"{path} holds more than tensors ({found[1]}): {remedy}") from None
        raise ValueError(f"{path} is damaged, or is neither a PyTorch file nor an .npz ({_in_short(error)})") from None
    checkpoint = Checkpoint(path, PORT, {})
    if not isinstance(loaded, dict):
        checkpoint.refuse(f"holds a {type(loaded).__name__}, not a state dict")
    state = next((loaded[name] for name in WRAPPERS if isinstance(loaded.get(name), dict)), loaded)
    parallel = bool(state) and all(str(name).startswith("module.") for name in state)
    for name, tensor in state.items():
        plain = str(name).removeprefix("module.") if parallel else str(name)
        plain = plain.replace(".parametrizations.weight.original0", PORT.gain)
        plain = plain.replace(".parametrizations.weight.original1", PORT.direction)
        if not isinstance(tensor, Tensor):
            checkpoint.refuse(f"{name!r} is a {type(tensor).__name__}, not a tensor")
        if not (tensor.is_floating_point() and tensor.layout == torch.strided and tensor.device.type == "cpu"):
            checkpoint.refuse(f"{name!r} has type {tensor.dtype} ({tensor.layout}, {tensor.device}): use float32")
        if plain in checkpoint.tensors:
            checkpoint.refuse(f"{name!r} appears twice")
        checkpoint.tensors[plain] = tensor
    # An expanded view can claim far more elements than the file stores.
    if sum(t.numel() * t.element_size() for t in checkpoint.tensors.values()) > path.stat().st_size:
        checkpoint.refuse("its tensors are larger than the file")
    return checkpoint


def _in_short(error: Exception) -> str:
    """Shorten an error to its last line, which has the reason."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
