"""Import of PixelCNN++ checkpoints that were trained by other programs.

`CausalNetwork` with three scales is the network of PixelCNN++ with its weights in another order, so an imported model
computes the same function as the original. We read two kinds of files: a state dict of the PyTorch port
(pclucas14/pixel-cnn-pp), and an `.npz` with the averaged TensorFlow variables of the original (openai/pixel-cnn). A
file maps completely or is refused: the error names any tensor that is missing, left over or of the wrong shape.

Three differences go beyond the order of the weights:

- On the way up, the original applies `concat_elu` to both inputs of `ul` together, `[u, s, -u, -s]`; we apply it to
  each input separately.
- The original shifts the output of a first layer after adding its bias, so the first row or column has no bias. We get
  the same result from the channel of ones, which is zero beyond the border: we move the bias into its weight for the
  pixel above, or to the left.
- The port normalizes the weights of a transposed convolution per input channel.

Reference: Salimans et al., PixelCNN++ (ICLR 2017), and its code.
"""

__all__ = ["import_checkpoint"]

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from pixelcnn.likelihoods.logistic import LogScales
from pixelcnn.models.image_model import ImageModel

SCALES = 3
STREAMS = ("u", "ul")
LOG_SCALES: LogScales = (-7.0, None)  # those of the published likelihood
# The kernel row and column at which the channel of ones takes over the bias of a first layer.
BIAS_TAPS = {"first.u": (1, 1), "first.ul_above": (0, 1), "first.ul_left": (1, 0)}
WRAPPERS = (
    "model_state_dict",
    "state_dict",
    "model",
)  # keys under which programs save a state dict next to other things
AVERAGE = "/ExponentialMovingAverage"
SLOT = re.compile(r"Variable(_\d+)?")  # TensorFlow's names for the moments of the optimizer
WANTED = (
    "import takes unconditional models in the layout of pclucas14/pixel-cnn-pp, or of openai/pixel-cnn as an .npz of "
    "its averaged variables (docs/tasks/import.md)"
)


class _Layer(NamedTuple):
    """A convolution: its name in this package, its name in the port, and its kind."""

    ours: str
    theirs: str
    kind: str  # conv, linear or deconv


class _Layout(NamedTuple):
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


PORT = _Layout(".weight_v", ".weight_g", ".bias", {"conv": "oihw", "linear": "oi", "deconv": "iohw"}, True)
ORIGINAL = _Layout("/V", "/g", "/b", {"conv": "hwio", "linear": "io", "deconv": "hwoi"}, False)


class _Checkpoint(NamedTuple):
    """The tensors of a file by name; for the original, without the suffix that marks averages."""

    path: Path
    layout: _Layout
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


@torch.no_grad()
def import_checkpoint(path: str | Path, *, dtype: torch.dtype = torch.float32) -> ImageModel:
    """Import a PixelCNN++ trained by another program, as a model ready to evaluate.

    The size of the network is inferred from the shapes in the file. Log-scales have the published range, (-7, None).

    Args:
        path: a file written by `torch.save`, with a state dict of the PyTorch port or a dict that contains one; or an
            `.npz` with the TensorFlow variables of the original, of which the averages are used.
        dtype: the type of the weights. Most are copied; the few that are computed are rounded to it.

    Raises:
        ValueError: if the file is damaged, holds anything but tensors, or has a tensor that is missing, left over or
            of the wrong shape. The message says which.

    Example:
        >>> import_checkpoint("missing.pth")
        Traceback (most recent call last):
        ValueError: 'missing.pth' is not a file: name a .pth file or an .npz
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is not a file: name a .pth file or an .npz")
    checkpoint = _read_original(path) if _is_npz(path) else _read_port(path)
    blocks = max(1, round((len(checkpoint.tensors) - 72) / 99))  # each block adds 33 layers of three tensors
    layers = list(_layers(blocks))
    if checkpoint.layout is ORIGINAL:
        layers = list(_numbered(layers))
    with torch.device("meta"):  # allocate nothing until all shapes match
        model = _fresh_model(checkpoint, layers, blocks)
    convolutions: dict[str, Any] = dict(model.factors[0].network.named_modules())
    _check_complete(checkpoint, layers, convolutions)
    model = model.to(dtype).to_empty(device="cpu")
    for layer in layers:
        ours = convolutions[layer.ours]
        for parameter, values in zip((ours.direction, ours.gain, ours.bias), _convert(checkpoint, layer), strict=True):
            parameter.copy_(values.reshape(parameter.shape))
            if not parameter.isfinite().all():
                checkpoint.refuse(f"{layer.theirs} has weights that are not finite")
        if not ours.direction.flatten(1).any(1).all():
            checkpoint.refuse(f"{layer.theirs} has a direction of zeros")
    return model.eval()


def _layers(blocks: int) -> Iterator[_Layer]:
    """Iterate over all convolutions in order of evaluation, in which TensorFlow numbers them."""
    for ours, theirs in zip(BIAS_TAPS, ("u_init", "ul_init.0", "ul_init.1"), strict=True):
        yield _Layer(ours, f"{theirs}.conv", "conv")
    for scale in range(SCALES):
        for stream in STREAMS if scale else ():
            yield _Layer(f"shrink.{scale - 1}.{stream}", f"downsize_{stream}_stream.{scale - 1}.conv", "conv")
        for i in range(blocks):
            yield from _block(f"down.{scale}.{i}", f"up_layers.{scale}", i, sides=("ul",))
    for step, scale in enumerate(reversed(range(SCALES))):
        for stream in STREAMS if step else ():
            yield _Layer(f"grow.{scale}.{stream}", f"upsize_{stream}_stream.{step - 1}.deconv", "deconv")
        for i in range(blocks + (step > 0)):
            yield from _block(f"up.{scale}.{i}", f"down_layers.{step}", i, sides=STREAMS)
    yield _Layer("last", "nin_out.lin_a", "linear")


def _block(ours: str, theirs: str, i: int, sides: tuple[str, ...]) -> Iterator[_Layer]:
    for stream in STREAMS:
        block = f"{theirs}.{stream}_stream.{i}"
        yield _Layer(f"{ours}.{stream}.input", f"{block}.conv_input.conv", "conv")
        if stream in sides:
            yield _Layer(f"{ours}.{stream}.side", f"{block}.nin_skip.lin_a", "linear")
        yield _Layer(f"{ours}.{stream}.output", f"{block}.conv_out.conv", "conv")


def _numbered(layers: list[_Layer]) -> Iterator[_Layer]:
    """Rename the layers as in the original, which numbers each kind of layer."""
    counts = dict.fromkeys(ORIGINAL.axes, 0)
    for layer in layers:
        name = {"conv": "conv2d", "linear": "dense", "deconv": "deconv2d"}[layer.kind]
        yield layer._replace(theirs=f"model/{name}_{counts[layer.kind]}")
        counts[layer.kind] += 1


def _fresh_model(checkpoint: _Checkpoint, layers: list[_Layer], blocks: int) -> ImageModel:
    """Create a model with the channels, filters and components that the first and last layer imply."""
    layout, first = checkpoint.layout, layers[0].theirs + checkpoint.layout.direction
    shape = checkpoint.shape(first, 4)
    filters, channels = (shape[layout.axes["conv"].index(axis)] for axis in "oi")
    channels -= 1  # without the channel of ones
    if channels not in (1, 3):
        checkpoint.refuse(f"{checkpoint.spell(first)} has shape {shape}, which implies images with {channels} channels")
    last, each = layers[-1].theirs + layout.bias, 10 if channels == 3 else 3
    (outputs,) = checkpoint.shape(last, 1)
    if outputs % each:
        checkpoint.refuse(f"{checkpoint.spell(last)} has shape {(outputs,)}, but logistics have {each} parameters each")
    return ImageModel(
        channels, components=outputs // each, filters=filters, blocks=blocks, scales=SCALES, log_scales=LOG_SCALES
    )


def _check_complete(checkpoint: _Checkpoint, layers: list[_Layer], convolutions: dict[str, Any]) -> None:
    """Refuse a checkpoint with a tensor that is missing, left over or of the wrong shape."""
    expected: dict[str, tuple[int, ...]] = {}
    for layer in layers:
        shapes = checkpoint.layout.shapes(layer.kind, convolutions[layer.ours].direction.shape)
        expected |= {layer.theirs + end: shape for end, shape in shapes.items()}
    for name, shape in expected.items():
        if name not in checkpoint.tensors:
            checkpoint.refuse(f"{checkpoint.spell(name)} is missing")
        if (theirs := tuple(checkpoint.tensors[name].shape)) != shape:
            checkpoint.refuse(f"{checkpoint.spell(name)} has shape {theirs}, but this network needs {shape}")
    for name in checkpoint.tensors:
        if name not in expected:
            checkpoint.refuse(f"{checkpoint.spell(name)} is left over")


def _convert(checkpoint: _Checkpoint, layer: _Layer) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the direction, gain and bias of our layer, in float64."""
    layout, axes = checkpoint.layout, checkpoint.layout.axes[layer.kind]
    ends = layout.direction, layout.gain, layout.bias
    direction, gain, bias = (checkpoint.tensors[layer.theirs + end].double() for end in ends)
    if layout.gains_of_first_axis and axes[0] != "o":
        norm = torch.linalg.vector_norm(direction, dim=(1, 2, 3), keepdim=True)
        direction, gain = _split((direction * (gain / norm)).transpose(0, 1))
    else:
        direction = direction.permute([axes.index(axis) for axis in "oihw" if axis in axes])
    gain = gain.flatten()
    if layer.ours.startswith("up.") and layer.ours.endswith(".ul.side"):
        direction = torch.cat([direction.chunk(4, 1)[part] for part in (0, 2, 1, 3)], 1)
    if layer.ours in BIAS_TAPS:
        row, col = BIAS_TAPS[layer.ours]
        norm = torch.linalg.vector_norm(direction, dim=(1, 2, 3))
        weight = direction * (gain / norm)[:, None, None, None]
        weight[:, -1, row, col] += bias
        (direction, gain), bias = _split(weight), torch.zeros_like(bias)
    return direction, gain, bias


def _split(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Split a weight (outputs, ...) into direction and gain; the direction of a zero weight is arbitrary."""
    gain = torch.linalg.vector_norm(weight, dim=(1, 2, 3))
    return torch.where((gain == 0)[:, None, None, None], 1.0, weight), gain


def _is_npz(path: Path) -> bool:
    """Tell a zip file of arrays from that of PyTorch, which contains a pickle."""
    try:
        with zipfile.ZipFile(path) as file:
            return any(name.endswith(".npy") for name in file.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return False


def _read_original(path: Path) -> _Checkpoint:
    """Read the averages from an `.npz`, which may also hold the variables themselves and the optimizer's moments."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names = [name for name in file.files if not SLOT.fullmatch(name)]
            arrays = {name: file[name] for name in names if name.endswith(AVERAGE)}
    except Exception as error:  # damaged files can make their readers raise almost anything
        raise ValueError(f"{path} is damaged, or holds more than numbers ({_in_short(error)})") from None
    checkpoint = _Checkpoint(path, ORIGINAL, {})
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


def _read_port(path: Path) -> _Checkpoint:
    """Read the state dict from a file written by `torch.save`, with names as in the plain model of the port."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files can make their readers raise almost anything
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            remedy = "if you trust it, load it yourself and save only its state dict"
            raise ValueError(f"{path} holds more than tensors ({found[1]}): {remedy}") from None
        raise ValueError(f"{path} is damaged, or is neither a PyTorch file nor an .npz ({_in_short(error)})") from None
    checkpoint = _Checkpoint(path, PORT, {})
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
