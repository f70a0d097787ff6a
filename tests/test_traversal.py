"""Laws of the traversal: each pixel is visited once and in time, with the parameters of a full forward pass."""

import math
from typing import Any

import pytest
import torch
from conftest import Scramble
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pixelcnn.auxiliary.base import Auxiliary
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.likelihoods.logistic import LogisticMixture
from pixelcnn.models.factor import Factor, Visit
from pixelcnn.models.image_model import ImageModel
from pixelcnn.nn.causal import CausalNetwork
from pixelcnn.traversal.loop import Watch, traverse
from pixelcnn.traversal.schedule import Group, Schedule, groups, most_pixels, visits, wavefront_lag

LEVELS = 16
sides = st.integers(1, 9)
sizes = st.tuples(sides, sides)


@given(sizes, st.none() | st.integers(1, 12))
def test_groups_visit_every_pixel_once_in_order_of_time(size: tuple[int, int], lag: int | None) -> None:
    """Law: the groups are the pixels of equal j + lag i, in order: W + lag (H - 1) of them, or H W in raster order."""
    H, W = size
    found = [list(zip(*(t.tolist() for t in group.pixels(lag or W)), strict=True)) for group in groups(size, lag)]
    assert sorted(pixel for group in found for pixel in group) == [(i, j) for i in range(H) for j in range(W)]
    if lag is None:
        assert found == [[(i, j)] for i in range(H) for j in range(W)]
    else:
        assert len(found) == W + lag * (H - 1)
        assert all({j + lag * i for i, j in group} <= {time} for time, group in enumerate(found))


def test_the_pyramid_takes_1144_steps() -> None:
    """Law: at 128x128 a plain network of three blocks has 1,144 groups of pixels, where raster order has 16,384."""
    factor = Factor(LogisticMixture(3, 256, 1), CausalNetwork(3, 256, 10, filters=2, blocks=3, scales=1))
    lag = factor.lag(consistent=False)
    assert lag == 8
    assert sum(1 for _ in groups((128, 128), wavefront_lag(lag, 128))) == 1144
    assert sum(1 for _ in groups((128, 128), wavefront_lag(lag, 128, "raster"))) == 128 * 128
    factor.auxiliary = Downsample(9)  # a row of whose cells must be known before the next begins
    assert factor.lag(consistent=True) == 9


def tiny(scramble: Scramble, chain: list[Auxiliary], scales: int, classes: int = 0) -> ImageModel:
    torch.manual_seed(0)
    model = ImageModel(
        3, LEVELS, chain, components=2, filters=3, blocks=1, scales=scales, embedding_blocks=1, classes=classes
    )
    scramble(model)
    return model


def forced(
    factor: Factor, x: Tensor, given: Tensor | None = None, labels: Tensor | None = None, **options: Any
) -> tuple[Tensor, Tensor, list[int]]:
    """Fill in the true pixels: return the parameters that were shown, the canvas, and the sizes of the groups."""
    garbage = torch.randint(LEVELS, x.shape, generator=torch.Generator().manual_seed(9)).to(x.dtype)
    shown = torch.full((len(x), factor.likelihood.num_params, *x.shape[2:]), math.nan, dtype=torch.float64)
    numbers: list[int] = []

    def fill(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        assert params.shape == (len(x), factor.likelihood.num_params, len(rows))
        assert shown[:, :, rows, cols].isnan().all()
        shown[:, :, rows, cols] = params
        numbers.append(len(rows))
        return x[:, :, rows, cols]

    canvas = factor.traverse(garbage, fill, given, labels, Visit(**options))
    assert canvas is garbage
    return shown, canvas, numbers


@pytest.mark.parametrize("schedule", ["naive", "auto"])
@pytest.mark.parametrize("scales", [1, 2, 3])
@pytest.mark.parametrize("chain", [[], [Downsample(2)], [QuantizedGrayscale(2)]], ids=str)
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("size", [(3, 7), (4, 3), (1, 1)])
def test_a_fill_of_true_pixels_sees_the_forward_pass(
    scramble: Scramble, schedule: Schedule, scales: int, chain: list[Auxiliary], classes: int, size: tuple[int, int]
) -> None:
    """Law: a fill of true pixels is shown the parameters of one forward pass over them, whatever the canvas held."""
    model = tiny(scramble, chain, scales, classes)
    x = torch.randint(LEVELS, (2, 3, *size), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    labels = torch.tensor([2, 0]) if classes else None
    for factor, (view, auxiliary) in zip(model.factors, model.links(x), strict=True):
        shown, canvas, numbers = forced(factor, view, auxiliary, labels, schedule=schedule)
        H, W = view.shape[2:]
        with torch.no_grad():
            expected = factor.params(view, auxiliary, labels)
        torch.testing.assert_close(shown, expected, rtol=1e-10, atol=1e-10)
        assert torch.equal(canvas, view)
        assert canvas.dtype == torch.uint8
        assert len(numbers) == (W + 4 * (H - 1) if scales == 1 and W > 4 else H * W)


@pytest.mark.parametrize(("first", "second"), [("naive", "raster"), ("raster", "wavefront")])
def test_the_schedules_see_the_same(scramble: Scramble, first: Schedule, second: Schedule) -> None:
    """Law: a pixel is shown the same parameters by every schedule; the wavefront takes fewer steps."""
    model = tiny(scramble, [Downsample(2)], 1)
    x = torch.randint(LEVELS, (2, 3, 4, 9), generator=torch.Generator().manual_seed(2))
    view, auxiliary = model.links(x)[0]
    steps = {"naive": 9 + 4 * 3, "raster": 4 * 9, "wavefront": 9 + 4 * 3}
    seen = {}
    for schedule in (first, second):
        seen[schedule], _, numbers = forced(model.factors[0], view, auxiliary, schedule=schedule)
        assert len(numbers) == steps[schedule]
    torch.testing.assert_close(seen[first], seen[second], rtol=1e-10, atol=1e-10)


def test_a_smaller_lag_would_look_too_early(scramble: Scramble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: the parameters with lag - 1 are not those of the forward pass: the test above can fail."""
    model = tiny(scramble, [], 1)
    x = torch.randint(LEVELS, (2, 3, 4, 9), generator=torch.Generator().manual_seed(2))
    expected, _, _ = forced(model.factors[0], x, schedule="naive")
    monkeypatch.setattr(CausalNetwork, "lag", 3)
    assert not torch.allclose(forced(model.factors[0], x, schedule="naive")[0], expected)


def test_a_fill_sees_the_effect_of_what_it_gave(scramble: Scramble) -> None:
    """Law: the value that a fill gives for a pixel affects later parameters only, not earlier ones."""
    model = tiny(scramble, [], 1)
    x = torch.randint(LEVELS - 1, (1, 3, 3, 7), generator=torch.Generator().manual_seed(3))
    changed = x.clone()
    changed[:, :, 1, 2] += 1
    differ = (forced(model.factors[0], x)[0] != forced(model.factors[0], changed)[0]).any(1)[0]
    assert not differ[0].any()
    assert not differ[1, :3].any()
    assert differ[1, 3].all()
    assert differ[2, 1:4].all()


def test_progress_is_shown_the_canvas_after_every_group(scramble: Scramble) -> None:
    """Law: progress is called once for each group with the canvas so far, and no gradient is kept."""
    model, filled = tiny(scramble, [], 1), []

    def fill(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        assert not params.requires_grad
        return torch.ones(1, 3, len(rows), dtype=torch.int64)

    canvas = torch.zeros(1, 3, 3, 7, dtype=torch.int64)
    progress = Visit(watch=Watch(progress=lambda x: filled.append(int(x[:, 0].sum()))))
    model.factors[0].traverse(canvas, fill, options=progress)
    assert len(filled) == 7 + 4 * 2
    assert filled == sorted(filled)
    assert filled[0] == 1
    assert filled[-1] == 3 * 7


def test_known_pixels_can_be_kept(scramble: Scramble) -> None:
    """Law: a fill that keeps what is known sees the parameters given those pixels, by every schedule."""
    model = tiny(scramble, [], 1)
    factor = model.factors[0]
    x = torch.randint(LEVELS, (1, 3, 5, 9), generator=torch.Generator().manual_seed(3))
    known = torch.rand(5, 9, generator=torch.Generator().manual_seed(4)) < 0.5
    results = []
    for schedule in ("naive", "raster", "wavefront"):

        def fill(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
            drawn = factor.likelihood.sample(params, torch.full((1, factor.likelihood.num_noise, len(rows)), 0.3))
            return torch.where(known[rows, cols], x[:, :, rows, cols], drawn)

        results.append(factor.traverse(torch.zeros_like(x), fill, options=Visit(schedule=schedule)))
        assert torch.equal(results[-1][:, :, known], x[:, :, known])
    assert all(torch.equal(result, results[0]) for result in results)
    assert not torch.equal(results[0], x)


def test_parameters_that_are_not_finite_are_named(scramble: Scramble) -> None:
    """Law: the error names the first pixel and the image, however late it comes."""
    model = tiny(scramble, [], 1)
    x = torch.zeros(2, 3, 3, 7, dtype=torch.int64)

    def fill(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        if (1, 2) in zip(rows.tolist(), cols.tolist(), strict=True):
            with torch.no_grad():
                model.factors[0].network.last.bias.fill_(math.nan)
        return x[:, :, rows, cols]

    with pytest.raises(FloatingPointError, match="at row 1, column 3 of image 0"):
        model.factors[0].traverse(x.clone(), fill, options=Visit(schedule="naive"))


class Given:
    """An evaluator whose parameters are given: (B, P, H, W)."""

    def __init__(self, params: Tensor, lag: int) -> None:
        self.all, self.lag = params, lag

    def params(self, group: Group) -> Tensor:
        rows, cols = group.pixels(self.lag)
        return self.all[:, :, rows, cols]

    def update(self, group: Group, values: Tensor) -> None:
        pass


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("pixel", [(0, 0), (2, 5), (5, 8)])
def test_every_bad_parameter_is_found(value: float, pixel: tuple[int, int]) -> None:
    """Law: in any group; when the fill fails on it, the parameter is named, not the failure."""
    lag, x = 4, torch.zeros(2, 1, 6, 9, dtype=torch.int64)
    params = torch.zeros(2, 3, 6, 9)
    params[1, 2, *pixel] = value

    def fails(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        if not params.isfinite().all():
            raise RuntimeError("the fill failed")
        return torch.zeros(2, 1, len(rows), dtype=torch.int64)

    def works(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        return torch.zeros(2, 1, len(rows), dtype=torch.int64)

    for fill in (fails, works):
        with pytest.raises(FloatingPointError, match=f"at row {pixel[0]}, column {pixel[1]} of image 1"):
            traverse(Given(params, lag), x, fill, lag)


def test_a_sum_that_overflows_is_no_error() -> None:
    """Law: finite parameters are never refused, and other errors of a fill stay what they are."""
    params, x = torch.full((1, 4, 3, 5), torch.finfo(torch.float64).max, dtype=torch.float64), torch.zeros(1, 1, 3, 5)
    traverse(Given(params, 2), x, lambda params, rows, cols: torch.ones(1, 1, len(rows)), 2)
    assert x.all()

    def fails(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        raise RuntimeError("the fill failed")

    with pytest.raises(RuntimeError, match="the fill failed"):
        traverse(Given(params, 2), x, fails, 2)


@given(sizes, st.none() | st.integers(1, 12))
def test_the_pixels_of_visits_are_those_of_the_groups(size: tuple[int, int], lag: int | None) -> None:
    """Law: they are parts of tensors that are made once, and none is larger than announced."""
    lag = wavefront_lag(lag, size[1])
    for group, rows, cols in visits(size, lag):
        assert all(torch.equal(a, b) for a, b in zip((rows, cols), group.pixels(lag or size[1]), strict=True))
    assert max(group.number for group in groups(size, lag)) <= most_pixels(size, lag)


def test_arguments_that_do_not_fit_are_refused(scramble: Scramble) -> None:
    """Law: a given view that is missing, unneeded or of the wrong size or batch, and an unknown schedule."""
    model = tiny(scramble, [Downsample(2)], 2)
    view, auxiliary = model.links(torch.zeros(2, 3, 4, 6, dtype=torch.int64))[0]
    assert auxiliary is not None
    bad: list[tuple[str, Tensor | None, dict[str, Any]]] = [
        (r"given of shape None.*\(B, \*\(3, 2, 3\)\)", None, {}),
        (r"given of shape \(2, 3, 4, 6\)", view, {}),
        ("given holds views of 1 images", auxiliary[:1], {}),
        ("schedule='fast'", auxiliary, {"schedule": "fast"}),
        ("schedule='wavefront'.*several scales", auxiliary, {"schedule": "wavefront"}),
    ]
    for message, view_given, options in bad:
        with pytest.raises(ValueError, match=message):
            forced(model.factors[0], view, view_given, **options)
    with pytest.raises(ValueError, match="takes no view"):
        forced(model.factors[1], auxiliary, auxiliary)
