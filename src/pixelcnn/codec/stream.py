"""Streams of coded outcomes, written and read by the range coder of `constriction`.

Reference: Bamler, Understanding entropy coding with asymmetric numeral systems (2022), and its library, constriction.
"""

__all__ = ["Reader", "Writer", "read_together"]

from collections.abc import Sequence
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from pixelcnn.codec.chunks import DamagedError
from pixelcnn.codec.frequencies import TOTAL, Array, Coded

WORD = 4  # bytes
DAMAGED = "its stream is damaged"


@cache
def _constriction() -> Any:
    """Import the coder, which is only needed to code, and is not there for every kind of machine."""
    try:
        from constriction import stream  # pyright: ignore[reportAttributeAccessIssue]  (compiled)
    except ImportError:
        raise ValueError(
            "compressed files need the package constriction, which is not installed: pip install constriction; where "
            "there is no wheel of it (Linux on ARM), build it from https://github.com/bamler-lab/constriction"
        ) from None
    return stream


@cache
def _family() -> Any:
    """Make a family of distributions, one for each row of frequencies f that add up to TOTAL.

    It is given f - 1, since it scales the sum of a row to what is left after one for each outcome, and then adds the
    ones.
    """
    return _constriction().model.Categorical(perfect=False)


class Writer:
    """A stream being written.

    Example:
        >>> import numpy as np
        >>> from pixelcnn.codec.frequencies import TOTAL, Coded
        >>> from pixelcnn.codec.stream import Reader, Writer
        >>> writer, half = Writer(), TOTAL // 2
        >>> writer.write(Coded(np.array([0, half]), np.array([half, half])))
        >>> Reader(writer.to_bytes()).read(np.array([[half, half], [half, half]]))
        array([0, 1], dtype=int32)
    """

    def __init__(self) -> None:
        self.encoder = _constriction().queue.RangeEncoder()

    def write(self, coded: Coded) -> None:
        """Write outcomes. Those with a frequency of zero are not coded."""
        below, frequency = (each[coded.frequency > 0].astype(np.float64) for each in coded)
        if not len(below):
            return
        # The coder sees three outcomes: those before, this one, and those after. If there are none before, or none
        # after, the others are split, which does not change how this one is coded.
        above = TOTAL - below - frequency
        rows, symbols = np.stack([below, frequency, above], 1), np.ones(len(below), np.int32)
        first, last = below == 0, above == 0
        rows[first] = np.stack([frequency[first], np.ones(first.sum()), above[first] - 1], 1)
        rows[last] = np.stack([np.ones(last.sum()), below[last] - 1, frequency[last]], 1)
        symbols[first], symbols[last] = 0, 2
        self.encoder.encode(symbols, _family(), rows - 1)

    def to_bytes(self) -> bytes:
        """Return the stream so far, without zeros at its end."""
        return self.encoder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")


class Reader:
    """A stream being read. Beyond its end there are zeros.

    A reader begins with the state of a range decoder that the compiled kernel knows how to use. The first plain read
    hands it over to constriction, whose state only constriction can read.
    """

    def __init__(self, stream: bytes) -> None:
        words = np.frombuffer(stream + bytes(-len(stream) % WORD), "<u4")
        self.words = words.astype(np.uint32)
        first, second = [*self.words[:2].tolist(), 0, 0][:2]
        # `struct stream` of `kernel/decode.h`: words, where the next one is, and the state of the decoder.
        begin = [self.words.ctypes.data, len(words), 2, 0, 2**64 - 1, first << 32 | second]
        self.state, self.plain = np.array(begin, np.uint64), False

    @cached_property
    def decoder(self) -> Any:
        """The range decoder of constriction, which goes on where the kernel stopped."""
        self.plain = True
        _, _, position, lower, size, _ = self.state.tolist()
        decoder = _constriction().queue.RangeDecoder(self.words[position - 2 :])
        decoder.seek(0, (lower, size))
        return decoder

    def read(self, frequencies: Array) -> Array:
        """Read outcomes (n,), given the frequencies of all of them, (n, width).

        Raises:
            DamagedError: if the stream cannot come from a `Writer`.
        """
        return read_together([self], [0, len(frequencies)], frequencies)


def read_together(readers: Sequence[Reader], ends: Sequence[int], frequencies: Array) -> Array:
    """Read outcomes (n,) from several streams, given the frequencies of all of them, (n, width).

    Args:
        readers: of the streams.
        ends: reader i gets the rows from `ends[i]` to `ends[i + 1]`.
        frequencies: whole numbers of at least one, which add up to TOTAL in each row.

    Raises:
        DamagedError: if a stream cannot come from a `Writer`.
    """
    rows, spans, family = frequencies - 1.0, pairwise(ends), _family()
    try:
        found = [reader.decoder.decode(family, rows[a:b]) for reader, (a, b) in zip(readers, spans, strict=True)]
    except AssertionError:
        raise DamagedError(DAMAGED) from None
    return found[0] if len(found) == 1 else np.concatenate(found)
