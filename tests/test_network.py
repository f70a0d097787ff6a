"""Laws of the causal network: what a pixel sees, by the Jacobian, in every configuration and at any size."""

import pytest
import torch
from conftest import Scramble
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pixelcnn.nn.causal import CausalNetwork
from pixelcnn.nn.layers import initialize

sizes = st.one_of(
    st.tuples(st.integers(1, 5), st.integers(1, 6)), st.just((1, 1)), st.tuples(st.just(1), st.integers(1, 7))
)


def gradients(network: CausalNetwork, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Of a random combination of the outputs at each pixel: (H, W, C, H, W) for the image, and for the context.

    A batch holds one copy of the image for each pixel, so that one backward pass gives them all.
    """
    H, W = x.shape[-2:]
    copies = [t if t is None else t.repeat(H * W, 1, 1, 1).requires_grad_() for t in (x, context)]
    outputs = network(*copies)
    here = torch.eye(H * W, dtype=outputs.dtype).view(H * W, 1, H, W)
    mixed = (outputs * torch.randn(1, outputs.shape[1], 1, 1, dtype=outputs.dtype) * here).sum()
    found = torch.autograd.grad(mixed, [t for t in copies if t is not None], allow_unused=True)
    both = [None if g is None else g.unflatten(0, (H, W)) for g in found] + [None]
    return torch.zeros(H, W, *x.shape[1:]) if both[0] is None else both[0], both[1]


def reach(network: CausalNetwork, size: tuple[int, int], channels: int = 1, context: Tensor | None = None) -> Tensor:
    """(H, W, H, W): whether the output at a pixel depends on a pixel; the channels must agree."""
    torch.manual_seed(0)
    depends = gradients(network, torch.rand(1, channels, *size, dtype=torch.float64) * 3, context)[0] != 0
    assert torch.equal(depends.any(2), depends.all(2))
    return depends.any(2)


def make(scramble: Scramble, channels: int = 1, *, context: int = 0, **arguments: int) -> CausalNetwork:
    torch.manual_seed(1)
    network = CausalNetwork(channels, 4, 3, filters=3, context=context, **arguments)
    assert isinstance(scramble(network), CausalNetwork)
    return network


def reachable(i: int, j: int, k: int, m: int, blocks: int) -> bool:
    """Whether (k, m) is in the reach of (i, j): what the shifts of 2 * blocks + 1 layers of each stream add up to."""
    up, side = i - k, m - j
    if up == 0:
        return -(2 * blocks + 1) <= side < 0
    return 0 < up <= 2 * blocks + 3 and -(2 * blocks + 2) <= side <= 2 * blocks + 1


@given(sizes, st.sampled_from([1, 3]), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_the_network_is_causal(
    scramble: Scramble, size: tuple[int, int], channels: int, scales: int, blocks: int, has_context: bool
) -> None:
    """Law: no output depends on its own pixel or a later one; each depends on its left and its upper neighbors."""
    network = make(scramble, channels, context=2 * has_context, scales=scales, blocks=blocks)
    context = torch.randn(1, 2, *size, dtype=torch.float64) if has_context else None
    depends = reach(network, size, channels, context)
    H, W = size
    assert not depends.reshape(H * W, H * W).triu().any()
    for i in range(H):
        for j in range(W):
            near = [(i, j - 1), (i - 1, j - 1), (i - 1, j), (i - 1, j + 1), (i - 2, j)]
            assert all(depends[i, j, k, m] for k, m in near if k >= 0 and 0 <= m < W)


@pytest.mark.parametrize("scales", [1, 2, 3])
@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("context", [0, 2])
def test_every_configuration_is_causal(
    scramble: Scramble, scales: int, blocks: int, channels: int, context: int
) -> None:
    """Law: the same for every configuration, at an odd size that every scale halves."""
    network = make(scramble, channels, context=context, scales=scales, blocks=blocks)
    given_context = torch.randn(1, context, 5, 7, dtype=torch.float64) if context else None
    depends = reach(network, (5, 7), channels, given_context).reshape(35, 35)
    assert not depends.triu().any()
    assert depends.diagonal(-7).all()  # above
    assert depends.diagonal(-1)[[n for n in range(34) if n % 7 != 6]].all()  # left


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_reach_of_a_plain_network_is_what_its_shifts_add_up_to(scramble: Scramble, blocks: int) -> None:
    """Law: without strides a pixel sees exactly the box that the offsets of its layers make, without blind spots."""
    H, W = 2 * blocks + 5, 4 * blocks + 6
    depends = reach(make(scramble, scales=1, blocks=blocks), (H, W))
    for i, j in [(H - 1, W // 2), (H - 1, 0), (H - 1, W - 1), (H // 2, W // 2), (0, W - 1)]:
        for k in range(H):
            for m in range(W):
                assert bool(depends[i, j, k, m]) == reachable(i, j, k, m, blocks), (i, j, k, m)


@pytest.mark.parametrize("scales", [2, 3])
def test_a_strided_network_sees_further(scramble: Scramble, scales: int) -> None:
    """Law: with strides, the last pixel sees all earlier pixels of an image that is too large for a plain network."""
    depends = reach(make(scramble, scales=scales, blocks=1), (9, 9))[8, 8].flatten()
    assert depends[:80].all()
    assert not reach(make(scramble, scales=1, blocks=1), (9, 9))[8, 8].flatten()[:80].all()


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_the_lag_is_valid_and_the_smallest(scramble: Scramble, blocks: int) -> None:
    """Law: with pixel (i, j) at time j + lag i, everything that it needs is earlier; with lag - 1 it is not."""
    network = make(scramble, scales=1, blocks=blocks)
    H, W = 3, 2 * blocks + 4
    depends = reach(network, (H, W))

    def is_valid(lag: int) -> bool:
        time = torch.arange(W) + lag * torch.arange(H)[:, None]
        earlier = time[None, None] < time[:, :, None, None]
        return bool((earlier | ~depends).all())

    assert network.lag == 2 * blocks + 2
    assert is_valid(2 * blocks + 2)
    assert not is_valid(2 * blocks + 1)


@pytest.mark.parametrize("scales", [2, 3])
def test_a_strided_network_has_no_lag(scales: int) -> None:
    """Law: a network with strides needs raster order."""
    assert CausalNetwork(1, 4, 3, filters=2, blocks=1, scales=scales).lag is None


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_the_context_is_not_causal(scramble: Scramble, scales: int) -> None:
    """Law: an output depends on the context of its own pixel and to its right; with strides, also below."""
    torch.manual_seed(0)
    network = make(scramble, context=2, scales=scales, blocks=1)
    x = torch.rand(1, 1, 4, 5, dtype=torch.float64)
    _, found = gradients(network, x, torch.randn(1, 2, 4, 5, dtype=torch.float64))
    assert found is not None
    depends = (found != 0).any(2)
    assert torch.equal(depends, (found != 0).all(2))
    for i in range(4):
        for j in range(5):
            assert depends[i, j, i, j]
            assert j == 4 or depends[i, j, i, j + 1]
            in_one_average = (i + 1) % 2 ** (scales - 1) != 0
            assert i == 3 or bool(depends[i, j, i + 1, j]) == in_one_average


def test_a_context_of_one_pixel_stands_for_all(scramble: Scramble) -> None:
    """Law: a context (B, F, 1, 1) is the same vector at every position."""
    network = make(scramble, context=2, scales=2, blocks=1)
    x, vector = torch.randint(4, (2, 1, 5, 4)), torch.randn(2, 2, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(network(x, vector), network(x, vector.expand(-1, -1, 5, 4).contiguous()))


def convolution(inputs: int, outputs: int, taps: int) -> int:
    return outputs * inputs * taps + 2 * outputs  # directions, gains and biases


def number_of_parameters(channels: int, outputs: int, filters: int, blocks: int, scales: int) -> int:
    """Layer by layer, from the figure of PixelCNN++: 2x3 taps in `u`, 2x2 in `ul`, 1x1 for side inputs."""
    F = filters
    first = sum(convolution(channels + 1, F, taps) for taps in (2 * 3, 1 * 3, 2 * 1))

    def block(shortcut: int) -> int:
        u = convolution(2 * F, F, 6) + convolution(2 * F, 2 * F, 6) + shortcut * convolution(2 * F, F, 1)
        ul = convolution(2 * F, F, 4) + convolution(2 * F, 2 * F, 4) + convolution(2 * F * (1 + shortcut), F, 1)
        return u + ul

    resized = 2 * (scales - 1) * (convolution(F, F, 6) + convolution(F, F, 4))
    down = scales * blocks * block(0)
    up = (blocks + (scales - 1) * (blocks + 1)) * block(1) if scales > 1 else 0
    return first + down + resized + up + convolution(F, outputs, 1)


@pytest.mark.parametrize(("blocks", "scales"), [(1, 1), (3, 1), (1, 2), (2, 3)])
def test_the_parameters_are_those_of_the_figure(blocks: int, scales: int) -> None:
    """Law: the number of parameters is the sum over the layers of the figure."""
    network = CausalNetwork(3, 256, 10, filters=4, blocks=blocks, scales=scales)
    assert sum(p.numel() for p in network.parameters()) == number_of_parameters(3, 10, 4, blocks, scales)


def test_pixelcnn_plus_plus_has_53_659_080_parameters() -> None:
    """Law: 160 filters, 5 blocks a scale, 3 scales and 100 outputs make 53,659,080 parameters."""
    with torch.device("meta"):
        network = CausalNetwork(3, 256, 100, filters=160, blocks=5, scales=3)
    assert sum(p.numel() for p in network.parameters()) == number_of_parameters(3, 100, 160, 5, 3) == 53_659_080


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_the_layout_in_memory_does_not_matter(scramble: Scramble, scales: int) -> None:
    """Law: channels-last and contiguous images give identical outputs."""
    torch.manual_seed(0)
    network = make(scramble, 3, context=2, scales=scales, blocks=1)
    x, context = torch.randint(4, (2, 3, 5, 6)), torch.randn(2, 2, 5, 6, dtype=torch.float64)
    layout = torch.channels_last
    last = network(x.contiguous(memory_format=layout), context.contiguous(memory_format=layout))
    torch.testing.assert_close(last, network(x, context), rtol=1e-12, atol=1e-12)
    assert torch.equal(network(x.contiguous(memory_format=layout), context), network(x, context))


@given(sizes, st.sampled_from([1, 3]), st.integers(1, 3))
def test_the_output_has_the_size_of_the_image(size: tuple[int, int], channels: int, scales: int) -> None:
    """Law: (B, C, H, W) of any size, in bytes or integers, gives the same finite (B, outputs, H, W)."""
    network = CausalNetwork(channels, 256, 5, filters=2, blocks=1, scales=scales).eval()
    x = torch.randint(256, (2, channels, *size))
    output = network(x)
    assert output.shape == (2, 5, *size)
    assert output.isfinite().all()
    assert torch.equal(network(x.to(torch.uint8)), output)


def test_dropout_acts_in_every_block_in_training_only(scramble: Scramble) -> None:
    """Law: in training two passes differ, in evaluation and at rate 0 they do not."""
    x = torch.randint(4, (1, 1, 6, 6))
    for dropout, differs in ((0.5, True), (0.0, False)):
        network = CausalNetwork(1, 4, 3, filters=4, blocks=1, scales=2, dropout=dropout)
        initialize(network, torch.randint(4, (8, 1, 6, 6)))
        assert torch.equal(network.train()(x), network(x)) != differs
        assert torch.equal(network.eval()(x), network(x))


def test_the_border_is_not_gray() -> None:
    """Law: the channel of ones tells the zeros beyond the border from a gray pixel, even in a gray image."""
    torch.manual_seed(0)
    output = CausalNetwork(1, 3, 3, filters=4, blocks=1, scales=1).eval()(torch.ones(1, 1, 12, 12, dtype=torch.int64))
    assert not torch.allclose(output[:, :, 0, 0], output[:, :, 9, 6])
