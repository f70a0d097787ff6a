"""Laws of the traversal: every pixel once, nothing before its time, and the parameters of a full forward pass."""

import math
from typing import Any

import pytest
import torch
from conftest import Scramble
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pixelcnn.auxiliary import Auxiliary, Downsample, QuantizedGrayscale
from pixelcnn.models import Factor, ImageModel
from pixelcnn.network import CausalNetwork
from pixelcnn.traversal import schedule, traverse

LEVELS = 16
sides = st.integers(1, 9)
sizes = st.tuples(sides, sides)


@given(sizes, st.none() | st.integers(1, 12))
def test_a_schedule_visits_every_pixel_once_in_order_of_time(size: tuple[int, int], lag: int | None) -> None:
    """Law: the groups are the pixels of equal j + lag i, in order: W + lag (H - 1) of them, or H W in raster order."""
    H, W = size
    groups = [list(zip(rows.tolist(), cols.tolist(), strict=True)) for rows, cols in schedule(size, lag)]
    visited = [pixel for group in groups for pixel in group]
    assert sorted(visited) == [(i, j) for i in range(H) for j in range(W)]
    if lag is None or lag >= W:
        assert groups == [[(i, j)] for i in range(H) for j in range(W)]
    else:
        assert len(groups) == W + lag * (H - 1)
        assert [{j + lag * i for i, j in group} for group in groups] == [{time} for time in range(len(groups))]


def test_the_pyramid_takes_1144_steps() -> None:
    """Law: at 128x128 a plain network of three blocks has 1,144 groups of pixels, where raster order has 16,384."""
    lag = CausalNetwork(3, 256, 10, filters=2, blocks=3, scales=1).lag
    assert sum(1 for _ in schedule((128, 128), lag)) == 1144
    assert sum(1 for _ in schedule((128, 128))) == 128 * 128


def tiny(scramble: Scramble, chain: list[Auxiliary], scales: int, classes: int = 0) -> ImageModel:
    torch.manual_seed(0)
    model = ImageModel(
        3, LEVELS, chain, components=2, filters=3, blocks=1, scales=scales, embedding_blocks=1, classes=classes
    )
    scramble(model)
    return model


def forced(factor: Factor, x: Tensor, **context: Any) -> tuple[Tensor, Tensor, list[int]]:
    """A traversal that is told the true pixels: the parameters that it showed, its canvas, and the group sizes."""
    garbage = torch.randint(LEVELS, x.shape, generator=torch.Generator().manual_seed(9)).to(x.dtype)
    shown = torch.full((len(x), factor.likelihood.num_params, *x.shape[2:]), math.nan, dtype=torch.float64)
    numbers: list[int] = []

    def source(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        assert params.shape == (len(x), factor.likelihood.num_params, len(rows))
        assert shown[:, :, rows, cols].isnan().all()
        shown[:, :, rows, cols] = params
        numbers.append(len(rows))
        return x[:, :, rows, cols]

    canvas = traverse(factor, garbage, source, **context)
    assert canvas is garbage
    return shown, canvas, numbers


@pytest.mark.parametrize("scales", [1, 2, 3])
@pytest.mark.parametrize("chain", [[], [Downsample(2)], [QuantizedGrayscale(2)]], ids=str)
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("size", [(3, 7), (4, 3), (1, 1)])
def test_told_the_truth_it_sees_the_forward_pass(
    scramble: Scramble, scales: int, chain: list[Auxiliary], classes: int, size: tuple[int, int]
) -> None:
    """Law: a source of true pixels is shown the parameters of one forward pass over them, whatever the canvas held."""
    model = tiny(scramble, chain, scales, classes)
    x = torch.randint(LEVELS, (2, 3, *size), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    labels = torch.tensor([2, 0]) if classes else None
    for factor, (view, auxiliary) in zip(model.factors, model.links(x), strict=True):
        shown, canvas, numbers = forced(factor, view, auxiliary=auxiliary, labels=labels)
        H, W = view.shape[2:]
        with torch.no_grad():
            expected = factor.network(view, factor.context((H, W), auxiliary, labels))
        torch.testing.assert_close(shown, expected, rtol=1e-10, atol=1e-10)
        assert torch.equal(canvas, view)
        assert canvas.dtype == torch.uint8
        assert len(numbers) == (W + 4 * (H - 1) if scales == 1 and W > 4 else H * W)


def test_raster_order_and_wavefront_see_the_same(scramble: Scramble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a pixel is shown the same parameters in raster order as in the wavefront, which takes fewer steps."""
    model = tiny(scramble, [Downsample(2)], 1)
    x = torch.randint(LEVELS, (2, 3, 4, 9), generator=torch.Generator().manual_seed(2))
    view, auxiliary = model.links(x)[0]
    wavefront, _, few = forced(model.factors[0], view, auxiliary=auxiliary)
    monkeypatch.setattr(CausalNetwork, "lag", None)
    raster, _, many = forced(model.factors[0], view, auxiliary=auxiliary)
    torch.testing.assert_close(wavefront, raster, rtol=1e-10, atol=1e-10)
    assert (len(few), len(many)) == (9 + 4 * 3, 4 * 9)


def test_a_smaller_lag_would_look_too_early(scramble: Scramble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: the parameters with lag - 1 are not those of the forward pass: the test above can fail."""
    model = tiny(scramble, [], 1)
    x = torch.randint(LEVELS, (2, 3, 4, 9), generator=torch.Generator().manual_seed(2))
    expected, _, _ = forced(model.factors[0], x)
    monkeypatch.setattr(CausalNetwork, "lag", 3)
    assert not torch.allclose(forced(model.factors[0], x)[0], expected)


def test_a_source_is_shown_what_it_gave(scramble: Scramble) -> None:
    """Law: what a source gives for a pixel changes what it is shown later, and never what it was shown before."""
    model = tiny(scramble, [], 1)
    x = torch.randint(LEVELS - 1, (1, 3, 3, 7), generator=torch.Generator().manual_seed(3))
    changed = x.clone()
    changed[:, :, 1, 2] += 1
    differ = (forced(model.factors[0], x)[0] != forced(model.factors[0], changed)[0]).any(1)[0]
    assert not differ[0].any()
    assert not differ[1, :3].any()
    assert differ[1, 3].all()
    assert differ[2, 1:4].all()


def test_progress_is_told_of_every_group(scramble: Scramble) -> None:
    """Law: progress is called once for each group, and no gradient is kept."""
    model, calls = tiny(scramble, [], 1), []

    def source(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        assert not params.requires_grad
        return torch.zeros(1, 3, len(rows), dtype=torch.int64)

    canvas = torch.zeros(1, 3, 3, 7, dtype=torch.int64)
    traverse(model.factors[0], canvas, source, progress=lambda: calls.append(None))
    assert len(calls) == sum(1 for _ in schedule((3, 7), model.factors[0].network.lag))
