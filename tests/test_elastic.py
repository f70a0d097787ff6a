"""Several processes: restarts, other numbers of them, factors apart, different data, and one figure from all.

The processes are real. Each is forked from a server that has imported the package, which takes a tenth of a second
instead of four, and gets what `torchrun` would tell it. `benchmarks/elastic.py` does the same with `torchrun` itself.
"""

import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pytest
import torch
from conftest import inside, save_noise
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import pixelcnn.tasks.scoring
from pixelcnn.apps.cli.main import main
from pixelcnn.apps.cli.options import fail
from pixelcnn.common.processes import join_processes
from pixelcnn.common.processes import together as at_once
from pixelcnn.data.images import load_images
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load, save
from pixelcnn.models.presets import PyramidPixelCNN
from pixelcnn.tasks.scoring import evaluate
from pixelcnn.training.loop import train
from pixelcnn.training.merging import merge_runs
from pixelcnn.training.options import Run, Training
from pixelcnn.training.runs import claim_folder
from pixelcnn.zoo.recipes import find_recipe

SERVER = multiprocessing.get_context("forkserver")
OURS = ["pixelcnn.apps.cli.main", "pixelcnn.training.loop", "pixelcnn.tasks.scoring"]
LATE = ["datasets", "torch._dynamo", "torch.utils.tensorboard", "pydantic"]  # imported by functions of ours or theirs
SERVER.set_forkserver_preload([*OURS, *LATE, "hypothesis", "scipy.stats"])
PATIENCE = 60  # seconds
TRAIN = ("train", "photos32-pyramid-small", "--size", 8, "--sheet-minutes", 0, "--save-minutes", 0, "--device", "cpu")


def run_inside(arguments: Sequence[Any], environment: dict[str, str], output: Path) -> None:
    """Be the command line, or call a function and end as the command line would, in a process of its own."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(output.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if isinstance(arguments[0], str):
        sys.argv = ["pixelcnn", *map(str, arguments)]
        main()
    try:
        arguments[0](*arguments[1:])
    except (ValueError, OSError) as error:
        fail(f"{type(error).__name__}: {error}", 2)


class Processes:
    """Processes that a launcher would start together."""

    def __init__(self, folder: Path, *commands: Sequence[object], joined: bool = True) -> None:
        folder.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.files = [folder / f"{rank}" for rank in range(len(commands))]
        self.processes: list[ForkServerProcess] = []
        for rank, (command, file) in enumerate(zip(commands, self.files, strict=True)):
            told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": len(commands), "MASTER_PORT": port}
            environment = {name: str(each) for name, each in told.items()} | {"MASTER_ADDR": "127.0.0.1"}
            given = environment if joined and len(commands) > 1 else {}
            self.processes.append(SERVER.Process(target=run_inside, args=(command, given, file)))
        for process in self.processes:
            process.start()

    def are_running(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    def wait(self) -> list[int | None]:
        """Wait until all have ended, and return their exit codes."""
        end = time.monotonic() + PATIENCE
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
            if process.is_alive():
                process.kill()
        return [process.exitcode for process in self.processes]

    def output(self, rank: int) -> str:
        return self.files[rank].with_suffix(".out").read_text()

    def errors(self) -> list[str]:
        """The lines with which the processes failed."""
        lines = [line for file in self.files for line in file.with_suffix(".err").read_text().splitlines()]
        assert not any("Traceback" in line for line in lines), lines
        return [line for line in lines if line.startswith("pixelcnn:")]


def together(folder: Path, number: int, *arguments: object) -> Processes:
    """Run one command in several processes, to the end."""
    processes = Processes(folder, *[arguments] * number)
    assert processes.wait() == [0] * number, processes.errors()
    return processes


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_noise(tmp_path_factory.mktemp("pictures"), 7, (8, 8))


def states(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor that a run has saved."""
    files = sorted(run.rglob("*.safetensors"))
    return {f"{file.relative_to(run)} {name}": x for file in files for name, x in load_file(file).items()}


def assert_same(a: Path, b: Path) -> None:
    a_states, b_states = states(a), states(b)
    assert a_states.keys() == b_states.keys()
    assert all(torch.equal(x, b_states[name]) for name, x in a_states.items())


def tiny_model(seed: int = 0, filters: int = 4) -> ImageModel:
    torch.manual_seed(seed)
    return PyramidPixelCNN(2, filters=filters, blocks=1, embedding_blocks=1)


def train_with_dropout(pictures: Path, out: Path, steps: int) -> None:
    """Train in Python, as the processes of a script do, and go on if there is a run."""
    model = PyramidPixelCNN(1, filters=4, blocks=1, embedding_blocks=1, dropout=0.5)
    run = Run(factor=0, resume="auto", save_minutes=0, sheet_minutes=0, device="cpu")
    train(model, load_images(pictures), out, Training(batch_size=4), steps=steps, run=run)


@pytest.mark.slow
def test_a_killed_worker_and_a_restart_change_nothing(pictures: Path, tmp_path: Path) -> None:
    """Law: two processes, one of them killed, both started again with the same words: the bits of an undisturbed run.

    The model has dropout. The process that is left ends by itself.
    """
    together(tmp_path / "logs", 2, train_with_dropout, pictures, tmp_path / "a", 9)
    state = tmp_path / "b" / "factor-0" / "state.safetensors"
    running = Processes(tmp_path / "logs", *[(train_with_dropout, pictures, tmp_path / "b", 9)] * 2)
    while not state.exists() and running.are_running():
        time.sleep(0.001)
    running.processes[0].kill()  # which holds the lock, and saves
    assert running.wait() == [-signal.SIGKILL, 2]
    assert "process 1 has lost the others" in running.errors()[-1]
    together(tmp_path / "logs", 2, train_with_dropout, pictures, tmp_path / "b", 9)
    assert_same(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_another_number_of_processes(pictures: Path, tmp_path: Path) -> None:
    """Law: two steps with one process, two with two, and two with one are six with one, up to rounding."""
    recipe = ("train", "cifar10-pyramid-small", *TRAIN[2:], "--data", pictures, "--factor", 2, "--batch-size", 4,
              "--cooldown", 0)  # which would make the rate depend on the budget  # fmt: skip
    assert inside(*recipe, "--steps", 6, "--out", tmp_path / "a").returncode == 0
    resumed = (*recipe, "--resume", "auto", "--out", tmp_path / "b")
    assert inside(*resumed, "--steps", 2).returncode == 0
    together(tmp_path / "logs", 2, *resumed, "--steps", 4)
    assert inside(*resumed, "--steps", 6).returncode == 0
    a, b = states(tmp_path / "a"), states(tmp_path / "b")
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-5, msg=name)


def test_a_state_of_an_earlier_version_is_resumed(pictures: Path, tmp_path: Path) -> None:
    """Law: the random state that earlier versions saved is ignored."""
    arguments = (*TRAIN, "--data", pictures, "--factor", 2, "--batch-size", 4, "--out", tmp_path)
    assert inside(*arguments, "--steps", 1).returncode == 0
    path = tmp_path / "factor-2" / "state.safetensors"
    with safe_open(path, "pt") as file:
        notes = json.loads(file.metadata()["pixelcnn"])
    tensors = load_file(path)
    assert "random" not in tensors
    tensors["random"] = torch.zeros(3, 5056, dtype=torch.uint8)
    del notes["sha256"]
    save_file(tensors, path, {"pixelcnn": json.dumps(notes)})
    resumed = inside(*arguments, "--steps", 2, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "random" not in load_file(path)


@pytest.mark.slow
def test_jobs_for_factors_begin_at_once_in_one_folder(pictures: Path, tmp_path: Path) -> None:
    """Law: of three jobs, one begins the run and the others join; the result is that of one job after another."""
    arguments = (*TRAIN, "--data", pictures, "--batch-size", 4, "--steps", 2, "--resume", "auto")
    commands = [(*arguments, "--factor", k, "--out", tmp_path / "b") for k in range(3)]
    jobs = Processes(tmp_path / "logs", *commands, joined=False)
    assert jobs.wait() == [0, 0, 0], jobs.errors()
    assert inside(*arguments, "--out", tmp_path / "a").returncode == 0
    assert_same(tmp_path / "a", tmp_path / "b")
    # Another one that would train what one of them trains is refused.
    with FileLock(tmp_path / "b" / "factor-0" / ".lock"):
        refused = inside(*arguments[:-1], "--factor", 0, "--out", tmp_path / "b")  # --resume, which does not wait
    assert refused.returncode == 2
    assert "factor-0' is being trained by another process: wait for it to end, or name another" in refused.stderr


def test_auto_waits_for_what_a_killed_process_has_left(tmp_path: Path) -> None:
    """Law: processes that decode images outlive the one that started them for a moment, and hold its lock that long."""
    run = {"training": {}}
    with claim_folder(tmp_path, tiny_model(), run, [0], resume="auto", overwrite=False):
        pass
    left = FileLock(tmp_path / "factor-0" / ".lock", thread_local=False)
    left.acquire()
    Timer(0.3, left.release).start()
    with claim_folder(tmp_path, tiny_model(), run, [0], resume="auto", overwrite=False):
        assert not left.is_locked


def test_auto_begins_or_continues(pictures: Path, tmp_path: Path) -> None:
    """Law: `--resume auto` begins where there is no run, continues where there is one, and harms nothing else."""
    arguments = (*TRAIN, "--data", pictures, "--batch-size", 4, "--factor", 2, "--out", tmp_path / "run")
    begun = inside(*arguments, "--steps", 1, "--resume", "auto")
    assert begun.returncode == 0, begun.stderr
    continued = inside(*arguments, "--steps", 2, "--resume=auto")
    assert continued.returncode == 0, continued.stderr
    assert inside(*arguments, "--steps", 3, "--resume").returncode == 0  # which still needs no word
    refused = inside(*arguments, "--steps", 3, "--resume", "auto", "--batch-size", 2)
    assert "training.batch_size is 4 there and 2 here" in refused.stderr
    save(load(tmp_path / "run"), tmp_path / "model")
    before = {path: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    for more, message in (
        (["--resume", "auto", "--out", tmp_path / "model"], "is not empty and not a run"),
        (["--resume", "--out", tmp_path / "new"], "holds no run to resume"),
        (["--resume", "auto", "--overwrite"], "use one of the two"),
        (["--resume=automatic"], "--resume 'automatic': use --resume or --resume auto"),
        (["--resume", "automatic"], "unexpected extra argument(s) (automatic)"),
    ):
        result = inside(*arguments, "--steps", 3, *more)
        assert result.returncode == 2
        assert message in result.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    with pytest.raises(ValueError, match="resume='yes': use True, False or 'auto'"):
        Run(resume="yes")  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_auto_from_a_model(pictures: Path, tmp_path: Path) -> None:
    """Law: with --from, a run that exists goes on from its own weights, and another begins with those of the model."""
    model = find_recipe("photos32-pyramid-small").model()
    save(model, tmp_path / "model")
    arguments = (*TRAIN, "--data", pictures, "--batch-size", 4, "--factor", 2, "--from", tmp_path / "model",
                 "--cooldown", 0, "--resume", "auto")  # fmt: skip
    assert inside(*arguments, "--steps", 2, "--out", tmp_path / "a").returncode == 0
    for steps in (1, 2):
        done = inside(*arguments, "--steps", steps, "--out", tmp_path / "b")
        assert done.returncode == 0, done.stderr
        shutil.rmtree(tmp_path / "model", ignore_errors=True)  # the run has its weights by now
    assert_same(tmp_path / "a", tmp_path / "b")
    assert torch.equal(load(tmp_path / "a").factors[0].network.last.bias, model.factors[0].network.last.bias)


def test_different_data_are_named_before_anything_is_written(pictures: Path, tmp_path: Path) -> None:
    """Law: one line says which process sees what, all end with exit code 2, and there is no folder of a run."""
    fewer = tmp_path / "fewer"
    shutil.copytree(pictures, fewer)
    (fewer / "0.png").unlink()
    arguments = (*TRAIN, "--batch-size", 4, "--steps", 1, "--out", tmp_path / "run")
    commands = [(*arguments, "--data", source) for source in (pictures, fewer)]
    training = Processes(tmp_path / "logs", *commands)
    assert training.wait() == [2, 2]
    (line,) = training.errors()
    assert re.search(
        r"different data: rank 1 has 6 images \(blake2b \w{8}\), rank 0 has 7 images \(blake2b \w{8}\); give all", line
    )
    assert not (tmp_path / "run").exists()
    save(tiny_model(), tmp_path / "model")
    scoring = Processes(
        tmp_path / "logs",
        *[("evaluate", tmp_path / "model", "--split", "all", "--data", each) for each in (fewer, pictures)],
    )
    assert scoring.wait() == [2, 2]
    (line,) = scoring.errors()
    assert "rank 1 has 7 images" in line


@pytest.mark.slow
def test_a_folder_that_only_some_processes_see(pictures: Path, tmp_path: Path) -> None:
    """Law: where a process does not find the state of the others, all end instead of learning different things."""
    train_with_dropout(pictures, tmp_path / "run", 1)
    commands = [(train_with_dropout, pictures, tmp_path / name, 2) for name in ("run", "elsewhere")]
    processes = Processes(tmp_path / "logs", *commands)
    assert processes.wait() == [2, 2]
    first, second = processes.errors()
    assert "is at step 1 in process 0, and in the others at [0]: use a folder that all of them share" in first
    assert "SharedError" in second


def score(model: Path, pictures: Path, **options: Any) -> None:
    """Print what Python's `evaluate` returns in each process."""
    print(evaluate(load(model), load_images(pictures, "all"), batch_size=2, **options).bits_per_dim)


def test_processes_share_a_set_of_images(pictures: Path, tmp_path: Path) -> None:
    """Law: 7 images in batches of 2 have the same figures, to the last bit, with 1, 2 and 3 processes."""
    save(tiny_model(), tmp_path / "model")
    arguments = ("evaluate", tmp_path / "model", "--data", pictures, "--split", "all", "--batch-size", 2, "--json")
    one = json.loads(inside(*arguments).stdout)
    processes = together(tmp_path / "logs", 3, *arguments)
    first, *others = [processes.output(rank) for rank in range(3)]
    assert others == ["", ""]  # only the main process prints
    shared = json.loads(first)
    assert all(figures.pop("images_per_second") > 0 for figures in (one, shared))
    assert one == shared
    assert one["images"] == 7
    # In Python, all of them get the result.
    processes = together(tmp_path / "logs", 2, score, tmp_path / "model", pictures)
    assert [float(processes.output(rank)) for rank in range(2)] == [one["bits_per_dim"]] * 2


def fail_in_one(folder: Path) -> None:
    """Fail in the second process, and write in each what it raises."""
    join_processes()
    try:
        with at_once():
            if os.environ["RANK"] == "1":
                raise MemoryError("full")
    except (MemoryError, ValueError) as error:
        (folder / f"{os.environ['RANK']}.txt").write_text(f"{type(error).__name__} {error}")


def test_a_process_that_fails_ends_all(tmp_path: Path) -> None:
    together(tmp_path / "logs", 3, fail_in_one, tmp_path)
    told = [(tmp_path / f"{rank}.txt").read_text() for rank in range(3)]
    assert told == ["SharedError full", "MemoryError full", "SharedError full"]


@pytest.mark.slow
def test_a_process_that_fails_while_scoring_ends_all(pictures: Path, tmp_path: Path) -> None:
    """Law: the others do not wait, nor give a figure without its share."""
    save(tiny_model(), tmp_path / "model")
    processes = Processes(
        tmp_path / "logs", *[(score_or_fail, tmp_path / "model", pictures, rank == 1) for rank in range(2)]
    )
    assert processes.wait() == [2, 2]
    lost, full = processes.errors()
    assert "LostError: process 0 has lost the others" in lost
    assert "OSError: full" in full
    assert processes.output(0) == ""


def score_or_fail(model: Path, pictures: Path, failing: bool) -> None:
    """Score, or fail in the middle of it."""
    if failing:

        def fail(*_: Any, **__: Any) -> None:
            raise OSError("full")

        pixelcnn.tasks.scoring._surprisal = fail  # pyright: ignore[reportAttributeAccessIssue]
    score(model, pictures)


def make_run(folder: Path, factors: Sequence[int], *, filters: int = 4, seed: int = 0) -> Path:
    """Write a run in which some factors are trained: each has a state."""
    pictures = np.random.default_rng(seed).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    for k in factors:
        run = Run(factor=k, resume="auto", sheet_minutes=0, device="cpu")
        train(tiny_model(filters=filters), list(pictures), folder, Training(batch_size=4), steps=1, run=run)
    return folder


def test_runs_that_never_met_become_a_model(tmp_path: Path) -> None:
    """Law: every factor is that of the folder that trained it, whatever else is in its model; no input changes."""
    a, b = make_run(tmp_path / "a", [2]), make_run(tmp_path / "b", [1, 0], seed=1)
    before = states(a) | states(b)
    merged = inside("merge", a, b, "--out", tmp_path / "model")
    assert merged.returncode == 0, merged.stderr
    assert merged.stdout == f"{tmp_path / 'model'}\n"
    assert f"factor 2 from {a}" in merged.stderr
    model = load(tmp_path / "model")
    for k, folder in enumerate((b, b, a)):
        for name, x in load(folder).factors[k].state_dict().items():
            assert torch.equal(model.factors[k].state_dict()[name], x)
    assert model.size == (8, 8)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    # A run killed between its state and its model has the newest weights in the state only.
    save(tiny_model(7), a)
    merge_runs([b, a], tmp_path / "again")
    assert_same(tmp_path / "model", tmp_path / "again")
    # A model gives what no run has trained.
    save(tiny_model(5), tmp_path / "base")
    assert merge_runs([tmp_path / "base", a], tmp_path / "based") == [tmp_path / "base", tmp_path / "base", a]
    assert {name: x for name, x in (states(a) | states(b)).items() if "state" in name}.keys() <= before.keys()


def test_what_cannot_be_merged(tmp_path: Path) -> None:
    """Law: one line with what is wrong and what helps, and nothing is written."""
    a, b = make_run(tmp_path / "a", [2, 1]), make_run(tmp_path / "b", [1, 0])
    wide, out = make_run(tmp_path / "wide", [0], filters=6), tmp_path / "out"
    for name in ("base", "other", "full"):
        save(tiny_model(), tmp_path / name)
    for arguments, message in (
        ((a, b, "--out", out), f"factor 1 was trained in '{a}' and in '{b}': leave out one of the folders"),
        ((a, wide, "--out", out), "these are different models, filters is [4, 4, 4] in"),
        ((a, tmp_path / "base", tmp_path / "other", "--out", out), "are models without a run.json"),
        ((a, a, "--out", out), "name two or more, each once"),
        ((a, tmp_path / "none", "--out", out), "none"),
        ((a, tmp_path / "base", "--out", tmp_path / "full"), "is not empty: use --overwrite"),
        ((a, tmp_path / "base", "--out", tmp_path / "base", "--overwrite"), "would be overwritten by what is made"),
        ((a, tmp_path / "base", "--out", b, "--overwrite"), "holds a training run: name another folder"),
    ):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        result = inside("merge", *arguments)
        assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
        assert message in result.stderr
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    shutil.rmtree(b / "factor-1")
    shutil.rmtree(b / "factor-0")
    result = inside("merge", a, b, "--out", out)
    assert "factor 0 was trained in none of the folders: name the folder of its run, or train it with --factor 0" in (
        result.stderr
    )
    assert inside("merge", a, tmp_path / "base", "--out", tmp_path / "full", "--overwrite").returncode == 0
