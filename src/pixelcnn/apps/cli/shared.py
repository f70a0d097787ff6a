"""The common part of the commands that work on picture files: their argument, their messages, their model."""

__all__ = ["Arguments", "counting", "load_for_pictures", "say", "say_left_out"]

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from pixelcnn.apps.cli.options import explain, fail, load_model
from pixelcnn.common.text import printable

if TYPE_CHECKING:
    from pixelcnn.models.image_model import ImageModel

Arguments = Annotated[
    list[str],
    typer.Argument(metavar="PICTURES", help="Pictures, folders of pictures, patterns, or - for standard input."),
]


@contextmanager
def counting(finished: Callable[[], int], number: int, where: str) -> Iterator[None]:
    """Add the number of finished pictures to errors."""
    try:
        yield
    except KeyboardInterrupt:
        fail(f"interrupted: {finished()} of {number} pictures are done" + (f"; {where}" if finished() else ""), 130)
    except BrokenPipeError:
        raise
    except (ValueError, FloatingPointError, MemoryError, OSError) as error:
        fail(explain(error) + (f"; {finished()} of {number} pictures are done, {where}" if finished() else ""), 2)


def load_for_pictures(model: str, consistent: bool | None, device: str) -> "ImageModel":
    """Load a model, which must have the 256 levels of pictures.

    Raises:
        ValueError: if the model has another number of levels, so that it cannot read or draw pictures.
    """
    loaded = load_model(model, consistent, device)
    if loaded.levels != 256:
        raise ValueError(f"{model!r} has levels={loaded.levels}, and pictures have 256: use another model")
    return loaded


def say(note: str) -> None:
    print(f"pixelcnn: {printable(note)}", file=sys.stderr)


def say_left_out(left_out: int, number: int) -> None:
    if left_out:
        say(f"left out {left_out} of {number} pictures that cannot be read")
