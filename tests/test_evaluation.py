"""Laws of scoring in tiles: the scores of the whole image, within the free memory, or an early one-line error."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from conftest import WATCH_MEMORY, Scramble, inside, save_noise
from torch import Tensor

from pixelcnn.auxiliary import chain as chain_module
from pixelcnn.auxiliary.chain import Link
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.common import progress
from pixelcnn.data.images import load_images
from pixelcnn.models import image_model, memory, tiles
from pixelcnn.models.factor import Factor
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.margins import Margins
from pixelcnn.models.presets import PixelCNN, PyramidPixelCNN
from pixelcnn.models.tiles import Tiling, meta_twin, score_by_tiles
from pixelcnn.nn.layers import Edges, concat_elu
from pixelcnn.tasks.scoring import evaluate, surprisal

TINY: dict[str, Any] = {"filters": 3, "blocks": 1, "scales": 1, "embedding_blocks": 1}


def plan(model: ImageModel, number: int, size: tuple[int, int]) -> list[Tiling]:
    return tiles.plan(model.factors, number, model.sizes(size), consistent=model.consistent)


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gray": {"channels": 1, "blocks": 2},
    "three scales": {"scales": 3},
    "classes": {"scales": 2, "classes": 3},
    "half the size": {"auxiliaries": [Downsample(2)]},
    "half the size, two scales": {"auxiliaries": [Downsample(2)], "scales": (2, 1), "embedding_scales": 1},
    "a third and gray": {
        "auxiliaries": [Downsample(3), QuantizedGrayscale(4)],
        "scales": (2, 1, 1),
        "classes": 3,
    },
    "a quarter": {"auxiliaries": [Downsample(4)], "embedding_scales": 1},
    "gray view": {"auxiliaries": [QuantizedGrayscale(4)], "scales": (1, 3), "embedding_scales": 3},
}
MEASURE = (
    WATCH_MEMORY
    + """
import torch
from pixelcnn.models import memory
from pixelcnn.auxiliary.chain import Link
from pixelcnn.models import tiles
from pixelcnn.models.margins import Margins
from pixelcnn.tasks.scoring import surprisal
from pixelcnn.models.presets import PixelCNN

torch.set_num_threads(1)
model = PixelCNN(filters=4, blocks=1, scales=1)
memory.LITTLE, tiles.NO_MATTER = 2 * 10**7, 0
x = torch.randint(0, 256, (1, 3, 300, 400), dtype=torch.uint8)
surprisal(model, x[:, :, :50, :50])
before = resident()
threading.Thread(target=watch, daemon=True).start()
surprisal(model, x)
print(peak[0] - before)
"""
)


def make(scramble: Scramble, kind: str, **more: Any) -> ImageModel:
    return cast("ImageModel", scramble(ImageModel(**TINY | KINDS[kind] | more)))


def some_images(model: ImageModel, number: int, size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
    """Make noise images and labels."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, (number, model.formats[0][0], *size), dtype=torch.uint8, generator=generator)
    return x, torch.arange(number) % model.classes if model.classes else None


def gigabytes(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: int(free * 1e9))


@pytest.mark.parametrize("consistent", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_score_like_the_whole_image(scramble: Scramble, kind: str, consistent: bool) -> None:
    """Law: every pixel of every factor scores the same in tiles, at an odd size, in the smallest and larger tiles."""
    model = make(scramble, kind, consistent=consistent)
    (x, labels), (small, _) = some_images(model, 3, (49, 37)), some_images(model, 3, (13, 7))
    with torch.no_grad():
        for images, length in ((x, 17), (small, 3)):
            for factor, (view, given) in zip(model.factors, model.links(images), strict=True):
                margins = Margins(factor)
                tiling = Tiling(2, *(margins.cut(axis, view.shape[2 + axis], length) for axis in range(2)))
                scored = score_by_tiles(
                    factor, tiling, Link(view, given), labels, lambda pixels: None, consistent=consistent
                )
                assert (
                    float((scored - factor.pixel_log_prob(view, given, labels, consistent=consistent)).abs().max())
                    < 1e-11
                )


@pytest.mark.parametrize("kind", KINDS)
def test_margins_are_as_wide_as_unknown_surroundings_reach(scramble: Scramble, kind: str) -> None:
    """Law: next to pixels that change, exactly the counted rows and columns change too."""
    generator = torch.Generator().manual_seed(0)

    def check(function: Callable[[Tensor], Tensor], margins: Edges, channels: int, step: int, growth: int) -> None:
        side = step * (2 * max(margins) // step + 4)
        for axis in range(2):
            for end in range(2):
                x = torch.randn(1, channels, side, side, generator=generator, dtype=torch.float64)
                other = x.clone()
                other.narrow(2 + axis, end * (side - step), step).neg_()
                spoilt = (function(x) != function(other))[0].any(0).any(1 - axis)
                assert int(spoilt.sum()) == growth * step + margins[2 * axis + end]

    def check_factor(factor: Factor) -> None:
        margins, network, embedding = Margins(factor), factor.network, factor.embedding

        def causal(x: Tensor) -> Tensor:
            context = x.new_zeros(1, network.context, 1, 1) if network.context else None
            return network.evaluate(x, [concat_elu(each) for each in network.contexts(context, x.shape[2:])])

        check(causal, margins.window, network.first.u.direction.shape[1], 2 ** (network.scales - 1), 1)
        if embedding is not None:
            f = embedding.upsample
            check(embedding.trunk, margins.trunk, embedding.channels + 1, margins.trunk_step, 1)
            check(
                lambda x: embedding.enlarge_to(x, (f * x.shape[2], f * x.shape[3])),
                margins.enlarged,
                network.context,
                1,
                f,
            )

    with torch.no_grad():
        for factor in make(scramble, kind).factors:
            check_factor(factor)


@pytest.mark.parametrize("kind", ["three scales", "a third and gray"])
def test_free_memory_does_not_change_the_result(scramble: Scramble, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: little memory means more tiles with the same maps; the reported share of work grows to one."""
    model = make(scramble, kind)
    x, labels = some_images(model, 2, (55, 70))
    expected = surprisal(model, x, labels)
    whole = plan(model, 2, (55, 70))
    assert all((tiling.images, len(tiling.rows), len(tiling.cols)) == (2, 1, 1) for tiling in whole)
    gigabytes(monkeypatch, 0.02)
    tilings = plan(model, 2, (55, 70))
    assert min(tiling.images for tiling in tilings) == 1
    assert max(len(tiling.rows) * len(tiling.cols) for tiling in tilings) > 1
    shares: list[float] = []
    for maps, scored in zip(expected, surprisal(model, x, labels, callback=shares.append), strict=True):
        assert float((maps - scored).abs().max()) < 1e-11
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(shares) > len(model.factors)


def test_maps_add_up_to_bits_per_dim(scramble: Scramble) -> None:
    model = make(scramble, "half the size")
    x, _ = some_images(model, 2, (9, 10))
    maps = surprisal(model, x)
    for k, bits in enumerate(model.bits_per_dim(x).factors.T):
        assert maps[k].sum((1, 2)) / x[0].numel() == pytest.approx(bits.tolist(), rel=1e-9)


def test_batches_do_not_change_the_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: neither the batch size nor short memory, which reduces it, changes the mean."""
    images = load_images(save_noise(tmp_path, 5, (40, 36)), "all")
    model = PyramidPixelCNN(1, **TINY)
    expected = evaluate(model, images)
    sizes: list[int] = []
    batch = images.batch
    monkeypatch.setattr(images, "batch", lambda indices: sizes.append(len(indices)) or batch(indices))
    for free, batch_size in ((20.0, 2), (0.015, 32)):
        gigabytes(monkeypatch, free)
        assert evaluate(model, images, batch_size=batch_size).factors == pytest.approx(expected.factors, rel=1e-6)
    assert sizes[:3] == [2, 2, 1]
    assert min(tiling.images for tiling in plan(model, 5, (40, 36))) == 1


def test_views_are_made_band_by_band(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ImageModel(auxiliaries=[Downsample(3), Downsample(2), QuantizedGrayscale(2)], **TINY)
    x, _ = some_images(model, 2, (31, 17))
    whole = model.views(x)
    monkeypatch.setattr(chain_module, "BAND", 100)
    for (view, given), expected, after in zip(model.links(x), whole, [*whole[1:], None], strict=True):
        assert torch.equal(view, expected)
        assert given is None if after is None else torch.equal(cast("Tensor", given), after)
    with pytest.raises(ValueError, match="values from 0 to 300"):
        surprisal(model, torch.tensor([0, 300]).expand(1, 3, 4, 2))


def test_no_shape_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cores cover each pixel once and a tile fits, for a photograph and for a picture a million pixels wide."""
    gigabytes(monkeypatch, 0.2)
    model = PixelCNN(**TINY)
    for size in ((3000, 4000), (20, 10**6)):
        for tiling, (H, W) in zip(plan(model, 1, size), model.sizes(size), strict=True):
            for stretches, side in ((tiling.rows, H), (tiling.cols, W)):
                ends = [stretch.core.stop for stretch in stretches]
                assert [stretch.core.start for stretch in stretches] == [0, *ends[:-1]]
                assert ends[-1] == side
            rows, cols = (each.window.stop - each.window.start for each in tiling.largest())
            assert 4000 < rows * cols < 10**5  # pixels of 4 kB each


def test_margins_are_not_most_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network with a large receptive field gets larger tiles, if they fit."""
    network: dict[str, Any] = {"filters": 2, "blocks": 3, "scales": 3}
    monkeypatch.setattr(memory, "LITTLE", 10**6)
    monkeypatch.setattr(tiles, "NO_MATTER", 10**6)
    gigabytes(monkeypatch, 8)
    (far,), (near,) = (plan(PixelCNN(**options), 1, (500, 500)) for options in (network, TINY))
    assert len(far.rows) < len(near.rows)
    gigabytes(monkeypatch, 0.5)
    (squeezed,) = plan(PixelCNN(**network), 1, (500, 500))
    assert len(squeezed.rows) > len(far.rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("filters", [1, 40])
def test_small_images_need_no_rehearsal(kind: str, filters: int) -> None:
    """Law: the estimate without a rehearsal is above that with one."""
    options: dict[str, Any] = TINY | KINDS[kind] | {"filters": filters, "blocks": 3}
    model = ImageModel(**options)
    for factor in model.factors:
        whole = Tiling(1, *([tiles._whole(factor, side)] for side in (37, 41)))
        rehearsed = memory.SCORING_MARGIN * tiles._tile_memory(meta_twin(factor), whole, (37, 41), True)
        assert rehearsed < 37 * 41 * tiles._generous_memory(factor)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")
def test_scoring_stays_within_its_allowance() -> None:
    """A real process grows by no more than the allowance and the maps; in one piece it would be 350 MB."""
    command = [sys.executable, "-c", MEASURE]
    measured = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert measured < 2e7 + 5e6


def test_too_little_memory_gives_a_one_line_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = save_noise(tmp_path, 1, (8, 8))
    gigabytes(monkeypatch, 1e-6)
    result = inside("score", "photos-pyramid", pictures)
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("pixelcnn:"))
    assert "even in tiles of 8x8 pixels needs about" in line
    assert "use a smaller model" in line
    with pytest.raises(MemoryError, match="even in tiles"):
        evaluate(PixelCNN(**TINY), load_images(pictures, "all"))


def test_one_piece_is_refused_before_it_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`log_prob` of a large image raises early, even earlier with gradients; `surprisal` can score it."""
    monkeypatch.setattr(image_model, "LARGE", 100)
    options: dict[str, Any] = TINY | {"blocks": 4}
    model = PyramidPixelCNN(1, **options).eval()
    x, _ = some_images(model, 1, (64, 64))
    gigabytes(monkeypatch, 0.05)
    with torch.no_grad():
        expected = model.bits_per_dim(x)
    with pytest.raises(MemoryError, match=r"1 images of 64x64 in one piece .* pixelcnn\.surprisal scores large images"):
        model.log_prob(x)
    gigabytes(monkeypatch, 0.01)
    with torch.no_grad(), pytest.raises(MemoryError, match="in one piece"):
        model.log_prob(x)
    bits = sum(float(maps.double().sum()) for maps in surprisal(model, x)) / x.numel()
    assert bits == pytest.approx(float(expected.total), rel=1e-5)


def test_a_late_bar_does_not_appear_early(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    for patience, seen in ((60, False), (0, True)):
        monkeypatch.setattr(progress, "PATIENCE", patience)
        with progress.late_bar("scoring a[b].png", visible=True) as show:
            show(0.5)
        assert ("scoring a[b].png" in capsys.readouterr().err) == seen
