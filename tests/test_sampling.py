"""Laws of sampling: draws follow the model, and belong to their seed and position."""

import math
from typing import Any

import pytest
import torch
from conftest import Scramble
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from pixelcnn.auxiliary import Auxiliary, Downsample, QuantizedGrayscale
from pixelcnn.models import ImageModel
from pixelcnn.sampling import position_noise, sample, sample_factor, sample_views
from pixelcnn.traversal import traverse

TINY: dict[str, Any] = {"components": 2, "filters": 2, "blocks": 1, "scales": 1, "embedding_blocks": 1}
SIGNIFICANCE = 1e-3  # the seeds are fixed, so a test passes always or never


def tiny(scramble: Scramble, *arguments: Any, **options: Any) -> ImageModel:
    torch.manual_seed(0)
    model = ImageModel(*arguments, **(TINY | options))
    scramble(model, 1)
    return model


CHAINS: list[list[Auxiliary]] = [[], [Downsample(2)], [Downsample(2), QuantizedGrayscale(2)]]


@pytest.mark.parametrize("chain", CHAINS, ids=str)
@pytest.mark.parametrize("scales", [1, 2])
def test_an_image_belongs_to_its_seed(scramble: Scramble, chain: list[Auxiliary], scales: int) -> None:
    """Law: image i of seed s is image 0 of seed s + i, alone or in a batch, with all its views."""
    model = tiny(scramble, 3, 256, chain, scales=scales)
    together = sample(model, 3, (4, 7), seed=5)
    for i in range(3):
        alone = sample(model, 1, (4, 7), seed=5 + i)
        assert all(torch.equal(a[0], t[i]) for a, t in zip(alone, together, strict=True))
    assert all(torch.equal(a, t) for a, t in zip(sample(model, 3, (4, 7), seed=5), together, strict=True))


def test_another_seed_is_another_image(scramble: Scramble) -> None:
    """Law: no two seeds give the same image or the same view, small and large ones alike."""
    model = tiny(scramble, 1, 256, [Downsample(2)])
    seeds = [*range(20), 1000, 2**16, 2**20, 2**30, 2**31 - 1]
    for k in range(2):
        images = {tuple(sample(model, 1, 6, seed=seed)[k].flatten().tolist()) for seed in seeds}
        assert len(images) == len(seeds)


def test_every_image_and_factor_has_noise_of_its_own(scramble: Scramble) -> None:
    """Law: no number of the noise is shared by two images, factors, channels or positions."""
    likelihood = tiny(scramble, 3, 256).factors[0].likelihood
    noise = torch.stack([position_noise(likelihood, (3, 4), range(10, 15), factor) for factor in range(5)])
    assert noise.shape == (5, 5, 4, 3, 4)
    assert ((noise >= 0) & (noise < 1)).all()
    assert len(noise.unique()) > 0.99 * noise.numel()
    assert torch.equal(position_noise(likelihood, (3, 4), range(12, 13), 2), noise[2, 2:3])


@given(
    st.sampled_from(CHAINS),
    st.tuples(st.integers(1, 9), st.integers(1, 13)),
    st.sampled_from([1, 3]),
    st.integers(1, 3),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_every_schedule_draws_the_same_image(
    scramble: Scramble,
    chain: list[Auxiliary],
    size: tuple[int, int],
    channels: int,
    scales: int,
    dtype: torch.dtype,
) -> None:
    """Law: naive, raster and wavefront draw the same image from the same seed, alone and in a batch."""
    model = tiny(scramble, channels, 256, chain if channels == 3 else [], scales=scales).to(dtype)
    naive = sample(model, 2, size, seed=3, schedule="naive")
    for schedule in ("raster", "auto"):
        assert all(
            torch.equal(a, b) for a, b in zip(sample(model, 2, size, seed=3, schedule=schedule), naive, strict=True)
        )
    alone = sample(model, 1, size, seed=4)
    assert all(torch.equal(a[0], b[1]) for a, b in zip(alone, naive, strict=True))


def test_views_come_as_they_are_finished(scramble: Scramble) -> None:
    """Law: the simplest view comes first; a callback sees every canvas fill up."""
    model = tiny(scramble, 3, 256, [Downsample(2)])
    seen: list[tuple[int, int]] = []
    views = dict(sample_views(model, 2, (4, 6), callback=lambda k, x: seen.append((k, x.shape[3]))))
    assert list(views) == [1, 0]
    assert all(torch.equal(views[k], x) for k, x in enumerate(sample(model, 2, (4, 6))))
    assert seen == [(1, 3)] * 6 + [(0, 6)] * (6 + 4 * 3)


def test_bfloat16_draws_images(scramble: Scramble) -> None:
    """Law: images can be drawn in bfloat16; they are near the others but not the same."""
    model = tiny(scramble, 3, 256, [Downsample(2)], filters=6).float()
    full, half = (sample(model, 2, (8, 12), dtype=dtype)[1].float() for dtype in (None, torch.bfloat16))
    assert 0 < float((full - half).abs().mean()) < 20


def test_the_factor_with_broken_weights_is_named(scramble: Scramble) -> None:
    """Law: parameters that are not finite are an error that names the factor and the pixel."""
    model = tiny(scramble, 3, 256, [Downsample(2)])
    with torch.no_grad():
        model.factors[0].network.last.bias[0] = math.inf
    with pytest.raises(FloatingPointError, match=r"factor 0: .* row 0, column 0 of image 0"):
        sample(model, 2, 4)


@given(
    st.sampled_from(CHAINS),
    st.tuples(st.integers(1, 5), st.integers(1, 6)),
    st.sampled_from([1, 3]),
    st.sampled_from([4, 256, 300]),
    st.integers(0, 2**31 - 3),
)
def test_any_size_can_be_drawn(
    chain: list[Auxiliary], size: tuple[int, int], channels: int, levels: int, seed: int
) -> None:
    """Law: the views have their formats and sizes, are bytes up to 256 levels, and can be scored."""
    model = ImageModel(channels, levels, chain, **TINY)
    views = sample(model, 2, size, seed=seed)
    assert len(views) == len(chain) + 1
    for view, (c, view_levels), view_size in zip(views, model.formats, model.sizes(size), strict=True):
        assert view.shape == (2, c, *view_size)
        assert view.dtype == (torch.uint8 if view_levels <= 256 else torch.int64)
        assert 0 <= int(view.min()) <= int(view.max()) < view_levels
    assert model.log_prob(views[0]).isfinite().all()
    assert torch.equal(model.sample(2, size, seed=seed), views[0])


def test_one_number_is_a_square(scramble: Scramble) -> None:
    """Law: size 4 is (4, 4), and without a seed it is 0."""
    model = tiny(scramble, 3, 16)
    assert torch.equal(sample(model, 2, 4)[0], sample(model, 2, (4, 4), seed=0)[0])


def test_a_view_is_drawn_given_the_view_that_was_drawn(scramble: Scramble) -> None:
    """Law: factor k draws x_k given the drawn x_{k+1}, which is returned, and not given some other view."""
    model = tiny(scramble, 3, 16, [Downsample(2), QuantizedGrayscale(2)])
    views = sample(model, 3, (5, 6), seed=2)
    for k, factor in enumerate(model.factors):
        auxiliary = None if k == 2 else views[k + 1]
        again = sample_factor(factor, 3, model.sizes((5, 6))[k], seed=2, index=k, auxiliary=auxiliary)
        assert torch.equal(again, views[k])
    other = sample_factor(model.factors[0], 3, (5, 6), seed=2, index=0, auxiliary=15 - views[1])
    assert not torch.equal(other, views[0])


@pytest.mark.parametrize("chain", [[], [Downsample(2)], [QuantizedGrayscale(1)]], ids=str)
@pytest.mark.parametrize("scales", [1, 2])
def test_the_draws_follow_the_joint(scramble: Scramble, chain: list[Auxiliary], scales: int) -> None:
    """Law: each pair of views of 2x2 two-level images is drawn as often as the product of the factors says."""
    model = tiny(scramble, 1, 2, chain, scales=scales)
    n = 3000
    every = [torch.cartesian_prod(*[torch.arange(2)] * (h * w)).view(-1, 1, h, w) for h, w in model.sizes((2, 2))]
    with torch.no_grad():
        joint = model.factors[-1](every[-1]).exp()
        if chain:
            given_view = [model.factors[0](every[0], v.expand(16, -1, -1, -1)).exp() for v in every[1]]
            joint = joint[:, None] * torch.stack(given_view)
    codes = torch.zeros(n, dtype=torch.int64)
    for view in reversed(sample(model, n, 2)):
        for bit in view.flatten(1).to(torch.int64).T:
            codes = 2 * codes + bit
    counts, expected = torch.bincount(codes, minlength=joint.numel()), joint.flatten() * n
    rare = expected < 5
    observed = torch.cat([counts[~rare], counts[rare].sum()[None]])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None] + 1e-9])
    assert (~rare).sum() > 8
    assert chisquare(observed.numpy(), (expected / expected.sum() * n).numpy()).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scales", [1, 2])
def test_the_draws_are_typical(scramble: Scramble, channels: int, scales: int) -> None:
    """Law: the mean log-probability of draws is minus the mean entropy of their pixels, to three standard errors.

    The entropy is collected on the way, from the distributions that the pixels are drawn from.
    """
    model = tiny(scramble, channels, 64, scales=scales)
    factor, n, size = model.factors[0], 300, (3, 6)
    noise = position_noise(factor.likelihood, size, range(7, 7 + n), 0)
    entropy = torch.zeros(n, dtype=torch.float64)

    def draw(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        x = factor.likelihood.sample(params, noise[:, :, rows, cols])
        for channel in range(channels):
            pmf = factor.likelihood.pmf(params, x, channel)
            entropy.sub_(torch.xlogy(pmf, pmf).sum((1, 2)))
        return x

    x = traverse(factor, torch.zeros(n, channels, *size, dtype=torch.uint8), draw)
    assert torch.equal(x, sample(model, n, size, seed=7)[0])
    with torch.no_grad():
        surplus = model.log_prob(x) + entropy
    assert float(entropy.mean()) > 10
    assert abs(float(surplus.mean())) < 3 * float(surplus.std()) / math.sqrt(n)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_single_pixel_is_drawn_from_its_distribution(scramble: Scramble, channels: int) -> None:
    """Law: the first pixel of many images has the levels of its pmf, by a chi-squared test for every channel."""
    model = tiny(scramble, channels, 8)
    likelihood, n = model.factors[0].likelihood, 4000
    x = sample(model, n, (1, 1))[0].to(torch.int64)
    with torch.no_grad():
        params = model.factors[0].network(x)
    for channel in range(channels):
        expected = likelihood.pmf(params, x, channel).sum((0, 2, 3))  # given the channels before, so summed over images
        counts = torch.bincount(x[:, channel].flatten(), minlength=8)
        common = expected >= 5
        assert common.sum() > 2
        observed = torch.cat([counts[common], counts[~common].sum()[None]]).double()
        wanted = torch.cat([expected[common], expected[~common].sum()[None] + 1e-9])
        assert chisquare(observed.numpy(), (wanted / wanted.sum() * n).numpy()).pvalue > SIGNIFICANCE


def test_map_of_one_component_is_certain(scramble: Scramble) -> None:
    """Law: with one component the mode is the same for every seed, and no scale at all draws it too."""
    model = tiny(scramble, 3, 256, components=1)
    modes = sample(model, 4, (3, 5), map=True)[0]
    assert torch.equal(modes, modes[:1].expand(4, -1, -1, -1))
    assert torch.equal(sample(model, 4, (3, 5), scale_shift=-30.0)[0], modes)
    drawn = sample(model, 4, (3, 5))[0]
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn, modes)


def test_scale_shift_and_map_reach_every_factor(scramble: Scramble) -> None:
    """Law: a shift and MAP change the image and its mixture views; a shift of 0 changes nothing."""
    model = tiny(scramble, 3, 256, [Downsample(2)])
    drawn = sample(model, 2, (4, 4))
    choices: list[dict[str, Any]] = [{"scale_shift": -1.0}, {"map": True}]
    for options in choices:
        assert not any(torch.equal(a, b) for a, b in zip(sample(model, 2, (4, 4), **options), drawn, strict=True))
        assert torch.equal(model.sample(2, (4, 4), **options), sample(model, 2, (4, 4), **options)[0])
    assert all(torch.equal(a, b) for a, b in zip(sample(model, 2, (4, 4), scale_shift=0.0), drawn, strict=True))


def test_an_image_is_drawn_given_its_label(scramble: Scramble) -> None:
    """Law: image i follows label i, which changes every view, in a batch as alone."""
    model = tiny(scramble, 3, 256, [Downsample(2)], classes=3)
    labels = torch.tensor([2, 0, 1])
    views = sample(model, 3, (4, 4), labels=labels)
    assert torch.equal(model.sample(3, (4, 4), labels=labels), views[0])
    for i in range(3):
        alone = sample(model, 1, (4, 4), seed=i, labels=labels[i : i + 1])
        other = sample(model, 1, (4, 4), seed=i, labels=(labels[i : i + 1] + 1) % 3)
        for view, a, o in zip(views, alone, other, strict=True):
            assert torch.equal(a[0], view[i])
            assert not torch.equal(o[0], view[i])


def test_a_model_in_training_samples_without_dropout(scramble: Scramble) -> None:
    """Law: the mode of a model does not matter and does not change; torch's own random state neither."""
    model = tiny(scramble, 3, 256)
    drawn = sample(model, 2, 4)[0]
    model.train()
    state = torch.get_rng_state()
    assert torch.equal(sample(model, 2, 4)[0], drawn)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert torch.equal(sample(model, 2, 4)[0], drawn)


def test_the_progress_bar_keeps_out_of_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    """Law: progress goes to standard error, and only when it is asked for."""
    model = ImageModel(1, 4, **TINY)
    sample(model, 1, 2)
    assert capsys.readouterr() == ("", "")
    sample(model, 1, 2, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "sampling" in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n=0"),
        ({"n": 1.0}, "n=1.0"),
        ({"size": 0}, "=0"),
        ({"size": (3, 0)}, "=0"),
        ({"size": (-1, 3)}, "=-1"),
        ({"size": (2.5, 3)}, "=2.5"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 0.5}, "seed=0.5"),
        ({"labels": torch.tensor([0])}, "labels="),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: dict[str, Any], message: str) -> None:
    """Law: an error quotes the argument and its value."""
    defaults: dict[str, Any] = {"size": 2}
    with pytest.raises(ValueError, match=message):
        sample(ImageModel(1, 4, **TINY), **(defaults | arguments))


@pytest.mark.parametrize("labels", [None, torch.tensor([0]), torch.tensor([0, 3]), torch.tensor([[0], [1]])])
def test_labels_must_fit_the_model_and_the_number(labels: Tensor | None) -> None:
    """Law: a model with classes wants one label in range for each image that it draws."""
    with pytest.raises(ValueError, match="labels="):
        sample(ImageModel(1, 4, **TINY, classes=3), 2, 2, labels=labels)
