"""What the package promises in public: its names, its version, and the Pythons it runs on."""

import json
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pixelcnn_zoo

import pixelcnn

ROOT = Path(__file__).parents[1]


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def found(pattern: str, path: str) -> str:
    """The one place in a file where a line has this pattern."""
    (match,) = re.findall(pattern, (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return match


def test_dir_shows_the_public_names() -> None:
    """Law: tab completion offers the public names and nothing else, and each has a docstring of its own."""
    assert dir(pixelcnn) == sorted(pixelcnn.__all__)
    for name in dir(pixelcnn):
        text = getattr(pixelcnn, name).__doc__
        assert text, name
        assert not text.startswith(f"{name}("), f"{name} has the docstring that every dataclass gets"


def test_there_is_one_version() -> None:
    """Law: the package, its zoo, the citation and the changelog have the version of pyproject.toml."""
    expected = project(ROOT)["version"]
    assert pixelcnn.__version__ == version("pixelcnn") == expected
    assert pixelcnn_zoo.__version__ == version("pixelcnn-zoo") == expected
    assert project(ROOT / "zoo")["dependencies"] == [f"pixelcnn=={expected}"]
    assert found(r"^version: (.+)$", "CITATION.cff") == expected
    assert found(r"\A# Changelog\n\n## (\S+)", "CHANGELOG.md") == expected


def test_ci_runs_the_pythons_that_are_promised() -> None:
    """Law: the classifiers of both distributions, the oldest Python that pip takes, and the matrix of CI agree."""
    tested = json.loads(found(r"^ +python: (\[.+\])$", ".github/workflows/ci.yml"))
    for folder in (ROOT, ROOT / "zoo"):
        promised = re.findall(r"Python :: (3\.\d+)", " ".join(project(folder)["classifiers"]))
        assert promised == tested
        assert project(folder)["requires-python"] == f">={tested[0]}"
