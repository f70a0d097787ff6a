"""Laws of the embedding: the requested size, the blocks of the paper, and no shift."""

import math

import pytest
import torch
from conftest import Scramble
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pixelcnn.nn.blocks import GatedResidual
from pixelcnn.nn.embedding import EmbeddingNetwork

sides = st.integers(1, 9)


@given(st.tuples(sides, sides), st.integers(1, 4), st.integers(1, 3), st.sampled_from([1, 3]))
def test_the_context_has_the_size_of_the_image(
    size: tuple[int, int], upsample: int, scales: int, channels: int
) -> None:
    """Law: a view of ceil(H / f) x ceil(W / f) gives a finite context of (filters, H, W)."""
    network = EmbeddingNetwork(channels, 16, filters=2, blocks=1, scales=scales, upsample=upsample).eval()
    view = torch.randint(16, (2, channels, *(math.ceil(side / upsample) for side in size)))
    context = network(view, size)
    assert context.shape == (2, 2, *size)
    assert context.isfinite().all()
    assert torch.equal(network(view.to(torch.uint8), size), context)


def heights_of_blocks(network: EmbeddingNetwork, view: int, image: int) -> list[int]:
    heights: list[int] = []
    for module in network.modules():
        if isinstance(module, GatedResidual):
            module.register_forward_hook(lambda _, __, output: heights.append(output.shape[2]))
    network.eval()(torch.zeros(1, 3, view, view, dtype=torch.uint8), (image, image))
    return heights


def test_the_pyramid_has_fifteen_blocks() -> None:
    """Law: 15 blocks, down after the third, up after the ninth and twelfth (recalled from the paper, not confirmed)."""
    network = EmbeddingNetwork(3, 256, filters=2, blocks=3, scales=2, upsample=2)
    assert heights_of_blocks(network, 8, 16) == [8] * 3 + [4] * 6 + [8] * 3 + [16] * 3


def test_the_grayscale_model_has_twenty_four_blocks() -> None:
    """Law: 24 residual blocks: four at each of three scales, down and up (recalled from the paper, not confirmed)."""
    network = EmbeddingNetwork(3, 256, filters=2, blocks=4, scales=3, upsample=1)
    assert heights_of_blocks(network, 8, 8) == [8] * 4 + [4] * 4 + [2] * 8 + [4] * 4 + [8] * 4


def depends(network: EmbeddingNetwork, size: tuple[int, int], upsample: int) -> Tensor:
    """(H, W, h, w): whether the context at a pixel depends on a pixel of the view; all channels agree."""
    H, W = size
    torch.manual_seed(0)
    view = torch.rand(1, 3, math.ceil(H / upsample), math.ceil(W / upsample), dtype=torch.float64)
    copies = view.repeat(H * W, 1, 1, 1).requires_grad_()
    context = network(copies, size)
    here = torch.eye(H * W, dtype=context.dtype).view(H * W, 1, H, W)
    weights = torch.randn(1, context.shape[1], 1, 1, dtype=context.dtype)
    (found,) = torch.autograd.grad((context * weights * here).sum(), copies)
    assert torch.equal((found != 0).any(1), (found != 0).all(1))
    return (found != 0).any(1).unflatten(0, size)


@pytest.mark.parametrize("upsample", [1, 2, 3, 4])
@pytest.mark.parametrize("scales", [1, 2, 3])
def test_nothing_is_shifted(scramble: Scramble, upsample: int, scales: int) -> None:
    """Law: a pixel sees the pixel of the view that covers it, and those above, below, left and right of it."""
    torch.manual_seed(1)
    network = EmbeddingNetwork(3, 16, filters=2, blocks=1, scales=scales, upsample=upsample)
    scramble(network)
    h, w = 4, 5
    H, W = h * upsample - (upsample > 1), w * upsample
    sees = depends(network, (H, W), upsample)
    for i in range(H):
        for j in range(W):
            k, m = i // upsample, j // upsample
            around = [(k, m), (k - 1, m), (k + 1, m), (k, m - 1), (k, m + 1), (k + 1, m + 1)]
            assert all(sees[i, j, a, b] for a, b in around if 0 <= a < h and 0 <= b < w)


def test_the_reach_is_the_same_on_both_sides(scramble: Scramble) -> None:
    """Law: without strides the reach is a square centered on the pixel: one pixel for each 3x3 convolution."""
    torch.manual_seed(1)
    network = EmbeddingNetwork(3, 16, filters=2, blocks=1, scales=1)
    scramble(network)
    sees = depends(network, (13, 13), 1)[6, 6]
    distance = (torch.arange(13) - 6).abs()
    assert torch.equal(sees, torch.maximum(distance[:, None], distance) <= 1 + 2 * 2)


def test_a_pixel_between_two_sees_both(scramble: Scramble) -> None:
    """Law: enlarged twice, the pixel 2k + 1 lies between k and k + 1 and sees equally far beyond both."""
    torch.manual_seed(1)
    network = EmbeddingNetwork(3, 16, filters=2, blocks=1, scales=1, upsample=2)
    scramble(network)
    sees = depends(network, (1, 40), 2)[0, :, 0]
    for q in range(14, 26):
        seen = sees[q].nonzero().flatten().tolist()
        first, last = min(seen), max(seen)
        assert seen == list(range(first, last + 1))
        assert first + last == q  # in units of half a pixel of the view: the middle is where the pixel is


def test_dropout_acts_in_training_only(scramble: Scramble) -> None:
    """Law: dropout acts in training only."""
    view = torch.randint(16, (1, 3, 6, 6))
    network = EmbeddingNetwork(3, 16, filters=4, blocks=1, upsample=2)
    scramble(network)
    assert torch.equal(network(view, (12, 12)), network(view, (12, 12)))
    network.train()
    assert not torch.equal(network(view, (12, 12)), network(view, (12, 12)))
