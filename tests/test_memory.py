"""Memory estimates for training: accurate within bounds, free of side effects, and made before the first step."""

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import WATCH_MEMORY, inside, save_noise
from torch import Tensor

from pixelcnn.auxiliary.base import Auxiliary
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.data.images import Images, load_images
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.memory import rehearse
from pixelcnn.models.presets import PixelCNN, PyramidPixelCNN
from pixelcnn.training import memory
from pixelcnn.training.loop import train
from pixelcnn.training.memory import (
    GPU,
    LASTING,
    WRITING,
    Estimate,
    Margin,
    check_training_memory,
    generous_memory,
    largest_batch,
    training_memory,
)
from pixelcnn.training.options import Run, Training

TINY: dict[str, Any] = {"filters": 4, "blocks": 1, "embedding_blocks": 1}
MEASURE = (
    WATCH_MEMORY
    + """
import ctypes, sys
import torch
from pixelcnn.data.images import load_images
from pixelcnn.models.presets import PixelCNN
from pixelcnn.training.loop import train
from pixelcnn.training.options import Run, Training

pictures, out = Path(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
images = load_images(pictures)
threading.Thread(target=watch, daemon=True).start()
for name, way in (("plain", {}), ("bf16", {"bf16": True}), ("recompute", {"recompute": True})):
    options = {"steps": 2, "run": Run(sheet_minutes=0, device="cpu")}
    train(PixelCNN(filters=4, blocks=1), images, out / f"first-{name}", Training(batch_size=4, **way), **options)
    model = PixelCNN(filters=16, blocks=1, scales=2)
    ctypes.CDLL(None).malloc_trim(0)
    before = peak[0] = resident()
    train(model, images, out / f"second-{name}", Training(batch_size=64, **way), **options)
    print(peak[0] - before)
"""
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_noise(tmp_path_factory.mktemp("pictures"), 40, (32, 32))


@pytest.fixture(scope="module")
def images(pictures: Path) -> Images:
    return load_images(pictures)


def step(model: ImageModel, k: int = 0, side: int = 16, images: int = 4, *, bf16: bool = False) -> int:
    """Estimate the bytes of a training step alone."""
    size = model.sizes((side, side))[k]
    return rehearse(model.factors[k], images, size, learning=True, consistent=model.consistent, bf16=bf16)


def test_the_rehearsal_counts_what_autograd_keeps(images: Images) -> None:
    """Law: the estimate is at least the distinct tensors that a real forward pass keeps, and at most 1.5 times that."""
    x = images.batch(range(4))
    for model in (PixelCNN(filters=8, blocks=1, scales=2), PyramidPixelCNN(1, **TINY)):
        kept: dict[int, int] = {}
        alive: list[Tensor] = []

        def keep(tensor: Tensor, kept: dict[int, int] = kept, alive: list[Tensor] = alive) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
            return tensor

        view, given = model.links(x)[0]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            nats = model.factors[0](view, given, consistent=True)
        for parameter in model.factors[0].parameters():
            kept.pop(parameter.untyped_storage().data_ptr(), None)
        assert sum(kept.values()) <= step(model, side=32) <= 1.5 * sum(kept.values())
        del nats


@pytest.mark.parametrize(("classes", "consistent"), [(0, True), (3, False)])
def test_the_estimate_grows_with_the_images(classes: int, consistent: bool) -> None:
    """For every kind of factor, at odd sizes too, twice the images need about twice the bytes, and bf16 fewer."""
    model = ImageModel(
        auxiliaries=[Downsample(2), QuantizedGrayscale(4)], **TINY, classes=classes, consistent=consistent
    )
    for k in range(3):
        assert step(model, k, 15, 8) == pytest.approx(2 * step(model, k, 15, 4), rel=0.1)
        assert step(model, k, 15, 8, bf16=True) < step(model, k, 15, 8)


@pytest.mark.parametrize("chain", [[Downsample(4)], [Downsample(2), QuantizedGrayscale(1)]])
@pytest.mark.parametrize(
    "options",
    [{"filters": 1, "scales": 1, "components": 1}, pytest.param({"filters": 32, "classes": 3}, marks=pytest.mark.slow)],
)
def test_no_rehearsal_is_needed_for_what_is_small(chain: list[Auxiliary], options: dict[str, Any]) -> None:
    """Law: the estimate without a rehearsal is above that with one, whether the step or the initialization is more."""
    model = ImageModel(auxiliaries=chain, **TINY | options)
    for k, (images, initial) in itertools.product(range(len(model.factors)), [(2, 0), (1, 4)]):
        generous = generous_memory(model, k, (8, 12), max(images, initial), margin=100)
        for training in (Training(), Training(recompute=True)):
            assert training_memory(model, k, (8, 12), images, initial, training, margin=Margin(100, 100)) < generous


def test_the_estimate_changes_nothing() -> None:
    """The estimate draws no random numbers, and changes or moves no weights."""
    model = PyramidPixelCNN(1, **TINY)
    random, weights = torch.get_rng_state(), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    training_memory(model, 0, (16, 16), 4, 32, Training(bf16=True, recompute=True))
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


def test_the_copies_of_each_weight_count() -> None:
    model = PixelCNN(filters=64, blocks=1, scales=1)
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert training_memory(model, 0, (2, 2), 1, 0, Training()) == (LASTING + WRITING) * weights


@pytest.fixture(scope="module")
def measured(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    """Bytes that a real process grows by: plain, with bf16, and with activations that are recomputed."""
    command = [sys.executable, "-c", MEASURE, str(pictures), str(tmp_path_factory.mktemp("measured"))]
    return [int(line) for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")
@pytest.mark.parametrize("way", range(3), ids=["plain", "bf16", "recompute"])
def test_the_estimate_is_close_to_a_real_run(measured: list[int], way: int) -> None:
    """A real run grows by 0.8 to 1.9 times the estimate without its margin; by at most 2.7 times if it recomputes."""
    training = [Training(), Training(bf16=True), Training(recompute=True)][way]
    model = PixelCNN(filters=16, blocks=1, scales=2)
    assert (
        0.8
        < measured[way] / training_memory(model, 0, (32, 32), 64, 32, training, margin=Margin(1, 1))
        < (2.7 if way == 2 else 1.9)
    )


def test_too_little_memory_is_reported_before_the_first_step(
    images: Images, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error gives both figures and a number of parts that fits; the run in the folder stays as it is."""
    model, run = PyramidPixelCNN(1, **TINY), tmp_path / "run"
    train(model, images, run, Training(batch_size=4), steps=1, run=Run(sheet_minutes=0))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    needed = {n: training_memory(model, 0, (32, 32), 16 // n, 32, Training()) for n in (1, 2)}
    assert needed[2] < needed[1]
    monkeypatch.setattr(memory, "free_memory", lambda device: int(needed[2]) + 1)
    with pytest.raises(MemoryError, match=r"factor 0 on 16 images of 32x32 .* free: use --accumulate 2,"):
        train(model, images, run, Training(batch_size=16), steps=1, run=Run(overwrite=True))
    train(model, images, tmp_path / "parts", Training(batch_size=16, accumulate=2), steps=1, run=Run(sheet_minutes=0))
    train(model, images, tmp_path / "crops", Training(batch_size=16, random_crop=16), steps=1, run=Run(sheet_minutes=0))
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    with pytest.raises(MemoryError, match="no split of the batch fits"):
        train(model, images, run, Training(batch_size=4), steps=2, run=Run(resume=True))
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_the_remedies_are_those_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: with what the error names, the check passes, whatever is free; it names all three kinds of remedies."""
    needed = {(1, False): 100, (2, False): 60, (4, False): 40, (1, True): 50, (2, True): 30, (4, True): 20}
    named = set()

    def lookup(model: object, k: int, size: object, images: int, initial: int, way: Training, **_: object) -> int:
        return needed[4 // images, way.recompute]

    monkeypatch.setattr(memory, "training_memory", lookup)
    monkeypatch.setattr(memory, "generous_memory", lambda *_, **__: 10**9)
    model, device = PixelCNN(filters=1, blocks=1, scales=1), torch.device("cpu")
    for free, (parts, again) in itertools.product(needed.values(), needed):
        monkeypatch.setattr(memory, "free_memory", lambda device, free=free: free)
        how = Training(batch_size=4, accumulate=parts, recompute=again)
        if needed[parts, again] <= free:
            found = check_training_memory(model, [0], (8, 8), how, processes=1, initial=0, device=device)
            assert found == {0: Estimate(needed[parts, again], generous=False)}
            continue
        with pytest.raises(MemoryError) as error:
            check_training_memory(model, [0], (8, 8), how, processes=1, initial=0, device=device)
        if "no split of the batch fits" in str(error.value):
            assert not any(
                needed[more, way] <= free for more, way in needed if more >= parts and (way, more) >= (again, parts)
            )
            continue
        (ways,) = re.findall(r"use (.*), or a smaller --batch-size", str(error.value))
        for way in ways.split(" or "):
            split = re.search(r"--accumulate (\d)", way)
            assert needed[int(split[1]) if split else parts, again or "--recompute" in way] <= free
            named.add(re.sub(r"\d", "N", way))
    assert named == {"--accumulate N", "--recompute", "--recompute --accumulate N"}


def test_the_largest_batch_is_the_largest() -> None:
    """Law: it fits, and one image more does not; recomputed activations leave room for more."""
    model, largest = PixelCNN(filters=8, blocks=2, scales=1), []
    for recompute in (False, True):
        training = Training(recompute=recompute)
        largest.append(largest_batch(model, 0, (16, 16), 1, training, 3 * 10**7, margin=GPU))
        fits = [
            training_memory(model, 0, (16, 16), largest[-1] + more, 1, training, margin=GPU) <= 3 * 10**7
            for more in (0, 1)
        ]
        assert fits == [True, False]
    assert largest[1] > 1.5 * largest[0]


def test_dropout_counts_in_a_model_that_was_scored() -> None:
    """Law: a model in evaluation mode, as after loading, is trained with dropout, and needs as much memory."""
    model = PixelCNN(filters=8, blocks=2, scales=1)
    before = training_memory(model, 0, (16, 16), 4, 0, Training())
    assert training_memory(model.eval(), 0, (16, 16), 4, 0, Training()) == before


def test_the_command_line_reports_too_little_memory_in_one_line(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 10**6)
    result = inside("train", "photos32-pyramid-small", "--data", pictures, "--steps", 1, "--out", tmp_path / "run")
    assert result.returncode == 2
    lines = [line for line in result.stderr.splitlines() if line.startswith("pixelcnn:")]
    assert len(lines) == 1
    assert "GB are free" in lines[0]
    assert not (tmp_path / "run").exists()
