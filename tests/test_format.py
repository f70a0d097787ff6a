"""The file format: this package and a second reader, which was written from the page alone, read golden files."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import second_reader
from PIL import Image

import pixelcnn
from pixelcnn.codec.archive import is_archive
from pixelcnn.codec.container import read_file
from pixelcnn.data.images import load_images
from pixelcnn.models.shipped import zoo_folder
from pixelcnn.nn.tables import TABLES_HASH

TESTS = Path(__file__).parent
FILES = sorted(path for path in (TESTS / "golden").glob("*/*") if path.suffix in (".pxc", ".pxa"))
NAMES = [f"{path.parent.name}-{path.stem}" for path in FILES]
PAGE = TESTS.parent / "docs" / "format.md"


def expected(path: Path) -> list[np.ndarray]:
    """Read the pictures that a golden file holds."""
    pictures = sorted(path.parent.glob(f"{path.stem}.*.png"))
    assert pictures
    return [np.asarray(Image.open(picture)) for picture in pictures]


def test_there_are_golden_files_of_all_kinds() -> None:
    """There are views of every kind, PNG inside, transparency, an archive, and every model that is described."""
    assert {path.parent.name for path in FILES} == {"color", "deep", "gray", "mixed"}
    assert {path.stem for path in FILES} == {"alpha", "flat", "noise", "photo", "small"}
    for path in FILES:
        content = path.read_bytes()
        assert is_archive(content) or (read_file(content).png is not None) == (path.stem == "flat")


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_golden_files_are_read(path: Path) -> None:
    """Law: files of earlier versions give the pictures that they gave when they were made."""
    content = path.read_bytes()
    found = pixelcnn.decompress(content, pixelcnn.load(path.parent))
    for picture, pixels in zip(found if is_archive(content) else [found], expected(path), strict=True):
        assert np.array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_second_reader_reads_them(path: Path) -> None:
    """Law: the format is what the page says, and its arithmetic does not depend on torch."""
    for found, pixels in zip(second_reader.read(path.read_bytes(), path.parent), expected(path), strict=True):
        assert np.array_equal(found, pixels)


def test_the_second_reader_needs_neither_torch_nor_us() -> None:
    """Law: it runs where neither torch, nor constriction, nor this package can be imported."""
    script = (
        "import sys\n"
        "for name in ('torch', 'constriction', 'pixelcnn'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "import second_reader\n"
        f"path = Path({str(FILES[0])!r})\n"
        "print(second_reader.read(path.read_bytes(), path.parent)[0].shape)"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=TESTS, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == str(expected(FILES[0])[0].shape), result.stderr


def test_a_second_reader_reads_what_is_written_today() -> None:
    """Law: a file of a shipped model, with all that is kept of a picture, is as the page says."""
    (photo,) = pixelcnn.to_pil(load_images("photos", "test", size=16).batch([1]))
    photo.putalpha(Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)))
    content = pixelcnn.load("photos-pyramid").compress(photo)
    assert read_file(content).number == 3
    (found,) = second_reader.read(content, zoo_folder("photos-pyramid"))
    assert np.array_equal(found, np.asarray(photo))


def test_the_page_has_the_hash_of_the_tables() -> None:
    """The page names the tables that are used, and the second reader makes them by itself."""
    assert TABLES_HASH in PAGE.read_text(encoding="utf-8")
    assert second_reader.HASH_OF_TABLES.hex() == TABLES_HASH


def test_another_model_is_refused() -> None:
    """Law: a file of one model is not read with another, by neither reader; without a model, none is found."""
    content, other = (TESTS / "golden" / "color" / "photo.pxc").read_bytes(), TESTS / "golden" / "mixed"
    with pytest.raises(ValueError, match=r"with the model '' \(hash [0-9a-f]{16}\), and the hash of this model is"):
        pixelcnn.decompress(content, pixelcnn.load(other))
    with pytest.raises(ValueError, match="not among the shipped models that are installed: pass the model"):
        pixelcnn.decompress(content)
    with pytest.raises(ValueError, match="another model"):
        second_reader.read(content, other)


def test_pictures_inside_are_plain_png() -> None:
    """A flat picture is stored as PNG, which any program reads."""
    content = (TESTS / "golden" / "color" / "flat.pxc").read_bytes()
    start = content.index(b"\x89PNG")
    assert Image.open(io.BytesIO(content[start:])).size == (30, 40)
