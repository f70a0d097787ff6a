"""Test that the scripts in `examples/` run as their docstrings say, and that what the docstrings claim is true."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixelcnn import evaluate, load, load_images
from pixelcnn.pictures.sheets import FONT_SIZE, GAP, MARGIN, to_picture

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, folder: Path, *arguments: object) -> str:
    """Run an example in a folder, as a process of one thread; return what it prints."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def save_photographs(folder: Path, number: int, part: str = "test") -> None:
    photographs = load_images("photos", part, size=32)
    for i in range(number):
        to_picture(photographs[i], 256).save(folder / f"{i}.png")


def read(path: Path) -> torch.Tensor:
    """Read a picture as integers (C, H, W)."""
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_each_example_says_how_to_run_it_and_is_tested(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert f"    python examples/{path.name}" in docstring
    assert f'run("{path.name}"' in Path(__file__).read_text()


@pytest.mark.slow
def test_train_on_a_folder(tmp_path: Path) -> None:
    before, after = map(float, re.findall(r"\d+\.\d+", run("train_on_a_folder.py", tmp_path)))
    assert before > 8
    assert after < 7
    trained = load(tmp_path / "mine")
    held_out = load_images("photos", "test", size=32)
    assert evaluate(trained, held_out, limit=16).bits_per_dim == pytest.approx(after, abs=0.01)
    assert trained.size == (32, 32)
    _, height, width = read(tmp_path / "mine" / "samples.png").shape
    assert width > 8 * 96  # eight samples in a row, enlarged
    assert height > 3 * 96  # three views


def test_train_on_a_folder_of_ones_own(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / "pictures" / part).mkdir(parents=True)
        save_photographs(tmp_path / "pictures" / part, 3, part)
    assert "before training" in run("train_on_a_folder.py", tmp_path, "pictures", 1)
    assert load(tmp_path / "mine").size == (32, 32)


@pytest.mark.parametrize("size", [None, (9, 6)])
def test_enlarge_a_photograph(size: tuple[int, int] | None, tmp_path: Path) -> None:
    arguments = []
    if size is not None:
        photograph = load_images("photos", "test", size=16)[0][:, : size[0], : size[1]]
        to_picture(photograph, 256).save(tmp_path / "mine.png")
        arguments = ["mine.png"]
    assert run("enlarge_a_photograph.py", tmp_path, *arguments).endswith("True\n")
    small, large = read(tmp_path / "small.png"), read(tmp_path / "large.png")
    if size is not None:
        assert torch.equal(small, read(tmp_path / "mine.png"))
    assert large.shape == (3, 4 * small.shape[1], 4 * small.shape[2])
    view = large.long()
    for _ in range(2):  # averaged over squares of 2x2 pixels, rounded half up
        view = (view[:, ::2, ::2] + view[:, ::2, 1::2] + view[:, 1::2, ::2] + view[:, 1::2, 1::2] + 2) // 4
    assert torch.equal(view, small.long())


def test_find_the_odd_one_out(tmp_path: Path) -> None:
    output = run("find_the_odd_one_out.py", tmp_path)
    lines = re.findall(r"^(.+): (\d+\.\d+), (\d+\.\d+), ([+-]\d+\.\d+)$", output, flags=re.M)
    bits = {name: float(under_model) for name, under_model, _, _ in lines}
    scores = {name: float(score) for name, _, _, score in lines}
    assert len(scores) == 13
    stripes = scores.pop("stripes")
    assert stripes > 1 + max(scores.values())
    assert sorted(bits.values(), reverse=True).index(bits["stripes"]) > 0
    assert output.endswith("the odd one out: stripes\n")


def test_find_the_odd_one_out_among_ones_own(tmp_path: Path) -> None:
    save_photographs(tmp_path, 2)
    Image.effect_noise((20, 30), 80).save(tmp_path / "noise.png")
    output = run("find_the_odd_one_out.py", tmp_path, "0.png", "noise.png", "1.png")
    assert output.endswith("the odd one out: noise.png\n")


@pytest.mark.slow
def test_own_view(tmp_path: Path) -> None:
    assert run("own_view.py", tmp_path).endswith("True\n")
    sheet = read(tmp_path / "posters.png")
    line, side, scale = FONT_SIZE + MARGIN, 96, 3  # images of 32x32 are shown at 96x96
    for column in range(8):
        left = MARGIN + column * (side + GAP)
        tops = [MARGIN + row * (line + side + MARGIN) + line for row in range(3)]
        photograph, poster, drawn = (sheet[:, top : top + side : scale, left : left + side : scale] for top in tops)
        assert torch.equal(photograph // 64 * 85, poster)  # four shades, stretched to 0 to 255
        assert torch.equal(drawn // 64 * 85, poster)
        assert not torch.equal(drawn, photograph)
    with pytest.raises(ValueError, match="Poster"):  # until the module with the class is imported
        load(tmp_path / "posters")
