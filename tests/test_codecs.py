"""Lossless codecs to compare with: their files decode to the same pixels; a missing codec is left out."""

import io
import sys

import imagecodecs
import numpy as np
import pytest
from conftest import save_noise
from PIL import Image

from pixelcnn.data.images import load_images
from pixelcnn.tasks.lossless import CODECS, _has_jpeg_xl, codec_bits_per_dim, jpeg_xl

SHAPES = [(1, 1), (9, 7), (9, 7, 3), (1, 33, 3), (64, 64, 3)]


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CODECS)
def test_files_decode_to_the_same_pixels(name, shape, smooth):
    """Law: every codec is lossless, on noise and on ramps, gray and RGB."""
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if smooth:
        pixels = np.sort(pixels, 1)
    encoded = CODECS[name](pixels)
    if CODECS[name] is jpeg_xl:
        decoded = imagecodecs.jpegxl_decode(encoded)
    else:
        with Image.open(io.BytesIO(encoded)) as image:
            decoded = np.asarray(image.convert("RGB" if len(shape) == 3 else "L"))
    assert np.array_equal(decoded.reshape(shape), pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_bits_per_dim_are_file_bits_over_sub_pixels(tmp_path, channels):
    images = load_images(str(save_noise(tmp_path, 3, (6, 5))), "all", channels=channels)
    found = codec_bits_per_dim(images, limit=2)
    assert list(found) == ["PNG", "WebP", "JPEG XL"]
    for name, encode in CODECS.items():
        pixels = [images[i].permute(1, 2, 0).contiguous().numpy() for i in range(2)]
        sizes = [len(encode(x[:, :, 0].copy() if channels == 1 else x)) for x in pixels]
        assert found[name] == pytest.approx(8 * sum(sizes) / (2 * channels * 30))


def test_jpeg_xl_beats_the_others_on_photographs():
    """This is why we include it."""
    found = codec_bits_per_dim(load_images("photos", "test", size=128), limit=4)
    assert found["JPEG XL"] < found["WebP"] < found["PNG"]


@pytest.mark.parametrize("how", ["missing", "built without it"])
def test_without_the_package_the_codec_is_left_out_with_one_message(monkeypatch, capsys, tmp_path, how):
    if how == "missing":
        monkeypatch.setitem(sys.modules, "imagecodecs", None)
    else:
        monkeypatch.setattr(imagecodecs.JPEGXL, "available", False)
    _has_jpeg_xl.cache_clear()
    images = load_images(str(save_noise(tmp_path, 1, (4, 4))), "all")
    for _ in range(2):
        assert list(codec_bits_per_dim(images)) == ["PNG", "WebP"]
    _has_jpeg_xl.cache_clear()
    assert capsys.readouterr().err == "pixelcnn: JPEG XL is left out: install it with pip install 'pixelcnn[jxl]'\n"
