"""Packages whose names are imported on first use, so that `--help` answers without waiting for torch."""

__all__ = ["lazy_names"]

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]], modules: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the `__getattr__` and `__dir__` of a package (PEP 562).

    Nothing is kept: a name is always what its module says, whoever asked for it before.

    Args:
        package: its `__name__`.
        homes: for each module, relative to the package, the names that are imported from it.
        modules: public names of whole modules, and where they are, relative to the package.
    """
    places = {name: f"{package}.{module}" for module, names in homes.items() for name in names}
    whole = {name: f"{package}.{module}" for name, module in (modules or {}).items()}

    def get(name: str) -> Any:
        if name in whole:
            return import_module(whole[name])
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(places[name]), name)

    return get, lambda: sorted([*places, *whole])
