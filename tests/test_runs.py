"""Run folders: overwriting, locking, and staying recognizable as a run at every moment."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_checkpoint import stop_after

from pixelcnn.common.files import read_json, write_json
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load, save
from pixelcnn.models.presets import PyramidPixelCNN
from pixelcnn.training.runs import claim_folder

RUN = {"training": {"batch_size": 4}}


def tiny_model(seed: int = 0, filters: int = 2) -> ImageModel:
    torch.manual_seed(seed)
    return PyramidPixelCNN(1, filters=filters, blocks=1, embedding_blocks=1)


def claim(
    folder: Path,
    run: dict[str, Any] = RUN,
    factors: Sequence[int] = (0, 1),
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    with claim_folder(folder, tiny_model(), run, factors, resume=resume, overwrite=overwrite):
        pass


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_overwriting_removes_what_a_run_makes_and_nothing_else(tmp_path: Path) -> None:
    """Files with names that a run does not use stay; a stale state is removed."""
    claim(tmp_path)
    mine = [
        "factor-analysis/data.csv", "factor-0/mine.txt", "factor-0/sheet-best.png", "factor-0/a/state.safetensors",
        "factor-00/state.safetensors", "factor-1a/state.safetensors", "state.safetensors", "a/run.json",
        "history.jsonl", "report.html", "factor-5/mine.txt", "factor-5/events.txt",
    ]  # fmt: skip
    stale = [
        "factor-0/state.safetensors", "factor-5/history.jsonl", "factor-7/.state.safetensors.tmp",
        "factor-7/sheet-000001.png", "factor-7/events.out.tfevents.1.host.2.0", ".config.json.tmp",
    ]  # fmt: skip
    write(tmp_path, *mine, *stale)
    claim(tmp_path, {"training": {"batch_size": 2}}, factors=[1], overwrite=True)
    left = tree(tmp_path)
    assert all(left[name] == name.encode() for name in mine)
    made = {".lock", "factor-1/.lock", "run.json", "config.json", "model.safetensors"}
    assert set(left) == {*mine, *made}
    assert not (tmp_path / "factor-7").exists()


@pytest.mark.parametrize("content", [None, "{}", "[", '{"training": 3}', '{"mine": {}}'])
def test_a_folder_without_a_run_is_not_overwritten(tmp_path: Path, content: str | None) -> None:
    """This protects even a saved model, and a folder where another program keeps its own run.json."""
    save(tiny_model(), tmp_path)
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    before = tree(tmp_path)
    for overwrite in (True, False):
        with pytest.raises(
            ValueError, match=r"is not empty and not a run \(it contains 'config.json'.*: name another folder"
        ):
            claim(tmp_path, overwrite=overwrite)
    assert tree(tmp_path) == before


def test_the_target_of_a_link_is_not_overwritten(tmp_path: Path) -> None:
    claim(tmp_path / "run")
    write(tmp_path / "run", "factor-0/state.safetensors")
    (tmp_path / "run" / "factor-0").rename(tmp_path / "elsewhere")
    (tmp_path / "run" / "factor-0").symlink_to(tmp_path / "elsewhere")
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=r"contains a link 'factor-0'.*: remove the link"):
        claim(tmp_path / "run", overwrite=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("writes", range(4))
@pytest.mark.parametrize("over", [False, True])
def test_a_run_killed_at_its_start_is_a_run(
    tmp_path: Path, writes: int, over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before or after any of its first files, a run can be overwritten, and resumed once it exists."""
    if over:
        with claim_folder(tmp_path, tiny_model(1), {"training": {}}, [0, 1], resume=False, overwrite=False):
            write(tmp_path, "factor-0/state.safetensors")
    with monkeypatch.context() as patch:
        stop_after(writes, patch)
        if writes == 3:
            claim(tmp_path, overwrite=over)
        else:
            with pytest.raises(KeyboardInterrupt):
                claim(tmp_path, overwrite=over)
    claim(tmp_path, resume=writes > 0, overwrite=writes == 0)
    assert not (tmp_path / "factor-0" / "state.safetensors").exists()
    expected = tiny_model()
    assert all(torch.equal(a, b) for a, b in zip(load(tmp_path).parameters(), expected.parameters(), strict=True))
    claim(tmp_path, overwrite=True)


def test_a_missing_model_is_not_replaced_by_a_fresh_one(tmp_path: Path) -> None:
    """If one factor has a state, recreating the model would give the others fresh weights."""
    claim(tmp_path)
    write(tmp_path, "factor-0/state.safetensors")
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        claim(tmp_path, resume=True)


def test_unreadable_notes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for notes in ({"x": float("nan")}, {"x": "y" * 2**21}):
        with pytest.raises(ValueError, match=r"not a finite number|bytes, which is over the limit"):
            claim(tmp_path / "run", RUN | notes)
        assert not (tmp_path / "run").exists()


HOLDER = """
import sys
from pathlib import Path
from test_runs import RUN, claim_folder, tiny_model
with claim_folder(Path(sys.argv[1]), tiny_model(), RUN, [0], resume=True, overwrite=False):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_factor_has_one_writer(tmp_path: Path) -> None:
    """Only the factor that a real process is training is locked, and it is free again once that process is killed."""
    claim(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        before = tree(tmp_path)
        options: dict[str, Any]
        for options in ({"resume": True}, {"overwrite": True}, {"overwrite": True, "factors": [1]}):
            start = time.perf_counter()
            with pytest.raises(ValueError, match=r"factor-0' is being trained by another process: wait for it to end"):
                claim(tmp_path, **options)
            assert time.perf_counter() - start < 1
        assert tree(tmp_path) == before
        claim(tmp_path, factors=[1], resume=True)
        holder.kill()
    claim(tmp_path, resume=True)
    claim(tmp_path, overwrite=True)


def test_what_changes_only_time_and_memory_may_change(tmp_path: Path) -> None:
    """Also a setting that an older version did not record, at its default; `run.json` then says what is so now."""
    data = {"source": "photos", "size": 8, "crop": None, "fingerprint": {"images": 4, "blake2b": "00"}}
    claim(tmp_path, {"training": {"batch_size": 4, "workers": 0, "accumulate": 1}, "data": data})
    now = {"batch_size": 4, "workers": 3, "accumulate": 2, "compile": True, "cooldown": 0.0}
    changed = {"training": now, "data": data | {"fingerprint": {"images": 5, "blake2b": "11"}}}
    claim(tmp_path, changed, resume=True)
    # The fingerprint stays that of the images that the run began with.
    assert read_json(tmp_path / "run.json") == {"training": now, "data": data}
    with pytest.raises(ValueError, match=r"cooldown is 0\.0 there and 0\.5 here; data\.size is 8 there and 9"):
        claim(tmp_path, {"training": now | {"cooldown": 0.5}, "data": data | {"size": 9}}, resume=True)
    with pytest.raises(ValueError, match=r"data\.source is 'photos' there and '\./photos' here"):
        claim(tmp_path, {"training": now, "data": data | {"source": "./photos", "fingerprint": None}}, resume=True)


def test_the_model_that_a_run_began_from_may_be_spelled_in_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    claim(tmp_path / "run", RUN | {"from": "models/a"})
    for same in ("./models/a/", str(tmp_path / "models" / "a")):
        claim(tmp_path / "run", RUN | {"from": same}, resume=True)
    for other in ("models/b", "photos-pyramid", None):
        with pytest.raises(ValueError, match=r"from is .* there and"):
            claim(tmp_path / "run", RUN | {"from": other}, resume=True)


def test_another_run_is_not_resumed(tmp_path: Path) -> None:
    claim(tmp_path)
    with pytest.raises(ValueError, match=r"training.batch_size is 4 there and 2 here"):
        claim(tmp_path, {"training": {"batch_size": 2}}, resume=True)
    write_json(tmp_path / "run.json", RUN | {"data": "x" * 100_000})
    with pytest.raises(ValueError, match="data is 'xxx") as error:
        claim(tmp_path, resume=True)
    assert len(str(error.value)) < 1_000
