"""The command line on real files: results on standard output, and errors of one line with exit code 2."""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import inside, pixelcnn, save_noise
from PIL import Image

from pixelcnn import __version__ as pixelcnn_version
from pixelcnn.common.files import write_json
from pixelcnn.data.images import load_images
from pixelcnn.models.files import read_config
from pixelcnn.models.load import load, save
from pixelcnn.models.presets import PixelCNN, PyramidPixelCNN
from pixelcnn.zoo.recipes import RECIPES


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_noise(tmp_path_factory.mktemp("pictures"), 6, (9, 8))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """Save a tiny model in a folder that records its training data."""
    folder = tmp_path_factory.mktemp("runs") / "model"
    torch.manual_seed(0)
    save(PyramidPixelCNN(1, filters=4, blocks=1, embedding_blocks=1, size=8), folder)
    write_json(folder / "run.json", {"data": {"source": str(pictures), "size": 8, "crop": None}})
    return folder


def test_help_answers_at_once() -> None:
    """--help does not wait for torch: under half a second (the best of three, since the machine may be busy)."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        result = pixelcnn("--help")
        times.append(time.perf_counter() - start)
    assert result.returncode == 0
    assert all(verb in result.stdout for verb in ("demo", "train", "evaluate", "sample", "models"))
    assert min(times) < 0.5, statistics.median(times)


def test_models_answers_without_torch() -> None:
    """So do --version and the completion of words: nothing of them builds a model."""
    script = (
        "import sys; from pixelcnn.apps.cli.main import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    )
    for arguments in (["models"], ["--version"], ["train", "-h"]):
        times = []
        for _ in range(2):
            start = time.perf_counter()
            result = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
            times.append(time.perf_counter() - start)
            assert result.returncode == 0, result.stderr
        assert min(times) < 1, arguments
        if arguments == ["--version"]:
            assert result.stdout == f"pixelcnn {pixelcnn_version}\n"


def test_the_help_is_in_groups_and_80_columns() -> None:
    """-h and --help are the same; a pipe gets plain text; metavars and all options are there."""
    bare = pixelcnn()
    assert (bare.returncode, bare.stdout) == (2, "")
    assert bare.stderr == inside("-h").stdout == inside("--help").stdout
    assert bare.stderr.startswith("Usage: pixelcnn [OPTIONS] COMMAND [ARGS]...\n")
    titles = [line for line in bare.stderr.splitlines() if re.fullmatch(r"\w.*:", line)]
    groups = ["Make models:", "Use models:", "Work on your pictures:", "Compress pictures without loss:"]
    assert titles == ["Options:", *groups]
    assert "..." not in bare.stderr.partition("Make models")[2]  # no summary is cut short
    verbs = re.findall(r"^  (\w+)  ", bare.stderr.partition("Make models")[2], flags=re.M)
    assert len(verbs) == 17
    for verb in verbs:
        shown = inside(verb, "-h").stdout
        assert max(map(len, shown.splitlines())) <= 80
        assert shown.splitlines()[-1].strip().startswith("-h, --help")
    shown = inside("train", "-h").stdout
    titles = [line for line in shown.splitlines() if re.fullmatch(r"\w.*:", line)]
    assert titles == [
        "Arguments:", "The run:", "Images:", "Budget:", "Learning:", "Speed and memory:", "Help:",
    ]  # fmt: skip
    assert "--crop LEFT RIGHT TOP BOTTOM  Pixels" in shown


def test_shells_complete_names() -> None:
    """The script for a shell, and the words that it asks for, from real processes."""
    command = f"{sys.executable} -m pixelcnn"
    shown = subprocess.run(["bash", "-c", f"{command} --show-completion; exit $?"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "complete -o default -F _pixelcnn_completion pixelcnn" in shown.stdout
    for words, expected in (
        ("tr", {"train"}),
        ("train photos", {"photos32-pyramid-small", "photos128-pyramid-small"}),
        ("sample faces", {"faces128-pyramid", "faces32-grayscale"}),
        ("train x --optimizer ", {"adam", "muon"}),
        ("evaluate x --sp", {"--split"}),
    ):
        asked = {"_PIXELCNN_COMPLETE": "complete_bash", "COMP_WORDS": f"pixelcnn {words}"}
        number = len(words.split()) + words.endswith(" ")
        got = subprocess.run(
            command.split(), env=os.environ | asked | {"COMP_CWORD": str(number)}, capture_output=True, text=True
        )
        assert set(got.stdout.split()) == expected, words


def test_models_lists_every_recipe() -> None:
    listing = json.loads(inside("models", "--json").stdout)
    assert listing["recipes"].keys() == RECIPES.keys()
    shown = inside("models").stdout
    assert all(name in shown for name in RECIPES)


def test_train_evaluate_sample(pictures: Path, tmp_path: Path) -> None:
    """The whole way: train on a folder, score what was held out, draw a sheet and single files.

    Training and the figures as JSON in processes of their own, as people run them.
    """
    run = tmp_path / "run"
    trained = pixelcnn("train", "photos32-pyramid-small", "--data", pictures, "--size", 8, "--steps", 1,
                       "--batch-size", 2, "--sheet-minutes", 0, "--out", run)  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    scored = json.loads(pixelcnn("evaluate", run, "--json", "--codecs", "--split", "all").stdout)
    assert scored["images"] == 6
    assert sum(scored["factors"]) == pytest.approx(scored["bits_per_dim"])
    assert 0 < scored["bits_per_dim"] < 30
    assert list(scored["codecs"]) == ["PNG", "WebP", "JPEG XL"]
    assert min(scored["codecs"].values()) > 8  # noise does not compress, and there is a header
    assert "total" in inside("evaluate", run, "--limit", 1, "--split", "all").stdout
    sheet = inside("sample", run, "-n", 2, "--out", tmp_path / "sheet.png")
    assert sheet.returncode == 0, sheet.stderr
    with Image.open(tmp_path / "sheet.png") as picture:
        assert min(picture.size) > 16
    files = inside("sample", run, "-n", 2, "--seed", 5, "--size", 9, "--out", tmp_path / "files")
    assert files.returncode == 0, files.stderr
    names = sorted(path.name for path in (tmp_path / "files").iterdir())
    assert names == ["000005.png", "000006.png"]
    with Image.open(tmp_path / "files" / names[0]) as picture:
        assert picture.size == (9, 9)


def test_held_out_images_and_changed_data_are_reported(tmp_path: Path) -> None:
    """Held-out images are scored and not trained on; --resume and evaluate report data that changed."""
    pictures = tmp_path / "pictures"
    (pictures / "Train").mkdir(parents=True)
    (pictures / "Val").mkdir()
    save_noise(pictures / "Train", 6, (8, 8))
    save_noise(pictures / "Val", 3, (8, 8))
    run = tmp_path / "run"
    train = ("train", "photos32-pyramid-small", "--data", pictures, "--size", 8, "--batch-size", 2, "--factor", 2,
             "--sheet-minutes", 0, "--out", run, "--steps")  # fmt: skip
    begun = inside(*train, 1)
    assert begun.returncode == 0, begun.stderr
    assert "6 images (its part train) to train on, 3 images (its part validation) held out" in begun.stderr
    kept = json.loads((run / "run.json").read_text())["data"]["fingerprint"]
    assert kept == load_images(pictures, size=8).fingerprint
    scored = inside("evaluate", run, "--json")
    assert json.loads(scored.stdout)["images"] == 3
    assert "scoring 3 images (its part validation)" in scored.stderr
    assert "changed" not in begun.stderr + scored.stderr
    (pictures / "Train" / "0.png").unlink()
    changed = [inside(*train, 2, "--resume"), inside("evaluate", run)]
    for result in changed:
        assert result.returncode == 0, result.stderr
        assert "data: the data have changed since training began: 6 images then, 5 now" in result.stderr


def test_all_of_other_images_are_scored(model: Path, pictures: Path, tmp_path: Path) -> None:
    """A folder that was not used for training is scored completely, or its test part if it has one."""
    (tmp_path / "test").mkdir()
    (tmp_path / "cats").mkdir()
    other = save_noise(tmp_path / "test", 2, (8, 8))
    save_noise(tmp_path / "cats", 4, (8, 8))
    for data, images in ((other, 2), (tmp_path, 2), (other / "0.png", 1)):
        assert json.loads(inside("evaluate", model, "--data", data, "--json").stdout)["images"] == images
    own = inside("evaluate", model, "--data", pictures)
    assert own.returncode == 2
    assert "of the 6 images" in own.stderr
    assert "or use split 'all'" in own.stderr


def test_shipped_models_know_their_test_images() -> None:
    scored = inside("evaluate", "photos-pyramid", "--size", 16, "--limit", 1, "--json")
    assert scored.returncode == 0, scored.stderr
    assert "photos: scoring 41 images (its part test)" in scored.stderr
    for name, source in (("cifar10-grayscale", "cifar10"), ("faces128-pyramid", "celeba, some of which it has seen")):
        refused = inside("evaluate", name)
        assert refused.returncode == 2
        assert f"'pixelcnn evaluate {name} --data FOLDER'" in refused.stderr
        assert f"--data {source.partition(',')[0]} for those on the Hugging Face hub" in refused.stderr
        assert source.partition(",")[2] in refused.stderr


def test_training_from_a_model(model: Path, pictures: Path, tmp_path: Path) -> None:
    """At a rate of almost zero, the new run scores like the model, and has its chain and networks."""
    begin = ("train", "photos32-pyramid-small", "--data", pictures, "--size", 8, "--steps", 1, "--batch-size", 2,
             "--learning-rate", 1e-30, "--out", tmp_path / "run")  # fmt: skip
    begun = inside(*begin, "--from", model)
    assert begun.returncode == 0, begun.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["from"] == str(model)
    again = ("--data", pictures, "--split", "all", "--json")
    scores = [inside("evaluate", folder, *again) for folder in (model, tmp_path / "run")]
    assert len({json.loads(score.stdout)["bits_per_dim"] for score in scores}) == 1
    assert read_config(tmp_path / "run") == read_config(model)
    again = inside(*begin, "--from", tmp_path / "run", "--overwrite")
    assert again.returncode == 0, again.stderr
    assert load(tmp_path / "run").config == load(model).config


def test_stages_and_precision(model: Path, tmp_path: Path) -> None:
    """Images go to a folder, or with --stages one folder per view; batches and bf16 do not change their names."""
    drawn = inside(
        "sample", model, "-n", 3, "--batch-size", 2, "--stages", "--precision", "bf16", "--out", tmp_path / "a"
    )
    assert drawn.returncode == 0, drawn.stderr
    names = {str(path.relative_to(tmp_path / "a")) for path in (tmp_path / "a").rglob("*.png")}
    assert names == {f"view-{k}/00000{i}.png" for k in range(2) for i in range(3)}
    for k, side in enumerate((8, 4)):
        with Image.open(tmp_path / "a" / f"view-{k}" / "000002.png") as picture:
            assert picture.size == (side, side)


def test_batches_do_not_change_the_images(model: Path, tmp_path: Path) -> None:
    """Image i does not depend on the batch it is drawn in."""
    for batch in (1, 3):
        assert inside("sample", model, "-n", 3, "--batch-size", batch, "--out", tmp_path / str(batch)).returncode == 0
    for i in range(3):
        assert (tmp_path / "1" / f"00000{i}.png").read_bytes() == (tmp_path / "3" / f"00000{i}.png").read_bytes()


def test_sampling_replaces_only_its_own_files(model: Path, tmp_path: Path) -> None:
    """Law: --overwrite replaces files with the names of results, and all other files in the folder stay."""
    for name in ("000007.png", "mine.png", "view-0/000000.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    drawn = inside("sample", model, "-n", 1, "--seed", 7, "--out", tmp_path, "--overwrite")
    assert drawn.returncode == 0, drawn.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    kept = {str(path.relative_to(tmp_path)) for path in files if path.read_bytes() == b"mine"}
    assert kept == {"mine.png", "view-0/000000.png"}
    assert len(files) == 3


def test_interrupted_sampling_keeps_what_is_finished(model: Path, tmp_path: Path) -> None:
    """After SIGINT, finished images are complete and counted, no temporary file stays, and the exit code is 130."""
    out = tmp_path / "files"
    # Where the tests themselves run in the background, a process begins with SIGINT ignored.
    script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import pixelcnn.__main__"
    command = [sys.executable, "-c", script, "sample", model, "-n", 4000, "--batch-size", 2, "--out", out]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline and len(list(out.glob("0*.png"))) < 3:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    said = re.search(r"interrupted: drew (\d+) of 4000 of view 1, (\d+) of 4000 of view 0; see", errors)
    assert said, errors
    assert 0 < int(said[2]) <= int(said[1]) < 4000
    files = list(out.iterdir())
    assert len(files) == int(said[2])
    for path in files:
        with Image.open(path) as picture:
            picture.load()


def test_an_interrupted_sheet_shows_what_is_finished(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted before the first image, the sheet has only the simple view; before that, there is no sheet."""
    finished = [(1, torch.zeros(2, 3, 4, 4, dtype=torch.uint8))]

    def interrupt(*_: object, **__: object) -> Iterator[tuple[int, torch.Tensor]]:
        yield from finished
        raise KeyboardInterrupt

    monkeypatch.setattr("pixelcnn.sample_views", interrupt)
    result = inside("sample", model, "-n", 2, "--out", tmp_path / "sheet.png")
    assert result.returncode == 130
    assert "drew 2 of 2 of view 1, 0 of 2 of view 0; see" in result.stderr
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.height < 150  # one row
    finished.clear()
    result = inside("sample", model, "-n", 2, "--out", tmp_path / "none.png")
    assert "0 of 2 of view 0; nothing was saved" in result.stderr
    assert not (tmp_path / "none.png").exists()


def test_errors_are_one_line_and_code_2(model: Path, pictures: Path, tmp_path: Path) -> None:
    """Mistakes of users give one line with the problem and the remedy, and leave no files."""
    empty = tmp_path / "empty"
    empty.mkdir()
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for side in (8, 9):
        for i in range(2):
            Image.new("RGB", (side, side)).save(mixed / f"{side}-{i}.png")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.png").write_bytes((pictures / "0.png").read_bytes()[:90])
    (broken / "b.txt").write_text("no image")
    save(PixelCNN(levels=16, filters=4, blocks=1), tmp_path / "dark")
    save(PixelCNN(classes=2, filters=4, blocks=1), tmp_path / "classes")
    out = tmp_path / "out"
    train = ("train", "photos32-pyramid-small", "--out", out, "--steps", 1, "--data")
    cases: list[tuple[tuple[object, ...], str]] = [
        (("trian",), "No such command 'trian'. Did you mean 'train'"),
        (("train", "photos32-pyramid-small", "--sead", 1), "No such option: --sead. Did you mean '--seed'"),
        (("help",), "'pixelcnn -h' shows what there is"),
        (("train", "photos32-pyramid-small", "--out", out, "--steps", "a"), "--steps 'a': use whole numbers"),
        (("sample", model, "--size"), "'--size' requires an argument"),
        (("sample", tmp_path / "classes", "--label", 3, "--out", out), "--label 3: "),
        (("sample", tmp_path / "classes", "--label", 10**30, "--out", out), "has the classes 0 to 1"),
        (("sample", model, "-n", 1, "--out", "/proc/none"), "name another place"),
        ((*train, pictures, "--size", 8, "--seed", 2**63), "below 2**63"),
        (("train", "photos32-pyramid-smal", "--out", out), "did you mean 'photos32-pyramid-small'"),
        (("train", "photos32-pyramid-small"), "--out"),
        ((*train, "photo"), "did you mean 'photos'"),
        ((*train, tmp_path / "missing"), "missing"),
        ((*train, empty), "empty"),
        ((*train, broken, "--size", 8), "--skip-broken"),
        ((*train, pictures, "--size", 8, "--crop", 5, 5, 0, 0), "--crop"),
        ((*train, pictures, "--size", 64), "--size"),
        ((*train, pictures, "--size", 8, "--steps", 0), "steps=0"),
        ((*train, pictures, "--size", 8, "--from", "faces128-pyramis"), "did you mean 'faces128-pyramid'"),
        ((*train, pictures, "--size", 8, "--from", tmp_path / "dark"), "levels=16"),
        ((*train, pictures, "--size", 8, "--from", tmp_path / "classes"), "has no labels"),
        (
            ("train", "photos32-pyramid-small", "--out", out, "--data", pictures, "--size", 8, "--minutes", -1),
            "minutes",
        ),
        (
            ("train", "photos32-pyramid-small", "--out", out, "--data", pictures, "--size", 8, "--minutes", 0),
            "minutes=0",
        ),
        ((*train, pictures, "--size", 8, "--minutes", 1), "give one of the two"),
        ((*train, pictures, "--size", 0), "size=0"),
        ((*train, pictures, "--size", 8, "--random-crop", 9), "random_crop=9"),
        ((*train, pictures, "--size", 8, "--factor", 7), "factor=7"),
        ((*train, pictures, "--size", 8, "--resume"), "no run to resume"),
        (
            ("train", "photos32-pyramid-small", "--steps", 1, "--data", pictures, "--size", 8, "--out", mixed),
            "not empty",
        ),
        (("evaluate", empty), "no config.json"),
        (("evaluate", "facez"), "no model 'facez'"),
        (("evaluate", model, "--split", "tests"), "split="),
        (("evaluate", model, "--data", mixed, "--size", 100), "--size"),
        (("evaluate", model, "--split", "all", "--limit", 0), "limit=0"),
        (("sample", model, "-n", 0, "--out", out), "n=0"),
        (("sample", model, "--out", pictures), "--overwrite"),
        (("sample", model, "--out", out, "--size", 0), "size=0"),
        (("sample", model, "--label", 1, "--out", out), "no classes"),
        (("sample", model, "--batch-size", 0, "--out", out), "batch_size=0"),
        (("sample", model, "--precision", "int8", "--out", out), "use float32 or bf16"),
        (("sample", model, "--size", 10_000_000, "--out", out), "GB are free"),
        (("demo", "--minutes", 0, "--out", out), "minutes=0"),
        (("demo", "--out", pictures), "not empty"),
    ]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for i, (arguments, message) in enumerate(cases):
        # The first two in processes of their own; for the rest that would take minutes of importing.
        result = pixelcnn(*arguments) if i < 2 else inside(*arguments)
        words = " ".join(map(str, arguments))
        assert result.returncode == 2, f"{words}: {result.stderr}"
        lines = [line for line in result.stderr.splitlines() if line.startswith("pixelcnn:")]
        assert len(lines) == 1, f"{words}: {result.stderr}"
        assert message in lines[0], f"{words}: {lines[0]}"
        assert "Traceback" not in result.stderr
        assert not out.exists(), words
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_copy_of_a_model_is_drawn_and_scored_at_its_size(model: Path, tmp_path: Path) -> None:
    """A folder without a run.json gets the size from its configuration."""
    save(load(model), tmp_path / "copy")
    assert inside("sample", tmp_path / "copy", "-n", 1, "--out", tmp_path / "drawn").returncode == 0
    with Image.open(tmp_path / "drawn" / "000000.png") as picture:
        assert picture.size == (8, 8)
    at_size = [
        json.loads(inside("evaluate", tmp_path / "copy", "--data", "photos", "--limit", 2, "--json", *more).stdout)
        for more in ((), ("--size", 8))
    ]
    assert at_size[0]["bits_per_dim"] == at_size[1]["bits_per_dim"]
