"""The demonstration: its page, its pictures, and its run, which `pixelcnn train` can resume."""

import io
import json
import re
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import all_views
from PIL import Image
from test_figures import Page, assert_self_contained, decoded, pixels

from pixelcnn.apps import demo as module
from pixelcnn.apps.demo import PICTURES, RECIPE, VARIANTS
from pixelcnn.apps.demo import run_demo as demo
from pixelcnn.apps.report.figures import COLUMNS
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.common.files import write_json
from pixelcnn.data.images import load_images
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load, save
from pixelcnn.tasks.lossless import codec_bits_per_dim
from pixelcnn.tasks.scoring import evaluate
from pixelcnn.training.loop import train
from pixelcnn.training.options import Run
from pixelcnn.training.runs import RUN
from pixelcnn.zoo.recipes import find_recipe

SIZE, SEED = 8, 3


@pytest.fixture(scope="module", autouse=True)
def zoo(tmp_path_factory):
    """Replace the shipped models by tiny ones: a pyramid for faces and for photographs, and a gray one."""
    with pytest.MonkeyPatch.context() as patch:
        chains = {"FACES": [Downsample(2)], "ENLARGER": [Downsample(2)], "COLORS": [QuantizedGrayscale(4)]}
        for name, chain in chains.items():
            folder = tmp_path_factory.mktemp("zoo") / name
            torch.manual_seed(0)
            save(ImageModel(auxiliaries=chain, filters=2, blocks=1, scales=1, embedding_blocks=1), folder)
            write_json(folder / RUN, {"data": {"source": "photos", "size": SIZE, "crop": None}})
            patch.setattr(module, name, str(folder))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, str]:
    """A demonstration's folder, and what it writes to standard output."""
    folder, output = tmp_path_factory.mktemp("demo") / "a run & more", io.StringIO()
    with redirect_stdout(output):
        path = demo(folder, minutes=0.03, size=SIZE, seed=SEED, progress=False)
    assert path == folder / "report.html"
    return folder, output.getvalue()


@pytest.fixture(scope="module")
def run(made: tuple[Path, str]) -> Path:
    return made[0]


@pytest.fixture(scope="module")
def page(run) -> Page:
    return Page((run / "report.html").read_text())


def test_the_report_loads_nothing(run):
    assert_self_contained((run / "report.html").read_text())


def test_the_report_has_all_pictures(run, page):
    """The page shows views of samples, then a given view with the samples drawn from it, and the photographs."""
    pictures = [decoded(image) for image in page.attributes("img")]
    faces, own, enlarged = [4, 8], [2, 4, 8, 4, *[8] * len(VARIANTS), 8], [4, *[8] * len(VARIANTS), 8]
    sides = [side for side in [*faces, *own, *enlarged] for _ in range(PICTURES)] + [8] * 5 * COLUMNS
    assert [picture.size for picture in pictures] == [(side, side) for side in sides]
    assert all(image["alt"] for image in page.attributes("img"))

    starts = range(len(faces) * PICTURES, len([*faces, *own]) * PICTURES, PICTURES)
    found = [torch.stack([pixels(p) for p in pictures[i : i + PICTURES]]) for i in starts]
    model = load(run)
    for shown, drawn in zip(found, all_views(model, PICTURES, SIZE, seed=SEED)[::-1], strict=False):
        assert torch.equal(shown, drawn)
    photographs, view, _ = model.views(load_images("photos", "test", size=SIZE).batch(range(PICTURES)))
    assert torch.equal(found[3], view)
    assert torch.equal(found[-1], photographs)


def test_the_faces_are_also_a_file(run):
    with Image.open(run / "faces.png") as picture:
        assert min(picture.size) > SIZE


def test_the_report_has_the_figures_of_the_saved_model(run, page):
    held_out = load_images("photos", "test", size=SIZE)
    cells = page.text("td")
    before, after = cells[:4], cells[4:8]
    score = evaluate(load(run), held_out)
    assert after == [f"{bits:.3f}" for bits in (score.bits_per_dim, *score.factors)]
    assert float(after[0]) < float(before[0])
    assert cells[8:] == [f"{bits:.3f}" for bits in codec_bits_per_dim(held_out).values()]
    assert len(page.attributes("svg")) == 2


def test_the_report_names_the_source_and_the_license_of_the_photographs(page):
    texts = " ".join(page.text("figcaption", "a"))
    assert "Cloudinary" in texts
    assert "CC BY-SA 4.0" in texts
    assert "https://creativecommons.org/licenses/by-sa/4.0/" in texts


def test_the_totals_and_the_path_go_to_standard_output(made):
    folder, out = made
    assert out.splitlines()[-1] == str(folder / "report.html")
    names = ["before training", "after training", "PNG", "WebP", "JPEG XL"]
    assert re.findall("|".join(names), out) == names


def last_step(run: Path) -> int:
    """Read the last step of the coarsest factor."""
    return json.loads((run / "factor-2" / "history.jsonl").read_text().splitlines()[-1])["step"]


def test_training_can_continue_where_the_demonstration_ended(run):
    """Resuming with the settings of the command on the page works; other recipes, data or seeds would be refused."""
    (command,) = (text for text in Page((run / "report.html").read_text()).text("code") if "--resume" in text)
    assert f"pixelcnn train {RECIPE} --out '{run}' --resume --minutes 10 --size {SIZE} --seed {SEED} " in command
    recipe, images = find_recipe(RECIPE), load_images("photos", size=SIZE)
    training = replace(recipe.training, seed=SEED)
    notes = {"recipe": RECIPE, "data": {"source": "photos", "size": SIZE, "crop": None}}
    steps = last_step(run) + 1
    train(
        recipe.model(), images, run, training, steps=steps, run=Run(factor=2, resume=True, notes=notes, sheet_minutes=0)
    )
    assert last_step(run) == steps


def test_only_a_demonstration_is_overwritten(run, tmp_path, monkeypatch):
    """Other folders, and other files in the folder of a demonstration, stay, even when it was interrupted."""
    options = {"minutes": 0.001, "size": 4, "progress": False}
    monkeypatch.setattr(module, "_train", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    (tmp_path / "mine.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(
            ValueError, match=r"is not empty and not a run \(it contains 'mine.txt'\): name another folder"
        ):
            demo(tmp_path, overwrite=overwrite, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    folder = shutil.copytree(run, tmp_path / "copy")
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"not empty: use --overwrite to replace the run in it"):
        demo(folder, **options)
    for _ in range(2):  # the second time, over the page of an interrupted demonstration
        with pytest.raises(KeyboardInterrupt):
            demo(folder, overwrite=True, **options)
        names = {path.name for path in folder.iterdir()}
        assert names == {".lock", "run.json", "faces.png", "report.html", "mine.txt"}
    (folder / "report.html").write_text("<title>mine</title>")
    with pytest.raises(ValueError, match=r"report.html' was not made by a demonstration: name another folder"):
        demo(folder, overwrite=True, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"minutes": 0.0}, "minutes=0.0"), ({"minutes": float("nan")}, "minutes=nan"), ({"size": 0}, "size=0"),
     ({"size": 129}, "too small for --size 129"), ({"seed": -1}, "seed=-1")],
)  # fmt: skip
def test_arguments_out_of_range_leave_no_folder(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        demo(tmp_path / "new", **{"minutes": 0.001, "size": 4, "progress": False} | arguments)
    assert not (tmp_path / "new").exists()
