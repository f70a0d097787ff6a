"""Recipes: building them, the numbers of the published ones, and their use by the command line."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import inside

from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.likelihoods.logistic import LogisticMixture
from pixelcnn.likelihoods.tabular import Categorical
from pixelcnn.models import shipped
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.presets import PyramidPixelCNN
from pixelcnn.nn.embedding import EmbeddingNetwork
from pixelcnn.training.options import Training
from pixelcnn.zoo.listing import describe, recipe_names
from pixelcnn.zoo.recipe import Recipe
from pixelcnn.zoo.recipes import RECIPES, find_recipe, summarize

PUBLISHED = ("cifar10-pixelcnn++", "cifar10-grayscale", "cifar10-pyramid", "celeba128-pyramid")
CARD = {
    "title": "Faces from 8x8",
    "size": 64,
    "parameters": 2_159_008,
    "data": [{"view": 0, "source": "celeba", "images": 9500}, {"view": 1, "source": "lfw", "images": 3300}],
    "terms": "non-commercial research",
    "bits_per_dim": {"total": 4.125, "factors": [3.0, 1.125]},
    "held_out": "500 faces",
    "minutes": [3, 3],
    "machine": "two cores",
    "command": "pixelcnn train",
    "sha256": {},
}

TRAINING = Training(batch_size=2)


def build_tiny() -> ImageModel:
    return PyramidPixelCNN(1, filters=4, blocks=1, embedding_blocks=1)


def build(name: str) -> tuple[Recipe, ImageModel]:
    """Find a recipe and build its model on the meta device."""
    recipe = find_recipe(name)
    with torch.device("meta"):
        return recipe, recipe.model()


def embedding_blocks(embedding: EmbeddingNetwork | None) -> int:
    assert embedding is not None
    return sum(len(blocks) for blocks in (*embedding.down, *embedding.up, embedding.enlarged))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_build(name: str) -> None:
    """Each recipe has a model of color images, a budget for each factor and a one-line description."""
    recipe, model = build(name)
    assert model.formats[0] == (3, 256)
    assert recipe.steps == () or len(recipe.steps) == len(model.factors)
    assert bool(recipe.steps) != bool(recipe.minutes)
    assert min(map(min, model.sizes((recipe.size, recipe.size)))) >= 8
    assert RECIPES[name].__doc__
    if recipe.expected is not None:
        assert 0 < recipe.expected.bits_per_dim < 8


def test_the_listing_is_that_of_the_recipes() -> None:
    """Law: the file that `pixelcnn models` shows says what the recipes say (else run tools/list_recipes.py)."""
    assert {name: describe(name) for name in recipe_names()} == {name: summarize(name) for name in RECIPES}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_have_a_small_twin(name: str) -> None:
    """The small recipe has the same chain, images and size; PixelCNN++ is as large as the model it is compared with."""
    (large, paper), (small, twin) = build(name), build(f"{name}-small")
    assert (large.source, large.size, paper.auxiliaries) == (small.source, small.size, twin.auxiliaries)
    assert describe(f"{name}-small")["parameters"] < 1e7
    assert large.steps
    assert small.minutes
    sizes = [describe(f"cifar10-{kind}-small")["parameters"] for kind in ("pixelcnn++", "grayscale")]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_recipes_are_distinct() -> None:
    assert len(set(RECIPES.values())) == len(RECIPES)
    lines = [describe(name)["what"] for name in RECIPES]
    assert len(set(lines)) == len(lines)


def test_pixelcnn_plus_plus_is_the_published_one() -> None:
    """160 filters, 5 blocks at each of 3 scales and one more on the way up, dropout 0.5, 10 logistics."""
    recipe, model = build("cifar10-pixelcnn++")
    network = model.factors[0].network
    assert model.factors[0].likelihood == LogisticMixture(3, 256, 10)
    assert (model.config.filters, [len(blocks) for blocks in network.down]) == ([160], [5, 5, 5])
    assert [len(blocks) for blocks in network.up] == [6, 6, 5]
    training = recipe.training
    assert (training.batch_size, training.decay, training.learning_rate) == (16 * 8, 0.999995, 1e-3)
    assert (training.average, training.clip, training.flip, model.config.dropout) == (0.9995, 0, False, 0.5)
    assert describe("cifar10-pixelcnn++")["bits_per_dim"] == 2.92


def test_grayscale_is_the_published_one() -> None:
    """A PixelCNN++ with a softmax for the 4-bit gray view; 24 blocks for the embedding; 200 and 30 epochs."""
    recipe, model = build("cifar10-grayscale")
    colors, gray = model.factors
    assert model.auxiliaries == (QuantizedGrayscale(4),)
    assert (colors.likelihood, gray.likelihood) == (LogisticMixture(3, 256, 10), Categorical(16))
    assert (model.config.filters, model.config.scales) == ([160, 160], [3, 3])
    assert (model.config.blocks, embedding_blocks(colors.embedding)) == ([4, 5], 24)
    assert (model.config.dropout, model.consistent, recipe.training.flip) == (0.5, False, True)
    assert (recipe.training.batch_size, recipe.training.decay, recipe.training.learning_rate) == (64, 0.99999, 1e-3)
    assert recipe.steps == (math.ceil(200 * 50_000 / 64), math.ceil(30 * 50_000 / 64))
    assert describe("cifar10-grayscale")["bits_per_dim"] == 2.98


@pytest.mark.parametrize(
    ("name", "depth", "images"), [("celeba128-pyramid", 4, 192_469), ("cifar10-pyramid", 2, 50_000)]
)
def test_pyramids_are_the_published_one(name: str, depth: int, images: int) -> None:
    """100 filters, 3 blocks at one scale, embeddings of 15 blocks, down to 8x8; 60 epochs in batches of 16."""
    recipe, model = build(name)
    assert model.auxiliaries == (Downsample(2),) * depth
    assert model.sizes((recipe.size, recipe.size))[-1] == (8, 8)
    config = model.config.to_json()
    assert {*config["filters"], *config["embedding_filters"]} == {100}
    assert ({*config["blocks"]}, {*config["scales"]}) == ({3}, {1})
    assert {embedding_blocks(factor.embedding) for factor in model.factors[:-1]} == {15}
    assert (model.config.dropout, model.consistent) == (0.5, False)
    assert (recipe.training.batch_size, recipe.training.decay, recipe.training.learning_rate) == (16, 0.999995, 1e-3)
    assert recipe.steps == (math.ceil(60 * images / 16),) * (depth + 1)


def test_the_combination_is_gray_below_8x8() -> None:
    """Three downsamplings and then gray, which the paper leaves to future work, score images like any other chain."""
    _, model = build("faces64-pyramid-grayscale")
    assert model.auxiliaries == (*[Downsample(2)] * 3, QuantizedGrayscale(4))
    assert model.sizes((64, 64)) == [(64, 64), (32, 32), (16, 16), (8, 8), (8, 8)]
    assert model.formats[-1] == (1, 16)
    real = find_recipe("faces64-pyramid-grayscale").model().eval()
    with torch.no_grad():
        bits = real.bits_per_dim(torch.randint(0, 256, (1, 3, 64, 64)))
    assert bits.factors.isfinite().all()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cifar10-pixelcnn", "'cifar10-pixelcnn++'"),
        ("celeba128-pyramids", "'celeba128-pyramid'"),
        ("?", "cifar10-pyramid"),
    ],
)
def test_the_nearest_recipe_is_suggested(name: str, said: str) -> None:
    with pytest.raises(ValueError, match="no recipe") as error:
        find_recipe(name)
    assert said in str(error.value)


def test_models_lists_recipes_and_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listing has size, parameters, data, terms and bits per dimension of recipes and shipped models."""
    monkeypatch.setattr(shipped, "shipped_names", lambda: ["faces"])
    monkeypatch.setattr(shipped, "zoo_card", lambda name: CARD)
    listing = json.loads(inside("models", "--json").stdout)
    assert listing["recipes"] == {name: describe(name) for name in RECIPES}
    assert listing["models"] == {"faces": {"comes with": "pixelcnn"} | CARD}
    assert listing["missing"] == {}
    shown = inside("models").stdout
    assert all(name in shown for name in (*RECIPES, "faces"))
    assert all(
        text in shown for text in ("64x64", "53.7 M", "2.98", "CC BY-SA 4.0", "celeba, lfw", "4.12", "Faces from")
    )


def test_a_recipe_has_the_budget_of_its_paper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each factor gets the steps or minutes of the recipe unless the command overrides them."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("pixelcnn.train", lambda *arguments, **options: asked.append(options))
    steps = (12, 34)
    monkeypatch.setitem(RECIPES, "both", lambda: Recipe(build_tiny, "photos", 32, TRAINING, steps=steps))
    for extra in ((), ("--steps", 5), ("--minutes", 2)):
        assert inside("train", "both", "--out", tmp_path / "run", *extra).returncode == 0
    budgets = [(options.get("steps"), options.get("minutes")) for options in asked]
    assert budgets == [(steps, None), (5, None), (None, 2)]


def test_without_its_data_a_recipe_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error is one line with exit code 2 that gives the commands to fetch the data and to train on them."""
    import socket

    def unreachable(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    for source, hub, options in (
        ("cifar10", "uoft-cs/cifar10", "--data FOLDER"),
        ("celeba", "nielsr/CelebA-faces", "--data FOLDER --crop 25 25 50 40"),
    ):
        monkeypatch.setitem(RECIPES, "tiny", lambda source=source: Recipe(build_tiny, source, 32, TRAINING, minutes=1))
        result = inside("train", "tiny", "--out", tmp_path / "run")
        assert result.returncode == 2
        (line,) = result.stderr.splitlines()
        assert f"hf download {hub} --repo-type dataset --local-dir FOLDER" in line
        assert f"pixelcnn train tiny {options} --out {tmp_path / 'run'}" in line
        assert not (tmp_path / "run").exists()
