"""Numbers and chunks, which the files of the codec are made of.

A chunk is a letter, the length of its data, the data, and a CRC-32 of all of this. As in PNG, a small letter marks a
chunk that a reader may ignore.
"""

__all__ = ["CutError", "DamagedError", "Scan", "deflate", "inflate", "pack", "write_chunk"]

import zlib
from collections.abc import Sequence

CRC = 4  # bytes
LONGEST = 63  # bits of a number


class DamagedError(ValueError):
    """Bytes that are not as the format says."""


class CutError(DamagedError):
    """Bytes that end too early."""


def pack(numbers: Sequence[int]) -> bytes:
    """Write whole numbers in base 128, the lowest digits first. All digits but the last of a number have 128 added.

    Example:
        >>> from pixelcnn.codec.chunks import Scan, pack
        >>> pack([5, 300]).hex()
        '05ac02'
        >>> scan = Scan(pack([5, 300]), "example")
        >>> scan.packed(), scan.packed()
        (5, 300)
    """
    out = bytearray()
    for number in numbers:
        rest = number
        while rest >= 128:
            out.append(rest % 128 + 128)
            rest //= 128
        out.append(rest)
    return bytes(out)


def write_chunk(kind: bytes, data: bytes) -> bytes:
    """Write a chunk."""
    content = kind + pack([len(data)]) + data
    return content + zlib.crc32(content).to_bytes(CRC, "little")


def deflate(data: bytes) -> bytes:
    """Compress data as a zlib stream."""
    return zlib.compress(data, 9)


def inflate(data: bytes, most: int, name: str) -> bytes:
    """Undo `deflate`.

    Raises:
        DamagedError: if this is no zlib stream, or holds more than `most` bytes.
    """
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, most + 1)
    except zlib.error:
        raise DamagedError(f"its {name} cannot be unpacked") from None
    if len(content) > most:
        raise DamagedError(f"its {name} is larger than {most} bytes")
    if not stream.eof or stream.unused_data:
        raise DamagedError(f"its {name} is cut off, or something follows it")
    return content


class Scan:
    """Bytes that are read from the front.

    Args:
        content: the bytes.
        name: of what they are, for errors.
    """

    def __init__(self, content: bytes | memoryview, name: str) -> None:
        self.content, self.name, self.at = content, name, 0

    @property
    def left(self) -> int:
        """The number of bytes that are left."""
        return len(self.content) - self.at

    def take(self, number: int) -> bytes:
        """Take the next bytes; raise a `CutError` if there are fewer."""
        if number > self.left:
            raise CutError(f"its {self.name} ends too early")
        self.at += number
        return bytes(self.content[self.at - number : self.at])

    def fixed(self, size: int) -> int:
        """Take a number of `size` bytes, the lowest first."""
        return int.from_bytes(self.take(size), "little")

    def packed(self) -> int:
        """Take a number that `pack` wrote; raise a `DamagedError` unless it is written in the shortest way."""
        number = 0
        for shift in range(0, LONGEST, 7):
            byte = self.fixed(1)
            number += byte % 128 << shift
            if byte < 128:
                if byte or not shift:
                    return number
                break
        raise DamagedError(f"its {self.name} has a number that no writer makes")

    def chunk(self) -> tuple[bytes, bytes]:
        """Take a chunk: its letter and its data; raise a `DamagedError` if its CRC differs."""
        start = self.at
        try:
            kind, length = self.take(1), self.packed()
            data = self.take(length)
            content = self.content[start : self.at]
            crc = self.fixed(CRC)
        except CutError:
            self.at = start
            raise
        if crc != zlib.crc32(content):
            raise DamagedError(f"its chunk {kind.decode('latin-1')!r} at byte {start} is damaged")
        return kind, data

    def end(self) -> None:
        """Raise a `DamagedError` if bytes are left."""
        if self.left:
            raise DamagedError(f"{self.left} bytes follow its {self.name}")
