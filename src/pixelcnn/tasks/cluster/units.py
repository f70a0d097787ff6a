"""Pictures in files and in tables, cut into units of work without being read.

A unit is a number of consecutive pictures, those of one file of the results. It says where its pictures are, so it can
travel to another machine, and that machine reads them. A path in a table is only a name; it is never opened.
"""

__all__ = ["Found", "Item", "Span", "Unit", "cut", "find_spans"]

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pixelcnn.common.text import first_line
from pixelcnn.data.decode import BrokenImageError, read_file
from pixelcnn.data.folders import PICTURES, is_table
from pixelcnn.data.rows import IMAGE_COLUMNS
from pixelcnn.pictures.inputs import find_pictures


class Span(NamedTuple):
    """Consecutive pictures of one file: a picture file (rows 0 to 1), or rows `start` to `stop` of a table.

    An image that is drawn from nothing has no file; its row is its seed.
    """

    name: str
    file: str
    start: int
    stop: int


class Item(NamedTuple):
    """A picture: its name, and the bytes of its file or the error that there was instead."""

    name: str
    content: bytes | ValueError


class Unit(NamedTuple):
    """The pictures of one file of the results.

    Attributes:
        part: number of the file.
        spans: where the pictures are.
    """

    part: int
    spans: list[Span]

    def __len__(self) -> int:
        return sum(span.stop - span.start for span in self.spans)

    def to_text(self) -> str:
        return json.dumps([self.part, self.spans])

    @classmethod
    def from_text(cls, text: str) -> "Unit":
        part, spans = json.loads(text)
        return cls(part, [Span(*span) for span in spans])

    def items(self) -> Iterator[Item]:
        """Read the pictures one by one."""
        for span in self.spans:
            if not span.file:
                yield from (Item(f"{row:06d}", b"") for row in range(span.start, span.stop))
            elif is_table(Path(span.file)):
                yield from _rows(span)
            else:
                yield _file(span)


class Found(NamedTuple):
    """Where the pictures are, and sentences on what was left out."""

    spans: list[Span]
    notes: list[str]


def find_spans(pictures: object, out: Path) -> Found:
    """Find pictures and tables without reading them, in an order that is the same on every machine.

    Args:
        pictures: a path or several: picture files, parquet files, folders of these, or patterns.
        out: the folder for results, which is left out.

    Raises:
        ValueError: if nothing is found, or a table has no column of images.
    """
    paths = [pictures] if isinstance(pictures, str | Path) else pictures
    if not isinstance(paths, Sequence) or not paths or not all(isinstance(path, str | Path) for path in paths):
        raise ValueError(f"pictures of type {type(pictures).__name__}: use the path of a file or folder, or several")
    if "-" in paths:
        raise ValueError("pictures='-': workers cannot read standard input; name files or folders")
    notes: list[str] = []
    origins = find_pictures([str(path) for path in paths], [out], notes.append)
    files = [(str(origin.name), Path(os.path.abspath(origin.file))) for origin in origins if origin.file]
    if any(is_table(file) for _, file in files):  # other files next to tables describe them
        kept = [(name, file) for name, file in files if is_table(file) or file.suffix.lower() in PICTURES]
        if len(kept) < len(files):
            notes.append(f"left out {len(files) - len(kept)} files that do not look like pictures")
        files = kept
    spans = [Span(name, str(file), 0, _count(file) if is_table(file) else 1) for name, file in files]
    return Found([span for span in spans if span.stop], notes)


def cut(spans: Sequence[Span], rows: int) -> Iterator[Unit]:
    """Cut pictures into units of so many; the last one may have fewer."""
    part, some, room = 0, [], rows
    for span in spans:
        start = span.start
        while start < span.stop:
            stop = min(span.stop, start + room)
            some.append(span._replace(start=start, stop=stop))
            room -= stop - start
            start = stop
            if not room:
                yield Unit(part, some)
                part, some, room = part + 1, [], rows
    if some:
        yield Unit(part, some)


def _file(span: Span) -> Item:
    try:
        return Item(span.name, read_file(span.file))
    except BrokenImageError as error:
        return Item(span.name, error)


def _count(file: Path) -> int:
    """Count the rows of a table, and check that it has a column of images."""
    import pyarrow.parquet

    try:
        if not file.is_file():
            raise ValueError("not a regular file")
        with pyarrow.parquet.ParquetFile(file) as table:
            names = table.schema_arrow.names
            if not set(names) & set(IMAGE_COLUMNS):
                raise ValueError(f"it has columns {names}; rename one of them to 'image'")
            return table.metadata.num_rows
    except Exception as error:  # bad or unreadable files: these share no base class
        raise ValueError(f"{str(file)!r} cannot be read as parquet ({first_line(error)}): check the file") from error


def _rows(span: Span) -> Iterator[Item]:
    """Read the pictures of some rows of a table; the parts of a table that they are not in stay unread."""
    import pyarrow.parquet

    done, first = span.start, 0
    try:
        with pyarrow.parquet.ParquetFile(span.file) as table:
            column = next(name for name in IMAGE_COLUMNS if name in table.schema_arrow.names)
            for group in range(table.metadata.num_row_groups):
                last = first + table.metadata.row_group(group).num_rows
                if first < span.stop and last > span.start:
                    within = table.read_row_group(group, columns=[column]).column(0)
                    start, stop = max(span.start, first), min(span.stop, last)
                    for row, value in enumerate(within.slice(start - first, stop - start), start):
                        yield _record(span, row, value.as_py())
                        done = row + 1
                first = last
    except Exception as error:  # a damaged or missing table, of many kinds: its other pictures cannot be read either
        broken = ValueError(f"table {span.file!r} cannot be read ({first_line(error)}): get the file again")
        yield from (Item(f"{span.name}:{row}", broken) for row in range(done, span.stop))


def _record(span: Span, row: int, value: Any) -> Item:
    """Name a picture of a table by its table and row, so that no two have the same name."""
    name = f"{span.name}:{row}"
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes) and content:
        return Item(name, content)
    return Item(name, ValueError(f"image {name!r} cannot be read (it is empty): remove it"))
