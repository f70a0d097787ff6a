"""Laws of the auxiliary variables: exact integer arithmetic, at any size, and a type that stays."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pixelcnn.auxiliary import Downsample, QuantizedGrayscale

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
    """Law: the border is no darker: the mean of equal pixels is that pixel."""
    x = torch.full((1, 3, *size), value, dtype=torch.uint8)
    assert (Downsample(factor)(x, 256) == value).all()


@given(st.integers(1, 8), st.sampled_from([2, 3, 16, 200, 256]), sizes, seeds)
def test_the_grey_view_is_the_top_bits_of_the_luma(bits: int, levels: int, size: tuple[int, int], seed: int) -> None:
    """Law: y = 0.299 r + 0.587 g + 0.114 b, rounded half up, then floor(y 2^bits / levels): one channel in range."""
    if 2**bits > levels:
        return
    x, auxiliary = image(3, levels, size, seed), QuantizedGrayscale(bits)
    view = auxiliary(x, levels)
    assert view.shape == (2, 1, *size)
    assert auxiliary.view_size(size) == size
    assert auxiliary.view_format(3, levels) == auxiliary.view_format(1, levels) == (1, 2**bits)
    luma = Fraction(299, 1000), Fraction(587, 1000), Fraction(114, 1000)
    for pixel, grey in zip(x.permute(0, 2, 3, 1).reshape(-1, 3).tolist(), view.flatten().tolist(), strict=True):
        y = half_up(sum((weight * value for weight, value in zip(luma, pixel, strict=True)), Fraction(0)))
        assert grey == y * 2**bits // levels
        assert 0 <= grey < 2**bits


@given(st.integers(1, 8), st.integers(2, 256))
def test_every_grey_is_reached_in_order(bits: int, levels: int) -> None:
    """Law: a grey pixel is its own luma; the view is monotone, from 0 to the highest grey, without gaps."""
    if 2**bits > levels:
        return
    greys = torch.arange(levels).view(1, 1, 1, levels)
    view = QuantizedGrayscale(bits)(greys, levels).flatten()
    assert torch.equal(view, QuantizedGrayscale(bits)(greys.expand(1, 3, 1, levels), levels).flatten())
    steps = view.diff()
    assert int(view[0]) == 0
    assert int(view[-1]) == 2**bits - 1
    assert ((steps == 0) | (steps == 1)).all()


def test_the_luma_rounds_and_does_not_cut() -> None:
    """Law: the luma is rounded before its bits are taken: 254.544 is 255, the highest grey of all."""
    x = torch.tensor([255, 255, 251]).view(1, 3, 1, 1)
    assert int(QuantizedGrayscale(8)(x, 256)) == 255


@pytest.mark.parametrize("auxiliary", [Downsample(2), Downsample(3), QuantizedGrayscale(4), QuantizedGrayscale(8)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_the_integer_type_stays(auxiliary: Downsample | QuantizedGrayscale, dtype: torch.dtype) -> None:
    """Law: bytes in, bytes out, with the values that int64 gives: nothing overflows, even in a white image."""
    for x in (image(3, 256, (7, 6), 0), torch.full((1, 3, 7, 6), 255)):
        view = auxiliary(x.to(dtype), 256)
        assert view.dtype == dtype
        assert torch.equal(view.to(torch.int64), auxiliary(x, 256))


def test_an_image_stays_as_it_was() -> None:
    """Law: a view is a new image."""
    x = image(3, 256, (5, 5), 0)
    before = x.clone()
    for auxiliary in (Downsample(2), QuantizedGrayscale(4)):
        auxiliary(x, 256)
    assert torch.equal(x, before)


@pytest.mark.parametrize("value", [1, 0, -2, 2.0, "2", None, True])
def test_a_factor_must_shrink(value: object) -> None:
    """Law: an error quotes the argument and its value."""
    with pytest.raises(ValueError, match=f"factor={value!r}"):
        Downsample(value)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("value", [0, -1, 4.0, "4", None, True])
def test_bits_must_be_whole(value: object) -> None:
    """Law: an error quotes the argument and its value."""
    with pytest.raises(ValueError, match=f"bits={value!r}"):
        QuantizedGrayscale(value)  # pyright: ignore[reportArgumentType]


def test_a_view_has_no_more_levels_than_its_image() -> None:
    """Law: more bits than the image has are refused, and as many are not."""
    assert QuantizedGrayscale(4).view_format(3, 16) == (1, 16)
    for channels in (1, 3):
        with pytest.raises(ValueError, match="bits=5"):
            QuantizedGrayscale(5).view_format(channels, 31)
