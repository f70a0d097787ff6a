"""Test that the README's examples work as printed."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelcnn import decompress
from pixelcnn.zoo.recipes import RECIPES

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_python_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["samples"].shape == (4, 3, 32, 32)
    assert names["samples"].dtype == torch.uint8
    assert names["large"].shape == (4, 3, 128, 128)
    pictures = decompress(names["content"])
    assert [np.asarray(each).tolist() for each in pictures] == names["x"].permute(0, 2, 3, 1).tolist()


def test_the_recipes_that_it_names_exist() -> None:
    assert set(re.findall(r"pixelcnn train ([\w+-]+)", README)) <= RECIPES.keys()
