"""Settings of Sphinx for these pages: `make docs`. It needs no network."""

import re
from typing import Any

from sphinx.util import inspect

import pixelcnn

project = "pixelcnn"
author = "the authors of pixelcnn"
version = release = pixelcnn.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"pixelcnn {version}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False

myst_heading_anchors = 3
default_role = "code"  # docstrings write `code` as Markdown does
highlight_language = "text"

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # a method that says nothing is described where it is declared
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_use_param = False  # "channels, levels: of the images" is two arguments in one line
napoleon_use_rtype = False

# `make docs` is nitpicky: a name of this package that leads nowhere is an error. Names of other packages and of Python
# itself could only be looked up on their websites.
nitpick_ignore_regex = [
    ("py:.*", r"(torch|accelerate|datasets|huggingface_hub|numpy|PIL|abc|collections|concurrent|datetime|pathlib)\..*"),
    # Names that their modules keep to themselves, and type variables.
    ("py:(class|obj)", r"Rows|IterableDataset|pixelcnn\.(\w+\.)+(_\w+|[A-Z])"),
    (
        "py:class",
        r"pixelcnn\.(auxiliary\.cells\.CellBounds|traversal\.compiled\.CompiledProgram|models\.hub\.HubModel|training\.state\.TrainingState)",
    ),
]


def _mark_literal_blocks(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Mark the formulas and tables in docstrings, which are indented as in Markdown, as literal blocks."""
    marked: list[str] = []
    depth = 0  # of the paragraph before
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line and marked[-1:] == [""] and indent >= depth + 4 and not marked[-2].endswith("::"):
            marked += [" " * depth + "::", ""]
        elif line and not (indent > depth and marked[-1:] == [""]):
            depth = indent
        marked.append(line)
    lines[:] = marked


def _skip_field(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Skip the fields of named tuples, which their class describes."""
    return True if re.match("Alias for field number", getattr(obj, "__doc__", None) or "") else None


def _show_arguments(app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returns: str) -> Any:
    """Show the arguments of a model's own `__init__`, which the mixin of the hub hides behind a `__new__`."""
    if what == "class" and issubclass(obj, pixelcnn.ImageModel):
        own = inspect.signature(obj.__init__, bound_method=True)
        return inspect.stringify_signature(own, unqualified_typehints=True, show_return_annotation=False), returns
    return None


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _mark_literal_blocks, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", _show_arguments)
    app.connect("autodoc-skip-member", _skip_field)
