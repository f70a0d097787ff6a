"""The command `score`."""

__all__ = ["score"]

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

import pixelcnn
import pixelcnn.pictures
import pixelcnn.tasks
from pixelcnn.apps.cli.help import PICTURES
from pixelcnn.apps.cli.options import (
    MANY,
    Address,
    Consistent,
    Device,
    EngineName,
    Json,
    Model,
    Overwrite,
    Rows,
    SkipBroken,
    Workers,
    command,
)
from pixelcnn.apps.cli.shared import Arguments, Many, counting, load_for_pictures, say, say_left_out
from pixelcnn.common.text import printable


@command(PICTURES)
def score(
    model: Model,
    pictures: Arguments,
    heat_maps: Annotated[
        Path | None,
        typer.Option(help="A folder for maps of the bits that each pixel costs; or, for a single map, a .png file."),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print figures as CSV.")] = False,
    consistent: Consistent = None,
    device: Device = "auto",
    skip_broken: SkipBroken = False,
    overwrite: Overwrite = False,
    json: Json = False,
    out: Annotated[
        Path | None, typer.Option(help="With --engine: a folder for the scores.", rich_help_panel=MANY)
    ] = None,
    engine: EngineName = None,
    address: Address = None,
    workers: Workers = None,
    rows: Rows = None,
) -> None:
    """Score each picture in bits per dimension. In total and per factor."""
    if csv and json:
        raise ValueError("--csv and --json: use one of the two")
    many = Many(engine, address, workers, rows, device, overwrite)
    if many.wanted({"--heat-maps": heat_maps, "--csv": csv}):
        if out is None:
            raise ValueError("--engine: name a folder for the scores with --out")
        loaded = load_for_pictures(model, consistent, "cpu")
        many.show(pixelcnn.cluster.score(pictures, loaded, out, many.how()), out, json=json)
        return
    if out is not None:
        raise ValueError(f"--out {str(out)!r}: scores are printed; use it with --engine, or --heat-maps")
    results = None
    if heat_maps is not None:
        if str(heat_maps) == "-":
            raise ValueError("--heat-maps '-': standard output is for the scores; name a folder")
        pixelcnn.tasks.check_out(heat_maps, overwrite, "--heat-maps")
    origins = pixelcnn.pictures.find_pictures(pictures, [heat_maps] if heat_maps else [], say)
    if heat_maps is not None:
        results = pixelcnn.tasks.plan_results(origins, heat_maps, option="--heat-maps")
    loaded = load_for_pictures(model, consistent, device)
    read = pixelcnn.pictures.Pictures(origins, loaded.formats[0][0], say, skip_broken=skip_broken)
    names = ["total", *[f"factor {k}" for k in range(len(loaded.factors))]]
    finished = 0
    with (
        _printing(names, csv=csv, json=json) as show,
        counting(lambda: finished, len(origins), "with the scores above"),
    ):
        for name, bits in pixelcnn.tasks.score_pictures(loaded, read, results, progress=True):
            show(name, bits)
            finished += 1
    say_left_out(read.left_out, len(origins))


@contextmanager
def _printing(names: list[str], *, csv: bool, json: bool) -> "Iterator[Callable[[str, list[float]], None]]":
    """Print scores picture by picture; the output is complete and valid even after an interruption."""
    from csv import writer

    rows = 0
    table = writer(sys.stdout, lineterminator="\n")

    def show(name: str, bits: list[float]) -> None:
        nonlocal rows
        if json:
            print("[" if rows == 0 else ",", dumps({"picture": name} | dict(zip(names, bits, strict=True))), sep="")
        elif csv:
            table.writerow([name, *bits])
        else:
            if rows == 0:
                print("bits per dimension")
                print("  ".join([f"{each:>8}" for each in names] + ["picture"]))
            print("  ".join([f"{each:>8.4f}" for each in bits] + [printable(name)]))
        rows += 1
        sys.stdout.flush()

    if csv:
        table.writerow(["picture", *names])
    try:
        yield show
    finally:
        if json:
            print("]" if rows else "[]")
