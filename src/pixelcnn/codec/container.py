"""The bytes of a compressed picture (`.pxc`): a signature, and chunks that can each be checked alone.

`docs/format.md` says what each byte means. This module knows nothing of models or pictures. It writes and reads bytes,
and refuses whatever is not as the format says.
"""

__all__ = [
    "MOST_EXTRA",
    "MOST_PIXELS",
    "Coding",
    "File",
    "Shape",
    "pixel_checksum",
    "read_file",
    "view_ends",
    "write_file",
]

import zlib
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np

from pixelcnn.codec.chunks import CutError, DamagedError, Scan, deflate, inflate, pack, write_chunk

SIGNATURE = b"\x89PXC\r\n\x1a\n"
VERSION, CONSISTENT = 1, 1
TABLES, MODEL, CHECKSUM = 4, 8, 4  # bytes of the hashes of the tables and of the model, and of the checksum of pixels
MOST_NAME = 255  # bytes
MOST_PIXELS = 2**26  # as many as a picture may have
MOST_VIEWS = 17
MOST_EXTRA = 2**24  # bytes of a color profile or of EXIF data
HEADER, VIEW, PNG = b"H", b"V", b"P"
EXTRAS = {"alpha": b"A", "profile": b"i", "exif": b"e"}


class Coding(NamedTuple):
    """How pixels are coded: with which tables and which model.

    Attributes:
        tables, model: the first bytes of their hashes.
        name: of the model, a hint.
        consistent: whether the model is used consistently.
        levels: of the picture.
    """

    tables: bytes
    model: bytes
    name: str
    consistent: bool
    levels: int

    def to_bytes(self) -> bytes:
        name = self.name.encode(errors="replace")[:MOST_NAME].decode(errors="ignore").encode()  # whole characters
        start = bytes([VERSION, CONSISTENT * self.consistent]) + (self.levels - 1).to_bytes(2, "little")
        return start + self.tables + self.model + bytes([len(name)]) + name

    @classmethod
    def take(cls, scan: Scan) -> Self:
        """Read it from the front of a header."""
        version, flags = scan.take(2)
        if version != VERSION:
            raise DamagedError(f"it is of version {version} of the format, and this pixelcnn reads version {VERSION}")
        if flags > CONSISTENT:
            raise DamagedError(f"its {scan.name} has unknown flags")
        levels, tables, model = scan.fixed(2) + 1, scan.take(TABLES), scan.take(MODEL)
        name = scan.take(scan.fixed(1)).decode(errors="replace")
        return cls(tables, model, name, bool(flags), levels)


class Shape(NamedTuple):
    """The shape of a picture.

    Attributes:
        channels: of the picture. A gray picture may be coded by a model of color, as equal channels.
        label: of its class; None for none.
        checksum: of its pixels.
    """

    channels: int
    height: int
    width: int
    label: int | None
    checksum: int

    def checked(self) -> Self:
        """Raise a `DamagedError` if no picture has this shape."""
        if self.channels not in (1, 3) or not 0 < self.height * self.width <= MOST_PIXELS:
            raise DamagedError(f"it claims {self.channels} channels of {self.width}x{self.height} pixels")
        return self


@dataclass(frozen=True)
class File:
    """The content of a compressed picture.

    Attributes:
        coding, shape: from its header.
        number: of views, the picture included; 0 if the picture is stored as PNG.
        views: the streams of the views, the simplest first; fewer than `number` if the file is cut off.
        png: the picture as PNG, if that is smaller.
        alpha: its transparency, as a gray PNG.
        profile, exif: its color profile (ICC) and its EXIF data.
        joint: whether it is from an archive, where one stream holds all views; then `number` is 1.
    """

    coding: Coding
    shape: Shape
    number: int
    views: list[bytes] = field(default_factory=list)
    png: bytes | None = None
    alpha: bytes | None = None
    profile: bytes | None = None
    exif: bytes | None = None
    joint: bool = False

    @property
    def missing(self) -> int:
        """The number of views that are missing from a file that was cut off."""
        return self.number - len(self.views)


def pixel_checksum(pixels: np.ndarray) -> int:
    """Compute the CRC-32 of pixels (H, W, C): in one byte for each sub-pixel, or two (the lower first) if not uint8."""
    return zlib.crc32(np.ascontiguousarray(pixels, "u1" if pixels.dtype == np.uint8 else "<u2").tobytes())


def write_file(file: File) -> bytes:
    """Write a compressed picture."""
    shape = file.shape
    label = 0 if shape.label is None else shape.label + 1
    numbers = pack([shape.channels, file.number, shape.height, shape.width, label])
    header = file.coding.to_bytes() + numbers + shape.checksum.to_bytes(CHECKSUM, "little")
    chunks = [(HEADER, header)]
    for name, kind in EXTRAS.items():
        if (extra := getattr(file, name)) is not None:
            chunks.append((kind, extra if name == "alpha" else deflate(extra)))
    chunks += [(VIEW, view) for view in file.views] if file.png is None else [(PNG, file.png)]
    return SIGNATURE + b"".join(write_chunk(kind, data) for kind, data in chunks)


def read_file(content: bytes | memoryview) -> File:
    """Read a compressed picture. If it is cut off after a whole view, it has the views up to there.

    Raises:
        DamagedError: if this is no compressed picture, or not as the format says.
    """
    scan = Scan(content, "file")
    if bytes(content[: len(SIGNATURE)]) != SIGNATURE:
        raise DamagedError("it is no compressed picture (.pxc), or its first bytes are damaged")
    scan.take(len(SIGNATURE))
    kind, data = scan.chunk()
    if kind != HEADER:
        raise DamagedError("it does not begin with a header")
    coding, shape, number = _read_header(data)
    extras: dict[str, bytes] = {}
    pixels: list[bytes] = []
    wanted, most = (VIEW, number) if number else (PNG, 1)
    names = {letter: name for name, letter in EXTRAS.items()}
    while len(pixels) < most:
        try:
            kind, data = scan.chunk()
        except CutError:
            if pixels:
                break
            raise CutError("it is cut off before the end of its first view") from None
        if kind == wanted:
            pixels.append(data)
        elif kind in names and names[kind] not in extras and not pixels:
            extras[names[kind]] = data if kind == EXTRAS["alpha"] else inflate(data, MOST_EXTRA, names[kind])
        elif not kind.islower():
            raise DamagedError(f"its chunk {kind.decode('latin-1')!r} is unknown: a later pixelcnn may read it")
    else:
        scan.end()
    views, png = (pixels, None) if number else ([], pixels[0])
    alpha, profile, exif = (extras.get(name) for name in EXTRAS)
    return File(coding, shape, number, views, png, alpha, profile, exif)


def view_ends(content: bytes) -> list[int]:
    """Return after how many bytes of a compressed picture each of its views is complete, the simplest first.

    Raises:
        DamagedError: if a chunk is damaged.
    """
    scan, ends = Scan(content, "file"), []
    scan.take(len(SIGNATURE))
    while scan.left:
        kind, _ = scan.chunk()
        if kind in (VIEW, PNG):
            ends.append(scan.at)
    return ends


def _read_header(data: bytes) -> tuple[Coding, Shape, int]:
    scan = Scan(data, "header")
    coding = Coding.take(scan)
    channels, number, height, width, label = (scan.packed() for _ in range(5))
    if number > MOST_VIEWS:
        raise DamagedError(f"it claims {number} views")
    shape = Shape(channels, height, width, label - 1 if label else None, scan.fixed(CHECKSUM))
    scan.end()
    return coding, shape.checked(), number
