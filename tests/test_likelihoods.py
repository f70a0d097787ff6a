"""Laws of the likelihoods: they sum to one, stay finite, say what PixelCNN++ says, and draws follow them."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from pixelcnn.likelihoods import Categorical, Likelihood, LogisticMixture, check_whole, scale_levels

DRAWS = 20_000
SIGNIFICANCE = 1e-3  # of the chi-squared tests; the seeds are fixed, so a test passes always or never


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


def every_pixel(family: Likelihood) -> Tensor:
    """(1, C, levels ** C): every value that a pixel can have."""
    axes = [torch.arange(family.levels)] * family.channels
    return torch.cartesian_prod(*axes).view(-1, family.channels).T[None]


def uniform(family: Likelihood, positions: int, seed: int = 0) -> Tensor:
    return torch.rand(1, family.num_noise, positions, generator=torch.Generator().manual_seed(seed))


def one_component(mean: float, log_scale: float, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Parameters of one position with one logistic of one channel."""
    return torch.tensor([0.0, mean, log_scale], dtype=dtype).view(1, 3, 1)


def assert_follows(counts: Tensor, probabilities: Tensor) -> None:
    """Chi-squared test of counts against probabilities, the cells that expect fewer than five counted together."""
    expected = probabilities.double() / probabilities.double().sum() * counts.sum()
    rare = expected < 5
    f_obs = torch.cat([counts[~rare], counts[rare].sum()[None]])
    f_exp = torch.cat([expected[~rare], expected[rare].sum()[None]])
    kept = f_exp > 0
    assert f_obs[~kept].sum() == 0
    assert chisquare(f_obs[kept].numpy(), f_exp[kept].numpy()).pvalue > SIGNIFICANCE


families = st.one_of(
    st.builds(LogisticMixture, st.sampled_from([1, 3]), st.integers(2, 256), st.integers(1, 4)),
    st.builds(Categorical, st.integers(2, 256)),
)
FAMILIES = [LogisticMixture(1, 5, 3), LogisticMixture(3, 4, 3), Categorical(6)]


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
    """Law: the upper edge of a level is the lower edge of the next, to the last bit, however small the scale."""
    edges = (2 * torch.arange(1, levels, dtype=torch.float64) - levels) / (levels - 1)
    for log_scale in (-30.0, -20.0, -10.0, 0.0, 10.0):
        params = torch.stack([torch.zeros_like(edges), edges, torch.full_like(edges, log_scale)])[None]
        pmf = LogisticMixture(1, levels, 1).pmf(params, torch.zeros(1, 1, levels - 1, dtype=torch.int64), 0)
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
def test_float32_is_finite_everywhere(channels: int, levels: int) -> None:
    """Law: log_prob and its gradients are finite in float32 for every level at log-scales from -30 to 10."""
    family = LogisticMixture(channels, levels, 2)
    log_scales = torch.linspace(-30, 10, 21)
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


@pytest.mark.parametrize("log_scale", [-9.0, -7.0, -3.0, 0.0, 4.0])
@pytest.mark.parametrize("mean", [-20.0, -0.7, 0.001, 1.3])
def test_masses_are_exact_in_the_tails(mean: float, log_scale: float) -> None:
    """Law: log_prob is log(sigmoid(a) - sigmoid(b)), as fifty digits of arithmetic give it, however small the mass."""
    levels = 9
    log_prob = LogisticMixture(1, levels, 1).log_prob(
        one_component(mean, log_scale).expand(-1, -1, levels), torch.arange(levels).view(1, 1, -1)
    )
    with localcontext() as arithmetic:
        arithmetic.prec = 50

        def tail(position: int, side: int) -> Decimal:
            edge = Decimal(position) / (levels - 1) - Decimal(mean)
            return 1 / (1 + (-side * edge / Decimal(log_scale).exp()).exp())

        def mass(level: int) -> Decimal:
            side = 1 if (2 * level - levels + 1) / (levels - 1) < mean else -1  # the side that does not cancel
            below = Decimal(side < 0) if level == 0 else tail(2 * level - levels, side)
            above = Decimal(side > 0) if level == levels - 1 else tail(2 * level + 2 - levels, side)
            return abs(above - below)

        exact = torch.tensor([float(mass(level).ln()) for level in range(levels)], dtype=torch.float64)
    torch.testing.assert_close(log_prob[0], exact, rtol=1e-9, atol=1e-9)


def pixelcnn_plus_plus(params: list[float], pixel: list[int]) -> float:
    """Log-probability of one RGB pixel from 100 numbers, written out from the paper: no array in sight."""
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


def test_layout_and_value_are_those_of_pixelcnn_plus_plus() -> None:
    """Law: RGB with ten components takes 100 values a pixel and gives what PixelCNN++ gives, edge levels included."""
    family = LogisticMixture(3, 256)
    assert family.num_params == 100
    x = torch.cat([random_pixels(family, 20, 4), torch.tensor([[0, 255, 0], [255, 0, 255], [0, 0, 255]]).T[None]], 2)
    params = random_params(family, x.shape[2], 4, log_scales=(-2, 0))
    log_prob = family.log_prob(params, x)
    for n in range(x.shape[2]):
        expected = pixelcnn_plus_plus(params[0, :, n].tolist(), x[0, :, n].tolist())
        assert float(log_prob[0, n]) == pytest.approx(expected, rel=1e-9)


@given(families, st.integers(0, 2**31))
def test_sizes_of_parameters_and_noise(family: Likelihood, seed: int) -> None:
    """Law: a pixel takes (1 + 2 C) K values, 10 K for RGB, L for a softmax; and one draw 1 + C uniform numbers."""
    if isinstance(family, LogisticMixture):
        assert family.num_params == family.components * {1: 3, 3: 10}[family.channels]
    else:
        assert family.num_params == family.levels
    assert family.num_noise == 1 + family.channels
    assert family.sample(random_params(family, 4, seed), uniform(family, 4)).shape == (1, family.channels, 4)


@given(families, st.integers(0, 2**31))
def test_a_canvas_is_its_pixels(family: Likelihood, seed: int) -> None:
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


def test_map_of_rgb_shifts_the_modes_by_the_modes_before() -> None:
    """Law: a MAP draw of green is its mean given the integer red, and of blue its mean given both."""
    family = LogisticMixture(3, 256, 1)
    params = random_params(family, 50, 7, spread=0.3)
    drawn = family.sample(params, uniform(family, 50), map=True)
    values = scale_levels(drawn, 256, torch.float64)
    _, red, _, c0, green, _, c1, blue, _, c2 = params.unbind(1)
    means = [red, green + c0.tanh() * values[:, 0], blue + c1.tanh() * values[:, 0] + c2.tanh() * values[:, 1]]
    for channel, mean in enumerate(means):
        assert ((values[:, channel] - mean.clamp(-1, 1)).abs() <= 1 / 255 + 1e-12).all()


@given(families, st.floats(-3, 3), st.integers(0, 2**31))
def test_scale_shift_is_added_to_the_log_scales(family: Likelihood, shift: float, seed: int) -> None:
    """Law: a shift gives the draws of parameters with shifted log-scales; a softmax, which has none, stays."""
    params, noise = random_params(family, 50, seed), uniform(family, 50, seed)
    shifted = params.clone()
    if isinstance(family, LogisticMixture):
        K = family.components
        shifted[:, K:].view(1, family.channels, -1, 50)[:, :, K : 2 * K] += shift
    assert torch.equal(family.sample(params, noise, scale_shift=shift), family.sample(shifted, noise))


def test_less_scale_is_less_variance() -> None:
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
    """Law: noise of 0, and of the largest number below 1, draws a level in range at any scale, even none at all."""
    ends = torch.tensor([0.0, 1 - 2**-24]).expand(1, family.num_noise, 2)
    for log_scale in (-1000.0, -30.0, 0.0, 10.0):
        params = random_params(family, 2, 9, log_scales=(log_scale, log_scale + 1e-3)).float()
        drawn = family.sample(params, ends)
        assert ((drawn >= 0) & (drawn < family.levels)).all()


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_half_precision_ends_here(family: Likelihood) -> None:
    """Law: bfloat16 parameters give float32 likelihoods, those of the same numbers in float32; float64 stays."""
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
def test_images_of_bytes_score_as_integers(family: Likelihood) -> None:
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
    ],
)
def test_a_mixture_refuses_what_it_cannot_be(arguments: tuple, message: str) -> None:
    """Law: an error quotes the argument and its value."""
    with pytest.raises(ValueError, match=message):
        LogisticMixture(*arguments)


@pytest.mark.parametrize("levels", [1, 0, -2, 2.5, "4", None])
def test_a_softmax_refuses_what_it_cannot_be(levels: object) -> None:
    """Law: an error quotes the argument and its value."""
    with pytest.raises(ValueError, match=f"levels={levels!r}"):
        Categorical(levels)  # pyright: ignore[reportArgumentType]


def test_parameters_of_another_family_are_refused() -> None:
    """Law: a mixture says how many parameters it takes."""
    with pytest.raises(ValueError, match=r"\(1, 99, 4\).*100"):
        LogisticMixture(3, 256).log_prob(torch.zeros(1, 99, 4), torch.zeros(1, 3, 4, dtype=torch.int64))


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", None, True])
def test_check_whole_wants_whole_numbers(value: object) -> None:
    """Law: everything but a whole number that is large enough is refused by its name and value, and no other is."""
    check_whole(first=1, second=7)
    check_whole(at_least=0, zero=0)
    with pytest.raises(ValueError, match=f"second={value!r}"):
        check_whole(first=1, second=value)
