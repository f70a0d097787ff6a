"""Laws of decoding groups of pixels: the compiled kernel reads from any bits what the plain decoder reads."""

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pixelcnn import Categorical, Downsample, LogisticMixture, QuantizedGrayscale
from pixelcnn.auxiliary.cells import CellAuxiliary, Filling, whole_box
from pixelcnn.codec.chunks import DamagedError
from pixelcnn.codec.decoder import CompiledDecoder, PlainDecoder, open_decoder
from pixelcnn.codec.frequencies import TOTAL, Coded, Masses, bucket_width, encode_channel
from pixelcnn.codec.stream import Reader, Writer
from pixelcnn.common.kernel import PROCESSORS, find_kernel, using_processor
from pixelcnn.likelihoods.base import Bounds, Likelihood
from pixelcnn.traversal.schedule import visits


def has(processor: str) -> bool:
    with using_processor(processor), warnings.catch_warnings(action="ignore"):
        return find_kernel() is not None


HERE = [processor for processor in PROCESSORS.values() if has(processor)]
needs_kernel = pytest.mark.skipif(not HERE, reason="there is no compiled kernel for this processor")
LEVELS = [2, 3, 16, 256, 4096]


class Case(NamedTuple):
    """What a decoder needs: images to decode, and parameters (B, P, H, W) for all of their pixels."""

    likelihood: Likelihood
    auxiliary: CellAuxiliary | None
    view: Tensor | None
    params: Tensor
    offset: Tensor | None
    lag: int | None
    margin: int = 0
    """How many levels are ruled out at each end, where there is no view."""

    @property
    def shape(self) -> tuple[int, ...]:
        B, _, H, W = self.params.shape
        return B, self.likelihood.channels, H, W

    def filling(self) -> Filling:
        levels = self.likelihood.levels
        lowest, highest = whole_box(self.shape, levels, torch.device("cpu"))
        return Filling(Bounds(lowest + self.margin, highest - self.margin), self.auxiliary, self.view, levels)

    def groups(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Give the parameters of each group as the compiled network does, and where its pixels are."""
        for _, rows, cols in visits(self.shape[2:], self.lag):  # pyright: ignore[reportArgumentType]
            yield self.params[:, :, rows, cols].permute(2, 0, 1).contiguous().permute(1, 2, 0), rows, cols

    def decode(self, processor: str | None, readers: list[Reader]) -> Tensor:
        """Decode images, as `ViewCoder.decode` does."""
        x = torch.zeros(self.shape, dtype=torch.int64)
        with using_processor(processor):
            decode = open_decoder(self.likelihood, self.filling(), readers, self.offset)
        assert isinstance(decode, CompiledDecoder if processor else PlainDecoder)
        for params, rows, cols in self.groups():
            x[:, :, rows, cols] = decode(params, rows, cols)
        return x

    def result(self, processor: str | None, streams: list[bytes]) -> list[int] | str:
        """Return the values of images, or the error of decoding them."""
        try:
            return self.decode(processor, [Reader(stream) for stream in streams]).flatten().tolist()
        except DamagedError as error:
            return str(error)

    def encode(self, x: Tensor) -> list[bytes]:
        """Write images to streams."""
        filling, C, width = self.filling(), self.shape[1], bucket_width(self.likelihood.levels)
        writers = [Writer() for _ in x]
        for params, rows, cols in self.groups():
            values = x[:, :, rows, cols]
            bounds = filling.next_bounds(rows, cols).of(values)
            filling.fill(rows, cols, values)
            if self.offset is not None:
                params = self.likelihood.offset_means(params, self.offset[:, :, rows, cols])
            for i, writer in enumerate(writers):
                masses = Masses.of(self.likelihood, params[i].T.contiguous().numpy())
                for c in range(C):
                    ends = (end[i, c].numpy() for end in (values, *bounds))
                    for step in encode_channel(masses, *ends, width):
                        writer.write(step)
        return [writer.to_bytes() for writer in writers]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any likelihood, bounds, spread of parameters, size, and number of images."""
    levels = draw(st.sampled_from(LEVELS))
    if draw(st.booleans()):
        likelihood: Likelihood = Categorical(levels=levels)
    else:
        limits = draw(st.sampled_from([(None, -2.0), (None, None), (-7.0, None)]))
        likelihood = LogisticMixture(draw(st.sampled_from([1, 3])), levels, draw(st.integers(1, 17)), limits)
    C, generator = likelihood.channels, torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    fitting: list[Any] = [None, Downsample(2), Downsample(3)]
    if C == 3 and levels > 2:
        fitting += [QuantizedGrayscale(2), QuantizedGrayscale(min(16, levels))]
    auxiliary = draw(st.sampled_from(fitting))
    B, H, W = draw(st.integers(1, 4)), draw(st.integers(1, 7)), draw(st.integers(1, 9))
    lag = draw(st.sampled_from([None, 3, 5]))
    view = offset = None
    margin = 0 if auxiliary else draw(st.integers(0, (levels - 1) // 2))
    if auxiliary is not None:
        x = torch.randint(0, levels, (B, C, H, W), generator=generator)
        view = auxiliary(x, levels)
        if draw(st.booleans()):
            offset = auxiliary.expectation(view, C, (H, W), levels)
    spread = draw(st.sampled_from([0.0, 1.0, 30.0, 3000.0]))
    noise = torch.randn(B, likelihood.num_params, H, W, generator=generator, dtype=torch.float64)
    params = torch.round(noise * spread * 2**24) / 2**24
    return Case(likelihood, auxiliary, view, params, offset, lag if lag is None or lag < W else None, margin)


def random_streams(seed: int, number: int) -> list[bytes]:
    """Make streams of different lengths, some of them empty or too short."""
    random = np.random.default_rng(seed)
    return [random.bytes(int(random.choice([0, 1, 7, 4000]))) for _ in range(number)]


@needs_kernel
@settings(max_examples=120)
@given(case=cases(), seed=st.integers(0, 10**6))
def test_all_decoders_read_the_same_from_any_bits(case: Case, seed: int) -> None:
    """Law: whatever the bits are, the kernel gives the values or the error of the plain decoder."""
    streams = random_streams(seed, case.shape[0])
    results = [case.result(processor, streams) for processor in (None, *HERE)]
    assert all(result == results[0] for result in results)


@needs_kernel
@settings(max_examples=60)
@given(case=cases(), seed=st.integers(0, 10**6))
def test_what_is_written_is_read(case: Case, seed: int) -> None:
    """Law: streams written channel by channel give back the images, whoever reads them."""
    random = [np.random.default_rng(seed).integers(0, 2**32, 4000, np.uint32).tobytes()] * case.shape[0]
    try:
        x = case.decode(None, [Reader(bits) for bits in random])  # typical images of the model, within their bounds
    except DamagedError:  # some outcomes are impossible
        x = case.decode(None, [Reader(b"") for _ in random])
    streams = case.encode(x)
    for processor in (None, *HERE):
        assert torch.equal(case.decode(processor, [Reader(stream) for stream in streams]), x)


# Logistics that are so wide and so far away that a product and a sum which are rounded at once, instead of one after the
# other, give another mass below an edge: the mean in steps of 2^-14 half levels, the log-scale in steps of 2^-10, and
# the edge. They were found by trying 40 million of them.
SENSITIVE = [
    (-13743743874001, 14925, 209),
    (3754632863157, 14043, 161),
    (-6721533185384, 15271, 33),
    (4211872777625, 14118, 81),
    (1419007607553, 14415, 177),
    (1826545228356, 13594, 145),
    (-5118970516330, 14749, 225),
    (3073846670689, 14022, 129),
]


@needs_kernel
@pytest.mark.parametrize("number", range(len(SENSITIVE)))
def test_products_and_sums_are_rounded_one_after_the_other(number: int) -> None:
    """Law: the kernel rounds as NumPy does, where no multiplication is fused with an addition."""
    mean, log_scale, edge = SENSITIVE[number]
    one = torch.tensor([0, mean / 2**14 / 255, log_scale / 2**10], dtype=torch.float64).view(1, 3, 1, 1)
    likelihood = LogisticMixture(1, 256, 1, (None, None))
    case = Case(likelihood, None, None, one.expand(1, 3, 1, 20), None, None, margin=1)
    x = torch.full(case.shape, edge)
    for processor in (None, *HERE):
        assert torch.equal(case.decode(processor, [Reader(stream) for stream in case.encode(x)]), x)
