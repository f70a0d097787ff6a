"""Laws of the docstrings: every public name has an example, and every example runs as it is written."""

import doctest
import pkgutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import pixelcnn
import pixelcnn.models.config  # registers the classes of the package, which must outlast each test
from pixelcnn.auxiliary.base import AUXILIARIES
from pixelcnn.likelihoods.base import LIKELIHOODS

OTHERS = [
    "common.registry.Registry",
    "data.images.Images",
    "models.config.ModelConfig",
    "models.request.Request",
    "models.factor.Factor",
    "nn.causal.CausalNetwork",
    "nn.embedding.EmbeddingNetwork",
    "traversal.cached.CachedNetwork",
    "traversal.loop.traverse",
    "zoo.recipes.find_recipe",
]
"""Names that users meet besides the public ones."""


def has_example(module: str) -> bool:
    spec = find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):  # the compiled kernel is no text
        return False
    return ">>>" in Path(spec.origin).read_text(encoding="utf-8")


MODULES = [found.name for found in pkgutil.walk_packages(pixelcnn.__path__, "pixelcnn.") if has_example(found.name)]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: in any folder, and without a trace in the registries."""
    monkeypatch.chdir(tmp_path)
    for registry in (AUXILIARIES, LIKELIHOODS):
        monkeypatch.setattr(registry, "classes", dict(registry.classes))
    failed, tried = doctest.testmod(import_module(module), optionflags=doctest.ELLIPSIS)
    assert tried > 0
    assert failed == 0


@pytest.mark.parametrize("name", [*pixelcnn.__all__, *OTHERS])
def test_a_public_name_has_an_example(name: str) -> None:
    """Law: its docstring has an `Example:`, in the format that is run."""
    module, _, short = name.rpartition(".")
    value = getattr(import_module(f"pixelcnn.{module}"), short) if module else getattr(pixelcnn, name)
    docstring = value.__doc__ or ""
    assert "Example:" in docstring
    assert doctest.DocTestParser().get_examples(docstring)
