"""Reports: their figures, scores and files, made through the command line from real folders."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import inside, save_noise
from test_figures import Page, assert_self_contained, decoded

from pixelcnn.apps.report import report as module
from pixelcnn.apps.report.figures import COLUMNS, GRID_COLUMNS, GRID_ROWS, NEIGHBORS
from pixelcnn.apps.report.report import write_report as report
from pixelcnn.apps.report.subjects import ReportOptions, Score, Subject, by_resolution, find_subject
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.common.files import write_json
from pixelcnn.data.images import load_images
from pixelcnn.models import shipped
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load, save
from pixelcnn.tasks.lossless import CODECS
from pixelcnn.tasks.scoring import evaluate
from pixelcnn.training.runs import RUN

SIZE = 8
TINY = {"filters": 2, "blocks": 1, "scales": 1, "embedding_blocks": 1, "dropout": 0.0}
CHAINS = {"pyramid": [Downsample(2)], "gray": [QuantizedGrayscale(4)], "plain": []}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Save models with fresh weights as runs do, with data that are always available."""
    folders = {}
    for name, chain in CHAINS.items():
        folders[name] = tmp_path_factory.mktemp("models") / name
        torch.manual_seed(0)
        save(ImageModel(auxiliaries=chain, **TINY, size=SIZE), folders[name])
        run = {"data": {"source": "photos", "size": SIZE, "crop": None}}
        write_json(folders[name] / RUN, run)
    return folders


@pytest.fixture(scope="module")
def made(folders, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("report") / "out"
    result = inside("report", *folders.values(), "--out", out, "--limit", 3)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{out / 'report.html'}\n"
    return out


def test_the_page_needs_nothing_else(made):
    assert_self_contained((made / "report.html").read_text())


def test_every_chain_has_its_figures(made, folders):
    titles = Page((made / "report.html").read_text()).text("h2")
    expected = ["Compared with lossless codecs", "Bits per dimension for each resolution", "Structure and color"]
    for name, folder in folders.items():
        parts = ["samples", "MAP samples", "less variance", "nearest training images", "sampling speed"]
        parts += ["colorings of real images"] if name == "gray" else []
        expected += [f"{folder.name}: {part}" for part in parts]
    assert sorted(titles) == sorted(expected)


def test_every_picture_is_a_file_too(made):
    names = {path.name for path in made.glob("*.png")}
    assert len(names) == 3 * 5 + 1
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made.glob("*.png"))


def test_no_picture_is_missing(made):
    page = Page((made / "report.html").read_text())
    sides = [decoded(image).size[0] for image in page.attributes("img")]
    views = {"pyramid": 2, "gray": 2, "plain": 1}
    of_a_model = GRID_ROWS * GRID_COLUMNS + COLUMNS * (NEIGHBORS + 1)
    assert len(sides) == sum(2 * COLUMNS * n + of_a_model for n in views.values()) + 5 * COLUMNS
    assert sides.count(SIZE // 2) == 2 * COLUMNS


def test_the_figures_are_those_of_the_model(made, folders):
    model = load(folders["gray"])
    score = evaluate(model, load_images("photos", "test", size=SIZE), limit=3)
    cells = Page((made / "report.html").read_text()).text("td")
    assert f"{score.factors[0]:.3f}" in cells
    assert f"{score.factors[1]:.3f}" in cells


def test_all_of_other_images_are_scored_and_small_sets_hold_none_out(folders, tmp_path):
    """Other images are scored as `evaluate` does; a run on few images has no scores on held-out ones."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    save_noise(pictures, 5, (SIZE, SIZE))
    assert find_subject(str(folders["plain"]), ReportOptions(str(pictures))).scores["test"].images == 5
    save(load(folders["plain"]), tmp_path / "run")
    run = {"data": {"source": str(pictures), "size": SIZE, "crop": None}}
    write_json(tmp_path / "run" / RUN, run)
    assert find_subject(str(tmp_path / "run")).scores.keys() == {"train"}


def test_bits_by_resolution_are_those_of_the_views_alone():
    """Law: the bits of a view per its own sub-pixel are those that a model of this view alone gives it."""
    torch.manual_seed(0)
    model = ImageModel(auxiliaries=[Downsample(2), Downsample(2), QuantizedGrayscale(2)], **TINY).eval()
    model.requires_grad_(False)
    x = torch.randint(256, (4, 3, SIZE, SIZE))
    bits = model.bits_per_dim(x)
    score = Score(float(bits.total.mean()), bits.factors.mean(0).tolist(), 4, "test")
    found = by_resolution(Subject("m", model, SIZE, "", {}, {"test": score}, {}))
    assert list(found) == [8, 4, 2]
    for k, side in enumerate(found):
        alone = model.of_view(k).bits_per_dim(model.views(x)[k]).total.mean()
        assert found[side] == pytest.approx(float(alone), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{empty}"], "holds no model"),
        (["nothing-of-that-name"], "no model 'nothing-of-that-name'"),
        (["{plain}", "--limit", "0"], "limit=0"),
        (["{plain}", "--data", "photoz"], "did you mean 'photos'"),
        (["{plain}", "--out", "{plain}"], "is not empty and not a report: name another folder"),
        (["{plain}", "--out", "{plain}", "--overwrite"], "is not empty and not a report: name another folder"),
    ],
)
def test_errors_of_reports_are_one_line(tmp_path, folders, arguments, message):
    names = {"empty": tmp_path, "plain": folders["plain"]}
    out = [] if "--out" in arguments else ["--out", tmp_path / "out"]
    result = inside("report", *(argument.format(**names) for argument in arguments), *out)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_shipped_model_has_the_figures_of_its_card(tmp_path, folders, monkeypatch):
    """The images of a shipped model are not available, so none are scored and no neighbors are shown."""
    zoo = tmp_path / "zoo"
    folder = zoo / "tiny"
    save(load(folders["pyramid"]), folder, torch.bfloat16)
    score = {"total": 1.25, "factors": [1.0, 0.25], "images": 7, "source": "faces (test)"}
    card = {
        "data": [{"view": 0, "source": "faces", "images": 9}],
        "codecs": {"PNG": 2.5},
        "scores": {"test": score},
        "sha256": {},
    }
    (folder / shipped.CARD).write_text(json.dumps(shipped.zoo_card("photos-pyramid") | card))
    monkeypatch.setattr(shipped, "ZOO", zoo)
    page = Page(report(["tiny"], tmp_path / "out").read_text())
    assert "tiny: nearest training images" not in page.text("h2")
    assert "1.25" in page.text("td")
    assert "2.500" in page.text("td")
    assert "1.00" in page.text("td")  # 0.25 bits per sub-pixel of the larger view, which has four times as many


def test_other_images_are_scored_but_not_called_training_images(tmp_path, folders):
    result = inside("report", folders["gray"], "--data", "photos", "--out", tmp_path / "out", "--limit", 2)
    assert result.returncode == 0, result.stderr
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert "gray: nearest training images" not in page.text("h2")
    files = 2 + len(CODECS)  # the model, the codecs and the source of the images
    assert (
        len(page.text("td")) == files + 3 + 2
    )  # the paper's figures and ours for test images, but none for training images


def test_models_of_one_name_keep_their_pictures_apart(tmp_path, folders):
    out = tmp_path / "out"
    assert inside("report", folders["plain"], folders["plain"], "--out", out, "--limit", 2).returncode == 0
    assert {"plain-samples.png", "plain-2-samples.png"} <= {path.name for path in out.iterdir()}


def test_only_a_report_is_overwritten(tmp_path, folders, made, monkeypatch):
    """Other files in the folder stay, as do pictures of models that are not in the new report."""
    sections = partial(module.subject_sections, figures=["samples"])
    monkeypatch.setattr(module, "subject_sections", sections)
    out = shutil.copytree(made, tmp_path / "out")
    (out / "mine.png").write_text("mine")
    with pytest.raises(ValueError, match="use --overwrite to replace the report in it"):
        report([str(folders["plain"])], out, ReportOptions(limit=1))
    page = out / "report.html"
    earlier = page.read_text()
    report([str(folders["plain"])], out, ReportOptions(limit=1), overwrite=True)
    assert page.read_text() != earlier
    assert (out / "mine.png").read_text() == "mine"
    assert (out / "gray-samples.png").read_bytes() == (made / "gray-samples.png").read_bytes()
    page.write_text(earlier.replace("a report</title>", "a report of mine</title>"))
    with pytest.raises(ValueError, match="not a report: name another folder"):
        report([str(folders["plain"])], out, ReportOptions(limit=1), overwrite=True)


@pytest.mark.parametrize(
    "data",
    [
        *("photos", 3, {"source": 3}, {"size": 8}),
        *({"source": "photos", "size": "x"}, {"source": "photos", "crop": [1]}),
        *({"source": "photos", "fingerprint": each} for each in ("x", 3, [1], {"images": 3}, {"blake2b": ""})),
        {"fingerprint": {"images": 3, "blake2b": ""}},
    ],
)
def test_any_data_entry_of_a_run_is_handled(tmp_path, folders, data):
    """A run.json written by someone else gives a one-line error, or is taken as empty."""
    folder = shutil.copytree(folders["plain"], tmp_path / "model")
    write_json(folder / RUN, {"data": data})
    (tmp_path / "others").mkdir()
    others = save_noise(tmp_path / "others", 1, (8, 8))
    for verb in (
        ("evaluate", folder, "--limit", 1),
        ("evaluate", folder, "--data", others),
        ("sample", folder, "-n", 1, "--out", tmp_path / "s.png"),
    ):
        result = inside(*verb)
        assert "Traceback" not in result.stderr
        assert result.returncode == 0 or result.stderr.startswith("pixelcnn: ")


@pytest.mark.parametrize("options", [{"classes": 2}, {"levels": 4}])
def test_models_of_other_images_are_refused_before_anything_is_drawn(tmp_path, options):
    save(ImageModel(**(TINY | options)), tmp_path / "model")
    with pytest.raises(ValueError, match="reports need models of 8-bit images"):
        report([str(tmp_path / "model")], tmp_path / "out")
