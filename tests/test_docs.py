"""The page on extending works as it stands there, and the pages name the packages and the public names that exist."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

import pixelcnn
from pixelcnn import Categorical, Downsample, LogisticMixture, QuantizedGrayscale, load
from pixelcnn.auxiliary.base import AUXILIARIES
from pixelcnn.likelihoods.base import LIKELIHOODS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/extending.md").read_text()
VIEWS = {each.__name__: each for each in (Downsample, QuantizedGrayscale)}
LIKELIHOODS_HERE = {each.__name__: each for each in (LogisticMixture, Categorical)}


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The variables after all examples of the page, in a folder and with registries of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(AUXILIARIES, "classes", dict(VIEWS))
    monkeypatch.setattr(LIKELIHOODS, "classes", dict(LIKELIHOODS_HERE))
    names: dict[str, Any] = {}
    for example in re.findall(r"```python\n(.*?)```", PAGE, flags=re.S):
        if module := re.match(r"# (\w+)\.py\n", example):
            monkeypatch.setitem(sys.modules, module[1], None)  # so that it is removed afterwards
            del sys.modules[module[1]]
            Path(f"{module[1]}.py").write_text(example)
        else:
            exec(example, names)
    return names


def test_the_page_on_extending(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert names["x"].shape == names["colors"].shape == (2, 3, 16, 16)
    assert names["edges"].shape == (2, 1, 16, 16)
    assert load("edges").auxiliaries == (names["EdgeMap"](),)

    # As in a process that has not imported the module.
    monkeypatch.setattr(AUXILIARIES, "classes", dict(VIEWS))
    (quoted,) = re.findall(r"^palette/config.json: .*$", PAGE, flags=re.M)
    with pytest.raises(ValueError, match="import the module that registers it first") as error:
        load("palette")
    assert str(error.value) == quoted


def test_the_packages_are_the_same_everywhere() -> None:
    """The tree in the README and the tables of packages list every package, in the same order."""
    tree = re.findall(r"^(\w+)/ ", (ROOT / "README.md").read_text(), flags=re.M)
    table = r"^\| `(\w+)` \| "
    assert tree == re.findall(table, (ROOT / "docs/architecture.md").read_text(), flags=re.M)
    assert tree == re.findall(table, (ROOT / "CONTRIBUTING.md").read_text(), flags=re.M)
    assert sorted(tree) == sorted(file.parent.name for file in (ROOT / "src/pixelcnn").glob("*/__init__.py"))


def test_the_api_documents_modules_that_exist_and_all_public_names() -> None:
    pages = {page.name: page.read_text() for page in (ROOT / "docs/api").glob("*.md")}
    named = {name for line in re.findall(r"^\| (`.*?) \|", pages["index.md"], flags=re.M) for name in line.split(", ")}
    assert named == {f"`{name}`" for name in pixelcnn.__all__}
    documented = {name for page in pages.values() for name in re.findall(r"automodule:: (\S+)", page)}
    found = [getattr(pixelcnn, name) for name in pixelcnn.__all__]
    assert {getattr(each, "__module__", each.__name__) for each in found} <= documented
