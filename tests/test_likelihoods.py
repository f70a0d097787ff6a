"""Laws of the likelihoods: they sum to one, stay finite and match PixelCNN++, and draws follow them.

With bounds, the same holds within the bounds.
"""

import math
import re
from decimal import MAX_EMAX, MIN_EMIN, Decimal, localcontext
from typing import Any

import pytest
import torch
from conftest import assert_follows
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pixelcnn.common.checks import check_whole
from pixelcnn.likelihoods.base import Bounds, Likelihood, scale_levels
from pixelcnn.likelihoods.logistic import LogisticMixture, LogScales
from pixelcnn.likelihoods.tabular import Categorical

DRAWS = 20_000
GREATEST_LOG_SCALE = -2.0  # that of a mixture by default
DEFAULT, PUBLISHED, UNLIMITED = RANGES = [(None, GREATEST_LOG_SCALE), (-7.0, None), (None, None)]


def random_params(
    family: Likelihood, positions: int, seed: int, *, log_scales: tuple[float, float] = (-3, 1), spread: float = 1.0
) -> Tensor:
    """(1, P, positions) in float64, in the layout of PixelCNN++: log-scales in a range, means around 0 in a spread."""
    generator = torch.Generator().manual_seed(seed)
    params = torch.randn(1, family.num_params, positions, generator=generator, dtype=torch.float64)
    if isinstance(family, LogisticMixture):
        K, parts = family.components, params[:, family.components :].view(1, family.channels, -1, positions)
        low, high = log_scales
        parts[:, :, :K] *= spread
        parts[:, :, K : 2 * K].uniform_(low, high, generator=generator)
    return params


def random_pixels(family: Likelihood, positions: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(family.levels, (1, family.channels, positions), generator=generator)


def random_bounds(family: Likelihood, positions: int, seed: int) -> tuple[Bounds, Tensor]:
    """Bounds of any width, each (1, C, positions), and pixels within them."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(family.levels, (3, 1, family.channels, positions), generator=generator)
    lowest, x, highest = values.sort(0).values
    return Bounds(lowest, highest), x


def every_pixel(family: Likelihood) -> Tensor:
    """(1, C, levels ** C): every value that a pixel can have."""
    axes = [torch.arange(family.levels)] * family.channels
    return torch.cartesian_prod(*axes).view(-1, family.channels).T[None]


def uniform(family: Likelihood, positions: int, seed: int = 0) -> Tensor:
    return torch.rand(1, family.num_noise, positions, generator=torch.Generator().manual_seed(seed))


def one_component(mean: float, log_scale: float, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Parameters of one position with one logistic of one channel."""
    return torch.tensor([0.0, mean, log_scale], dtype=dtype).view(1, 3, 1)


families = st.one_of(
    st.builds(
        LogisticMixture, st.sampled_from([1, 3]), st.integers(2, 256), st.integers(1, 4), st.sampled_from(RANGES)
    ),
    st.builds(Categorical, st.integers(2, 256)),
)
FAMILIES = [LogisticMixture(1, 5, 3), LogisticMixture(3, 4, 3), LogisticMixture(3, 4, 3, (-1.0, None)), Categorical(6)]


@given(families, st.sampled_from([0.0, 1.0, 30.0]), st.integers(0, 2**31))
def test_every_channel_sums_to_one(family: Likelihood, spread: float, seed: int) -> None:
    """Law: sum over the levels of pmf = 1 to 1e-9, at any log-scale from -30 to 10 and means far outside."""
    params = random_params(family, 20, seed, log_scales=(-30, 10), spread=spread)
    x = random_pixels(family, 20, seed)
    for channel in range(family.channels):
        pmf = family.pmf(params, x, channel)
        assert pmf.shape == (1, family.levels, 20)
        assert (pmf >= 0).all()
        assert float((pmf.sum(1) - 1).abs().max()) < 1e-9


@pytest.mark.parametrize("levels", [2, 3, 16, 255, 256])
def test_a_mean_on_the_edge_of_a_level_loses_no_mass(levels: int) -> None:
    """Law: the upper edge of a level is the lower edge of the next, to the last bit, for any scale."""
    edges = (2 * torch.arange(1, levels, dtype=torch.float64) - levels) / (levels - 1)
    for log_scale in (-60.0, -30.0, -20.0, -10.0, 0.0, 10.0, 60.0):
        params = torch.stack([torch.zeros_like(edges), edges, torch.full_like(edges, log_scale)])[None]
        pmf = LogisticMixture(1, levels, 1, UNLIMITED).pmf(params, torch.zeros(1, 1, levels - 1, dtype=torch.int64), 0)
        assert float((pmf.sum(1) - 1).abs().max()) < 1e-9


@given(families, st.integers(0, 2**31))
def test_log_prob_is_the_sum_of_the_channels(family: Likelihood, seed: int) -> None:
    """Law: log p(x) = sum over channels of log pmf of x_c given the channels before."""
    params, x = random_params(family, 20, seed), random_pixels(family, 20, seed)
    chain = sum(family.pmf(params, x, c).gather(1, x[:, c, None]).log()[:, 0] for c in range(family.channels))
    torch.testing.assert_close(family.log_prob(params, x), chain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_a_pixel_sums_to_one(family: Likelihood) -> None:
    """Law: the sum of exp(log_prob) over every value of a pixel, all channels together, is 1."""
    x = every_pixel(family)
    log_prob = family.log_prob(random_params(family, 1, 1).expand(-1, -1, x.shape[2]), x)
    assert abs(float(log_prob.exp().sum()) - 1) < 1e-9


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_a_channel_looks_only_at_those_before_it(family: Likelihood) -> None:
    """Law: pmf of a channel depends on the earlier channels, and not on itself or the later ones."""
    params, x = random_params(family, 20, 2), random_pixels(family, 20, 2)
    for channel in range(family.channels):
        pmf, later, earlier = family.pmf(params, x, channel), x.clone(), x.clone()
        later[:, channel:] = (later[:, channel:] + 1) % family.levels
        torch.testing.assert_close(family.pmf(params, later, channel), pmf, rtol=0, atol=0)
        if channel:
            earlier[:, channel - 1] = (earlier[:, channel - 1] + 1) % family.levels
            assert not torch.allclose(family.pmf(params, earlier, channel), pmf)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("levels", [2, 16, 256])
@pytest.mark.parametrize("limits", RANGES)
def test_float32_is_finite_everywhere(channels: int, levels: int, limits: LogScales) -> None:
    """Law: log_prob and its gradients are finite in float32 for every level at log-scales from -70 to 70."""
    family = LogisticMixture(channels, levels, 2, limits)
    log_scales = torch.linspace(-70, 70, 29)
    means = torch.tensor([-1e3, -1.0, -1 / 255, 0.0, 0.3, 1.0, 1e3])
    grid = torch.cartesian_prod(torch.arange(levels).float(), log_scales, means)
    x = grid[:, 0].to(torch.int64).expand(1, channels, -1)
    ones = torch.ones(len(grid))
    channel = [grid[:, 2], -grid[:, 2], grid[:, 1], grid[:, 1].flip(0)] + [ones, -ones] * (channels == 3)
    params = torch.stack([ones, 0 * ones, *channel * channels])[None].requires_grad_()
    log_prob = family.log_prob(params, x)
    assert log_prob.dtype == torch.float32
    assert log_prob.isfinite().all()
    (gradient,) = torch.autograd.grad(log_prob.sum(), params)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_the_gradient_is_that_of_the_value(family: Likelihood) -> None:
    """Law: the gradient of log_prob is its derivative, at the edge levels too."""
    x = every_pixel(family)[:, :, :: family.channels]
    params = random_params(family, x.shape[2], 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: family.log_prob(p, x), params)


def mass(level: int, levels: int, mean: Decimal, log_scale: float) -> Decimal:
    """sigmoid(a) - sigmoid(b) with as many digits as the context has."""

    def tail(position: int, side: int) -> Decimal:
        edge = Decimal(position) / (levels - 1) - mean
        return 1 / (1 + (-side * edge / Decimal(log_scale).exp()).exp())

    side = 1 if Decimal(2 * level - levels + 1) / (levels - 1) < mean else -1  # the side that does not cancel
    below = Decimal(side < 0) if level == 0 else tail(2 * level - levels, side)
    above = Decimal(side > 0) if level == levels - 1 else tail(2 * level + 2 - levels, side)
    return abs(above - below)


def limited(log_scale: float, limits: LogScales = DEFAULT) -> float:
    lowest, highest = limits
    return min(max(log_scale, -math.inf if lowest is None else lowest), math.inf if highest is None else highest)


@pytest.mark.parametrize("limits", RANGES)
@pytest.mark.parametrize("log_scale", [-9.0, -7.0, -3.0, 0.0, 4.0, 30.0])
@pytest.mark.parametrize("mean", [-20.0, -0.7, 0.001, 1.3])
def test_masses_are_exact_in_the_tails(mean: float, log_scale: float, limits: LogScales) -> None:
    """Law: log_prob is log(sigmoid(a) - sigmoid(b)) to fifty digits of arithmetic, even if the mass is tiny."""
    levels = 9
    log_prob = LogisticMixture(1, levels, 1, limits).log_prob(
        one_component(mean, log_scale).expand(-1, -1, levels), torch.arange(levels).view(1, 1, -1)
    )
    with localcontext(prec=50):
        masses = [mass(level, levels, Decimal(mean), limited(log_scale, limits)) for level in range(levels)]
        exact = torch.tensor([float(m.ln()) for m in masses], dtype=torch.float64)
    torch.testing.assert_close(log_prob[0], exact, rtol=1e-9, atol=1e-9)


def pixelcnn_plus_plus(params: list[float], pixel: list[int]) -> float:
    """Log-probability of one RGB pixel from 100 numbers, written out from the paper without arrays."""
    K, L = 10, 256

    def sigmoid(t: float) -> float:
        return 1 / (1 + math.exp(-t))

    def parameter(channel: int, kind: int, k: int) -> float:
        return params[K + channel * 3 * K + kind * K + k]

    r, g, b = (2 * value / (L - 1) - 1 for value in pixel)
    total = 0.0
    for k in range(K):
        on_red, on_red_too, on_green = (math.tanh(parameter(channel, 2, k)) for channel in range(3))
        shifts = 0.0, on_red * r, on_red_too * r + on_green * g
        product = math.exp(params[k]) / sum(math.exp(logit) for logit in params[:K])
        for channel, (value, shift) in enumerate(zip((r, g, b), shifts, strict=True)):
            mean, scale = parameter(channel, 0, k) + shift, math.exp(parameter(channel, 1, k))
            upper = 1.0 if pixel[channel] == L - 1 else sigmoid((value + 1 / (L - 1) - mean) / scale)
            lower = 0.0 if pixel[channel] == 0 else sigmoid((value - 1 / (L - 1) - mean) / scale)
            product *= upper - lower
        total += product
    return math.log(total)


def test_layout_and_values_match_pixelcnn_plus_plus() -> None:
    """Law: RGB with ten components takes 100 values per pixel and gives what PixelCNN++ gives, even at edge levels."""
    family = LogisticMixture(3, 256)
    assert family.num_params == 100
    params = random_params(family, 23, 4, spread=0.3, log_scales=(-2.5, GREATEST_LOG_SCALE))
    x = family.sample(params, uniform(family, 23))  # far from all means, PixelCNN++ uses an approximation
    x[0, :, -3:] = torch.tensor([[0, 255, 0], [255, 0, 255], [0, 0, 255]]).T
    log_prob = family.log_prob(params, x)
    for n in range(x.shape[2]):
        expected = pixelcnn_plus_plus(params[0, :, n].tolist(), x[0, :, n].tolist())
        assert float(log_prob[0, n]) == pytest.approx(expected, rel=1e-9)


@given(families, st.integers(0, 2**31))
def test_sizes_of_parameters_and_noise(family: Likelihood, seed: int) -> None:
    """Law: a pixel takes (1 + 2 C) K values, 10 K for RGB, L for a softmax; and one draw 2 C uniform numbers."""
    if isinstance(family, LogisticMixture):
        assert family.num_params == family.components * {1: 3, 3: 10}[family.channels]
    else:
        assert family.num_params == family.levels
    assert family.num_noise == 2 * family.channels
    assert family.sample(random_params(family, 4, seed), uniform(family, 4)).shape == (1, family.channels, 4)


@given(families, st.integers(0, 2**31))
def test_a_canvas_gives_what_its_pixels_give(family: Likelihood, seed: int) -> None:
    """Law: positions are independent, so a canvas (H, W) gives what its pixels (N,) give one by one."""
    params, x, noise = random_params(family, 6, seed), random_pixels(family, 6, seed), uniform(family, 6, seed)
    drawn = family.sample(params, noise)
    canvas = family.sample(params.unflatten(2, (2, 3)), noise.unflatten(2, (2, 3)))
    assert torch.equal(canvas.flatten(2), drawn)
    log_prob = family.log_prob(params.unflatten(2, (2, 3)), x.unflatten(2, (2, 3)))
    torch.testing.assert_close(log_prob.flatten(1), family.log_prob(params, x))
    pmf = family.pmf(params.unflatten(2, (2, 3)), x.unflatten(2, (2, 3)), family.channels - 1)
    torch.testing.assert_close(pmf.flatten(2), family.pmf(params, x, family.channels - 1))
    for n in range(6):
        assert torch.equal(family.sample(params[:, :, n, None], noise[:, :, n, None]), drawn[:, :, n, None])


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_draws_follow_log_prob(family: Likelihood) -> None:
    """Law: the frequency of every pixel value among many draws is exp(log_prob), by chi-squared."""
    params = random_params(family, 1, 5)
    drawn = family.sample(params.expand(-1, -1, DRAWS), uniform(family, DRAWS))
    assert drawn.dtype == torch.int64
    places = family.levels ** torch.arange(family.channels - 1, -1, -1)
    counts = torch.bincount((drawn[0] * places[:, None]).sum(0), minlength=family.levels**family.channels)
    x = every_pixel(family)
    assert_follows(counts, family.log_prob(params.expand(-1, -1, x.shape[2]), x)[0].exp())


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_draws_of_a_channel_follow_its_pmf(family: Likelihood) -> None:
    """Law: among the draws with the same earlier channels, a channel has the frequencies of its pmf."""
    params = random_params(family, 1, 6)
    drawn = family.sample(params.expand(-1, -1, DRAWS), uniform(family, DRAWS))[0]
    for channel in range(family.channels):
        prefixes, members = drawn[:channel].unique(dim=1, return_inverse=True) if channel else (drawn[:0, :1], None)
        for n in range(prefixes.shape[1]):
            group = drawn[channel] if members is None else drawn[channel][members == n]
            x = torch.zeros(1, family.channels, 1, dtype=torch.int64)
            x[0, :channel, 0] = prefixes[:, n]
            if len(group) > 200:
                assert_follows(torch.bincount(group, minlength=family.levels), family.pmf(params, x, channel)[0, :, 0])


def test_green_is_drawn_given_the_integer_red() -> None:
    """Law: the mean of green follows the rounded red, so 0.4 of a level above it is never rounded up."""
    family = LogisticMixture(3, 256, 1)
    step = 2 / 255
    #        logit   red, wide        green = red + 0.4     blue = green + 0.4
    params = [0.0, 0.0, -2.0, 20.0, 0.4 * step, -30.0, 0.0, 0.4 * step, -30.0, 20.0]
    drawn = family.sample(torch.tensor(params).view(1, 10, 1).expand(-1, -1, 1000), uniform(family, 1000))[0]
    assert len(drawn[0].unique()) > 50
    assert torch.equal(drawn[1], drawn[0])
    assert torch.equal(drawn[2], drawn[1])


def test_map_gives_the_mean_of_a_component_as_often_as_its_weight() -> None:
    """Law: a MAP draw is a component's mean, clamped and rounded, with the frequency of the component."""
    family = LogisticMixture(1, 11, 3)
    params = torch.tensor([0.0, 1.0, -0.5, -0.41, 0.22, 1.7, 3.0, 3.0, 3.0]).view(1, 9, 1).expand(-1, -1, DRAWS)
    drawn = family.sample(params, uniform(family, DRAWS), map=True)[0, 0]
    modes = torch.tensor([3, 6, 10])  # -0.41 -> 2.95, 0.22 -> 6.1, 1.7 -> 13.5, of the levels 0 to 10
    assert set(drawn.tolist()) == set(modes.tolist())
    assert_follows((drawn[:, None] == modes).sum(0), params[0, :3, 0].softmax(0))


def test_map_of_rgb_shifts_each_mode_by_the_modes_before_it() -> None:
    """Law: a MAP draw of green is its mean given the integer red, and of blue its mean given both."""
    family = LogisticMixture(3, 256, 1)
    params = random_params(family, 50, 7, spread=0.3)
    drawn = family.sample(params, uniform(family, 50), map=True)
    values = scale_levels(drawn, 256, torch.float64)
    _, red, _, c0, green, _, c1, blue, _, c2 = params.unbind(1)
    means = [red, green + c0.tanh() * values[:, 0], blue + c1.tanh() * values[:, 0] + c2.tanh() * values[:, 1]]
    for channel, mean in enumerate(means):
        assert ((values[:, channel] - mean.clamp(-1, 1)).abs() <= 1 / 255 + 1e-12).all()


@given(families, st.floats(-2, 2), st.integers(0, 2**31))
def test_scale_shift_is_added_to_the_log_scales(family: Likelihood, shift: float, seed: int) -> None:
    """Law: a shift gives the draws of parameters with shifted log-scales; a softmax, which has none, stays the same."""
    params = random_params(family, 50, seed, log_scales=(-5, -4))
    noise, shifted = uniform(family, 50, seed), params.clone()
    if isinstance(family, LogisticMixture):
        K = family.components
        shifted[:, K:].view(1, family.channels, -1, 50)[:, :, K : 2 * K] += shift
    assert torch.equal(family.sample(params, noise, scale_shift=shift), family.sample(shifted, noise))


@given(
    st.sampled_from([*RANGES, (-4.0, -3.5), (0.5, 1)]),
    st.sampled_from([1, 3]),
    st.floats(0, 30),
    st.floats(-1, 1),
    st.integers(0, 2**31),
)
def test_log_scales_are_clamped_to_their_range(
    limits: LogScales, channels: int, excess: float, shift: float, seed: int
) -> None:
    """Law: in likelihoods, distributions and draws, with bounds and without, whatever the scale shift."""
    family = LogisticMixture(channels, 32, 2, limits)
    for end, side in ((limits[0], -1), (limits[1], 1)):
        if end is None:
            continue
        inside = random_params(family, 50, seed, log_scales=(end, end))
        beyond = random_params(family, 50, seed, log_scales=(end + side * excess, end + side * excess))
        noise, (bounds, x) = uniform(family, 50, seed), random_bounds(family, 50, seed)
        for between in (None, bounds):
            assert torch.equal(family.log_prob(beyond, x, between), family.log_prob(inside, x, between))
            last = channels - 1
            assert torch.equal(family.pmf(beyond, x, last, between), family.pmf(inside, x, last, between))
        for bounds_of_next in (None, lambda drawn, bounds=bounds: Bounds(*(bound[:, len(drawn)] for bound in bounds))):
            drawn = [
                family.sample(params, noise, scale_shift=shift, bounds=bounds_of_next) for params in (beyond, inside)
            ]
            assert torch.equal(*drawn)


@pytest.mark.parametrize("limits", RANGES)
def test_a_wider_range_is_another_distribution(limits: LogScales) -> None:
    """Law: within its range a log-scale is used as is: the mass of the middle level falls as it grows."""
    family, x = LogisticMixture(1, 255, 1, limits), torch.tensor([[[127]]])
    masses = [float(family.log_prob(one_component(0.0, s), x)) for s in (-9.0, -8.0, -7.0, -4.0, -2.0, 0.0, 9.0)]
    least, greatest = (-math.inf if limits[0] is None else -7), (math.inf if limits[1] is None else -2)
    distinct = [s for s in (-9.0, -8.0, -7.0, -4.0, -2.0, 0.0, 9.0) if least <= s <= greatest]
    assert masses == sorted(masses, reverse=True)
    assert len(set(masses)) == len(distinct)


def test_a_smaller_scale_has_less_variance() -> None:
    """Law: a negative shift draws closer to the means, and minus thirty as MAP does."""
    family = LogisticMixture(1, 256, 2)
    params, noise = random_params(family, 1, 8, spread=0.3).expand(-1, -1, 2000), uniform(family, 2000)
    modes = family.sample(params, noise, map=True)
    distances = [
        (family.sample(params, noise, scale_shift=s) - modes).abs().double().mean() for s in (0.0, -1.0, -30.0)
    ]
    assert distances[0] > distances[1] > distances[2] == 0


@given(families)
def test_the_ends_of_the_noise_give_levels(family: Likelihood) -> None:
    """Law: noise of 0, and of the largest number below 1, draws a level in range at any scale, even zero."""
    ends = torch.tensor([0.0, 1 - 2**-24]).expand(1, family.num_noise, 2)
    for log_scale in (-1000.0, -30.0, 0.0, 10.0, 1000.0):
        params = random_params(family, 2, 9, log_scales=(log_scale, log_scale + 1e-3)).float()
        drawn = family.sample(params, ends)
        assert ((drawn >= 0) & (drawn < family.levels)).all()


@given(families, st.sampled_from([0.0, 1.0, 30.0]), st.integers(0, 2**31))
def test_every_channel_sums_to_one_between_its_bounds(family: Likelihood, spread: float, seed: int) -> None:
    """Law: the pmf between the bounds sums to one to 1e-9 and is zero outside, at log-scales from -30 to 10."""
    params = random_params(family, 20, seed, log_scales=(-30, 10), spread=spread)
    bounds, x = random_bounds(family, 20, seed)
    for channel in range(family.channels):
        pmf = family.pmf(params, x, channel, bounds)
        assert (pmf >= 0).all()
        assert float((pmf.sum(1) - 1).abs().max()) < 1e-9
        assert (pmf[outside(family, bounds, channel)] == 0).all()


def outside(family: Likelihood, bounds: Bounds, channel: int) -> Tensor:
    """(1, levels, positions): which levels the bounds of a channel leave out."""
    every = torch.arange(family.levels)[None, :, None]
    return (every < bounds.lowest[:, None, channel]) | (every > bounds.highest[:, None, channel])


@given(families, st.integers(0, 2**31))
def test_a_bounded_channel_is_the_free_one_renormalized(family: Likelihood, seed: int) -> None:
    """Law: a channel's pmf is that without bounds, given the channels before it, divided by its mass between them."""
    params = random_params(family, 20, seed, log_scales=(-2, 1))
    bounds, x = random_bounds(family, 20, seed)
    for channel in range(family.channels):
        free = family.pmf(params, x, channel).masked_fill(outside(family, bounds, channel), 0)
        torch.testing.assert_close(family.pmf(params, x, channel, bounds), free / free.sum(1), rtol=1e-9, atol=1e-12)


@given(families, st.sampled_from([1.0, 30.0]), st.integers(0, 2**31))
def test_bounded_log_prob_is_the_sum_of_the_channels(family: Likelihood, spread: float, seed: int) -> None:
    """Law: log p(x) = sum over channels of log pmf of x_c given the channels before, each between its bounds."""
    params, (bounds, x) = random_params(family, 20, seed, spread=spread), random_bounds(family, 20, seed)
    log_prob = family.log_prob(params, x, bounds)
    channels = range(family.channels)
    chain = torch.cat([family.pmf(params, x, c, bounds).gather(1, x[:, c, None]) for c in channels], 1)
    visible = (chain > 1e-300).all(1)
    assert visible.sum() > 5
    torch.testing.assert_close(log_prob[visible], chain.log().sum(1)[visible], rtol=1e-9, atol=1e-9)


@given(families, st.sampled_from([1.0, 30.0]), st.integers(0, 2**31))
def test_bounds_of_all_levels_change_nothing(family: Likelihood, spread: float, seed: int) -> None:
    """Law: with bounds at the lowest and the highest level, there is nothing to renormalize."""
    params = random_params(family, 20, seed, log_scales=(-9, 1), spread=spread)
    x = random_pixels(family, 20, seed)
    bounds = Bounds(torch.zeros_like(x), torch.full_like(x, family.levels - 1))
    torch.testing.assert_close(family.log_prob(params, x, bounds), family.log_prob(params, x), rtol=1e-9, atol=1e-9)
    for channel in range(family.channels):
        bounded = family.pmf(params, x, channel, bounds)
        torch.testing.assert_close(bounded, family.pmf(params, x, channel), rtol=1e-9, atol=1e-12)


@given(families, st.sampled_from([1.0, 1e3]), st.sampled_from([torch.float32, torch.float64]), st.integers(0, 2**31))
def test_a_known_value_is_certain(family: Likelihood, spread: float, dtype: torch.dtype, seed: int) -> None:
    """Law: if the bounds leave one value, its log-probability is zero, however unlikely it was, and it is drawn."""
    params = random_params(family, 20, seed, log_scales=(-30, 10), spread=spread).to(dtype)
    x = random_pixels(family, 20, seed)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert float(family.log_prob(params, x, Bounds(x, x)).abs().max()) < tolerance
    for map in (True, False):
        drawn = family.sample(
            params, uniform(family, 20), map=map, bounds=lambda drawn: Bounds(*[x[:, len(drawn)]] * 2)
        )
        assert torch.equal(drawn, x)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("levels", [2, 16, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("limits", [DEFAULT, UNLIMITED])
def test_bounded_log_prob_is_finite_everywhere(
    channels: int, levels: int, dtype: torch.dtype, limits: LogScales
) -> None:
    """Law: log_prob and its gradients are finite between any bounds, at log-scales from -70 to 70, means far outside.

    And no probability is above one.
    """
    family = LogisticMixture(channels, levels, 2, limits)
    ends = torch.tensor([0, 1, levels // 2, levels - 2, levels - 1]).unique().to(dtype)
    log_scales = torch.linspace(-70, 70, 15, dtype=dtype)
    means = torch.tensor([-1e3, -1.0, -1 / 255, 0.0, 0.3, 1.0, 1e3], dtype=dtype)
    grid = torch.cartesian_prod(ends, ends, ends, log_scales, means)
    grid = grid[(grid[:, 0] <= grid[:, 1]) & (grid[:, 1] <= grid[:, 2])]
    lowest, x, highest = grid[:, :3].T.long()[:, None, None].expand(3, 1, channels, -1)
    ones = torch.ones(len(grid), dtype=dtype)
    channel = [grid[:, 4], -grid[:, 4], grid[:, 3], grid[:, 3].flip(0)] + [ones, -ones] * (channels == 3)
    params = torch.stack([ones, 0 * ones, *channel * channels])[None].requires_grad_()
    log_prob = family.log_prob(params, x, Bounds(lowest, highest))
    assert log_prob.dtype == dtype
    assert log_prob.isfinite().all()
    assert (log_prob < 1e-5).all()
    (gradient,) = torch.autograd.grad(log_prob.sum(), params)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_the_bounded_gradient_is_that_of_the_value(family: Likelihood) -> None:
    """Law: the gradient of log_prob between bounds is its derivative, where the mass is small too."""
    for spread in (1.0, 20.0):
        params = random_params(family, 12, 3, spread=spread).requires_grad_()
        bounds, x = random_bounds(family, 12, 3)
        assert torch.autograd.gradcheck(lambda p, x=x, bounds=bounds: family.log_prob(p, x, bounds), params)


def exact_log_prob(params: list[float], pixel: list[int], bounds: list[list[int]], levels: int) -> float:
    """Log-probability of one pixel between bounds, one logistic after another, in sixty digits."""
    channels = len(pixel)
    kinds, K = (3, len(params) // 10) if channels == 3 else (2, len(params) // 3)
    values = [2 * Decimal(value) / (levels - 1) - 1 for value in pixel]

    def parameter(channel: int, kind: int, k: int) -> float:
        return params[K + (channel * kinds + kind) * K + k]

    def component_mass(level: int, channel: int, k: int) -> Decimal:
        mean, first = Decimal(parameter(channel, 0, k)), channel * (channel - 1) // 2
        for earlier in range(channel):
            mean += Decimal(math.tanh(parameter(first + earlier, 2, k))) * values[earlier]
        return mass(level, levels, mean, limited(parameter(channel, 1, k)))

    with localcontext(prec=60, Emin=MIN_EMIN, Emax=MAX_EMAX):
        weights, product = [Decimal(logit).exp() for logit in params[:K]], Decimal(1)
        for channel, (lowest, highest) in enumerate(bounds):
            masses = {
                level: [weights[k] * component_mass(level, channel, k) for k in range(K)]
                for level in range(lowest, highest + 1)
            }
            weights = masses[pixel[channel]]
            product *= sum(weights, Decimal(0)) / sum((sum(each, Decimal(0)) for each in masses.values()), Decimal(0))
        return float(product.ln())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("spread", "log_scales"), [(0.5, (-3.0, 0.0)), (3.0, (-2.0, -2.0)), (30.0, (-1.0, 1.0)), (30.0, (-7.0, -4.0))]
)
def test_bounded_log_prob_is_exact(channels: int, spread: float, log_scales: tuple[float, float]) -> None:
    """Law: log_prob is right to sixty digits of arithmetic, even if the mass within the bounds is e^-30000."""
    family, n = LogisticMixture(channels, 9, 2), 30
    params = random_params(family, n, 12, spread=spread, log_scales=log_scales)
    bounds, x = random_bounds(family, n, 12)
    log_prob = family.log_prob(params, x, bounds)[0]
    numbers = zip(
        params[0].T.tolist(), x[0].T.tolist(), torch.stack(bounds, -1)[0].transpose(0, 1).tolist(), strict=True
    )
    exact = [exact_log_prob(*each, levels=9) for each in numbers]
    torch.testing.assert_close(log_prob, torch.tensor(exact, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("limits", [DEFAULT, PUBLISHED])
@pytest.mark.parametrize("log_scale", [-9.0, -4.0, 0.0, 4.0])
@pytest.mark.parametrize("mean", [-1e3, -20.0, -0.7, 0.001, 1.3, 30.0])
def test_bounded_log_prob_is_exact_in_float32(mean: float, log_scale: float, limits: LogScales) -> None:
    """Law: in float32 it is right to a millionth, since no large numbers are subtracted, even if the mass is tiny."""
    lowest, x, highest = torch.combinations(torch.arange(9), 3, with_replacement=True).T[:, None, None]
    params = one_component(mean, log_scale, dtype=torch.float32).expand(-1, -1, x.shape[2])
    log_prob = LogisticMixture(1, 9, 1, limits).log_prob(params, x, Bounds(lowest, highest))[0]
    with localcontext(prec=60, Emin=MIN_EMIN, Emax=MAX_EMAX):
        mean, log_scale = float(params[0, 1, 0]), limited(log_scale, limits)
        masses = [mass(level, 9, Decimal(mean), log_scale) for level in range(9)]
        shares = [
            masses[v] / sum(masses[low : high + 1])
            for low, v, high in torch.stack([lowest, x, highest])[:, 0, 0].T.tolist()
        ]
        exact = torch.tensor([float(share.ln()) for share in shares])
    torch.testing.assert_close(log_prob, exact, rtol=1e-6, atol=1e-6)


def next_bounds(family: Likelihood, drawn: list[Tensor], shape: torch.Size) -> Bounds:
    """Bounds that depend on the channels before: what is left of a sum that must lie between two numbers."""
    least, most, rest = family.levels, 2 * family.levels - 1, (family.channels - 1 - len(drawn)) * (family.levels - 1)
    if family.channels == 1:
        least, most = 1, family.levels - 2
    before = sum(drawn, torch.zeros(shape, dtype=torch.int64))
    return Bounds((least - before - rest).clamp(min=0), (most - before).clamp(max=family.levels - 1))


@pytest.mark.parametrize("family", FAMILIES, ids=str)
@pytest.mark.parametrize("spread", [1.0, 6.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounded_draws_follow_log_prob(family: Likelihood, spread: float, dtype: torch.dtype) -> None:
    """Law: the frequency of every pixel value among many draws is exp(log_prob), with bounds that follow the draws."""
    params = random_params(family, 1, 5, spread=spread).to(dtype)
    shape = torch.Size((1, DRAWS))
    drawn = family.sample(
        params.expand(-1, -1, DRAWS), uniform(family, DRAWS), bounds=lambda drawn: next_bounds(family, drawn, shape)
    )
    places = family.levels ** torch.arange(family.channels - 1, -1, -1)
    counts = torch.bincount((drawn[0] * places[:, None]).sum(0), minlength=family.levels**family.channels)
    x = every_pixel(family)
    each = [next_bounds(family, list(x[:, :c].unbind(1)), x[:, 0].shape) for c in range(family.channels)]
    bounds = Bounds(*(torch.stack(ends, 1) for ends in zip(*each, strict=True)))
    possible = ((bounds.lowest <= x) & (x <= bounds.highest))[0].all(0)
    log_prob = family.log_prob(
        params[:, :, [0] * int(possible.sum())], x[..., possible], Bounds(*(b[..., possible] for b in bounds))
    )
    probabilities = torch.zeros(len(possible), dtype=dtype)
    probabilities[possible] = log_prob[0].exp()
    assert abs(float(probabilities.sum()) - 1) < (1e-9 if dtype == torch.float64 else 1e-5)
    assert (probabilities > 1e-3).sum() > 1
    assert_follows(counts, probabilities)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("mean", "log_scale"),
    [
        (0.1, -1.0), (3.0, -2.0), (-30.0, -1.0), (1e3, -0.5), (0.0, 6.0), (5.0, 5.0), (0.24, -4.0), (-0.3, 1.0),
        (-1e3, 3.0), (40.0, 3.0), (0.1, 12.0), (0.0, 20.0), (-50.0, 2.0), (3.0, 59.0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("limits", RANGES)
def test_draws_from_the_tails_follow_the_pmf(
    mean: float, log_scale: float, dtype: torch.dtype, limits: LogScales
) -> None:
    """Law: draws between bounds have the frequencies of the pmf even if the mass between them is 1e-30 or far less."""
    family = LogisticMixture(1, 17, 1, limits)
    params, x = one_component(mean, log_scale, dtype=dtype), torch.zeros(1, 1, 1, dtype=torch.int64)
    lowest, highest = torch.full((1, DRAWS), 4), torch.full((1, DRAWS), 11)
    drawn = family.sample(
        params.expand(-1, -1, DRAWS), uniform(family, DRAWS), bounds=lambda _: Bounds(lowest, highest)
    )
    pmf = family.pmf(params, x, 0, Bounds(x + 4, x + 11))[0, :, 0]
    assert_follows(torch.bincount(drawn[0, 0], minlength=17), pmf)


def test_bounded_map_gives_the_nearest_possible_level_to_the_mean_of_a_component() -> None:
    """Law: a MAP draw is a component's mean within the bounds, as often as the component's mass between them says."""
    family = LogisticMixture(1, 11, 3)
    params = torch.tensor([0.0, 1.0, -0.5, -0.41, 0.22, 1.7, -1.0, -1.0, -0.5]).view(1, 9, 1).expand(-1, -1, DRAWS)
    lowest, highest = torch.full((1, DRAWS), 5), torch.full((1, DRAWS), 8)
    drawn = family.sample(params, uniform(family, DRAWS), map=True, bounds=lambda _: Bounds(lowest, highest))[0, 0]
    modes = torch.tensor([5, 6, 8])  # -0.41 -> 2.95, 0.22 -> 6.1, 1.7 -> 13.5
    assert set(drawn.tolist()) == set(modes.tolist())
    alone = [params[:, [3 + k, 6 + k], :1].double() for k in range(3)]
    pmfs = [LogisticMixture(1, 11, 1).pmf(torch.cat([0 * a[:, :1], a], 1), lowest[:, None, :1], 0) for a in alone]
    weights = torch.stack([logit.exp() * pmf[0, 5:9].sum() for logit, pmf in zip(params[0, :3, 0], pmfs, strict=True)])
    assert_follows((drawn[:, None] == modes).sum(0), weights)


@given(families, st.sampled_from([1.0, 30.0, 1e3]), st.sampled_from([-30.0, -3.0, 10.0]), st.booleans())
def test_bounded_draws_stay_within_the_bounds(family: Likelihood, spread: float, log_scale: float, map: bool) -> None:
    """Law: every draw, and every MAP draw, is within the bounds, at the ends of the noise too, in float32."""
    params = random_params(family, 40, 9, spread=spread, log_scales=(log_scale, log_scale + 1)).float()
    bounds, _ = random_bounds(family, 40, 9)
    noise = uniform(family, 40)
    noise[..., ::3], noise[..., 1::3] = 0.0, 1 - 2**-24

    def bounds_of_next(drawn: list[Tensor]) -> Bounds:
        return Bounds(*(bound[:, len(drawn)] for bound in bounds))

    drawn = family.sample(params, noise, map=map, bounds=bounds_of_next)
    assert ((bounds.lowest <= drawn) & (drawn <= bounds.highest)).all()


@given(families, st.floats(-2, 2), st.integers(0, 2**31))
def test_scale_shift_is_added_between_bounds_too(family: Likelihood, shift: float, seed: int) -> None:
    """Law: a shift gives the draws of parameters with shifted log-scales, and minus thirty those of MAP."""
    params = random_params(family, 50, seed, log_scales=(-5, -4))
    noise = uniform(family, 50, seed)
    bounds, _ = random_bounds(family, 50, seed)

    def draw(params: Tensor, **options: Any) -> Tensor:
        return family.sample(params, noise, bounds=lambda drawn: Bounds(*(b[:, len(drawn)] for b in bounds)), **options)

    shifted = params.clone()
    if isinstance(family, LogisticMixture):
        K = family.components
        shifted[:, K:].view(1, family.channels, -1, 50)[:, :, K : 2 * K] += shift
    assert torch.equal(draw(params, scale_shift=shift), draw(shifted))
    assert torch.equal(draw(params, scale_shift=-30.0), draw(params, scale_shift=-30.0, map=True))


@given(families, st.integers(0, 2**31))
def test_a_bounded_canvas_gives_what_its_pixels_give(family: Likelihood, seed: int) -> None:
    """Law: a canvas (H, W) with bounds gives what its pixels (N,) give with theirs; bytes are as good as integers."""
    params, (bounds, x) = random_params(family, 6, seed), random_bounds(family, 6, seed)
    canvas = [t.unflatten(2, (2, 3)) for t in (params, x.to(torch.uint8), *bounds)]
    noise, last, between = uniform(family, 6, seed), family.channels - 1, Bounds(*canvas[2:])
    log_prob = family.log_prob(canvas[0], canvas[1], between)
    torch.testing.assert_close(log_prob.flatten(1), family.log_prob(params, x, bounds))
    pmf = family.pmf(canvas[0], canvas[1], last, between)
    torch.testing.assert_close(pmf.flatten(2), family.pmf(params, x, last, bounds))
    drawn = family.sample(params, noise, bounds=lambda drawn: Bounds(*(b[:, len(drawn)] for b in bounds)))
    of_canvas = family.sample(
        canvas[0],
        noise.unflatten(2, (2, 3)),
        bounds=lambda drawn: Bounds(*(b[:, len(drawn)] for b in between)),
    )
    assert torch.equal(of_canvas.flatten(2), drawn)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_half_precision_becomes_float32(family: Likelihood) -> None:
    """Law: bfloat16 parameters give float32 likelihoods, the same as for these numbers in float32; float64 is kept."""
    x = random_pixels(family, 20, 10)
    params = random_params(family, 20, 10).bfloat16()
    for result, same in (
        (family.log_prob(params, x), family.log_prob(params.float(), x)),
        (family.pmf(params, x, 0), family.pmf(params.float(), x, 0)),
    ):
        assert result.dtype == torch.float32
        assert torch.equal(result, same)
    assert torch.equal(family.sample(params, uniform(family, 20)), family.sample(params.float(), uniform(family, 20)))
    assert family.log_prob(params.double(), x).dtype == torch.float64


@pytest.mark.parametrize("family", [*FAMILIES, LogisticMixture(3, 256, 2), Categorical(256)], ids=str)
def test_images_of_bytes_score_like_integers(family: Likelihood) -> None:
    """Law: the integer type of an image does not matter: no sum or product of bytes overflows."""
    params, x = random_params(family, 20, 11), random_pixels(family, 20, 11)
    assert torch.equal(family.log_prob(params, x.to(torch.uint8)), family.log_prob(params, x))
    last = family.channels - 1
    assert torch.equal(family.pmf(params, x.to(torch.uint8), last), family.pmf(params, x, last))


def test_a_softmax_is_a_softmax() -> None:
    """Law: the probabilities of a categorical pixel are exp(p_v) / sum exp(p)."""
    params = torch.tensor([0.0, 1.0, -2.0, 3.0], dtype=torch.float64)
    total = sum(math.exp(p) for p in params.tolist())
    log_prob = Categorical(4).log_prob(params.view(1, 4, 1).expand(-1, -1, 4), torch.arange(4).view(1, 1, 4))[0]
    assert log_prob.exp().tolist() == pytest.approx([math.exp(p) / total for p in params.tolist()])


def test_a_softmax_stays_finite() -> None:
    """Law: log-probabilities and gradients of a categorical pixel are finite for parameters as large as 1e4."""
    params = torch.tensor([-1e4, 0.0, 1e4]).view(1, 3, 1).repeat(1, 1, 3).requires_grad_()
    log_prob = Categorical(3).log_prob(params, torch.arange(3).view(1, 1, 3))
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert params.grad is not None
    assert params.grad.isfinite().all()


@given(st.integers(2, 2**16))
def test_levels_are_scaled_evenly_from_minus_one_to_one(levels: int) -> None:
    """Law: the lowest level is -1, the highest 1, and the steps between them are equal."""
    values = scale_levels(torch.tensor([0, 1, levels - 2, levels - 1]), levels, torch.float64).tolist()
    step = 2 / (levels - 1)
    assert values == pytest.approx([-1, -1 + step, 1 - step, 1], abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 256), "channels=2"),
        ((0, 256), "channels=0"),
        (("3", 256), "channels='3'"),
        ((3, 1), "levels=1"),
        ((3, 256.0), "levels=256.0"),
        ((3, 256, 0), "components=0"),
        ((3, 256, True), "components=True"),
        *(
            ((3, 256, 10, log_scales), f"log_scales={re.escape(repr(log_scales))}")
            for log_scales in (
                None, -7, "-7", (), (-7,), (-7, None, None), [-7, -2, 0], {"lowest": -7}, (-2, -7), (-7, -7), [-2, -7],
                (None, math.nan), (math.nan, None), (True, None), ("-7", None), (-math.inf, None), (None, math.inf),
                (-61, None), (None, 61), (None, -60), (60, None), (1j, None), (10**400, None), ([-7], None),
            )
        ),
    ],
)  # fmt: skip
def test_a_mixture_refuses_bad_arguments(arguments: tuple, message: str) -> None:
    """Law: an error quotes the argument and its value."""
    with pytest.raises(ValueError, match=message):
        LogisticMixture(*arguments)


def test_a_range_from_json_is_the_same() -> None:
    """Law: a list (as in JSON) and whole numbers give the same range as a pair of floats, with the same hash."""
    ours, theirs = LogisticMixture(3, 256, 10, (-7.0, None)), LogisticMixture(3, 256, 10, [-7, None])  # pyright: ignore[reportArgumentType]  (what JSON gives)
    assert ours == theirs
    assert hash(ours) == hash(theirs)
    assert LogisticMixture(3, 256) == LogisticMixture(3, 256, 10, (None, -2))


@pytest.mark.parametrize("levels", [1, 0, -2, 2.5, "4", None])
def test_a_softmax_refuses_bad_arguments(levels: object) -> None:
    """Law: an error quotes the argument and its value."""
    with pytest.raises(ValueError, match=f"levels={levels!r}"):
        Categorical(levels)  # pyright: ignore[reportArgumentType]


def test_parameters_of_another_family_are_refused() -> None:
    """Law: a mixture says how many parameters it takes."""
    with pytest.raises(ValueError, match=r"\(1, 99, 4\).*100"):
        LogisticMixture(3, 256).log_prob(torch.zeros(1, 99, 4), torch.zeros(1, 3, 4, dtype=torch.int64))


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", None, True])
def test_check_whole_refuses_everything_else(value: object) -> None:
    """Law: a whole number that is large enough passes; anything else is quoted by name and value."""
    check_whole(first=1, second=7)
    check_whole(at_least=0, zero=0)
    with pytest.raises(ValueError, match=f"second={value!r}"):
        check_whole(first=1, second=value)


@pytest.mark.parametrize("log_scale", [-60.0, -90.0, -200.0])
def test_no_scale_is_too_small(log_scale: float) -> None:
    """Law: far below any scale that matters, float32 draws are the mode, and probabilities between bounds finite."""
    family, params = LogisticMixture(1, 256, 1), one_component(5.0, log_scale, dtype=torch.float32)
    bounds = Bounds(torch.tensor([[[100]]]), torch.tensor([[[110]]]))
    draws = [
        family.sample(params, torch.full((1, 2, 1), 0.5), map=map, bounds=lambda _: Bounds(*(b[:, 0] for b in bounds)))
        for map in (False, True)
    ]
    assert [int(draw) for draw in draws] == [110, 110]
    assert family.log_prob(params, torch.tensor([[[110]]]), bounds).tolist() == [[0.0]]
    assert family.log_prob(params, torch.tensor([[[100]]]), bounds).isfinite().all()


@pytest.mark.parametrize(("channels", "components"), [(1, 3), (3, 10)])
def test_means_are_offset_by_an_estimate(channels: int, components: int) -> None:
    """Law: if a network gives zeros, the mode is the estimate; logits, scales and coefficients stay the same."""
    likelihood = LogisticMixture(channels, 256, components)
    estimate = torch.randint(256, (2, channels, 5), generator=torch.Generator().manual_seed(0))
    params = torch.zeros(2, likelihood.num_params, 5)
    moved = likelihood.offset_means(params, estimate)
    noise = torch.rand(2, likelihood.num_noise, 5)
    assert torch.equal(likelihood.sample(moved, noise, map=True), estimate)
    assert not params.any()
    assert int((moved != 0).any(2).any(0).sum()) == channels * components


@pytest.mark.parametrize("limits", [*RANGES, (None, -4.0), (-4.0, -3.5), (-2.2, -2.0), (-1.0, None)])
def test_log_scales_start_within_their_range(limits: LogScales) -> None:
    """Law: they start as near to -2.5 as the range allows, or they would have no gradient."""
    lowest, highest = (number if end is None else end for end, number in zip(limits, (-60, 60), strict=True))
    start = float(LogisticMixture(1, 256, 1, limits).initial_stats()[0][2])
    assert lowest < start < highest
    assert lowest > -3 or highest < -2 or start == -2.5


@pytest.mark.parametrize("likelihood", [LogisticMixture(1, 256, 3), LogisticMixture(3, 256, 10), Categorical(16)])
def test_every_parameter_has_initial_stats(likelihood: Likelihood) -> None:
    """Law: each has a mean and a positive deviation; such noise scores little worse than uniform."""
    means, deviations = likelihood.initial_stats()
    assert means.shape == deviations.shape == (likelihood.num_params,)
    assert (deviations > 0).all()
    generator = torch.Generator().manual_seed(0)
    params = means[:, None] + deviations[:, None] * torch.randn(4, likelihood.num_params, 500, generator=generator)
    x = torch.randint(likelihood.levels, (4, likelihood.channels, 500), generator=generator)
    nats = -likelihood.log_prob(params, x).mean() / likelihood.channels
    assert nats < 1.5 * math.log(likelihood.levels)
