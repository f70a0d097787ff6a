"""Laws of images as people have them: every form is scored alike, and results come back as the images came."""

import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from conftest import inside
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

import pixelcnn
from pixelcnn import Downsample, DrawOptions, ImageModel, QuantizedGrayscale
from pixelcnn.data.given import take_images
from pixelcnn.models import shipped

TINY: dict[str, Any] = {"filters": 4, "blocks": 1, "scales": 1, "embedding_blocks": 1, "embedding_scales": 1}
WHOLE = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64, ">u2", ">i8")
WHOLE_TENSORS = [getattr(torch, f"{sign}int{bits}") for bits in (8, 16, 32, 64) for sign in ("u", "")]
sizes = st.tuples(st.integers(1, 5), st.integers(1, 5))


@pytest.fixture(scope="module")
def pyramid() -> ImageModel:
    torch.manual_seed(0)
    return ImageModel(3, 256, [Downsample(2)], **TINY).eval()


@pytest.fixture(scope="module")
def gray() -> ImageModel:
    torch.manual_seed(0)
    return ImageModel(3, 256, [QuantizedGrayscale(4)], **TINY).eval()


def noise(number: int = 1, size: tuple[int, int] = (4, 6), channels: int = 3, most: int = 256) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randint(most, (number, channels, *size), generator=generator, dtype=torch.uint8)


def to_array(x: Tensor) -> np.ndarray:
    """An image (C, H, W) or a batch with the channels last."""
    return np.ascontiguousarray(np.moveaxis(x.numpy(), -3, -1))


def to_file(x: Tensor, folder: Path) -> Path:
    path = folder / f"{abs(hash(x.numpy().tobytes()))}.png"
    pixelcnn.to_pil(x)[0].save(path)
    return path


FORMS: dict[str, Callable[[Tensor, Path], Any]] = {
    "picture": lambda x, _: pixelcnn.to_pil(x)[0],
    "array": lambda x, _: to_array(x),
    "tensor": lambda x, _: x,
    "batch of arrays": lambda x, _: to_array(x[None]),
    "batch of tensors": lambda x, _: x[None],
    "path": to_file,
    "text": lambda x, folder: str(to_file(x, folder)),
}
forms = st.sampled_from(sorted(FORMS))


def kind_of(image: Any) -> tuple[Any, ...]:
    """What one can see of an image without looking at its pixels, apart from its size."""
    if isinstance(image, str | Path | Image.Image):
        return (Image.Image,)
    return type(image), image.ndim, image.shape[0] if image.ndim == 4 else None


def pixels_of(image: Any) -> Tensor:
    """An image in any form, as integers (1, C, H, W)."""
    (x,) = take_images(image, 3, 256).xs
    return x


@given(st.lists(st.tuples(sizes, forms), min_size=1, max_size=5))
def test_every_form_scores_alike(
    pyramid: ImageModel, tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[tuple[int, int], str]]
) -> None:
    """Law: images of any forms and sizes score as their tensors do, in their order; alone as in a list."""
    folder = tmp_path_factory.mktemp("forms")
    xs = [noise(i + 1, size)[0] for i, (size, _) in enumerate(asked)]
    images = [FORMS[form](x, folder) for x, (_, form) in zip(xs, asked, strict=True)]
    with torch.no_grad():
        expected = torch.cat([pyramid.log_prob(x[None]) for x in xs])
        torch.testing.assert_close(pyramid.log_prob(images), expected)
        torch.testing.assert_close(pyramid.log_prob(tuple(images)), expected)
        bits = pyramid.bits_per_dim(images)
        torch.testing.assert_close(bits.total, torch.cat([pyramid.bits_per_dim(x[None]).total for x in xs]))
        torch.testing.assert_close(bits.factors.sum(1), bits.total)
    maps = pixelcnn.surprisal(pyramid, images)
    for image, x, found, score in zip(images, xs, maps, expected, strict=True):
        with torch.no_grad():
            assert torch.equal(pyramid.log_prob(image), pyramid.log_prob(x[None]))
        assert torch.equal(pyramid.views(image)[1], pyramid.views(x[None])[1])
        alone = pixelcnn.surprisal(pyramid, image)
        for a, b in zip(alone, found, strict=True):
            torch.testing.assert_close(a, b)
        total = sum(float(each.double().sum()) for each in found)
        assert total == pytest.approx(-float(score) / math.log(2), rel=1e-5)


@given(st.lists(st.tuples(sizes, forms), min_size=1, max_size=4), st.booleans(), st.integers(0, 5))
def test_results_come_back_as_the_images_came(
    pyramid: ImageModel,
    tmp_path_factory: pytest.TempPathFactory,
    asked: list[tuple[tuple[int, int], str]],
    listed: bool,
    seed: int,
) -> None:
    """Law: a result has the form of its image, the place of its image in the list, and the seed of its place."""
    folder = tmp_path_factory.mktemp("forms")
    asked = asked if listed else asked[:1]
    xs = [noise(i + 1, size)[0] for i, (size, _) in enumerate(asked)]
    images = [FORMS[form](x, folder) for x, (_, form) in zip(xs, asked, strict=True)]
    large = pixelcnn.upscale(pyramid, images if listed else images[0], seed=seed)
    assert isinstance(large, list) == listed
    for image, x, result in zip(images, xs, large if listed else [large], strict=True):
        assert kind_of(result) == kind_of(image)
        assert getattr(result, "dtype", None) in (np.uint8, torch.uint8, None)
        assert torch.equal(pyramid.views(result)[1], x[None])
    alone = [pyramid.upscale(image, seed=seed + i) for i, image in enumerate(images)]
    again = pyramid.upscale(images, seed=[seed + i for i in range(len(images))])
    for a, b, result in zip(alone, again, large if listed else [large], strict=True):
        assert torch.equal(pixels_of(b), pixels_of(result))
        assert kind_of(a) == kind_of(result)


def test_an_image_of_a_list_has_the_seed_of_its_place(pyramid: ImageModel) -> None:
    """Law: in double precision, an image of a mixed list is drawn as alone with the seed of its place."""
    model = ImageModel(3, 256, [Downsample(2)], **TINY).double().eval()
    images = [noise(1, (2, 3))[0], to_array(noise(2, (3, 2))), noise(3, (2, 3))[1]]
    drawn = model.upscale(images, seed=7)
    assert torch.equal(drawn[0], model.upscale(images[0], seed=7))
    assert np.array_equal(drawn[1], model.upscale(images[1], seed=[8, 9]))
    assert torch.equal(drawn[2], model.upscale(images[2], seed=10))


def test_the_methods_of_a_model_are_the_functions() -> None:
    """Law: there is one body for a function and the method of its name, and so one form of what it returns."""
    for name in ("sample", "sample_views", "colorize", "upscale", "complete"):
        assert getattr(ImageModel, name) is getattr(pixelcnn, name)
    model = ImageModel(3, 256, [Downsample(2)], **TINY).eval()
    options = DrawOptions(scale_shift=-0.5)
    x = model.sample(2, (4, 6), seed=3, options=options)
    assert x.shape == (2, 3, 4, 6)
    views = dict(pixelcnn.sample_views(model, 2, (4, 6), seed=3, options=options))
    assert list(views) == [1, 0]
    assert torch.equal(views[0], x)
    assert torch.equal(model.sample(2, (4, 6), seed=3, given=(1, views[1]), options=options), x)


@pytest.mark.parametrize("flat", [False, True])
def test_gray_pictures_are_color_with_equal_channels(pyramid: ImageModel, tmp_path: Path, flat: bool) -> None:
    """Law: what is gray is treated as color, as on the command line, and enlarged to color."""
    x = noise(channels=1)[0]
    picture, array = pixelcnn.to_pil(x)[0], to_array(x)
    assert picture.mode == "L"
    picture.save(tmp_path / "gray.png")
    color = x.expand(3, -1, -1)
    array = array[..., 0] if flat else array
    for image in (picture, array, tmp_path / "gray.png", picture.convert("LA"), picture.convert("P")):
        assert torch.equal(pyramid.log_prob(image), pyramid.log_prob(color))
    assert pyramid.upscale(picture).mode == "RGB"
    assert pyramid.upscale(array).shape == (8, 12, 3)


def test_a_model_of_one_channel_keeps_the_layout() -> None:
    """Law: of a gray model, results of (H, W) are (H, W), those of (H, W, 1) are (H, W, 1), those of pictures gray."""
    model = ImageModel(1, 256, [Downsample(2)], **TINY).eval()
    x = noise(2, channels=1)
    array = to_array(x)
    assert model.upscale(array[0, :, :, 0]).shape == (8, 12)
    assert model.upscale(array[0]).shape == (8, 12, 1)
    assert model.upscale(array).shape == (2, 8, 12, 1)
    picture = pixelcnn.to_pil(x)[0]
    assert model.upscale(picture).mode == "L"
    assert torch.equal(model.log_prob(picture.convert("RGB")), model.log_prob(x[0]))


def test_pictures_are_read_as_on_the_command_line(pyramid: ImageModel, tmp_path: Path) -> None:
    """Law: upright, without transparency, palettes looked up, and as `pixelcnn score` reads them."""
    x = noise()[0]
    upright = pixelcnn.to_pil(x)[0]
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees
    turned.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        for image in (opened, tmp_path / "turned.png"):
            assert torch.equal(pixels_of(image)[0], x)
    clear = upright.convert("RGBA")
    clear.putalpha(Image.new("L", upright.size, 9))
    assert torch.equal(pixels_of(clear)[0], x)
    clear.save(tmp_path / "clear.png")
    assert torch.equal(pixels_of(tmp_path / "clear.png")[0], x)
    pixelcnn.save(pyramid, tmp_path / "model")
    printed = inside("score", tmp_path / "model", tmp_path / "turned.png", "--csv").stdout.splitlines()[1].split(",")
    assert abs(float(printed[1]) - float(pyramid.bits_per_dim(upright).total.detach())) < 1e-5


@pytest.mark.parametrize("kind", WHOLE, ids=str)
def test_arrays_of_any_whole_type_fit(pyramid: ImageModel, kind: Any) -> None:
    """Law: unsigned and signed integers of any width and byte order are the same images."""
    x = noise(2, most=128)
    whole = to_array(x).astype(kind)
    for array in (whole, np.asfortranarray(whole), whole[::-1]):
        array.flags.writeable = False
        expected = x if array.strides[0] > 0 else x.flip(0)
        assert torch.equal(pyramid.log_prob(array), pyramid.log_prob(expected))
        assert pyramid.upscale(array).dtype == np.uint8


@pytest.mark.parametrize("kind", WHOLE_TENSORS, ids=str)
def test_tensors_of_any_whole_type_fit(pyramid: ImageModel, gray: ImageModel, kind: torch.dtype) -> None:
    """Law: every function takes tensors of every whole type, also those that torch can hardly compute with."""
    x = noise(2, most=128)
    wide, hole = x.to(kind), torch.ones(4, 6, dtype=torch.bool)
    assert torch.equal(pyramid.log_prob(wide), pyramid.log_prob(x))
    assert torch.equal(pyramid.log_prob(wide[0]), pyramid.log_prob(x[:1]))
    assert torch.equal(pyramid.views(wide)[1].long(), pyramid.views(x)[1].long())
    assert torch.equal(pixelcnn.surprisal(pyramid, wide)[0], pixelcnn.surprisal(pyramid, x)[0])
    assert torch.equal(pyramid.upscale(wide), pyramid.upscale(x))
    assert torch.equal(pyramid.complete(wide, hole), pyramid.complete(x, hole))
    assert torch.equal(gray.colorize(wide), gray.colorize(x))


def test_what_is_out_of_range_is_quoted(pyramid: ImageModel) -> None:
    """Law: also of types that hold more than torch can compute with."""
    for kind in (np.uint16, np.uint32, np.uint64):
        most = np.iinfo(kind).max
        with pytest.raises(ValueError, match=f"x with values from {most} to {most}: use integers in .0, 256"):
            pyramid.log_prob(np.full((4, 6, 3), most, kind))
        with pytest.raises(ValueError, match=r"x with values from \d+ to \d+: use integers in .0, 256"):
            pyramid.log_prob(torch.from_numpy(np.full((1, 3, 4, 6), most, kind)))
    with pytest.raises(ValueError, match="x with values from -1 to -1"):
        pyramid.log_prob(np.full((4, 6, 3), -1))


def test_a_batch_of_tensors_is_taken_as_it_is() -> None:
    """Law: no copy is made of a batch of tensors, and its score is differentiable, and the same once compiled."""
    x = noise(2)
    assert take_images(x, 3, 256).only() is x
    model = ImageModel(3, 256, [Downsample(2)], **TINY).eval()
    score = model.log_prob(x)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend="eager")(x), score)
    score.sum().backward()
    assert all(parameter.grad is not None for factor in model.factors for parameter in factor.network.last.parameters())


@given(st.integers(0, 3), st.sampled_from(["picture", "array", "tensor"]), st.booleans())
def test_colors_keep_the_gray_view(gray: ImageModel, seed: int, form: str, color: bool) -> None:
    """Law: gray or color images in any form come back in color, in that form, with the same gray view."""
    x = noise(seed + 1, channels=3 if color else 1)[0]
    image = FORMS[form](x, Path())
    colored = gray.colorize(image, seed=seed)
    assert kind_of(colored) == kind_of(image)
    expected = gray.auxiliaries[0](x[None], 256)
    assert torch.equal(gray.views(colored)[1], expected)


def test_flat_gray_arrays_and_mixed_lists_are_colored(gray: ImageModel, tmp_path: Path) -> None:
    """Law: an array (H, W) becomes (H, W, 3), and a list may hold gray and color in any form."""
    x = noise(channels=1)[0]
    flat, picture = to_array(x)[..., 0], pixelcnn.to_pil(x)[0]
    assert gray.colorize(flat).shape == (4, 6, 3)
    assert gray.colorize(x).shape == (3, 4, 6)
    mixed = gray.colorize([picture, flat, noise(2), to_file(x, tmp_path)])
    assert [kind_of(each) for each in mixed[2:]] == [(Tensor, 4, 2), (Image.Image,)]
    views = [gray.views(each)[1] for each in (mixed[0], mixed[1], mixed[3])]
    assert all(torch.equal(view, views[0]) for view in views)


MASKS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda hole: hole,
    "tensor": torch.from_numpy,
    "picture": lambda hole: Image.fromarray(hole),
    "gray picture": lambda hole: Image.fromarray(np.where(hole, 255, 0).astype(np.uint8)),
    "color picture": lambda hole: Image.fromarray(np.where(hole, 200, 9).astype(np.uint8)).convert("RGB"),
    "batch": lambda hole: hole[None],
    "list": lambda hole: [hole],
}


@pytest.mark.parametrize("form", MASKS)
@pytest.mark.parametrize("image", ["picture", "array", "tensor", "batch of tensors"])
def test_masks_in_any_form_are_one_mask(pyramid: ImageModel, form: str, image: str) -> None:
    """Law: a mask may be bool or a picture that is white where pixels are unknown; all unknown is fine."""
    x, hole = noise()[0], np.zeros((4, 6), bool)
    hole[1:3, 2:5] = True
    for mask in (hole, np.ones_like(hole)):
        whole = pyramid.complete(FORMS[image](x, Path()), MASKS[form](mask))
        assert kind_of(whole) == kind_of(FORMS[image](x, Path()))
        assert torch.equal(pixels_of(whole), pyramid.complete(x[None], torch.from_numpy(mask)))
        assert torch.equal(pixels_of(whole)[0][:, ~mask], x[:, ~mask])


def test_a_list_has_a_mask_for_each_image(pyramid: ImageModel, tmp_path: Path) -> None:
    """Law: images of different sizes take a list of masks, whose forms may differ, in the order of the images."""
    xs = [noise(1, (4, 6))[0], noise(2, (3, 3))[0], noise(3, (4, 6))[0]]
    holes: list[Any] = [np.random.default_rng(i).random(x.shape[1:]) < 0.5 for i, x in enumerate(xs)]
    Image.fromarray(holes[2]).save(tmp_path / "mask.png")
    masks = [holes[0], torch.from_numpy(holes[1]), tmp_path / "mask.png"]
    for x, hole, whole in zip(xs, holes, pyramid.complete(xs, masks), strict=True):
        assert torch.equal(whole[:, ~hole], x[:, ~hole])
        assert not torch.equal(whole, x)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((6, 4), bool), r"mask of shape \(6, 4\); the image has \(H, W\) = \(4, 6\), so use \(4, 6\)$"),
        (torch.ones(2, 4, 6) > 0, r"mask of shape \(2, 4, 6\); .* use \(4, 6\)$"),
        (Image.new("L", (4, 6), 255), r"mask of shape \(6, 4\); the image has \(H, W\) = \(4, 6\)"),
        (np.full((4, 6), 255, np.uint8), "mask of type uint8; use bool, true where to draw, such as unknown > 127.5"),
        (torch.ones(4, 6), r"mask of type torch\.float32; use bool, true where to draw, such as unknown > 0\.5"),
        (np.zeros((4, 6), bool), "the mask has no unknown pixels: mark the ones to draw as true, or white"),
        (torch.zeros(4, 6) > 0, "the mask has no unknown pixels"),
        (Image.new("L", (6, 4)), "the mask unknown has no white"),
        (Image.new("RGBA", (6, 4)), "the mask unknown is fully transparent"),
        ("nowhere.png", "unknown: 'nowhere.png' cannot be read .*; name another mask"),
        (None, r"unknown of type NoneType: use a picture \(PIL\) or its path, or an array or a tensor of bool"),
        ([], "a list of 0 masks; use one mask, or one for each of 1"),
        ([np.ones((2, 2), bool)], r"unknown\[0\]: a mask of shape \(2, 2\); .* use \(4, 6\)$"),
    ],
)
def test_masks_that_do_not_fit_are_refused(pyramid: ImageModel, mask: Any, message: str) -> None:
    """Law: a mask of another size or type, or without an unknown pixel, is named, with what would fit."""
    with pytest.raises(ValueError, match=message):
        pyramid.complete(noise(), mask)


COLOR, GRAY = r"use images \(H, W, 3\) or \(B, H, W, 3\)", r"use images \(H, W\) or \(B, H, W, 1\)"


@pytest.mark.parametrize(
    ("channels", "image", "message"),
    [
        (3, np.zeros((4, 6, 4), np.uint8), rf"\(4, 6, 4\): {COLOR}; here x\[..., :3\] without the alpha channel"),
        (3, np.zeros((2, 4, 6, 4), np.uint8), rf"\(2, 4, 6, 4\): {COLOR}; here x\[..., :3\] without the alpha"),
        (3, np.zeros((3, 4, 6), np.uint8), r"; here x\.transpose\(1, 2, 0\) with the channels last"),
        (3, np.zeros((2, 3, 4, 6), np.uint8), r"; here x\.transpose\(0, 2, 3, 1\) with the channels last"),
        (3, np.zeros((2, 4, 6), np.uint8), r"; here x\[\.\.\., None\] for gray images \(B, H, W\)"),
        (1, np.zeros((2, 4, 6), np.uint8), rf"{GRAY}; here x\[\.\.\., None\] for gray images \(B, H, W\)"),
        (1, np.zeros((4, 6, 3), np.uint8), rf"{GRAY}; here the luma of these colors"),
        (3, np.zeros(6, np.uint8), rf"x of shape \(6,\): {COLOR}$"),
        (3, np.zeros((0, 6, 3), np.uint8), r"x of shape \(0, 6, 3\)"),
        (3, np.zeros((0, 4, 6, 3), np.uint8), r"x of shape \(0, 4, 6, 3\) holds no image: give at least one"),
        (3, torch.zeros(4, 4, 6).byte(), r"here x\[:3\] without the alpha channel"),
        (3, torch.zeros(1, 4, 4, 6).byte(), r"here x\[:, :3\] without the alpha channel"),
        (3, torch.zeros(5, 6, 3).byte(), r"here x\.permute\(2, 0, 1\) with the channels first"),
        (3, torch.zeros(2, 5, 6, 3).byte(), r"here x\.permute\(0, 3, 1, 2\) with the channels first"),
        (3, torch.zeros(2, 1, 5, 6).byte(), r"here x\.expand\(-1, 3, -1, -1\) as color"),
        (3, torch.zeros(1, 5, 6).byte(), r"here x\.expand\(3, -1, -1\) as color"),
        (3, torch.zeros(5, 6).byte(), r"here x\.expand\(3, -1, -1\)"),
        (1, torch.zeros(5, 6).byte(), r"here x\[None\]"),
        (1, torch.zeros(7, 5, 6).byte(), r"here x\[:, None\] for gray images \(B, H, W\)"),
        (1, torch.zeros(3, 5, 6).byte(), "here the luma of these colors"),
        (3, np.zeros((4, 6, 3)), r"float64: use integers in \[0, 256\), such as uint8; multiply floats in \[0, 1\]"),
        (3, torch.zeros(3, 4, 6), r"torch\.float32: use integers .*in \[0, 1\] by 255, round and convert them$"),
        (3, np.zeros((4, 6, 3), bool), r"bool: .*multiply by 255 if true is white"),
        (3, np.zeros((4, 6, 3), complex), r"complex128: use integers in \[0, 256\), such as uint8$"),
        (3, np.zeros((4, 6, 3), object), r"object: use integers in \[0, 256\), such as uint8$"),
        (3, Image.new("I;16", (6, 4)), "x has pixels of mode I;16: convert it to 8-bit color or gray"),
        (3, Image.new("F", (6, 4)), "x has pixels of mode F: convert it to 8-bit color or gray"),
        (3, Image.new("RGB", (0, 4)), r"x of shape \(1, 3, 4, 0\)"),
        (3, "nowhere.png", "'nowhere.png' cannot be read .*: name another picture"),
        (3, Path(), "'.' is not a regular file: name another picture"),
        (3, None, r"x of type NoneType: use pictures \(PIL\), arrays"),
        (3, [[[0, 1], [2, 3]]], r"x\[0\] of type list: use pictures \(PIL\), arrays"),
        (3, [], r"x=\[\] is empty: give at least one image"),
        (3, (), r"x=\(\) is empty: give at least one image"),
        (3, [torch.zeros(0, 3, 4, 6).byte()], r"x\[0\] of shape \(0, 3, 4, 6\) holds no image: give at least one"),
        (3, [noise()[0], np.zeros((4, 6, 4), np.uint8)], r"x\[1\] of shape \(4, 6, 4\): .* here x\[1\]\[\.\.\., :3\]"),
    ],
)  # fmt: skip
def test_images_that_do_not_fit_are_refused(channels: int, image: Any, message: str) -> None:
    """Law: what is not an image, or has another shape or type, is named with a change that would fit."""
    model = ImageModel(channels, 256, [Downsample(2)], **TINY).eval()
    hole = np.ones((4, 6), bool)
    uses: list[Callable[[Any], Any]] = [model.log_prob, model.bits_per_dim, model.views, model.upscale]
    uses += [lambda x: pixelcnn.surprisal(model, x), lambda x: model.complete(x, hole)]
    for use in uses:
        with pytest.raises(ValueError, match=message):
            use(image)


def test_the_hints_of_errors_help(pyramid: ImageModel) -> None:
    """Law: the change that an error names makes an image that fits."""
    for make in (lambda shape: torch.zeros(shape).byte(), lambda shape: np.zeros(shape, np.uint8)):
        for shape in SHAPES:
            x: Any = make(shape)
            for _ in range(3):  # the alpha channel of what has its channels last takes two changes
                try:
                    pyramid.log_prob(x)
                    break
                except ValueError as error:
                    hint = str(error).partition("here ")[2]
                x = eval(re.sub(r" (as|for|with|without) .*", "", hint), {"x": x})
            assert pyramid.log_prob(x).ndim == 1


SHAPES = [(5, 6), (1, 5, 6), (4, 5, 6), (5, 6, 1), (5, 6, 3), (5, 6, 4), (7, 5, 6), (2, 1, 5, 6), (2, 4, 5, 6),
          (2, 5, 6, 3), (2, 5, 6, 4), (2, 3, 5, 6), (3, 5, 6)]  # fmt: skip


def test_images_of_many_sizes_have_no_common_views(pyramid: ImageModel) -> None:
    """Law: views are tensors of one size, so images that differ are refused, with both sizes."""
    with pytest.raises(ValueError, match="x has images of 6x4 and 3x2: give images of one size at a time"):
        pyramid.views([noise()[0], noise(1, (2, 3))[0]])


def test_pictures_need_a_model_of_their_levels() -> None:
    """Law: a picture has 256 levels, and a model of fewer says so instead of complaining about some pixel."""
    model = ImageModel(3, 16, **TINY)
    with pytest.raises(ValueError, match=r"x is a picture of 256 levels: use arrays or tensors in \[0, 16\)"):
        model.log_prob(Image.new("RGB", (4, 4)))
    assert model.log_prob(np.full((4, 4, 3), 15)).shape == (1,)


def test_a_truncated_picture_is_refused(pyramid: ImageModel, tmp_path: Path) -> None:
    """Law: a file that was opened but cannot be decoded is an error that says so, from its picture or its path."""
    pixelcnn.to_pil(noise(1, (64, 64)))[0].save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    with (
        Image.open(tmp_path / "cut.png") as opened,
        pytest.raises(ValueError, match=r"x cannot be read .*: use another"),
    ):
        pyramid.log_prob(opened)
    with pytest.raises(ValueError, match=r"cut.png' cannot be read .*: name another picture"):
        pyramid.log_prob(tmp_path / "cut.png")


def test_labels_belong_to_the_places_of_a_list() -> None:
    """Law: in a list of several sizes, each image is scored and drawn with the label of its place."""
    torch.manual_seed(0)
    model = ImageModel(3, 256, [Downsample(2)], **TINY, classes=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    images = [noise(1)[0], noise(1, (2, 3))[0], noise(3)[2]]
    with torch.no_grad():
        alone = torch.cat([model.log_prob(x, label) for x, label in zip(images, (2, 0, 1), strict=True)])
        torch.testing.assert_close(model.log_prob(images, [2, 0, 1]), alone)
        assert not torch.equal(model.log_prob(images, 1), alone)
    for bits, x, label in zip(pixelcnn.surprisal(model, images, np.array([2, 0, 1])), images, (2, 0, 1), strict=True):
        torch.testing.assert_close(bits[0], pixelcnn.surprisal(model, x, label)[0])
    drawn = model.double().upscale(images, seed=5, labels=[2, 0, 1])
    for i, (x, label) in enumerate(zip(images, (2, 0, 1), strict=True)):
        assert torch.equal(drawn[i], model.upscale(x, seed=5 + i, labels=label))


def test_progress_over_images_of_many_sizes_ends_at_one(pyramid: ImageModel) -> None:
    """Law: the share that is done grows over all batches of a list, and ends at 1."""
    shares: list[float] = []
    pixelcnn.surprisal(pyramid, [noise()[0], noise(2, (3, 3))], callback=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert shares[0] < 1


def pictures(number: int = 4, size: tuple[int, int] = (8, 8)) -> tuple[Tensor, list[Image.Image]]:
    x = noise(number, size)
    return x, pixelcnn.to_pil(x)


def test_sets_in_memory_are_loaded_as_files_are(tmp_path: Path) -> None:
    """Law: a list in any form, a batch, a data set and a folder hold the same images, and lists the same hashes."""
    x, found = pictures()
    for i, picture in enumerate(found):
        picture.save(tmp_path / f"{i}.png")
    paths = sorted(tmp_path.glob("*.png"))
    table = datasets.Dataset.from_dict({"image": found})
    folder = datasets.load_dataset("imagefolder", data_dir=str(tmp_path), split="train")
    sequences = (found, tuple(found), x, to_array(x), [*x], [to_array(each) for each in x], [(p, 3) for p in found])
    hashes = set()
    choices: list[dict[str, Any]] = [{}, {"size": 4}, {"channels": 1}, {"crop": (1, 2, 0, 0), "size": 5}]
    for source in (*sequences, table, {"train": table}, folder, paths, [str(path) for path in paths], tmp_path):
        for options in choices:
            images = pixelcnn.load_images(source, "all", **options)  # pyright: ignore[reportArgumentType]
            expected = pixelcnn.load_images(tmp_path, "all", **options)
            assert torch.equal(images.batch(range(4)), expected.batch(range(4)))
        if any(source is each for each in sequences):
            hashes.add(images.fingerprint["blake2b"])
    assert len(hashes) == 1
    assert pixelcnn.load_images([(p, i) for i, p in enumerate(found)], "all").labels == [0, 1, 2, 3]
    assert pixelcnn.load_images(table.add_column("label", [3, 2, 1, 0]), "all").labels == [3, 2, 1, 0]  # pyright: ignore


def test_sets_in_memory_have_parts() -> None:
    """Law: a sequence holds out some images by their content, and a dictionary of data sets has its own parts."""
    _, found = pictures(200, (2, 2))
    train, test = (pixelcnn.load_images(found, split) for split in ("train", "test"))
    assert len(train) + len(test) == 200
    assert 0 < len(test) < 30
    parts = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"image": found[:9]}),
                                  "test": datasets.Dataset.from_dict({"image": found[9:14]})})  # fmt: skip
    assert [len(pixelcnn.load_images(parts, split)) for split in ("train", "test", "all")] == [9, 5, 14]


def test_training_and_evaluation_take_sets_in_memory(tmp_path: Path) -> None:
    """Law: `train` and `evaluate` use all images of a sequence or a data set, with the results of loaded ones."""
    x, found = pictures()
    training = pixelcnn.Training(batch_size=2)
    scores = []
    for i, source in enumerate((found, datasets.Dataset.from_dict({"image": found}), pixelcnn.load_images(x, "all"))):
        torch.manual_seed(0)
        model = ImageModel(3, 256, [Downsample(2)], **TINY)
        model = pixelcnn.train(model, source, tmp_path / str(i), training, steps=2)
        assert model.size == (8, 8)
        scores.append(pixelcnn.evaluate(model, source).bits_per_dim)
        assert abs(scores[-1] - float(model.bits_per_dim(found).total.detach().double().mean())) < 1e-5
    assert len(set(scores)) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "source is empty: give at least one picture"),
        (3, "source of type int: use a name, a path, a datasets.Dataset, or a sequence of pictures"),
        (iter([]), "source of type list_iterator"),
        ([noise()[0], noise(1, (3, 3))[0]], r"'number 0' is 6x4, 'number 1' is 3x3: make them the same with size=N"),
        ([noise()[0] / 255], r"source\[0\] of type torch.float32: use integers in \[0, 256\)"),
        ([Image.new("F", (3, 3))], r"source\[0\] has pixels of mode F"),
        ([noise()[0], None], r"source\[1\] of type NoneType"),
        (["nowhere.png"], "'nowhere.png' cannot be read"),
    ],
)
def test_sets_that_do_not_fit_are_refused(source: Any, message: str) -> None:
    """Law: what is wrong with a set in memory is named, before training begins."""
    with pytest.raises(ValueError, match=message):
        pixelcnn.load_images(source, "all")


def test_paths_in_a_table_are_not_opened(tmp_path: Path) -> None:
    """Law: a data set that holds paths instead of images may come from anywhere, so none of them is opened."""
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    table = datasets.Dataset.from_dict({"image": [str(tmp_path / "secret.png")]}).cast_column("image", datasets.Image())
    with pytest.raises(ValueError, match="holds paths, not images: use the list of paths, or the folder"):
        pixelcnn.load_images(table, "all")


def test_pictures_for_notebooks() -> None:
    """Law: `to_pil` gives each image at its own size, and `show` one picture of all, whose rows are the batches."""
    x = noise(3)
    for images in (x, to_array(x), [*x], pixelcnn.to_pil(x)):
        assert all(torch.equal(pixels_of(p)[0], each) for p, each in zip(pixelcnn.to_pil(images), x, strict=True))
        assert pixelcnn.show(images).tobytes() == pixelcnn.show(x).tobytes()
    assert [p.mode for p in pixelcnn.to_pil(noise(2, channels=1))] == ["L", "L"]
    assert np.asarray(pixelcnn.to_pil(torch.tensor([[[0, 15]]]), levels=16)[0]).tolist() == [[0, 255]]
    one, three = pixelcnn.show(x[0]), pixelcnn.show(x)
    assert one.size == (6 * 16 + 16, 4 * 16 + 16)
    assert three.height == one.height
    assert three.width == one.width + 2 * (6 * 16 + 2)
    rows = pixelcnn.show([x, x[0], x[1], x])
    assert (rows.width, rows.height) == (three.width, one.height + 2 * (4 * 16 + 2))
    assert pixelcnn.show(x, columns=2).height == one.height + 4 * 16 + 2
    assert pixelcnn.show(noise(1, (200, 300))[0]).width == 300 + 16
    with pytest.raises(ValueError, match="columns=0"):
        pixelcnn.show(x, columns=0)


def test_the_names_of_models_need_no_torch() -> None:
    """Law: `list_models` names what `load` takes, and imports nothing heavy."""
    code = "import pixelcnn, sys; print(*pixelcnn.list_models(), 'torch' in sys.modules)"
    *names, imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert "photos-pyramid" in names
    assert imported == "False"
    assert names == pixelcnn.list_models()


def test_errors_name_models_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a model without the view that a task needs is told of installed models that have it."""
    with pytest.raises(ValueError, match=r"use a Grayscale model, such as cifar10-grayscale or faces32-grayscale$"):
        pixelcnn.load("photos-pyramid").colorize(Image.new("L", (4, 4)))
    with pytest.raises(ValueError, match=r"use a Pyramid model, such as faces128-pyramid or photos-pyramid$"):
        pixelcnn.load("faces32-grayscale").upscale(Image.new("L", (4, 4)))
    monkeypatch.setattr(shipped, "PACKAGE", "nowhere")
    with pytest.raises(ValueError, match=r"to colorize, use a Grayscale model$"):
        pixelcnn.load("photos-pyramid").colorize(Image.new("L", (4, 4)))


@pytest.mark.parametrize("use", ["log_prob", "bits_per_dim", "surprisal", "upscale", "complete", "colorize"])
def test_pictures_larger_than_memory_are_refused(
    pyramid: ImageModel, gray: ImageModel, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: a picture that does not fit is a MemoryError with a remedy, before the memory is taken."""
    large = Image.new("RGB", (1200, 1200))
    uses: dict[str, Callable[[], Any]] = {
        "log_prob": lambda: pyramid.log_prob(large),
        "bits_per_dim": lambda: pyramid.bits_per_dim(large),
        "surprisal": lambda: pixelcnn.surprisal(pyramid, large),
        "upscale": lambda: pyramid.upscale(large),
        "complete": lambda: pyramid.complete(large, np.ones((1200, 1200), bool)),
        "colorize": lambda: gray.colorize(large),
    }
    for module in ("common.memory", "models.memory"):
        monkeypatch.setattr(f"pixelcnn.{module}.free_memory", lambda device: 10_000)
    with pytest.raises(MemoryError, match=r"GB are free: (score fewer|end other programs|draw fewer)"):
        uses[use]()
