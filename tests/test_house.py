"""Laws of the house: packages import upward, files have no circles, and rooms are small.

Read from the syntax trees, so that imports inside functions and under `TYPE_CHECKING` count.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import pixelcnn

ROOT = Path(pixelcnn.__file__).parent
FLOORS: str = (
    "common likelihoods auxiliary nn traversal codec data models pictures tasks training zoo pixelcnn apps __main__"
)
"""From the top down; `pixelcnn` are the public names, which the programs use."""
MOST_PACKAGES, MOST_LINES, MOST_PARAMETERS = 13, 300, 7
MANY_PARAMETERS = {
    "nn.causal.CausalNetwork.__init__": "the sizes of one network, which a configuration has one by one",
}
CATCH_ALLS = {
    "apps.studio.tab.Tab.post": "takes the fields of an event, which the page reads by their names",
    "common.checks.check_whole": "takes the names that its errors quote",
    "models.config.per_factor": "takes the name that its errors quote",
    "models.cards.card_data": "takes the front matter of a card, whose fields the hub defines",
    "models.cards.model_card": "likewise",
    "models.hub.HubModel.from_pretrained": "has the signature of the hub",
    "models.hub.HubModel.save_pretrained": "likewise",
    "models.hub.HubModel.generate_model_card": "likewise",
    "tasks.lossless._pillow": "hands on the options of an encoder of Pillow",
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def parse(root: Path) -> dict[str, ast.Module]:
    """The trees of all files of a package by the names of their modules; `pixelcnn.nn` is its `__init__`."""
    paths = {path: path.relative_to(root.parent).with_suffix("").parts for path in sorted(root.rglob("*.py"))}
    names = {path: ".".join(parts[:-1] if parts[-1] == "__init__" else parts) for path, parts in paths.items()}
    return {name: ast.parse(path.read_text(encoding="utf-8")) for path, name in names.items()}


def imports(tree: ast.AST, modules: dict[str, ast.Module]) -> Iterator[str]:
    """Our own modules that a tree imports anywhere: of `from a import b` it is `a.b` where that is a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"from {'.' * node.level}{node.module or ''}: write the whole name"
            named = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found = {full if full in modules else node.module or "" for full in named.values()}
            yield from found & modules.keys()


def import_graph(modules: dict[str, ast.Module]) -> dict[str, set[str]]:
    return {name: set(imports(tree, modules)) for name, tree in modules.items()}


def functions(tree: ast.AST, name: str) -> Iterator[tuple[str, Function]]:
    """Every function by its whole name, those inside of classes and of other functions too."""
    for node in ast.iter_child_nodes(tree):
        inner = f"{name}.{node.name}" if isinstance(node, Function | ast.ClassDef) else name
        if isinstance(node, Function):
            yield inner, node
        yield from functions(node, inner)


MODULES = parse(ROOT)
GRAPH = import_graph(MODULES)
FUNCTIONS = {
    found: function
    for name, tree in MODULES.items()
    for found, function in functions(tree, name.removeprefix("pixelcnn."))
}


def package(module: str) -> str:
    return (*module.split("."), "pixelcnn")[1]


def test_packages_import_upward_only() -> None:
    """Law: a file imports from its own package and from those above it, and there is none that the list leaves out."""
    floors = FLOORS.split()
    assert {package(name) for name in MODULES} == set(floors)
    assert len(set(floors) - {"pixelcnn", "__main__"}) <= MOST_PACKAGES
    down = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in sorted(others)
        if floors.index(package(other)) > floors.index(package(name))
    ]
    assert down == []


def test_no_two_files_import_each_other() -> None:
    """Law: there is no circle, not even one of types or hidden inside a function."""
    TopologicalSorter(GRAPH).prepare()


def test_a_circle_is_found(tmp_path: Path) -> None:
    """Law: the law above can fail: by a circle inside a function, under TYPE_CHECKING, or through a third file."""
    for name, source in {
        "__init__": "",
        "a": "def f():\n    from house.inner import b",
        "inner/__init__": "",
        "inner/b": "import torch\nimport house.c",
        "c": "if TYPE_CHECKING:\n    from house.a import f",
    }.items():
        path = tmp_path / "house" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    modules = parse(tmp_path / "house")
    assert import_graph(modules)["house.a"] == {"house.inner.b"}
    with pytest.raises(CycleError):
        TopologicalSorter(import_graph(modules)).prepare()
    (tmp_path / "house" / "c.py").write_text("")
    TopologicalSorter(import_graph(parse(tmp_path / "house"))).prepare()


def test_functions_import_nothing_of_ours() -> None:
    """Law: what a file needs of the package, its head says; only heavy packages of others are imported late."""
    assert {name: found for name, each in FUNCTIONS.items() if (found := list(imports(each, MODULES)))} == {}


def test_files_are_short() -> None:
    """Law: no file is longer than what one reads at a sitting."""
    lines = {str(path): path.read_text(encoding="utf-8").count("\n") for path in ROOT.rglob("*.py")}
    assert {path: number for path, number in lines.items() if number > MOST_LINES} == {}


def is_command(function: Function) -> bool:
    """Whether it is a verb of the command line, whose parameters are its options."""
    return any(ast.unparse(decorator).startswith("command(") for decorator in function.decorator_list)


def test_functions_have_few_parameters() -> None:
    """Law: more than seven travel in an object, except where the list says why not."""

    def number(function: Function) -> int:
        given = function.args
        return sum(each.arg not in ("self", "cls") for each in given.posonlyargs + given.args + given.kwonlyargs)

    many = {name for name, each in FUNCTIONS.items() if number(each) > MOST_PARAMETERS and not is_command(each)}
    assert many == MANY_PARAMETERS.keys()


def test_options_have_names() -> None:
    """Law: no function takes options of any name, except where the list says why; a TypedDict names them."""
    unnamed = {
        name
        for name, each in FUNCTIONS.items()
        if each.args.kwarg and not ast.unparse(each.args.kwarg.annotation or each).startswith("Unpack[")
    }
    assert unnamed == CATCH_ALLS.keys()


LAZY = [name for name, others in GRAPH.items() if "pixelcnn.common.lazy" in others]


@pytest.mark.parametrize("name", LAZY)
def test_packages_offer_what_they_say(name: str) -> None:
    """Law: every public name is there, `dir` shows it, and no file of that name hides it once it is imported."""
    module = import_module(name)
    assert set(module.__all__) <= set(dir(module))
    for each in module.__all__:
        getattr(module, each)
        assert f"{name}.{each}" not in MODULES
