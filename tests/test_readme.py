"""What the README shows works as it stands there."""

import re
from pathlib import Path

import pytest
import torch

from pixelcnn.checkpoint import save
from pixelcnn.models import PyramidPixelCNN
from pixelcnn.recipes import RECIPES

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example, on a model as small as can be in the place of the demonstration's."""
    save(PyramidPixelCNN(2, filters=4, blocks=1, embedding_blocks=1), tmp_path / "demo")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    names: dict[str, torch.Tensor] = {}
    exec(example, names)
    assert names["samples"].shape == (4, 3, 32, 32)
    assert names["samples"].dtype == torch.uint8


def test_the_recipes_that_it_names_exist() -> None:
    assert set(re.findall(r"pixelcnn train ([\w+-]+)", README)) <= RECIPES.keys()
