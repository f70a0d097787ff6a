"""Kill training under torchrun again and again, and check that it ends with the bits of an undisturbed run.

    python benchmarks/elastic.py [--kills 20] [--steps 300] [--seconds 900] [--json FILE]

It trains one factor of a small model with dropout on noise of 8x8, by `pixelcnn train ... --resume auto` in two
processes of one thread, saving after every step:

1. undisturbed: `torchrun --nproc-per-node 2`;
2. with `--max-restarts`, where one of the two workers, chosen at random, is killed (SIGKILL) at a random moment after
   each start: in turns while it starts, and while it takes steps and saves;
3. on two "machines": two launchers with a worker each, which meet at a c10d rendezvous on 127.0.0.1. A worker is
   killed;
4. likewise, but the machine that holds the rendezvous is killed, and both are started again.

Every run has to end with the state of the first one, to the last bit.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

import pixelcnn

STATE = Path("factor-0") / "state.safetensors"
# The second makes torchrun choose a new place to exchange addresses for each start (see docs/train.md).
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


class Launcher:
    """A `torchrun` in a process of its own, with its log."""

    all: "list[Launcher]" = []  # noqa: RUF012

    def __init__(self, log: Path, options: list[object], training: list[object]) -> None:
        command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "pixelcnn", *training]
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                list(map(str, command)), stdout=file, stderr=file, env=os.environ | ENVIRONMENT
            )

        self.all.append(self)

    def workers(self) -> list[int]:
        try:
            pid = self.process.pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return []
        return [pid for pid in map(int, children) if _is_training(pid)]

    def lose(self) -> None:
        """End it with its worker, as when a machine loses power."""
        workers = self.workers()
        self.process.kill()
        self.process.wait()
        for pid in workers:
            _kill(pid)


def _is_training(pid: int) -> bool:
    try:
        return b"pixelcnn" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def until(true: Callable[[], object], end: float) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: if that takes too long.
    """
    while not true():
        if time.monotonic() > end:
            raise TimeoutError("the benchmark took longer than --seconds; look at the logs")
        time.sleep(0.01)


def lives(launcher: Launcher, end: float) -> Iterator[list[int]]:
    """Yield the workers each time that both have been started."""
    before: list[int] = []
    while launcher.process.poll() is None:
        until(
            lambda before=before: (
                launcher.process.poll() is not None
                or (len(launcher.workers()) == 2 and not set(launcher.workers()) & set(before))
            ),
            end,
        )
        if launcher.process.poll() is None:
            before = launcher.workers()
            yield before


def kill_workers(launcher: Launcher, run: Path, kills: int, end: float) -> int:
    """Kill a worker in each of its lives, at a random moment; return how many were killed."""
    choose, killed = random.Random(0), 0
    for workers in lives(launcher, end):
        if killed == kills:
            break
        if killed % 2:  # while it takes steps and saves
            saved = changed(run / STATE)
            until(lambda saved=saved: changed(run / STATE) != saved or launcher.process.poll() is not None, end)
            time.sleep(choose.uniform(0, 1))
        else:
            time.sleep(choose.uniform(0, 4))
        if len(workers) == 2 and launcher.process.poll() is None:
            killed += _kill(choose.choice(workers))
    return killed


def finish(launchers: list[Launcher], end: float) -> list[int]:
    for launcher in launchers:
        until(lambda launcher=launcher: launcher.process.poll() is not None, end)
    return [launcher.process.returncode for launcher in launchers]


def is_same(a: Path, b: Path) -> bool:
    first, second = (load_file(run / STATE) for run in (a, b))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=900, help="for everything; then it fails")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            results = measure(Path(folder), given.kills, given.steps, time.monotonic() + given.seconds)
        finally:
            for launcher in Launcher.all:
                launcher.lose()
    print(json.dumps(results, indent=2))
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n")
    if not all(result["same"] for result in results.values()):
        sys.exit(1)


def measure(folder: Path, kills: int, steps: int, end: float) -> dict[str, dict[str, object]]:
    """Train four times, see above; return what happened."""
    pictures = folder / "pictures"
    pictures.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    for i, pixels in enumerate(noise):
        Image.fromarray(pixels).save(pictures / f"{i}.png")
    torch.manual_seed(0)
    pixelcnn.save(pixelcnn.PyramidPixelCNN(1, filters=4, blocks=1, embedding_blocks=1, dropout=0.5), folder / "model")

    def training(name: str) -> list[object]:
        return [
            *("train", "photos32-pyramid-small", "--from", folder / "model", "--data", pictures, "--size", 8),
            *("--factor", 0, "--batch-size", 4, "--steps", steps, "--save-minutes", 0, "--sheet-minutes", 0),
            *("--device", "cpu", "--resume", "auto", "--out", folder / name),
        ]

    results: dict[str, dict[str, object]] = {}
    log = Path(tempfile.gettempdir()) / "elastic.log"
    log.unlink(missing_ok=True)
    print(f"the log is {log}", file=sys.stderr)

    def note(name: str, start: float, codes: list[int], **more: object) -> None:
        seconds = round(time.monotonic() - start, 1)
        results[name] = {"codes": codes, "seconds": seconds, **more}
        results[name]["same"] = set(codes) == {0} and is_same(folder / "undisturbed", folder / name)
        print(f"{name}: {results[name]}", file=sys.stderr)

    # One launcher with two workers.
    local = ["--nproc-per-node", 2, "--master-port"]
    start = time.monotonic()
    codes = finish([Launcher(log, [*local, free_port()], training("undisturbed"))], end)
    note("undisturbed", start, codes)
    start = time.monotonic()
    launcher = Launcher(log, [*local, free_port(), "--max-restarts", kills], training("killed"))
    killed = kill_workers(launcher, folder / "killed", kills, end)
    note("killed", start, finish([launcher], end), kills=killed)

    # Two launchers with a worker each.
    def machines(name: str, port: int) -> list[Launcher]:
        return [machine(name, port, host) for host in (True, False)]

    def machine(name: str, port: int, host: bool) -> Launcher:
        meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", name]
        meeting += ["--rdzv-conf", f"is_host={str(host).lower()}", "--local-addr", "127.0.0.1"]
        return Launcher(log, ["--nnodes", 2, "--nproc-per-node", 1, *meeting, "--max-restarts", 9], training(name))

    def saves(name: str) -> None:
        """Wait for a step of a new life."""
        saved = changed(folder / name / STATE)
        until(lambda: changed(folder / name / STATE) != saved, end)

    start, port = time.monotonic(), free_port()
    first, second = machines("two-machines", port)
    saves("two-machines")
    _kill(second.workers()[0])
    note("two-machines", start, finish([first, second], end))

    start, port = time.monotonic(), free_port()
    first, second = machines("rendezvous-lost", port)
    saves("rendezvous-lost")
    first.lose()
    lost = time.monotonic()
    (code,) = finish([second], end)
    waited = round(time.monotonic() - lost, 1)
    codes = finish(machines("rendezvous-lost", free_port()), end)
    note("rendezvous-lost", start, codes, other_code=code, other_seconds=waited)
    return results


if __name__ == "__main__":
    main()
