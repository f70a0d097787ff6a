"""Images: every kind of source and bad input, on real files, and the laws of the training order."""

import io
import multiprocessing
import os
import re
import shutil
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader

from pixelcnn.data.decode import FORMATS, MAX_PIXELS, Preparation, is_deep
from pixelcnn.data.fingerprints import changed_since
from pixelcnn.data.folders import visible_files
from pixelcnn.data.images import Images, JoinedImages, load_images, load_unseen
from pixelcnn.data.order import Shuffled
from pixelcnn.data.sources import NothingHeldOutError

SHARED = Path(__file__).parents[2] / "shared" / "data"
PHOTOS = Path(__file__).parents[1] / "src" / "pixelcnn" / "data" / "photos"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Put the cache of `datasets` where pytest cleans up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


def noise(H: int, W: int, C: int = 3, seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng((seed, H, W)).integers(0, 256, (H, W, C), dtype=np.uint8)
    return pixels[..., 0] if C == 1 else pixels


def tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def encoded(pixels: np.ndarray, format: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def save_parquet(path: Path, images: list[np.ndarray], column: str = "image", **columns) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [{"bytes": encoded(pixels), "path": f"{path.stem}-{i}.png"} for i, pixels in enumerate(images)]
    pq.write_table(pa.table({column: records, **columns}), path)
    return path


def fill(folder: Path, count: int, side: int = 8) -> list[Tensor]:
    """Fill a folder with PNG files, and return their contents in the order of their names."""
    images = [noise(side, side, seed=i) for i in range(count)]
    for i, pixels in enumerate(images):
        save(folder / f"{i:03d}.png", pixels)
    return [tensor(pixels) for pixels in images]


def every(images: Images) -> list[Tensor]:
    return [images[index] for index in range(len(images))]


def same(images: Images, expected: list[Tensor]) -> bool:
    return torch.equal(images.batch(range(len(images))), torch.stack(expected))


# The steps from a file to a tensor


@given(
    H=st.integers(1, 40),
    W=st.integers(1, 40),
    C=st.sampled_from([1, 3]),
    suffix=st.sampled_from(["png", "webp"]),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lossless_files_of_any_size_come_back_bit_for_bit(tmp_path, H, W, C, suffix):
    pixels = noise(H, W, C)
    folder = tmp_path / f"{H}-{W}-{C}-{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    save(folder / f"image.{suffix}", pixels, **options)
    images = load_images(folder, "all", channels=C)
    assert (images.size, images.channels, len(images)) == ((H, W), C, 1)
    assert images[0].dtype == torch.uint8
    assert torch.equal(images[0], tensor(pixels))


@given(data=st.data(), H=st.integers(3, 30), W=st.integers(3, 30))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_crop_takes_off_exactly_its_borders(tmp_path, data, H, W):
    left, top = data.draw(st.integers(0, W - 1)), data.draw(st.integers(0, H - 1))
    right, bottom = data.draw(st.integers(0, W - 1 - left)), data.draw(st.integers(0, H - 1 - top))
    pixels = noise(H, W)
    save(tmp_path / f"{H}-{W}" / "image.png", pixels)
    images = load_images(tmp_path / f"{H}-{W}", "all", crop=(left, right, top, bottom))
    assert images.size == (H - top - bottom, W - left - right)
    assert torch.equal(images[0], tensor(pixels[top : H - bottom, left : W - right]))


@given(size=st.integers(1, 12), factor=st.integers(1, 4), wider=st.integers(0, 9), taller=st.booleans())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_size_averages_the_areas_of_the_center_square(tmp_path, size, factor, wider, taller):
    side = size * factor
    H, W = (side + wider, side) if taller else (side, side + wider)
    pixels = noise(H, W)
    folder = tmp_path / f"{H}-{W}"
    save(folder / "image.png", pixels)
    images = load_images(folder, "all", size=size)
    top, left = (H - side) // 2, (W - side) // 2
    square = pixels[top : top + side, left : left + side].astype(np.float64)
    means = square.reshape(size, factor, size, factor, 3).mean((1, 3))
    assert images.size == (size, size)
    # Pillow rounds after the rows and again after the columns.
    assert np.abs(images[0].permute(1, 2, 0).numpy() - means).max() <= 1


def test_color_gray_palette_and_alpha_are_converted(tmp_path):
    gray, color = noise(6, 5, 1), noise(6, 5)
    opacity = np.linspace(0, 255, 30, dtype=np.uint8).reshape(6, 5, 1)
    save(tmp_path / "a.png", gray)
    save(tmp_path / "b.png", np.concatenate([color, opacity], 2))
    palette = Image.fromarray(color).quantize(8)
    palette.save(tmp_path / "c.png", transparency=bytes([0, 128, 255]))
    images = load_images(tmp_path, "all")
    assert torch.equal(images[0], tensor(gray).expand(3, -1, -1))
    assert torch.equal(images[1], tensor(color))
    assert torch.equal(images[2], tensor(np.array(palette.convert("RGB"))))
    luma = (color * np.array([0.299, 0.587, 0.114])).sum(2)
    assert np.abs(load_images(tmp_path, "all", channels=1)[1][0].numpy() - luma).max() < 0.51


def test_a_photo_taken_sideways_is_turned_upright(tmp_path):
    pixels = noise(6, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees, clockwise
    save(tmp_path / "a.png", pixels, exif=exif)
    assert torch.equal(load_images(tmp_path, "all")[0], tensor(np.rot90(pixels, -1).copy()))


def test_jpeg_is_decoded_as_pillow_does(tmp_path):
    path = save(tmp_path / "a.jpg", noise(16, 24))
    with Image.open(path) as image:
        expected = tensor(np.array(image))
    assert torch.equal(load_images(tmp_path, "all")[0], expected)


# Sources and splits


def test_folders_are_read_at_any_depth_in_name_order_without_hidden_files(tmp_path):
    for i, name in enumerate(["b/2.png", "a/z/9.png", "a/b.png", "c.png"]):
        save(tmp_path / name, noise(4, 4, seed=i))
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "notes.txt").write_text("no image")
    (tmp_path / ".DS_Store").write_bytes(b"no image")
    expected = [tensor(noise(4, 4, seed=i)) for i in (2, 1, 0, 3)]
    images = load_images(str(tmp_path), "all")
    assert same(images, expected)
    assert (images.name, images.skipped, images.labels) == (str(tmp_path), 0, None)
    assert torch.equal(images.batch([3, 0]), torch.stack([expected[3], expected[0]]))
    assert torch.equal(images[-1], expected[-1])
    with pytest.raises(IndexError):
        images[4]


def test_subfolders_train_and_test_are_the_splits(tmp_path):
    train, test = fill(tmp_path / "train", 3), fill(tmp_path / "test" / "deeper", 2)
    save(tmp_path / "stray.png", noise(8, 8))
    (tmp_path / "README").write_text("no image")
    images = load_images(tmp_path)
    assert same(images, train)
    assert images.notes == ["2 images belong to no part; only split 'all' includes them"]
    assert same(load_images(tmp_path, "test"), test)
    everything = load_images(tmp_path, "all", skip_broken=True)
    assert same(everything, [*train, *test, tensor(noise(8, 8))])
    assert everything.skipped == 1


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("folders", ("Train", "Test", "Val")),
        ("folders", ("training", "TESTING", "dev")),
        ("folders", ("train2017", "test", "validation")),
        ("parquet", ("training", "TESTING", "dev")),
        ("parquet", ("train2017", "test", "validation")),
        ("nested parquet", ("Train", "Test", "Val")),
    ],
)
def test_the_usual_names_of_parts_are_known(tmp_path, layout, names):
    """Law: the test split is the test part, or validation if there is none; `all` is everything."""
    expected = []
    for i, name in enumerate(names):
        images = [noise(4, 4, seed=10 * i + j) for j in range(3)]
        expected.append([tensor(pixels) for pixels in images])
        if layout == "folders":
            for j, pixels in enumerate(images):
                save(tmp_path / name / "deeper" / f"{j}.png", pixels)
        else:
            path = f"{name}-00000-of-00001.PARQUET" if layout == "parquet" else f"default/{name}/0000.parquet"
            save_parquet(tmp_path / path, images)
    train, test, validation = expected
    assert same(load_images(tmp_path), train)
    assert same(load_images(tmp_path, "test"), test)
    assert same(load_images(tmp_path, "validation"), validation)
    assert same(load_images(tmp_path, "all"), [*train, *test, *validation])
    assert load_images(tmp_path).notes == ["3 images are in the part validation, which is not used"]
    for path in [
        path for path in tmp_path.rglob("*") if path.is_file() and "test" in str(path.relative_to(tmp_path)).lower()
    ]:
        path.unlink()
    images = load_images(tmp_path, "test")
    assert same(images, validation)
    assert (images.part, images.notes) == ("its part validation", [])
    assert same(load_images(tmp_path), train)
    assert same(load_images(tmp_path, "all"), [*train, *validation])


def test_incomplete_sets_of_parts(tmp_path):
    """Images next to a folder `test` are for training; a folder `train` among others is about trains."""
    cats, test = fill(tmp_path / "a" / "cats", 2), fill(tmp_path / "a" / "test", 3)
    assert same(load_images(tmp_path / "a"), cats)
    assert same(load_images(tmp_path / "a", "test"), test)
    fill(tmp_path / "b" / "cats", 2)
    fill(tmp_path / "b" / "train", 3)
    assert sum(len(load_images(tmp_path / "b", split)) for split in ("train", "test")) == 5
    fill(tmp_path / "c" / "train", 3)
    (tmp_path / "c" / "README.md").write_text("no image")
    images = load_images(tmp_path / "c", "all")
    assert len(images) == 3
    assert "left out 1 files that do not look like pictures" in images.notes[0]
    fill(tmp_path / "d" / "Val", 3)
    refuse(tmp_path / "d", "only a validation part, use 'test' or 'all'", split="train")
    assert len(load_images(tmp_path / "d", "test")) == 3
    refuse(tmp_path / "a", "split='validation': source=", "use one of ['train', 'test', 'all']", split="validation")


def test_what_is_held_out_depends_on_each_image_alone(tmp_path):
    """Law: adding or removing images moves no other image, copies stay together, and about 5 % are held out."""
    everything = fill(tmp_path / "a", 300, side=2)
    train, test = load_images(tmp_path / "a"), load_images(tmp_path / "a", "test")
    assert len(train) + len(test) == 300
    assert 5 <= len(test) <= 27  # 15 expected, three standard deviations
    contents = [{x.numpy().tobytes() for x in every(split)} for split in (train, test)]
    assert set.union(*contents) == {x.numpy().tobytes() for x in everything}
    for path in sorted((tmp_path / "a").iterdir())[::3]:
        path.unlink()
    for i in range(50):
        save(tmp_path / "a" / "more" / f"{i}.png", noise(2, 2, seed=1000 + i))
    shutil.copytree(tmp_path / "a", tmp_path / "a" / "copies")
    changed = [{x.numpy().tobytes() for x in every(load_images(tmp_path / "a", split))} for split in ("train", "test")]
    assert not changed[0] & contents[1]
    assert not changed[1] & contents[0]
    assert not changed[0] & changed[1]
    save_parquet(tmp_path / "table.parquet", [noise(2, 2, seed=i) for i in range(300)])
    table = load_images(tmp_path / "table.parquet", "test")
    assert {x.numpy().tobytes() for x in every(table)} == contents[1]


def test_too_few_images_to_hold_any_out(tmp_path):
    for i in (2, 3):
        save(tmp_path / f"{i}.png", noise(8, 8, seed=i))
    with pytest.raises(NothingHeldOutError, match=r"none of the 2 images of .* the 5 % .* folders train and test"):
        load_images(tmp_path, "test")
    assert len(load_images(tmp_path)) == 2


def test_the_fingerprint_depends_on_contents_and_preparation(tmp_path):
    """Law: names and order do not matter; one more image, another size or another split does."""
    for i in range(40):
        save(tmp_path / "a" / f"{i}.png", noise(8, 8, seed=i))
        save(tmp_path / "b" / "x" / f"{99 - i}.png", noise(8, 8, seed=i))
    first = load_images(tmp_path / "a").fingerprint
    assert first == load_images(tmp_path / "b").fingerprint
    assert first["images"] == len(load_images(tmp_path / "a"))
    assert changed_since(first, load_images(tmp_path / "b").fingerprint) is None
    changes: list[dict[str, Any]] = [{}, {"size": 4}, {"crop": (1, 0, 0, 0)}, {"channels": 1}, {"split": "all"}]
    prints = [load_images(tmp_path / "a", **change).fingerprint["blake2b"] for change in changes]
    for i in range(40, 60):
        save(tmp_path / "b" / f"{i}.png", noise(8, 8, seed=i))
    more = load_images(tmp_path / "b").fingerprint
    assert len({*prints, more["blake2b"]}) == 6
    said = changed_since(first, more)
    assert said is not None
    assert f"{first['images']} images then, {more['images']} now" in said
    joined = [
        JoinedImages([load_images(tmp_path / name, size=4) for name in names]).fingerprint for names in ("ab", "ba")
    ]
    assert joined[0] == joined[1]
    assert joined[0]["images"] == first["images"] + more["images"]


def test_unseen_images(tmp_path):
    """The test part; or the images held out from training, even after the data moved; or everything."""
    fill(tmp_path / "own", 60)
    fill(tmp_path / "parts" / "train", 3)
    fill(tmp_path / "parts" / "test", 2)
    for i in range(4):
        save(tmp_path / "other" / f"{i}.png", noise(8, 8, seed=100 + i))
    held_out = load_images(tmp_path / "own", "test")
    trained = {"source": str(tmp_path / "own"), "size": None, "crop": None,
               "fingerprint": load_images(tmp_path / "own").fingerprint}  # fmt: skip
    assert len(load_unseen(tmp_path / "other", trained)) == 4
    assert len(load_unseen(tmp_path / "other" / "0.png", trained)) == 1
    assert len(load_unseen(tmp_path / "parts", trained)) == 2
    assert len(load_unseen(tmp_path / "own", {})) == 60
    assert same(load_unseen(tmp_path / "own" / ".." / "own", trained), every(held_out))
    shutil.copytree(tmp_path / "own", tmp_path / "moved")
    moved = load_unseen(tmp_path / "moved", trained, size=4)
    assert len(moved) == len(held_out)
    assert moved.notes == []
    assert "it may have seen some" in load_unseen(tmp_path / "own", {"source": trained["source"]}).notes[0]
    next(path for path in sorted((tmp_path / "own").iterdir())).unlink()
    assert "the data have changed since training began: " in load_unseen(tmp_path / "own", trained).notes[0]


def test_parquet_folder_with_shards_labels_and_unequal_columns(tmp_path):
    images = [noise(4, 4, seed=i) for i in range(6)]
    save_parquet(tmp_path / "data" / "train-00000.parquet", images[:2], label=[3, 1], id=["x", "y"])
    save_parquet(tmp_path / "data" / "train-00001.parquet", images[2:4], label=[2, 0], id=["x", "y"])
    save_parquet(tmp_path / "data" / "test-00000.parquet", images[4:], label=[7, 8])
    expected = [tensor(pixels) for pixels in images]
    train, test, both = (load_images(tmp_path, split) for split in ("train", "test", "all"))
    assert same(train, expected[:4])
    assert train.labels == [3, 1, 2, 0]
    assert same(test, expected[4:])
    assert test.labels == [7, 8]
    assert same(both, expected)
    assert both.labels == [3, 1, 2, 0, 7, 8]


def test_a_parquet_file_alone_is_split_and_keeps_labels_with_images(tmp_path):
    images = [noise(4, 4, seed=i) for i in range(40)]
    path = save_parquet(tmp_path / "[odd] *name*.parquet", images, column="img", label=list(range(40)))
    train, test = load_images(path), load_images(path, "test")
    assert len(train) + len(test) == 40
    for split in (train, test):
        assert split.labels is not None
        assert same(split, [tensor(images[label]) for label in split.labels])


def test_labels_that_are_not_whole_numbers_are_ignored(tmp_path):
    save_parquet(tmp_path / "train.parquet", [noise(4, 4)] * 2, label=["cat", "dog"])
    assert load_images(tmp_path, "all").labels is None


def test_a_source_with_only_a_test_part(tmp_path):
    save_parquet(tmp_path / "test.parquet", [noise(4, 4)])
    assert len(load_images(tmp_path, "test")) == 1
    with pytest.raises(ValueError, match="only a test part, use 'test' or 'all'"):
        load_images(tmp_path)


# Bad input


def refuse(source: Path | str, first: str, *more: str, split: str = "all", **options) -> None:
    """Check that loading fails with a one-line ValueError that says all this."""
    with pytest.raises(ValueError, match=re.escape(first)) as refusal:
        load_images(source, split, **options)
    message = str(refusal.value)
    assert "\n" not in message
    for part in more:
        assert part in message


def flip_byte(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


BROKEN = {
    "text.png": b"this is a text",
    "empty.png": b"",
    "truncated.png": encoded(noise(32, 32))[:-400],
    "header-only.png": encoded(noise(32, 32))[:40],
    "altered.png": flip_byte(encoded(noise(32, 32)), 100),
    "truncated.jpg": encoded(noise(64, 64), "jpeg")[:-700],
    "truncated.webp": encoded(noise(32, 32), "webp")[:-100],
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named_or_skipped_and_counted(tmp_path, name):
    good = fill(tmp_path, 3)
    (tmp_path / name).write_bytes(BROKEN[name])
    refuse(tmp_path, str(tmp_path / name), "cannot be read", "remove it or use --skip-broken")
    images = load_images(tmp_path, "all", skip_broken=True)
    assert images.skipped == 1
    assert same(images, good)


def test_skipping_keeps_labels_with_their_images(tmp_path):
    records = [{"bytes": encoded(noise(4, 4, seed=i)), "path": f"{i}.png"} for i in range(5)]
    records[1]["bytes"] = b"no image"
    records[3]["bytes"] = b""
    pq.write_table(pa.table({"image": records, "label": [10, 11, 12, 13, 14]}), tmp_path / "train.parquet")
    refuse(tmp_path, "'1.png'")
    images = load_images(tmp_path, "all", skip_broken=True)
    assert images.labels == [10, 12, 14]
    assert images.skipped == 2
    assert same(images, [tensor(noise(4, 4, seed=i)) for i in (0, 2, 4)])


def test_nothing_but_broken_files(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    refuse(tmp_path, "none of 1 files", skip_broken=True)


def test_an_image_without_a_name_is_named_by_its_number(tmp_path):
    contents = [encoded(noise(4, 4)), b"no image"]
    pq.write_table(pa.table({"image": [{"bytes": content} for content in contents]}), tmp_path / "a.parquet")
    refuse(tmp_path / "a.parquet", "image number 1 cannot be read (not an image)")


def test_missing_and_empty_folders(tmp_path):
    refuse(tmp_path / "nowhere", str(tmp_path / "nowhere"), "no such file or folder")
    refuse("./nowhere", "'./nowhere'", "no such file or folder")
    (tmp_path / "empty" / "sub").mkdir(parents=True)
    refuse(tmp_path / "empty", "empty folder")


def test_a_file_that_is_not_parquet(tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing more")
    refuse(tmp_path / "bad.parquet", "bad.parquet", "cannot be read as parquet")
    whole = save_parquet(tmp_path / "whole.parquet", [noise(4, 4)] * 3).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    refuse(tmp_path / "cut.parquet", "cut.parquet", "cannot be read as parquet")


def test_a_parquet_file_without_images(tmp_path):
    pq.write_table(pa.table({"picture": [1], "text": ["a"]}), tmp_path / "none.parquet")
    refuse(tmp_path / "none.parquet", "['picture', 'text']", "rename one of them to 'image'")
    pq.write_table(pa.table({"image": [1, 2]}), tmp_path / "numbers.parquet")
    refuse(tmp_path / "numbers.parquet", "'image' does not hold images")


def test_mixed_sizes_name_two_files_and_the_remedy(tmp_path):
    save(tmp_path / "a.png", noise(8, 10))
    save(tmp_path / "b.png", noise(8, 10))
    save(tmp_path / "c.png", noise(9, 8))
    refuse(tmp_path, "a.png' is 10x8", "c.png' is 8x9", "--size")
    assert load_images(tmp_path, "all", size=8).size == (8, 8)


def test_images_too_small_for_the_crop_or_the_size(tmp_path):
    path = save(tmp_path / "a.png", noise(20, 30))
    refuse(tmp_path, str(path), "30x20", "--crop 15 15 0 0", crop=(15, 15, 0, 0))
    refuse(tmp_path, str(path), "30x20", "--crop 0 0 30 0", crop=(0, 0, 30, 0))
    refuse(tmp_path, str(path), "30x20", "--size 21: use 20 or less", size=21)
    refuse(tmp_path, "10x20", "use 10 or less", crop=(20, 0, 0, 0), size=12)


def test_sixteen_bit_and_float_images_are_refused_and_not_skipped(tmp_path):
    save(tmp_path / "deep" / "a.png", np.full((4, 4), 40000, np.uint16))
    refuse(tmp_path / "deep", "a.png", "I;16", "8-bit", skip_broken=True)
    save(tmp_path / "float" / "a.tiff", np.full((4, 4), 0.5, np.float32))
    refuse(tmp_path / "float", "a.tiff", "mode F", "8-bit")


def test_arguments_out_of_range(tmp_path):
    fill(tmp_path, 1)
    refuse(tmp_path, "split='validation'", split="validation")
    refuse(tmp_path, "size=0", "--size", size=0)
    refuse(tmp_path, "size=-3", "--size", size=-3)
    refuse(tmp_path, "crop=(-1, 0, 0, 0)", "--crop", crop=(-1, 0, 0, 0))
    refuse(tmp_path, "channels=4", channels=4)


@pytest.mark.parametrize(("source", "nearest"), [("photo", "photos"), ("cifar", "cifar10"), ("celebA", "celeba")])
def test_an_unknown_name_suggests_the_nearest(source, nearest):
    refuse(source, repr(source), f"did you mean {nearest!r}?")


def test_an_unknown_name_without_a_near_match_lists_the_sources():
    refuse("zzz", "photos", "cifar10", "celeba")


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ("cifar10", "hf download uoft-cs/cifar10"),
        ("celeba", "--crop 25 25 50 40"),
        ("owner/name", "'owner/name'"),
    ],
)
def test_without_a_network_the_hub_fails_at_once_with_advice(monkeypatch, source, remedy):
    import socket

    def unreachable(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    start = time.monotonic()
    refuse(source, remedy, "Hugging Face hub", "network")
    assert time.monotonic() - start < 5


def test_the_hub_is_read_part_by_part_with_the_crop_of_the_paper(monkeypatch):
    import datasets
    from huggingface_hub import HfApi

    faces = [Image.fromarray(noise(218, 178, seed=i)) for i in range(20)]
    hub = {"train": datasets.Dataset.from_dict({"image": faces})}
    monkeypatch.setattr(HfApi, "dataset_info", lambda *args, **kwargs: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda hub_id: hub if hub_id == "nielsr/CelebA-faces" else None)
    train, test = load_images("celeba"), load_images("celeba", "test")
    assert (len(train) + len(test), train.size) == (20, (128, 128))
    expected = {noise(218, 178, seed=i)[50:-40, 25:-25].tobytes() for i in range(20)}
    assert {x.permute(1, 2, 0).numpy().tobytes() for split in (train, test) for x in every(split)} == expected
    assert load_images("celeba", size=64, crop=(0, 0, 0, 0)).size == (64, 64)


def test_the_check_shows_progress_only_if_it_takes_long(tmp_path, capsys, monkeypatch):
    fill(tmp_path, 3)
    load_images(tmp_path, "all", progress=True)
    assert capsys.readouterr() == ("", "")
    moments = iter(range(0, 100, 10))
    monkeypatch.setattr("pixelcnn.data.rows.time.monotonic", lambda: next(moments))
    load_images(tmp_path, "all", progress=True)
    assert capsys.readouterr().out == ""


# What is in a folder


def test_links_loops_and_odd_names(tmp_path):
    """Links are followed, loops end, and each folder is read once; names and suffixes can be anything."""
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    places = ["elsewhere/deep/a.PNG", "folder/.cache/b.png", "folder/c", "folder/d.picture", "apart.jpeg"]
    expected = []
    for i, place in enumerate(places):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        expected.append(tensor(noise(4, 4, seed=i)))
        (tmp_path / place).write_bytes(encoded(noise(4, 4, seed=i)))
    (folder / "linked").symlink_to(elsewhere)
    (folder / "zz").symlink_to(folder / ".cache")
    (folder / "e.jpeg").symlink_to(tmp_path / "apart.jpeg")
    (elsewhere / "loop").symlink_to(folder)
    (folder / "again").symlink_to(folder)
    odd = os.fsencode(folder) + b"/\xe4.png"  # not UTF-8
    Path(os.fsdecode(odd)).write_bytes(encoded(noise(4, 4, seed=9)))
    (folder / "._d.jpg").write_bytes(b"no image")
    a, b, c, d, e = expected
    images = load_images(folder, "all")
    assert same(images, [c, d, e, a, b, tensor(noise(4, 4, seed=9))])
    hidden, repeated = images.notes
    assert "1 hidden files, such as " in hidden
    assert "._d.jpg" in hidden
    assert "read before" in repeated
    assert len(visible_files(folder, "**/*")) == 6
    assert [path.name for path in visible_files(folder, "**/*.PNG")] == ["a.PNG"]
    fill(tmp_path / "hidden" / ".x", 1)
    refuse(tmp_path / "hidden", "is an empty folder, apart from hidden files")


def test_a_folder_of_tables_and_pictures(tmp_path):
    images = [noise(4, 4, seed=i) for i in range(5)]
    save_parquet(tmp_path / "x" / "IMG.PARQUET", images[:2], label=[1, 2])
    save_parquet(tmp_path / "y.parquet", images[2:3], column="img", id=["a"])
    for i in (3, 4):
        save(tmp_path / f"{i}.png", images[i])
    (tmp_path / "README.md").write_text("no image")
    mixed = load_images(tmp_path, "all")
    assert sorted(x.numpy().tobytes() for x in every(mixed)) == sorted(tensor(x).numpy().tobytes() for x in images)
    assert mixed.labels is None
    assert len(mixed.notes) == 1
    assert "README.md" in mixed.notes[0]


def test_a_picture_alone_is_a_source(tmp_path):
    assert same(load_images(save(tmp_path / "a.png", noise(4, 4)), "all"), [tensor(noise(4, 4))])


def batch_of_a_worker(images: Images, indices: list[int]) -> None:
    """Fail the way a data loader's worker process does."""
    try:
        images.batch(indices)
    except ValueError:
        ExceptionWrapper(where="in DataLoader worker process 0").reraise()


def test_a_file_that_vanishes_gives_a_one_line_error(tmp_path, monkeypatch):
    monkeypatch.setattr("pixelcnn.data.images._KEPT_BYTES", 0)
    fill(tmp_path, 3)
    images = load_images(tmp_path, "all")
    (tmp_path / "001.png").unlink()
    with pytest.raises(ValueError, match=r"001.png' cannot be read \(No such file or directory\)"):
        images.batch([0, 1])
    with pytest.raises(ValueError, match=r"^'.*001.png' cannot be read .*--skip-broken$"):
        batch_of_a_worker(images, [1])


# Untrusted files


def pipe(path: Path) -> None:
    os.mkfifo(path)


UNREADABLE = {
    "a pipe": pipe,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nowhere": lambda path: path.symlink_to(path.with_name("nowhere")),
    "a link to itself": lambda path: path.symlink_to(path),
    "a file of terabytes": lambda path: os.truncate(path.write_bytes(b"") or path, 2**41),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_special_files_are_reported_or_left_out_and_never_opened(tmp_path, kind):
    good = fill(tmp_path / "a", 3)
    UNREADABLE[kind](tmp_path / "a" / "x.png")
    refuse(tmp_path / "a", "x.png", "--skip-broken")
    images = load_images(tmp_path / "a", "all", skip_broken=True)
    assert same(images, good)
    assert images.skipped == 1
    UNREADABLE[kind](tmp_path / "b.parquet")
    refuse(tmp_path / "b.parquet", "b.parquet")
    (tmp_path / "c").mkdir()
    (tmp_path / "b.parquet").rename(tmp_path / "c" / "b.parquet")
    refuse(tmp_path / "c", "b.parquet", "cannot be read as parquet", skip_broken=True)


def test_a_table_never_opens_a_file(tmp_path):
    """A path without content, in any column, is a broken image, no matter where it leads."""
    save(tmp_path / "secret.png", noise(4, 4))
    pipe(tmp_path / "pipe.png")
    records = [{"bytes": encoded(noise(4, 4, seed=1)), "path": "/dev/zero"}]
    records += [{"bytes": None, "path": str(tmp_path / name)} for name in ("secret.png", "pipe.png")]
    rows = datasets.Dataset.from_dict({"image": records, "label": [str(tmp_path / "pipe.png")] * 3})
    rows = rows.cast_column("image", datasets.Image(decode=False)).cast_column("label", datasets.Image())
    rows.to_parquet(tmp_path / "table.parquet")
    refuse(tmp_path / "table.parquet", "secret.png", "cannot be read (it is empty)", "--skip-broken")
    images = load_images(tmp_path / "table.parquet", "all", skip_broken=True)
    assert same(images, [tensor(noise(4, 4, seed=1))])
    assert (images.skipped, images.labels) == (2, None)
    pq.write_table(pa.table({"image": [str(tmp_path / "secret.png")]}), tmp_path / "paths.parquet")
    refuse(tmp_path / "paths.parquet", "cannot be read (it is empty)")


def test_null_images_are_broken(tmp_path):
    records = [{"bytes": encoded(noise(4, 4)), "path": None}, None, {"bytes": None, "path": None}]
    pq.write_table(pa.table({"image": records, "label": [1, 2, 3]}), tmp_path / "a.parquet")
    refuse(tmp_path / "a.parquet", "image number 1 cannot be read (it is empty)", "--skip-broken")
    images = load_images(tmp_path / "a.parquet", "all", skip_broken=True)
    assert (len(images), images.skipped, images.labels) == (1, 2, [1])


def test_hub_files_are_read_only_from_the_cache(tmp_path, monkeypatch):
    from huggingface_hub import HfApi, constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(HfApi, "dataset_info", lambda *args, **kwargs: None)
    inside = save(tmp_path / "cache" / "datasets--owner--name" / "a.png", noise(4, 4))
    outside = save(tmp_path / "b.png", noise(4, 4))
    rows = datasets.Dataset.from_dict({"image": [str(inside), str(outside)]}).cast_column("image", datasets.Image())
    monkeypatch.setattr(datasets, "load_dataset", lambda _: {"Validation": rows, "train": rows, "extra": rows})
    refuse("owner/name", "b.png", "it is empty", split="test")
    images = load_images("owner/name", "test", skip_broken=True)
    assert same(images, [tensor(noise(4, 4))])
    assert (images.part, images.skipped) == ("its part validation", 1)
    assert images.notes == ["2 images belong to no part; only split 'all' includes them"]


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(pwned) print\nshowpage\n%%EOF\n"


def test_only_named_formats_are_opened(tmp_path, monkeypatch):
    """PostScript would start Ghostscript; no other decoder of Pillow may see a byte either."""

    def start(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", start)
    Image.init()
    assert {"EPS", "WMF"} <= Image.OPEN.keys() - {*FORMATS}
    (tmp_path / "evil.png").write_bytes(POSTSCRIPT)
    refuse(tmp_path, "evil.png", "cannot be read (not an image)")
    for name in ("ICO", "TGA", "PCX"):
        Image.fromarray(noise(8, 8)).save(tmp_path / "evil.png", name)
        refuse(tmp_path, "evil.png", "cannot be read (not an image)")


def png(width: int, height: int, depth: int, kind: int, pixels: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(8193, 8192), (10_000, 9_000), (13_000, 13_000), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused_before_decoding(tmp_path, width, height):
    """Law: a one-line error, no matter how many, and not one pixel is decoded."""
    assert width * height > MAX_PIXELS
    (tmp_path / "huge.png").write_bytes(png(width, height, 8, 2, b"\0" * 1000))
    start = time.monotonic()
    refuse(tmp_path, "huge.png", "more than 67 million pixels: make it smaller", "--skip-broken")
    assert time.monotonic() - start < 1


def tiff(bits: int) -> bytes:
    """A color TIFF of 1x1 pixels."""
    tags = [(256, 1), (257, 1), (258, 0), (259, 1), (262, 2), (273, 200), (277, 3), (278, 1), (279, 3 * bits // 8)]
    entries = [struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags]
    entries[2] = struct.pack("<HHII", 258, 3, 3, 180)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(entries) + b"\0" * 4
    return (
        head.ljust(180, b"\0") + struct.pack("<HHH", bits, bits, bits) + b"\0" * 14 + b"\x12\x34" * (3 * bits // 16 + 1)
    )


def altered(content: bytes, marker: bytes, offset: int, value: int) -> bytes:
    place = content.index(marker) + offset
    return content[:place] + bytes([value]) + content[place + 1 :]


DEEP = {
    "color.png": png(1, 1, 16, 2, b"\0" + b"\x12\x34" * 3),
    "alpha.png": png(1, 1, 16, 6, b"\0" + b"\x12\x34" * 4),
    "gray and alpha.png": png(1, 1, 16, 4, b"\0" + b"\x12\x34" * 2),
    "color.tif": tiff(16),
    "color.ppm": b"P6 1 1 65535\n" + b"\x12\x34" * 3,
    "plain.ppm": b"P3 1 1 1023\n1 2 3\n",
    "color.jp2": altered(encoded(noise(8, 8), "jpeg2000"), b"\xff\x4f\xff\x51", 42, 15),
}


@pytest.mark.parametrize("name", DEEP)
def test_sixteen_bit_colors_are_refused_too(tmp_path, name):
    (tmp_path / name).write_bytes(DEEP[name])
    refuse(tmp_path, name, "more than 8 bits a channel: convert it to 8-bit", skip_broken=True)


def test_eight_bits_are_not_refused(tmp_path):
    for name, content in {"a.tif": tiff(8), "b.ppm": b"P6 1 1 255\n123", "c.ppm": b"P3 1 1 15\n1 2 3\n"}.items():
        (tmp_path / name).write_bytes(content)
    assert len(load_images(tmp_path, "all")) == 3
    avif = encoded(noise(8, 8), "avif")  # Pillow cannot write 10-bit AVIF
    with Image.open(io.BytesIO(avif)) as picture:
        assert not is_deep(picture, avif)
        assert is_deep(picture, altered(avif, b"av1C", 6, 0x4C))
    for format in ("jpeg2000", "avif", "tiff"):
        Preparation(3, None, None)({"bytes": encoded(noise(8, 8), format), "path": None}, 0)


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """Damage some bytes: cut them off, replace them, or repeat them."""
    place, kind = int(random.integers(len(content))), random.integers(3)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + content[max(0, place - 9) :]
    changed = bytearray(content)
    for index in random.integers(len(content), size=random.integers(1, 9)):
        changed[int(index) if random.random() < 0.5 else int(index) % 64] = random.integers(256)
    return bytes(changed)


def refusal(call: Callable, *arguments, **options) -> str | None:
    try:
        call(*arguments, **options)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.filterwarnings("ignore:::PIL")  # Pillow warns of odd metadata, and reads on
@pytest.mark.parametrize("format", ["avif", "bmp", "gif", "jpeg", "jpeg2000", "png", "ppm", "tiff", "webp"])
def test_damaged_pictures_are_read_or_refused_in_one_line(format):
    """Fuzzing: an array or a one-line ValueError; no other exception, no hang."""
    random = np.random.default_rng(len(format))
    whole = encoded(noise(24, 24), format)
    for _ in range(60):
        said = refusal(Preparation(3, None, None), {"bytes": damaged(whole, random), "path": "x"}, 0)
        assert said is None or ("'x'" in said and "\n" not in said)


def test_damaged_tables_are_read_or_refused_in_one_line(tmp_path):
    random = np.random.default_rng(0)
    images = [noise(4, 4, seed=i) for i in range(3)]
    whole = save_parquet(tmp_path / "whole.parquet", images, label=[1, 2, 3]).read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for i in range(40):
        content = damaged(whole, random) if i % 2 else whole[:footer] + damaged(whole[footer:-8], random) + whole[-8:]
        path = tmp_path / f"{i}.parquet"
        path.write_bytes(content)
        assert "\n" not in (refusal(load_images, path, "all", skip_broken=True) or "")


# The order of training


@pytest.fixture(scope="module")
def eleven(tmp_path_factory) -> Images:
    folder = tmp_path_factory.mktemp("eleven")
    images = [noise(6, 9, seed=i) for i in range(11)]
    return load_images(save_parquet(folder / "train.parquet", images, label=list(range(11))), "all")


@given(seed=st.integers(0, 2**63), epoch=st.integers(0, 10**9))
@settings(max_examples=20, deadline=None)
def test_every_epoch_is_a_permutation(eleven, seed, epoch):
    shuffled = Shuffled(eleven, seed=seed, flip=False, random_crop=None)
    visited = [shuffled[epoch * 11 + place] for place in range(11)]
    assert sorted(label for _, label in visited) == list(range(11))
    for x, label in visited:
        assert torch.equal(x, eleven[label])


def test_epochs_and_seeds_have_different_orders(eleven):
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        shuffled = Shuffled(eleven, seed=seed, flip=False, random_crop=None)
        return tuple(shuffled[epoch * 11 + place][1] for place in range(11))

    assert len({order(seed, epoch) for seed in range(5) for epoch in range(5)}) == 25


@given(positions=st.lists(st.integers(0, 500), min_size=1, max_size=8), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_an_element_depends_only_on_seed_and_position(eleven, positions, seed):
    shuffled = Shuffled(eleven, seed=seed, flip=True, random_crop=4)
    for position in positions:
        alone = Shuffled(eleven, seed=seed, flip=True, random_crop=4)[position]
        x, label = shuffled[position]
        assert torch.equal(x, alone[0])
        assert label == alone[1]


def test_a_flip_mirrors_half_of_the_images(eleven):
    shuffled = Shuffled(eleven, seed=0, flip=True, random_crop=None)
    flips = 0
    for position in range(440):
        x, label = shuffled[position]
        mirrored = torch.equal(x, eleven[label].flip(-1))
        assert mirrored or torch.equal(x, eleven[label])
        flips += mirrored
    assert 180 < flips < 260  # four standard deviations either side


def test_a_random_crop_is_a_window_of_the_image_and_every_window_occurs(eleven):
    shuffled = Shuffled(eleven, seed=0, flip=False, random_crop=4)
    windows = set()
    for position in range(330):
        x, label = shuffled[position]
        assert x.shape == (3, 4, 4)
        places = [(i, j) for i in range(3) for j in range(6) if torch.equal(x, eleven[label][:, i : i + 4, j : j + 4])]
        assert len(places) == 1
        windows.update(places)
    assert len(windows) == 18


def test_without_labels_the_label_is_minus_one(tmp_path):
    fill(tmp_path, 2)
    shuffled = Shuffled(load_images(tmp_path, "all"), seed=0, flip=False, random_crop=None)
    assert [shuffled[position][1] for position in range(4)] == [-1] * 4


def test_a_loader_with_worker_processes_gives_the_same_batches(eleven):
    shuffled = Shuffled(eleven, seed=1, flip=True, random_crop=5)
    positions = [list(range(start, start + 4)) for start in range(8, 20, 4)]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pixelcnn.data.order"])  # the server imports torch once, for both workers
    loader = DataLoader(shuffled, batch_sampler=positions, num_workers=2, multiprocessing_context=context)
    for batch, (x, labels) in zip(positions, loader, strict=True):
        assert torch.equal(x, torch.stack([shuffled[position][0] for position in batch]))
        assert labels.tolist() == [shuffled[position][1] for position in batch]


def test_shuffling_refuses_bad_arguments(eleven):
    with pytest.raises(ValueError, match="seed=-1"):
        Shuffled(eleven, seed=-1, flip=False, random_crop=None)
    for random_crop in (0, 7):
        with pytest.raises(ValueError, match=f"random_crop={random_crop}: use 1 to 6"):
            Shuffled(eleven, seed=0, flip=False, random_crop=random_crop)


# The shipped photographs, and real data if it is there


def records(path: Path) -> list[dict]:
    return pq.read_table(path).column("image").to_pylist()


def test_photos_are_209_and_41_of_128x128_in_under_ten_megabytes():
    train, test = load_images("photos"), load_images("photos", "test")
    assert (len(train), len(test)) == (209, 41)
    assert train.size == test.size == (128, 128)
    names = [{record["path"] for record in records(PHOTOS / f"{part}.parquet")} for part in ("train", "test")]
    assert [len(part) for part in names] == [209, 41]
    assert not names[0] & names[1]
    assert sum(path.stat().st_size for path in PHOTOS.iterdir()) < 10e6


@pytest.mark.parametrize("part", ["train", "test"])
def test_photos_are_the_average_of_two_by_two_pixels_of_their_source(part):
    source = SHARED / "cid22-256" / f"{part}.parquet"
    if not source.exists():
        pytest.skip(f"{source} is not here")
    images = every(load_images("photos", part))
    for x, record, original in zip(images, records(PHOTOS / source.name), records(source), strict=True):
        assert record["path"] == original["path"]
        pixels = tensor(np.array(Image.open(io.BytesIO(original["bytes"])).convert("RGB"))).to(torch.int64)
        blocks = pixels.unfold(1, 2, 2).unfold(2, 2, 2)
        assert torch.equal(x.to(torch.int64), (blocks.sum((-1, -2)) + 2) // 4)


def test_real_faces_are_cropped_to_64x64_as_in_the_paper():
    source = SHARED / "celeba-89x109"
    if not source.exists():
        pytest.skip(f"{source} is not here")
    faces = load_images(source, "test", crop=(12, 13, 25, 20))
    assert (len(faces), faces.size, faces.channels) == (500, (64, 64), 3)


def test_real_lossless_images_have_labels_and_only_test():
    source = SHARED / "cifar10-lossless"
    if not source.exists():
        pytest.skip(f"{source} is not here")
    images = load_images(source, "test")
    assert (len(images), images.size) == (2000, (32, 32))
    assert images.labels is not None
    assert set(images.labels) == set(range(10))


def test_joined_sets_follow_one_another(tmp_path):
    """Law: the images of the parts in order, for any indices."""
    first, second = fill(tmp_path / "a", 3), fill(tmp_path / "b", 5)
    joined = JoinedImages([load_images(tmp_path / name, "all") for name in "ab"])
    assert len(joined) == 8
    assert joined.size == (8, 8)
    assert joined.labels is None
    assert torch.equal(joined.batch([7, 0, 3, 2]), torch.stack([second[4], first[0], second[0], first[2]]))
    assert same(joined, [*first, *second])
    assert len(Shuffled(joined, seed=0, flip=False, random_crop=None)[100][0]) == 3


def test_sets_of_different_sizes_or_channels_are_not_joined(tmp_path):
    fill(tmp_path / "a", 2, side=8)
    fill(tmp_path / "b", 2, side=9)
    with pytest.raises(ValueError, match="same size and channels"):
        JoinedImages([load_images(tmp_path / name, "all") for name in "ab"])
