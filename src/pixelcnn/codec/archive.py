"""The bytes of an archive of compressed pictures (`.pxa`): one header for all, an index, and their streams.

Each picture can be read alone. The index is packed in columns, which are nearly constant for pictures of one size, so
that a small picture costs little beyond its stream. `docs/format.md` says what each byte means.
"""

__all__ = ["MOST_PICTURES", "Archive", "Entry", "check_names", "is_archive", "write_archive"]

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from pixelcnn.codec.chunks import CutError, DamagedError, Scan, deflate, inflate, pack, write_chunk
from pixelcnn.codec.container import CHECKSUM, HEADER, Coding, File, Shape, read_file

SIGNATURE = b"\x89PXA\r\n\x1a\n"
NAMES, INDEX = b"N", b"I"
MOST_PICTURES = 10**7
MOST_NAME, MOST_ENTRY = 1024, 64  # bytes, of a picture
MOST_LISTED = 2**28  # bytes of all names, and of the index
STREAM, WHOLE = 0, 1
FORBIDDEN = frozenset('<>:"\\|?*') | frozenset(map(chr, range(32)))  # in names of files on some system
DEVICES = {"CON", "CONIN$", "CONOUT$", "PRN", "AUX", "NUL"} | {
    f"{port}{n}" for port in ("COM", "LPT") for n in "123456789\xb9\xb2\xb3"
}
"""Names that Windows reserves, with any suffix."""


class Entry(NamedTuple):
    """A picture in an archive.

    Attributes:
        name: a relative path with slashes.
        whole: whether its bytes are a whole compressed picture (`.pxc`), instead of a stream of all its views.
        shape: of the picture.
        length: of its bytes.
    """

    name: str
    whole: bool
    shape: Shape
    length: int


def is_archive(content: bytes | memoryview) -> bool:
    """Whether these bytes begin as an archive does."""
    return bytes(content[: len(SIGNATURE)]) == SIGNATURE


def write_archive(coding: Coding, entries: Sequence[Entry], contents: Sequence[bytes]) -> bytes:
    """Write an archive of pictures, given the bytes of each.

    Raises:
        DamagedError: if the names are not those of files that can be beside each other.
    """
    check_names([entry.name for entry in entries])
    shapes = [entry.shape for entry in entries]
    columns = (
        [WHOLE if entry.whole else STREAM for entry in entries],
        [shape.channels for shape in shapes],
        [shape.height for shape in shapes],
        [shape.width for shape in shapes],
        [0 if shape.label is None else shape.label + 1 for shape in shapes],
        [entry.length for entry in entries],
    )
    checksums = b"".join(shape.checksum.to_bytes(CHECKSUM, "little") for shape in shapes)
    chunks = (
        (HEADER, coding.to_bytes() + pack([len(entries)])),
        (NAMES, deflate("\0".join(entry.name for entry in entries).encode())),
        (INDEX, deflate(b"".join(map(pack, columns)) + checksums)),
    )
    return SIGNATURE + b"".join(write_chunk(kind, data) for kind, data in chunks) + b"".join(contents)


class Archive:
    """An archive opened for reading, one picture at a time.

    Args:
        content: its bytes. If they are cut off, the pictures whose bytes are all there can still be read.

    Attributes:
        coding: of all pictures that are streams.
        entries: the pictures.

    Raises:
        DamagedError: if this is no archive, or not as the format says.
    """

    def __init__(self, content: bytes | memoryview) -> None:
        if not is_archive(content):
            raise DamagedError("it is no archive of compressed pictures (.pxa), or its first bytes are damaged")
        scan = Scan(content, "index")
        scan.take(len(SIGNATURE))
        header, names, index = (_expect(scan, kind) for kind in (HEADER, NAMES, INDEX))
        header = Scan(header, "header")
        self.coding, number = Coding.take(header), header.packed()
        header.end()
        if number > MOST_PICTURES:
            raise DamagedError(f"it claims {number} pictures")
        listed = inflate(names, min(MOST_LISTED, (MOST_NAME + 1) * number), "list of names")
        if (there := listed.count(b"\0") + 1 if number else 0) != number:
            raise DamagedError(f"it has {there} names for {number} pictures")
        try:
            found = listed.decode().split("\0") if number else []
        except UnicodeDecodeError:
            raise DamagedError("its list of names is not UTF-8") from None
        check_names(found)
        self.entries = _read_index(found, inflate(index, min(MOST_LISTED, MOST_ENTRY * number), "index"))
        self._content, ends = content, list(accumulate((each.length for each in self.entries), initial=scan.at))
        self._starts = ends[:-1]
        if ends[-1] < len(content):
            raise DamagedError(f"{len(content) - ends[-1]} bytes follow its last picture")

    def open(self, i: int) -> File:
        """Read a picture.

        Raises:
            DamagedError: if it is damaged, or the archive ends before it does.
        """
        start, entry = self._starts[i], self.entries[i]
        if start + entry.length > len(self._content):
            raise CutError(f"it is cut off before the end of {entry.name!r}")
        stream = bytes(self._content[start : start + entry.length])
        try:
            file = read_file(stream) if entry.whole else File(self.coding, entry.shape, 1, [stream], joint=True)
        except DamagedError as error:
            raise DamagedError(f"{entry.name!r} in it: {error}") from None
        if file.shape != entry.shape:
            raise DamagedError(f"{entry.name!r} in it is another picture than the index says")
        return file


def _expect(scan: Scan, kind: bytes) -> bytes:
    """Take the next chunk, which must be of this kind, past those that may be ignored."""
    while True:
        found, data = scan.chunk()
        if found == kind:
            return data
        if not found.islower():
            raise DamagedError(f"its chunk {found.decode('latin-1')!r} is unknown: a later pixelcnn may read it")


def _read_index(names: Sequence[str], data: bytes) -> list[Entry]:
    scan = Scan(data, "index")
    kinds, channels, heights, widths, labels, lengths = ([scan.packed() for _ in names] for _ in range(6))
    entries = []
    for i, name in enumerate(names):
        if kinds[i] not in (STREAM, WHOLE):
            raise DamagedError(f"{name!r} is of an unknown kind: a later pixelcnn may read it")
        label = labels[i] - 1 if labels[i] else None
        shape = Shape(channels[i], heights[i], widths[i], label, scan.fixed(CHECKSUM)).checked()
        entries.append(Entry(name, kinds[i] == WHOLE, shape, lengths[i]))
    scan.end()
    return entries


def check_names(names: Sequence[str]) -> None:
    """Check the names of pictures.

    Raises:
        DamagedError: if a name could leave the folder of the results or be no file on some system, or if two of them
            cannot both be files.
    """
    for name in names:
        parts = name.split("/")
        if (
            FORBIDDEN & set(name)
            or any(part in ("", ".", "..") or part.endswith((" ", ".")) for part in parts)
            or any(part.partition(".")[0].rstrip().upper() in DEVICES for part in parts)
            or any(0xD800 <= ord(letter) < 0xE000 for letter in name)  # a byte of a name that is not UTF-8
        ):
            raise DamagedError(f"the name {name!r} is no plain relative path: rename it")
        if len(name.encode()) > MOST_NAME:
            raise DamagedError(f"the name {name[:20]!r}... is longer than {MOST_NAME} bytes")
    different = set(names)
    if len(different) < len(names):
        raise DamagedError("two of its pictures have the same name")
    for name in names:
        if (folder := next((each for each in _folders(name) if each in different), None)) is not None:
            raise DamagedError(f"{folder!r} is the name of a picture, and of the folder of {name!r}")


def _folders(name: str) -> Iterator[str]:
    """Yield the folders that a name is in."""
    return (name[:i] for i, letter in enumerate(name) if letter == "/")
