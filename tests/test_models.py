"""Laws of the models: every kind of chain is a probability distribution, and its factors add up."""

import json
import math
from collections.abc import Sequence
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
from pixelcnn.likelihoods.tabular import Categorical
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.presets import GrayscalePixelCNN, PixelCNN, PyramidPixelCNN
from pixelcnn.nn.causal import CausalNetwork
from pixelcnn.nn.layers import evaluating

CHAINS: list[list[Auxiliary]] = [
    [],
    [QuantizedGrayscale(1)],
    [Downsample(2)],
    [Downsample(2), QuantizedGrayscale(1)],
    [QuantizedGrayscale(1), Downsample(2)],
]
TINY: dict[str, Any] = {"components": 2, "filters": 2, "blocks": 1, "scales": 1}
TINY_EMBEDDING: dict[str, Any] = {"embedding_blocks": 1, "embedding_scales": 1}


def tiny(scramble: Scramble, *arguments: Any, seed: int = 0, **options: Any) -> ImageModel:
    """A model of two filters and one block, in float64, with random weights."""
    torch.manual_seed(seed)
    model = ImageModel(*arguments, **(TINY | TINY_EMBEDDING | options))
    scramble(model, seed)
    return model


def every_image(channels: int, levels: int, size: tuple[int, int]) -> Tensor:
    """(levels ** (C H W), C, H, W): all images of a format and size."""
    number = channels * size[0] * size[1]
    return torch.cartesian_prod(*[torch.arange(levels)] * number).view(-1, channels, *size)


def random_images(model: ImageModel, batch: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    channels, levels = model.formats[0]
    return torch.randint(levels, (batch, channels, *size), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("chain", CHAINS, ids=str)
@pytest.mark.parametrize("scales", [1, 2])
def test_all_images_of_2x2_pixels_sum_to_one(
    scramble: Scramble, channels: int, chain: list[Auxiliary], scales: int
) -> None:
    """Law: the joint p(x_0, ..., x_K) of a free model, over every value of every view, sums to one."""
    model = tiny(scramble, channels, 2, chain, scales=scales, consistent=False)
    every = [every_image(*f, size) for f, size in zip(model.formats, model.sizes((2, 2)), strict=True)]
    with torch.no_grad():
        joint = model.factors[-1](every[-1]).exp()
        assert abs(float(joint.sum()) - 1) < 1e-9
        for k in reversed(range(len(chain))):
            # p(x_k, x_{k+1}, ...), summed over the simplest views: a vector over x_k.
            given_view = torch.stack(
                [model.factors[k](every[k], v.expand(len(every[k]), -1, -1, -1)) for v in every[k + 1]]
            )
            assert float((given_view.exp().sum(1) - 1).abs().max()) < 1e-9
            assert len(given_view) == 1 or not torch.allclose(given_view[0], given_view[1])
            joint = joint @ given_view.exp()
    assert len(joint) == 2 ** (4 * channels)
    assert abs(float(joint.sum()) - 1) < 1e-9


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("chain", CHAINS, ids=str)
@pytest.mark.parametrize("scales", [1, 2])
def test_all_consistent_images_sum_to_one(
    scramble: Scramble, channels: int, chain: list[Auxiliary], scales: int
) -> None:
    """Law: log_prob of a consistent model is that of the image: over all images it sums to one."""
    model = tiny(scramble, channels, 2, chain, scales=scales)
    x = every_image(channels, 2, (2, 2))
    with torch.no_grad():
        assert abs(float(model.log_prob(x).exp().sum()) - 1) < 1e-9


@pytest.mark.parametrize(
    ("channels", "levels", "size", "chain"),
    [
        (1, 4, (2, 3), [Downsample(2), Downsample(2), QuantizedGrayscale(1)]),
        (1, 2, (3, 3), [Downsample(2)]),
        (1, 4, (5, 1), [Downsample(3)]),
        (1, 17, (1, 3), [Downsample(2)]),
        (1, 17, (1, 3), [QuantizedGrayscale(4)]),
        (3, 4, (1, 2), [Downsample(2)]),
        (3, 4, (1, 2), [QuantizedGrayscale(2)]),
        (3, 16, (1, 1), [QuantizedGrayscale(3)]),
    ],
    ids=str,
)
def test_the_consistent_images_of_a_view_sum_to_one(
    scramble: Scramble, channels: int, levels: int, size: tuple[int, int], chain: list[Auxiliary]
) -> None:
    """Law: at any size and any number of levels, all images sum to one, and so do those of each view given it."""
    model = tiny(scramble, channels, levels, chain)
    x = every_image(channels, levels, size)
    view = model.views(x)[1]
    kinds, members = view.flatten(1).unique(dim=0, return_inverse=True)
    with torch.no_grad():
        assert abs(float(model.log_prob(x).exp().sum()) - 1) < 1e-9
        masses = model.factors[0].log_prob(x, view, consistent=True).exp()
        totals = torch.zeros(len(kinds), dtype=torch.float64).index_add(0, members, masses)
    assert float((totals - 1).abs().max()) < 1e-9


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_a_model_can_be_consistent_or_free(scramble: Scramble, channels: int, chain: list[Auxiliary]) -> None:
    """Law: setting `consistent` on a model, back and forth, makes it score like one that was made that way.

    Consistency raises the score of every pixel of a factor that is given a view; the last factor stays the same.
    """
    model = tiny(scramble, channels, 16, chain)
    free = tiny(scramble, channels, 16, chain, consistent=False)
    x = random_images(model, 4, (5, 4))
    with torch.no_grad():
        consistent, bound = model.log_prob(x), free.log_prob(x)
        for strict, loose, (view, auxiliary) in zip(model.factors, free.factors, model.links(x), strict=True):
            surplus = strict.pixel_log_prob(view, auxiliary, consistent=True) - loose.pixel_log_prob(view, auxiliary)
            assert float(surplus.min()) > -1e-9
            assert (float(surplus.max()) > 1e-3) == (auxiliary is not None)
        for choice, expected in ((False, bound), (True, consistent)):
            model.consistent = choice
            assert model.consistent == model.config.consistent == choice
            assert torch.equal(model.log_prob(x), expected)


@pytest.mark.parametrize("chain", CHAINS[1:], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_pair_that_is_not_consistent_is_refused(scramble: Scramble, channels: int, chain: list[Auxiliary]) -> None:
    """Law: an image that does not have the given view is an error that names the place, unless the model is free."""
    model = tiny(scramble, channels, 4, chain)
    x, auxiliary = model.links(random_images(model, 3, (5, 6)))[0]
    assert auxiliary is not None
    auxiliary[1, -1, 0, 2] = (auxiliary[1, -1, 0, 2] + 1) % model.formats[1][1]
    with pytest.raises(ValueError, match=r"image 1 .* row 0, column 2 "):
        model.factors[0].log_prob(x, auxiliary, consistent=True)
    assert model.factors[0].log_prob(x, auxiliary).isfinite().all()


@pytest.mark.parametrize("consistent", [1, 0, "yes", None])
def test_consistent_is_true_or_false(consistent: Any) -> None:
    """Law: nothing else is accepted, neither by the constructor nor later."""
    with pytest.raises(ValueError, match=f"consistent={consistent!r}"):
        ImageModel(1, 4, **TINY, consistent=consistent)
    model = ImageModel(1, 4, **TINY)
    with pytest.raises(ValueError, match=f"consistent={consistent!r}"):
        model.consistent = consistent
    assert model.consistent


def test_a_consistent_score_looks_only_back(scramble: Scramble) -> None:
    """Law: the score of a pixel given the view does not depend on later pixels of images with the same view."""
    model = tiny(scramble, 3, 16, [Downsample(2)])
    x, auxiliary = model.links(random_images(model, 1, (4, 6)).clamp(1, 14))[0]
    changed = x.clone()
    changed[:, :, 2, 2] += 1  # two pixels of one block
    changed[:, :, 3, 3] -= 1
    factor = model.factors[0]
    pixels, others = (factor.pixel_log_prob(each, auxiliary, consistent=True).flatten() for each in (x, changed))
    assert torch.equal(pixels[: 2 * 6 + 2], others[: 2 * 6 + 2])
    assert not (pixels[2 * 6 + 2 :] == others[2 * 6 + 2 :]).any()


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_log_prob_is_the_joint_at_the_views(scramble: Scramble, chain: list[Auxiliary]) -> None:
    """Law: log_prob(x) = sum of factor k at (x_k, x_{k+1}), a lower bound for a free model: its sum is at most one."""
    model = tiny(scramble, 3, 2, chain, consistent=False)
    x = every_image(3, 2, (2, 2))
    with torch.no_grad():
        log_prob = model.log_prob(x)
        views = [*model.views(x), None]
        factors = [factor(views[k], views[k + 1]) for k, factor in enumerate(model.factors)]
        assert torch.equal(model(x), log_prob)
    torch.testing.assert_close(log_prob, torch.stack(factors).sum(0))
    total = float(log_prob.exp().sum())
    assert total < 1 - 1e-6 if chain else abs(total - 1) < 1e-9


def test_the_pixels_of_a_factor_add_up_to_its_image(scramble: Scramble) -> None:
    """Law: the log-probabilities of the pixels, (B, H, W), sum to that of the image, and each is that of its pixel."""
    model = tiny(scramble, 3, 4, [Downsample(2)], consistent=False)
    x = random_images(model, 2, (5, 4))
    (view, auxiliary), _ = model.links(x)
    pixels = model.factors[0].pixel_log_prob(view, auxiliary)
    assert pixels.shape == (2, 5, 4)
    torch.testing.assert_close(pixels.sum((1, 2)), model.factors[0](view, auxiliary))
    changed = view.clone()
    changed[:, :, 2, 1] = (changed[:, :, 2, 1] + 1) % 4
    same = pixels == model.factors[0].pixel_log_prob(changed, auxiliary)
    assert same.flatten(1)[:, : 2 * 4 + 1].all()
    assert not same[:, 2, 1].any()


def test_nested_views_are_made_from_the_view_before() -> None:
    """Law: x_{k+1} = a_{k+1}(x_k), rounding what was rounded before: not the mean of the original."""
    model = ImageModel(1, 256, [Downsample(2), Downsample(2)], **TINY)
    #  means of the squares: 0.5, 0, 0, 0 -> 1, 0, 0, 0 -> 0.25 -> 0;      0.5, 0.5, 0, 0 -> 1, 1, 0, 0 -> 0.5 -> 1
    once, twice = torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    once[0, 0, 0, :2] = twice[0, 0, 0] = 1
    assert model.views(once)[1].flatten().tolist() == [1, 0, 0, 0]
    assert model.views(once)[2].item() == 0
    assert model.views(twice)[2].item() == 1  # the mean of the original is 4 / 16
    for x in (once, twice):
        views = model.views(x)
        assert views[0] is x
        assert all(torch.equal(Downsample(2)(views[k], 256), views[k + 1]) for k in range(2))
        assert all(view.dtype == torch.uint8 for view in views)
        links = model.links(x)
        assert [torch.equal(a, b) for a, b in zip([v for v, _ in links], views, strict=True)] == [True] * 3
        assert torch.equal(links[0][1], views[1])  # pyright: ignore[reportArgumentType]
        assert links[2][1] is None


def test_a_view_is_made_with_the_levels_of_its_image() -> None:
    """Law: each auxiliary variable gets the levels of the view that it is applied to, not those of the image."""
    first, second, third = QuantizedGrayscale(3), Downsample(2), QuantizedGrayscale(1)
    model = ImageModel(3, 16, [first, second, third], **TINY)
    x = random_images(model, 2, (6, 6))
    views = model.views(x)
    assert model.formats == [(3, 16), (1, 8), (1, 8), (1, 2)]
    assert torch.equal(views[1], first(x, 16))
    assert torch.equal(views[2], second(first(x, 16), 8))
    assert torch.equal(views[3], third(second(first(x, 16), 8), 8))
    assert views[3].unique().tolist() == [0, 1]


auxiliaries: st.SearchStrategy[Auxiliary] = st.sampled_from(
    [Downsample(2), Downsample(3), QuantizedGrayscale(2), QuantizedGrayscale(1)]
)


def is_possible(chain: Sequence[Auxiliary]) -> bool:
    bits = [a.bits for a in chain if isinstance(a, QuantizedGrayscale)]
    return bits == sorted(bits, reverse=True)


@given(
    st.lists(auxiliaries, max_size=3).filter(is_possible),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.sampled_from([1, 3]),
    st.integers(1, 3),
    st.sampled_from([0, 2]),
)
def test_any_chain_scores_any_size(
    chain: list[Auxiliary], size: tuple[int, int], channels: int, scales: int, classes: int
) -> None:
    """Law: every chain gives finite log_prob (B,) for every size, the views have `sizes`, and bits add up."""
    options: dict[str, Any] = {"scales": scales, "embedding_scales": scales, "classes": classes}
    model = ImageModel(channels, 16, chain, **(TINY | options))
    x = random_images(model, 2, size).to(torch.uint8)
    labels = torch.tensor([0, 1]) if classes else None
    with evaluating():
        log_prob = model.log_prob(x, labels)
        bits = model.bits_per_dim(x, labels)
    assert log_prob.shape == bits.total.shape == (2,)
    assert log_prob.dtype == torch.float32
    assert log_prob.isfinite().all()
    assert (log_prob < 0).all()
    assert bits.factors.shape == (2, len(chain) + 1)
    torch.testing.assert_close(bits.factors.sum(1), bits.total)
    torch.testing.assert_close(bits.total, -log_prob / (math.log(2) * channels * size[0] * size[1]))
    views = model.views(x)
    assert [view.shape[2:] for view in views] == [torch.Size(s) for s in model.sizes(size)]
    for view, (view_channels, levels) in zip(views, model.formats, strict=True):
        assert view.shape[:2] == (2, view_channels)
        assert int(view.max()) < levels


def test_bits_of_a_factor_count_the_pixels_of_the_image(scramble: Scramble) -> None:
    """Law: each factor's bits are divided by the sub-pixels of x_0, not by those of its own view."""
    model = tiny(scramble, 3, 16, [Downsample(2), QuantizedGrayscale(2)])
    x = random_images(model, 3, (6, 5))
    with torch.no_grad():
        bits = model.bits_per_dim(x)
        for k, (factor, (view, auxiliary)) in enumerate(zip(model.factors, model.links(x), strict=True)):
            nats = -factor(view, auxiliary, consistent=True)
            torch.testing.assert_close(bits.factors[:, k], nats / (math.log(2) * 3 * 6 * 5))


def test_uniform_levels_cost_their_bits() -> None:
    """Law: a model that gives each of 16 levels the same probability needs 4 bits for each pixel."""
    model = ImageModel(1, 16, **TINY).double()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter) if parameter.dim() == 1 else torch.nn.init.ones_(parameter)
    bits = model.bits_per_dim(random_images(model, 3, (3, 5)))
    torch.testing.assert_close(bits.total, torch.full((3,), 4.0, dtype=torch.float64))


def test_an_empty_batch_has_no_scores() -> None:
    """Law: a batch may be empty: log_prob is (0,), and bits are (0,) and (0, K + 1)."""
    model = ImageModel(1, 16, [Downsample(2)], **TINY)
    nothing = torch.zeros(0, 1, 4, 4, dtype=torch.uint8)
    assert model.log_prob(nothing).shape == (0,)
    total, factors = model.bits_per_dim(nothing)
    assert total.shape == (0,)
    assert factors.shape == (0, 2)


@pytest.mark.parametrize("chain", [[], [Downsample(2), QuantizedGrayscale(2)]], ids=str)
@pytest.mark.parametrize("scales", [1, 2])
def test_an_image_scores_the_same_in_any_batch(scramble: Scramble, chain: list[Auxiliary], scales: int) -> None:
    """Law: log_prob of an image does not depend on the rest of the batch."""
    model = tiny(scramble, 3, 16, chain, scales=scales, embedding_scales=scales)
    x = random_images(model, 4, (5, 6))
    together = model.log_prob(x)
    torch.testing.assert_close(torch.cat([model.log_prob(image[None]) for image in x]), together)
    torch.testing.assert_close(model.log_prob(x.flip(0)).flip(0), together)


@pytest.mark.parametrize("levels", [16, 256])
def test_autocast_gives_float32_likelihoods(levels: int) -> None:
    """Law: under bf16 autocast, log_prob and bits are float32 and close to those without; gradients are finite."""
    torch.manual_seed(0)
    model = ImageModel(1, levels, [Downsample(2)], dropout=0.0, **TINY)
    x = random_images(model, 2, (6, 6))
    exact = model.log_prob(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.factors[0].network(x, torch.zeros(2, 2, 6, 6)).dtype == torch.bfloat16
        log_prob = model.log_prob(x)
        bits = model.bits_per_dim(x)
    assert log_prob.dtype == bits.total.dtype == bits.factors.dtype == torch.float32
    torch.testing.assert_close(log_prob, exact, rtol=0.05, atol=0)
    assert not torch.equal(log_prob, exact)
    log_prob.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def size_of(module: torch.nn.Module | None) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def test_every_factor_has_its_own_width_and_depth() -> None:
    """Law: a sequence gives factor k, the image's first, its k-th number; embeddings have theirs; nothing is shared."""
    options: dict[str, Any] = {"filters": (6, 5, 4), "blocks": [2, 1, 3], "scales": (1, 3, 2)}
    embedded: dict[str, Any] = {"embedding_filters": (3, 2), "embedding_blocks": (1, 2), "embedding_scales": (2, 1)}
    chain = [Downsample(2), QuantizedGrayscale(4)]
    model = ImageModel(3, 256, chain, components=2, **options, **embedded)
    for k, factor in enumerate(model.factors):
        choices = {name: values[k] for name, values in options.items()}
        context = (3, 2, 0)[k]
        alone = CausalNetwork(*model.formats[k], factor.likelihood.num_params, context=context, **choices)
        assert size_of(factor.network) == size_of(alone)
        assert (factor.embedding is None) == (k == 2)
    for k, (filters, blocks, scales) in enumerate([(3, 1, 2), (2, 2, 1)]):
        same = ImageModel(
            *model.formats[k],
            [chain[k]],
            embedding_filters=filters,
            embedding_blocks=blocks,
            embedding_scales=scales,
            components=2,
            filters=2,
            blocks=1,
            scales=1,
        )
        assert size_of(same.factors[0].embedding) == size_of(model.factors[k].embedding)
    assert sum(size_of(factor) for factor in model.factors) == size_of(model)
    assert model.log_prob(random_images(model, 1, (5, 5))).isfinite().all()


def test_an_embedding_has_the_filters_of_its_factor() -> None:
    """Law: without embedding_filters an embedding is as wide as the network that it feeds."""
    chosen = ImageModel(3, 256, [Downsample(2)], filters=(5, 3), blocks=1, scales=1)
    spelled = ImageModel(3, 256, [Downsample(2)], filters=(5, 3), blocks=1, scales=1, embedding_filters=5)
    assert chosen.config == spelled.config


def test_a_simple_view_has_a_free_probability_for_each_level() -> None:
    """Law: one channel and at most 16 levels take a softmax, everything else a mixture with these components."""
    model = ImageModel(3, 256, [QuantizedGrayscale(5), QuantizedGrayscale(4)], **TINY)
    assert [f.likelihood for f in model.factors] == [
        LogisticMixture(3, 256, 2),
        LogisticMixture(1, 32, 2),
        Categorical(16),
    ]
    assert ImageModel(3, 16, **TINY).factors[0].likelihood == LogisticMixture(3, 16, 2)


@pytest.mark.parametrize("log_scales", [(None, -2.0), (-7, None), [-7, None], (None, None), (-9.5, -3)])
def test_every_mixture_has_the_range_of_log_scales(log_scales: Any) -> None:
    """Law: each factor that has scales gets the range, and so do the models of the views."""
    model = ImageModel(
        3, 256, [Downsample(2), QuantizedGrayscale(5), QuantizedGrayscale(4)], log_scales=log_scales, **TINY
    )
    assert model.config.log_scales == tuple(log_scales)
    expected = [LogisticMixture(3, 256, 2, log_scales)] * 2 + [LogisticMixture(1, 32, 2, log_scales), Categorical(16)]
    assert [factor.likelihood for factor in model.factors] == expected
    for k in range(4):
        view = model.of_view(k)
        assert view.config.log_scales == tuple(log_scales)
        assert [factor.likelihood for factor in view.factors] == expected[k:]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_bad_range_of_log_scales_is_refused(channels: int) -> None:
    """Law: even if no factor would use it."""
    with pytest.raises(ValueError, match=r"log_scales=\(-2, -7\): use \(lowest, highest\)"):
        ImageModel(channels, 16, log_scales=(-2, -7), **TINY)


@pytest.mark.parametrize(
    ("named", "arguments", "spelled"),
    [
        (PixelCNN, {}, {"scales": 3, "blocks": 5}),
        (PixelCNN, {"channels": 1, "levels": 16, "blocks": 2}, {"channels": 1, "levels": 16, "scales": 3, "blocks": 2}),
        (
            GrayscalePixelCNN,
            {},
            {"auxiliaries": [QuantizedGrayscale(4)], "scales": 3, "blocks": [4, 5], "embedding_blocks": 4,
             "embedding_scales": 3},
        ),
        (
            GrayscalePixelCNN,
            {"bits": 2, "blocks": 1, "levels": 8},
            {"auxiliaries": [QuantizedGrayscale(2)], "scales": 3, "blocks": [1, 1], "embedding_blocks": 4,
             "embedding_scales": 3, "levels": 8},
        ),
        (
            PyramidPixelCNN,
            {},
            {"auxiliaries": [Downsample(2)] * 4, "scales": 1, "blocks": 3, "embedding_blocks": 3,
             "embedding_scales": 2},
        ),
        (
            PyramidPixelCNN,
            {"depth": 1, "blocks": [1, 2], "classes": 3},
            {"auxiliaries": [Downsample(2)], "scales": 1, "blocks": [1, 2], "embedding_blocks": 3,
             "embedding_scales": 2, "classes": 3},
        ),
    ],
)  # fmt: skip
def test_a_named_model_only_chooses_arguments(named: Any, arguments: dict[str, Any], spelled: dict[str, Any]) -> None:
    """Law: a subclass is the ImageModel with its arguments: the same configuration and the same numbers."""
    few: dict[str, Any] = {"filters": 2, "components": 2, "dropout": 0.25}
    torch.manual_seed(0)
    model = named(**few, **arguments).eval()
    torch.manual_seed(0)
    same = ImageModel(**few, **spelled).eval()
    assert model.config == same.config
    assert model.auxiliaries == same.auxiliaries
    x = random_images(model, 2, (9, 8))
    labels = torch.tensor([0, 2]) if model.classes else None
    assert torch.equal(model.log_prob(x, labels), same.log_prob(x, labels))


def test_the_named_models_are_those_of_the_papers() -> None:
    """Law: PixelCNN++ has 160 filters, the pyramid 100 and five views; without a GPU, on the meta device."""
    with torch.device("meta"):
        assert size_of(PixelCNN()) == 53_659_080
        assert PixelCNN().config.filters == [160]
        assert GrayscalePixelCNN().config.filters == [160, 160]
        assert PyramidPixelCNN().config.filters == [100] * 5


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_the_configuration_is_json(chain: list[Auxiliary]) -> None:
    """Law: the configuration survives JSON, and with its auxiliary variables built again it gives an equal model."""
    torch.manual_seed(0)
    model = ImageModel(3, 16, chain, **TINY, **TINY_EMBEDDING, classes=2, dropout=0.25).eval()
    config = json.loads(json.dumps(model.config.to_json()))
    assert config == model.config.to_json()
    again = ImageModel.from_config(config).eval()
    assert again.config == model.config
    again.load_state_dict(model.state_dict())
    x, labels = random_images(model, 2, (4, 5)), torch.tensor([1, 0])
    assert torch.equal(again.log_prob(x, labels), model.log_prob(x, labels))


@pytest.mark.parametrize("chain", [[], [Downsample(2)], [Downsample(2), QuantizedGrayscale(2)]], ids=str)
def test_a_label_changes_every_factor(scramble: Scramble, chain: list[Auxiliary]) -> None:
    """Law: with classes, each factor depends on the label of its image, and on no other's."""
    model = tiny(scramble, 3, 16, chain, classes=3)
    x = random_images(model, 2, (4, 4))[:1].expand(2, -1, -1, -1)
    bits = model.bits_per_dim(x, torch.tensor([0, 2]))
    assert (bits.factors[0] != bits.factors[1]).all()
    torch.testing.assert_close(model.bits_per_dim(x, torch.tensor([2, 0])).factors, bits.factors.flip(0))


def test_a_model_given_a_label_sums_to_one(scramble: Scramble) -> None:
    """Law: for each label the images sum to one."""
    model = tiny(scramble, 1, 2, classes=3)
    x = every_image(1, 2, (2, 2))
    for label in range(3):
        with torch.no_grad():
            total = float(model.log_prob(x, torch.full((16,), label)).exp().sum())
        assert abs(total - 1) < 1e-9


@pytest.mark.parametrize(
    "labels",
    [
        None,
        torch.tensor([0]),
        torch.tensor([0, 3]),
        torch.tensor([-1, 0]),
        torch.tensor([[0], [1]]),
        torch.tensor([0.5, 1.0]),
    ],
)
def test_labels_must_fit_the_model(labels: Tensor | None) -> None:
    """Law: a model with classes needs one whole number in range for each image, and says so."""
    model = ImageModel(1, 16, **TINY, classes=3)
    with pytest.raises(ValueError, match="labels="):
        model.log_prob(random_images(model, 2, (3, 3)), labels)


def test_a_model_without_classes_takes_no_labels() -> None:
    """Law: labels for a model of images alone are an error, and are not silently ignored."""
    model = ImageModel(1, 16, **TINY)
    with pytest.raises(ValueError, match="labels="):
        model.log_prob(random_images(model, 2, (3, 3)), torch.tensor([0, 0]))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 3, 4, 4), "float32"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.bool), "bool"),
        (torch.full((1, 3, 4, 4), 16), "16"),
        (torch.full((1, 3, 4, 4), -1), "-1"),
        (torch.full((1, 3, 4, 4), 16, dtype=torch.uint8), "16"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), r"\(1, 1, 4, 4\)"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), r"\(2, 4, 4\)"),
        (torch.zeros(1, 3, 0, 4, dtype=torch.uint8), r"\(1, 3, 0, 4\)"),
    ],
)
def test_inputs_that_are_not_images_are_refused(x: Tensor, message: str) -> None:
    """Law: floats, values out of range and wrong shapes are errors that quote what was given, in every use."""
    model = ImageModel(3, 16, **TINY)
    for use in (model.log_prob, model.bits_per_dim, model.views, model):
        with pytest.raises(ValueError, match=f"x .*{message}"):
            use(x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 2}, "channels=2"),
        ({"channels": "3"}, "channels='3'"),
        ({"levels": 1}, "levels=1"),
        ({"levels": "256"}, "levels='256'"),
        ({"channels": 1, "levels": "16"}, "levels='16'"),
        ({"levels": "256", "auxiliaries": [QuantizedGrayscale(4)]}, "levels='256'"),
        ({"components": 0}, "components=0"),
        ({"filters": 0}, "filters=0"),
        ({"filters": "3"}, "filters='3'"),
        ({"filters": 2.0}, "filters=2.0"),
        ({"filters": None}, "filters=None"),
        ({"filters": True}, "filters=True"),
        ({"blocks": 0}, "blocks=0"),
        ({"scales": -1}, "scales=-1"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"dropout": -0.1}, "dropout=-0.1"),
        ({"dropout": math.nan}, "dropout=nan"),
        ({"dropout": "0.5"}, "dropout='0.5'"),
        ({"classes": -1}, "classes=-1"),
        ({"classes": 1.5}, "classes=1.5"),
        ({"filters": (2, 2)}, r"filters=\(2, 2\)"),
        ({"filters": ()}, r"filters=\(\)"),
        ({"auxiliaries": [Downsample(2)], "blocks": [1, 2, 3]}, r"blocks=\[1, 2, 3\]"),
        ({"auxiliaries": [Downsample(2)], "blocks": [1, 0]}, "blocks=0"),
        ({"auxiliaries": [Downsample(2)], "embedding_filters": (2, 2)}, r"embedding_filters=\(2, 2\)"),
        ({"auxiliaries": [Downsample(2)], "embedding_blocks": 0}, "embedding_blocks=0"),
        ({"auxiliaries": [Downsample(2)], "embedding_scales": "2"}, "embedding_scales='2'"),
        ({"levels": 8, "auxiliaries": [QuantizedGrayscale(4)]}, "bits=4"),
        ({"auxiliaries": [QuantizedGrayscale(2), Downsample(2), QuantizedGrayscale(3)]}, "bits=3"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    """Law: an argument out of range is a ValueError that quotes its name and value."""
    with pytest.raises(ValueError, match=message):
        ImageModel(**(TINY | arguments))


@pytest.mark.parametrize(("named", "message"), [(PyramidPixelCNN, "depth=0"), (GrayscalePixelCNN, "bits=0")])
def test_named_models_check_their_own_arguments(named: Any, message: str) -> None:
    """Law: the argument of a named model is quoted by its name."""
    name = message.split("=")[0]
    with pytest.raises(ValueError, match=message):
        named(**{name: 0})


def test_evaluating_turns_dropout_off_and_leaves_the_mode(scramble: Scramble) -> None:
    """Law: inside there is no dropout and no gradient, and the mode of the model never changes."""
    model = ImageModel(1, 16, **(TINY | {"filters": 8, "dropout": 0.5}))
    scramble(model)
    x = random_images(model, 2, (5, 5))
    for training in (True, False):
        model.train(training)
        with evaluating():
            assert torch.equal(model.log_prob(x), model.log_prob(x))
            assert not model.log_prob(x).requires_grad
        assert model.training == training
        with pytest.raises(RuntimeError, match="stop"), evaluating():
            raise RuntimeError("stop")
        assert model.training == training
    assert not torch.equal(model.train().log_prob(x), model.log_prob(x))


def test_a_factor_is_initialized_from_its_own_data() -> None:
    """Law: data-dependent initialization gives the parameters the initial statistics of the likelihood."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"filters": 4, "classes": 2}
    model = ImageModel(3, 256, [Downsample(2)], **(TINY | options))
    x, labels = random_images(model, 8, (8, 8)), torch.arange(8) % 2
    for factor, (view, auxiliary) in zip(model.factors, model.links(x), strict=True):
        factor.initialize(view, auxiliary, labels)
    with evaluating():
        for factor, (view, auxiliary) in zip(model.factors, model.links(x), strict=True):
            params = factor.network(view, factor.context((view.shape[2], view.shape[3]), auxiliary, labels))
            deviation, mean = torch.std_mean(params, (0, 2, 3), correction=0)
            means, deviations = factor.likelihood.initial_stats()
            torch.testing.assert_close(deviation, deviations, rtol=0, atol=1e-3)
            torch.testing.assert_close(mean, means, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 1.0}, "channels=1.0"),
        ({"channels": True}, "channels=True"),
        ({"components": 0}, "components=0"),
        ({"auxiliaries": Downsample(2)}, "auxiliaries="),
        ({"auxiliaries": ["Downsample"]}, "auxiliaries="),
    ],
)
def test_arguments_of_another_type_are_quoted(arguments: dict[str, object], message: str) -> None:
    """Law: an argument of the wrong type is a ValueError that quotes it, before anything else fails."""
    with pytest.raises(ValueError, match=message):
        ImageModel(**({"channels": 1, "levels": 4} | arguments))  # pyright: ignore[reportArgumentType]


def test_labels_of_any_integer_type_fit() -> None:
    """Law: a list, an array and uint8 labels are as good as int64 ones, and one number is the label of all images."""
    model = ImageModel(1, 16, **TINY, classes=3).eval()
    x, labels = random_images(model, 2, (3, 3)), torch.tensor([2, 0])
    assert torch.equal(model.log_prob(x, labels), model.log_prob(x, labels.to(torch.uint8)))
    for others in ([2, 0], (2, 0), labels.numpy(), labels.numpy().astype("uint16"), labels.to(torch.uint64)):
        assert torch.equal(model.log_prob(x, labels), model.log_prob(x, others))
    assert torch.equal(model.log_prob(x, torch.tensor([1, 1])), model.log_prob(x, 1))


@pytest.mark.parametrize(
    ("labels", "quoted"),
    [
        (3, "labels=3"),
        (-1, "labels=-1"),
        (10**30, f"labels={10**30}"),
        (True, "labels=True"),
        ([0, 1, 2], r"labels=\[0, 1, 2\]"),
        ([[0], [1, 2]], r"labels=\[\[0\], \[1, 2\]\]"),
        (["a", "b"], r"labels=\['a', 'b'\]"),
        (torch.arange(100), r"labels=\[0, 1, 2, 3, 4, 5, 6, 7\] and 92 more"),
        (torch.zeros(2, 1, dtype=torch.int64), r"labels=Tensor of shape \(2, 1\)"),
        (torch.zeros(2), r"labels=\[0.0, 0.0\]"),
        (None, "labels=None"),
    ],
)
def test_labels_that_do_not_fit_are_quoted_briefly(labels: Any, quoted: str) -> None:
    """Law: an error shows the labels that were given, at most the first few, and says which would fit."""
    model = ImageModel(1, 16, **TINY, classes=3)
    with pytest.raises(ValueError, match=f"^{quoted}: use a whole number in .0, 3. for all images, or 2 of them"):
        model.log_prob(random_images(model, 2, (3, 3)), labels)
    if labels is not None:
        with pytest.raises(ValueError, match=f"^{quoted}: this model has no classes; leave the labels out$"):
            ImageModel(1, 16, **TINY).sample(2, 3, labels=labels)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_the_model_of_a_view_is_what_is_left_of_the_chain(k: int) -> None:
    """Law: its scores are those of the factors from there on, which it shares."""
    torch.manual_seed(0)
    model = ImageModel(3, 256, [Downsample(2), QuantizedGrayscale(3)], **(TINY | {"filters": 4, "consistent": False}))
    model.eval()
    x = random_images(model, 2, (4, 6))
    view = model.of_view(k)
    assert not view.consistent
    assert all(a is b for a, b in zip(view.factors, list(model.factors)[k:], strict=True))
    with torch.no_grad():
        whole, alone = model.bits_per_dim(x), view.bits_per_dim(model.views(x)[k])
    share = model.views(x)[k][0].numel() / x[0].numel()
    torch.testing.assert_close(alone.factors * share, whole.factors[:, k:])
    assert view.formats == model.formats[k:]


def test_there_is_no_model_of_a_view_beyond_the_last() -> None:
    with pytest.raises(ValueError, match="k=1"):
        ImageModel(**TINY).of_view(1)
