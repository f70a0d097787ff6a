"""Training that is interrupted saves first, and goes on with --resume where nothing that matters has changed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import inside, save_noise
from safetensors.torch import load_file

import pixelcnn.training.loop
from pixelcnn.common.compiler import explain_compiler
from pixelcnn.data.images import Images, load_images
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.presets import PyramidPixelCNN
from pixelcnn.training.interrupt import InterruptedTraining
from pixelcnn.training.loop import train
from pixelcnn.training.options import Run, Training

HOW, STEPS = Training(batch_size=2), 6


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_noise(tmp_path_factory.mktemp("pictures"), 8, (8, 8))


@pytest.fixture(scope="module")
def images(pictures: Path) -> Images:
    return load_images(pictures)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Signals as in a process in the foreground: where the tests run in the background, SIGINT is ignored."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def tiny_model() -> ImageModel:
    torch.manual_seed(0)
    return PyramidPixelCNN(1, filters=4, blocks=1, embedding_blocks=1, dropout=0.5)


def assert_same_states(a: Path, b: Path) -> None:
    """Check that two runs have the same states and the same model, to the bit."""
    names = [sorted(str(path.relative_to(run)) for path in run.rglob("*.safetensors")) for run in (a, b)]
    assert names[0] == names[1]
    for name in names[0]:
        theirs, ours = load_file(a / name), load_file(b / name)
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(theirs[each], ours[each]) for each in theirs), name


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Call something in the middle of a step, counted from 0 over all factors."""

    def plan(step: int, act: Callable[[], object]) -> None:
        taken = iter(range(1000))
        step_of = pixelcnn.training.loop._step

        def take(*arguments: Any) -> float:
            if next(taken) == step:
                act()
            return step_of(*arguments)

        monkeypatch.setattr(pixelcnn.training.loop, "_step", take)

    return plan


@pytest.fixture(scope="module")
def whole(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train without interruptions."""
    folder = tmp_path_factory.mktemp("whole")
    train(tiny_model(), images, folder, HOW, steps=STEPS, run=Run(sheet_minutes=0))
    return folder


@pytest.mark.parametrize(("step", "number"), [(2, signal.SIGTERM), (STEPS - 1, signal.SIGINT), (STEPS, signal.SIGINT)])
def test_interrupted_and_resumed_is_uninterrupted(
    whole: Path, images: Images, at_step: Callable, number: signal.Signals, step: int, tmp_path: Path
) -> None:
    """Law: a signal in any step, the last and the first of a factor too, lets it finish, saves, and loses nothing."""
    at_step(step, lambda: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    with pytest.raises(InterruptedTraining, match=r"is saved: go on with Run\(resume=True\)"):
        train(tiny_model(), images, tmp_path, HOW, steps=STEPS, run=Run(sheet_minutes=0))
    assert signal.getsignal(number) is before
    assert (tmp_path / "factor-0" / "state.safetensors").exists() == (step == STEPS)
    train(tiny_model(), images, tmp_path, HOW, steps=STEPS, run=Run(sheet_minutes=0, resume=True))
    assert_same_states(whole, tmp_path)


def test_a_second_signal_leaves_at_once(images: Images, at_step: Callable, tmp_path: Path) -> None:
    def twice() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    at_step(1, twice)
    with pytest.raises(KeyboardInterrupt) as left:
        train(tiny_model(), images, tmp_path, HOW, steps=STEPS, run=Run(sheet_minutes=0))
    assert not isinstance(left.value, InterruptedTraining)
    assert not list(tmp_path.glob("factor-*/state.safetensors"))


def test_a_sheet_is_given_up(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples may take minutes, so a signal ends them; then the run is saved as always."""
    drawn = []

    def draw(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        drawn.append("still here")

    monkeypatch.setattr(pixelcnn.training.loop, "try_sheet", draw)
    with pytest.raises(InterruptedTraining):
        train(tiny_model(), images, tmp_path, HOW, steps=1)
    assert drawn == []
    assert (tmp_path / "factor-1" / "state.safetensors").exists()


def test_training_in_a_thread_leaves_signals_alone(images: Images, tmp_path: Path) -> None:
    """Python refuses to set a handler there."""
    done = []
    run = Run(sheet_minutes=0, factor=1)
    thread = threading.Thread(target=lambda: done.append(train(tiny_model(), images, tmp_path, HOW, steps=1, run=run)))
    thread.start()
    thread.join()
    assert len(done) == 1


SCRIPT = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import pixelcnn.__main__"


def test_ctrl_c_in_a_terminal(pictures: Path, tmp_path: Path) -> None:
    """A real process and the one that decodes its images both get the signal: saved, one line, 130, the same bits."""
    options = [
        "train", "photos32-pyramid-small", "--data", pictures, "--size", 8, "--steps", 40, "--batch-size", 4,
        "--factor", 2, "--workers", 1, "--sheet-minutes", 0, "--device", "cpu", "--out",
    ]  # fmt: skip
    command = [sys.executable, "-c", SCRIPT, *map(str, options), str(tmp_path / "b")]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as process:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline and not (tmp_path / "b" / "config.json").exists():
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    last = errors.splitlines()[-1]
    assert last.startswith("pixelcnn: interrupted: the run in"), errors
    assert "is saved; add --resume to the same command to go on" in last
    assert errors.count("pixelcnn:") == 1
    for folder, more in (("a", []), ("b", ["--resume"])):
        done = inside(*options, tmp_path / folder, *more, "--workers", 0)
        assert done.returncode == 0, done.stderr
    assert_same_states(tmp_path / "a", tmp_path / "b")


def test_resuming_with_other_words_for_the_same(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changes only the time and the memory, or the spelling of a path, is no other run; the rest is named."""
    monkeypatch.chdir(pictures.parent)
    begin = ["train", "photos32-pyramid-small", "--size", 8, "--batch-size", 2, "--factor", 2, "--sheet-minutes", 0,
             "--out", tmp_path / "run"]  # fmt: skip
    first = inside(*begin, "--data", pictures.name, "--steps", 1)
    assert first.returncode == 0, first.stderr
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in pictures.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    for more in (
        ["--data", f"./{pictures.name}/", "--save-minutes", 1],
        ["--data", pictures, "--accumulate", 2, "--eager"],
        ["--data", moved, "--steps", 2],  # the same images elsewhere, and a larger budget
    ):
        resumed = inside(*begin, "--steps", 1, *more, "--resume")
        assert resumed.returncode == 0, resumed.stderr
        assert "changed" not in resumed.stderr
    refused: list[tuple[list[object], str, str]] = [
        (["--batch-size", 4], "training.batch_size is 2 there and 4 here", "--batch-size 2"),
        (["--seed", 3], "training.seed is 0 there and 3 here", "--seed 0"),
        (["--no-flip"], "training.flip is True there and False here", "--flip"),
        (["--random-crop", 4], "training.random_crop is None there and 4 here", "no --random-crop"),
        (["--free"], "consistent is True there and False here", "--consistent"),
        (["--optimizer", "adam"], "training.optimizer is 'muon' there and 'adam' here; training.learning_rate is 0.015",
         "--optimizer muon --learning-rate 0.015"),
        (["--crop", 0, 0, 0, 0], "data.crop is None there and [0, 0, 0, 0] here", "no --crop"),
    ]  # fmt: skip
    for more, difference, remedy in refused:
        result = inside(*begin, "--data", moved, "--steps", 1, *more, "--resume")
        assert result.returncode == 2
        assert difference in result.stderr
        assert f"Resume it with {remedy}, or use another folder" in result.stderr
    other = save_noise(tmp_path, 1, (8, 8)) / "0.png"
    result = inside(*begin, "--data", other, "--steps", 1, "--resume")
    assert f"data.source is '{moved}' there and '{other}' here. Resume it with --data {moved}" in result.stderr


def test_without_a_compiler_there_is_one_line(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of PyTorch's compiler, and no other, becomes a line with the remedy."""

    class MissingCompilerError(RuntimeError):
        pass

    MissingCompilerError.__module__ = "torch._inductor.exc"

    def fail(*_: object, **__: object) -> None:
        raise MissingCompilerError("No working C++ compiler found\nin config")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: setattr(module, "forward", fail))
    run = ["train", "photos32-pyramid-small", "--data", pictures, "--size", 8, "--steps", 1, "--batch-size", 2,
           "--sheet-minutes", 0, "--out", tmp_path / "run"]  # fmt: skip
    assert inside(*run).returncode == 0
    result = inside(*run, "--overwrite", "--compile")
    assert result.returncode == 2
    (line,) = [each for each in result.stderr.splitlines() if each.startswith("pixelcnn:")]
    assert "compile=True: PyTorch cannot compile on this machine (MissingCompilerError: No working C++" in line
    assert "install a C++ compiler, such as g++, or leave compile out" in line
    with pytest.raises(RuntimeError, match="another"), explain_compiler():
        raise RuntimeError("another")
