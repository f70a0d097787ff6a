"""Engines: who calls the worker with the units. This process, or Ray Data, which has a worker for each CPU or GPU."""

__all__ = ["ENGINES", "Engine", "run_units"]

import logging
import os
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pixelcnn.common.checks import check_whole
from pixelcnn.common.text import first_line, shorten
from pixelcnn.tasks.cluster.units import Unit
from pixelcnn.tasks.cluster.work import Job, Report, Worker, versions

ENGINES = ("local", "ray")
PATIENCE = 45  # seconds for a cluster to answer
KNOCK = 10  # seconds for its machine to answer
STORE = 200 * 2**20  # bytes of Ray's object store on this machine; units and reports are small
MOST_BLOCKS = 2_000  # of units, which Ray keeps books about
NAMED = re.compile(r"(?!ray\.)[\w.]+(Error|Exception): .")  # the last line of a traceback, unless it is of Ray
PROBE = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level=50)"


@dataclass(frozen=True)
class Engine:
    """How work on many pictures is done; results do not depend on it.

    Args:
        name: "local" for this process, or "ray".
        address: of a Ray cluster, such as "10.0.0.1:6379" or "ray://10.0.0.1:10001", or "auto" for one that this
            machine is part of; None to start Ray on this machine alone. A process that is connected to Ray stays so.
        workers: number of processes with a model; None for one for each CPU, or for each GPU if there are some.
        device: of the models, as for `pixelcnn.load`; "auto" is a GPU where there is one.
        rows: pictures for each file of the results, a multiple of those that are taken together; None for a number
            that suits the verb.
        overwrite: replace earlier results in the folder.
        progress: show a progress bar.

    Example:
        >>> from pixelcnn.tasks.cluster import Engine
        >>> Engine("ray", workers=2).address is None
        True
    """

    name: str = "local"
    address: str | None = None
    workers: int | None = None
    device: str = "auto"
    rows: int | None = None
    overwrite: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise ValueError(f"engine={self.name!r}: use {' or '.join(ENGINES)}")
        if self.name != "ray" and (self.address is not None or self.workers is not None):
            raise ValueError(f"engine={self.name!r} is this process alone: use engine 'ray' with an address or workers")
        for name, value in (("workers", self.workers), ("rows", self.rows)):
            if value is not None:
                check_whole(**{name: value})


def run_units(engine: Engine, job: Job, units: Sequence[Unit], begin: Callable[[], None]) -> Iterator[Report]:
    """Work on units, in any order, and yield a report for each; call `begin` once the engine is there.

    Raises:
        ValueError: if a worker cannot work, for a reason that holds for all units; or if there is no cluster.
    """
    run = _run_here if engine.name == "local" else _run_with_ray
    for report in run(engine, job, units, begin):
        if "problem" in report:
            raise ValueError(report["problem"])
        yield report


def _run_here(engine: Engine, job: Job, units: Sequence[Unit], begin: Callable[[], None]) -> Iterator[Report]:
    begin()
    worker = Worker(versions(), pickle.dumps(job))
    yield from map(worker.work, units)


def _run_with_ray(engine: Engine, job: Job, units: Sequence[Unit], begin: Callable[[], None]) -> Iterator[Report]:
    with _connected(engine) as ray:
        import json

        from ray.data import ActorPoolStrategy, DataContext, from_items

        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what matters is raised
        context = DataContext.get_current()
        context.enable_progress_bars, context.execution_options.preserve_order = False, False
        there = ray.cluster_resources()
        gpus = job.device.startswith("cuda") or (job.device == "auto" and there.get("GPU", 0) >= 1)
        most = int(there.get("GPU" if gpus else "CPU", 0))
        if not most:
            raise ValueError(
                f"the cluster has no {'GPU' if gpus else 'CPU'} to work with: use another device or cluster"
            )
        begin()
        size = min(engine.workers or most, most, len(units))
        packed = pickle.dumps(Job(job.verb, job.model, job.folder, "cuda" if gpus else "cpu"))
        results = from_items(
            [{"unit": unit.to_text()} for unit in units], override_num_blocks=min(len(units), MOST_BLOCKS)
        ).map_batches(
            Worker,
            fn_constructor_args=(versions("ray"), packed),
            compute=ActorPoolStrategy(size=size),
            batch_size=1,
            num_cpus=1,
            num_gpus=1 if gpus else None,
        )
        try:
            for row in results.iter_rows():
                yield json.loads(row["report"])
        except ray.exceptions.RayError as error:
            raise ValueError(f"Ray gave up ({_reason(error)}): look at the cluster, then use --overwrite") from None


def _reason(error: BaseException) -> str:
    """Find the line that says what is wrong in an error of Ray, which holds the tracebacks of several processes."""
    lines = [line.strip() for line in f"{error.__cause__ or ''}\n{error}".splitlines() if line.strip()]
    named = [line for line in lines if NAMED.match(line)]
    return shorten((named or lines or [first_line(error)])[-1])


@contextmanager
def _connected(engine: Engine) -> Iterator[Any]:
    """Give Ray, connected to the cluster of the engine; a cluster that this process is connected to stays so."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # how Ray will be; it warns until it is
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError(f"engine='ray' needs Ray ({error}): use pip install 'pixelcnn[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if engine.address is None:
        # By default, Ray would look for a cluster of this machine first, and take one that has ended for one that runs.
        options |= {"address": "local", "num_cpus": engine.workers or os.cpu_count(), "include_dashboard": False}
        options["object_store_memory"] = STORE
    else:
        _check_answers(engine.address)
        options["address"] = engine.address
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:  # no cluster, or one of another version
        where = "here" if engine.address is None else f"at address={engine.address!r}"
        raise ValueError(f"Ray cannot be started {where} ({_reason(error)}): look at 'ray status' there") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise a ValueError if a cluster does not answer. Ray would wait for minutes, and then end this process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    remedy = "start it with 'ray start --head', or use another address"
    if address != "auto":
        if not host or not port.isdecimal():
            raise ValueError(f"address={address!r}: use HOST:PORT, ray://HOST:PORT or auto")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK).close()
        except (OSError, OverflowError) as error:
            raise ValueError(f"address={address!r}: no Ray cluster answers there ({error}): {remedy}") from None
    try:
        probe = [sys.executable, "-c", PROBE, address]
        found = subprocess.run(probe, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"address={address!r}: no Ray cluster answers there in {PATIENCE} seconds: {remedy}") from None
    if found.returncode and "InvalidAuthToken" in found.stderr:
        hint = "set RAY_AUTH_MODE=token, and put the token where Ray's documentation says"
        raise ValueError(f"address={address!r}: the Ray cluster asks for a token: {hint}")
    if found.returncode:
        last = next((line for line in reversed(found.stderr.splitlines()) if line.strip()), "no reason given")
        raise ValueError(f"address={address!r}: Ray cannot connect ({shorten(last)}): {remedy}")
