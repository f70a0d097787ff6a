"""Laws of the layers: a convolution reads the offsets that it names, and initialization standardizes its output."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pixelcnn.nn.blocks import GatedResidual
from pixelcnn.nn.causal import CausalNetwork
from pixelcnn.nn.embedding import EmbeddingNetwork
from pixelcnn.nn.layers import AROUND, Conv, Dropout, TransposedConv, concat_elu, initialize

sizes = st.tuples(st.integers(1, 6), st.integers(1, 6))
offsets = st.builds(range, st.integers(-3, -1), st.integers(0, 3)) | st.builds(range, st.just(0), st.integers(1, 3))
seeds = st.integers(0, 2**31)


def randomized(layer: Any) -> Any:
    """The layer in float64, with a different gain and bias for each channel."""
    for parameter in layer.double().parameters():
        nn.init.normal_(parameter)
    return layer


def normalized(layer: Conv | TransposedConv) -> Tensor:
    """gain * direction / |direction|, channel by channel."""
    return torch.stack([g * v / v.pow(2).sum().sqrt() for g, v in zip(layer.gain, layer.direction, strict=True)])


@given(sizes, offsets, offsets, st.integers(1, 3), seeds)
def test_a_convolution_is_the_sum_over_its_offsets(
    size: tuple[int, int], rows: range, cols: range, stride: int, seed: int
) -> None:
    """Law: out[i, j] = bias + sum over r, c of weight[r, c] x[stride i + r, stride j + c], zeros beyond the border."""
    torch.manual_seed(seed)
    layer = randomized(Conv(2, 3, rows, cols, stride=stride))
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    weight = normalized(layer)
    h, w = (math.ceil(side / stride) for side in size)
    expected = layer.bias.view(1, -1, 1, 1).repeat(2, 1, h, w)
    for i in range(h):
        for j in range(w):
            for a, r in enumerate(rows):
                for b, c in enumerate(cols):
                    row, col = stride * i + r, stride * j + c
                    if 0 <= row < size[0] and 0 <= col < size[1]:
                        expected[:, :, i, j] += x[:, :, row, col] @ weight[:, :, a, b].T
    torch.testing.assert_close(layer(x), expected)


@given(sizes, st.integers(1, 4), st.integers(0, 3), st.integers(0, 2), st.integers(0, 3), st.integers(0, 2), seeds)
def test_a_transposed_convolution_writes_to_its_offsets(
    size: tuple[int, int], stride: int, above: int, below: int, left: int, right: int, seed: int
) -> None:
    """Law: out[p, q] = bias + sum of weight[r, c] x[i, j] over all with p = stride i + r and q = stride j + c."""
    torch.manual_seed(seed)
    rows, cols = range(-above, stride + below), range(-left, stride + right)
    layer = randomized(TransposedConv(2, 3, rows, cols, stride=stride))
    x = torch.randn(2, 2, *(math.ceil(side / stride) for side in size), dtype=torch.float64)
    weight = normalized(layer)
    expected = layer.bias.view(1, -1, 1, 1).repeat(2, 1, *size)
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            for a, r in enumerate(rows):
                for b, c in enumerate(cols):
                    p, q = stride * i + r, stride * j + c
                    if 0 <= p < size[0] and 0 <= q < size[1]:
                        expected[:, :, p, q] += x[:, :, i, j] @ weight[:, :, a, b].T
    torch.testing.assert_close(layer(x, size), expected)


def test_the_norm_of_a_weight_is_its_gain() -> None:
    """Law: however the direction is stretched, the weight of an output channel has the norm |gain|."""
    for layer in (Conv(3, 4, AROUND, AROUND), TransposedConv(3, 4, range(2), range(2), stride=2)):
        randomized(layer)
        weight = layer.weight()
        torch.testing.assert_close(weight.flatten(1).norm(dim=1), layer.gain.abs())
        with torch.no_grad():
            layer.direction.mul_(7)
        torch.testing.assert_close(layer.weight(), weight)


def test_concat_elu_is_elu_of_x_and_of_minus_x() -> None:
    """Law: channels F become 2 F, ELU of x and then ELU of -x, and x itself stays as it was."""
    x = torch.tensor([-2.0, 0.0, 3.0, -0.5]).view(1, 4, 1, 1)
    before = x.clone()
    values = [-2.0, 0.0, 3.0, -0.5, 2.0, 0.0, -3.0, 0.5]
    expected = [v if v > 0 else math.exp(v) - 1 for v in values]
    assert concat_elu(x).flatten().tolist() == pytest.approx(expected)
    assert torch.equal(x, before)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dropout_drops_its_share_and_keeps_the_expectation(rate: float, layout: torch.memory_format) -> None:
    """Law: a unit is dropped at the rate, to 1/256, whatever its neighbors; the others make up for it."""
    torch.manual_seed(0)
    x = torch.full((8, 16, 32, 33), 3.0).contiguous(memory_format=layout)
    output = Dropout(rate)(x)
    dropped = output == 0
    share = float(dropped.double().mean())
    assert len(output[~dropped].unique()) == 1
    deviation = math.sqrt(rate * (1 - rate) / x.numel())
    assert abs(share - rate) <= 1 / 256 + 5 * deviation
    assert abs(share * 256 - round(share * 256)) <= 256 * 5 * deviation
    assert abs(float(output.double().mean()) - 3) <= 3 * 6 * deviation / (1 - rate)
    # Every eighth unit shares a byte position in the random words: none is dropped more than another.
    for units in (dropped.flatten(), dropped.permute(0, 2, 3, 1).flatten()):
        eighths = units[: len(units) // 8 * 8].view(-1, 8).double()
        assert ((eighths.mean(0) - share).abs() <= 6 * math.sqrt(8) * deviation).all()
        together = (eighths[:, :-1] * eighths[:, 1:]).mean()
        assert abs(float(together) - share**2) <= 6 * deviation * 2


def test_layers_compile_to_one_graph() -> None:
    """Law: a compiler sees through layers that enlarge and gate, and values and gradients stay what they are."""
    torch.manual_seed(0)
    grow = randomized(TransposedConv(2, 2, range(2), AROUND, stride=2))
    block = randomized(GatedResidual(2, partial(Conv, rows=AROUND, cols=AROUND)))
    parameters = [*grow.parameters(), *block.parameters()]

    def network(x: Tensor) -> Tensor:
        x = grow(x, (5, 6))
        return block(x, concat_elu(x))

    x = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    expected = network(x)
    gradients = torch.autograd.grad(expected.sin().sum(), parameters)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(compiled, expected)
    torch.testing.assert_close(torch.autograd.grad(compiled.sin().sum(), parameters), gradients)


def test_dropout_is_off_in_evaluation() -> None:
    """Law: in eval mode dropout returns its input."""
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(Dropout(0.5).eval()(x), x)


def test_dropout_follows_the_seed_of_torch() -> None:
    """Law: the same seed drops the same units; another seed or a second call drops others."""
    x, layer = torch.ones(2, 3, 8, 8), Dropout(0.5)

    def dropped(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return layer(x)

    assert torch.equal(dropped(1), dropped(1))
    assert not torch.equal(dropped(1), dropped(2))
    torch.manual_seed(1)
    assert not torch.equal(layer(x), layer(x))


def test_the_gradient_of_dropout_is_its_mask() -> None:
    """Law: dropped units get no gradient, kept ones the factor that they were scaled by; the dtype is kept."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = torch.ones(2, 4, 8, 8, dtype=dtype, requires_grad=True)
        output = Dropout(0.5)(x)
        assert output.dtype == dtype
        (gradient,) = torch.autograd.grad(output.sum(), x)
        assert torch.equal(gradient, output)


def test_a_gated_residual_is_its_formula() -> None:
    """Law: x + a sigmoid(b), where (a, b) = conv(concat_elu(conv(concat_elu(x)) + conv1x1(sides)))."""
    torch.manual_seed(0)
    block = randomized(GatedResidual(3, partial(Conv, rows=AROUND, cols=AROUND), side=4, dropout=0.5)).eval()
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    sides = [torch.randn(2, c, 4, 5, dtype=torch.float64) for c in (3, 1)]
    hidden = block.input(concat_elu(x)) + block.side(torch.cat(sides, 1))
    a, b = block.output(concat_elu(hidden)).split(3, 1)
    torch.testing.assert_close(block(x, concat_elu(x), sides), x + a / (1 + torch.exp(-b)))
    assert not torch.equal(block.train()(x, concat_elu(x), sides), x + a / (1 + torch.exp(-b)))


def image(size: tuple[int, int] = (8, 8), batch: int = 4) -> Tensor:
    return torch.randint(256, (batch, 3, *size), generator=torch.Generator().manual_seed(0))


def networks() -> list:
    torch.manual_seed(0)
    plain = CausalNetwork(3, 256, 10, filters=6, blocks=2, scales=1)
    strided = CausalNetwork(3, 256, 10, filters=6, blocks=1, scales=3)
    given_view = CausalNetwork(3, 256, 10, filters=6, blocks=1, scales=2, context=5)
    embedding = EmbeddingNetwork(3, 256, filters=6, blocks=1, scales=2, upsample=2)
    context = torch.randn(4, 5, 8, 8)
    return [
        (plain, [image()]),
        (strided, [image()]),
        (given_view, [image(), context]),
        (embedding, [image(), (15, 16)]),
    ]


@pytest.mark.parametrize("number", range(4), ids=["plain", "strided", "context", "embedding"])
def test_initialization_standardizes_every_convolution(number: int) -> None:
    """Law: after it, on its batch, every channel of every convolution has mean 0 and deviation 1 (a tenth at gates)."""
    network, inputs = networks()[number]
    network.train()
    initialize(network, *inputs)
    assert network.training
    outputs: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        outputs[name] = output.detach()

    for name, module in network.named_modules():
        if isinstance(module, Conv | TransposedConv):
            module.register_forward_hook(partial(keep, name))
    network.eval()(*inputs)
    assert len(outputs) > 10
    for name, output in outputs.items():
        deviation, mean = torch.std_mean(output.double(), (0, 2, 3), correction=0)
        expected = 0.1 if name.endswith("output") else 1.0
        torch.testing.assert_close(mean / expected, torch.zeros_like(mean), rtol=0, atol=2e-4, msg=name)
        torch.testing.assert_close(deviation / expected, torch.ones_like(mean), rtol=0, atol=2e-4, msg=name)


@pytest.mark.parametrize("number", range(4), ids=["plain", "strided", "context", "embedding"])
def test_initialization_leaves_nothing_behind(number: int) -> None:
    """Law: afterwards the network is a function of its parameters again, in the mode and with the gradients it had."""
    network, inputs = networks()[number]
    initialize(network.eval(), *inputs)
    assert not network.training
    state = {name: value.clone() for name, value in network.state_dict().items()}
    assert torch.equal(network(*inputs), network(*inputs))
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


def test_a_channel_that_does_not_vary_keeps_its_gain() -> None:
    """Law: a batch of one 1x1 image, where no channel varies, leaves every gain and every output finite."""
    torch.manual_seed(0)
    for scales in (1, 3):
        network = CausalNetwork(3, 256, 10, filters=4, blocks=1, scales=scales)
        gains = {name: value.clone() for name, value in network.named_parameters() if name.endswith("gain")}
        initialize(network, image((1, 1), batch=1))
        assert network.eval()(image((1, 1))).isfinite().all()
        assert network(image((5, 6))).isfinite().all()
        assert all(torch.equal(network.get_parameter(name), gain) for name, gain in gains.items())
    embedding = EmbeddingNetwork(3, 256, filters=4, blocks=1)
    initialize(embedding, *[image((1, 1), batch=1), (1, 1)])
    assert embedding.eval()(image((5, 6)), (5, 6)).isfinite().all()
