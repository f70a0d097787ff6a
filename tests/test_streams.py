"""Streams of shards: the same order in every run, exact positions, flat blocks, and damaged files named in one line."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import inside
from PIL import Image
from safetensors.torch import load_file

import pixelcnn.data.order
import pixelcnn.data.shards
from pixelcnn.data.fingerprints import hash_bytes, is_held_out
from pixelcnn.data.images import load_images
from pixelcnn.data.order import Position, ShuffledStream
from pixelcnn.data.sources import UnfetchedError
from pixelcnn.data.streams import StreamedImages, stream_images
from pixelcnn.models.presets import PyramidPixelCNN
from pixelcnn.training.loop import train
from pixelcnn.training.options import Run, Training
from pixelcnn.training.streaming import StreamedBatches

SHARDS, IMAGES = 4, 50  # images of each shard


def png(number: int, size: tuple[int, int] = (8, 8)) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_parquet(path: Path, pictures: list[bytes]) -> None:
    table = {"image": [{"bytes": each, "path": None} for each in pictures], "label": [0] * len(pictures)}
    pq.write_table(pa.table(table), path, row_group_size=16)


def write_tar(path: Path, pictures: list[bytes]) -> None:
    with tarfile.open(path, "w") as file:
        for i, picture in enumerate(pictures):
            for suffix, content in (("png", picture), ("json", b'{"a": 1}'), ("cls", b"3")):
                entry = tarfile.TarInfo(f"{path.stem}/{i:03d}.{suffix}")
                entry.size = len(content)
                file.addfile(entry, io.BytesIO(content))


WRITERS = {"parquet": write_parquet, "tar": write_tar}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the same pictures as parquet files and as tar files."""
    folder = tmp_path_factory.mktemp("shards")
    for kind, write in WRITERS.items():
        (folder / kind).mkdir()
        for s in range(SHARDS):
            write(folder / kind / f"{s}.{kind}", [png(s * IMAGES + i) for i in range(IMAGES)])
    return {kind: folder / kind for kind in WRITERS}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make blocks that end within a shard, and span two."""
    monkeypatch.setattr(pixelcnn.data.order, "_BLOCK_IMAGES", 30)
    monkeypatch.setattr(pixelcnn.data.streams, "_AT_ONCE", 8)


def shuffled(images: StreamedImages, **options: Any) -> ShuffledStream:
    return ShuffledStream(images, **({"seed": 0, "flip": True, "random_crop": 6} | options))


def visited(stream: ShuffledStream, number: int, *where: Any, **options: Any) -> tuple[list[bytes], list[Position]]:
    found = list(islice(stream.visit(*where, **options), number))
    return [x.numpy().tobytes() for x, _ in found], [position for _, position in found]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_stream_goes_on_exactly(folders: dict[str, Path], kind: str) -> None:
    """Law: from any position, with any number of threads and in another process, the same images follow."""
    images, positions = visited(shuffled(stream_images(folders[kind])), 450, rank=1, ranks=2)
    assert positions[-1].epoch >= 3
    again = shuffled(stream_images(str(folders[kind])))
    for done, threads in ((0, 2), (1, 0), (29, 1), (64, 3), (100, 0), (213, 0)):
        place = positions[done - 1] if done else None
        rest, after = visited(again, 100, place, rank=1, ranks=2, threads=threads)
        assert (rest, after) == (images[done : done + 100], positions[done : done + 100])
    assert visited(shuffled(stream_images(folders[kind]), seed=1), 100)[0] != visited(again, 100)[0]


def test_an_epoch_visits_each_training_image_once(folders: dict[str, Path]) -> None:
    """Law: so do several processes together; the kind of file changes nothing; what is held out is as everywhere."""
    plain = {"flip": False, "random_crop": None}
    expected = sorted(x.numpy().tobytes() for x in load_images(folders["parquet"]))
    held_out = load_images(folders["parquet"], "test")
    assert 0 < len(held_out) == SHARDS * IMAGES - len(expected)
    for kind in WRITERS:
        stream = shuffled(stream_images(folders[kind]), **plain)
        for ranks in (1, 3):
            found = []
            for epoch in (0, 1):
                found = []
                for rank in range(ranks):
                    for x, place in stream.visit(Position(epoch), rank=rank, ranks=ranks):
                        if place.epoch > epoch:
                            break
                        found.append(x.numpy().tobytes())
                assert sorted(found) == expected
            assert found != expected
        first = {x.numpy().tobytes() for x in stream.images.held_out}
        assert first <= {x.numpy().tobytes() for x in held_out}
        assert len(first) == 8


def test_parts_are_kept(tmp_path: Path) -> None:
    """A test part is held out, and then all of the part train is used."""
    for name, start in (("train-0", 0), ("train-1", 20), ("test-0", 40)):
        write_tar(tmp_path / f"{name}.tar", [png(start + i) for i in range(20)])
    images = stream_images(tmp_path)
    assert images.shards.names == ["train-0.tar", "train-1.tar"]
    assert len(set(visited(shuffled(images, flip=False, random_crop=None), 40)[0])) == 40
    tests = {x.permute(1, 2, 0).numpy().tobytes() for x in images.held_out}
    assert tests == {np.asarray(Image.open(io.BytesIO(png(40 + i)))).tobytes() for i in range(8)}
    assert stream_images(tmp_path / "tr*.tar").part == "all but the 5 % held out by content hash"


def test_a_killed_run_ends_with_the_same_bits(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: a streamed run that was killed and resumed ends as an undisturbed one; other data are refused."""
    monkeypatch.undo()  # the process has blocks of the usual size
    arguments = ("train", "photos32-pyramid-small", "--data", folders["parquet"], "--stream", "--size", 8,
                 "--batch-size", 4, "--factor", 2, "--steps", 60, "--sheet-minutes", 0, "--out")  # fmt: skip
    whole = inside(*arguments, tmp_path / "whole")
    assert "4 shards to train on (all but the 5 % held out by content hash)" in whole.stderr, whole.stderr
    process = subprocess.Popen(
        [sys.executable, "-m", "pixelcnn", *map(str, arguments), tmp_path / "killed", "--save-minutes", "0"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    state = tmp_path / "killed" / "factor-2" / "state.safetensors"
    while not state.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < load_file(state)["stream.positions"][0, 4] < 240
    refused = inside(*(each for each in arguments if each != "--stream"), tmp_path / "killed", "--resume")
    assert refused.returncode == 2
    assert "data.stream is True there and None here. Resume it with --stream" in refused.stderr
    assert inside(*arguments, tmp_path / "killed", "--resume", "--workers", 2).returncode == 0
    theirs, ours = (load_file(tmp_path / name / "factor-2" / state.name) for name in ("whole", "killed"))
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    scored = inside("evaluate", tmp_path / "killed", "--json")
    assert json.loads(scored.stdout)["images"] == len(load_images(folders["parquet"], "test", size=8))
    assert "changed" not in scored.stderr
    assert "not recorded" not in scored.stderr


def batches(images: StreamedImages, rank: int, saved: dict, ranks: int = 2) -> StreamedBatches:
    """Open the batches of one of several processes, which gathers only its own position."""
    one: Any = SimpleNamespace(
        process_index=rank, num_processes=ranks, device=torch.device("cpu"), gather=lambda x: x.expand(ranks, -1)
    )
    return StreamedBatches(shuffled(images), Training(batch_size=12, accumulate=2), saved, one)


def test_processes_go_on_with_their_own_shards(folders: dict[str, Path]) -> None:
    """Each takes its share of a batch; another number of processes, or other shards, are refused."""
    images = stream_images(folders["parquet"])
    shares = [batches(images, rank, {}) for rank in range(2)]
    for _ in range(20):
        assert next(shares[0])[0].shape == (3, 3, 6, 6)
        next(shares[1])
    saved = shares[0].save() | {"positions": torch.tensor([share.position for share in shares])}
    for rank, share in enumerate(shares):
        again = batches(stream_images(folders["parquet"]), rank, saved)
        assert torch.equal(next(share)[0], next(again)[0])
    with pytest.raises(ValueError, match="the run used 2 processes, each of which reads its own shards: resume it"):
        batches(images, 0, saved, ranks=3)
    with pytest.raises(ValueError, match=r"shard '0.parquet' is missing, which the run began with: put it back"):
        batches(stream_images(folders["tar"]), 0, saved)
    with pytest.raises(ValueError, match="has 4 shards for 5 processes, each of which reads its own: use fewer"):
        next(batches(images, 0, {}, ranks=5))


def spoil(path: Path, change: str) -> None:
    content = path.read_bytes()
    if change == "cut":
        path.write_bytes(content[: len(content) // 3])
    elif change == "zeros":
        path.write_bytes(bytes(10240))
    elif change == "holes":  # inside of the pages; the footer is whole
        path.write_bytes(content[:200] + bytes(800) + content[1000:])
    else:
        WRITERS[path.suffix[1:]](path, [])


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("parquet", "cut", "cannot be read"),
        ("parquet", "holes", "cannot be read"),
        ("parquet", "none", "holds no images: remove it"),
        ("tar", "cut", "is cut short: put the whole file back"),
        ("tar", "zeros", "holds no images: remove it"),
        ("tar", "none", "holds no images: remove it"),
        ("tar", "holes", "cannot be read"),
    ],
)
def test_a_damaged_shard_is_named(tmp_path: Path, kind: str, change: str, reason: str) -> None:
    """Law: at the start or when it is its turn, and in one line."""
    for s in range(3):
        WRITERS[kind](tmp_path / f"{s}.{kind}", [png(s * 60 + i) for i in range(60)])
    spoil(tmp_path / f"1.{kind}", change)
    with pytest.raises(ValueError, match=rf"1\.{kind}.*{reason}") as error:
        visited(shuffled(stream_images(tmp_path)), 200)
    assert "\n" not in str(error.value)


def test_a_broken_picture_is_named_or_skipped(tmp_path: Path) -> None:
    """So is one of another size; those that are skipped are counted once."""
    pictures = [png(i) for i in range(40)]
    training = [i for i, each in enumerate(pictures) if not is_held_out(hash_bytes(each))]
    pictures[training[5]] = pictures[training[5]][:60]
    pictures[training[9]] = png(0, (8, 10))
    write_tar(tmp_path / "a.tar", pictures)
    write_tar(tmp_path / "b.tar", [png(100 + i) for i in range(20)])
    with pytest.raises(ValueError, match=rf"image 'a.tar/a/{training[5]:03d}.png' cannot be read .*--skip-broken"):
        visited(shuffled(stream_images(tmp_path)), 100)
    (tmp_path / "b.tar").unlink()
    how = ("train", "photos32-pyramid-small", "--data", tmp_path / "*.tar", "--stream", "--random-crop", 8, "--size",
           8, "--batch-size", 4, "--factor", 2, "--steps", 30, "--sheet-minutes", 0, "--out")  # fmt: skip
    failed = inside(*how, tmp_path / "one")
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].startswith(f"pixelcnn: image 'a.tar/a/{training[5]:03d}.png' cannot be read")
    skipped = inside(*how, tmp_path / "two", "--skip-broken")
    assert skipped.returncode == 0, skipped.stderr
    assert f"pixelcnn: left out 1 images, such as 'a.tar/a/{training[5]:03d}.png'" in skipped.stderr
    images = stream_images(tmp_path, skip_broken=True)
    assert len(set(visited(shuffled(images, flip=False, random_crop=None), 200)[0])) == len(training) - 2
    assert images.broken == {f"a.tar/a/{training[i]:03d}.png" for i in (5, 9)}


def test_paths_in_a_table_are_never_opened(tmp_path: Path) -> None:
    """Law: a path in untrusted data names no file of this machine."""
    (tmp_path / "secret.png").write_bytes(png(0))
    records = [{"bytes": None, "path": str(tmp_path / "secret.png")}]
    pq.write_table(pa.table({"image": records}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"cannot be read \(it is empty\)"):
        stream_images(tmp_path / "a.parquet")


def test_sources_that_are_no_streams(folders: dict[str, Path], tmp_path: Path) -> None:
    """Each has one line with a remedy."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "0.png").write_bytes(png(0))
    (tmp_path / "both").mkdir()
    for kind, write in WRITERS.items():
        write(tmp_path / "both" / f"0.{kind}", [png(0)])
    write_tar(tmp_path / "text.tar", [png(0)])
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "text.parquet")
    for source, reason in {
        tmp_path / "empty": "--stream reads .parquet and .tar files, and there are none",
        tmp_path / "pictures": "and there are none; name some",
        tmp_path / "pictures" / "0.png": "0.png' is neither; name some",
        tmp_path / "none-*.tar": "and there are none; name some",
        tmp_path / "both": r"holds parquet and tar files: name the files of one kind, as in '\*.tar'",
        tmp_path / "text.parquet": r"has columns \['text'\]: rename one of them to 'image'",
        tmp_path / "missing": "no such file or folder, use a path",
    }.items():
        with pytest.raises(ValueError, match=reason):
            stream_images(source)
    with pytest.raises(UnfetchedError, match="'no-such/one' was not found locally or on the Hugging Face hub"):
        stream_images("no-such/one")
    with pytest.raises(ValueError, match="too small for --size 9: use 8 or less"):
        stream_images(folders["tar"], size=9)


def test_too_few_images_for_a_batch(tmp_path: Path) -> None:
    """A stream that ends before its share of a batch, or holds nothing at all, does not go round for ever."""
    write_parquet(tmp_path / "a.parquet", [png(i) for i in range(5)])
    model = PyramidPixelCNN(1, filters=4, blocks=1, embedding_blocks=1)
    with pytest.raises(
        ValueError, match=r"process 0 \('a.parquet' and so on\) hold 5 images to train on, and its share"
    ):
        train(model, stream_images(tmp_path), tmp_path / "run", Training(batch_size=8), steps=2, run=Run())


def test_a_data_set_of_the_hub(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parts are streamed like files of this machine."""
    open_builder = datasets.load_dataset_builder
    files = {"train": str(folders["parquet"] / "[012].parquet"), "validation": str(folders["parquet"] / "3.parquet")}
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda _: open_builder("parquet", data_files=files))
    monkeypatch.setattr(pixelcnn.data.shards, "reach_hub", lambda _: None)
    images = stream_images("owner/name", size=4)
    assert (images.part, len(images.shards)) == ("its part train", 3)
    assert len(set(visited(shuffled(images, random_crop=None, flip=False), 150)[0])) == 150
    assert pixelcnn.data.shards._name("hf://datasets/owner/name@0123/data/a.parquet", None) == "data/a.parquet"
