"""The common part of the commands that work on picture files: their argument, their messages, their model."""

__all__ = ["Arguments", "Many", "counting", "load_for_pictures", "say", "say_left_out"]

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import pixelcnn
from pixelcnn.apps.cli.options import explain, fail, load_model
from pixelcnn.common.text import printable

if TYPE_CHECKING:
    from pixelcnn.models.image_model import ImageModel
    from pixelcnn.tasks.cluster import Engine

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


@dataclass(frozen=True)
class Many:
    """The options for very many pictures, which several commands have."""

    engine: str | None
    address: str | None
    workers: int | None
    rows: int | None
    device: str
    overwrite: bool

    def wanted(self, others: Mapping[str, object]) -> bool:
        """Return whether results go to parquet files.

        Args:
            others: options that have no meaning for these, by name; those that were given have a value.

        Raises:
            ValueError: if options were given that do not go together.
        """
        only = {"address": self.address, "workers": self.workers, "rows": self.rows}
        for name in [name for name, value in only.items() if value is not None and self.engine is None]:
            raise ValueError(f"--{name} is for very many pictures: use it with --engine ray")
        if self.engine is None:
            return False
        for name in [name for name, value in others.items() if value]:
            raise ValueError(f"{name} has no effect with --engine: leave one of the two out")
        return True

    def how(self) -> "Engine":
        """Return the engine, which shows its progress."""
        place = self.address, self.workers, self.device, self.rows
        return pixelcnn.cluster.Engine(self.engine or "local", *place, self.overwrite, progress=True)

    def show(self, manifest: dict[str, Any], out: Path, *, json: bool = False) -> None:
        """Print the totals and the folder of the results, and say what was left out."""
        for note in manifest["notes"]:
            say(note)
        for each in manifest["failed"]:
            say(f"left out {each['name']!r}: {each['error']}")
        say_left_out(len(manifest["failed"]), manifest["pictures"])
        if json:
            print(dumps({"pictures": manifest["pictures"], "failed": len(manifest["failed"])} | manifest["totals"]))
            return
        for name, value in manifest["totals"].items():
            if not isinstance(value, list):
                print(f"{name.replace('_', ' ')}: {value:,}" if isinstance(value, int) else f"{name}: {value:.4f}")
        print(printable(out))
