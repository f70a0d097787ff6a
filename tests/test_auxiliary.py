"""Laws of the auxiliary variables: exact integer arithmetic at any size, types that are kept, and exact bounds."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pixelcnn.auxiliary.cells import CellAuxiliary, Filling, whole_box
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.likelihoods.base import Bounds
from pixelcnn.traversal.schedule import groups

sides = st.integers(1, 9)
sizes = st.tuples(sides, sides)
seeds = st.integers(0, 2**31)


def image(channels: int, levels: int, size: tuple[int, int], seed: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(levels, (batch, channels, *size), generator=generator)


def half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


@given(sizes, st.integers(2, 5), st.sampled_from([1, 3]), st.sampled_from([2, 16, 256, 1000]), seeds)
def test_a_smaller_view_is_the_mean_rounded_half_up(
    size: tuple[int, int], factor: int, channels: int, levels: int, seed: int
) -> None:
    """Law: each pixel is the mean over the f x f pixels that exist, rounded half up, in exact arithmetic."""
    x, auxiliary = image(channels, levels, size, seed), Downsample(factor)
    view = auxiliary(x, levels)
    h, w = (math.ceil(side / factor) for side in size)
    assert view.shape == (2, channels, h, w)
    assert auxiliary.view_size(size) == (h, w)
    assert auxiliary.view_format(channels, levels) == (channels, levels)
    for b in range(2):
        for c in range(channels):
            for i in range(h):
                for j in range(w):
                    square = x[b, c, factor * i : factor * (i + 1), factor * j : factor * (j + 1)].flatten().tolist()
                    assert int(view[b, c, i, j]) == half_up(Fraction(sum(square), len(square)))


@given(st.integers(0, 255), sizes, st.integers(2, 5))
def test_an_even_image_stays_even(value: int, size: tuple[int, int], factor: int) -> None:
    """Law: the border gets no darker: the mean of equal pixels is that pixel."""
    x = torch.full((1, 3, *size), value, dtype=torch.uint8)
    assert (Downsample(factor)(x, 256) == value).all()


@given(st.integers(1, 8), st.sampled_from([2, 3, 16, 200, 256]), sizes, seeds)
def test_the_gray_view_is_the_top_bits_of_the_luma(bits: int, levels: int, size: tuple[int, int], seed: int) -> None:
    """Law: y = 0.299 r + 0.587 g + 0.114 b, rounded half up, then floor(y 2^bits / levels): one channel in range."""
    if 2**bits > levels:
        return
    x, auxiliary = image(3, levels, size, seed), QuantizedGrayscale(bits)
    view = auxiliary(x, levels)
    assert view.shape == (2, 1, *size)
    assert auxiliary.view_size(size) == size
    assert auxiliary.view_format(3, levels) == auxiliary.view_format(1, levels) == (1, 2**bits)
    luma = Fraction(299, 1000), Fraction(587, 1000), Fraction(114, 1000)
    for pixel, gray in zip(x.permute(0, 2, 3, 1).reshape(-1, 3).tolist(), view.flatten().tolist(), strict=True):
        y = half_up(sum((weight * value for weight, value in zip(luma, pixel, strict=True)), Fraction(0)))
        assert gray == y * 2**bits // levels
        assert 0 <= gray < 2**bits


@given(st.integers(1, 8), st.integers(2, 256))
def test_every_gray_level_is_reached_in_order(bits: int, levels: int) -> None:
    """Law: a gray pixel is its own luma; the view is monotone, from 0 to the highest gray, without gaps."""
    if 2**bits > levels:
        return
    grays = torch.arange(levels).view(1, 1, 1, levels)
    view = QuantizedGrayscale(bits)(grays, levels).flatten()
    assert torch.equal(view, QuantizedGrayscale(bits)(grays.expand(1, 3, 1, levels), levels).flatten())
    steps = view.diff()
    assert int(view[0]) == 0
    assert int(view[-1]) == 2**bits - 1
    assert ((steps == 0) | (steps == 1)).all()


def test_the_luma_is_rounded_not_truncated() -> None:
    """Law: the luma is rounded before its bits are taken: 254.544 is 255, the highest gray of all."""
    x = torch.tensor([255, 255, 251]).view(1, 3, 1, 1)
    assert int(QuantizedGrayscale(8)(x, 256)) == 255


@pytest.mark.parametrize("auxiliary", [Downsample(2), Downsample(3), QuantizedGrayscale(4), QuantizedGrayscale(8)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_the_integer_type_is_kept(auxiliary: Downsample | QuantizedGrayscale, dtype: torch.dtype) -> None:
    """Law: bytes in, bytes out, with the values that int64 gives: nothing overflows, even in a white image."""
    for x in (image(3, 256, (7, 6), 0), torch.full((1, 3, 7, 6), 255)):
        view = auxiliary(x.to(dtype), 256)
        assert view.dtype == dtype
        assert torch.equal(view.to(torch.int64), auxiliary(x, 256))


def test_an_image_is_not_changed() -> None:
    """Law: a view is a new image, and the image itself stays as it was."""
    x = image(3, 256, (5, 5), 0)
    before = x.clone()
    for auxiliary in (Downsample(2), QuantizedGrayscale(4)):
        auxiliary(x, 256)
    assert torch.equal(x, before)


@pytest.mark.parametrize("value", [1, 0, -2, 2.0, "2", None, True])
def test_the_factor_is_a_whole_number_of_at_least_two(value: object) -> None:
    """Law: an error quotes the argument and its value."""
    with pytest.raises(ValueError, match=f"factor={value!r}"):
        Downsample(value)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("value", [0, -1, 4.0, "4", None, True])
def test_bits_are_a_positive_whole_number(value: object) -> None:
    """Law: an error quotes the argument and its value."""
    with pytest.raises(ValueError, match=f"bits={value!r}"):
        QuantizedGrayscale(value)  # pyright: ignore[reportArgumentType]


def test_a_view_has_no_more_levels_than_its_image() -> None:
    """Law: more bits than the image has are refused, and as many are not."""
    assert QuantizedGrayscale(4).view_format(3, 16) == (1, 16)
    for channels in (1, 3):
        with pytest.raises(ValueError, match="bits=5"):
            QuantizedGrayscale(5).view_format(channels, 31)


SMALL = [Downsample(2), Downsample(3), QuantizedGrayscale(1), QuantizedGrayscale(2)]
MOST_IMAGES = 5000


def every_image(channels: int, levels: int, size: tuple[int, int]) -> Tensor:
    """(levels ** (H W C), C, H, W): all images; the last sub-pixel in raster and channel order changes fastest."""
    every = torch.cartesian_prod(*[torch.arange(levels)] * (size[0] * size[1] * channels))
    return every.view(-1, *size, channels).permute(0, 3, 1, 2)


def in_raster_order(x: Tensor) -> Tensor:
    """(B, H W C): the sub-pixels of images (B, C, H, W), each after those that its bounds depend on."""
    return x.permute(0, 2, 3, 1).flatten(1)


def brute_force(auxiliary: CellAuxiliary, x: Tensor, levels: int, inside: Tensor) -> Tensor:
    """(B, H W C, levels): whether each sub-pixel of `every_image` could have each value.

    It could if some image that is `inside`, starts like this one and has that value next has the view of this one.
    """
    _, views = auxiliary(x, levels).flatten(1).unique(dim=0, return_inverse=True)
    possible = []
    for following in range(x[0].numel() - 1, -1, -1):
        value = torch.arange(len(x)) // levels**following
        beginning = value // levels
        found = torch.zeros(int(beginning[-1]) + 1, int(views.max()) + 1, levels, dtype=torch.bool)
        found[beginning[inside], views[inside], value[inside] % levels] = True
        possible.append(found[beginning, views])
    return torch.stack(possible, 1)


def between(bounds: Bounds, levels: int) -> Tensor:
    """(B, H W C, levels): which values lie within the bounds."""
    lowest, highest = (in_raster_order(bound)[..., None] for bound in bounds)
    every = torch.arange(levels)
    return (lowest <= every) & (every <= highest)


def fill(filling: Filling, x: Tensor, lag: int | None, *, draw: torch.Generator | None = None) -> Bounds:
    """The bounds that a filling gives for `x` (B, C, H, W), group by group. With a generator, `x` is drawn in place."""
    bounds = Bounds(torch.empty_like(x), torch.empty_like(x))
    for group in groups((x.shape[2], x.shape[3]), lag):
        rows, cols = group.pixels(lag or x.shape[3])
        next_bounds = filling.next_bounds(rows, cols)
        drawn: list[Tensor] = []
        for channel in range(x.shape[1]):
            lowest, highest = next_bounds(drawn)
            assert (lowest <= highest).all()
            bounds.lowest[:, channel, rows, cols], bounds.highest[:, channel, rows, cols] = lowest, highest
            if draw is not None:
                share = torch.rand(lowest.shape, generator=draw, dtype=torch.float64)
                x[:, channel, rows, cols] = lowest + (share * (highest - lowest + 1)).long()
            drawn.append(x[:, channel, rows, cols])
        filling.fill(rows, cols, torch.stack(drawn, 1))
    return bounds


@pytest.mark.parametrize("auxiliary", SMALL, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("levels", [2, 3, 4])
def test_bounds_are_what_brute_force_finds(auxiliary: CellAuxiliary, channels: int, levels: int) -> None:
    """Law: a value is within the bounds of a sub-pixel exactly if some later sub-pixels complete it to the view.

    For all images of every size up to 2x3 (3x3 for two levels) that has few enough of them to list.
    """
    if isinstance(auxiliary, QuantizedGrayscale) and 2**auxiliary.bits > levels:
        pytest.skip("no such view")
    for size in [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (3, 3)]:
        if levels ** (channels * size[0] * size[1]) <= MOST_IMAGES:
            x = every_image(channels, levels, size)
            bounds = auxiliary.bounds(x, auxiliary(x, levels), levels)
            possible = brute_force(auxiliary, x, levels, torch.ones(len(x), dtype=torch.bool))
            assert torch.equal(between(bounds, levels), possible)
            assert possible.any(2).all()


@pytest.mark.parametrize("auxiliary", SMALL, ids=str)
@pytest.mark.parametrize(
    ("channels", "levels", "size"), [(1, 3, (2, 3)), (1, 4, (2, 3)), (3, 4, (1, 2)), (3, 2, (2, 2))]
)
@pytest.mark.parametrize("partly_known", [True, False])
def test_bounds_in_a_box_are_what_brute_force_finds(
    auxiliary: CellAuxiliary, channels: int, levels: int, size: tuple[int, int], partly_known: bool
) -> None:
    """Law: the same where some pixels are known, and in any other box, group by group, for all images in the box."""
    if isinstance(auxiliary, QuantizedGrayscale) and 2**auxiliary.bits > levels:
        pytest.skip("no such view")
    every, generator = every_image(channels, levels, size), torch.Generator().manual_seed(0)
    for _ in range(6):
        ends = torch.randint(levels, (2, channels, *size), generator=generator).sort(0).values
        if partly_known:
            unknown = torch.rand(size, generator=generator) < 0.6
            ends = torch.stack([ends[0].masked_fill(unknown, 0), ends[0].masked_fill(unknown, levels - 1)])
        inside = ((every >= ends[0]) & (every <= ends[1])).flatten(1).all(1)
        x = every[inside]
        box = Bounds(*(end.expand(len(x), -1, -1, -1) for end in ends))
        bounds = fill(Filling(box, auxiliary, auxiliary(x, levels), levels), x, None)
        assert torch.equal(between(bounds, levels), brute_force(auxiliary, every, levels, inside)[inside])


def test_bounds_of_256_levels_are_what_brute_force_finds() -> None:
    """Law: the 4-bit gray view of a color leaves each channel the values that brute force over the next ones finds."""
    auxiliary, reds = QuantizedGrayscale(4), torch.arange(0, 256, 15)
    green, blue = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    found = torch.zeros(len(reds), 256, 16, 2, dtype=torch.int64)  # the least blue and how many there are
    for red, counts in zip(reds, found, strict=True):
        view = auxiliary(torch.stack([red.expand(256, 256), green, blue])[None], 256)[0, 0]
        has = view[:, :, None] == torch.arange(16)
        counts[:, :, 0], counts[:, :, 1] = has.int().argmax(1), has.sum(1)
    for n, red in enumerate(reds):
        g, view = found[n, :, :, 1].nonzero().unbind(1)
        least, number = found[n, g, view].unbind(1)
        x = torch.stack([red.expand(len(g)), g, least], 1)[:, :, None, None]
        lowest, highest = (end[:, :, 0, 0] for end in auxiliary.bounds(x, view.view(-1, 1, 1, 1), 256))
        assert torch.equal(lowest[:, 2], least)
        assert torch.equal(highest[:, 2], least + number - 1)
        for v in range(16):
            greens = g[view == v]
            allowed = (reds >= lowest[view == v, 0][:, None]) & (reds <= highest[view == v, 0][:, None])
            assert (allowed == (found[:, :, v, 1] > 0).any(1)).all()
            if len(greens):
                assert (lowest[view == v, 1] == greens.min()).all()
                assert (highest[view == v, 1] == greens.max()).all()
                assert len(greens) == greens.max() - greens.min() + 1


any_auxiliary: st.SearchStrategy[CellAuxiliary] = st.one_of(
    st.builds(Downsample, st.integers(2, 4)), st.builds(QuantizedGrayscale, st.integers(1, 8))
)


@given(any_auxiliary, st.sampled_from([1, 3]), st.sampled_from([2, 3, 16, 200, 256, 1000]), sizes, st.booleans(), seeds)
def test_an_image_filled_within_the_bounds_has_the_view(
    auxiliary: CellAuxiliary, channels: int, levels: int, size: tuple[int, int], boxed: bool, seed: int
) -> None:
    """Law: the bounds are never empty, and an image drawn within them has the view and lies in the box.

    In raster order and in a wavefront; the view is anything between the views of the ends of the box.
    """
    if isinstance(auxiliary, QuantizedGrayscale) and 2**auxiliary.bits > levels:
        return
    generator = torch.Generator().manual_seed(seed)
    box = whole_box((4, channels, *size), levels, torch.device("cpu"))
    if boxed:
        box = Bounds(*torch.randint(levels, (2, 4, channels, *size), generator=generator).sort(0).values)
    least, most = (auxiliary(end, levels) for end in box)
    view = least + (torch.rand(least.shape, generator=generator) * (most - least + 1)).long()
    for lag in (None, auxiliary.shrinkage, 5):
        x = torch.zeros_like(box.lowest)
        fill(Filling(box, auxiliary, view, levels), x, lag, draw=generator)
        assert torch.equal(auxiliary(x, levels), view)
        assert ((box.lowest <= x) & (x <= box.highest)).all()


@given(any_auxiliary, st.sampled_from([1, 3]), st.sampled_from([2, 16, 256]), sizes, st.integers(0, 5), seeds)
def test_a_filling_has_the_bounds_of_the_finished_image(
    auxiliary: CellAuxiliary, channels: int, levels: int, size: tuple[int, int], more: int, seed: int
) -> None:
    """Law: group by group, in raster order or a wavefront with a lag of at least the shrinkage, nothing changes."""
    if isinstance(auxiliary, QuantizedGrayscale) and 2**auxiliary.bits > levels:
        return
    x = image(channels, levels, size, seed)
    view = auxiliary(x, levels)
    whole = auxiliary.bounds(x, view, levels)
    assert ((whole.lowest <= x) & (x <= whole.highest)).all()
    box = whole_box(x.shape, levels, x.device)
    for lag in (None, auxiliary.shrinkage + more):
        for filled, bound in zip(fill(Filling(box, auxiliary, view, levels), x, lag), whole, strict=True):
            assert torch.equal(filled, bound)


def test_a_filling_without_a_view_has_the_bounds_of_its_box() -> None:
    """Law: where no view is given, only the box bounds."""
    box = Bounds(*torch.stack([image(3, 16, (3, 4), seed) for seed in range(2)]).sort(0).values)
    filled = fill(Filling(box, None, None, 16), box.lowest.clone(), None)
    assert all(torch.equal(a, b) for a, b in zip(filled, box, strict=True))


@pytest.mark.parametrize("auxiliary", [*SMALL, QuantizedGrayscale(8)], ids=str)
def test_bounds_of_bytes_are_those_of_integers(auxiliary: CellAuxiliary) -> None:
    """Law: the integer type of image and view does not matter: no sum of bytes overflows."""
    x = image(3, 256, (4, 5), 0)
    view = auxiliary(x, 256)
    for a, b in zip(
        auxiliary.bounds(x, view, 256), auxiliary.bounds(x.to(torch.uint8), view.to(torch.uint8), 256), strict=True
    ):
        assert torch.equal(a, b)


@given(any_auxiliary, st.sampled_from([1, 3]), sizes, seeds)
def test_the_first_wrong_pixel_of_a_view_is_named(
    auxiliary: CellAuxiliary, channels: int, size: tuple[int, int], seed: int
) -> None:
    """Law: `check` accepts the view of an image; for another view it names the image, the row and the column."""
    x = image(channels, 256, size, seed)
    view = auxiliary(x, 256)
    auxiliary.check(x, view, 256)
    generator = torch.Generator().manual_seed(seed)
    b, row, col = (int(torch.randint(side, (), generator=generator)) for side in (2, *view.shape[2:]))
    wrong = view.clone()
    wrong[b, -1, row, col] += 1
    with pytest.raises(ValueError, match=f"image {b} .* row {row}, column {col} "):
        auxiliary.check(x, wrong, 256)


ESTIMATED = [(Downsample(2), 3), (Downsample(3), 1), (QuantizedGrayscale(4), 3)]


@pytest.mark.parametrize(("auxiliary", "channels"), ESTIMATED)
@pytest.mark.parametrize("size", [(6, 6), (5, 7), (1, 1)])
def test_the_image_estimated_from_a_view_has_that_view(
    auxiliary: CellAuxiliary, channels: int, size: tuple[int, int]
) -> None:
    """Law: the estimate of an image from its view, rounded, has that view."""
    x = torch.randint(256, (8, channels, *size), generator=torch.Generator().manual_seed(0))
    view = auxiliary(x, 256)
    estimate = auxiliary.expectation(view, channels, size, 256)
    assert estimate.shape == x.shape
    assert torch.equal(auxiliary(estimate.round().long().clamp(0, 255), 256), view)
