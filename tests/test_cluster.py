"""Laws of work on very many pictures: the same bytes whoever does it, and nothing lost but what cannot be used."""

import importlib.util
import io
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from conftest import inside, pixelcnn
from PIL import Image

from pixelcnn import Downsample, ImageModel, QuantizedGrayscale, cluster, decompress, load_images, save
from pixelcnn.data.given import take_images
from pixelcnn.models.sampling import colorize, sample, upscale
from pixelcnn.pictures.inputs import Pictures, find_pictures
from pixelcnn.tasks.batches import score_pictures
from pixelcnn.tasks.cluster import engines
from pixelcnn.tasks.cluster.output import Marker
from pixelcnn.tasks.cluster.units import Span, Unit
from pixelcnn.tasks.cluster.verbs import Score
from pixelcnn.tasks.cluster.work import Job, Worker, versions

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: pip install 'pixelcnn[ray]'")
ROOM = 700 * 2**20  # bytes that a worker of the tests may use on top of the program
HUGE = (8192, 8192)  # pixels: a file of 200 KB that takes more than these
Rows = list[dict[str, Any]]


def make_model(*auxiliaries: Any, seed: int = 0) -> ImageModel:
    torch.manual_seed(seed)
    return ImageModel(auxiliaries=auxiliaries, filters=4, blocks=1, scales=1, embedding_blocks=1).eval()


@pytest.fixture(scope="module")
def model() -> ImageModel:
    return make_model(Downsample(2))


def png(size: tuple[int, int], seed: int) -> bytes:
    pixels, file = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two sizes, a table with some more, and three that are broken."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(9):
        (folder / f"{i}.png").write_bytes(png((8, 8) if i % 4 else (5, 7), i))
    (folder / "3.png").write_bytes(png((8, 8), 3)[:120])  # cut off
    rows = [{"bytes": png((8, 8), 100 + i), "path": "../../etc/passwd"} for i in range(7)]
    rows[2]["bytes"] = b"no picture"
    table = pyarrow.table({"image": [*rows, None]})
    pyarrow.parquet.write_table(table, folder / "table.parquet", row_group_size=3)
    (folder / "README.txt").write_text("left out, since there is a table")
    return folder


BROKEN = ["3.png", "table.parquet:2", "table.parquet:7"]
ALL = 17


def rows_of(out: Path) -> Rows:
    return pyarrow.parquet.read_table(out).to_pylist()


def contents(out: Path) -> dict[str, bytes]:
    return {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()}


def without_files(manifest: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in manifest.items() if name not in ("files", "rows", "options")}


VERBS: dict[str, Callable[..., dict[str, Any]]] = {
    "score": cluster.score,
    "compress": cluster.compress,
    "upscale": lambda pictures, model, out, engine: cluster.upscale(
        pictures, model, out, 2, cluster.Drawing(seed=7, at_once=4), engine
    ),
}


@pytest.mark.parametrize("verb", VERBS)
def test_results_do_not_depend_on_how_the_work_is_cut(
    verb: str, model: ImageModel, folder: Path, tmp_path: Path
) -> None:
    """Law: files of other lengths have the same rows, in the order of the pictures, and the same totals."""
    rows = 1 if verb == "score" else 4 if verb == "upscale" else 16
    few = VERBS[verb](folder, model, tmp_path / "few", cluster.Engine(rows=rows))
    many = VERBS[verb](folder, model, tmp_path / "many", cluster.Engine(rows=64))
    assert len(few["files"]) == -(-ALL // rows)
    assert without_files(few) == without_files(many)
    assert rows_of(tmp_path / "few") == rows_of(tmp_path / "many")
    assert [row["name"] for row in rows_of(tmp_path / "few") if row["error"]] == BROKEN
    assert [each["name"] for each in few["failed"]] == BROKEN
    assert few["pictures"] == ALL
    assert few["notes"] == ["left out 1 files that do not look like pictures"]


def test_scores_are_those_of_the_command_score(model: ImageModel, folder: Path, tmp_path: Path) -> None:
    manifest = cluster.score(sorted(folder.glob("?.png")), model, tmp_path / "out")
    origins = find_pictures([str(folder / f"{i}.png") for i in range(9)], [], print)
    pictures = Pictures(origins, 3, lambda note: None, skip_broken=True)
    expected = dict(score_pictures(model, pictures))
    found = [row for row in rows_of(tmp_path / "out") if not row["error"]]
    assert [row["name"] for row in found] == list(expected)
    for row in found:
        size = row["width"] * row["height"] * 3
        assert [bits / size for bits in row["bits_of_views"]] == expected[row["name"]][1:]
    assert manifest["totals"]["bits"] == pytest.approx(sum(row["bits"] for row in found), rel=1e-12)


def test_compressed_pictures_are_whole(model: ImageModel, folder: Path, tmp_path: Path) -> None:
    """Law: a file decodes to its picture, and is what the picture alone is compressed to."""
    manifest = cluster.compress(folder / "*.png", model, tmp_path / "out")
    found = [row for row in rows_of(tmp_path / "out") if not row["error"]]
    for row in found:
        with Image.open(folder / row["name"]) as picture:
            assert decompress(row["content"], model=model).tobytes() == picture.tobytes()
            assert row["content"] == model.compress(picture)
    assert manifest["totals"]["bytes"] == sum(len(row["content"]) for row in found)


def test_draws_belong_to_the_picture(model: ImageModel, tmp_path: Path) -> None:
    """Law: alone, a picture gives what `upscale` gives for its seed, whatever its name and its place."""
    for i, name in enumerate(["a", "b", "c"]):
        (tmp_path / f"{name}.png").write_bytes(png((4, 4), i))
        (tmp_path / f"again-{3 - i}.png").write_bytes(png((4, 4), i))
    drawing = cluster.Drawing(seed=3, at_once=1)
    cluster.upscale(tmp_path, model, tmp_path / "out", 2, drawing)
    rows = {row["name"]: row for row in rows_of(tmp_path / "out")}
    for i, name in enumerate(["a", "b", "c"]):
        row, again = rows[f"{name}.png"], rows[f"again-{3 - i}.png"]
        assert (row["seed"], row["image"]["bytes"]) == (again["seed"], again["image"]["bytes"])
        x = take_images(tmp_path / f"{name}.png", 3, 256).only()
        (drawn,) = upscale(model, x, 2, seed=[row["seed"]])
        assert torch.equal(take_images(Image.open(io.BytesIO(row["image"]["bytes"])), 3, 256).only()[0], drawn)
    assert len({row["seed"] for row in rows.values()}) == 3
    assert load_images(str(tmp_path / "out"), "all").size == (8, 8)  # results are pictures again


def test_sampling_and_colorizing(model: ImageModel, tmp_path: Path) -> None:
    """Law: image i has the seed `seed + i`; gray pictures get colors with the same gray view."""
    cluster.sample(model, tmp_path / "drawn", 3, (4, 6), cluster.Drawing(seed=5, at_once=2))
    first, second, third = (row["image"]["bytes"] for row in rows_of(tmp_path / "drawn"))
    pair, alone = sample(model, 2, (4, 6), seed=5), sample(model, 1, (4, 6), seed=7)
    for found, x in zip((first, second, third), (*pair, *alone), strict=True):
        assert torch.equal(take_images(Image.open(io.BytesIO(found)), 3, 256).only()[0], x)
    gray = make_model(QuantizedGrayscale(4))
    Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5) * 12).save(tmp_path / "gray.png")
    cluster.colorize(tmp_path / "gray.png", gray, tmp_path / "colored")
    (row,) = rows_of(tmp_path / "colored")
    colored = colorize(gray, Image.open(tmp_path / "gray.png"), seed=row["seed"])
    assert Image.open(io.BytesIO(row["image"]["bytes"])).tobytes() == colored.tobytes()


def test_results_are_guarded(model: ImageModel, folder: Path, tmp_path: Path) -> None:
    """Law: nothing that exists is replaced unless it is ours, and what is not finished has no manifest."""
    out = tmp_path / "out"
    cluster.score(folder, model, out, cluster.Engine(rows=4))
    before = contents(out)
    with pytest.raises(ValueError, match="already exists"):
        cluster.score(folder, model, out)
    assert contents(out) == before
    (out / "notes.txt").write_text("mine")
    cluster.score(folder, model, out, cluster.Engine(overwrite=True))
    assert sorted(contents(out)) == ["_manifest.json", "notes.txt", "part-000000.parquet"]
    with pytest.raises(ValueError, match="none of 1 pictures can be used, the first because image '3"):
        cluster.score(folder / "3.png", model, tmp_path / "none")
    assert "_manifest.json" not in contents(tmp_path / "none")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "part-000000.parquet").write_bytes(b"of another program")
    with pytest.raises(ValueError, match="which another program made"):
        cluster.score(folder, model, foreign, cluster.Engine(overwrite=True))
    assert contents(foreign) == {"part-000000.parquet": b"of another program"}


def test_a_damaged_table(model: ImageModel, tmp_path: Path) -> None:
    """Law: the pictures of a table that cannot be read are named and counted, and those before the damage are used."""
    rows = [{"bytes": png((8, 8), i), "path": None} for i in range(6)]
    file = tmp_path / "table.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": rows}), file, row_group_size=3)
    start = pyarrow.parquet.read_metadata(file).row_group(1).column(0).data_page_offset
    content = bytearray(file.read_bytes())
    content[start : start + 40] = bytes(40)
    file.write_bytes(content)
    manifest = cluster.score(file, model, tmp_path / "out")
    assert [each["name"] for each in manifest["failed"]] == [f"table.parquet:{i}" for i in (3, 4, 5)]
    assert all("get the file again" in each["error"] for each in manifest["failed"])
    file.write_bytes(content[:-20])
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        cluster.score(file, model, tmp_path / "other")


def test_bad_requests(model: ImageModel, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pyarrow.parquet.write_table(pyarrow.table({"pixels": [b""]}), tmp_path / "no.parquet")
    for pictures, engine, expected in [
        (tmp_path / "no.parquet", {}, "rename one of them to 'image'"),
        ("-", {}, "cannot read standard input"),
        (5, {}, "use the path of a file or folder"),
        (folder, {"name": "spark"}, "use local or ray"),
        (folder, {"workers": 2}, "use engine 'ray'"),
        (folder, {"rows": 0}, "at least 1"),
        (folder, {"name": "ray", "address": "nowhere"}, "use HOST:PORT"),
    ]:
        if "address" in engine and not HAS_RAY:
            continue
        with pytest.raises(ValueError, match=expected):
            cluster.score(pictures, model, out, cluster.Engine(**engine))
        assert not out.exists()
    with pytest.raises(ValueError, match="multiple of 8"):
        cluster.upscale(folder, model, tmp_path / "other", engine=cluster.Engine(rows=12))


def run_script(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


LIMITED = f"""
import resource, sys
from pathlib import Path
import pixelcnn
from pixelcnn import cluster
model = pixelcnn.load(sys.argv[1])
cluster.score(sys.argv[2] + "/0.png", model, sys.argv[3] + "-warm")
size = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (size + {ROOM}, -1))
cluster.score(sys.argv[2], model, sys.argv[3])
"""


@pytest.fixture(scope="module")
def with_huge(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few pictures, one of which needs more memory than the processes of the tests may use."""
    pictures = tmp_path_factory.mktemp("huge")
    for i in range(6):
        (pictures / f"{i}.png").write_bytes(png((8, 8), i))
    Image.new("RGB", HUGE).save(pictures / "4-huge.png")
    return pictures


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is that of Linux")
def test_a_picture_that_fills_the_memory_is_left_out(model: ImageModel, with_huge: Path, tmp_path: Path) -> None:
    save(model, tmp_path / "model")
    ended = run_script(LIMITED, tmp_path / "model", with_huge, tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    assert [row["name"] for row in rows_of(tmp_path / "out") if row["error"]] == ["4-huge.png"]
    assert len(rows_of(tmp_path / "out")) == 7


def test_a_full_disk_is_one_line(folder: Path, model: ImageModel, tmp_path: Path) -> None:
    """Law: results that cannot be written leave a folder without a manifest, and say so in one line."""
    save(model, tmp_path / "model")
    script = (
        "import resource, sys; from pixelcnn.apps.cli.main import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500)); sys.argv[0] = 'pixelcnn'; main()"
    )
    out = tmp_path / "out"
    ended = run_script(script, "compress", folder, "--model", tmp_path / "model", "--engine", "local", "--out", out)
    assert ended.returncode == 2
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("pixelcnn:")]
    assert "free some space" in line
    assert list(contents(out)) == ["_unfinished.json", "_working/part-000000.json"]


def fork_and_kill(worker: Worker, unit: Unit, when: Callable[[dict[str, Any]], bool]) -> bool:
    """Work on a unit in a process that is killed as soon as its note says so; return whether it was."""
    note = worker.job.folder / "_working/part-000000.json"
    child = os.fork()
    if child == 0:
        worker.work(unit)
        os._exit(0)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        try:
            found = json.loads(note.read_text())
        except (OSError, ValueError):
            continue
        if found["process"] == child and when(found):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True
    return False


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_picture_that_kills_its_workers_is_left_out(model: ImageModel, tmp_path: Path) -> None:
    """Law: the third worker after the first knows which picture it was; a death for another reason costs nothing."""
    spans = []
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(png((32, 32) if i == 2 else (8, 8), i))
        spans.append(Span(f"{i}.png", str(tmp_path / f"{i}.png"), 0, 1))
    unit = Unit(0, spans)
    undisturbed = Worker(versions(), pickled(Job(Score(), model, tmp_path / "undisturbed", "cpu"))).work(unit)
    worker = Worker(versions(), pickled(Job(Score(), model, tmp_path / "once", "cpu")))
    assert fork_and_kill(worker, unit, lambda note: True)
    assert worker.work(unit) == undisturbed
    worker = Worker(versions(), pickled(Job(Score(), model, tmp_path / "poison", "cpu")))
    deaths = 0
    # The first worker notes nothing but its start; the next ones have the death of the first in their notes.
    while fork_and_kill(worker, unit, lambda note: note["at"] == "2-2" or not note["deaths"]):
        deaths += 1
        assert deaths < 5
    assert deaths == 3
    rows = rows_of(tmp_path / "poison")
    assert [row["error"] and row["error"][:17] for row in rows] == [None, None, "2 workers ended w", None]
    expected = rows_of(tmp_path / "undisturbed")
    assert [row for row in rows if not row["error"]] == [*expected[:2], expected[3]]
    assert not Marker(tmp_path / "poison", 1).careful


def pickled(job: Job) -> bytes:
    import pickle

    return pickle.dumps(job)


def test_a_worker_with_other_versions_does_nothing(model: ImageModel, tmp_path: Path) -> None:
    expected = {**versions(), "torch": "1.0"}
    report = Worker(expected, b"never opened").work(Unit(0, []))
    assert list(report) == ["problem"]
    assert f"has torch {torch.__version__} instead of 1.0: install the same versions" in report["problem"]
    assert not list(tmp_path.iterdir())


def test_the_command_line(model: ImageModel, folder: Path, tmp_path: Path) -> None:
    save(model, tmp_path / "model")
    name, out = tmp_path / "model", tmp_path / "out"
    ended = inside("score", name, folder, "--engine", "local", "--out", out, "--json")
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["failed"] == len(BROKEN)
    assert ended.stderr.count("left out '") == len(BROKEN)
    for arguments, expected in [
        (["score", name, folder, "--engine", "local"], "with --out"),
        (["score", name, folder, "--out", out], "use it with --engine"),
        (["score", name, folder, "--workers", 2], "use it with --engine ray"),
        (["score", name, folder, "--engine", "local", "--out", out, "--csv"], "--csv has no effect with --engine"),
        (["score", name, folder, "--engine", "local", "--out", out], "already exists: use --overwrite"),
        (["sample", name, "--engine", "spark", "--out", out], "use local or ray"),
    ]:
        ended = inside(*arguments)
        assert ended.returncode == 2
        assert expected in ended.stderr
        assert len(ended.stderr.strip().splitlines()) == 1
    for i, arguments in enumerate(
        [["compress", folder, "--model", name], ["upscale", name, folder], ["sample", name, "-n", 2, "--size", 4]]
    ):
        assert inside(*arguments, "--engine", "local", "--out", tmp_path / str(i)).returncode == 0
        assert rows_of(tmp_path / str(i))


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Ray on this machine, with two CPUs."""
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": 50, "include_dashboard": False}
    ray.init("local", num_cpus=2, object_store_memory=150 * 2**20, **options)
    yield ray
    ray.shutdown()


@contextmanager
def watching(out: Path, do: Callable[[int], bool]) -> Iterator[None]:
    """Do something to every process that says that it works, as soon as it does; stop when it returns False."""
    seen: set[int] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            for note in out.glob("_working/*.json"):
                try:
                    process = json.loads(note.read_text())["process"]
                    if process in seen:
                        continue
                    seen.add(process)
                    if not do(process):
                        return
                except (OSError, ValueError):  # the note is gone, or its process
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


@pytest.mark.slow
@needs_ray
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is that of Linux")
def test_ray_survives(ray: Any, model: ImageModel, folder: Path, with_huge: Path, tmp_path: Path) -> None:
    """Law: with two workers, one of which is killed, broken pictures, and one that fills the memory, the rest of the
    results has the bytes that this process alone writes."""
    out, killed = tmp_path / "ray", []

    def kill_one_and_limit_the_rest(process: int) -> bool:
        if not killed:
            killed.append(process)
            os.kill(process, signal.SIGKILL)
        else:
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
            (size,) = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData")]
            resource.prlimit(process, resource.RLIMIT_DATA, (size + ROOM, resource.RLIM_INFINITY))
        return True

    started = time.monotonic()
    with watching(out, kill_one_and_limit_the_rest):
        manifest = cluster.score([folder, with_huge], model, out, cluster.Engine("ray", workers=2, rows=3))
    assert len(killed) == 1
    assert time.monotonic() - started < 120
    (huge,) = [each["name"] for each in manifest["failed"] if "huge" in each["name"]]
    assert len(manifest["failed"]) == len(BROKEN) + 1
    here = [
        file for file in [*folder.iterdir(), *with_huge.iterdir()] if file.name not in (Path(huge).name, "README.txt")
    ]
    cluster.score(here, model, tmp_path / "local", cluster.Engine(rows=3))
    expected = rows_of(tmp_path / "local")
    found = {row["name"]: row for row in rows_of(out) if row["name"] != huge}
    assert found == {row["name"]: row for row in expected}


@pytest.mark.slow
@needs_ray
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("verb", "workers"), [("upscale", 2), ("compress", 1)])
def test_ray_writes_the_same_bytes(
    ray: Any, verb: str, workers: int, model: ImageModel, folder: Path, tmp_path: Path
) -> None:
    rows = 4 if verb == "upscale" else 16
    VERBS[verb](folder, model, tmp_path / "local", cluster.Engine(rows=rows))
    VERBS[verb](folder, model, tmp_path / "ray", cluster.Engine("ray", workers=workers, rows=rows))
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


@pytest.mark.slow
@needs_ray
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are those of Linux")
def test_a_disk_that_fills_in_one_worker(ray: Any, model: ImageModel, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def fill(process: int) -> bool:
        resource.prlimit(process, resource.RLIMIT_FSIZE, (100, 100))
        return False

    with watching(out, fill), pytest.raises(ValueError, match="free some space"):
        cluster.score(folder, model, out, cluster.Engine("ray", workers=2, rows=1))
    assert not (out / "_manifest.json").exists()


@pytest.mark.slow
@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_workers_of_another_version(ray: Any, model: ImageModel, folder: Path, tmp_path: Path) -> None:
    """Law: a cluster whose packages differ from those of the command says so in one line."""
    save(model, tmp_path / "model")
    other = tmp_path / "other" / "pillow-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: pillow\nVersion: 1.0\n")
    address = ray.get_runtime_context().gcs_address
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(other.parent), os.environ.get("PYTHONPATH", "")]))
        ended = pixelcnn(
            *("score", tmp_path / "model", folder, "--engine", "ray", "--address", address, "--out", tmp_path / "out")
        )
    assert ended.returncode == 2, ended.stderr
    assert "instead of 1.0: install the same versions on all machines" in ended.stderr.splitlines()[-1]


@pytest.mark.slow
@needs_ray
def test_a_cluster_that_does_not_answer(
    model: ImageModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: an address where nobody listens is an error at once, and one where nobody answers after a while."""
    monkeypatch.setattr(engines, "PATIENCE", 3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        for listening, expected in ((False, "Connection refused"), (True, "in 3 seconds: start it with")):
            if listening:
                silent.listen()
            with pytest.raises(ValueError, match=expected):
                engines._check_answers(address)
