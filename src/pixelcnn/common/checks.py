"""Argument checks whose errors quote the name and the value and say what to use instead."""

__all__ = ["array_hint", "check_integers", "check_whole", "tensor_hint"]

from collections.abc import Sequence


def check_whole(at_least: int = 1, **arguments: object) -> None:
    """Raise a ValueError for the first argument that is not a whole number of at least `at_least`."""
    for name, value in arguments.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
            raise ValueError(f"{name}={value!r}: use a whole number of at least {at_least}")


def check_integers(kind: object, levels: int, name: str) -> None:
    """Raise a ValueError if this type of numbers, of an array or a tensor, is not one of integers."""
    if "int" in str(kind):
        return
    remedy = f"use integers in [0, {levels}), such as uint8"
    if "float" in str(kind):
        remedy += f"; multiply floats in [0, 1] by {levels - 1}, round and convert them"
    elif "bool" in str(kind):
        remedy += f"; convert them, and multiply by {levels - 1} if true is white"
    raise ValueError(f"{name} of type {kind}: {remedy}")


def tensor_hint(shape: Sequence[int], channels: int, name: str = "x") -> str:
    """Say which change would make an image (C, H, W), or a batch of images, of a tensor; empty if that is unclear."""
    here = ""
    if len(shape) == 2:
        here = f"{name}[None]" if channels == 1 else f"{name}.expand(3, -1, -1)"
    elif len(shape) in (3, 4):
        found, all_of = shape[-3], ":, " * (len(shape) - 3)
        axes = "2, 0, 1" if len(shape) == 3 else "0, 3, 1, 2"
        if found == channels + 1:
            here = f"{name}[{all_of}:{channels}] without the alpha channel"
        elif shape[-1] in (1, 3, 4):
            here = f"{name}.permute({axes}) with the channels first"
        elif found == 1:
            here = f"{name}.expand({'-1, ' * (len(shape) - 3)}3, -1, -1) as color"
        elif found == 3:
            here = "the luma of these colors, as Pillow's convert('L') makes it"
        elif len(shape) == 3:
            as_color = "" if channels == 1 else ".expand(-1, 3, -1, -1)"
            here = f"{name}[:, None]{as_color} for gray images (B, H, W)"
    return f"; here {here}" if here else ""


def array_hint(shape: Sequence[int], channels: int, name: str = "x") -> str:
    """Say which change would make an image (H, W, C), or a batch of images, of an array; empty if that is unclear."""
    here = ""
    if len(shape) in (3, 4):
        axes = "1, 2, 0" if len(shape) == 3 else "0, 2, 3, 1"
        if shape[-1] == 3:
            here = "the luma of these colors, as Pillow's convert('L') makes it"
        elif shape[-1] in (2, 4):
            here = f"{name}[..., :{shape[-1] - 1}] without the alpha channel"
        elif shape[-3] in (1, 3, 4):
            here = f"{name}.transpose({axes}) with the channels last"
        elif len(shape) == 3:
            here = f"{name}[..., None] for gray images (B, H, W)"
    return f"; here {here}" if here else ""
