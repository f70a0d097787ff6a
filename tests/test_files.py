"""The bytes of compressed pictures and archives: what comes back is right, or it is an error of one line.

Law, whatever the bytes hold: a `ValueError` of one short line, or the smaller view where the file looks cut off; never
a wrong picture, no other exception, no hang, and nothing large is allocated.
"""

import io
import random
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

import pixelcnn
from pixelcnn import Downsample, ImageModel, PyramidPixelCNN, QuantizedGrayscale
from pixelcnn.codec.archive import SIGNATURE as ARCHIVE
from pixelcnn.codec.archive import Archive, Entry, write_archive
from pixelcnn.codec.chunks import CutError, DamagedError, Scan, deflate, inflate, pack, write_chunk
from pixelcnn.codec.container import (
    MOST_EXTRA,
    MOST_PIXELS,
    SIGNATURE,
    Coding,
    File,
    Shape,
    pixel_checksum,
    read_file,
    write_file,
)
from pixelcnn.data.decode import BrokenImageError
from pixelcnn.data.originals import Original, read_original
from pixelcnn.models.codec import Codec
from pixelcnn.models.decompression import Restorer, open_files
from pixelcnn.models.restored import Restored

SECONDS = 5.0  # in which bytes are refused, on a busy machine
MEMORY = 2**26  # bytes that this may take
LONGEST = 1_000
TINY: dict[str, Any] = {"filters": 3, "blocks": 1, "scales": 1, "embedding_blocks": 1, "embedding_scales": 1}
HOSTILE_NAMES = {
    "out of the folder": ["../x"],
    "out of the folder, later": ["a/../../x"],
    "absolute": ["/etc/x"],
    "a network": ["//host/x"],
    "another separator": ["a\\b"],
    "a drive": ["C:x"],
    "a device": ["con"],
    "a device with a suffix": ["b/Nul.png"],
    "a numbered device": ["com1.tar.gz"],
    "empty": [""],
    "an empty part": ["a//b"],
    "here": ["."],
    "ends with a dot": ["a./b"],
    "ends with a space": ["a "],
    "a line": ["a\nb"],
    "an escape": ["\x1b[2J"],
    "half a character": ["\udcff.png"],
    "long": ["x/" * 600 + "x"],
    "twice": ["a", "b", "a"],
    "a folder of another": ["a", "a/b"],
    "a folder of another, later": ["a/b/c", "x", "a/b"],
}


class Case(NamedTuple):
    """A model that has coded a picture, and its views."""

    model: ImageModel
    codec: Codec
    restorer: Restorer
    x: Tensor
    views: list[Tensor]


def noise(*shape: int, levels: int = 256, seed: int = 0) -> Tensor:
    return torch.randint(0, levels, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def make(scramble: Callable[..., Any]) -> Callable[..., Case]:
    """Make a case of a new model, whose weights are scrambled, and the shape of a picture of noise."""

    def made(new: Callable[[], ImageModel], *shape: int, consistent: bool = True) -> Case:
        torch.manual_seed(0)
        model = scramble(new()).float()
        model.consistent = consistent
        x = noise(*shape, levels=model.levels)
        views = model.config.chain.views(x.expand(model.formats[0][0], -1, -1)[None])
        return Case(model, Codec(model, "tiny"), Restorer(model), x, [view[0] for view in views])

    return made


@pytest.fixture(scope="module")
def case(make: Callable[..., Case]) -> Case:
    """Three views of 5x4 pixels, in color."""
    return make(lambda: PyramidPixelCNN(2, **TINY), 3, 5, 4)


@pytest.fixture(scope="module")
def gray(make: Callable[..., Case]) -> Case:
    """One view of 3x3 pixels."""
    return make(lambda: ImageModel(1, 256, **TINY), 1, 3, 3)


def png(x: Tensor, kind: str = "PNG") -> bytes:
    pixels, buffer = x.byte().permute(1, 2, 0).numpy(), io.BytesIO()
    Image.fromarray(pixels if len(x) == 3 else pixels[:, :, 0]).save(buffer, kind)
    return buffer.getvalue()


def as_views(case: Case, x: Tensor | None = None) -> File:
    """Code a picture of noise with the model, although PNG may be smaller."""
    x = case.x if x is None else x
    channels = case.codec.chain.formats[0][0]
    (streams,) = case.codec.encode(x.expand(channels, -1, -1)[None])
    kind = torch.uint8 if case.codec.coding.levels <= 256 else torch.int32
    checksum = pixel_checksum(x.to(kind).permute(1, 2, 0).numpy())
    return File(case.codec.coding, Shape(len(x), x.shape[1], x.shape[2], None, checksum), len(streams), streams)


def _stored(case: Case, x: Tensor, picture: bytes | None = None) -> bytes:
    """Store a picture as PNG, or as other bytes."""
    return write_file(replace(as_views(case, x), number=0, views=[], png=png(x) if picture is None else picture))


def as_archive(case: Case, xs: Tensor) -> bytes:
    """Code pictures (B, C, H, W) as an archive of streams, although PNG may be smaller."""
    contents = [streams[0] for streams in case.codec.encode(xs, joint=True)]
    shapes = [as_views(case, x).shape for x in xs]
    entries = [
        Entry(f"{i}.png", False, shape, len(each)) for i, (shape, each) in enumerate(zip(shapes, contents, strict=True))
    ]
    return write_archive(case.codec.coding, entries, contents)


def _original(found: object) -> Original:
    assert isinstance(found, Restored), found
    return found.original


def _pixels(found: object) -> Tensor:
    return _original(found).x


def check_error(error: object, name: str = "") -> None:
    assert type(error) in (ValueError, DamagedError, CutError, BrokenImageError), repr(error)
    assert name in str(error)
    assert "\n" not in str(error)
    assert 0 < len(str(error)) < LONGEST


def refused(read: Callable[[], object], match: str) -> None:
    """Check that something is refused at once, by one line."""
    start = time.perf_counter()
    with pytest.raises(ValueError, match=match) as raised:
        read()
    assert time.perf_counter() - start < SECONDS
    check_error(raised.value)


def refused_in_little_memory(read: Callable[[], object], match: str) -> None:
    tracemalloc.start()
    try:
        refused(read, match)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


def restore(case: Case, contents: Sequence[bytes], view: int | None = 0) -> list[list[Restored | ValueError]]:
    """Restore the pictures of each content, all of them together; an error of the whole content is its only one."""
    opened: list[list[File | ValueError]] = []
    for content in contents:
        try:
            opened.append([_open(content, i) for i in range(_number(content))])
        except ValueError as error:
            opened.append([error])
    restored = iter(case.restorer.restore([file for each in opened for file in each if isinstance(file, File)], view))
    return [[next(restored) if isinstance(file, File) else file for file in each] for each in opened]


def _number(content: bytes) -> int:
    return len(Archive(content).entries) if content.startswith(ARCHIVE) else 1


def _open(content: bytes, i: int) -> File | ValueError:
    try:
        return Archive(content).open(i) if content.startswith(ARCHIVE) else read_file(content)
    except ValueError as error:
        return error


def flips(content: bytes) -> list[bytes]:
    """Flip each bit."""
    number = int.from_bytes(content, "little")
    return [(number ^ 1 << i).to_bytes(len(content), "little") for i in range(8 * len(content))]


def chunks(content: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield the kind, the data and the end of each chunk."""
    scan = Scan(content, "file")
    scan.take(len(SIGNATURE))
    while scan.left:
        yield (*scan.chunk(), scan.at)


def rewritten(content: bytes, change: Callable[[bytes, bytes], bytes]) -> bytes:
    """Change the data of chunks, and write them with the right CRC."""
    parts = [write_chunk(kind, change(kind, data)) for kind, data, _ in chunks(content)]
    return content[: len(SIGNATURE)] + b"".join(parts)


def with_header(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    return rewritten(content, lambda kind, data: change(data) if kind == b"H" else data)


# Damage


def test_every_flipped_bit_of_a_picture(case: Case) -> None:
    """Law: an error, or a smaller view with the right pixels if the flipped length makes the file look cut off."""
    alpha = png(noise(1, 5, 4))
    whole = write_file(replace(as_views(case), alpha=alpha, profile=b"colors", exif=b"turned"))
    assert torch.equal(_pixels(restore(case, [whole])[0][0]), case.x)
    results = [each for (each,) in restore(case, flips(whole))]
    assert len(results) == 8 * len(whole)
    smaller = [each for each in results if isinstance(each, Restored)]
    assert {each.view for each in smaller} <= {1, 2}
    assert smaller
    for each in results:
        if isinstance(each, Restored):
            assert torch.equal(each.original.x, case.views[each.view])
        else:
            check_error(each)


def test_every_flipped_bit_of_a_picture_that_is_stored_as_png(case: Case) -> None:
    """Law: an error."""
    content = _stored(case, case.x)
    assert torch.equal(_pixels(restore(case, [content])[0][0]), case.x)
    for (each,) in restore(case, flips(content)):
        check_error(each)


def test_every_prefix_of_a_picture(case: Case) -> None:
    """Law: a prefix shows the last view that it holds whole, with the right pixels; without one it is an error."""
    whole = write_file(replace(as_views(case), profile=b"colors"))
    ends = [end for kind, _, end in chunks(whole) if kind == b"V"]
    assert ends[-1] == len(whole)
    results = restore(case, [whole[:n] for n in range(len(whole) + 1)])
    for n, (each,) in enumerate(results):
        missing = sum(n < end for end in ends)
        if missing == len(ends):
            check_error(each)
        else:
            assert isinstance(each, Restored)
            assert each.view == missing
            assert torch.equal(each.original.x, case.views[missing])
            assert each.original.profile == b"colors"


@pytest.mark.parametrize("view", [0, None])
def test_every_flipped_bit_of_an_archive(case: Case, gray: Case, view: int | None) -> None:
    """Law: each picture is right or an error, also if only a smaller view is asked for."""
    several, xs = (gray, noise(3, 1, 3, 3)) if view == 0 else (case, noise(2, 3, 2, 3))
    views = several.codec.chain.views(xs)[-1 if view is None else view]
    content = as_archive(several, xs)
    results = restore(several, flips(content), view)
    right = wrong = 0
    for each in results:
        for i, result in enumerate(each):
            if isinstance(result, Restored):
                assert torch.equal(result.original.x, views[i])
                right += 1
            else:
                check_error(result)
                wrong += 1
    assert right > 0  # the bits of one stream do not matter to the other
    assert wrong > 8 * (len(content) - sum(entry.length for entry in Archive(content).entries))


def test_every_prefix_of_an_archive(gray: Case) -> None:
    """Law: without its end, the pictures that are whole can be read, and the others are errors."""
    xs = noise(3, 1, 3, 3)
    content = as_archive(gray, xs)
    lengths = [entry.length for entry in Archive(content).entries]
    start = len(content) - sum(lengths)
    for n, results in enumerate(restore(gray, [content[:n] for n in range(len(content) + 1)])):
        if n < start:
            (error,) = results
            check_error(error)
            continue
        for i, each in enumerate(results):
            if n < start + sum(lengths[: i + 1]):
                check_error(each)
            else:
                assert torch.equal(_pixels(each), xs[i])


@given(st.binary(max_size=200), st.sampled_from([b"", SIGNATURE, ARCHIVE]), st.booleans())
def test_random_bytes(content: bytes, signature: bytes, framed: bool) -> None:
    """Law: an error, also after the right signature and as the header of a right chunk."""
    content = signature + (write_chunk(b"H", content) if framed else content)
    with pytest.raises(ValueError, match="it") as raised:
        open_files(content)
    check_error(raised.value)


def test_joined_files(case: Case, gray: Case) -> None:
    """Law: two files in one are an error."""
    files = [
        write_file(as_views(case)),
        case.codec.compress([Original(case.x.byte())])[0],
        as_archive(gray, noise(2, 1, 3, 3)),
    ]
    for first in files:
        for second in (*files, b"\0", b"\n"):
            refused(lambda joined=first + second: open_files(joined), "bytes follow")


# Files from strangers, with right CRCs


def test_unknown_chunks(case: Case) -> None:
    """Law: a capital letter is refused, and a small one skipped, at every place between the chunks; so in archives."""
    whole, xs = write_file(as_views(case)), noise(2, 3, 3, 3)
    archive = as_archive(case, xs)
    for kind in (b"X", b"H", b"P", b"N", b"1", b"\xe4"):
        new = write_chunk(kind, b"data")
        for *_, end in list(chunks(whole))[:-1]:
            refused(lambda mixed=whole[:end] + new + whole[end:]: read_file(mixed), "unknown")
        if kind not in b"HN":
            refused(lambda mixed=archive[:8] + new + archive[8:]: Archive(mixed), "unknown")
    new = write_chunk(b"x", bytes(300)) + write_chunk(b"v", b"")
    mixed = [whole[:end] + new + whole[end:] for *_, end in list(chunks(whole))[:-1]]
    for (each,) in restore(case, mixed):
        assert torch.equal(_pixels(each), case.x)
    (found,) = restore(case, [archive[:8] + new + archive[8:]])
    assert [torch.equal(_pixels(each), x) for each, x in zip(found, xs, strict=True)] == [True, True]


def test_a_chunk_comes_once_and_in_its_place(case: Case) -> None:
    """Law: a second transparency, or one after a view, is refused; so is a file of chunks without a header."""
    whole, alpha = write_file(as_views(case)), write_chunk(b"A", png(noise(1, 5, 4)))
    (_, _, header), (_, _, first), *_ = chunks(whole)
    refused(lambda: read_file(whole[:header] + 2 * alpha + whole[header:]), "unknown")
    refused(lambda: read_file(whole[:first] + alpha + whole[first:]), "unknown")
    refused(lambda: read_file(SIGNATURE + whole[header:]), "does not begin with a header")


def test_another_version_other_tables_other_models(case: Case, gray: Case) -> None:
    """Law: each is refused by its name; the name of the model in the file does not matter."""
    whole = write_file(as_views(case))
    refused(lambda: read_file(with_header(whole, lambda data: b"\x02" + data[1:])), "version 2")
    refused(lambda: read_file(with_header(whole, lambda data: data[:1] + b"\x02" + data[2:])), "flags")
    changed = {
        "other tables": with_header(whole, lambda data: data[:4] + b"\0\0\0\0" + data[8:]),
        "with the model 'tiny'": with_header(whole, lambda data: data[:8] + bytes(8) + data[16:]),
        "256": with_header(whole, lambda data: data[:2] + b"\x0f\0" + data[4:]),
    }
    for message, content in changed.items():
        refused(lambda content=content: pixelcnn.decompress(content, case.model), message)
    refused(lambda: pixelcnn.decompress(whole, gray.model), "pass that model")
    refused(lambda: pixelcnn.decompress(whole), "not among the shipped models")
    renamed = with_header(whole, lambda data: data.replace(b"\x04tiny", b"\x06\xff\x1b[2J\n"))
    assert torch.equal(_pixels(restore(case, [renamed])[0][0]), case.x)
    assert np.array_equal(pixelcnn.decompress(renamed, case.model), case.x.permute(1, 2, 0))


def test_models_are_looked_for_once(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a thousand files of a model that is not there are refused as fast as one; PNG needs no model."""
    calls = []
    monkeypatch.setattr("pixelcnn.models.decompression.list_models", lambda: calls.append(0) or [])
    restorer, file = Restorer(), as_views(case)
    for found in restorer.restore([file] * 1000):
        check_error(found)
    assert [restorer.pixels(each) for each in [file] * 10] == [0] * 10
    assert len(calls) == 1
    other, stored = Restorer(), read_file(_stored(case, case.x))
    assert other.pixels(stored) == 0
    assert torch.equal(_pixels(other.restore([stored])[0]), case.x)
    assert len(calls) == 1


def _claim(case: Case, *numbers: int) -> bytes:
    """Write a picture whose header has other numbers: channels, views, height, width, label."""
    head = case.codec.coding.to_bytes()
    return with_header(write_file(as_views(case)), lambda data: head + pack(numbers) + data[-4:])


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((3, 3, 2**20, 2**20, 0), "claims"),
        ((3, 3, 2**26 + 1, 1, 0), "claims"),
        ((3, 3, 2**62, 2**62, 0), "claims"),
        ((3, 3, 0, 4, 0), "claims"),
        ((2, 3, 5, 4, 0), "claims 2 channels"),
        ((4, 3, 5, 4, 0), "claims 4 channels"),
        ((3, 2**40, 5, 4, 0), "views"),
        ((3, 18, 5, 4, 0), "views"),
    ],
)
def test_claims_of_a_picture(case: Case, numbers: tuple[int, ...], message: str) -> None:
    """Law: what no picture can be is refused when the header is read."""
    refused_in_little_memory(lambda: read_file(_claim(case, *numbers)), message)


def bomb(megabytes: int) -> bytes:
    """Write a zlib stream of zeros, a thousandth of their size."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x78\xda" + megabytes * block + b"\x03\0\0\0\0\0"


def _archive(coding: Coding, number: int, names: bytes, index: bytes) -> bytes:
    parts = ((b"H", coding.to_bytes() + pack([number])), (b"N", names), (b"I", index))
    return ARCHIVE + b"".join(write_chunk(kind, data) for kind, data in parts)


def test_bombs(case: Case) -> None:
    """Law: a gigabyte in a megabyte is refused, and never unpacked whole."""
    whole, large = write_file(as_views(case)), bomb(1024)
    assert len(large) < 2**21
    (*_, header), *_ = chunks(whole)
    for kind in (b"i", b"e"):
        refused_in_little_memory(
            lambda kind=kind: read_file(whole[:header] + write_chunk(kind, large) + whole[header:]), "larger than"
        )
    names = deflate(b"\0".join(b"%d" % i for i in range(1000)))
    for content in (
        _archive(case.codec.coding, 10**9, large, large),
        _archive(case.codec.coding, 2**62, names, large),
        _archive(case.codec.coding, 1000, large, large),
        _archive(case.codec.coding, 1000, names, large),
        _archive(case.codec.coding, 0, large, large),
    ):
        refused_in_little_memory(lambda content=content: Archive(content), "larger than|claims")


def test_ten_million_pictures_are_not_believed(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: the names and the index of any number of pictures have a limit of their own."""
    monkeypatch.setattr("pixelcnn.codec.archive.MOST_LISTED", 2**20)
    refused_in_little_memory(lambda: Archive(_archive(case.codec.coding, 10**7, bomb(64), b"")), "larger than 1048576")
    nothing = deflate(bytes(2**20))
    refused_in_little_memory(lambda: Archive(_archive(case.codec.coding, 10**7, nothing, nothing)), "1048577 names")


@pytest.mark.parametrize("size", [0, 1, 1000, MOST_EXTRA - 1, MOST_EXTRA])
def test_extras_up_to_the_limit_come_back(case: Case, size: int) -> None:
    """Law: what is written can be read, and one byte more is refused."""
    profile = bytes(size)
    assert read_file(write_file(replace(as_views(case), profile=profile))).profile == profile
    assert inflate(deflate(profile), size, "profile") == profile
    if size:
        refused(lambda: inflate(deflate(profile), size - 1, "profile"), "larger than")


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names(case: Case, name: str) -> None:
    """Law: refused at reading and at writing."""
    names = HOSTILE_NAMES[name]
    small = Original(torch.zeros(3, 2, 2, dtype=torch.uint8))
    refused(lambda: case.codec.archive([small] * len(names), names), "name")
    entries = [Entry(each, False, Shape(3, 2, 2, None, 0), 0) for each in names]
    refused(lambda: write_archive(case.codec.coding, entries, [b""] * len(names)), "name")
    listed = "\0".join(names).encode(errors="surrogateescape")
    index = b"".join(pack([each] * len(names)) for each in (0, 3, 2, 2, 0, 0)) + bytes(4 * len(names))
    content = _archive(case.codec.coding, len(names), deflate(listed), deflate(index))
    refused(lambda: Archive(content), "name")


def test_plain_names(case: Case) -> None:
    """Law: names that only look like hostile ones come back, in order; a zero byte would make two of one."""
    names = ["a.b", "..a", "a/b", "a/b.c", "ab", "console.png", "com10", "\u00e9.png", "x/" * 500 + "x", "a b", "-"]
    (stream,) = case.codec.encode(noise(1, 3, 1, 1), joint=True)[0]
    entries = [Entry(each, False, Shape(3, 1, 1, None, i), len(stream)) for i, each in enumerate(names)]
    assert Archive(write_archive(case.codec.coding, entries, [stream] * len(names))).entries == entries
    refused(lambda: case.codec.archive([Original(noise(3, 1, 1).byte())], ["a\0b"]), "name")


def test_one_stream_is_for_archives(case: Case) -> None:
    """Law: a file has a stream for each view; one stream for all of them, as in an archive, is refused."""
    whole, x = as_views(case), noise(3, 5, 4)
    (streams,) = case.codec.encode(x[None], joint=True)
    refused(
        lambda: pixelcnn.decompress(write_file(replace(whole, number=1, views=streams)), case.model), "claims 1 views"
    )


def test_streams_of_strangers(case: Case, gray: Case) -> None:
    """Law: random streams with right CRCs are errors, since pixels have a checksum; so are the streams of others."""
    chance, whole, other = random.Random(0), as_views(case), as_views(case, noise(3, 5, 4, seed=1))
    files = [
        replace(whole, views=[chance.randbytes(chance.choice([0, 1, 7, 50, 200])) for _ in range(3)]) for _ in range(40)
    ]
    files += [replace(whole, views=[b"\xff" * 100] * 3), replace(whole, views=other.views)]
    files += [replace(whole, views=[*whole.views[:2], other.views[2]])]
    for found in case.restorer.restore([read_file(write_file(file)) for file in files]):
        check_error(found)
    content = as_archive(gray, noise(2, 1, 3, 3))
    start = len(content) - sum(entry.length for entry in Archive(content).entries)
    strangers = [content[:start] + chance.randbytes(len(content) - start) for _ in range(20)]
    for each in restore(gray, strangers):
        assert len(each) == 2
        for found in each:
            check_error(found)


def test_every_flipped_bit_of_a_header_with_the_right_crc(case: Case) -> None:
    """Law: an error, or the right pixels; the name of the model is the only thing that may differ."""
    whole = write_file(as_views(case))
    (_, header, _), *_ = chunks(whole)
    names = case.codec.coding.to_bytes().find(b"tiny")
    changed = [with_header(whole, lambda data, each=each: each) for each in flips(header)]
    hints = range(8 * names, 8 * (names + 4))
    small = [i for i, each in enumerate(changed) if _area(each) <= 100]
    assert len(small) > len(changed) / 2
    for i, (found,) in zip(small, restore(case, [changed[i] for i in small]), strict=True):
        if i in hints:
            assert torch.equal(_pixels(found), case.x)
        else:
            check_error(found)


def _area(content: bytes) -> int:
    try:
        shape = read_file(content).shape
    except ValueError:
        return 0
    return shape.height * shape.width


def test_headers_that_do_not_fit_the_model(case: Case, gray: Case, make: Callable[..., Case]) -> None:
    """Law: other channels, views and classes than those of the model are errors, and harm no other file."""
    two = make(lambda: ImageModel(1, 256, [Downsample(2)], **TINY), 1, 3, 3)
    classes = make(lambda: ImageModel(1, 256, classes=2, **TINY), 1, 3, 3)
    good = as_views(case)
    for number in (2, 4, 17):
        for views in (good.views, good.views[:1], [*good.views, *good.views][:number]):
            files = [good, replace(good, number=number, views=views), good]
            for view in (0, 1, None):
                first, bad, last = case.restorer.restore(files, view)
                check_error(bad)
                expected = case.views[-1 if view is None else view]
                assert torch.equal(_pixels(first), expected)
                assert torch.equal(_pixels(last), expected)
    for other in (gray, two, classes):
        file = as_views(other) if other is not classes else File(gray.codec.coding, Shape(1, 3, 3, 0, 0), 1, [b""])
        for shape in (file.shape._replace(channels=3), file.shape._replace(label=7), file.shape._replace(label=2**62)):
            for view in (0, None):
                (bad,) = other.codec.restore([replace(file, shape=shape)], view)
                check_error(bad)
    stored = File(two.codec.coding, Shape(3, 2, 2, None, 0), 0, [], png(noise(3, 2, 2)))
    check_error(two.codec.restore([stored], 1)[0])
    refused(lambda: gray.codec.compress([Original(noise(3, 2, 2).byte())]), "of color")


def test_labels_of_files(make: Callable[..., Case]) -> None:
    """Law: a picture comes back with its label only; a file of another label, or of none, harms no other file."""
    case = make(lambda: PyramidPixelCNN(1, channels=1, classes=3, **TINY), 1, 4, 3)
    xs = noise(3, 1, 4, 3).byte()
    files = [read_file(each) for each in case.codec.compress([Original(x) for x in xs], [0, 1, 2])]
    assert [file.shape.label for file in files] == [0, 1, 2]
    forced = []
    for i, x in enumerate(xs):
        (streams,) = case.codec.encode(x[None], torch.tensor([i]))
        shape = Shape(1, 4, 3, i, pixel_checksum(x.permute(1, 2, 0).numpy()))
        forced.append(File(case.codec.coding, shape, 2, streams))
    for found, x in zip(case.restorer.restore(forced), xs, strict=True):
        assert torch.equal(_pixels(found), x)
    for label in (None, 0, 3, 2**62):
        bad = replace(forced[1], shape=forced[1].shape._replace(label=label))
        first, error, last = case.restorer.restore([forced[0], bad, forced[2]])
        check_error(error)
        assert torch.equal(_pixels(first), xs[0])
        assert torch.equal(_pixels(last), xs[2])
    archive = case.codec.archive([Original(x) for x in xs], ["a", "b", "c"], [2, 1, 0])
    assert [entry.shape.label for entry in Archive(archive).entries] == [2, 1, 0]
    assert [
        np.array_equal(each, x[0]) for each, x in zip(pixelcnn.decompress(archive, case.model), xs, strict=True)
    ] == [True] * 3
    for labels in ([3, 0, 0], [0], None, [-1, 0, 0]):
        refused(lambda labels=labels: case.codec.compress([Original(x) for x in xs], labels), "labels")


def test_transparency_and_png_of_strangers(case: Case, gray: Case) -> None:
    """Law: a transparency of another size or kind is an error; so is a PNG that is not what the header says."""
    good, alpha = as_views(case), png(noise(1, 5, 4))
    assert _original(restore(case, [write_file(replace(good, alpha=alpha))])[0][0]).alpha == alpha
    for bad in (b"", b"x", alpha[:-30], png(noise(1, 4, 5)), png(noise(3, 5, 4)), png(noise(1, 5, 4), "GIF")):
        ((found,),) = restore(case, [write_file(replace(good, alpha=bad))])
        check_error(found)
    assert torch.equal(_pixels(restore(case, [_stored(case, case.x)])[0][0]), case.x)
    turned = case.x.permute(0, 2, 1)
    gray_, another = case.x[:1], noise(3, 5, 4, seed=1)
    for picture in (b"x", png(case.x)[:-40], png(turned), png(gray_), png(another), png(case.x, "BMP"), b""):
        ((found,),) = restore(case, [_stored(case, case.x, picture)])
        check_error(found)
    ((found,),) = restore(case, [_stored(case, gray_, png(case.x))])
    check_error(found)
    other = File(case.codec.coding._replace(levels=16), good.shape, 0, [], png(case.x))
    check_error(case.restorer.restore([other])[0])


def test_a_gray_picture_of_colors_is_an_error(case: Case) -> None:
    """Law: a file that claims to be gray, with views of color, is an error at every view."""
    file = as_views(case)
    for view in (0, 1, 2):
        (found,) = case.restorer.restore([replace(file, shape=file.shape._replace(channels=1))], view)
        check_error(found)


def test_a_picture_in_an_archive_is_that_of_the_index(case: Case) -> None:
    """Law: pictures that change places in an archive are errors, whole files too."""
    xs = [noise(3, 2, 2, seed=seed).byte() for seed in range(2)]
    content = case.codec.archive([Original(x, exif=b"e") for x in xs], ["a", "b"])
    (one, two), end = Archive(content).entries, len(content)
    assert one.whole
    assert two.whole
    assert one.length == two.length
    swapped = (
        content[: end - 2 * one.length] + content[end - one.length :] + content[end - 2 * one.length : end - one.length]
    )
    for found in restore(case, [swapped])[0]:
        check_error(found)
    for found, x in zip(restore(case, [content])[0], xs, strict=True):
        assert torch.equal(_pixels(found), x)


def test_pictures_of_strangers() -> None:
    """Law: a picture that was cut or changed anywhere is read, or refused in one line, whatever Pillow raises."""
    chance, read = random.Random(0), 0
    pictures = [Image.fromarray(noise(8, 9, 3, seed=seed).byte().numpy()) for seed in range(2)]
    for kind in ("GIF", "PNG", "TIFF", "WEBP", "BMP", "JPEG", "JPEG2000", "PPM"):
        first, second = (each.quantize(4) if kind == "GIF" else each for each in pictures)
        more: dict[str, Any] = {"save_all": True, "append_images": [second]} if kind in ("GIF", "PNG", "TIFF") else {}
        buffer = io.BytesIO()
        first.save(buffer, kind, **more)
        content = buffer.getvalue()
        changed = [content[: chance.randrange(len(content))] for _ in range(30)]
        for _ in range(30):
            place = chance.randrange(len(content))
            changed.append(content[:place] + chance.randbytes(1) + content[place + 1 :])
        for each in changed:
            try:
                original = read_original(each, "'x'")
            except ValueError as error:
                check_error(error, "'x'")
            else:
                assert original.to_png()
                read += 1
    assert read > 0


# Round trips


SHAPES = st.builds(
    Shape,
    st.sampled_from([1, 3]),
    st.integers(1, 2**13),
    st.integers(1, 2**13),
    st.none() | st.integers(0, 2**62),
    st.integers(0, 2**32 - 1),
)
CODINGS = st.builds(
    Coding,
    st.binary(min_size=4, max_size=4),
    st.binary(min_size=8, max_size=8),
    st.text(max_size=60),
    st.booleans(),
    st.integers(2, 2**16),
)
EXTRA = st.none() | st.binary(max_size=300)


@given(CODINGS, SHAPES, st.lists(st.binary(max_size=300), max_size=17), EXTRA, EXTRA, EXTRA, st.binary(max_size=50))
def test_files_come_back(
    coding: Coding, shape: Shape, views: list[bytes], alpha: Any, profile: Any, exif: Any, stored: bytes
) -> None:
    """Law: every picture that can be written is read as it was, and each of its parts is where it was."""
    file = File(coding, shape, len(views), views, None if views else stored, alpha, profile, exif)
    assert read_file(write_file(file)) == file
    assert read_file(memoryview(write_file(file))) == file


@given(CODINGS, st.lists(st.tuples(SHAPES, st.binary(max_size=200), st.booleans()), max_size=20))
def test_archives_come_back(coding: Coding, pictures: list[tuple[Shape, bytes, bool]]) -> None:
    """Law: every picture of an archive, a stream or a whole file, is read as it was, alone and in any order."""
    files = [File(coding, shape, 1, [stream], joint=not whole) for shape, stream, whole in pictures]
    contents = [write_file(file) if whole else file.views[0] for file, (*_, whole) in zip(files, pictures, strict=True)]
    entries = [
        Entry(f"{i}/x{'x' * i}", whole, shape, len(content))
        for i, ((shape, _, whole), content) in enumerate(zip(pictures, contents, strict=True))
    ]
    archive = Archive(write_archive(coding, entries, contents))
    assert (archive.coding, archive.entries) == (coding, entries)
    assert [archive.open(i) for i in reversed(range(len(files)))] == files[::-1]


@given(st.lists(st.integers(0, 2**63 - 1), max_size=5))
def test_numbers_come_back_and_have_one_form(numbers: list[int]) -> None:
    """Law: numbers below 2^63 are read as they were; a longer form, or a larger number, is refused."""
    content = pack(numbers)
    scan = Scan(content, "test")
    assert [scan.packed() for _ in numbers] == numbers
    scan.end()
    for bad in (b"\x85\0", b"\x80\x80\0", pack([2**63]), b"\xff" * 20):
        with pytest.raises(DamagedError):
            Scan(bad, "test").packed()


def test_long_names_of_models_are_cut_between_characters(case: Case) -> None:
    """Law: any name of a model can be written and read; it is cut to 255 bytes of whole characters."""
    for name, expected in (("\u00e9" * 200, "\u00e9" * 127), ("x" * 300, "x" * 255), ("a\udcff", "a?")):
        coding = case.codec.coding._replace(name=name)
        assert Coding.take(Scan(coding.to_bytes(), "test")).name == expected


def _one(channels: int = 3, levels: int = 256, **options: Any) -> Callable[[], ImageModel]:
    return lambda: ImageModel(channels, levels, **{**TINY, **options})


def _chain(*auxiliaries: Any, channels: int = 3, levels: int = 256, **options: Any) -> Callable[[], ImageModel]:
    return lambda: ImageModel(channels, levels, list(auxiliaries), **{**TINY, **options})


MODELS = {
    "color": (_one(), (3, 4, 5), True),
    "gray": (_one(1), (1, 4, 5), True),
    "gray by a model of color": (_one(), (1, 4, 5), True),
    "pyramid": (_chain(Downsample(2), Downsample(2)), (3, 3, 5), True),
    "free pyramid": (_chain(Downsample(2)), (3, 5, 4), False),
    "gray pyramid by a model of color": (_chain(Downsample(2)), (1, 3, 5), True),
    "three times smaller": (_chain(Downsample(3)), (3, 4, 2), True),
    "three times smaller, free": (_chain(Downsample(3)), (3, 2, 4), False),
    "gray view": (_chain(QuantizedGrayscale(4)), (3, 4, 5), True),
    "free gray view": (_chain(QuantizedGrayscale(4)), (3, 4, 5), False),
    "gray view of gray": (_chain(QuantizedGrayscale(2), channels=1), (1, 4, 5), True),
    "both": (_chain(Downsample(2), QuantizedGrayscale(3)), (3, 3, 4), True),
    "three scales": (_one(scales=3), (3, 5, 4), True),
    "three scales in a chain": (_chain(Downsample(2), scales=(2, 3), embedding_scales=2), (3, 4, 5), True),
    "2 levels": (_one(1, 2), (1, 5, 6), True),
    "2 levels of color": (_one(3, 2), (3, 5, 6), True),
    "5 levels": (_chain(Downsample(2), channels=1, levels=5), (1, 5, 6), True),
    "16 levels": (_chain(QuantizedGrayscale(2), levels=16), (3, 5, 6), True),
    "1000 levels": (_chain(Downsample(2), levels=1000), (3, 3, 4), True),
    "1000 levels, gray view": (_chain(QuantizedGrayscale(4), levels=1000), (3, 3, 4), True),
    "65536 levels": (_one(1, 2**16), (1, 2, 3), True),
    "one pixel": (_chain(Downsample(2), Downsample(2)), (3, 1, 1), True),
    "one row": (_chain(Downsample(2)), (3, 1, 9), True),
    "one column": (_chain(Downsample(3)), (3, 11, 1), True),
}


@pytest.fixture(scope="module")
def named(make: Callable[..., Case]) -> Callable[[str], Case]:
    """Make the case of a model in MODELS, once."""

    @cache
    def made(name: str) -> Case:
        model, shape, consistent = MODELS[name]
        return make(model, *shape, consistent=consistent)

    return made


@pytest.mark.parametrize("name", MODELS)
def test_random_streams_for_every_model(named: Callable[[str], Case], name: str) -> None:
    """Law: a stream from a stranger is an error for every kind of view, or decodes to the right pixels."""
    case, chance = named(name), random.Random(0)
    good = as_views(case)
    files = []
    for k in range(good.number):  # those before are right
        for stream in (b"", b"\xff" * 200, *(chance.randbytes(40) for _ in range(2)), good.views[k][1:]):
            files.append(replace(good, views=[*good.views[:k], stream, *good.views[k + 1 :]]))
    wrong = 0
    for found in case.restorer.restore(files):
        if isinstance(found, Restored):
            assert torch.equal(found.original.x.to(torch.int64), case.x)
        else:
            check_error(found)
            wrong += 1
    assert wrong > 0


@pytest.mark.parametrize("name", MODELS)
def test_pictures_come_back(named: Callable[[str], Case], name: str) -> None:
    """Law: noise, flat pictures and the extremes come back whole, at every view, alone and in an archive."""
    case = named(name)
    size = case.x.shape[1], case.x.shape[2]
    levels, channels = case.codec.coding.levels, case.codec.chain.formats[0][0]
    xs = torch.stack([case.x, torch.zeros_like(case.x), torch.full_like(case.x, levels - 1), case.x.flip(1, 2)])
    xs[3, :, :, ::2] = levels // 2
    views = case.codec.chain.views(xs.expand(-1, channels, -1, -1))
    separate, joint = case.codec.encode(views[0]), case.codec.encode(views[0], joint=True)
    assert {len(each) for each in separate} == {len(views)}
    assert {len(each) for each in joint} == {1}
    assert torch.equal(case.codec.decode(joint, size).to(torch.int64), views[0])
    for view, expected in enumerate(views):
        assert torch.equal(case.codec.decode(separate, size, view=view).to(torch.int64), expected)
        if channels == len(case.x) or len(expected[0]) == 1:
            (found,) = case.restorer.restore([as_views(case)], view)
            levels_ = case.codec.chain.formats[view][1]
            shown = (case.views[view] * 255 / (levels_ - 1)).round() if levels == 256 else case.views[view]
            assert torch.equal(_pixels(found).to(torch.int64), shown.to(torch.int64))
    kind = torch.uint8 if levels <= 256 else torch.int32
    originals = [Original(x.to(kind)) for x in xs]
    for (found,), x in zip(restore(case, case.codec.compress(originals)), xs, strict=True):
        assert torch.equal(_pixels(found).to(torch.int64), x)
    names = [f"{i}" for i in range(len(xs))]
    (found,) = restore(case, [case.codec.archive(originals, names)])
    assert [torch.equal(_pixels(each).to(torch.int64), x) for each, x in zip(found, xs, strict=True)] == [True] * 4


@pytest.mark.parametrize("levels", [2, 5, 256, 1000])
def test_tensors_and_arrays_come_back_in_python(make: Callable[..., Case], levels: int) -> None:
    """Law: `decompress` undoes `compress`: pictures for 256 levels, and otherwise tensors, of any mixture of sizes."""
    case = make(lambda: ImageModel(1, levels, **TINY), 1, 3, 2)
    model = case.model
    x = case.x
    one = pixelcnn.decompress(pixelcnn.compress(model, x), model)
    assert np.array_equal(one, x[0] if levels == 256 else x)
    given = [x, noise(1, 2, 2, levels=levels).to(torch.int16), x.numpy().transpose(1, 2, 0), x.to(torch.int32)]
    found = pixelcnn.decompress(model.compress(given), model)
    expected = [x, given[1], x, x]
    for each, right in zip(found, expected, strict=True):
        assert np.array_equal(each, right[0] if levels == 256 else right)


def test_a_batch_is_an_archive(gray: Case) -> None:
    """Law: pictures of several sizes in one archive come back in their order, with the names they were given."""
    model = gray.model
    xs = [noise(1, 1 + i % 3, 1 + i % 2, seed=i) for i in range(12)]
    names = [f"{i % 4}/{i}.png" for i in range(12)]
    content = pixelcnn.compress(model, xs, names=names)
    assert [entry.name for entry in Archive(content).entries] == names
    assert all(np.array_equal(a, b[0]) for a, b in zip(pixelcnn.decompress(content, model), xs, strict=True))
    batch = pixelcnn.compress(model, noise(2, 1, 3, 3))
    assert [entry.name for entry in Archive(batch).entries] == ["000000.png", "000001.png"]
    refused(lambda: pixelcnn.compress(model, xs, names=["a"]), "1 names for 12 pictures")


def test_the_smaller_of_views_and_png_is_kept(case: Case) -> None:
    """Law: a picture is stored as PNG if that is smaller than its views, and otherwise not."""
    ramp = torch.arange(0, 252, 7, dtype=torch.uint8).expand(3, 36, 36)
    kept = []
    for x in (case.x.byte(), noise(3, 2, 2).byte(), ramp.contiguous(), torch.full((3, 24, 24), 9, dtype=torch.uint8)):
        (streams,) = case.codec.encode(x[None])
        stored, views = len(Original(x).to_png()), sum(map(len, streams))
        file = read_file(case.codec.compress([Original(x)])[0])
        assert (file.png is not None) == (stored < views)
        assert len(file.png or b"".join(file.views)) == min(stored, views)
        kept.append(file.png is not None)
    assert set(kept) == {False, True}


def test_pictures_of_one_size_are_coded_together(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: pictures of one size are one batch, wherever they are, and the pixels of all views are counted."""
    xs = [noise(3, *((5, 4), (3, 3))[i % 2], seed=i).byte() for i in range(8)]
    originals = [Original(x) for x in xs]
    number = 4 * (20 + 3 * 2 + 2 * 1 + 9 + 4 + 1)
    assert case.codec.pixels(originals) == number
    counts: list[int] = []
    contents = case.codec.compress(originals, count=counts.append)
    assert sum(counts) == number
    archive = case.codec.archive(originals, [str(i) for i in range(8)])
    batches: list[int] = []
    decode = case.codec.decode
    found = case.restorer.codec(case.codec.coding)
    monkeypatch.setattr(
        found, "decode", lambda each, *rest, **options: batches.append(len(each)) or decode(each, *rest, **options)
    )
    for files in ([read_file(each) for each in contents], open_files(archive)):
        assert all(file.png is None for file in files)
        for view in (0, 1, None):
            batches.clear()
            counts.clear()
            restored = case.restorer.restore(files, view, count=counts.append)
            assert batches == [4, 4]
            assert sum(counts) == sum(case.restorer.pixels(file, view) for file in files)
            if view == 0:
                assert sum(counts) == number
                assert all(torch.equal(_pixels(each), x) for each, x in zip(restored, xs, strict=True))


def test_what_cannot_be_read_is_not_written(case: Case) -> None:
    """Law: too many pixels, none, or a color profile above the limit are refused before anything is coded."""
    large = torch.zeros(1, 1, 1, dtype=torch.uint8).expand(3, MOST_PIXELS // 8 + 1, 8)
    refused_in_little_memory(lambda: case.codec.compress([Original(large)]), "at most")
    model, picture = case.model, Image.new("RGB", (2, 2))
    for name in ("icc_profile", "exif"):
        picture.info = {name: bytes(MOST_EXTRA + 1)}
        with pytest.raises(ValueError, match="more than"):
            pixelcnn.compress(model, picture)
    refused_in_little_memory(lambda: pixelcnn.compress(model, Image.new("RGB", (0, 2))), "no pixels")


def test_bits_of_an_archive_are_few(gray: Case) -> None:
    """Law: an archive of pictures of one size costs less than 12 bytes for each beyond their streams."""
    xs = noise(64, 1, 2, 2)
    content = as_archive(gray, xs)
    assert (len(content) - sum(entry.length for entry in Archive(content).entries)) / len(xs) < 12
