"""Laws of sampling: draws follow the model, belong to their seed and position, and have their given views."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Scramble, all_views, assert_follows
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pixelcnn.auxiliary.base import Auxiliary
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.common.kernel import using_processor
from pixelcnn.models.draw import DrawOptions, draw_view, position_noise
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.sampling import colorize, complete, sample, sample_views, upscale
from pixelcnn.traversal.schedule import Schedule

TINY: dict[str, Any] = {"components": 2, "filters": 2, "blocks": 1, "scales": 1, "embedding_blocks": 1}


def tiny(scramble: Scramble, *arguments: Any, **options: Any) -> ImageModel:
    torch.manual_seed(0)
    model = ImageModel(*arguments, **(TINY | options))
    scramble(model, 1)
    return model


CHAINS: list[list[Auxiliary]] = [[], [Downsample(2)], [Downsample(2), QuantizedGrayscale(2)]]
CONSISTENT: list[list[Auxiliary]] = [
    [Downsample(2)],
    [Downsample(3)],
    [QuantizedGrayscale(1)],
    [Downsample(2), QuantizedGrayscale(2)],
    [QuantizedGrayscale(2), Downsample(2), Downsample(2)],
]


@pytest.mark.parametrize("chain", CHAINS, ids=str)
@pytest.mark.parametrize("scales", [1, 2])
def test_an_image_belongs_to_its_seed(scramble: Scramble, chain: list[Auxiliary], scales: int) -> None:
    """Law: image i of seed s is image 0 of seed s + i, alone or in a batch, with all its views."""
    model = tiny(scramble, 3, 256, chain, scales=scales)
    together = all_views(model, 3, (4, 7), seed=5)
    for i in range(3):
        alone = all_views(model, 1, (4, 7), seed=5 + i)
        assert all(torch.equal(a[0], t[i]) for a, t in zip(alone, together, strict=True))
    assert all(torch.equal(a, t) for a, t in zip(all_views(model, 3, (4, 7), seed=5), together, strict=True))


def test_each_image_of_a_batch_has_its_own_seed(scramble: Scramble) -> None:
    """Law: image i is that of the i-th seed, in any order and more than once; there is one for each image."""
    model = tiny(scramble, 3, 16, [Downsample(2)])
    together = all_views(model, 3, 5, seed=[9, 4, 9])
    for i, seed in enumerate((9, 4, 9)):
        alone = all_views(model, 1, 5, seed=seed)
        assert all(torch.equal(a[0], t[i]) for a, t in zip(alone, together, strict=True))
    with pytest.raises(ValueError, match="one for each of 3 images"):
        sample(model, 3, 5, seed=[1, 2])
    with pytest.raises(ValueError, match="seed=-1"):
        sample(model, 2, 5, seed=[1, -1])


def test_different_seeds_give_different_images(scramble: Scramble) -> None:
    """Law: no two seeds, small or large, give the same image or the same view."""
    model = tiny(scramble, 1, 256, [Downsample(2)])
    seeds = [*range(20), 1000, 2**16, 2**20, 2**30, 2**31 - 1]
    for k in range(2):
        images = {tuple(all_views(model, 1, 6, seed=seed)[k].flatten().tolist()) for seed in seeds}
        assert len(images) == len(seeds)


def test_every_image_and_factor_has_its_own_noise(scramble: Scramble) -> None:
    """Law: no number of the noise is shared by two images, factors, channels or positions."""
    factor = tiny(scramble, 3, 256).factors[0]
    noise = torch.stack([position_noise(factor, (3, 4), range(10, 15), index) for index in range(5)])
    assert noise.shape == (5, 5, 6, 3, 4)
    assert ((noise >= 0) & (noise < 1)).all()
    assert len(noise.unique()) > 0.99 * noise.numel()
    assert torch.equal(position_noise(factor, (3, 4), range(12, 13), 2), noise[2, 2:3])


@given(
    st.sampled_from(CHAINS),
    st.tuples(st.integers(1, 9), st.integers(1, 13)),
    st.sampled_from([1, 3]),
    st.integers(1, 3),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
)
def test_every_schedule_draws_the_same_image(
    scramble: Scramble,
    chain: list[Auxiliary],
    size: tuple[int, int],
    channels: int,
    scales: int,
    dtype: torch.dtype,
    consistent: bool,
) -> None:
    """Law: naive, raster and wavefront draw the same image from the same seed, alone and in a batch."""
    chain = chain if channels == 3 else []
    model = tiny(scramble, channels, 256, chain, scales=scales, consistent=consistent).to(dtype)
    naive = all_views(model, 2, size, seed=3, options=DrawOptions(schedule="naive"))
    for schedule in ("raster", "auto"):
        assert all(
            torch.equal(a, b)
            for a, b in zip(
                all_views(model, 2, size, seed=3, options=DrawOptions(schedule=schedule)), naive, strict=True
            )
        )
    alone = all_views(model, 1, size, seed=4)
    assert all(torch.equal(a[0], b[1]) for a, b in zip(alone, naive, strict=True))


@given(
    st.sampled_from(CONSISTENT),
    st.tuples(st.integers(1, 7), st.integers(1, 11)),
    st.sampled_from([1, 3]),
    st.sampled_from([4, 16, 256, 300]),
    st.integers(1, 3),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
)
def test_consistent_images_have_their_given_views(
    scramble: Scramble,
    chain: list[Auxiliary],
    size: tuple[int, int],
    channels: int,
    levels: int,
    scales: int,
    dtype: torch.dtype,
    map: bool,
) -> None:
    """Law: the views of a drawn image are those drawn before it, for any chain, size and precision.

    With every schedule, both in a batch and alone.
    """
    model = tiny(scramble, channels, levels, chain, scales=scales).to(dtype)
    views = all_views(model, 2, size, seed=3, options=DrawOptions(map=map))
    assert all(torch.equal(a, b) for a, b in zip(model.views(views[0]), views, strict=True))
    assert model.log_prob(views[0]).isfinite().all()
    schedules: tuple[Schedule, ...] = "naive", "raster"
    for schedule in schedules:
        again = all_views(model, 2, size, seed=3, options=DrawOptions(map=map, schedule=schedule))
        assert all(torch.equal(a, b) for a, b in zip(again, views, strict=True))
    alone = all_views(model, 1, size, seed=4, options=DrawOptions(map=map))
    assert all(torch.equal(a[0], b[1]) for a, b in zip(alone, views, strict=True))


def test_free_images_have_other_views(scramble: Scramble) -> None:
    """Law: without consistency a view is only a hint, so the law above can fail."""
    model = tiny(scramble, 3, 256, [Downsample(2)], consistent=False)
    views = all_views(model, 2, (4, 6))
    assert not torch.equal(model.views(views[0])[1], views[1])


def test_bfloat16_keeps_the_views(scramble: Scramble) -> None:
    """Law: half precision changes the draws, but they still have their views."""
    model = tiny(scramble, 3, 256, [Downsample(2), QuantizedGrayscale(2)]).float()
    views = all_views(model, 2, (5, 12), options=DrawOptions(dtype=torch.bfloat16))
    assert all(torch.equal(a, b) for a, b in zip(model.views(views[0]), views, strict=True))


def test_views_come_as_they_are_finished(scramble: Scramble) -> None:
    """Law: the simplest view comes first; a callback sees every canvas fill up."""
    model = tiny(scramble, 3, 256, [Downsample(2)])
    seen: list[tuple[int, int]] = []
    views = dict(
        sample_views(model, 2, (4, 6), options=DrawOptions(callback=lambda k, x: seen.append((k, x.shape[3]))))
    )
    assert list(views) == [1, 0]
    assert all(torch.equal(views[k], x) for k, x in enumerate(all_views(model, 2, (4, 6))))
    assert seen == [(1, 3)] * 6 + [(0, 6)] * (6 + 4 * 3)


@pytest.mark.parametrize("processor", ["best", None])
def test_bfloat16_draws_images(scramble: Scramble, processor: str | None) -> None:
    """Law: images can be drawn in bfloat16; in raster order, they are close to the others but not the same."""
    model = tiny(scramble, 3, 256, [Downsample(2)], filters=6).float()
    with using_processor(processor):
        full, half = (
            all_views(model, 2, (8, 12), options=DrawOptions(dtype=dtype, schedule="raster"))[1].float()
            for dtype in (None, torch.bfloat16)
        )
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
    views = all_views(model, 2, size, seed=seed)
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
    assert torch.equal(sample(model, 2, 4), sample(model, 2, (4, 4), seed=0))


def test_a_view_is_drawn_given_the_view_that_was_drawn(scramble: Scramble) -> None:
    """Law: factor k draws x_k given the x_{k+1} that is returned, and not given some other view."""
    model = tiny(scramble, 3, 16, [Downsample(2), QuantizedGrayscale(2)])
    views = all_views(model, 3, (5, 6), seed=2)
    for k, factor in enumerate(model.factors):
        auxiliary = None if k == 2 else views[k + 1]
        noise = position_noise(factor, model.sizes((5, 6))[k], range(2, 5), k)
        again = draw_view(factor, noise, auxiliary, options=DrawOptions(consistent=True))
        assert torch.equal(again, views[k])
    noise = position_noise(model.factors[0], (5, 6), range(2, 5))
    other = draw_view(model.factors[0], noise, 15 - views[1], options=DrawOptions(consistent=True))
    assert not torch.equal(other, views[0])


@pytest.mark.parametrize("chain", [[], [Downsample(2)], [QuantizedGrayscale(1)]], ids=str)
@pytest.mark.parametrize("scales", [1, 2])
def test_the_draws_follow_the_joint(scramble: Scramble, chain: list[Auxiliary], scales: int) -> None:
    """Law: each pair of views of 2x2 two-level images is drawn as often as the product of free factors says."""
    model = tiny(scramble, 1, 2, chain, scales=scales, consistent=False)
    every = [torch.cartesian_prod(*[torch.arange(2)] * (h * w)).view(-1, 1, h, w) for h, w in model.sizes((2, 2))]
    with torch.no_grad():
        joint = model.factors[-1](every[-1]).exp()
        if chain:
            given_view = [model.factors[0](every[0], v.expand(16, -1, -1, -1)).exp() for v in every[1]]
            joint = joint[:, None] * torch.stack(given_view)
    codes = torch.zeros(3000, dtype=torch.int64)
    for view in reversed(all_views(model, 3000, 2)):
        codes = codes * 2 ** view[0].numel() + code(view, 2)
    assert (joint > 0.002).sum() > 8
    assert_follows(torch.bincount(codes, minlength=joint.numel()), joint.flatten())


def code(x: Tensor, levels: int) -> Tensor:
    """(B,): the place of each image among all images of its size."""
    digits = x.flatten(1).to(torch.int64)
    return (digits * levels ** torch.arange(digits.shape[1] - 1, -1, -1)).sum(1)


@pytest.mark.parametrize("chain", CONSISTENT, ids=str)
@pytest.mark.parametrize(("channels", "size", "scales"), [(1, (2, 2), 1), (3, (1, 2), 2)])
def test_consistent_draws_follow_log_prob(
    scramble: Scramble, chain: list[Auxiliary], channels: int, size: tuple[int, int], scales: int
) -> None:
    """Law: each image is drawn with its probability, also by `complete` if all of it is unknown."""
    levels = 4
    model = tiny(scramble, channels, levels, chain, scales=scales)
    x = torch.cartesian_prod(*[torch.arange(levels)] * (channels * math.prod(size))).view(-1, channels, *size)
    with torch.no_grad():
        probabilities = model.log_prob(x).exp()
    nothing, everything = torch.zeros(3000, channels, *size, dtype=torch.int64), torch.ones(size, dtype=torch.bool)
    assert (probabilities > 0.002).sum() > 8
    for drawn in (sample(model, 3000, size), complete(model, nothing, everything, seed=5000)):
        assert_follows(torch.bincount(code(drawn, levels), minlength=len(x)), probabilities)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scales", [1, 2])
def test_the_draws_are_typical(scramble: Scramble, channels: int, scales: int) -> None:
    """Law: the mean log-probability of draws is minus the mean entropy of their pixels, to four standard errors.

    The entropy is added up while drawing, from the distributions that the pixels are drawn from.
    """
    model = tiny(scramble, channels, 64, scales=scales)
    factor, n, size = model.factors[0], 3000, (3, 6)
    noise = position_noise(factor, size, range(7, 7 + n))
    entropy = torch.zeros(n, dtype=torch.float64)

    def draw(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        x = factor.likelihood.sample(params, noise[:, :, rows, cols])
        for channel in range(channels):
            pmf = factor.likelihood.pmf(params, x, channel)
            entropy.sub_(torch.xlogy(pmf, pmf).sum((1, 2)))
        return x

    x = factor.traverse(torch.zeros(n, channels, *size, dtype=torch.uint8), draw)
    assert torch.equal(x, sample(model, n, size, seed=7))
    with torch.no_grad():
        surplus = model.log_prob(x) + entropy
    assert float(entropy.mean()) > 10
    assert abs(float(surplus.mean())) < 4 * float(surplus.std()) / math.sqrt(n)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_single_pixel_is_drawn_from_its_distribution(scramble: Scramble, channels: int) -> None:
    """Law: the first pixel of many images has the levels of its pmf, by a chi-squared test for every channel."""
    model = tiny(scramble, channels, 8)
    likelihood, n = model.factors[0].likelihood, 4000
    x = sample(model, n, (1, 1)).to(torch.int64)
    with torch.no_grad():
        params = model.factors[0].network(x)
    for channel in range(channels):
        expected = likelihood.pmf(params, x, channel).sum((0, 2, 3))  # given the channels before, so summed over images
        counts = torch.bincount(x[:, channel].flatten(), minlength=8)
        assert (expected >= 5).sum() > 2
        assert_follows(counts, expected)


def test_map_of_one_component_is_deterministic(scramble: Scramble) -> None:
    """Law: with one component the mode is the same for every seed, and a tiny scale draws it too."""
    model = tiny(scramble, 3, 256, components=1)
    modes = sample(model, 4, (3, 5), options=DrawOptions(map=True))
    assert torch.equal(modes, modes[:1].expand(4, -1, -1, -1))
    assert torch.equal(sample(model, 4, (3, 5), options=DrawOptions(scale_shift=-30.0)), modes)
    drawn = sample(model, 4, (3, 5))
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn, modes)


def test_scale_shift_and_map_reach_every_factor(scramble: Scramble) -> None:
    """Law: a shift and MAP change the image and its mixture views; a shift of 0 changes nothing."""
    model = tiny(scramble, 3, 256, [Downsample(2)])
    drawn = all_views(model, 2, (4, 4))
    choices: list[dict[str, Any]] = [{"scale_shift": -1.0}, {"map": True}]
    for options in choices:
        changed = all_views(model, 2, (4, 4), options=DrawOptions(**options))
        assert not any(torch.equal(a, b) for a, b in zip(changed, drawn, strict=True))
        assert torch.equal(model.sample(2, (4, 4), options=DrawOptions(**options)), changed[0])
    assert all(
        torch.equal(a, b)
        for a, b in zip(all_views(model, 2, (4, 4), options=DrawOptions(scale_shift=0.0)), drawn, strict=True)
    )


def test_an_image_is_drawn_given_its_label(scramble: Scramble) -> None:
    """Law: image i follows label i, which changes every view, in a batch as alone."""
    model = tiny(scramble, 3, 256, [Downsample(2)], classes=3)
    labels = torch.tensor([2, 0, 1])
    views = all_views(model, 3, (4, 4), labels=labels)
    assert torch.equal(model.sample(3, (4, 4), labels=labels), views[0])
    for i in range(3):
        alone = all_views(model, 1, (4, 4), seed=i, labels=labels[i : i + 1])
        other = all_views(model, 1, (4, 4), seed=i, labels=(labels[i : i + 1] + 1) % 3)
        for view, a, o in zip(views, alone, other, strict=True):
            assert torch.equal(a[0], view[i])
            assert not torch.equal(o[0], view[i])


def test_a_model_in_training_samples_without_dropout(scramble: Scramble) -> None:
    """Law: the mode of the model does not matter and does not change, and neither does the random state of torch."""
    model = tiny(scramble, 3, 256)
    drawn = sample(model, 2, 4)
    model.train()
    state = torch.get_rng_state()
    assert torch.equal(sample(model, 2, 4), drawn)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert torch.equal(sample(model, 2, 4), drawn)


def test_the_progress_bar_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Law: progress goes to standard error, and only when it is asked for."""
    model = ImageModel(1, 4, **TINY)
    sample(model, 1, 2)
    assert capsys.readouterr() == ("", "")
    sample(model, 1, 2, options=DrawOptions(progress=True))
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
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    """Law: an error quotes the argument and its value."""
    defaults: dict[str, Any] = {"size": 2}
    with pytest.raises(ValueError, match=message):
        sample(ImageModel(1, 4, **TINY), **(defaults | arguments))


@pytest.mark.parametrize("labels", [None, torch.tensor([0]), torch.tensor([0, 3]), torch.tensor([[0], [1]])])
def test_labels_must_fit_the_model_and_the_number(labels: Tensor | None) -> None:
    """Law: a model with classes needs one label in range for each image that it draws."""
    with pytest.raises(ValueError, match="labels="):
        sample(ImageModel(1, 4, **TINY, classes=3), 2, 2, labels=labels)


def images(channels: int, size: tuple[int, int], levels: int = 256, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(levels, (batch, channels, *size), generator=generator).to(torch.uint8)


def test_a_given_view_is_not_drawn(scramble: Scramble) -> None:
    """Law: given x_k, only the views before it are drawn, just as they are when x_k itself is drawn."""
    model = tiny(scramble, 3, 256, [Downsample(2), QuantizedGrayscale(2)])
    views = all_views(model, 2, (5, 7), seed=1)
    for k in (1, 2):
        again = all_views(model, 2, (5, 7), seed=1, given=(k, views[k]))
        assert len(again) == k
        assert all(torch.equal(a, b) for a, b in zip(again, views, strict=False))


image_sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))
choices = st.fixed_dictionaries(
    {}, optional={"map": st.just(True), "scale_shift": st.just(-1.0), "schedule": st.just("raster")}
)


@given(
    st.sampled_from([[QuantizedGrayscale(4)], [QuantizedGrayscale(1)], [QuantizedGrayscale(3), Downsample(2)]]),
    image_sizes,
    st.sampled_from([1, 3]),
    st.sampled_from([16, 256]),
    st.booleans(),
    choices,
)
def test_colors_keep_the_gray_view(
    scramble: Scramble,
    chain: list[Auxiliary],
    size: tuple[int, int],
    channels: int,
    levels: int,
    consistent: bool,
    options: dict[str, Any],
) -> None:
    """Law: the gray view of a colorized image is that of the input, gray or color, even with a free model."""
    model = tiny(scramble, 3, levels, chain, consistent=consistent).float()
    x = images(channels, size, levels)
    drawn = colorize(model, x, seed=3, options=DrawOptions(**options))
    assert drawn.shape == (2, 3, *size)
    assert drawn.dtype == torch.uint8
    assert torch.equal(chain[0](drawn, levels), chain[0](x, levels))
    assert model.consistent == consistent
    assert torch.equal(colorize(model, x[1:], seed=4, options=DrawOptions(**options))[0], drawn[1])
    assert torch.equal(
        colorize(model, drawn, seed=3, options=DrawOptions(**options)), drawn
    )  # only the gray view of the input matters


@given(
    st.sampled_from([[Downsample(2)] * 2, [Downsample(3), Downsample(2)], [Downsample(2), QuantizedGrayscale(4)]]),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.sampled_from([1, 3]),
    st.booleans(),
    choices,
)
def test_larger_images_keep_the_smaller_view(
    scramble: Scramble,
    chain: list[Auxiliary],
    size: tuple[int, int],
    channels: int,
    consistent: bool,
    options: dict[str, Any],
) -> None:
    """Law: the views of an enlarged image are the input and the views between, even with a free model."""
    model = tiny(scramble, channels, 256, chain, consistent=consistent).float()
    x, factor = images(channels, size), 1
    for k, auxiliary in enumerate(chain, 1):
        if isinstance(auxiliary, Downsample):
            factor *= auxiliary.factor
            drawn = upscale(model, x, factor, seed=3, options=DrawOptions(**options))
            assert drawn.shape == (2, channels, factor * size[0], factor * size[1])
            assert torch.equal(model.views(drawn)[k], x)
            assert torch.equal(upscale(model, x[1:], factor, seed=4, options=DrawOptions(**options))[0], drawn[1])
    assert model.consistent == consistent


def test_images_larger_than_the_receptive_field(scramble: Scramble) -> None:
    """Law: images far larger than the receptive field, of odd sizes, can be enlarged, colorized and completed."""
    pyramid = tiny(scramble, 3, 256, [Downsample(2)]).float()
    x = images(3, (17, 29), batch=1)
    assert torch.equal(pyramid.views(upscale(pyramid, x))[1], x)
    unknown = torch.zeros(17, 29, dtype=torch.bool)
    unknown[3:16, 5:28] = True
    assert torch.equal(complete(pyramid, x, unknown)[..., ~unknown], x[..., ~unknown])
    gray = tiny(scramble, 3, 256, [QuantizedGrayscale(4)]).float()
    assert torch.equal(gray.views(colorize(gray, x))[1], gray.views(x)[1])


@given(
    st.sampled_from([[], *CONSISTENT]),
    image_sizes,
    st.sampled_from([1, 3]),
    st.sampled_from([4, 256]),
    st.floats(0, 1),
    st.booleans(),
    st.booleans(),
    choices,
)
def test_known_pixels_stay(
    scramble: Scramble,
    chain: list[Auxiliary],
    size: tuple[int, int],
    channels: int,
    levels: int,
    share: float,
    one_mask: bool,
    consistent: bool,
    options: dict[str, Any],
) -> None:
    """Law: known pixels stay, the values of unknown ones do not matter, and the views drawn are those of the result.

    Even if a pixel of a view is made from both known and unknown ones.
    """
    model = tiny(scramble, channels, levels, chain, consistent=consistent).float()
    x = images(channels, size, levels)
    unknown = torch.rand(size if one_mask else (2, *size), generator=torch.Generator().manual_seed(1)) <= share
    unknown[..., -1, 0] = True
    views: dict[int, Tensor] = {}
    drawn = complete(
        model, x, unknown, seed=3, options=DrawOptions(callback=lambda k, x: views.update({k: x}), **options)
    )
    known = ~unknown.expand(2, *size)[:, None].expand_as(x)
    assert drawn.dtype == torch.uint8
    assert torch.equal(drawn[known], x[known])
    assert all(torch.equal(views[k], view) for k, view in enumerate(model.views(drawn)))
    assert model.consistent == consistent
    other = torch.where(known, x, levels - 1 - x)
    assert torch.equal(complete(model, other, unknown, seed=3, options=DrawOptions(**options)), drawn)
    mask = unknown if one_mask else unknown[1:]
    assert torch.equal(complete(model, x[1:], mask, seed=4, options=DrawOptions(**options))[0], drawn[1])


@given(st.sampled_from([[], *CONSISTENT]), image_sizes, st.integers(2, 4), choices)
def test_candidates_keep_known_pixels(
    scramble: Scramble, chain: list[Auxiliary], size: tuple[int, int], candidates: int, options: dict[str, Any]
) -> None:
    """Law: known pixels stay however many candidates there are, and an image belongs to its seed."""
    model = tiny(scramble, 3, 256, chain).float()
    x = images(3, size)
    unknown = torch.rand(size, generator=torch.Generator().manual_seed(2)) < 0.5
    unknown[-1, 0] = True
    drawn = complete(model, x, unknown, seed=3, candidates=candidates, options=DrawOptions(**options))
    assert torch.equal(drawn[..., ~unknown], x[..., ~unknown])
    alone = complete(model, x[1:], unknown, seed=4, candidates=candidates, options=DrawOptions(**options))
    assert torch.equal(alone[0], drawn[1])


def last_pixels(channels: int, levels: int) -> tuple[Tensor, Tensor]:
    """All 2x2 images with the same first three pixels, (levels ** C, C, 2, 2), and the mask of their last one."""
    values = torch.cartesian_prod(*[torch.arange(levels)] * channels).view(-1, channels)
    x = images(channels, (2, 2), levels, 1).to(torch.int64).repeat(len(values), 1, 1, 1)
    x[:, :, -1, -1] = values
    return x, torch.tensor([[False, False], [False, True]])


@pytest.mark.parametrize(("channels", "levels"), [(1, 8), (1, 20), (3, 3)])
def test_the_last_pixel_follows_the_conditional(scramble: Scramble, channels: int, levels: int) -> None:
    """Law: without views, and where all pixels before it are known, a pixel is drawn from p(x) / p(all but it)."""
    model = tiny(scramble, channels, levels)
    x, unknown = last_pixels(channels, levels)
    with torch.no_grad():
        probabilities = model.log_prob(x).softmax(0)
    drawn = complete(model, x[:1].expand(3000, -1, -1, -1), unknown)[:, :, -1, -1]
    assert (probabilities > 0.002).sum() > 4
    assert_follows(torch.bincount(code(drawn, levels), minlength=len(x)), probabilities)


@pytest.mark.parametrize(
    ("chain", "row", "channels", "levels"),
    [
        ([Downsample(2)], 0, 1, 8),
        pytest.param([Downsample(2)], 1, 3, 3, marks=pytest.mark.slow),
        ([QuantizedGrayscale(1)], 0, 1, 8),
        pytest.param([Downsample(2), QuantizedGrayscale(1)], 1, 3, 3, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_many_candidates_follow_the_conditional(
    scramble: Scramble, chain: list[Auxiliary], row: int, channels: int, levels: int
) -> None:
    """Law: with views, and with known pixels after the unknown one, the choice among many candidates follows p(x)."""
    model = tiny(scramble, channels, levels, chain)
    x, unknown = last_pixels(channels, levels)
    if row == 0:
        x, unknown = x.flip(2), unknown.flip(0)
    with torch.no_grad():
        probabilities = model.log_prob(x).softmax(0)
    assert (probabilities > 0.002).sum() > 4
    draws, candidates = (1000, 60) if channels == 1 else (200, 500)  # before other pixels, colors need many
    drawn = complete(model, x[:1].expand(draws, -1, -1, -1), unknown, candidates=candidates)
    assert_follows(torch.bincount(code(drawn[:, :, row, -1], levels), minlength=len(x)), probabilities)


def test_a_failure_leaves_the_model_as_it_was(scramble: Scramble) -> None:
    """Law: a free model is still free after a failure."""
    model = tiny(scramble, 3, 256, [Downsample(2)], consistent=False)
    with torch.no_grad():
        model.factors[0].network.last.bias[0] = math.inf
    with pytest.raises(FloatingPointError, match="factor 0"):
        upscale(model, images(3, (2, 2)))
    assert not model.consistent


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (lambda model: colorize(model, images(2, (4, 4))), r"x of shape \(2, 2, 4, 4\)"),
        (lambda model: colorize(model, images(2, (4, 4))[0]), r"x of shape \(2, 4, 4\)"),
        (lambda model: upscale(model, images(3, (2, 2))), "factor=2: this model has no smaller view"),
        (lambda model: complete(model, images(1, (4, 4)), torch.ones(4, 4) > 0), r"x of shape \(2, 1, 4, 4\)"),
        (lambda model: complete(model, images(3, (4, 4)), torch.ones(4, 5) > 0), r"mask of shape \(4, 5\)"),
        (lambda model: complete(model, images(3, (4, 4)), torch.ones(3, 4, 4) > 0), r"mask of shape \(3, 4, 4\)"),
        (lambda model: complete(model, images(3, (4, 4)), torch.ones(4, 4)), r"type torch\.float32"),
        (lambda model: complete(model, images(3, (4, 4)), torch.zeros(4, 4) > 0), "no unknown pixel"),
        (lambda model: colorize(model, images(1, (4, 4)).float()), r"x of type torch\.float32"),
        (lambda model: colorize(model, images(1, (4, 4)).int() - 300), "x with values from -"),
        (lambda model: sample(model, 2, 4, given=(1, images(1, (4, 5)) % 16)), r"given of shape \(2, 1, 4, 5\)"),
        (lambda model: sample(model, 2, 4, given=(1, images(1, (4, 4)) // 16 + 16)), "given with values from"),
        (lambda model: sample(model, 2, 4, given=(2, images(1, (4, 4)) % 16)), "given=2"),
        (lambda model: sample(model, 2, 4, given=(0, images(3, (4, 4)))), "given=0"),
    ],
)  # fmt: skip
def test_what_a_gray_model_cannot_do_is_refused(task: Callable[[ImageModel], Any], message: str) -> None:
    """Law: images, masks and views of the wrong shape, and a smaller view that does not exist, are quoted."""
    with pytest.raises(ValueError, match=message):
        task(ImageModel(3, 256, [QuantizedGrayscale(4)], **TINY))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (lambda model: colorize(model, images(1, (4, 4))), "auxiliaries=.*use a Grayscale model"),
        (lambda model: complete(model, images(3, (2, 2)), ~torch.eye(2).bool(), candidates=0), "candidates=0"),
        (lambda model: upscale(model, images(3, (2, 2)), 8), "factor=8: use one of 2, 4$"),
        (lambda model: upscale(model, images(3, (2, 2)), 3), "factor=3: use one of 2, 4$"),
        (lambda model: upscale(model, images(1, (2, 2))), r"x of shape \(2, 1, 2, 2\)"),
        (lambda model: upscale(model, images(2, (2, 2))[0]), r"x of shape \(2, 2, 2\)"),
        (lambda model: upscale(model, images(3, (2, 2)).float()), r"x of type torch\.float32"),
        (lambda model: upscale(model, images(3, (2, 2)).int() + 256), "x with values from"),
    ],
)  # fmt: skip
def test_what_a_pyramid_cannot_do_is_refused(task: Callable[[ImageModel], Any], message: str) -> None:
    """Law: colors without a gray view, a factor beyond the model and images of the wrong channels are quoted."""
    with pytest.raises(ValueError, match=message):
        task(ImageModel(3, 256, [Downsample(2), Downsample(2), QuantizedGrayscale(4)], **TINY))


def test_a_gray_model_of_one_channel_has_no_colors() -> None:
    """Law: a model of one channel with a gray view cannot colorize."""
    with pytest.raises(ValueError, match="use a Grayscale model"):
        colorize(ImageModel(1, 256, [QuantizedGrayscale(4)], **TINY), images(1, (4, 4)))
