"""Optimizers: Muon's orthogonal steps, their length, and their independence of the norm of the weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pixelcnn.models.presets import PyramidPixelCNN
from pixelcnn.training.optimizers import Muon, make_optimizers, orthogonalize, set_rate


@given(m=st.integers(1, 12), n=st.integers(1, 12), seed=st.integers(0, 99))
def test_orthogonal(m: int, n: int, seed: int) -> None:
    """All singular values are near 1, whatever the shape and scale of the matrix."""
    generator = torch.Generator().manual_seed(seed)
    u, _, v = torch.linalg.svd(torch.randn(m, n, generator=generator, dtype=torch.float64), full_matrices=False)
    values = torch.linspace(1, 10, min(m, n), dtype=torch.float64)
    for size in (1e-12, 1.0, 1e6):
        singular = torch.linalg.svdvals(orthogonalize(size * (u * values) @ v))
        assert (singular - 1).abs().max() < 0.35
    assert (orthogonalize(torch.zeros(2, m, n)) == 0).all()


@given(seed=st.integers(0, 99), rate=st.floats(1e-4, 0.5))
def test_a_step_is_as_long_as_the_rate_says(seed: int, rate: float) -> None:
    """Before it is scaled back to its norm, a parameter has moved by `rate` times that norm."""
    generator = torch.Generator().manual_seed(seed)
    parameter = nn.Parameter(torch.randn(4, 3, 2, 2, generator=generator, dtype=torch.float64))
    before = parameter.detach().clone()
    # At right angles to the parameter, as gradients of normalized weights are.
    gradient = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    parameter.grad = gradient
    Muon([parameter], lr=rate).step()
    norm = before.norm()
    assert parameter.detach().norm().item() == pytest.approx(norm.item())
    # `parameter` is on the ray through before - step, and step is rate * norm long: solve for the ray.
    direction = parameter.detach() / norm
    along = (direction * before).sum()
    distance = (along.square() - norm.square() + (rate * norm).square()).clamp_min(0).sqrt()
    steps = [(before - t * direction).norm() / norm for t in (along - distance, along + distance)]
    assert any(step.item() == pytest.approx(rate, rel=1e-3) for step in steps)


def test_the_norm_and_memory_layout_of_a_direction_do_not_matter() -> None:
    """Directions a hundred times as long, or in another memory layout, end up as the same weights."""
    weights = []
    for scale, memory_format in ((1, torch.contiguous_format), (100, torch.channels_last), (1, torch.channels_last)):
        generator = torch.Generator().manual_seed(0)
        drawn = (scale * torch.randn(4, 3, 2, 2, generator=generator)).contiguous(memory_format=memory_format)
        parameter = nn.Parameter(drawn)
        target = torch.randn(4, 3, 2, 2, generator=generator)
        optimizer = Muon([parameter], lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            (parameter / parameter.norm() - target).square().sum().backward()
            optimizer.step()
        weights.append(parameter.detach() / parameter.detach().norm())
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(weights[0], weights[2], rtol=0, atol=1e-5)


def test_matrices_of_one_shape_do_not_affect_each_other() -> None:
    """Batched into one product, each matrix moves as it would alone; one without a gradient stays."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(3, 4, 6, generator=generator)
    together, alone = ([nn.Parameter(each.clone()) for each in drawn] for _ in range(2))
    for a, b in zip(together[:2], alone[:2], strict=True):
        a.grad = torch.randn(4, 6, generator=generator)
        b.grad = a.grad.clone()
    Muon(together, lr=0.1).step()
    for parameter in alone:
        Muon([parameter], lr=0.1).step()
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b)
    assert torch.equal(together[2], drawn[2])


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_every_parameter_moves_at_its_share_of_the_rate(name: str) -> None:
    """Together the optimizers cover each parameter once, and a rate of zero moves none."""
    model = PyramidPixelCNN(1, filters=4, blocks=1, embedding_blocks=1, classes=2)
    optimizers = make_optimizers(model, name)
    held = [p for each in optimizers for group in each.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
    for parameter in held:
        parameter.grad = torch.ones_like(parameter)
    for rate in (0.0, 0.01):
        before = [parameter.detach().clone() for parameter in held]
        set_rate(optimizers, rate)
        for each in optimizers:
            each.step()
        moved = [not torch.equal(a, b) for a, b in zip(before, held, strict=True)]
        # A direction with one positive number has nowhere to go: it is scaled back.
        assert not any(moved) if rate == 0 else sum(moved) > 0.9 * len(moved)
