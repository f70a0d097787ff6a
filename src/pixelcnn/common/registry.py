"""Registries of classes that a config may refer to by name, so that models that use them can be saved and loaded."""

__all__ = ["Registry"]

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Generic, TypeVar, cast

from pixelcnn.common.text import shorten

T = TypeVar("T")
C = TypeVar("C", bound=type)


class Registry(Generic[T]):
    """Frozen dataclasses by name.

    A config can only refer to registered classes. It never makes the package import code, so it is safe to load a
    model from a stranger.

    Args:
        kind: what the classes are called in errors.
        base: the class that all of them extend.

    Example:
        >>> from dataclasses import dataclass
        >>> from pixelcnn.common.registry import Registry
        >>> class Shape: ...
        >>> shapes = Registry("shape", Shape)
        >>> @shapes.register
        ... @dataclass(frozen=True)
        ... class Circle(Shape):
        ...     radius: int
        >>> shapes.describe(Circle(2))
        {'name': 'Circle', 'radius': 2}
        >>> shapes.build({"name": "Circle", "radius": 2})
        Circle(radius=2)
    """

    def __init__(self, kind: str, base: type[T]) -> None:
        self.kind, self.base = kind, base
        self.classes: dict[str, type[T]] = {}

    def register(self, cls: C) -> C:
        """Register a class under its name; use it as a decorator, above `@dataclass(frozen=True)`.

        Raises:
            ValueError: if the class is not a frozen dataclass of this kind, or its name is taken.
        """
        # Of the class itself, since its own fields are what is saved: a dataclass it extends does not count.
        frozen = getattr(vars(cls).get("__dataclass_params__"), "frozen", False)
        if not (frozen and issubclass(cls, self.base)):
            kinds = f"classes that extend {self.base.__name__} and have @dataclass(frozen=True)"
            raise ValueError(f"{cls!r}: register {kinds}")
        other = self.classes.get(cls.__name__)
        # Running a notebook cell again defines its class again, and that is fine.
        if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"{cls.__name__}: {other.__module__} has registered a class of that name; choose another")
        self.classes[cls.__name__] = cast("type[T]", cls)
        return cls

    def describe(self, value: T) -> dict[str, Any]:
        """Describe an object by the name of its class and its fields, in the form that `build` takes.

        Raises:
            ValueError: if the object could not be built again, because its class is not registered or its fields cannot
                be written as JSON.
        """
        if self.classes.get(type(value).__name__) is not type(value):
            raise ValueError(f"{value!r}: its class is not registered; decorate it with @register_{self.kind}")
        description = _description(value)
        try:
            again = _description(self.build(json.loads(json.dumps(description))))
            same = json.dumps(again) == json.dumps(description)
        except (TypeError, ValueError):
            same = False
        if not same:
            raise ValueError(
                f"{value!r}: its fields cannot be saved; use numbers, strings and tuples of them, and no field `name`"
            )
        return description

    def build(self, description: object) -> T:
        """Build an object from its description.

        Raises:
            ValueError: unless it is a mapping with the name of a registered class and fields that the class accepts.
        """
        name = description.get("name") if isinstance(description, Mapping) else None
        if not isinstance(description, Mapping) or not isinstance(name, str):
            known = ", ".join(self.classes)
            raise ValueError(
                shorten(f"{description!r}: describe each {self.kind} by an object with a name, one of {known}")
            )
        if name not in self.classes:
            raise ValueError(
                f"the {self.kind} {shorten(repr(name))} is not known here (known are {', '.join(self.classes)}): "
                "import the module that registers it first"
            )
        try:
            return self.classes[name](
                **{field: _frozen(value) for field, value in description.items() if field != "name"}
            )
        except TypeError as error:
            raise ValueError(f"{name}: {error}") from None


def _description(value: Any) -> dict[str, Any]:
    own = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
    return {"name": type(value).__name__} | own


def _frozen(value: Any) -> Any:
    """Turn the lists of JSON into tuples, so that a frozen dataclass can be hashed."""
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value
