"""Argument checks whose errors quote the name and the value and say what to use instead."""

__all__ = ["check_whole"]


def check_whole(at_least: int = 1, **arguments: object) -> None:
    """Raise a ValueError for the first argument that is not a whole number of at least `at_least`."""
    for name, value in arguments.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
            raise ValueError(f"{name}={value!r}: use a whole number of at least {at_least}")
