"""Laws of what users add: views and likelihoods of their own are drawn, scored, saved and checked like ours."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Scramble, all_views, assert_follows, save_noise
from torch import Tensor

from pixelcnn.auxiliary.base import AUXILIARIES, Auxiliary, register_auxiliary
from pixelcnn.auxiliary.cells import CellAuxiliary
from pixelcnn.auxiliary.check import check_auxiliary
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.data.images import load_images
from pixelcnn.likelihoods.base import LIKELIHOODS, Bounds, register_likelihood
from pixelcnn.likelihoods.check import check_likelihood
from pixelcnn.likelihoods.logistic import LogisticMixture
from pixelcnn.likelihoods.tabular import Categorical, TabularLikelihood
from pixelcnn.models import memory, tiles
from pixelcnn.models.draw import DrawOptions
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load, save
from pixelcnn.models.sampling import complete, sample
from pixelcnn.tasks.scoring import surprisal
from pixelcnn.training.loop import train
from pixelcnn.training.options import Run, Training
from pixelcnn.traversal.schedule import Schedule

TINY: dict[str, Any] = {"components": 2, "filters": 4, "blocks": 1, "scales": 1, "embedding_blocks": 1, "dropout": 0.0}


@register_auxiliary
@dataclass(frozen=True)
class Posterize(CellAuxiliary):
    """Each channel in a few tones: cells of a single sub-pixel."""

    tones: int = 2

    def view_format(self, channels: int, levels: int) -> tuple[int, int]:
        if self.tones > levels:
            raise ValueError(f"tones={self.tones!r}: use at most the {levels} of the image")
        return channels, self.tones

    def __call__(self, x: Tensor, levels: int) -> Tensor:
        return (x.long() * self.tones // levels).to(x.dtype)

    def weights(self, channels: int) -> list[int]:
        return [1] * channels

    def sums(self, view: Tensor, size: tuple[int, int], levels: int) -> Bounds:
        lowest, beyond = (-(-(view + side) * levels // self.tones) for side in (0, 1))
        return Bounds(lowest, beyond - 1)


@register_auxiliary
@dataclass(frozen=True)
class SmallGray(CellAuxiliary):
    """The gray of squares of 2x2 pixels: cells of all channels of four pixels, of fewer at the border."""

    joint_channels = True

    @property
    def shrinkage(self) -> int:
        return 2

    def view_format(self, channels: int, levels: int) -> tuple[int, int]:
        return 1, levels

    def __call__(self, x: Tensor, levels: int) -> Tensor:
        weighted = (x.long() * torch.tensor(self.weights(x.shape[1]), device=x.device)[:, None, None]).sum(1, True)
        H, W = x.shape[2:]
        total = F.pad(weighted, (0, W % 2, 0, H % 2)).unfold(2, 2, 2).unfold(3, 2, 2).sum((4, 5))
        whole = self._wholes((H, W), x.device)
        return ((2 * total + whole) // (2 * whole)).to(x.dtype)

    def weights(self, channels: int) -> list[int]:
        return [2, 5, 1] if channels == 3 else [8]

    def sums(self, view: Tensor, size: tuple[int, int], levels: int) -> Bounds:
        whole = self._wholes(size, view.device)
        return Bounds(-(-(2 * view - 1) * whole // 2), ((2 * view + 1) * whole - 1) // 2)

    def _wholes(self, size: tuple[int, int], device: torch.device) -> Tensor:
        """The weight of all sub-pixels that a cell has, (h, w)."""
        rows, cols = ((side - torch.arange(0, side, 2, device=device)).clamp(max=2) for side in size)
        return 8 * rows[:, None] * cols


@register_auxiliary
@dataclass(frozen=True)
class Edges(Auxiliary):
    """Where a channel differs from the pixel to the left: nothing but a view, of a free model."""

    least: int = 1

    def view_format(self, channels: int, levels: int) -> tuple[int, int]:
        return 1, 2

    def __call__(self, x: Tensor, levels: int) -> Tensor:
        steps = F.pad(x.long().diff(dim=3), (1, 0)).abs().amax(1, keepdim=True)
        return (steps >= self.least).to(x.dtype)


@register_likelihood
@dataclass(frozen=True)
class Binomial(TabularLikelihood):
    """A binomial distribution for each channel, whose log-odds depend on the channels before."""

    channels: int
    levels: int
    slopes: tuple[float, ...] = (0.5,)

    @property
    def num_params(self) -> int:
        return self.channels

    def logits(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
        every = torch.arange(self.levels, device=params.device).to(params.dtype).view(-1, *[1] * (params.dim() - 2))
        ways = -torch.lgamma(every + 1) - torch.lgamma(self.levels - every)
        odds = params[:, channel] + self.slopes[0] * x[:, :channel].sum(1) / self.levels
        return ways + every * odds[:, None]


@pytest.fixture(autouse=True)
def _own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    for registry in (AUXILIARIES, LIKELIHOODS):
        monkeypatch.setattr(registry, "classes", dict(registry.classes))


def tiny(scramble: Scramble, channels: int, levels: int, chain: list[Auxiliary], **options: Any) -> ImageModel:
    torch.manual_seed(0)
    model = ImageModel(channels, levels, chain, **{**TINY, **options})
    scramble(model, 1)
    return model


def images(levels: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(levels, shape, generator=torch.Generator().manual_seed(seed))


def every_image(channels: int, levels: int, size: tuple[int, int]) -> Tensor:
    number = channels * size[0] * size[1]
    return torch.cartesian_prod(*[torch.arange(levels)] * number).view(-1, channels, *size)


def assert_has_views(model: ImageModel, views: list[Tensor]) -> None:
    """Every channel of every view is that of the image."""
    for made, drawn in zip(model.views(views[0]), views, strict=True):
        assert torch.equal(made.long(), drawn.long())


CHAINS: list[list[Auxiliary]] = [
    [Posterize(3)],
    [SmallGray()],
    [Posterize(5), SmallGray()],
    [Downsample(2), Posterize(2)],
]
CHAINS += [[SmallGray(), Posterize(4)]]


@pytest.mark.parametrize("chain", CHAINS, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (4, 7), (5, 12)])
def test_images_agree_with_a_view_of_ones_own_in_every_channel(
    scramble: Scramble, chain: list[Auxiliary], channels: int, size: tuple[int, int]
) -> None:
    """Law: the views of a drawn image are those drawn before it, by every schedule."""
    model = tiny(scramble, channels, 16, chain)
    views = all_views(model, 3, size, seed=1)
    assert_has_views(model, views)
    assert model.log_prob(views[0]).isfinite().all()
    schedules: tuple[Schedule, ...] = "naive", "raster"
    for schedule in schedules:
        again = all_views(model, 3, size, seed=1, options=DrawOptions(schedule=schedule))
        assert all(torch.equal(a, b) for a, b in zip(again, views, strict=True))


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_images_agree_with_a_view_that_is_given(scramble: Scramble, chain: list[Auxiliary]) -> None:
    """Law: a free model that is asked to be consistent draws images that have the given view in every channel."""
    model = tiny(scramble, 3, 16, chain, consistent=False)
    for k, view in enumerate(model.views(images(16, 4, 3, 5, 7))[1:], 1):
        for seed in (0, 7):
            drawn = all_views(model, 4, (5, 7), seed=seed, given=(k, view), options=DrawOptions(consistent=True))
            assert_has_views(model, [*drawn, view, *model.views(drawn[0])[k + 1 :]])
    free = all_views(model, 4, (5, 7), given=(1, model.views(images(16, 4, 3, 5, 7))[1]))
    assert not torch.equal(model.views(free[0])[1].long(), model.views(images(16, 4, 3, 5, 7))[1])


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_images_are_completed_view_by_view(
    scramble: Scramble, chain: list[Auxiliary], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: known pixels stay, and the completed image has the completed views, in every channel."""
    model = tiny(scramble, 3, 16, chain, consistent=False)
    x, unknown = images(16, 4, 3, 5, 7), images(2, 4, 5, 7, seed=3) > 0
    drawn: list[list[Tensor]] = []
    draw = ImageModel.draw

    def watched(self: ImageModel, *arguments: Any) -> Iterator[tuple[int, Tensor]]:
        views = list(draw(self, *arguments))
        drawn.append([view for _, view in reversed(views)])
        return iter(views)

    monkeypatch.setattr(ImageModel, "draw", watched)
    completed = complete(model, x, unknown, seed=5)
    assert torch.equal(completed.long().masked_fill(unknown[:, None], 0), x.masked_fill(unknown[:, None], 0))
    assert not torch.equal(completed.long(), x)
    assert torch.equal(drawn[0][0], completed)
    assert_has_views(model, drawn[0])


@pytest.mark.parametrize(
    ("auxiliary", "channels", "levels", "size"),
    [
        (Posterize(2), 3, 3, (1, 2)),
        (Posterize(3), 1, 5, (2, 2)),
        (SmallGray(), 3, 2, (2, 2)),
        (SmallGray(), 3, 3, (1, 2)),
        (SmallGray(), 3, 2, (1, 3)),
        (SmallGray(), 1, 3, (3, 2)),
    ],
    ids=str,
)
def test_the_images_of_a_view_of_ones_own_sum_to_one(
    scramble: Scramble, auxiliary: Auxiliary, channels: int, levels: int, size: tuple[int, int]
) -> None:
    """Law: all images sum to one, so do those of each view given it, and images are drawn as often as that says."""
    model = tiny(scramble, channels, levels, [auxiliary])
    x = every_image(channels, levels, size)
    view = model.views(x)[1]
    kinds, members = view.flatten(1).unique(dim=0, return_inverse=True)
    with torch.no_grad():
        log_probs = model.log_prob(x).exp()
        masses = model.factors[0].log_prob(x, view, consistent=True).exp()
    assert abs(float(log_probs.sum()) - 1) < 1e-9
    totals = torch.zeros(len(kinds), dtype=torch.float64).index_add(0, members, masses)
    assert float((totals - 1).abs().max()) < 1e-9
    digits = levels ** torch.arange(x[0].numel()).flip(0)
    codes = (sample(model, 2000, size).flatten(1).long() * digits).sum(1)
    assert_follows(torch.bincount(codes, minlength=len(x)), log_probs)


@pytest.mark.parametrize("auxiliary", [Posterize(7), SmallGray()], ids=str)
def test_large_images_with_views_of_ones_own_score_in_tiles(
    scramble: Scramble, auxiliary: Auxiliary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: with little memory there are more tiles, whose maps are those of the whole image."""
    model = tiny(scramble, 3, 256, [auxiliary])
    x = images(256, 1, 3, 41, 30)
    whole = surprisal(model, x)
    monkeypatch.setattr(memory, "LITTLE", 10**6)
    monkeypatch.setattr(tiles, "NO_MATTER", 0)
    monkeypatch.setattr(memory, "free_memory", lambda device: 3 * 10**6)
    assert len(tiles.plan(model.factors, 1, model.sizes((41, 30)), consistent=True)[0].rows) > 1
    for maps, scored in zip(whole, surprisal(model, x), strict=True):
        assert float((maps - scored).abs().max()) < 1e-10


@pytest.mark.parametrize(
    ("auxiliary", "arguments"),
    [
        (Posterize(2), {}),
        (Posterize(3), {"levels": 4, "channels": 3}),
        (SmallGray(), {}),
        (SmallGray(), {"levels": 2, "channels": 3}),
        (SmallGray(), {"levels": 2, "channels": 3, "size": (2, 2)}),
        (SmallGray(), {"levels": 2, "size": (2, 5)}),
        (Edges(), {"channels": 3}),
    ],
    ids=str,
)
def test_the_check_finds_nothing_wrong_with_what_is_right(auxiliary: Auxiliary, arguments: dict[str, Any]) -> None:
    """Law: and it takes a second at most for small formats."""
    check_auxiliary(auxiliary, **arguments)


class Generous(Posterize):
    """Bounds that are too wide by one."""

    def sums(self, view: Tensor, size: tuple[int, int], levels: int) -> Bounds:
        lowest, highest = super().sums(view, size, levels)
        return Bounds(lowest, highest + 1)


class Strict(Posterize):
    """Bounds that are too narrow by one."""

    def sums(self, view: Tensor, size: tuple[int, int], levels: int) -> Bounds:
        lowest, highest = super().sums(view, size, levels)
        return Bounds(lowest + 1, highest)


class WrongTones(Posterize):
    def view_format(self, channels: int, levels: int) -> tuple[int, int]:
        return channels, self.tones - 1


class TooManyTones(Posterize):
    """A last tone that no image has."""

    def view_format(self, channels: int, levels: int) -> tuple[int, int]:
        return channels, self.tones + 1


class WrongChannels(Posterize):
    def view_format(self, channels: int, levels: int) -> tuple[int, int]:
        return channels + 1, self.tones


class WrongSize(Posterize):
    def __call__(self, x: Tensor, levels: int) -> Tensor:
        return super().__call__(x, levels)[:, :, ::2]


class Fractions(Posterize):
    def __call__(self, x: Tensor, levels: int) -> Tensor:
        return x * self.tones / levels


class Overflowing(Posterize):
    """A product of bytes, which is right for tiny images alone."""

    def __call__(self, x: Tensor, levels: int) -> Tensor:
        return x * self.tones // levels


class OfTheBatch(Posterize):
    """Tones relative to the brightest image of the batch."""

    def __call__(self, x: Tensor, levels: int) -> Tensor:
        return super().__call__(x, levels) * (x.amin() == 0)


class Negative(Posterize):
    """The brightest tone first: `complete` needs views that grow with the image."""

    def __call__(self, x: Tensor, levels: int) -> Tensor:
        return self.tones - 1 - super().__call__(x, levels)

    def sums(self, view: Tensor, size: tuple[int, int], levels: int) -> Bounds:
        return super().sums(self.tones - 1 - view, size, levels)


class Smeared(Posterize):
    """A view that looks at the pixel to the left, which is in another cell."""

    def __call__(self, x: Tensor, levels: int) -> Tensor:
        return super().__call__(torch.maximum(x, F.pad(x, (1, 0))[:, :, :, :-1]), levels)


class LooksAtValues(Posterize):
    """Bounds by way of Python's numbers, which tensors on the device "meta" do not have."""

    def sums(self, view: Tensor, size: tuple[int, int], levels: int) -> Bounds:
        lowest, highest = super().sums(view, size, levels)
        return Bounds(lowest, torch.tensor(highest.tolist()))


class OneCell(Posterize):
    """One cell for all channels of a pixel, whose sum is not what the view says."""

    joint_channels = True


class CellsOfOne(SmallGray):
    """A cell for each channel, though the view is of their sum."""

    joint_channels = False


class OwnWeights(SmallGray):
    """Other weights in the bounds than in the view."""

    def __call__(self, x: Tensor, levels: int) -> Tensor:
        return super().__call__(x.flip(1), levels)


class IgnoresWhatFollows(SmallGray):
    """Bounds as if the sub-pixels that follow were zero."""

    def limits(self, box: Bounds, view: Tensor, levels: int) -> Bounds:
        nothing = Bounds(torch.zeros_like(box.lowest), torch.zeros_like(box.lowest))
        return super().limits(nothing, view, levels)


class LooksAhead(SmallGray):
    """Bounds given the sub-pixels that follow instead of those before."""

    def partial_sums(self, x: Tensor) -> tuple[Tensor, Tensor]:
        before, after = super().partial_sums(x)
        return after, before


class ScoresOtherwise(SmallGray):
    """Bounds for scores that are not those for draws."""

    def bounds(self, x: Tensor, view: Tensor, levels: int) -> Bounds:
        lowest, highest = super().bounds(x, view, levels)
        return Bounds(lowest.clamp_min(0), highest + 1)


class WrongEstimate(SmallGray):
    """One number for a cell instead of one for each sub-pixel."""

    def expectation(self, view: Tensor, channels: int, size: tuple[int, int], levels: int) -> Tensor:
        return view.double()


class Digits(SmallGray):
    """The channels as binary digits: each view is that of an image, but green steps over some of red."""

    @property
    def shrinkage(self) -> int:
        return 1

    def view_format(self, channels: int, levels: int) -> tuple[int, int]:
        if levels > 2:
            raise ValueError(f"levels={levels!r}: use 2")
        return 1, 2**channels

    def __call__(self, x: Tensor, levels: int) -> Tensor:
        weights = torch.tensor(self.weights(x.shape[1]), device=x.device)[:, None, None]
        return (x.long() * weights).sum(1, True).to(x.dtype)

    def weights(self, channels: int) -> list[int]:
        return [1, 2, 4][:channels]

    def sums(self, view: Tensor, size: tuple[int, int], levels: int) -> Bounds:
        return Bounds(view, view)


class SkippedSums(Digits):
    """A weight so large that no image has some of the sums."""

    def weights(self, channels: int) -> list[int]:
        return [1, 2, 8][:channels]

    def view_format(self, channels: int, levels: int) -> tuple[int, int]:
        return 1, super().view_format(channels, levels)[1] + 4


@pytest.mark.parametrize(
    ("auxiliary", "arguments", "message"),
    [
        (Generous(2), {}, "lies within the bounds of a view that it does not have"),
        (Strict(2), {}, "does not lie within the bounds of its own view|has no value left"),
        (WrongTones(2), {}, r"views are .* from 0 to 1, not torch.int64 .* from 0 to 0"),
        (TooManyTones(2), {}, r"of 3 views \(1, 1, 1\) only 2 are those of an image"),
        (WrongChannels(2), {}, r"views are .*\(3, 1, 1, 1\).*, not torch.int64 \(3, 2, 1, 1\)"),
        (WrongSize(2), {}, r"views are .*\(9, 1, 1, 1\).*, not torch.int64 \(9, 1, 2, 1\)"),
        (Fractions(2), {}, "views are torch.float32"),
        (Overflowing(2), {}, "the view of bytes is not that of the same numbers"),
        (OfTheBatch(2), {}, "the view of an image differs when it is alone"),
        (Negative(2), {}, "does not move its view by zero or one"),
        (Smeared(2), {}, "only .* are those of an image|does not move its view|a view that it does not have"),
        (LooksAtValues(2), {}, "without values, on the device 'meta', it fails"),
        (OneCell(2), {"channels": 3}, "has no value left|does not lie within|does not have"),
        (CellsOfOne(), {"channels": 3, "levels": 2}, "has no value left|does not lie within|does not have"),
        (OwnWeights(), {"channels": 3, "levels": 2}, "has no value left|does not lie within|does not have"),
        (IgnoresWhatFollows(), {}, "has no value left|does not lie within the bounds of its own view"),
        (LooksAhead(), {}, "has bounds that depend on a later sub-pixel|has no value left|does not lie within"),
        (ScoresOtherwise(), {}, "a view that it does not have|has other bounds when it is filled pixel by pixel"),
        (WrongEstimate(), {}, r"the expectation is \(9, 1, 1, 1\), not finite numbers \(9, 1, 1, 2\)"),
        (Digits(), {"channels": 3, "levels": 2}, "does not move its view by zero or one"),
        (SkippedSums(), {"channels": 3, "levels": 2}, r"of 12 views \(1, 1, 1\) only 8 are those of an image"),
        (Posterize(2), {"size": (4, 4)}, r"size=\(4, 4\): 43046721 images are too many"),
    ],
    ids=str,
)  # fmt: skip
def test_the_check_finds_what_is_wrong(auxiliary: Auxiliary, arguments: dict[str, Any], message: str) -> None:
    """Law: one error that names what is wrong, and where it can the image and the view."""
    with pytest.raises(ValueError, match=message):
        check_auxiliary(auxiliary, **arguments)


def test_a_free_view_needs_nothing_else(scramble: Scramble, tmp_path: Path) -> None:
    """Law: an edge map is scored, drawn, trained, saved and loaded like the views that come with the package."""
    model = ImageModel(3, 256, [Edges(8), Posterize(2)], **TINY, consistent=False)
    (folder := tmp_path / "pictures").mkdir()
    pictures = load_images(save_noise(folder, 8, (6, 7)))
    run = Run(sheet_minutes=0, initialize=True, device="cpu")
    model = train(model, pictures, tmp_path / "run", Training(batch_size=4), steps=2, run=run)
    x = pictures.batch(range(4))
    assert model.log_prob(x).isfinite().all()
    assert torch.equal(model.views(x)[1], Edges(8)(x, 256))
    save(model, tmp_path / "copy")
    for loaded in (load(tmp_path / "run"), load(tmp_path / "copy")):
        assert loaded.auxiliaries == (Edges(8), Posterize(2))
        assert torch.equal(loaded.log_prob(x), model.log_prob(x))
        views = all_views(loaded, 2, (5, 6))
        assert all(torch.equal(a, b) for a, b in zip(views, all_views(model, 2, (5, 6)), strict=True))
        assert [view.shape[1] for view in views] == [3, 1, 1]


@pytest.mark.parametrize(
    "ask",
    [
        lambda: ImageModel(3, 256, [Edges()], **TINY),
        lambda: sample(free_model(), 1, 4, options=DrawOptions(consistent=True)),
        lambda: setattr(free_model(), "consistent", True),
        lambda: free_model().factors[0](images(256, 1, 3, 4, 4), images(2, 1, 1, 4, 4), consistent=True),
    ],
)
def test_a_free_view_is_refused_where_consistency_is_asked_for(ask: Callable[[], object]) -> None:
    """Law: a remedy is named."""
    message = r"Edges\(least=1\) does not say .* use consistent=False, or derive it from CellAuxiliary"
    with pytest.raises(ValueError, match=message):
        ask()


def free_model() -> ImageModel:
    return ImageModel(3, 256, [Edges()], **TINY, consistent=False)


def test_an_image_with_a_free_view_is_not_completed() -> None:
    """Law: the remedy is not one that the model has already."""
    with pytest.raises(ValueError, match=r"which known pixels need: derive it from CellAuxiliary$"):
        complete(free_model(), images(256, 1, 3, 4, 4), torch.ones(4, 4) > 0)


def registered_elsewhere() -> type:
    @dataclass(frozen=True)
    class Posterize(Edges):
        pass

    return Posterize


class NotFrozen(Edges):
    """It has the fields of another class, and so would be saved without its own."""


@dataclass(frozen=True)
class Unregistered(Edges):
    least: int = 3


@register_auxiliary
@dataclass(frozen=True)
class WithTensor(Edges):
    kernel: Tensor = field(default_factory=lambda: torch.ones(3))


@register_auxiliary
@dataclass(frozen=True)
class WithName(Edges):
    name: str = "mine"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: register_auxiliary(registered_elsewhere()), "Posterize: .* has registered a class of that name"),
        (lambda: register_auxiliary(NotFrozen), r"register classes that extend Auxiliary and have @data"),
        (lambda: register_auxiliary(Binomial), r"register classes that extend Auxiliary and have @data"),
        (lambda: register_likelihood(Posterize), r"register classes that extend Likelihood and have @dat"),
        (lambda: of_auxiliary(Unregistered()).config.to_json(), "not registered; decorate it with @register_auxiliary"),
        (lambda: of_auxiliary(WithTensor()).config.to_json(), "its fields cannot be saved; use numbers, strings and"),
        (lambda: of_auxiliary(WithName()).config.to_json(), "its fields cannot be saved; .* and no field `name`"),
    ],
)  # fmt: skip
def test_what_could_not_be_loaded_is_refused(ask: Callable[[], object], message: str) -> None:
    """Law: when it is registered or saved, not when the model is needed again."""
    with pytest.raises(ValueError, match=message):
        ask()


def of_auxiliary(auxiliary: Auxiliary) -> ImageModel:
    return ImageModel(3, 256, [auxiliary], **TINY, consistent=False)


def test_a_class_may_be_registered_again() -> None:
    """Law: as in a notebook whose cell is run twice: the last one counts."""
    first, second = (dataclass(frozen=True)(type("Cell", (Edges,), {"__module__": "here"})) for _ in range(2))
    assert register_auxiliary(first) is first
    assert register_auxiliary(second) is second
    assert type(AUXILIARIES.build({"name": "Cell", "least": 2})) is second


def test_an_unregistered_view_fails_before_it_is_trained(tmp_path: Path) -> None:
    """Law: a run is not lost because its model cannot be saved."""
    (folder := tmp_path / "pictures").mkdir()
    pictures = load_images(save_noise(folder, 8, (6, 7)))
    with pytest.raises(ValueError, match="not registered"):
        train(of_auxiliary(Unregistered()), pictures, tmp_path / "run", Training(batch_size=4), steps=10**9)


@pytest.mark.parametrize("kind", ["auxiliary", "likelihood"])
def test_a_file_imports_nothing(kind: str, tmp_path: Path) -> None:
    """Law: an unknown name, even that of a module, is an error that says what to do; no code is looked for."""
    model = ImageModel(3, 256, [Edges()], **TINY, consistent=False, likelihoods=[Binomial(3, 256), None])
    save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_bytes())
    which = "auxiliaries" if kind == "auxiliary" else "likelihoods"
    registry = AUXILIARIES if kind == "auxiliary" else LIKELIHOODS
    (tmp_path / "mine_alone.py").write_text("raise SystemExit")
    for name in (config[which][0]["name"], "mine_alone", "mine_alone.Posterize", "antigravity"):
        registry.classes.pop(name, None)
        config[which][0]["name"] = name
        (tmp_path / "config.json").write_text(json.dumps(config))
        before = set(sys.modules)
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(tmp_path)
            with pytest.raises(
                ValueError, match=f"config.json: .*the {kind} '{name}' is not known here .*: import the"
            ):
                load(tmp_path)
        assert set(sys.modules) == before


@pytest.mark.parametrize("chain", [[], [Posterize(3)], [Downsample(2)]], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_likelihood_of_ones_own_is_drawn_saved_and_loaded(
    scramble: Scramble, chain: list[Auxiliary], channels: int, tmp_path: Path
) -> None:
    """Law: all images sum to one, draws follow that, and the loaded model is the same, bit by bit."""
    likelihoods = [Binomial(channels, 3, (0.7, 2.0)), *([None] * len(chain))]
    model = tiny(scramble, channels, 3, chain, likelihoods=likelihoods)
    size = (1, 2) if channels == 3 else (2, 2)
    x = every_image(channels, 3, size)
    with torch.no_grad():
        probabilities = model.log_prob(x).exp()
    assert abs(float(probabilities.sum()) - 1) < 1e-6  # a likelihood computes in float64 where the network does
    digits = 3 ** torch.arange(x[0].numel()).flip(0)
    views = all_views(model, 3000, size)
    assert_has_views(model, views)
    assert_follows(torch.bincount((views[0].flatten(1).long() * digits).sum(1), minlength=len(x)), probabilities)
    model.float()
    save(model, tmp_path)
    loaded = load(tmp_path)
    assert loaded.config == model.config
    assert loaded.factors[0].likelihood == Binomial(channels, 3, (0.7, 2.0))
    assert hash(loaded.factors[0].likelihood) == hash(likelihoods[0])
    assert torch.equal(loaded.log_prob(x), model.log_prob(x))
    assert all(torch.equal(a, b) for a, b in zip(all_views(loaded, 4, size), all_views(model, 4, size), strict=True))


def test_draws_of_a_table_follow_its_pmf() -> None:
    """Law: a pixel is drawn channel by channel as often as pmf says, also between bounds."""
    family = Binomial(3, 4)
    params = torch.tensor([0.3, -0.4, 0.1], dtype=torch.float64).view(1, 3, 1).expand(-1, -1, 6000)
    noise = torch.rand(1, family.num_noise, 6000, generator=torch.Generator().manual_seed(0))
    every = every_image(3, 4, (1, 1))[:, :, 0].permute(2, 1, 0)  # (1, 3, 64)
    for box in (None, (1, 2)):
        bounds = None if box is None else Bounds(*(torch.full_like(every, end) for end in box))

        def following(drawn: list[Tensor], box: tuple[int, int] | None = box) -> Bounds:
            low, high = (torch.full((1, 6000), end) for end in box or (0, 3))
            return Bounds(low, high)

        draws = family.sample(params, noise, bounds=following if box else None)
        tables = [family.pmf(params[:, :, :64], every, c, bounds).gather(1, every[:, c, None])[0, 0] for c in range(3)]
        counts = torch.bincount((draws[0] * torch.tensor([[16], [4], [1]])).sum(0), minlength=64)
        assert_follows(counts, torch.stack(tables).prod(0))


class Unnormalized(Binomial):
    def log_prob(self, params: Tensor, x: Tensor, bounds: Bounds | None = None) -> Tensor:
        return super().log_prob(params, x, bounds) + 0.01


class Peeking(Binomial):
    """A channel that depends on itself."""

    def logits(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
        return super().logits(params + x[:, [channel]], x, channel)


class IgnoresBounds(Binomial):
    def log_prob(self, params: Tensor, x: Tensor, bounds: Bounds | None = None) -> Tensor:
        return super().log_prob(params, x)


class OtherPmf(Binomial):
    def pmf(self, params: Tensor, x: Tensor, channel: int = 0, bounds: Bounds | None = None) -> Tensor:
        return super().pmf(-params, x, channel, bounds)


class Infinite(Binomial):
    """A level without a probability."""

    def logits(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
        logits = super().logits(params, x, channel)
        return torch.cat([torch.full_like(logits[:, :1], -math.inf), logits[:, 1:]], 1)


class NoGradient(Binomial):
    def logits(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
        return super().logits(params, x, channel) + (0 * params[:, :1]).sqrt()


class FlatCanvas(Binomial):
    """A sum over all positions, which a single one does not show."""

    def log_prob(self, params: Tensor, x: Tensor, bounds: Bounds | None = None) -> Tensor:
        log_prob = super().log_prob(params, x, bounds)
        return log_prob.sum(-1, keepdim=True).expand_as(log_prob)


class OutOfRange(Binomial):
    def sample(self, params: Tensor, noise: Tensor, **options: Any) -> Tensor:
        return super().sample(params, noise, **options) + 1


class Random(Binomial):
    def sample(self, params: Tensor, noise: Tensor, **options: Any) -> Tensor:
        return super().sample(params, torch.rand_like(noise), **options)


class OtherDraws(Binomial):
    """Draws from the middle of the distribution alone."""

    def sample(self, params: Tensor, noise: Tensor, **options: Any) -> Tensor:
        return super().sample(params, 0.1 + 0.8 * noise, **options)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("family", "message"),
    [
        (Unnormalized, "the probabilities of all pixels without bounds sum to 1.01"),
        (Peeking, "the probabilities of all pixels without bounds sum to"),
        (IgnoresBounds, r"the probabilities of all pixels in \[1, 2\] sum to 0"),
        (OtherPmf, "pmf and log_prob without bounds differ"),
        (Infinite, "log_prob without bounds is not finite"),
        (NoGradient, "the gradient of log_prob without bounds is not finite"),
        (FlatCanvas, r"log_prob without bounds of a canvas \(H, W\) is not that of its pixels"),
        (OutOfRange, r"draws without bounds are not integers .* in \[0, 3\]"),
        (Random, "two draws without bounds from the same noise differ"),
        (OtherDraws, "draws without bounds do not follow log_prob"),
    ],
)
def test_the_check_of_a_likelihood_finds_what_is_wrong(family: type[Binomial], message: str, channels: int) -> None:
    """Law: one error that names it, and none for the class that all of them extend."""
    check_likelihood(Binomial(channels, 4))
    with pytest.raises(ValueError, match=f"{family.__name__}.*{message}"):
        check_likelihood(family(channels, 4))


def test_too_many_pixels_to_try() -> None:
    """Law: the remedy is named."""
    with pytest.raises(ValueError, match="levels=64: 262144 pixels are too many to try; check it with fewer levels"):
        check_likelihood(LogisticMixture(3, 64, 2))


@pytest.mark.parametrize(
    ("likelihoods", "message"),
    [
        ([Binomial(3, 16)], "use one for each of the 2 views, or None for its default"),
        ([Binomial(3, 16), None, None], "use one for each of the 2 views"),
        (Binomial(3, 16), "use one for each of the 2 views"),
        ([Binomial(1, 16), None], r"Binomial\(channels=1, .* is not one of 3 channels and 16 levels"),
        ([Binomial(3, 8), None], r"Binomial\(channels=3, levels=8, .* is not one of 3 channels and 16 levels"),
        ([None, Binomial(3, 16)], "is not one of 1 channels and 2 levels"),
        ([None, Categorical(4)], r"Categorical\(levels=4, channels=1\) is not one of 1 channels and 2 levels"),
        (["Binomial", None], "'Binomial' is not one of 3 channels"),
    ],
)
def test_likelihoods_must_fit_the_views(likelihoods: Any, message: str) -> None:
    """Law: another number, format or type is quoted."""
    with pytest.raises(ValueError, match=message):
        ImageModel(3, 16, [Edges()], **TINY, consistent=False, likelihoods=likelihoods)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"levels": 16}, "describe each likelihood by an object with a name"),
        ({"name": "Binomial"}, "Binomial: .*missing"),
        ({"name": "Binomial", "channels": 3, "levels": 16, "more": 1}, "Binomial: .*'more'"),
        (
            {"name": "LogisticMixture", "channels": 3, "levels": 16, "components": 10**18},
            "at most 65536 parameters of a pixel",
        ),
        ({"name": "LogisticMixture", "channels": 3, "levels": 16, "components": -1}, "components=-1"),
        (3, "describe each likelihood by an object with a name"),
        ("", "describe each likelihood by an object with a name"),
        ({}, "describe each likelihood by an object with a name"),
    ],
)
def test_a_likelihood_in_a_file_is_checked(description: object, message: str) -> None:
    """Law: whatever a file says is a likelihood or one clear error."""
    config = ImageModel(3, 16, **TINY).config.to_json()
    with pytest.raises(ValueError, match=message):
        ImageModel.from_config(config | {"likelihoods": [description]})


@pytest.mark.parametrize("value", [3, "Binomial", {"name": "Binomial"}, []])
def test_likelihoods_in_a_file_are_a_list(value: object) -> None:
    """Law: with one entry for each view."""
    config = ImageModel(3, 16, **TINY).config.to_json()
    with pytest.raises(ValueError, match=r"likelihoods=.*: use (a list|one for each of the 1 views)"):
        ImageModel.from_config(config | {"likelihoods": value})
