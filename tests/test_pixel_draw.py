"""Laws of drawing pixels: the compiled kernel draws what the likelihood draws, up to rounding."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from conftest import all_views
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import pixelcnn
from pixelcnn.auxiliary.cells import CellAuxiliary, Filling, whole_box
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.common.kernel import find_kernel, using_processor
from pixelcnn.common.progress import progress_bar, steps_of
from pixelcnn.likelihoods.base import Bounds
from pixelcnn.likelihoods.logistic import LogisticMixture
from pixelcnn.likelihoods.tabular import Categorical
from pixelcnn.models.draw import DrawOptions, draw_view, position_noise
from pixelcnn.models.pixel_draw import Canvas, PixelDraw
from pixelcnn.traversal.loop import traverse


def available(processor: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with using_processor(processor):
            return find_kernel() is not None


PROCESSORS = [processor for processor in ("avx2", "avx512") if available(processor)]
needs_kernel = pytest.mark.skipif(not PROCESSORS, reason="the kernel is for other processors")
VIEWS = [None, Downsample(2), Downsample(3), QuantizedGrayscale(1)]
SIDE, MOVES = 6, 48
LAST = 1 - 2**-24  # the greatest noise


@dataclass
class Case:
    """A group of pixels to draw: one in each cell, after the pixels before it in their cells."""

    mixture: LogisticMixture
    auxiliary: CellAuxiliary | None
    batch: int = 2
    corner: tuple[int, int] = (0, 0)  # of the group within its cells
    wild: float = 1.0  # how far parameters are from those of a fresh network
    seed: int = 0
    side: int = SIDE
    options: dict[str, Any] | None = None
    ends: float = 0.02  # how much of the noise is 0, or next to 1

    def __post_init__(self) -> None:
        random, C, L = torch.Generator().manual_seed(self.seed), self.mixture.channels, self.mixture.levels
        self.x = torch.randint(0, L, (self.batch, C, self.side, self.side), generator=random)
        side = 1 if self.auxiliary is None else self.auxiliary.shrinkage
        starts = torch.cartesian_prod(torch.arange(0, self.side, side), torch.arange(0, self.side, side))
        self.rows, self.cols = (starts[:, i] + min(self.corner[i], side - 1) for i in (0, 1))
        inside = (self.rows < self.side) & (self.cols < self.side)
        self.starts, self.rows, self.cols = starts, self.rows[inside], self.cols[inside]
        mean, deviation = (each[:, None] for each in self.mixture.initial_stats())
        shape = (self.batch, self.mixture.num_params, len(self.rows))
        self.params = mean + self.wild * deviation * torch.randn(shape, generator=random)
        self.noise = torch.rand(self.batch, 2 * C, self.side, self.side, generator=random)
        self.noise = self.noise.where(torch.rand(self.noise.shape, generator=random) >= self.ends, 0.0)
        self.noise = self.noise.where(torch.rand(self.noise.shape, generator=random) >= self.ends, LAST)
        self.offset = None
        if self.auxiliary is not None:
            self.view = self.auxiliary(self.x, L)
            self.offset = self.auxiliary.expectation(self.view, C, (self.side, self.side), L)

    def filling(self) -> Filling | None:
        """Make bounds, with the pixels before those of the group filled."""
        if self.auxiliary is None:
            return None
        side, box = self.auxiliary.shrinkage, whole_box(self.x.shape, self.mixture.levels, self.x.device)
        filling = Filling(box, self.auxiliary, self.view, self.mixture.levels)
        for place in range(side**2):
            row, col = divmod(place, side)
            if (row, col) == (min(self.corner[0], side - 1), min(self.corner[1], side - 1)):
                break
            rows, cols = self.starts[:, 0] + row, self.starts[:, 1] + col
            inside = (rows < self.side) & (cols < self.side)
            rows, cols = rows[inside], cols[inside]
            filling.fill(rows, cols, self.x[:, :, rows, cols])
        return filling

    def draw(self, processor: str | None) -> tuple[Tensor, Filling | None]:
        with using_processor(processor):
            filling = self.filling()
            draw = PixelDraw(self.mixture, Canvas(self.noise, self.offset, filling), **(self.options or {}))
            assert (draw.function is None) == (processor is None)
            return draw(self.params, self.rows, self.cols), filling

    def bounds(self, values: Tensor) -> Bounds:
        filling = self.filling()
        if filling is None:
            return whole_box(values.shape, self.mixture.levels, values.device)
        return filling.next_bounds(self.rows, self.cols).of(values)

    def draws_nearby(self, some: Tensor, dtype: torch.dtype) -> Tensor:
        """Draw some pixels plainly, with parameters and noise moved by a few roundings: (MOVES, B, C, some)."""
        random, filling, rows, cols = torch.Generator().manual_seed(1), self.filling(), self.rows[some], self.cols[some]
        noise, params = self.noise[:, :, rows, cols].to(dtype), self.params[:, :, some].to(dtype)
        if self.offset is not None:
            params = self.mixture.offset_means(params, self.offset[:, :, rows, cols])
        draws = []
        for _ in range(MOVES):
            moved_noise = noise + 2**-22 * (2 * torch.rand(noise.shape, generator=random, dtype=dtype) - 1)
            # At a noise of 0, what counts is which weights of components vanish.
            tiny = 10 ** -(20 + 50 * torch.rand(noise.shape, generator=random, dtype=dtype))
            moved_noise = tiny.where((noise == 0) & (moved_noise < 0), moved_noise)
            moved = params * (1 + 2**-21 * (2 * torch.rand(params.shape, generator=random, dtype=dtype) - 1))
            moved = moved + 2**-22 * (2 * torch.rand(params.shape, generator=random, dtype=dtype) - 1)
            bounds = filling and filling.next_bounds(rows, cols)
            options = {name: each for name, each in (self.options or {}).items() if name != "fill"}
            draws.append(self.mixture.sample(moved, moved_noise.clamp(0, LAST), bounds=bounds, **options))
        return torch.stack(draws)

    def roundings(self) -> Tensor:
        """Eight roundings of the greatest mean of each sub-pixel, in levels, from a tenth of a level on: (B, C, N)."""
        kinds = self.params.unflatten(1, (-1, self.mixture.components))
        means = kinds[:, 1 :: 3 if self.mixture.channels == 3 else 2].abs().amax(2)
        return (2**-21 * means * self.mixture.levels / 2 + 0.9).long()

    def check(self, processor: str) -> float:
        """Check the draw of a processor, and return the share of pixels that are not what the plain draw gives.

        Where they are not, the plain draw itself changes as much when its arguments move by a few roundings.
        """
        (drawn, filling), (plain, plain_filling) = self.draw(processor), self.draw(None)
        lowest, highest = self.bounds(drawn)
        assert ((drawn >= lowest) & (drawn <= highest)).all()
        if filling is not None and plain_filling is not None and (self.options or {}).get("fill", True):
            filled = self.filling()
            assert filled is not None
            filled.fill(self.rows, self.cols, drawn)
            assert torch.equal(filling.spent, filled.spent)
        differs = (drawn != plain).any(1)
        if differs.any():
            some = differs.any(0)
            nearby = torch.cat([self.draws_nearby(some, dtype) for dtype in (torch.float32, torch.float64)])
            least, most = nearby.amin(0), nearby.amax(0)
            # The few draws may miss the ends of what rounding does, and differences from huge means round to levels.
            spread = most - least + self.roundings()[:, :, some]
            least, most = least - spread, most + spread
            assert (((drawn[:, :, some] >= least) & (drawn[:, :, some] <= most)).all(1) | ~differs[:, some]).all()
        return float(differs.float().mean())


@needs_kernel
@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("auxiliary", VIEWS, ids=str)
@pytest.mark.parametrize("options", [{}, {"map": True}, {"scale_shift": -0.7}, {"scale_shift": 6.0}], ids=str)
def test_the_kernel_draws_what_the_likelihood_draws(
    processor: str, auxiliary: CellAuxiliary | None, options: dict[str, Any]
) -> None:
    """Law: of thousands of pixels, at most one in a thousand differs, and that by rounding."""
    case = Case(LogisticMixture(3, 256, 10), auxiliary, batch=16, corner=(1, 0), side=36, ends=0, options=options)
    assert case.check(processor) <= 0.001


@st.composite
def cases(draw: Callable[..., Any]) -> Case:
    levels = draw(st.sampled_from([2, 3, 16, 256, 65536]))
    log_scales = draw(st.sampled_from([(None, -2.0), (None, None), (-7.0, None), (-60.0, 60.0), (1.0, 4.0)]))
    mixture = LogisticMixture(draw(st.sampled_from([1, 3])), levels, draw(st.integers(1, 33)), log_scales)
    shift = draw(st.sampled_from([0.0, -0.5, 3.0, -40.0]))
    options = {"map": draw(st.booleans()), "scale_shift": shift, "fill": draw(st.booleans())}
    views = VIEWS if mixture.channels == 3 or levels > 2 else VIEWS[:3]
    corner, wild = draw(st.tuples(*[st.integers(0, 2)] * 2)), draw(st.sampled_from([1.0, 5.0, 100.0]))
    case = Case(
        mixture, draw(st.sampled_from(views)), draw(st.integers(1, 5)), corner, wild, draw(st.integers(0, 999)),
        draw(st.sampled_from([3, SIDE])), options,
    )  # fmt: skip
    random = torch.Generator().manual_seed(case.seed)
    kinds = case.params.unflatten(1, (-1, mixture.components))
    means, log_scales = (kinds[:, i :: 3 if mixture.channels == 3 else 2] for i in (1, 2))
    if draw(st.booleans()):  # any scale
        log_scales.copy_(120 * torch.rand(log_scales.shape, generator=random) - 60)
    if draw(st.booleans()):  # means that are far outside
        means.mul_(10.0 ** torch.randint(0, 6, means.shape, generator=random))
    return case


@needs_kernel
@settings(max_examples=100)
@given(cases())
def test_any_parameters_are_drawn_from(case: Case) -> None:
    """Law: a pixel is within its bounds, and is what the likelihood draws up to rounding, whatever the mixture."""
    for processor in PROCESSORS:
        case.check(processor)


@needs_kernel
@pytest.mark.parametrize("auxiliary", VIEWS, ids=str)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 3e38])
def test_damaged_parameters_stay_within_bounds(auxiliary: CellAuxiliary | None, number: float) -> None:
    """Law: whatever the parameters, a pixel is within its bounds."""
    for processor in PROCESSORS:
        for options in ({}, {"map": True}, {"scale_shift": 5.0}):
            case = Case(LogisticMixture(3, 256, 10), auxiliary, corner=(1, 1), options=options)
            case.params[torch.rand(case.params.shape, generator=torch.Generator().manual_seed(3)) < 0.2] = number
            drawn, _ = case.draw(processor)
            lowest, highest = case.bounds(drawn)
            assert ((drawn >= lowest) & (drawn <= highest)).all()
            case.params[:] = number
            case.draw(processor)


@needs_kernel
def test_other_tensors_are_drawn_plainly() -> None:
    """Law: parameters and mixtures that the kernel does not know are drawn by the likelihood, with the same bounds."""

    @dataclass(frozen=True)
    class Own(LogisticMixture):
        def sample(self, *arguments: Any, **options: Any) -> Tensor:
            return super().sample(*arguments, **options) * 0 + 7

    case = Case(LogisticMixture(3, 256, 2), Downsample(2))
    draw = PixelDraw(case.mixture, Canvas(case.noise, case.offset, case.filling()))
    assert torch.equal(draw(case.params.double(), case.rows, case.cols), case.draw(None)[0])
    with pytest.raises(ValueError, match="the second dimension must be 20"):
        draw(case.params[:, :-1], case.rows, case.cols)
    own = PixelDraw(Own(3, 256, 2), Canvas(case.noise))
    assert (own(case.params, case.rows, case.cols) == 7).all()


@pytest.mark.parametrize("processor", [None, *PROCESSORS])
@pytest.mark.parametrize("size", [(12, 16), (1, 9), (7, 2), (1, 1)], ids=str)
@pytest.mark.parametrize("n", [1, 3])
def test_images_have_their_views_on_every_processor(processor: str | None, size: tuple[int, int], n: int) -> None:
    """Law: a view is that of the image drawn from it, and first pixels are the same with and without the kernel."""
    model = pixelcnn.load("photos-pyramid")
    with using_processor(processor):
        views = all_views(model, n, size, seed=3, options=DrawOptions(consistent=True))
    for view, auxiliary, next_view in zip(views, model.auxiliaries, views[1:], strict=False):
        assert torch.equal(auxiliary(view, 256), next_view)
    factor, given_view = model.factors[0], views[1]
    noise = position_noise(factor, size, range(n))
    firsts = []
    for each in (processor, None):
        with using_processor(each):
            drawn = draw_view(factor, noise, given_view, options=DrawOptions(consistent=True))
            firsts.append(drawn[:, :, 0, 0])
    assert torch.equal(*firsts)


def test_a_canvas_may_have_any_layout() -> None:
    """Law: values reach their pixels whatever the strides of the canvas are."""

    class Constant:
        def params(self, group: Any) -> Tensor:
            return torch.full((2, 1, group.number), 3e38)  # finite, though the sum of two is not

        def update(self, group: Any, values: Tensor) -> None:
            pass

    def fill(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        return (10 * rows + cols).expand(2, 1, -1)

    expected = (10 * torch.arange(4)[:, None] + torch.arange(7)).expand(2, 1, 4, 7)
    for canvas in (
        torch.zeros(2, 1, 4, 7, dtype=torch.uint8),
        torch.zeros(2, 1, 7, 4, dtype=torch.int64).transpose(2, 3),
        torch.zeros(3, 2, 9, 9, dtype=torch.uint8)[1:, 1:, 2:6, 1:8],
    ):
        for lag in (None, 2):
            assert torch.equal(traverse(Constant(), canvas.zero_(), fill, lag).long(), expected)


def test_a_hidden_bar_does_nothing_and_a_visible_one_ends_full() -> None:
    """Law: quick steps are counted where someone sees them."""
    for visible in (False, True):
        with progress_bar(visible=visible) as bar:
            task = bar.add_task("counting", total=500)
            advance = steps_of(bar, task)
            for _ in range(500):
                advance(1)
        assert bar.tasks[task].completed == (500 if visible else 0)


@needs_kernel
@pytest.mark.parametrize("processor", PROCESSORS)
@given(
    levels=st.sampled_from([2, 5, 16, 300]),
    bounded=st.booleans(),
    scale=st.sampled_from([0.0, 1.0, 30.0, 1e4]),
    batch=st.integers(1, 3),
    seed=st.integers(0, 999),
)
def test_tables_are_drawn_as_in_torch(
    processor: str, levels: int, bounded: bool, scale: float, batch: int, seed: int
) -> None:
    """Law: levels of a free probability are those of torch, except where the noise is within rounding of an edge."""
    random, likelihood = torch.Generator().manual_seed(seed), Categorical(levels)
    x = torch.randint(0, levels, (batch, 1, SIDE, SIDE), generator=random)
    noise = torch.rand(batch, 2, SIDE, SIDE, generator=random)
    noise[:, :, 0, 0], noise[:, :, 0, 2] = 0, LAST
    rows, cols = torch.arange(0, SIDE, 2).repeat(3), torch.arange(0, SIDE, 2).repeat_interleave(3)
    params = scale * torch.randn(batch, levels, len(rows), generator=random)
    drawn, bounds = [], None
    for each in (None, processor):
        filling = None
        if bounded:
            box = whole_box(x.shape, levels, x.device)
            filling = Filling(box, Downsample(2), Downsample(2)(x, levels), levels)
            bounds = filling.next_bounds(rows, cols)([])
        with using_processor(each):
            drawn.append(PixelDraw(likelihood, Canvas(noise, None, filling))(params, rows, cols)[:, 0])
    every = torch.arange(levels)[:, None]
    logits = params.double()
    if bounds is not None:
        logits = logits.masked_fill((every < bounds.lowest[:, None]) | (every > bounds.highest[:, None]), -math.inf)
        assert ((drawn[1] >= bounds.lowest) & (drawn[1] <= bounds.highest)).all()
    cdf = logits.softmax(1).cumsum(1)
    low, high = torch.stack(drawn, 1).sort(1).values.split(1, 1)  # between two draws, there must be next to no mass
    masses = cdf.gather(1, (high - 1).clamp_min(0)) - cdf.gather(1, low)
    assert ((drawn[0] == drawn[1]) | (masses[:, 0] < 1e-5)).all()
    assert (drawn[0] == drawn[1]).double().mean() > 0.9


@needs_kernel
@pytest.mark.parametrize("processor", PROCESSORS)
def test_tables_of_no_numbers_do_no_harm(processor: str) -> None:
    """Law: whatever the parameters are, the level is one that there is."""
    params = torch.full((2, 16, 3), math.nan)
    params[1, ::2] = math.inf
    place = torch.tensor([-5, 2, 99])
    with using_processor(processor):
        values = PixelDraw(Categorical(16), Canvas(torch.rand(2, 2, SIDE, SIDE)))(params, place, place)
    assert ((values >= 0) & (values < 16)).all()
