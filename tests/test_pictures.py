"""Laws of the tasks on pictures, on real files: names stay, constraints hold, errors are one line."""

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import inside
from PIL import Image, ImageCms
from torch import Tensor

from pixelcnn.apps.cli.main import main
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.data.images import load_images
from pixelcnn.models.config import ModelOptions
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load, save
from pixelcnn.models.presets import GrayscalePixelCNN, PixelCNN, PyramidPixelCNN
from pixelcnn.pictures.inputs import Origin, Picture, Pictures, find_pictures
from pixelcnn.pictures.masks import box_mask, read_mask
from pixelcnn.pictures.sheets import heat_map, save_picture, to_picture
from pixelcnn.tasks.results import plan_results

NAMES = ["a.png", "b.png", "more/c.png"]


def read(file: Path | bytes) -> Tensor:
    """Read a picture as (1, C, H, W)."""
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as picture:
        pixels = np.array(picture)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)[None]


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def read_pictures(*arguments: object, channels: int = 3, **options: Any) -> tuple[list[Picture], list[str]]:
    """Read pictures; return them and the notes."""
    said: list[str] = []
    origins = find_pictures([str(each) for each in arguments], [], said.append)
    return list(Pictures(origins, channels, said.append, **options)), said


def piped(*arguments: object, encoding: str = "utf-8") -> tuple[int, bytes, str]:
    """Run a command into a pipe of this encoding; return exit code, standard output and standard error."""
    output, errors = io.TextIOWrapper(io.BytesIO(), encoding=encoding), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.setattr("sys.argv", ["pixelcnn", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
    output.flush()
    assert isinstance(output.buffer, io.BytesIO)
    return int(exit.value.code or 0), output.buffer.getvalue(), errors.getvalue()


def save_all(folder: Path, *names: str) -> Path:
    """Save pictures of 2x2 pixels, each in a different color."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (40 * i, 99, 200)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several sizes, one of them gray and in a subfolder."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    random = np.random.default_rng(0)
    for name, shape in zip(NAMES, ((7, 10, 3), (5, 5, 3), (6, 9)), strict=True):
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models with random weights, one of each kind."""
    torch.manual_seed(0)
    tiny: ModelOptions = {"filters": 4, "blocks": 1, "scales": 1}
    small: ModelOptions = {**tiny, "embedding_blocks": 1, "embedding_scales": 1, "consistent": False}
    made: dict[str, ImageModel] = {
        "gray": GrayscalePixelCNN(**small),
        "pyramid": PyramidPixelCNN(2, **small),
        "plain": PixelCNN(**tiny),
    }
    folder = tmp_path_factory.mktemp("models")
    for name, model in made.items():
        save(model, folder / name)
    return {name: folder / name for name in made}


def test_a_colorized_picture_has_the_same_gray_view(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    """Law: every picture keeps its name, size and 4-bit gray view, and gray pictures get colors."""
    out = tmp_path / "out"
    result = inside("colorize", models["gray"], pictures, "--out", out)
    assert result.returncode == 0, result.stderr
    assert names_in(out) == [*NAMES[:2], "contact-sheet.png", NAMES[2]]
    for name in NAMES:
        drawn, given = read(out / name), read(pictures / name)
        assert drawn.shape == (1, 3, *given.shape[2:])
        assert torch.equal(*[QuantizedGrayscale(4)(x, 256) for x in (drawn, given)])
        assert not torch.equal(drawn, given.expand_as(drawn))


@pytest.mark.parametrize("factor", [2, 4])
def test_reducing_an_upscaled_picture_gives_it_back(
    models: dict[str, Path], pictures: Path, tmp_path: Path, factor: int
) -> None:
    """Law: averaging the result over squares gives the picture, for any size; a note mentions gray pictures."""
    result = inside("upscale", models["pyramid"], pictures, "--factor", factor, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "more/c.png: it is gray, and treated as color" in result.stderr
    for name in NAMES:
        view = read(tmp_path / "out" / name)
        for _ in range(factor // 2):
            view = Downsample(2)(view, 256)
        assert torch.equal(view, read(pictures / name).expand_as(view))


def test_alternatives_use_the_next_seeds(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    """Law: alternative i of seed s is the result of seed s + i - 1; a sheet shows all; all are different."""
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
    """Law: a picture goes from standard input to standard output, and nothing else is written there."""
    command = [sys.executable, "-m", "pixelcnn", "upscale", str(models["pyramid"]), "-", "--out", "-"]
    content = (pictures / NAMES[1]).read_bytes()
    result = subprocess.run(command, input=content, capture_output=True, check=True)
    assert torch.equal(Downsample(2)(read(result.stdout), 256), read(content))


@pytest.mark.parametrize("kind", ["plain", "pyramid", "gray"])
@pytest.mark.parametrize("how", ["box", "mask"])
def test_known_pixels_stay(models: dict[str, Path], pictures: Path, tmp_path: Path, kind: str, how: str) -> None:
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


@pytest.mark.parametrize("kind", ["plain", "pyramid", "gray"])
def test_scores_are_bits_per_dimension(models: dict[str, Path], pictures: Path, tmp_path: Path, kind: str) -> None:
    """Law: each picture gets its bits per dimension as a table, CSV and JSON, consistent or free; and a heat map."""
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
    """Law: more bits are lighter, and values above the scale look like its maximum."""
    lightness = heat_map(torch.tensor([[0.0, 2.0, 4.0, 9.0]]), 4.0).sum(0)[0].tolist()
    assert lightness[0] < lightness[1] < lightness[2] == lightness[3]


def test_pictures_of_the_same_name_stay_apart(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: a.png and a.jpg give two results, and two heat maps; contact-sheet.png keeps its own."""
    save_all(tmp_path / "in", "a.jpg", "a.png", "contact-sheet.png")
    assert inside("upscale", models["pyramid"], tmp_path / "in", "--out", tmp_path / "out").returncode == 0
    results = ["a.jpg.png", "a.png", "contact-sheet.png"]
    assert names_in(tmp_path / "out") == sorted([*results, "contact-sheet-2.png"])
    assert read(tmp_path / "out" / "contact-sheet.png").shape == (1, 3, 4, 4)
    assert inside("score", models["plain"], tmp_path / "in", "--heat-maps", tmp_path / "heat").returncode == 0
    assert names_in(tmp_path / "heat") == results


@pytest.mark.parametrize("samples", [1, 2])
def test_every_result_has_its_own_file(samples: int) -> None:
    """Law: results never share a file, even ignoring case and accents, or take the place of a folder."""
    names = ["a.png", "A.PNG", "a.jpg", "a.jpg.png", "a-1.png", "a-1.jpg", "a", "a.png.png", "b/c.png", "b.png/c.png"]
    names += ["b.jpg", "e\u0301.png", "\u00e9.png", "contact-sheet.png", "Contact-Sheet-2.png", "x" * 250 + ".png"]
    origins = [Origin(Path(name), None) for name in names]
    results = plan_results(origins, Path("out"), samples)
    assert results.sheet is not None
    files = [str(file) for each in results.files.values() for file in each] + [str(results.sheet)]
    assert len(files) == samples * len(names) + 1
    keys = {file.casefold().replace("e\u0301", "\u00e9") for file in files}
    assert len(keys) == len(files)
    assert not keys & {str(Path(key).parent) for key in keys}
    assert max(len(Path(file).name) for file in files) < 250
    assert plan_results(origins, Path("out"), samples) == results
    if samples == 1:
        assert results.files[origins[0]] == [Path("out/a.png")]


def test_names_are_relative_to_the_common_folder(tmp_path: Path) -> None:
    """Law: files, folders and patterns; equal names in two folders stay apart, and each file is read once."""
    folder = save_all(tmp_path, "one/a.png", "two/a.png", "two/cat[small].png", "two/more/b.png")
    asked = [folder / "one", folder / "two" / "*.png", folder / "one" / "a.png", folder / "two" / "cat[small].png"]
    found, _ = read_pictures(*asked)
    assert [str(each.origin.name) for each in found] == ["one/a.png", "two/a.png", "two/cat[small].png"]
    found, _ = read_pictures(folder / "two")
    assert [str(each.origin.name) for each in found] == ["a.png", "cat[small].png", "more/b.png"]
    with pytest.raises(ValueError, match=r"\*.jpg': no such file or folder"):
        read_pictures(folder / "*.jpg")


def test_input_pictures_are_never_replaced(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: not even with --overwrite or through links; other files in the folder stay as they are."""
    folder = save_all(tmp_path / "in", "a.png", "b.jpg")
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "hard").mkdir()
    (tmp_path / "hard" / "b.png").hardlink_to(folder / "b.jpg")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    cases = [
        (folder, "--out", folder),
        (folder, "--out", tmp_path / "link"),
        (folder / "a.png", "--out", folder),
        (folder / "a.png", "--out", folder / "a.png"),
        (folder / "a.png", "--out", tmp_path / "link" / "a.png"),
        (folder, "--out", tmp_path / "hard"),
    ]
    for arguments in cases:
        result = inside("upscale", models["pyramid"], *arguments, "--overwrite")
        assert result.returncode == 2, arguments
        assert "name another" in result.stderr, result.stderr
    heat = inside("score", models["plain"], folder, "--heat-maps", folder, "--overwrite")
    assert "name another folder" in heat.stderr
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for blocked, way in (("a.png", "a.png/x"), ("more", "more")):
        (tmp_path / blocked[0] / way).parent.mkdir(parents=True)
        (tmp_path / blocked[0] / way).write_text("")
        (folder / "more").mkdir(exist_ok=True)
        (folder / "more" / "c.png").write_bytes((folder / "a.png").read_bytes())
        result = inside("upscale", models["pyramid"], folder, "--out", tmp_path / blocked[0], "--overwrite")
        assert result.returncode == 2
        assert f"{blocked}' is in the way" in result.stderr, result.stderr
        assert names_in(tmp_path / blocked[0]) == [way]
    (folder / "more" / "c.png").unlink()
    beside = inside("upscale", models["pyramid"], folder / "b.jpg", "--out", folder, "--overwrite")
    assert beside.returncode == 0, beside.stderr
    assert names_in(folder) == ["a.png", "b.jpg", "b.png", "contact-sheet.png"]
    assert all(path.read_bytes() == content for path, content in before.items())


def test_results_and_masks_are_not_read_as_pictures(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: results or a mask inside the folder of pictures are left out the next time."""
    folder = save_all(tmp_path, "a.png", "b/c.png")
    Image.new("L", (2, 2), 255).save(folder / "mask.png")
    arguments = ("complete", models["plain"], folder, "--mask", folder / "mask.png", "--out", folder / "out")
    for _ in range(2):
        result = inside(*arguments, "--overwrite")
        assert result.returncode == 0, result.stderr
        assert names_in(folder / "out") == ["a.png", "b/c.png", "contact-sheet.png"]
    mask = (folder / "mask.png").read_bytes()
    replaced = inside(*arguments[:2], folder / "a.png", *arguments[3:5], "--out", folder / "mask.png", "--overwrite")
    assert replaced.returncode == 2
    assert "would replace an input picture" in replaced.stderr
    assert (folder / "mask.png").read_bytes() == mask


def test_files_that_training_wrote_are_not_read(tmp_path: Path) -> None:
    """Law: sample sheets of a run are neither pictures nor training images, and a note says so."""
    folder = save_all(tmp_path, "a.png", "b.png", "run/factor-0/sheet-000010.png", "factor-1/c.png")
    (folder / "run" / "run.json").write_text("{}")
    (folder / "run" / "model.safetensors").write_text("")
    found, said = read_pictures(folder)
    assert [str(each.origin.name) for each in found] == ["a.png", "b.png", "factor-1/c.png"]
    assert "left out files that training wrote" in said[0]
    assert len(load_images(folder, "all")) == 3
    assert len(read_pictures(folder / "run" / "factor-0")[0]) == 1


def test_unreadable_files_are_left_out_and_counted(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: --skip-broken does the rest; without it, earlier pictures are done and counted; no picture is an error."""
    folder = save_all(tmp_path / "in", "a.png", "c.png")
    (folder / "b.txt").write_text("no image")
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(folder / "d.png")
    skipped = inside("upscale", models["pyramid"], folder, "--out", tmp_path / "out", "--skip-broken")
    assert skipped.returncode == 0, skipped.stderr
    assert names_in(tmp_path / "out") == ["a.png", "c.png", "contact-sheet.png"]
    assert "'b.txt' cannot be read (not an image)\n" in skipped.stderr
    assert "left out 2 of 4 pictures" in skipped.stderr.splitlines()[-1]
    assert skipped.stdout.splitlines() == [str(tmp_path / "out" / name) for name in names_in(tmp_path / "out")]
    stopped = inside("upscale", models["pyramid"], folder, "--out", tmp_path / "stopped")
    assert stopped.returncode == 2
    assert re.search(r"use --skip-broken; 1 of 4 pictures are done, see .*stopped\n", stopped.stderr)
    assert names_in(tmp_path / "stopped") == ["a.png", "contact-sheet.png"]
    scored = inside("score", models["plain"], folder, "--json")
    assert scored.returncode == 2
    assert [row["picture"] for row in json.loads(scored.stdout)] == ["a.png"]
    none = inside("score", models["plain"], folder / "b.txt", "--skip-broken", "--json")
    assert none.returncode == 2
    assert "none of 1 files can be read" in none.stderr
    assert json.loads(none.stdout) == []


def test_pictures_of_the_same_size_are_drawn_together(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: results and alternatives equal those drawn one at a time; if memory is short, a batch is halved."""
    import pixelcnn

    folder = save_all(tmp_path / "in", "a.png", "b.png", "c.png")
    Image.new("RGB", (3, 2)).save(folder / "d.png")
    upscale: Callable[..., Tensor] = pixelcnn.upscale
    asked: list[int] = []

    def count(model: ImageModel, x: Tensor, *arguments: object, **options: Any) -> Tensor:
        asked.append(len(x))
        if len(x) > 4:
            raise MemoryError("draw fewer images at once")
        return upscale(model, x, *arguments, **options)

    monkeypatch.setattr(pixelcnn, "upscale", count)
    for size in (1, 4, 100):
        asked.append(-size)
        out = tmp_path / str(size)
        result = inside("upscale", models["pyramid"], folder, "--samples", 2, "--batch-size", size, "--out", out)
        assert result.returncode == 0, result.stderr
    assert asked == [-1, *[1] * 8, -4, 4, 2, 2, -100, 6, 3, 3, 2]
    for name in names_in(tmp_path / "1"):
        assert len({(tmp_path / size / name).read_bytes() for size in ("1", "4", "100")}) == 1, name
    assert (
        "a.png and 2 more 4x4"
        in inside("upscale", models["pyramid"], folder, "--batch-size", 3, "--out", tmp_path / "more").stderr
    )


def test_names_are_printed_as_they_are(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: no markup, never wrapped, in any encoding; a name cannot move the cursor."""
    long, names = "y" * 120 + ".png", ["cat[small].png", "x[/b].png", ":smile:.png", "\u4e00.png", "a\x1b[2Jb.png"]
    folder = save_all(tmp_path / "in", *names, long)
    code, output, errors = piped("score", models["plain"], folder, encoding="cp1252")
    assert code == 0, errors
    lines = output.decode("cp1252").splitlines()
    assert len(lines) == 8
    shown = {line.split("  ")[-1] for line in lines[2:]}
    assert shown == {*names[:3], long, "\\u4e00.png", "a\\x1b[2Jb.png"}
    drawn = inside("upscale", models["pyramid"], folder / names[-1], "--out", tmp_path / "out.png")
    assert "a\\x1b[2Jb.png 4x4" in drawn.stderr
    code, output, errors = piped("score", models["plain"], folder, "--csv", encoding="utf-8")
    assert {row["picture"] for row in csv.DictReader(io.StringIO(output.decode()))} == {*names, long}
    drawn = inside("upscale", models["pyramid"], folder / names[0], "--out", tmp_path / "out")
    assert "cat[small].png 4x4" in drawn.stderr
    assert drawn.stdout.splitlines()[0] == str(tmp_path / "out" / names[0])


def test_results_are_png_files(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    """Law: only PNG files, folders and standard output; other names are refused before anything is drawn."""
    one, pyramid = pictures / NAMES[0], models["pyramid"]
    (tmp_path / "file").write_text("")
    for out in ("big.jpg", "big.JPEG", "big.webp", "all.zip", "file", "file/a.png"):
        for arguments in (
            ("upscale", pyramid, one, "--out", tmp_path / out),
            ("score", pyramid, one, "--heat-maps", tmp_path / out),
            ("sample", pyramid, "-n", 1, "--size", 4, "--out", tmp_path / out),
        ):
            result = inside(*arguments)
            assert result.returncode == 2, arguments
            assert "name a" in result.stderr, result.stderr
            assert arguments[-2] in result.stderr
    assert names_in(tmp_path) == ["file"]
    heat = inside("score", pyramid, one, "--heat-maps", tmp_path / "x.png")
    assert heat.returncode == 0, heat.stderr
    assert min(read(tmp_path / "x.png").shape[2:]) > 100
    several = inside("score", pyramid, pictures, "--heat-maps", tmp_path / "y.png")
    assert "there are several pictures" in several.stderr
    (tmp_path / "folder.png").mkdir()
    assert inside("upscale", pyramid, one, "--out", tmp_path / "folder.png").returncode == 0
    assert names_in(tmp_path / "folder.png") == ["a.png", "contact-sheet.png"]
    code, output, errors = piped("sample", pyramid, "-n", 1, "--size", 4, "--out", "-")
    assert code == 0, errors
    assert min(read(output).shape[2:]) > 50
    with pytest.raises(ValueError, match="lossless"):
        save_picture(Image.new("L", (1, 1)), tmp_path / "z.jpg")


def test_pictures_have_256_levels(pictures: Path, tmp_path: Path) -> None:
    """Law: every verb refuses a model with other levels, since its values would wrap around."""
    save(ImageModel(3, 1024, [Downsample(2)], filters=4, blocks=1, scales=1), tmp_path / "deep")
    out = ("--out", tmp_path / "out")
    for arguments in (("upscale", *out), ("colorize", *out), ("complete", *out, "--box", 0, 0, 2, 2), ("score",)):
        result = inside(arguments[0], tmp_path / "deep", pictures / NAMES[0], *arguments[1:])
        assert result.returncode == 2
        assert "has levels=1024, and pictures have 256" in result.stderr
    with pytest.raises(ValueError, match=r"integers in \[0, 256\)"):
        to_picture(torch.full((3, 1, 1), 1000), 256)


def test_a_note_says_what_decoding_loses(tmp_path: Path) -> None:
    """Law: a picture is converted if that loses nothing a model could use, and a note says what is lost."""
    clear, plain = Image.new("RGBA", (3, 2), (9, 8, 7, 6)), Image.new("RGB", (3, 2), (9, 8, 7))
    clear.save(tmp_path / "clear.png")
    ((picture,), said) = read_pictures(tmp_path / "clear.png")
    assert said == ["clear.png: its transparency is ignored"]
    assert picture.x[:, 0, 0].tolist() == [9, 8, 7]
    ((picture,), said) = read_pictures(tmp_path / "clear.png", channels=1)
    assert picture.x.shape == (1, 2, 3)
    assert "converted to gray" in said[0]
    lab, srgb = (ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes() for name in ("LAB", "sRGB"))
    frames = {"save_all": True, "append_images": [Image.new("RGB", (3, 2), "red")]}
    cases: list[tuple[Image.Image, str, dict[str, Any], str | None]] = [
        (plain, "x.png", {}, None),
        (plain, "x.png", {"icc_profile": srgb}, None),
        (plain, "x.png", {"icc_profile": lab}, "its color profile is ignored"),
        (plain, "x.gif", frames, "only the first of its 2 frames"),
        (plain, "x.png", frames, "only the first of its 2 frames"),
        (plain, "x.webp", frames | {"lossless": True}, "only the first of its 2 frames"),
        (plain.convert("CMYK"), "x.jpg", {}, "its CMYK inks are converted"),
        (
            plain,
            "x.jpg",
            {"exif": b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x09"},
            "it may be damaged (Corrupt EXIF data",
        ),
        (plain.convert("L"), "x.png", {}, "it is gray"),
    ]
    for image, name, options, note in cases:
        image.save(tmp_path / name, **options)
        _, said = read_pictures(tmp_path / name)
        assert len(said) == (note is not None), (name, options, said)
        assert note is None or note in said[0]
    _, said = read_pictures(tmp_path / "x.png", gray=True)
    assert said == []


WHITE = np.array([[0, 1, 0], [0, 0, 1]], dtype=bool)  # of the masks here


def paint(mode: str) -> Image.Image:
    """Draw WHITE as a picture of this mode, the way drawing programs save it."""
    gray = Image.fromarray(WHITE).convert("L")
    if mode in ("I;16", "I;16B"):
        return Image.frombytes(mode, (3, 2), (WHITE * 65535).astype(">u2" if mode == "I;16B" else "<u2").tobytes())
    if mode in ("I", "F"):
        return Image.fromarray((WHITE * {"I": 65535, "F": 1}[mode]).astype({"I": np.int32, "F": np.float32}[mode]))
    if mode in ("LA", "RGBA"):  # white paint on a transparent background, which is black or white underneath
        clear = Image.new(mode, (3, 2), (255, 0) if mode == "LA" else (255, 255, 255, 0))
        clear.putalpha(gray)
        return clear
    if mode == "PA":
        return paint("RGBA").quantize(4)
    return gray.convert(mode)


@pytest.mark.parametrize(
    ("mode", "ending"),
    [*((mode, "png") for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16")),
     *((mode, "tiff") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I;16B", "I", "F")),
     *((mode, "webp") for mode in ("L", "RGB", "RGBA")),
     *((mode, "ppm") for mode in ("1", "L", "I", "RGB")), ("L", "bmp"), ("P", "gif")],
)  # fmt: skip
def test_a_mask_of_any_mode_is_read_as_people_see_it(tmp_path: Path, mode: str, ending: str) -> None:
    """Law: white is unknown, black is known, in every mode and depth; transparent is known, and a note says so."""
    options: dict[str, Any] = {"lossless": True, "exact": True} if ending == "webp" else {}
    paint(mode).save(tmp_path / f"mask.{ending}", **options)
    mask = read_mask(tmp_path / f"mask.{ending}")
    assert torch.equal(mask.unknown, torch.from_numpy(WHITE))
    assert bool(mask.notes) == (mode in ("LA", "RGBA", "PA"))
    with pytest.raises(ValueError, match="is 3x2, and the picture 5x5"):
        mask.of_size((5, 5))


def test_a_mask_is_turned_upright_and_split_at_half(tmp_path: Path) -> None:
    """Law: orientation counts; lighter than half is unknown; notes mention a gradient and a lot of white."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees
    paint("L").save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(read_mask(tmp_path / "turned.png").unknown, torch.from_numpy(np.rot90(WHITE, -1).copy()))
    Image.fromarray(np.arange(256, dtype=np.uint8)[None]).save(tmp_path / "ramp.png")
    ramp = read_mask(tmp_path / "ramp.png")
    assert ramp.unknown[0].tolist() == [False] * 128 + [True] * 128
    assert "80% of its pixels are neither black nor white" in ramp.notes[0]
    Image.fromarray(~WHITE).save(tmp_path / "most.png")
    assert "67% of it is white" in read_mask(tmp_path / "most.png").notes[0]
    half = paint("L").convert("RGB")
    half.putalpha(128)  # a layer that is half transparent everywhere looks the same
    half.save(tmp_path / "half.png")
    assert torch.equal(read_mask(tmp_path / "half.png").unknown, torch.from_numpy(WHITE))
    assert box_mask((1, 0, 2, 1), (2, 2)).tolist() == [[False, True], [False, False]]


def test_a_mask_without_clear_white_is_refused(tmp_path: Path) -> None:
    """Law: if there is no white, or it is unclear what white is, one line says so and what to do."""
    holes = Image.new("RGBA", (3, 2), (0, 0, 0, 255))
    holes.putalpha(paint("L"))
    cases: dict[str, tuple[Image.Image, str]] = {
        "labels.png": (Image.fromarray(WHITE.astype(np.uint8)), "no white, only 0 % of it at most"),
        "deep.png": (Image.fromarray((WHITE * 255).astype(np.uint16)), "no white"),
        "red.png": (Image.new("RGB", (3, 2), "red"), "no white, only 30 % of it at most"),
        "holes.png": (holes, "all that is not transparent is dark"),
        "clear.png": (Image.new("RGBA", (3, 2), (255, 255, 255, 0)), "fully transparent"),
        "negative.tiff": (Image.fromarray(-WHITE.astype(np.float32)), "out of range"),
        "nan.tiff": (Image.fromarray(np.full((2, 3), np.nan, np.float32)), "out of range"),
        "lab.tiff": (Image.new("LAB", (3, 2)), "mode LAB"),
    }
    for name, (image, message) in cases.items():
        image.save(tmp_path / name)
        with pytest.raises(ValueError, match=r"8-bit") as error:
            read_mask(tmp_path / name)
        assert message in str(error.value), error.value
    Image.fromarray((~WHITE * 65535).astype(np.uint16)).save(tmp_path / "above.tiff", tiffinfo={262: 0})
    with pytest.raises(ValueError, match="out of range"):
        read_mask(tmp_path / "above.tiff")
    (tmp_path / "text.png").write_text("no image")
    for name in ("text.png", "missing.png"):
        with pytest.raises(ValueError, match="name another --mask"):
            read_mask(tmp_path / name)


def test_damaged_files_give_a_result_or_a_one_line_error(tmp_path: Path) -> None:
    """Fuzzing: for any bytes, a picture or mask is read, or a one-line ValueError says why not."""
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    seeds = []
    for ending, mode in [("png", "RGBA"), ("png", "P"), ("gif", "P"), ("jpg", "RGB"), ("jpg", "CMYK"), ("bmp", "RGB"),
                         ("tiff", "RGB"), ("tiff", "F"), ("webp", "RGBA"), ("ppm", "RGB"), ("jp2", "RGB")]:  # fmt: skip
        noise.convert(mode).save(tmp_path / f"seed.{ending}")
        seeds.append((tmp_path / f"seed.{ending}").read_bytes())
    file, outcomes = tmp_path / "fuzz.png", [0, 0]
    for case in range(330):
        content = bytearray(seeds[case % len(seeds)])
        for _ in range(int(random.integers(1, 6))):
            content[int(random.integers(min(len(content), 120 if case % 2 else len(content))))] = random.integers(256)
        if case % 5 == 0:
            del content[int(random.integers(len(content))) :]
        file.write_bytes(content)
        for channels in (1, 3, None):
            try:
                read_pictures(file, channels=channels) if channels else read_mask(file)
                outcomes[0] += 1
            except ValueError as error:
                lines = str(error).splitlines()
                outcomes[len(lines)] += 1  # an error with several lines would be an IndexError
    assert min(outcomes) > 100, outcomes


def test_interrupted_drawing_keeps_what_is_finished(
    models: dict[str, Path], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGINT during the second picture: the first and the sheet are saved and reported; exit code 130."""
    import pixelcnn

    upscale: Callable[..., Tensor] = pixelcnn.upscale
    asked: list[int] = []

    def interrupt(*arguments: object, **options: object) -> Tensor:
        asked.append(1)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return upscale(*arguments, **options)

    monkeypatch.setattr(pixelcnn, "upscale", interrupt)
    result = inside("upscale", models["pyramid"], pictures, "--out", tmp_path / "out")
    assert result.returncode == 130
    assert "interrupted: 1 of 3 pictures are done; see" in result.stderr
    assert names_in(tmp_path / "out") == ["a.png", "contact-sheet.png"]


def test_errors_are_one_line_and_code_2(models: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    """Every mistake a user can make: one line that names it and the remedy, and nothing is written."""
    empty = tmp_path / "empty"
    empty.mkdir()
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "mask.png")
    Image.fromarray(np.zeros((7, 10), np.uint8)).save(tmp_path / "black.png")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "text.png").write_text("no image")
    one, out = pictures / NAMES[0], tmp_path / "out"
    gray, pyramid, plain = models["gray"], models["pyramid"], models["plain"]
    cases: list[tuple[tuple[object, ...], str]] = [
        (("colorize", pyramid, one, "--out", out), "use a Grayscale model"),
        (("colorize", plain, one, "--out", out), "use a Grayscale model"),
        (("colorize", gray, empty, "--out", out), "is an empty folder"),
        (("colorize", gray, tmp_path / "none", "--out", out), "no such file or folder"),
        (("colorize", gray, tmp_path / "text.png", "--out", out), "not an image"),
        (("colorize", gray, tmp_path / "deep.png", "--out", out), "convert it to 8-bit"),
        (("colorize", gray, one, "--out", out, "--samples", 0), "samples=0"),
        (("colorize", gray, one, "--out", out, "--samples", 10**20), "use at most 10000"),
        (("colorize", gray, one, "--out", tmp_path / "x.png", "--samples", 2), "name a folder"),
        (("colorize", gray, one, "--out", pictures), "--overwrite"),
        (("colorize", gray, one, "--out", out, "--precision", "int8"), "use float32 or bf16"),
        (("upscale", pyramid, one, "--out", out, "--factor", 8), "factor=8: use one of 2, 4"),
        (("upscale", pyramid, one, "--out", out, "--factor", 3), "factor=3"),
        (("upscale", gray, one, "--out", out), "no smaller view"),
        (("complete", plain, one, "--out", out), "--mask FILE or --box"),
        (("complete", plain, one, "--out", out, "--mask", tmp_path / "mask.png"), "is 4x4, and the picture 10x7"),
        (("complete", plain, one, "--out", out, "--mask", tmp_path / "black.png"), "has no white"),
        (("complete", plain, one, "--out", out, "--box", 3, 3, 3, 5), "--box 3 3 3 5"),
        (("complete", plain, one, "--out", out, "--box", 3, 3, 5, 5, "--candidates", 0), "candidates=0"),
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
