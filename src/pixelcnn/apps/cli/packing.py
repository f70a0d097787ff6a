"""The commands `compress`, `decompress`, `info` and `verify`, for lossless files."""

__all__ = ["compress", "decompress", "info", "verify"]

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import pixelcnn
import pixelcnn.models
import pixelcnn.pictures
import pixelcnn.tasks
from pixelcnn.apps.cli.help import FILES
from pixelcnn.apps.cli.options import (
    MODELS,
    Address,
    Consistent,
    Device,
    EngineName,
    Json,
    Overwrite,
    Rows,
    SkipBroken,
    Workers,
    command,
    fail,
)
from pixelcnn.apps.cli.shared import Arguments, Many, counting, load_for_pictures, say, say_left_out
from pixelcnn.common.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pixelcnn.pictures.inputs import Origin
    from pixelcnn.tasks.packing import Packed

Files = Annotated[
    list[str],
    typer.Argument(metavar="FILES", help="Compressed pictures (.pxc), archives (.pxa), folders, or - for stdin."),
]
MODEL = "photos-pyramid"
WithModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="The model that compressed them; by default the shipped model that did.",
        autocompletion=pixelcnn.models.shipped_names,
    ),
]


@command(FILES)
def compress(
    pictures: Arguments,
    out: Annotated[
        Path | None,
        typer.Option(help="A folder; or, for a single picture, a .pxc file or - for standard output."),
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(help="Instead of --out: one .pxa file for all pictures, or - for standard output.")
    ] = None,
    model: Annotated[str, typer.Option(help=MODELS, autocompletion=pixelcnn.models.shipped_names)] = MODEL,
    label: Annotated[int | None, typer.Option(help="Class of the pictures, for a model with classes.")] = None,
    consistent: Consistent = None,
    device: Device = "auto",
    skip_broken: SkipBroken = False,
    overwrite: Overwrite = False,
    engine: EngineName = None,
    address: Address = None,
    workers: Workers = None,
    rows: Rows = None,
) -> None:
    """Compress pictures without loss. Many small ones fit best in an archive."""
    many = Many(engine, address, workers, rows, device, overwrite)
    if many.wanted({"--archive": archive}) and out is not None:
        loaded = load_for_pictures(model, consistent, "cpu")
        name, how = Path(model).name, many.how()
        many.show(pixelcnn.cluster.compress(pictures, loaded, out, how, label=label, name=name), out)
        return
    if (out is None) == (archive is None):
        raise ValueError("name the result: use either --out FOLDER or --archive FILE.pxa")
    place, option, suffix = (out, "--out", pixelcnn.tasks.COMPRESSED) if out else _archive(archive)
    pixelcnn.tasks.check_out(place, overwrite, option, suffix)
    origins = pixelcnn.pictures.find_pictures(pictures, [place], say)
    results = pixelcnn.tasks.plan_results(origins, place, suffix=suffix) if out else None
    pixelcnn.tasks.check_inputs_stay([place], origins, option)
    codec = _codec(model, consistent, device)
    found = pixelcnn.tasks.read_originals(origins, codec.channels, say, skip_broken=skip_broken)
    number = after = before = 0

    def show(file: Path, size: int, size_before: int, pictures: int = 1) -> None:
        nonlocal number, after, before
        number, after, before = number + pictures, after + size, before + size_before
        if str(file) != "-":
            print(printable(file), flush=True)

    with counting(lambda: number, len(origins), f"see {place}"):
        if results is not None:
            pixelcnn.tasks.compress_pictures(codec, found, results, label=label, done=show)
        else:
            content, pictures_in_it, size_before = pixelcnn.tasks.archive_pictures(codec, found, label=label)
            pixelcnn.tasks.write_result(content, place)
            show(place, len(content), size_before, pictures_in_it)
    say_left_out(len(origins) - number, len(origins))
    say(f"{after:,} bytes, from files of {before:,} bytes")


def _archive(archive: Path | None) -> tuple[Path, str, str]:
    """Return the file of an archive, its option and its suffix; raise a ValueError if it has another suffix."""
    place, suffix = Path(archive or ""), pixelcnn.tasks.ARCHIVE
    if not pixelcnn.tasks.is_file_name(place, suffix):
        raise ValueError(f"--archive {str(place)!r}: name a {suffix} file, or - for standard output")
    return place, "--archive", suffix


def _codec(model: str, consistent: bool | None, device: str) -> "pixelcnn.models.Codec":
    """Load a model and put it into exact arithmetic. Of a folder, files are told the name but not the place."""
    return pixelcnn.models.Codec(load_for_pictures(model, consistent, device), Path(model).name)


@command(FILES)
def decompress(
    files: Files,
    out: Annotated[
        Path, typer.Option(help="A folder; or, for a single picture, a .png file or - for standard output.")
    ],
    model: WithModel = None,
    only: Annotated[
        list[str] | None, typer.Option(help="A picture of an archive, by its name. May be repeated.")
    ] = None,
    view: Annotated[int, typer.Option(help="Stop at this view: 0 for the picture, 1 for the next view, ...")] = 0,
    thumbnail: Annotated[bool, typer.Option("--thumbnail", help="Stop at the simplest view.")] = False,
    device: Device = "auto",
    skip_broken: SkipBroken = False,
    overwrite: Overwrite = False,
) -> None:
    """Get pictures back from compressed files, as PNG."""
    if view < 0 or (view and thumbnail):
        raise ValueError(f"--view {view}: use a number of at least 0, and not with --thumbnail")
    pixelcnn.tasks.check_out(out, overwrite)
    packed, broken = _open(files, [out], only or [], skip_broken=skip_broken)
    results = pixelcnn.tasks.plan_results([each.origin for each in packed], out)
    restorer, finished = _restorer(model, device), 0
    with counting(lambda: finished, len(packed) + broken, f"see {out}"):
        for origin, restored in pixelcnn.tasks.restore_packed(restorer, packed, None if thumbnail else view):
            if isinstance(restored, ValueError):
                _refuse(origin, restored, skip_broken=skip_broken)
                broken += 1
                continue
            if restored.view > view and not thumbnail:
                H, W = restored.original.x.shape[1:]
                say(f"{origin.name} is cut off: this is its view {restored.view}, of {W}x{H}")
            (file,) = results.files[origin]
            pixelcnn.tasks.write_result(restored.original.to_png(), file)
            finished += 1
            if str(file) != "-":
                print(printable(file), flush=True)
    say_left_out(broken, len(packed) + broken)


def _open(
    files: list[str], besides: "Sequence[Path]", only: "Sequence[str]" = (), *, skip_broken: bool = False
) -> "tuple[list[Packed], int]":
    """Find and open compressed pictures; return them and the number of those that were left out."""
    packed, broken = [], 0
    for found in _found(files, besides, only):
        origin, file = found
        if isinstance(file, ValueError):
            _refuse(origin, file, skip_broken=skip_broken)
            broken += 1
        else:
            packed.append(found)
    if broken and not packed:
        raise ValueError(f"none of {broken} files can be read: name other files")
    return packed, broken


def _found(
    files: list[str], besides: "Sequence[Path]" = (), only: "Sequence[str]" = ()
) -> "Iterator[Packed | tuple[Origin, ValueError]]":
    suffixes = pixelcnn.tasks.COMPRESSED, pixelcnn.tasks.ARCHIVE
    return pixelcnn.tasks.open_packed(pixelcnn.pictures.find_pictures(files, besides, say, suffixes), only)


def _refuse(origin: "Origin", error: ValueError, *, skip_broken: bool) -> None:
    """Say that a picture is left out, or raise the error with its name."""
    if not skip_broken:
        raise ValueError(f"{str(origin.name)!r}: {error}") from None
    say(f"left out {str(origin.name)!r}: {error}")


def _restorer(model: str | None, device: str) -> "pixelcnn.models.Restorer":
    loaded = None if model is None else load_for_pictures(model, None, device)
    return pixelcnn.models.Restorer(loaded, device)


@command(FILES)
def verify(files: Files, model: WithModel = None, device: Device = "auto") -> None:
    """Decode compressed files, and check their pixels."""
    found = list(_found(files))
    broken = [(origin, error) for origin, error in found if isinstance(error, ValueError)]
    packed: list[Any] = [each for each in found if not isinstance(each[1], ValueError)]
    bad = 0
    for origin, restored in [*broken, *pixelcnn.tasks.restore_packed(_restorer(model, device), packed)]:
        if isinstance(restored, ValueError):
            state = str(restored)
        elif restored.view:
            state = f"it is cut off after view {restored.view}"
        else:
            H, W = restored.original.x.shape[1:]
            print(f"{printable(origin.name)}: whole, {W}x{H}", flush=True)
            continue
        bad += 1
        print(f"{printable(origin.name)}: {state}", flush=True)
    if bad:
        fail(f"{bad} of {len(found)} pictures are not whole, for the reasons above", 2)


@command(FILES)
def info(files: Files, json: Json = False) -> None:
    """Show what compressed files say of themselves."""
    packed, _ = _open(files, [])
    if json:
        print(dumps([_describe(each) for each in packed], indent=2))
        return
    for each in packed:
        row = _describe(each)
        parts = [
            f"{row['width']}x{row['height']} {'gray' if row['channels'] == 1 else 'color'}",
            "as PNG" if row["png"] else f"by {printable(row['model']) or 'a model'} ({row['model_hash']})",
            f"views of {', '.join(f'{size:,}' for size in row['bytes_of_views'])} bytes",
            f"{row['bits_per_dim']:.3f} bits per sub-pixel",
            *([f"with {', '.join(row['extras'])}"] if row["extras"] else []),
            *([f"class {row['label']}"] if row["label"] is not None else []),
            *([f"cut off, views missing: {row['missing_views']}"] if row["missing_views"] else []),
        ]
        print(f"{printable(row['name'])}: {', '.join(parts)}")


def _describe(packed: "Packed") -> dict[str, Any]:
    """List what is known of a compressed picture, by the names of the JSON output."""
    file, is_png = packed.file, packed.file.png is not None
    channels, height, width, label, _ = file.shape
    sizes = [len(each) for each in ([file.png or b""] if is_png else file.views)]
    return {
        "name": str(packed.origin.name),
        "width": width,
        "height": height,
        "channels": channels,
        "model": file.coding.name,
        "model_hash": file.coding.model.hex(),
        "consistent": file.coding.consistent,
        "label": label,
        "png": is_png,
        "bytes_of_views": sizes,
        "missing_views": 0 if is_png else file.missing,
        "bits_per_dim": 8 * sum(sizes) / (channels * height * width),
        "extras": [name for name in ("alpha", "profile", "exif") if getattr(file, name) is not None],
    }
