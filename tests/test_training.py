"""Training: exact resume, equality of one and several processes, and saved states that survive failures."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import weakref
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import inside
from PIL import Image
from safetensors.torch import load_file

import pixelcnn.training.loop
from pixelcnn.data.images import Images, load_images
from pixelcnn.models.factor import Factor
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load, save
from pixelcnn.models.presets import PixelCNN, PyramidPixelCNN
from pixelcnn.training.history import read_history
from pixelcnn.training.loop import train
from pixelcnn.training.options import Budget, Run, Training
from pixelcnn.training.runs import save_factor
from pixelcnn.training.state import TrainingState
from pixelcnn.zoo.recipes import find_recipe

ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder_of_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write forty 8x8 pictures with something to learn: smooth gradients and a little noise."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for i in range(40):
        slope = random.uniform(-20, 20, (2, 3))
        pixels = 128 + np.einsum("dc,dhw->hwc", slope, np.mgrid[-4:4, -4:4]) + random.normal(0, 4, (8, 8, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def images(folder_of_images: Path) -> Images:
    return load_images(folder_of_images)


def tiny_model(seed: int = 0, dropout: float = 0.5) -> ImageModel:
    torch.manual_seed(seed)
    return PyramidPixelCNN(1, filters=4, blocks=1, embedding_blocks=1, dropout=dropout)


def assert_same(a: ImageModel, b: ImageModel) -> None:
    for (name, x), (_, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert torch.equal(x.cpu(), y.cpu()), name  # `train` leaves a model on its device, `load` on the CPU


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pixelcnn", *map(str, arguments)]


@pytest.mark.parametrize("optimizer", [pytest.param("adam", marks=pytest.mark.slow), "muon"])
def test_resumed_is_uninterrupted(images: Images, optimizer: str, tmp_path: Path) -> None:
    """Weights, averages, moments, dropout, order and learning rate all continue where they stopped."""
    how = Training(batch_size=4, optimizer=optimizer, warmup=3)
    whole = train(tiny_model(), images, tmp_path / "a", how, steps=6, run=Run(sheet_minutes=0))
    for steps in (1, 3, 6):
        resumed = train(
            tiny_model(), images, tmp_path / "b", how, steps=steps, run=Run(sheet_minutes=0, resume=steps > 1)
        )
    assert_same(whole, resumed)
    assert_same(whole, load(tmp_path / "b"))
    for k in (0, 1):
        a, b = (load_file(tmp_path / run / f"factor-{k}" / "state.safetensors") for run in "ab")
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_rate_rises_stays_and_falls() -> None:
    """The rate peaks after the warmup, falls once the cooldown begins, and ends at 3%."""
    how = Training(learning_rate=1.0, warmup=4, decay=1.0, cooldown=0.5)
    assert [how.rate(step, 0.0) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert [how.rate(9, used) for used in (0.1, 0.5, 0.75, 1.0, 1.5)] == pytest.approx([1, 1, 0.515, 0.03, 0.03])
    assert Training(learning_rate=1.0, decay=0.5).rate(3, 0.9) == 0.125


def test_a_larger_budget_moves_the_cooldown(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished run resumed with more steps continues on the schedule of the larger budget."""
    rates: list[float] = []
    set_rate = pixelcnn.training.loop.set_rate
    monkeypatch.setattr(pixelcnn.training.loop, "set_rate", lambda o, rate: (rates.append(rate), set_rate(o, rate)))
    how = Training(batch_size=4, decay=1.0, cooldown=0.5)
    for steps in (4, 8):
        train(tiny_model(), images, tmp_path, how, steps=steps, run=Run(factor=1, sheet_minutes=0, resume=steps > 4))
    assert rates == [how.rate(step, step / 4) for step in range(4)] + [how.rate(step, step / 8) for step in range(4, 8)]
    assert rates[4] > rates[3]


def test_the_average_keeps_up_in_a_short_run(images: Images, tmp_path: Path) -> None:
    """After 250 steps of a small recipe's schedule the averaged weights score as well as the trained ones."""
    torch.manual_seed(0)
    how = replace(find_recipe("photos32-pyramid-small").training, batch_size=4)
    model = train(tiny_model(dropout=0.0), images, tmp_path, how, steps=250, run=Run(factor=1, sheet_minutes=0))
    state = load_file(tmp_path / "factor-1" / "state.safetensors")
    trained = tiny_model(dropout=0.0).eval()
    trained.load_state_dict(model.state_dict())
    named = {name.removeprefix("factor."): x for name, x in state.items() if name.startswith("factor.")}
    trained.factors[1].load_state_dict(named)
    x = images.batch(range(len(images)))
    bits, bits_trained = (float(each.bits_per_dim(x).factors[:, 1].detach().mean()) for each in (model, trained))
    assert bits < bits_trained + 0.02


@pytest.mark.slow
def test_continuing_from_a_model_does_not_make_it_worse(tmp_path: Path) -> None:
    """Five seconds of `--from` leave the finest factor of a shipped model as good as it was."""
    model, folder = load("photos-pyramid"), tmp_path / "run"
    model.consistent = False  # as in training, so that both are scored the same way
    options = ("--from", "photos-pyramid", "--free", "--factor", 0, "--minutes", 5 / 60, "--sheet-minutes", 0)
    done = inside("train", "photos128-pyramid-small", *options, "--out", folder)
    assert done.returncode == 0, done.stderr
    x = load_images("photos", "test", size=64).batch(range(8))
    before, after = (each.bits_per_dim(x).factors[:, 0].mean() for each in (model, load(folder)))
    assert not torch.equal(before, after)
    assert after < before + 0.01


def test_saving_changes_nothing(images: Images, tmp_path: Path) -> None:
    """A run that saves and draws sheets all the time ends with the same bits as one that saves once."""
    often = train(tiny_model(), images, tmp_path / "a", Training(batch_size=4), steps=4, run=Run(save_minutes=0))
    once = train(tiny_model(), images, tmp_path / "b", Training(batch_size=4), steps=4, run=Run(sheet_minutes=0))
    assert_same(often, once)


def test_a_model_lost_between_two_writes_is_written_again(images: Images, tmp_path: Path) -> None:
    """After a kill between the last state and the model, resuming only writes the model."""
    done = train(tiny_model(), images, tmp_path / "run", Training(batch_size=4), steps=3, run=Run(sheet_minutes=0))
    save(tiny_model(seed=1), tmp_path / "run")
    train(
        tiny_model(), images, tmp_path / "run", Training(batch_size=4), steps=3, run=Run(sheet_minutes=0, resume=True)
    )
    assert_same(done, load(tmp_path / "run"))


def test_training_continues_from_trained_weights(images: Images, tmp_path: Path) -> None:
    """At a rate of almost zero, a run without initialization ends where it began; one with it does not."""
    begun = train(tiny_model(), images, tmp_path / "run", Training(batch_size=4), steps=3, run=Run(sheet_minutes=0))
    still = Training(batch_size=4, learning_rate=1e-30)
    for initialize in (False, True):
        folder = tmp_path / str(initialize)
        ended = train(
            load(tmp_path / "run"), images, folder, still, steps=2, run=Run(initialize=initialize, sheet_minutes=0)
        )
        pairs = zip(begun.state_dict().values(), ended.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) != initialize


def test_dropout_and_order_matter(images: Images, tmp_path: Path) -> None:
    """Another seed gives other weights, so the state that an exact resume restores matters."""
    a, b = (
        train(
            tiny_model(),
            images,
            tmp_path / str(seed),
            Training(batch_size=4, seed=seed),
            steps=2,
            run=Run(sheet_minutes=0),
        )
        for seed in (0, 1)
    )
    assert not torch.equal(a.factors[0].network.last.bias, b.factors[0].network.last.bias)


def test_training_learns(images: Images, tmp_path: Path) -> None:
    """The averaged model scores its data better than a fresh one."""
    x = images.batch(range(16))
    model = tiny_model(dropout=0.0)
    before = model.bits_per_dim(x).total.mean()
    train(
        model, images, tmp_path / "run", Training(batch_size=8, learning_rate=1e-2), steps=60, run=Run(sheet_minutes=0)
    )
    assert load(tmp_path / "run").bits_per_dim(x).total.mean() < before - 1.0


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_accumulation_is_one_batch(images: Images, optimizer: str, tmp_path: Path) -> None:
    """A batch in four parts gives the same gradient as the whole batch."""
    a, b = (
        train(
            tiny_model(dropout=0.0).double(),
            images,
            tmp_path / str(parts),
            Training(batch_size=8, optimizer=optimizer, accumulate=parts),
            steps=3,
            run=Run(sheet_minutes=0),
        )
        for parts in (1, 4)
    )
    for (name, x), (_, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-9, msg=name)


def test_factors_train_alone(images: Images, tmp_path: Path) -> None:
    """Training the factors one by one with separate calls is the same as training all in one call."""
    together = train(tiny_model(), images, tmp_path / "a", Training(batch_size=4), steps=3, run=Run(sheet_minutes=0))
    for factor, resume in ((0, False), (1, True)):
        train(
            tiny_model(),
            images,
            tmp_path / "b",
            Training(batch_size=4),
            steps=3,
            run=Run(sheet_minutes=0, factor=factor, resume=resume),
        )
    assert_same(together, load(tmp_path / "b"))


def test_bf16_stays_close_and_leaves_float32(images: Images, tmp_path: Path) -> None:
    """Half precision changes the rounding in the networks, but not the type of the weights or the scale of results."""
    a, b = (
        train(
            tiny_model(dropout=0.0),
            images,
            tmp_path / str(bf16),
            Training(batch_size=8, bf16=bf16),
            steps=3,
            run=Run(sheet_minutes=0),
        )
        for bf16 in (False, True)
    )
    assert {p.dtype for p in b.parameters()} == {torch.float32}
    x = images.batch(range(8))
    torch.testing.assert_close(a.bits_per_dim(x).total, b.bits_per_dim(x).total, rtol=0.02, atol=0)


@pytest.mark.parametrize("classes", [0, 3])
def test_a_run_leaves_pictures_and_figures(images: Images, classes: int, tmp_path: Path) -> None:
    """A run writes sheets of samples, a growing history and TensorBoard events, with and without classes."""
    torch.manual_seed(0)
    model = ImageModel(filters=4, blocks=1, scales=1, classes=classes)
    if classes:
        images = load_images(Path(images.name))
        images.labels = [i % classes for i in range(len(images))]
    train(model, images, tmp_path / "run", Training(batch_size=4), steps=3)
    folder = tmp_path / "run" / "factor-0"
    with Image.open(folder / "sheet-000003.png") as sheet:
        assert min(sheet.size) > 32
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 3
    assert all(0 < line["bits_per_dim"] < 20 and line["images_per_second"] > 0 for line in lines)
    assert list(folder.glob("events.*"))


def test_nothing_is_saved_after_a_nan(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that is not finite stops the run; the last good state and model stay and load."""
    train(
        tiny_model(),
        images,
        tmp_path / "run",
        Training(batch_size=4, learning_rate=1e-3),
        steps=2,
        run=Run(sheet_minutes=0),
    )
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors")}
    state = load_file(tmp_path / "run" / "factor-0" / "state.safetensors")
    assert all(tensor.isfinite().all() for tensor in state.values() if tensor.is_floating_point())
    log_prob = Factor.pixel_log_prob
    monkeypatch.setattr(
        Factor, "pixel_log_prob", lambda *arguments, **options: log_prob(*arguments, **options) * float("nan")
    )
    again = Run(sheet_minutes=0, save_minutes=0, resume=True)
    with pytest.raises(FloatingPointError, match="factor 1 diverged"):
        train(tiny_model(), images, tmp_path / "run", Training(batch_size=4), steps=4, run=again)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"minutes": -1.0, "steps": None}, "minutes=-1.0"),
        ({"minutes": 1.0}, "give one of the two"),
        ({"run": {"factor": 2}}, "factor=2"),
        ({"run": {"save_minutes": -1.0}}, "save_minutes=-1.0"),
        ({"run": {"resume": True}}, "no run to resume"),
    ],
)
def test_bad_arguments_leave_no_trace(images: Images, change: dict[str, Any], message: str, tmp_path: Path) -> None:
    """The error quotes the argument and comes before anything is written."""
    budget: dict[str, Any] = {"steps": 1, **change}
    run = budget.pop("run", {})
    with pytest.raises(ValueError, match=message):
        train(tiny_model(), images, tmp_path / "run", **budget, run=Run(**run))
    assert not (tmp_path / "run").exists()


def test_labels_must_fit(images: Images, tmp_path: Path) -> None:
    labeled = copy(images)
    labeled.labels = [i % 5 for i in range(len(images))]
    model = PixelCNN(classes=4, filters=4, blocks=1)
    with pytest.raises(ValueError, match="has labels from 0 to 4; use a model with more classes"):
        train(model, labeled, tmp_path / "run", Training(batch_size=4), steps=1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 0},
        {"batch_size": 4, "accumulate": 3},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"optimizer": "muon", "learning_rate": 1.0},
        {"optimizer": "lion"},
        {"moments": (0.9, 1.0)},
        {"warmup": -1},
        {"cooldown": 1.5},
        {"decay": 2.0},
        {"clip": -1.0},
        {"seed": -1},
        {"average": 0.0},
    ],
)
def test_bad_training_arguments_are_quoted(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=list(arguments)[-1]):
        Training(**arguments)  # pyright: ignore[reportArgumentType]


def test_a_run_is_not_overwritten_by_accident(images: Images, tmp_path: Path) -> None:
    """A folder in use is refused; --overwrite replaces the run and nothing else; another run is not resumed."""
    run = tmp_path / "run"
    train(tiny_model(), images, run, Training(batch_size=4), steps=1, run=Run(sheet_minutes=0))
    (run / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match="not empty: use --resume to continue"):
        train(tiny_model(), images, run, Training(batch_size=4), steps=1)
    with pytest.raises(ValueError, match="is a file: name a folder"):
        train(tiny_model(), images, run / "mine.txt", Training(batch_size=4), steps=1, run=Run(overwrite=True))
    with pytest.raises(ValueError, match="batch_size is 4 there and 2 here"):
        train(tiny_model(), images, run, Training(batch_size=2), steps=2, run=Run(resume=True))
    other = PyramidPixelCNN(1, filters=6, blocks=1, embedding_blocks=1)
    with pytest.raises(ValueError, match="filters is"):
        train(other, images, run, Training(batch_size=4), steps=2, run=Run(resume=True))
    train(other, images, run, Training(batch_size=2), steps=1, run=Run(sheet_minutes=0, overwrite=True))
    assert (run / "mine.txt").read_text() == "keep"
    assert load(run).config.filters == [6, 6]


def test_a_run_is_held_while_it_is_trained(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a run is training, no other process can train or overwrite any of its factors; afterwards it can."""
    quiet = Run(sheet_minutes=0)
    choices = [replace(quiet, resume=True, factor=0), replace(quiet, overwrite=True)]

    def save_and_try(*arguments: Any) -> None:
        save_factor(*arguments)
        with pytest.raises(ValueError, match=r"factor-0' is being trained by another process: wait for it"):
            train(tiny_model(), images, tmp_path, Training(batch_size=4), steps=1, run=choices.pop())

    with monkeypatch.context() as patch:
        patch.setattr("pixelcnn.training.loop.save_factor", save_and_try)
        train(tiny_model(), images, tmp_path, Training(batch_size=4), steps=1, run=quiet)
    assert not choices
    again = replace(quiet, factor=0, resume=True)
    train(tiny_model(), images, tmp_path, Training(batch_size=4), steps=1, run=again)


def test_training_one_factor_returns_the_others_from_the_folder(images: Images, tmp_path: Path) -> None:
    """Resumed with a model of other weights, train returns every factor as the folder has it."""
    train(tiny_model(), images, tmp_path, Training(batch_size=4), steps=2, run=Run(sheet_minutes=0))
    run = Run(sheet_minutes=0, factor=0, resume=True)
    assert_same(train(tiny_model(seed=1), images, tmp_path, Training(batch_size=4), steps=3, run=run), load(tmp_path))


def test_a_failing_sheet_does_not_stop_training(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """When drawing fails, each sheet gives one line, and the weights are those of a run without sheets."""
    errors = [FloatingPointError("x"), OSError(28, "No space\nleft"), MemoryError(), RuntimeError("o")]
    plain = train(tiny_model(), images, tmp_path / "a", Training(batch_size=4), steps=2, run=Run(sheet_minutes=0))

    def fail(*arguments: Any, **options: Any) -> None:
        raise errors.pop()

    monkeypatch.setattr("pixelcnn.training.sheets.save_picture", fail)
    often = Run(sheet_minutes=1e-9)
    assert_same(plain, train(tiny_model(), images, tmp_path / "b", Training(batch_size=4), steps=2, run=often))
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("pixelcnn: could not write sheet-00000")]) == 4
    assert not errors


def test_a_factor_that_is_done_is_freed(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the next factor begins, the network and the optimizer of the last one are gone."""
    seen: list[Any] = []

    class Noted(TrainingState):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            assert all(reference() is None for reference in seen)
            seen.extend(map(weakref.ref, (self.factor, self.averaged, *self.optimizers)))

    monkeypatch.setattr("pixelcnn.training.loop.TrainingState", Noted)
    train(tiny_model(), images, tmp_path, Training(batch_size=4), steps=2)
    assert len(seen) == 6
    assert all(reference() is None for reference in seen)


def test_a_damaged_line_of_the_history_is_forgotten(images: Images, tmp_path: Path) -> None:
    """A line cut short by a full disk, or written by someone else, does not keep a run from resuming."""
    run = Run(factor=0, sheet_minutes=0)
    train(tiny_model(), images, tmp_path, Training(batch_size=4), steps=1, run=run)
    path = tmp_path / "factor-0" / "history.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"step": 1, "sec{"step": 1}\n[]\n{}\n{"step": "1"}\n' + "[" * 10_000 + "}\n" + 300 * "\0")
    assert [line for line, _ in read_history(path)] == whole.splitlines()
    train(tiny_model(), images, tmp_path, Training(batch_size=4), steps=1, run=replace(run, resume=True))
    assert path.read_text() == whole


def test_budget() -> None:
    assert Budget(steps=5).used(3, 1e9) < Budget(steps=5).total <= Budget(steps=5).used(5, 0)
    assert Budget(minutes=2).used(10**9, 119) < Budget(minutes=2).total <= Budget(minutes=2).used(0, 120)


@pytest.mark.slow
def test_killed_and_resumed_is_uninterrupted(folder_of_images: Path, tmp_path: Path) -> None:
    """A real process, killed again and again in the middle of steps and saves, ends with the same bits."""
    options = (
        "photos32-pyramid-small",
        "--data",
        folder_of_images,
        "--size",
        8,
        "--steps",
        6,
        "--batch-size",
        4,
        "--save-minutes",
        0,
        "--sheet-minutes",
        0,
        "--device",
        "cpu",  # on a GPU, the last bits of a sum differ between processes
    )
    assert inside("train", *options, "--out", tmp_path / "a").returncode == 0
    killed = 0
    for attempt in range(12):
        resume = ["--resume"] if (tmp_path / "b" / "run.json").exists() else ["--overwrite"]
        process = subprocess.Popen(
            command("train", *options, "--out", tmp_path / "b", *resume),
            env=ONE_THREAD,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        states = [path.stat().st_mtime_ns for path in (tmp_path / "b").glob("factor-*/state.safetensors")]
        # Let it get a little further than last time, then kill it at an odd moment.
        while process.poll() is None and killed < 2:
            now = [path.stat().st_mtime_ns for path in (tmp_path / "b").glob("factor-*/state.safetensors")]
            if now != states:
                time.sleep(0.037 * attempt)
                process.send_signal(signal.SIGKILL)
                killed += process.wait() == -signal.SIGKILL
            time.sleep(0.002)
        error = process.communicate()[1].decode()
        assert process.returncode in (0, -signal.SIGKILL), error
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert killed >= 2
    assert_same(load(tmp_path / "a"), load(tmp_path / "b"))
    for k in range(3):
        a, b = (load_file(tmp_path / run / f"factor-{k}" / "state.safetensors") for run in "ab")
        assert all(torch.equal(a[name], b[name]) for name in a | b)


def test_a_full_disk_leaves_the_last_checkpoint(folder_of_images: Path, tmp_path: Path) -> None:
    """When a file cannot be written completely, the run stops with one line, and the last save still loads."""
    options = (
        "photos32-pyramid-small",
        "--data",
        folder_of_images,
        "--size",
        8,
        "--batch-size",
        4,
        "--factor",
        2,
        "--sheet-minutes",
        0,
        "--out",
        tmp_path / "run",
    )
    assert inside("train", *options, "--steps", 1).returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors")}

    def limit() -> None:  # no file may grow beyond this, so a write fails halfway as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    failed = subprocess.run(
        command("train", *options, "--steps", 2, "--resume"),
        env=ONE_THREAD,
        capture_output=True,
        text=True,
        preexec_fn=limit,
        check=False,
    )
    assert failed.returncode == 2, failed.stderr
    assert "Traceback" not in failed.stderr
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors")}
    assert not list((tmp_path / "run").rglob("*.tmp"))
    load(tmp_path / "run")


def test_two_processes_are_one(folder_of_images: Path, tmp_path: Path) -> None:
    """`accelerate launch` with two processes ends with the weights of one process with the same global batch."""
    options = (
        "train",
        "cifar10-pyramid-small",
        "--data",
        folder_of_images,
        "--size",
        8,
        "--steps",
        3,
        "--factor",
        2,
        "--batch-size",
        8,
        "--sheet-minutes",
        0,
        "--recompute",
        "--device",
        "cpu",  # there may be one GPU only
    )
    assert inside(*options, "--out", tmp_path / "one").returncode == 0
    # This flag starts several processes even without a GPU; with --cpu, accelerate would start only one.
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        "0",
        "-m",
        "pixelcnn",
    ]
    two = subprocess.run(
        [*launch, *map(str, options), "--out", str(tmp_path / "two")],
        env=ONE_THREAD,
        capture_output=True,
        text=True,
        check=False,
    )
    assert two.returncode == 0, two.stderr
    a, b = (load_file(tmp_path / run / "model.safetensors") for run in ("one", "two"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-5, msg=name)
