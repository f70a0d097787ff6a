"""Checkpoints of PixelCNN++ become models that compute what the original does, and everything else is refused by name.

The arithmetic of the original is written out here once more, with nothing but operators of torch.
"""

import argparse
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import inside, pixelcnn
from torch import Tensor

from pixelcnn.likelihoods.logistic import LogisticMixture
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load, save
from pixelcnn.models.presets import PixelCNN
from pixelcnn.models.sampling import sample
from pixelcnn.zoo.published import import_checkpoint

State = dict[str, Tensor]
Weights = Callable[[str], tuple[Tensor, Tensor]]  # from the port's name of a layer to its weight and its bias
AVERAGE = "/ExponentialMovingAverage"


def port_shapes(channels: int, filters: int, blocks: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """List the layers of the PyTorch port and the shapes of their weights."""
    N, kernels = filters, {"u": (2, 3), "ul": (2, 2)}
    shapes: dict[str, tuple[int, ...]] = {"u_init.conv": (N, channels + 1, 2, 3)}
    shapes |= {"ul_init.0.conv": (N, channels + 1, 1, 3), "ul_init.1.conv": (N, channels + 1, 2, 1)}
    for stream, kernel in kernels.items():
        for step in range(3):
            ways = ("up", blocks, stream == "ul"), ("down", blocks + (step > 0), 1 + (stream == "ul"))
            for way, number, sides in ways:
                for i in range(number):
                    block = f"{way}_layers.{step}.{stream}_stream.{i}"
                    shapes[f"{block}.conv_input.conv"] = N, 2 * N, *kernel
                    shapes[f"{block}.conv_out.conv"] = 2 * N, 2 * N, *kernel
                    if sides:
                        shapes[f"{block}.nin_skip.lin_a"] = N, 2 * N * sides
        for k in range(2):
            shapes[f"downsize_{stream}_stream.{k}.conv"] = shapes[f"upsize_{stream}_stream.{k}.deconv"] = N, N, *kernel
    return shapes | {"nin_out.lin_a": (outputs, N)}


def random_tensor(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=dtype)


def random_port(channels: int, filters: int, blocks: int, components: int, dtype: torch.dtype = torch.float64) -> State:
    """Make a random state dict of the PyTorch port."""
    generator, state = torch.Generator().manual_seed(0), State()
    for name, shape in port_shapes(channels, filters, blocks, components * (10 if channels == 3 else 3)).items():
        outputs = shape[1] if name.endswith("deconv") else shape[0]
        state[f"{name}.weight_v"] = random_tensor(shape, generator, dtype)
        state[f"{name}.weight_g"] = 1 + 0.3 * random_tensor((shape[0], *[1] * (len(shape) - 1)), generator, dtype)
        state[f"{name}.bias"] = 0.3 * random_tensor((outputs,), generator, dtype)
    return state


def port_weights(state: State) -> Weights:
    def weights(name: str) -> tuple[Tensor, Tensor]:
        v, g = state[f"{name}.weight_v"], state[f"{name}.weight_g"]
        weight = (
            g * v / v.pow(2).sum(tuple(range(1, v.dim())), keepdim=True).sqrt()
        )  # per index of the first axis, whatever that axis is
        return weight, state[f"{name}.bias"]

    return weights


def original_names(blocks: int) -> dict[str, str]:
    """Map the names of the port to those of the TensorFlow variables."""
    R, names = blocks, {"u_init.conv": "conv2d_0", "ul_init.0.conv": "conv2d_1", "ul_init.1.conv": "conv2d_2"}
    for s in range(3):
        for i in range(R):
            base = 3 + s * (4 * R + 2) + 4 * i
            for stream, first in (("u", base), ("ul", base + 2)):
                names[f"up_layers.{s}.{stream}_stream.{i}.conv_input.conv"] = f"conv2d_{first}"
                names[f"up_layers.{s}.{stream}_stream.{i}.conv_out.conv"] = f"conv2d_{first + 1}"
            names[f"up_layers.{s}.ul_stream.{i}.nin_skip.lin_a"] = f"dense_{s * R + i}"
        if s:
            for stream, back in (("u", 2), ("ul", 1)):
                names[f"downsize_{stream}_stream.{s - 1}.conv"] = f"conv2d_{3 + s * (4 * R + 2) - back}"
    m = 0
    for step in range(3):
        for i in range(R + (step > 0)):
            for o, stream in enumerate(("u", "ul")):
                block = f"down_layers.{step}.{stream}_stream.{i}"
                names[f"{block}.conv_input.conv"] = f"conv2d_{12 * R + 7 + 4 * m + 2 * o}"
                names[f"{block}.conv_out.conv"] = f"conv2d_{12 * R + 8 + 4 * m + 2 * o}"
                names[f"{block}.nin_skip.lin_a"] = f"dense_{3 * R + 2 * m + o}"
            m += 1
    for k in range(2):
        names[f"upsize_u_stream.{k}.deconv"] = f"deconv2d_{2 * k}"
        names[f"upsize_ul_stream.{k}.deconv"] = f"deconv2d_{2 * k + 1}"
    return names | {"nin_out.lin_a": f"dense_{9 * R + 4}"}


def random_original(
    channels: int, filters: int, blocks: int, components: int, dtype: torch.dtype = torch.float64
) -> State:
    """Make random averaged TensorFlow variables, without the suffix of their names."""
    generator, state, names = torch.Generator().manual_seed(1), State(), original_names(blocks)
    for name, shape in port_shapes(channels, filters, blocks, components * (10 if channels == 3 else 3)).items():
        axes = (1, 0) if len(shape) == 2 else (2, 3, 1, 0)  # conv: height, width, in, out; deconv the last two swapped
        outputs = shape[1] if name.endswith("deconv") else shape[0]
        state[f"model/{names[name]}/V"] = random_tensor(tuple(shape[a] for a in axes), generator, dtype)
        state[f"model/{names[name]}/g"] = 1 + 0.3 * random_tensor((outputs,), generator, dtype)
        state[f"model/{names[name]}/b"] = 0.3 * random_tensor((outputs,), generator, dtype)
    return state


def original_weights(state: State, blocks: int) -> Weights:
    names = original_names(blocks)

    def weights(name: str) -> tuple[Tensor, Tensor]:
        V, g, b = (state[f"model/{names[name]}/{end}"] for end in "Vgb")
        if V.dim() == 2:
            return (g * V / V.pow(2).sum(0).sqrt()).T, b
        if name.endswith("deconv"):  # height, width, out, in
            W = g[:, None] * V / V.pow(2).sum((0, 1, 3), keepdim=True).sqrt()
        else:
            W = g * V / V.pow(2).sum((0, 1, 2)).sqrt()
        return W.permute(3, 2, 0, 1), b

    return weights


def reference(weights: Weights, x: Tensor, blocks: int) -> Tensor:
    """Run the network of PixelCNN++ on scaled images (B, C, H, W)."""

    def conv(name: str, x: Tensor, stream: str, stride: int = 1) -> Tensor:
        W, b = weights(f"{name}.conv")
        rows, cols = W.shape[2:]
        sides = (cols // 2, cols // 2) if stream == "u" else (cols - 1, 0)
        return F.conv2d(F.pad(x, (*sides, rows - 1, 0)), W, b, stride)

    def deconv(name: str, x: Tensor, stream: str) -> Tensor:
        W, b = weights(f"{name}.deconv")
        y = F.conv_transpose2d(x, W, b, stride=2, output_padding=1)
        return y[:, :, :-1, 1:-1] if stream == "u" else y[:, :, :-1, :-1]

    def linear(name: str, x: Tensor) -> Tensor:
        W, b = weights(f"{name}.lin_a")
        return torch.einsum("oi,bihw->bohw", W, x) + b[:, None, None]

    def both(x: Tensor) -> Tensor:
        return F.elu(torch.cat([x, -x], 1))

    def block(name: str, x: Tensor, stream: str, side: Tensor | None) -> Tensor:
        hidden = conv(f"{name}.conv_input", both(x), stream)
        if side is not None:
            hidden = hidden + linear(f"{name}.nin_skip", both(side))
        a, b = conv(f"{name}.conv_out", both(hidden), stream).chunk(2, 1)
        return x + a * torch.sigmoid(b)

    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    u = F.pad(conv("u_init", x, "u"), (0, 0, 1, -1))
    ul = F.pad(conv("ul_init.0", x, "u"), (0, 0, 1, -1)) + F.pad(conv("ul_init.1", x, "ul"), (1, -1))
    kept = [(u, ul)]
    for step in range(3):
        for i in range(blocks):
            u = block(f"up_layers.{step}.u_stream.{i}", u, "u", None)
            ul = block(f"up_layers.{step}.ul_stream.{i}", ul, "ul", u)
            kept.append((u, ul))
        if step < 2:
            u, ul = conv(f"downsize_u_stream.{step}", u, "u", 2), conv(f"downsize_ul_stream.{step}", ul, "ul", 2)
            kept.append((u, ul))
    u, ul = kept.pop()
    for step in range(3):
        for i in range(blocks + (step > 0)):
            old_u, old_ul = kept.pop()
            u = block(f"down_layers.{step}.u_stream.{i}", u, "u", old_u)
            ul = block(f"down_layers.{step}.ul_stream.{i}", ul, "ul", torch.cat([u, old_ul], 1))
        if step < 2:
            u, ul = deconv(f"upsize_u_stream.{step}", u, "u"), deconv(f"upsize_ul_stream.{step}", ul, "ul")
    assert not kept
    return linear("nin_out", F.elu(ul))


def reference_log_prob(params: Tensor, x: Tensor, components: int) -> Tensor:
    """Score scaled images under mixtures of discretized logistics, with log-scales of at least -7; returns (B,)."""
    B, C, H, W = x.shape
    logits, rest = params[:, :components], params[:, components:].view(B, C, -1, components, H, W)
    means, log_scales, total = rest[:, :, 0], rest[:, :, 1].clamp(min=-7), F.log_softmax(logits, 1)
    shifts: list[Tensor | float] = [0.0]
    if C == 3:
        c = torch.tanh(rest[:, :, 2])
        shifts += [c[:, 0] * x[:, :1], c[:, 1] * x[:, :1] + c[:, 2] * x[:, 1:2]]
    for i in range(C):
        value, s = x[:, i : i + 1], torch.exp(log_scales[:, i])
        upper, lower = ((value + side / 255 - means[:, i] - shifts[i]) / s for side in (1, -1))
        # log(sigmoid(upper) - sigmoid(lower)) without a difference of nearly equal numbers
        inner = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper))
        inner = torch.where(value < -0.999, F.logsigmoid(upper), inner)
        total = total + torch.where(value > 0.999, F.logsigmoid(-lower), inner)
    return torch.logsumexp(total, 1).sum((1, 2))


def averages(state: State) -> dict[str, Any]:
    return {name + AVERAGE: tensor.numpy() for name, tensor in state.items()}


def write_npz(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path


def write_pth(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def write(folder: Path, layout: str, sizes: tuple[int, int, int, int], dtype: torch.dtype) -> tuple[Path, Weights]:
    """Write a checkpoint with random numbers, and return its weights for the reference."""
    if layout == "port":
        state = random_port(*sizes, dtype=dtype)
        return write_pth(folder / "state.pth", state), port_weights(state)
    state = random_original(*sizes, dtype=dtype)
    return write_npz(folder / "variables.npz", averages(state)), original_weights(state, sizes[2])


@pytest.mark.parametrize("layout", ["port", "original"])
@pytest.mark.parametrize(
    ("sizes", "size"),
    [((3, 6, 2, 4), (16, 20)), ((3, 5, 1, 10), (8, 8)), ((1, 4, 3, 5), (12, 8)), ((3, 3, 5, 1), (4, 4))],
)
@torch.no_grad()
def test_an_imported_model_computes_what_the_original_does(
    layout: str, sizes: tuple[int, int, int, int], size: tuple[int, int], tmp_path: Path
) -> None:
    """Law: network outputs and log-probabilities agree with those of the original to ten digits."""
    channels, filters, blocks, components = sizes
    path, weights = write(tmp_path, layout, sizes, torch.float64)
    model = import_checkpoint(path, dtype=torch.float64)
    assert not model.training
    assert (
        model.config
        == PixelCNN(
            channels=channels, components=components, filters=filters, blocks=blocks, log_scales=(-7, None)
        ).config
    )
    x = torch.randint(256, (2, channels, *size), generator=torch.Generator().manual_seed(2))
    x[0, :, :2], x[1, :, 2:4] = 0, 255  # the levels that include the tails of the logistics
    values = 2 * x.double() / 255 - 1
    expected = reference(weights, values, blocks)
    atol = 1e-10 * float(expected.abs().max())
    torch.testing.assert_close(model.factors[0].params(x), expected, rtol=1e-10, atol=atol)
    torch.testing.assert_close(model.log_prob(x), reference_log_prob(expected, values, components), rtol=1e-9, atol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_range_of_the_published_likelihood(channels: int) -> None:
    """Law: log-scales are clamped to -7 from below and not from above, as in the reference."""
    generator = torch.Generator().manual_seed(3)
    family = LogisticMixture(channels, 256, 4, (-7, None))
    params = torch.randn(3, family.num_params, 5, 6, generator=generator, dtype=torch.float64)
    kinds = 3 if channels == 3 else 2
    params[:, 4:].view(3, channels, kinds, 4, 5, 6)[:, :, 1].uniform_(-12, 4, generator=generator)
    x = torch.randint(256, (3, channels, 5, 6), generator=generator)
    expected = reference_log_prob(params, 2 * x.double() / 255 - 1, 4)
    torch.testing.assert_close(family.log_prob(params, x).sum((1, 2)), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("layout", ["port", "original"])
@torch.no_grad()
def test_full_size(layout: str, tmp_path: Path) -> None:
    """Law: this also holds at the published size, with 160 filters, five blocks and 53,659,080 numbers in float32."""
    path, weights = write(tmp_path, layout, (3, 160, 5, 10), torch.float32)
    model = import_checkpoint(path)
    path.unlink()
    assert model.config == PixelCNN(log_scales=(-7, None)).config
    assert sum(parameter.numel() for parameter in model.parameters()) == 53_659_080
    assert len(model.state_dict()) == 567
    x = torch.randint(256, (1, 3, 4, 8), generator=torch.Generator().manual_seed(4))
    expected = reference(weights, 2 * x.float() / 255 - 1, 5)
    scale = float(expected.abs().max())
    torch.testing.assert_close(model.factors[0].params(x) / scale, expected / scale, rtol=0, atol=1e-5)


SMALL = 3, 3, 1, 2


def parametrized(state: State) -> State:
    """Name the parts of normalized weights as newer versions of torch do."""
    ends = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}
    return {re.sub(r"\.weight_[gv]$", lambda found: ends[found[0]], name): t for name, t in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"model_state_dict": state, "epoch": 3, "optimizer_state_dict": {"state": {}}},
        lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"model": parametrized(state)},
        lambda state: {name: torch.nn.Parameter(tensor) for name, tensor in state.items()},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrappers_and_names(wrap: Callable[[State], State], zipped: bool, tmp_path: Path) -> None:
    """Law: state dicts inside a dict, of parallel models, and of old or new versions of torch are all understood."""
    state = random_port(*SMALL, dtype=torch.float32)
    plain = import_checkpoint(write_pth(tmp_path / "plain.pth", state))
    torch.save(wrap(state), tmp_path / "wrapped.bin", _use_new_zipfile_serialization=zipped)
    wrapped = import_checkpoint(tmp_path / "wrapped.bin")
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), wrapped.parameters(), strict=True))


def test_averages_are_taken(tmp_path: Path) -> None:
    """Law: an .npz may also hold the plain variables and those of the optimizer, in any order."""
    state = random_original(*SMALL)
    alone = import_checkpoint(write_npz(tmp_path / "alone.npz", averages(state)))
    others = {name: np.zeros_like(tensor.numpy()) for name, tensor in reversed(state.items())}
    slots = {"Variable": np.zeros(3), "Variable_17": np.zeros(())}
    full = import_checkpoint(write_npz(tmp_path / "full.npz", others | averages(state) | slots))
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), full.parameters(), strict=True))


def test_copied_weights_keep_their_bits(tmp_path: Path) -> None:
    """Law: weights that are only copied keep their bits."""
    state = random_port(*SMALL, dtype=torch.float32)
    weights = import_checkpoint(write_pth(tmp_path / "a.pth", state)).state_dict()
    block, theirs = "factors.0.network.down.1.0.u.output", "up_layers.1.u_stream.0.conv_out.conv"
    assert torch.equal(weights[f"{block}.direction"], state[f"{theirs}.weight_v"])
    assert torch.equal(weights[f"{block}.gain"], state[f"{theirs}.weight_g"].flatten())
    assert torch.equal(weights[f"{block}.bias"], state[f"{theirs}.bias"])


def test_a_dead_filter_of_the_first_layer(tmp_path: Path) -> None:
    """Law: a filter of the first layer with neither gain nor bias has a weight of zeros, not of NaN."""
    state = random_port(*SMALL)
    state["u_init.conv.weight_g"][1] = state["u_init.conv.bias"][1] = 0
    model = import_checkpoint(write_pth(tmp_path / "a.pth", state), dtype=torch.float64)
    x = torch.randint(256, (1, 3, 4, 8), generator=torch.Generator().manual_seed(5))
    expected = reference(port_weights(state), 2 * x.double() / 255 - 1, 1)
    torch.testing.assert_close(model.factors[0].params(x), expected, rtol=1e-10, atol=1e-10)


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


def refused(path: Path, message: str) -> None:
    """Check that the import is refused with one line that has the path and the message."""
    with pytest.raises(ValueError, match=message) as error:
        import_checkpoint(path)
    assert path.name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u_init.conv.weight_v": None}, r"'u_init\.conv\.weight_v' is missing; import takes"),
        ({"up_layers.0.u_stream.0.conv_input.conv.weight_v": None}, r"u_stream\.0\.conv_input\.conv\.weight_v' is"),
        ({"nin_out.lin_a.bias": None}, r"'nin_out\.lin_a\.bias' is missing"),
        ({"down_layers.2.ul_stream.1.nin_skip.lin_a.weight_g": None}, r"skip\.lin_a\.weight_g' is missing"),
        ({"nin_out.lin_a.weight": torch.zeros(3)}, r"'nin_out\.lin_a\.weight' is left over"),
        ({"up_layers.0.u_stream.1.conv_input.conv.weight_v": torch.zeros(3)}, r"u_stream\.1\.\S+ is left over"),
        ({"u_init.conv.weight_v": torch.zeros(3, 3, 2, 3)}, r"\(3, 3, 2, 3\), which implies images with 2 channels"),
        ({"u_init.conv.weight_v": torch.zeros(3, 4, 3, 3)}, r"has shape \(3, 4, 3, 3\), but .* \(3, 4, 2, 3\)"),
        ({"u_init.conv.weight_v": torch.zeros(4, 4, 2, 3)}, r"has shape"),
        ({"u_init.conv.weight_v": torch.zeros(12)}, r"has shape \(12,\), but 4 dim"),
        ({"u_init.conv.weight_v": torch.zeros(0, 4, 2, 3)}, r"has shape \(0, 4, 2, 3\)"),
        ({"nin_out.lin_a.bias": torch.zeros(33)}, r"has shape \(33,\), but logistics have 10"),
        ({"upsize_u_stream.1.deconv.weight_g": torch.ones(3)}, r"has shape \(3,\), but .*\(3, 1, 1, 1\)"),
        ({"u_init.conv.bias": torch.tensor([0.0, torch.nan, 0.0])}, r"u_init\.conv has weights that are not finite"),
        ({"nin_out.lin_a.weight_v": torch.zeros(20, 3)}, r"nin_out\.lin_a has a direction of zeros"),
        ({"upsize_u_stream.1.deconv.weight_v": torch.zeros(3, 3, 2, 3)}, r"not finite"),
        ({"u_init.conv.bias": torch.zeros(3, dtype=torch.int32)}, r"bias' has type torch\.int32"),
        ({"u_init.conv.bias": torch.zeros(3, dtype=torch.complex64)}, r"bias' has type torch\.complex64"),
        ({"u_init.conv.bias": torch.zeros(3).to_sparse()}, r"bias' has type .*sparse"),
        ({"u_init.conv.bias": torch.zeros(3, device="meta")}, r"bias' has type .*meta"),
        ({"u_init.conv.bias": "a"}, r"bias' is a str, not a tensor"),
        ({7: 1.0}, r"7 is a float, not a tensor"),
        ({"nin_out.lin_a.parametrizations.weight.original0": torch.zeros(20, 1)}, r"appears twice"),
        ({"nin_out.lin_a.bias": torch.zeros(1).expand(10**12)}, r"larger than the file"),
    ],
)  # fmt: skip
def test_a_state_dict_that_does_not_map(change: dict, message: str, tmp_path: Path) -> None:
    """Law: the error names the tensor that is missing, left over, or of the wrong shape or type."""
    state = random_port(*SMALL, dtype=torch.float32) | change
    path = write_pth(tmp_path / "state.pth", {name: tensor for name, tensor in state.items() if tensor is not None})
    refused(path, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"model/conv2d_0/V{AVERAGE}": None}, rf"'model/conv2d_0/V{AVERAGE}' is missing"),
        ({f"model/dense_13/b{AVERAGE}": None}, rf"'model/dense_13/b{AVERAGE}' is missing"),
        ({f"model/conv2d_39/g{AVERAGE}": np.zeros(3)}, rf"'model/conv2d_39/g{AVERAGE}' is left over"),
        ({"model/conv2d_39/g": np.zeros(3)}, r"'model/conv2d_39/g' is left over"),
        ({"global_step": np.zeros(())}, r"'global_step' is left over"),
        ({f"model/conditional_weights_3/hw{AVERAGE}": np.zeros((10, 6))}, "belongs to a model with classes"),
        ({f"model/conv2d_5/V{AVERAGE}": np.zeros((2, 2, 3, 6))}, r"conv2d_5/V\S+ has shape \(2, 2, 3, 6\), but"),
        ({f"model/conv2d_5/b{AVERAGE}": np.zeros(3, np.int32)}, r"conv2d_5/b\S+ has type int32"),
        ({f"model/conv2d_5/b{AVERAGE}": np.array([None] * 3)}, r"holds more than numbers \(Object arrays"),
        ({f"model/conv2d_5/b{AVERAGE}": np.array(["a"] * 3)}, r"conv2d_5/b\S+ has type <U1"),
        ({f"model/dense_13/b{AVERAGE}": np.zeros(32)}, r"logistics have 10"),
    ],
)  # fmt: skip
def test_variables_that_do_not_map(change: dict[str, np.ndarray | None], message: str, tmp_path: Path) -> None:
    """Law: the same holds for an .npz, where a variable without an average counts as missing."""
    arrays = averages(random_original(*SMALL)) | change
    arrays = {name: array for name, array in arrays.items() if array is not None}
    refused(write_npz(tmp_path / "variables.npz", arrays), message)


def test_an_npz_without_averages(tmp_path: Path) -> None:
    """Law: variables without averages are refused, all together or one alone."""
    state = random_original(*SMALL)
    plain = {name: tensor.numpy() for name, tensor in state.items()}
    refused(write_npz(tmp_path / "variables.npz", plain), f"no name ends in {AVERAGE}")
    for name in ("model/conv2d_3/g", "model/conv2d_3/V"):
        arrays = averages(state) | plain
        del arrays[name + AVERAGE]
        refused(write_npz(tmp_path / "variables.npz", arrays), f"'{name}' is left over, or its average is missing")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_anything_but_tensors_is_not_run(zipped: bool, tmp_path: Path) -> None:
    """Law: the file is refused, the error names the object, and its code does not run."""
    harm, state = tmp_path / "harm", random_port(*SMALL)
    contents = (
        (state | {"x": Harm(harm)}, r"posix\.mkdir"),
        ({"args": argparse.Namespace(), "model": state}, "argparse"),
    )
    for content, name in contents:
        torch.save(content, tmp_path / "state.pth", _use_new_zipfile_serialization=zipped)
        refused(tmp_path / "state.pth", rf"holds more than tensors \({name}")
    assert not harm.exists()


def test_files_that_are_not_checkpoints(tmp_path: Path) -> None:
    """Law: damaged files, other files and other layouts give a one-line error."""
    with pytest.raises(ValueError, match=r"missing\.pth' is not a file"):
        import_checkpoint(tmp_path / "missing.pth")
    with pytest.raises(ValueError, match="is not a file"):
        import_checkpoint(tmp_path)
    good = write_pth(tmp_path / "good.pth", random_port(*SMALL)).read_bytes()
    npz = write_npz(tmp_path / "good.npz", averages(random_original(*SMALL))).read_bytes()
    flipped = bytearray(npz)
    flipped[len(npz) // 2] ^= 255
    halves = good[: len(good) // 2], good[:-1], npz[: len(npz) // 2], npz[:-1]
    for content in (b"", b"text\n", b"\x89PNG", *halves, flipped):
        (tmp_path / "bad.pth").write_bytes(content)
        refused(tmp_path / "bad.pth", "is damaged")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as file:
        file.writestr(f"model/conv2d_0/V{AVERAGE}.npy", "text")
    refused(tmp_path / "text.npz", "'model/conv2d_0/V/ExponentialMovingAverage' is not an array")
    for content, message in (
        ([torch.zeros(3)], "holds a list, not a state dict"),
        (torch.zeros(3), "holds a Tensor, not a state dict"),
        ({}, "'u_init.conv.weight_v' is missing"),
        (ImageModel(filters=2, blocks=1).state_dict(), "'u_init.conv.weight_v' is missing"),
        ({"state_dict": {"module.u_init.conv.weight": torch.zeros(3, 4, 2, 3)}}, "'u_init.conv.weight_v' is missing"),
    ):
        refused(write_pth(tmp_path / "other.pth", content), message)
    save(ImageModel(filters=2, blocks=1), tmp_path / "ours")
    refused(tmp_path / "ours" / "model.safetensors", "'u_init.conv.weight_v' is missing|neither a PyTorch file nor")


def test_the_import_command(tmp_path: Path) -> None:
    """A real process turns a checkpoint into a folder that loads, draws and scores like the imported model."""
    file, out = write_pth(tmp_path / "state.pth", random_port(*SMALL, dtype=torch.float32)), tmp_path / "model"
    result = pixelcnn("import", file, "--out", out)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{out}\n"
    assert "channels 3, components 2, filters [3], blocks [1]" in result.stderr
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors"}
    assert json.loads((out / "config.json").read_text())["log_scales"] == [-7.0, None]
    loaded, imported = load(out), import_checkpoint(file)
    assert loaded.factors[0].likelihood == LogisticMixture(3, 256, 2, (-7, None))
    drawn = sample(loaded, 2, (5, 4))
    assert torch.equal(loaded.log_prob(drawn), imported.log_prob(drawn))


def test_the_import_command_replaces_only_models(tmp_path: Path) -> None:
    """Law: only --overwrite replaces anything, and then only a model's two files, never a run or the input."""
    file, out = write_pth(tmp_path / "state.pth", random_port(*SMALL, dtype=torch.float32)), tmp_path / "model"
    bad, run, itself = write_pth(tmp_path / "bad.pth", {}), tmp_path / "run", tmp_path / "itself"
    save(PixelCNN(filters=2, blocks=1), out)
    (out / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in out.iterdir()}
    run.mkdir()
    (run / "run.json").write_text("{}")
    itself.mkdir()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"theirs": 1}')
    mine = write_pth(itself / "model.safetensors", random_port(*SMALL, dtype=torch.float32))
    for arguments, message in (
        ((file, "--out", out), "not empty: use --overwrite"),
        ((bad, "--out", out, "--overwrite"), "'u_init.conv.weight_v' is missing"),
        ((file, "--out", run, "--overwrite"), "holds a training run"),
        ((mine, "--out", itself, "--overwrite"), "would be overwritten"),
        ((file, "--out", foreign, "--overwrite"), "not empty and not a model: name another folder"),
        ((file, "--out", file), "is a file: name a folder"),
        ((tmp_path / "none.pth", "--out", tmp_path / "new"), "is not a file"),
        ((file,), "--out"),
    ):
        result = inside("import", *arguments)
        assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
        assert message in result.stderr
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert not (tmp_path / "new").exists()
    assert [path.name for path in run.iterdir()] == ["run.json"]
    assert (foreign / "config.json").read_text() == '{"theirs": 1}'
    assert inside("import", file, "--out", out, "--overwrite").returncode == 0
    assert (out / "notes.txt").read_text() == "mine"
    assert load(out).config.log_scales == (-7.0, None)
