"""Laws of cached evaluation: the parameters and every canvas match a full forward pass."""

from typing import Any

import pytest
import torch
from conftest import Scramble, visit
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pixelcnn.common.kernel import using_processor
from pixelcnn.nn.causal import CausalNetwork
from pixelcnn.traversal.cached import CachedNetwork
from pixelcnn.traversal.plain import PlainProgram
from pixelcnn.traversal.program import Phase
from pixelcnn.traversal.schedule import Group, group_at

LEVELS = 16


def make(scramble: Scramble, seed: int = 0, channels: int = 3, **arguments: int) -> CausalNetwork:
    torch.manual_seed(seed)
    network = CausalNetwork(channels, LEVELS, 7, **({"filters": 3, "blocks": 1, "scales": 1} | arguments))
    scramble(network, seed)
    return network


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 14)),
    batch=st.integers(1, 3),
    channels=st.sampled_from([1, 3]),
    blocks=st.integers(1, 2),
    scales=st.integers(1, 3),
    context=st.sampled_from([0, 2]),
    more_lag=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_it_matches_a_forward_pass(
    scramble: Scramble,
    size: tuple[int, int],
    batch: int,
    channels: int,
    blocks: int,
    scales: int,
    context: int,
    more_lag: int,
    seed: int,
) -> None:
    """Law: raster order and every wavefront give the parameters of a full forward pass, whatever the shape."""
    network = make(scramble, seed, channels, blocks=blocks, scales=scales, context=context)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(LEVELS, (batch, channels, *size), generator=generator)
    given = torch.randn(batch, context, *size, generator=generator, dtype=torch.float64) if context else None
    with torch.no_grad():
        expected = network(x, given)
    lags: list[int | None] = [None]
    if network.lag is not None and network.lag + more_lag < size[1]:
        lags.append(network.lag + more_lag)
    for lag in lags:
        shown = visit(CachedNetwork(network, size, batch, given, lag=lag), x, lag)
        torch.testing.assert_close(shown, expected, rtol=1e-10, atol=1e-10)


def stored_twins(network: CausalNetwork, cached: CachedNetwork, x: Tensor, context: Tensor | None) -> int:
    """Compare canvases with the tensors of a full forward pass, and return how many have an equal one."""
    tensors: list[Tensor] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.dim() == 4:
                tensors.append(result.clone())  # some are changed in place later
            return result

    with torch.no_grad(), Watch():
        network(x, context)
    found = 0
    for canvas in cached.canvases:
        sides = (-(-side // 2**canvas.scale) for side in cached.size)
        image = canvas.image(cached.window.offsets(0, 0)[canvas.scale], *sides)
        twins = [t for t in tensors if t.shape == image.shape and torch.allclose(t, image, rtol=1e-9, atol=1e-9)]
        found += bool(twins)
    return found


@pytest.mark.parametrize("scales", [1, 2, 3])
@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("order", ["raster", "wavefront"])
def test_every_canvas_equals_an_activation(
    scramble: Scramble, scales: int, context: int, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: after a traversal every canvas equals an activation of the full forward pass."""
    network = make(scramble, scales=scales, context=context)
    size = (7, 9)
    monkeypatch.setattr("pixelcnn.traversal.cached.SPAN", 99)  # a window of the whole image
    if order == "wavefront" and network.lag is None:
        return
    lag = network.lag if order == "wavefront" else None
    x = torch.randint(LEVELS, (2, 3, *size), generator=torch.Generator().manual_seed(1))
    given = torch.randn(2, context, *size, dtype=torch.float64) if context else None
    cached = CachedNetwork(network, size, 2, given, lag=lag)
    visit(cached, x, lag)
    assert (cached.window.top, cached.rows) == (0, size[0])
    assert stored_twins(network, cached, x, given) == len(cached.canvases) > 3


def test_a_long_image_needs_no_more_memory(scramble: Scramble) -> None:
    """Law: the canvases hold the rows that the schedule still needs, however many the image has."""
    network = make(scramble)
    for lag in (None, network.lag):
        short, long = (CachedNetwork(network, (rows, 20), 1, lag=lag) for rows in (60, 600))
        assert [canvas.numel for canvas in short.canvases] == [canvas.numel for canvas in long.canvases]
        assert long.rows < 60


def test_a_wavefront_keeps_the_pixels_around_it(scramble: Scramble) -> None:
    """Law: in a wavefront the canvases of a wide image need as many pixels as its width, not its area."""
    network = make(scramble)
    narrow, wide = (CachedNetwork(network, (4 * W, W), 1, lag=network.lag).window.frames[0] for W in (60, 600))
    assert wide.pitch == narrow.pitch
    assert wide.numel < 10 * narrow.numel


def test_float32_matches_a_forward_pass(scramble: Scramble) -> None:
    """Law: in float32 the parameters agree to 1e-4."""
    network = make(scramble, blocks=2, filters=8).float()
    x = torch.randint(LEVELS, (2, 3, 11, 17), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(x).double()
    for lag in (None, network.lag):
        shown = visit(CachedNetwork(network, (11, 17), 2, lag=lag), x, lag)
        torch.testing.assert_close(shown, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("processor", ["best", None])
def test_bfloat16_is_close_to_a_forward_pass(scramble: Scramble, processor: str | None) -> None:
    """Law: weights can be bfloat16, and in plain torch activations too; the parameters are then close, not equal.

    In a wavefront, the kernel keeps to float32.
    """
    network = make(scramble, filters=8).float()
    x = torch.randint(LEVELS, (2, 3, 5, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(x).double()
    for lag in (None, network.lag):
        with using_processor(processor):
            cached = CachedNetwork(network, (5, 9), 2, lag=lag, dtype=torch.bfloat16)
        furthest = float((visit(cached, x, lag) - expected).abs().max())
        if lag and processor:
            assert furthest < 1e-5
        else:
            assert 0 < furthest < 0.1 * float(expected.abs().max())


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_the_lag_is_tight(scramble: Scramble, blocks: int) -> None:
    """Law: the declared lag is the smallest: with one less the recorded network looks at a pixel too early."""
    network = make(scramble, blocks=blocks)
    lag = network.lag
    assert lag is not None
    assert lag == 2 * blocks + 2
    CachedNetwork(network, (3, 30), 1, lag=lag)
    with pytest.raises(ValueError, match=f"lag={lag - 1}"):
        CachedNetwork(network, (3, 30), 1, lag=lag - 1)


def test_the_recorded_network_agrees_about_the_lag(scramble: Scramble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: if a network declared too small a lag, recording it would show that."""
    network = make(scramble, blocks=2)
    monkeypatch.setattr(CausalNetwork, "lag", 5)
    with pytest.raises(ValueError, match="looks 1 columns too far"):
        CachedNetwork(network, (3, 30), 1, lag=5)


def test_strided_networks_have_no_wavefront(scramble: Scramble) -> None:
    """Law: a lag for a network that has none is refused."""
    with pytest.raises(ValueError, match="raster order"):
        CachedNetwork(make(scramble, scales=2), (8, 30), 1, lag=12)


def test_most_values_of_a_raster_pixel_are_computed_by_rows(scramble: Scramble) -> None:
    """Law: in raster order the stream above, and the rows above of the other, are evaluated by rows."""
    network = make(scramble, blocks=2)
    cached = CachedNetwork(network, (3, 3), 1)
    assert isinstance(cached.program, PlainProgram)
    lines, groups = cached.program.lines, cached.program.groups
    assert {value.phase for value in lines} == {Phase.LINE}
    assert len(lines) > len(groups)


@pytest.mark.parametrize("shape", [None, (2, 2, 4, 4), (1, 2, 4, 5), (1, 3, 4, 4), (1, 2, 4, 1)], ids=str)
def test_a_context_must_fit(scramble: Scramble, shape: tuple[int, ...] | None) -> None:
    """Law: a context of the wrong batch, size or width is refused, and so is a missing one."""
    network = make(scramble, context=2)
    context = None if shape is None else torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"context of shape .*needs \(1, 2, 4, 4\)"):
        CachedNetwork(network, (4, 4), 1, context)
    CachedNetwork(network, (4, 4), 1, torch.zeros(1, 2, 1, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match="needs None"):
        CachedNetwork(make(scramble), (4, 4), 1, torch.zeros(1, 2, 4, 4))


def test_too_large_a_canvas_is_refused_before_it_is_made(scramble: Scramble) -> None:
    """Law: the error says how much is needed and how much is free."""
    with pytest.raises(MemoryError, match=r"needs at least \d+\.\d GB and \d+\.\d GB are free"):
        CachedNetwork(make(scramble), (1000, 1_000_000), 50_000, lag=None)


@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(1, 12))
def test_a_group_has_the_pixels_of_its_time(size: tuple[int, int], lag: int) -> None:
    """Law: group_at(t) lists the pixels (i, j) with j + lag i = t, and none at other times."""
    H, W = size
    for time in range(-3, W + lag * (H - 1) + 3):
        group = group_at(time, size, lag)
        rows, cols = group.pixels(lag)
        expected = [(i, time - lag * i) for i in range(H) if 0 <= time - lag * i < W]
        assert list(zip(rows.tolist(), cols.tolist(), strict=True)) == expected
    assert Group(2, 5, 2).pixels(3)[1].tolist() == [5, 2]
