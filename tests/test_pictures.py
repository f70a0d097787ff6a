"""Laws of the tasks on pictures, on real files: names stay, what was asked for holds, errors are one line."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import inside
from PIL import Image
from torch import Tensor

from pixelcnn.auxiliary import Downsample, QuantizedGrayscale
from pixelcnn.checkpoint import load, save
from pixelcnn.figures import heat_map
from pixelcnn.models import GrayscalePixelCNN, ImageModel, PixelCNN, PyramidPixelCNN
from pixelcnn.masks import box_mask, read_mask
from pixelcnn.pictures import Pictures, find_pictures

NAMES = ["a.png", "b.png", "more/c.png"]


def read(file: Path | bytes) -> Tensor:
    """(1, C, H, W) of a picture."""
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as picture:
        pixels = np.array(picture)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)[None]


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several sizes, one in a folder below, and one grey."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    random = np.random.default_rng(0)
    for name, shape in zip(NAMES, ((7, 10, 3), (5, 5, 3), (6, 9)), strict=True):
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models with random weights, one of each kind, trained the paper's way as far as they know."""
    torch.manual_seed(0)
    tiny = {"filters": 4, "blocks": 1, "scales": 1}
    small = tiny | {"embedding_blocks": 1, "embedding_scales": 1, "consistent": False}
    made: dict[str, ImageModel] = {
        "grey": GrayscalePixelCNN(**small),
        "pyramid": PyramidPixelCNN(2, **small),
        "plain": PixelCNN(**tiny),
    }
    folder = tmp_path_factory.mktemp("models")
    for name, model in made.items():
        save(model, folder / name)
    return {name: folder / name for name in made}


def test_a_coloured_picture_has_the_same_grey_view(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    """Law: every picture keeps its name and size, and its 4-bit grey view; a grey one gets colours."""
    out = tmp_path / "out"
    result = inside("colorize", models["grey"], pictures, "--out", out)
    assert result.returncode == 0, result.stderr
    assert names_in(out) == [*NAMES[:2], "contact-sheet.png", NAMES[2]]
    for name in NAMES:
        drawn, given = read(out / name), read(pictures / name)
        assert drawn.shape == (1, 3, *given.shape[2:])
        assert torch.equal(*[QuantizedGrayscale(4)(x, 256) for x in (drawn, given)])
        assert not torch.equal(drawn, given.expand_as(drawn))


@pytest.mark.parametrize("factor", [2, 4])
def test_an_enlarged_picture_made_small_is_the_picture(
    models: dict[str, Path], pictures: Path, tmp_path: Path, factor: int
) -> None:
    """Law: the average over squares of the result is the picture, whatever its size; grey ones are told of."""
    result = inside("upscale", models["pyramid"], pictures, "--factor", factor, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "more/c.png: it is grey, and taken as colour" in result.stderr
    for name in NAMES:
        view = read(tmp_path / "out" / name)
        for _ in range(factor // 2):
            view = Downsample(2)(view, 256)
        assert torch.equal(view, read(pictures / name).expand_as(view))


def test_alternatives_are_those_of_the_next_seeds(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    """Law: alternative i of seed s is the result of seed s + i - 1; a sheet shows all; no two are alike."""
    picture = pictures / NAMES[0]
    several = inside("upscale", models["pyramid"], picture, "--samples", 3, "--seed", 4, "--out", tmp_path / "out")
    assert several.returncode == 0, several.stderr
    assert names_in(tmp_path / "out") == ["a-1.png", "a-2.png", "a-3.png", "contact-sheet.png"]
    one = inside("upscale", models["pyramid"], picture, "--seed", 5, "--out", tmp_path / "one.png")
    assert one.stdout.strip() == str(tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "out" / "a-2.png").read_bytes()
    assert len({(tmp_path / "out" / f"a-{i}.png").read_bytes() for i in (1, 2, 3)}) == 3
    assert min(read(tmp_path / "out" / "contact-sheet.png").shape[2:]) > 40


def test_a_picture_goes_through_pipes(models: dict[str, Path], pictures: Path) -> None:
    """Law: from standard input to standard output, with nothing but the picture there."""
    command = [sys.executable, "-m", "pixelcnn.cli", "upscale", str(models["pyramid"]), "-", "--out", "-"]
    content = (pictures / NAMES[1]).read_bytes()
    result = subprocess.run(command, input=content, capture_output=True, check=True)
    assert torch.equal(Downsample(2)(read(result.stdout), 256), read(content))


@pytest.mark.parametrize("kind", ["plain", "pyramid", "grey"])
@pytest.mark.parametrize("how", ["box", "mask"])
def test_what_is_known_stays(models: dict[str, Path], pictures: Path, tmp_path: Path, kind: str, how: str) -> None:
    """Law: outside the box, or where the mask is black, a picture stays; inside it changes."""
    unknown = torch.zeros(7, 10, dtype=torch.bool)
    unknown[2:5, 3:9] = True
    options: tuple[object, ...] = ("--box", 3, 2, 9, 5)
    if how == "mask":
        unknown[0, 0] = True
        Image.fromarray(unknown.numpy()).save(tmp_path / "mask.png")
        options = ("--mask", tmp_path / "mask.png")
    out = tmp_path / "out.png"
    result = inside("complete", models[kind], pictures / NAMES[0], *options, "--out", out)
    assert result.returncode == 0, result.stderr
    drawn, given = read(out), read(pictures / NAMES[0])
    assert torch.equal(drawn[:, :, ~unknown], given[:, :, ~unknown])
    assert not torch.equal(drawn[:, :, unknown], given[:, :, unknown])


@pytest.mark.parametrize("kind", ["plain", "pyramid", "grey"])
def test_scores_are_bits_per_dimension(models: dict[str, Path], pictures: Path, tmp_path: Path, kind: str) -> None:
    """Law: for every picture the model's bits per dimension, as table, CSV and JSON, both ways; and a heat map."""
    model = load(models[kind])
    heat = tmp_path / "heat"
    rows = json.loads(inside("score", models[kind], pictures, "--heat-maps", heat, "--json").stdout)
    assert [row["picture"] for row in rows] == NAMES
    assert names_in(heat) == NAMES
    for row in rows:
        x = read(pictures / row["picture"])
        with torch.no_grad():
            bits = model.bits_per_dim(x.expand(-1, 3, -1, -1))
        assert row["total"] == pytest.approx(float(bits.total), abs=1e-4)
        assert [row[f"factor {k}"] for k in range(len(model.factors))] == pytest.approx(
            bits.factors[0].tolist(), abs=1e-4
        )
    lines = list(csv.DictReader(io.StringIO(inside("score", models[kind], pictures, "--csv").stdout)))
    assert [float(line["total"]) for line in lines] == pytest.approx([row["total"] for row in rows])
    table = inside("score", models[kind], pictures / NAMES[0]).stdout
    assert f"{rows[0]['total']:.4f}" in table
    fitting = json.loads(inside("score", models[kind], pictures / NAMES[0], "--json", "--consistent").stdout)
    assert (fitting[0]["total"] < rows[0]["total"]) == (kind != "plain")


def test_a_heat_map_goes_from_dark_to_light() -> None:
    """Law: more bits are lighter, and what is above the scale looks like its end."""
    lightness = heat_map(torch.tensor([[0.0, 2.0, 4.0, 9.0]]), 4.0).sum(0)[0].tolist()
    assert lightness[0] < lightness[1] < lightness[2] == lightness[3]


def test_pictures_of_the_same_name_stay_apart(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: a.png and a.jpg give two results."""
    for name, colour in (("a.jpg", "red"), ("a.png", "blue")):
        Image.new("RGB", (2, 2), colour).save(tmp_path / name)
    inside("upscale", models["pyramid"], tmp_path, "--out", tmp_path / "out")
    assert names_in(tmp_path / "out") == ["a.png", "a.png.png", "contact-sheet.png"]


def test_transparency_is_left_out_with_a_note(tmp_path: Path) -> None:
    """Law: a picture is converted where that loses nothing that a model knows, and the note says so."""
    Image.new("RGBA", (3, 2), (9, 8, 7, 6)).save(tmp_path / "clear.png")
    (picture,) = read_pictures(str(tmp_path / "clear.png"), 3)
    assert picture.note == "clear.png: its transparency is left out"
    assert picture.x[:, 0, 0].tolist() == [9, 8, 7]
    (grey,) = read_pictures(str(tmp_path / "clear.png"), 1)
    assert grey.x.shape == (1, 2, 3)
    assert grey.note is not None
    assert "taken as grey" in grey.note


def test_a_mask_is_white_where_pixels_are_drawn(tmp_path: Path) -> None:
    """Law: white is unknown, black is known; a box has its left and upper border and not the others."""
    Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8)).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", None, (2, 2)).tolist() == [[False, True], [True, False]]
    assert read_mask(None, (1, 0, 2, 1), (2, 2)).tolist() == [[False, True], [False, False]]


def test_interrupted_drawing_keeps_what_is_finished(
    models: dict[str, Path], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGINT in the second picture: the first is there and named, with the sheet; exit code 130."""
    from pixelcnn import sampling

    upscale: Callable[..., Tensor] = sampling.upscale
    asked: list[int] = []

    def interrupt(*arguments: object, **options: object) -> Tensor:
        asked.append(1)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return upscale(*arguments, **options)

    monkeypatch.setattr(sampling, "upscale", interrupt)
    result = inside("upscale", models["pyramid"], pictures, "--out", tmp_path / "out")
    assert result.returncode == 130
    assert "interrupted: done are a.png; see" in result.stderr
    assert names_in(tmp_path / "out") == ["a.png", "contact-sheet.png"]


def test_errors_are_one_line_and_code_2(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    """Everything that a user can get wrong: one line that names it and the remedy, and nothing is made."""
    empty = tmp_path / "empty"
    empty.mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "mask.png")
    Image.fromarray(np.zeros((7, 10), np.uint8)).save(tmp_path / "black.png")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "text.png").write_text("no image")
    one, out = pictures / NAMES[0], tmp_path / "out"
    grey, pyramid, plain = models["grey"], models["pyramid"], models["plain"]
    cases: list[tuple[tuple[object, ...], str]] = [
        (("colorize", pyramid, one, "--out", out), "use a Grayscale model"),
        (("colorize", plain, one, "--out", out), "use a Grayscale model"),
        (("colorize", grey, empty, "--out", out), "is an empty folder"),
        (("colorize", grey, tmp_path / "none", "--out", out), "no such file or folder"),
        (("colorize", grey, tmp_path / "text.png", "--out", out), "no image"),
        (("colorize", grey, tmp_path / "deep.png", "--out", out), "convert it to 8-bit"),
        (("colorize", grey, one, "--out", out, "--samples", 0), "samples=0"),
        (("colorize", grey, one, "--out", tmp_path / "x.png", "--samples", 2), "name a folder"),
        (("colorize", grey, one, "--out", pictures), "--overwrite"),
        (("colorize", grey, one, "--out", out, "--precision", "int8"), "use float32 or bf16"),
        (("upscale", pyramid, one, "--out", out, "--factor", 8), "factor=8: use one of 2, 4"),
        (("upscale", pyramid, one, "--out", out, "--factor", 3), "factor=3"),
        (("upscale", grey, one, "--out", out), "no smaller view"),
        (("complete", plain, one, "--out", out), "--mask FILE or with --box"),
        (("complete", plain, one, "--out", out, "--mask", tmp_path / "mask.png"), "is 4x4, and the picture 10x7"),
        (("complete", plain, one, "--out", out, "--mask", tmp_path / "black.png"), "no unknown pixel"),
        (("complete", plain, one, "--out", out, "--box", 3, 3, 3, 5), "--box 3 3 3 5"),
        (("complete", plain, one, "--out", out, "--box", 0, 0, 11, 5), "right <= 10"),
        (("score", plain, empty), "is an empty folder"),
        (("score", plain, one, "--heat-maps", pictures), "--overwrite"),
        (("score", empty, one), "no config.json"),
    ]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for arguments, message in cases:
        result = inside(*arguments)
        words = " ".join(map(str, arguments))
        assert result.returncode == 2, f"{words}: {result.stderr}"
        lines = [line for line in result.stderr.splitlines() if line.startswith("pixelcnn:")]
        assert len(lines) == 1, f"{words}: {result.stderr}"
        assert message in lines[0], f"{words}: {lines[0]}"
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    several = inside("upscale", pyramid, pictures, "--out", tmp_path / "single.png")
    assert several.returncode == 2
    assert "there are several pictures: name a folder" in several.stderr
