"""Compress many pictures, and restore them from files and archives."""

__all__ = [
    "ARCHIVE",
    "COMPRESSED",
    "Packed",
    "archive_pictures",
    "compress_pictures",
    "open_packed",
    "read_originals",
    "restore_packed",
]

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, TypeVar

from pixelcnn.codec.archive import Archive, is_archive
from pixelcnn.codec.chunks import DamagedError
from pixelcnn.codec.container import File, read_file
from pixelcnn.common.progress import counting_bar
from pixelcnn.common.text import printable
from pixelcnn.data.originals import Original, read_original
from pixelcnn.models.codec import AT_ONCE, Codec, Count
from pixelcnn.models.decompression import Restorer
from pixelcnn.models.restored import Restored
from pixelcnn.pictures.inputs import Origin
from pixelcnn.tasks.results import Results, write_result

T = TypeVar("T")
COMPRESSED, ARCHIVE = ".pxc", ".pxa"
MOST_TOGETHER = 64  # pictures that are coded before the first of them is written
JPEG = b"\xff\xd8\xff"  # how one begins


class Found(NamedTuple):
    """A picture to compress: where it comes from, what is kept of it, and the bytes of its file."""

    origin: Origin
    original: Original
    size: int


class Packed(NamedTuple):
    """A compressed picture, in a file of its own or in an archive."""

    origin: Origin
    file: File


def read_originals(
    origins: Sequence[Origin], channels: int, say: Callable[[str], None], *, skip_broken: bool = False
) -> Iterator[Found]:
    """Yield pictures with all that is kept.

    Args:
        origins: the pictures.
        channels: of the model: 3 for color, 1 for gray pictures only.
        say: called with a sentence for each picture that is left out, or is a JPEG.
        skip_broken: leave out pictures that cannot be compressed, instead of stopping at the first.

    Raises:
        ValueError: for the first picture that cannot be compressed, unless `skip_broken`; or if none can be.
    """
    read = 0
    for origin in origins:
        try:
            content = origin.read()
            original = read_original(content, f"image {str(origin.name)!r}")
            if len(original.x) > channels:
                raise ValueError(f"image {str(origin.name)!r} is in color, and the model of gray: use a model of color")
        except ValueError as error:
            if not skip_broken:
                raise
            say(f"left out: {error}")
            continue
        if content.startswith(JPEG):
            say(f"{origin.name} is a JPEG: its pixels, kept without loss, take more room than the file")
        read += 1
        yield Found(origin, original, len(content))
    if not read:
        raise ValueError(f"none of {len(origins)} files can be compressed: name other files")


def compress_pictures(
    codec: Codec,
    pictures: Iterable[Found],
    results: Results,
    *,
    label: int | None = None,
    done: Callable[[Path, int, int], None],
) -> None:
    """Compress pictures, each to a file of its own. Those of one size among a few in a row are compressed together.

    Args:
        codec: of the model.
        pictures: the pictures.
        results: where the results go.
        label: the class of all pictures, for a model with classes.
        done: called with the file of each result, its bytes, and those of the picture's file.
    """
    for batch in _together(pictures, lambda each: math.prod(each.original.x.shape[1:])):
        originals = [each.original for each in batch]
        with _bar("compressing", [each.origin for each in batch], codec.pixels(originals)) as count:
            contents = codec.compress(originals, _labels(label, len(batch)), count=count)
        for (origin, _, size), content in zip(batch, contents, strict=True):
            (file,) = results.files[origin]
            write_result(content, file)
            done(file, len(content), size)


def archive_pictures(codec: Codec, pictures: Iterable[Found], *, label: int | None = None) -> tuple[bytes, int, int]:
    """Compress pictures to one archive; return it, the number of pictures, and the bytes of their files."""
    found = list(pictures)
    originals, names = [each.original for each in found], [each.origin.name.as_posix() for each in found]
    with _bar("compressing", [each.origin for each in found], codec.pixels(originals)) as count:
        content = codec.archive(originals, names, _labels(label, len(found)), count=count)
    return content, len(found), sum(each.size for each in found)


def open_packed(origins: Sequence[Origin], wanted: Sequence[str] = ()) -> Iterator[Packed | tuple[Origin, ValueError]]:
    """Yield the compressed pictures of files and archives, or the error for one that cannot be read.

    A picture of an archive has its name there; if several files are read, below the name of the archive.

    Args:
        origins: of the files.
        wanted: the names of the pictures in archives to read; empty for all.

    Raises:
        ValueError: if a wanted picture is in none of them.
    """
    missing = set(wanted)
    for origin in origins:
        try:
            content = origin.read()
            archive = Archive(content) if is_archive(content) else None
            if archive is None:
                yield Packed(origin, read_file(content))
                continue
        except ValueError as error:
            yield origin, error
            continue
        folder = origin.name.with_suffix("") if len(origins) > 1 else Path()
        for i, entry in enumerate(archive.entries):
            if wanted and entry.name not in wanted:
                continue
            missing.discard(entry.name)
            inner = Origin(folder / entry.name, origin.file)
            try:
                yield Packed(inner, archive.open(i))
            except DamagedError as error:
                yield inner, error
    if missing:
        raise ValueError(f"no picture {min(missing)!r} in the archive: 'pixelcnn info' lists those there are")


def restore_packed(
    restorer: Restorer, packed: Sequence[Packed], view: int | None = 0
) -> Iterator[tuple[Origin, Restored | ValueError]]:
    """Restore compressed pictures, those of one size together; yield each, or the error for one that is damaged.

    Args:
        restorer: with the models.
        packed: the pictures.
        view: the view to stop at: 0 for whole pictures, None for the simplest one.
    """
    for some in _together(packed, lambda each: each.file.shape.height * each.file.shape.width):
        total = sum(restorer.pixels(each.file, view) for each in some)
        with _bar("decompressing", [each.origin for each in some], total) as count:
            results = restorer.restore([each.file for each in some], view, count=count)
        yield from zip((each.origin for each in some), results, strict=True)


def _together(pictures: Iterable[T], pixels: Callable[[T], int]) -> Iterator[list[T]]:
    """Put consecutive pictures together that are coded before the first of them is written: few, or small ones."""
    batch: list[T] = []
    total = 0
    try:
        for each in pictures:
            size = pixels(each)
            if batch and (len(batch) == MOST_TOGETHER or total + size > AT_ONCE):
                yield batch
                batch, total = [], 0
            batch.append(each)
            total += size
    except ValueError:  # this picture is broken, and those before it are not
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _labels(label: int | None, number: int) -> list[int] | None:
    return None if label is None else [label] * number


def _bar(verb: str, origins: Sequence[Origin], total: int) -> AbstractContextManager[Count]:
    """Show a bar for pictures that take longer than two seconds, by their pixels."""
    more = f" and {len(origins) - 1} more" if len(origins) > 1 else ""
    return counting_bar(f"{verb} {printable(origins[0].name)}{more}", total, visible=True)
