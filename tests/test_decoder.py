"""Laws of decoding groups of pixels: the compiled kernel reads from any bits what the plain decoder reads."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import pixelcnn
from pixelcnn import Categorical, Downsample, LogisticMixture, QuantizedGrayscale
from pixelcnn.auxiliary.cells import CellAuxiliary, Filling, whole_box
from pixelcnn.codec.archive import is_archive
from pixelcnn.codec.chunks import DamagedError
from pixelcnn.codec.decoder import CompiledDecoder, PlainDecoder, open_decoder
from pixelcnn.codec.frequencies import Masses, bucket_width, encode_channel
from pixelcnn.codec.stream import Reader, Writer
from pixelcnn.common.kernel import PROCESSORS, find_kernel, using_processor
from pixelcnn.likelihoods.base import Bounds, Likelihood
from pixelcnn.traversal.schedule import visits


def has(processor: str) -> bool:
    with using_processor(processor), warnings.catch_warnings(action="ignore"):
        return find_kernel() is not None


HERE = [processor for processor in PROCESSORS.values() if has(processor)]
needs_kernel = pytest.mark.skipif(not HERE, reason="there is no compiled kernel for this processor")
GOLDEN = sorted(path for path in (Path(__file__).parent / "golden").glob("*/*") if path.suffix in (".pxc", ".pxa"))
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

    def typical(self, seed: int) -> Tensor:
        """Make images within their bounds, which are typical of the model if all goes well."""
        random = np.random.default_rng(seed)
        try:
            return self.decode(None, [Reader(random.bytes(4000)) for _ in self.params])
        except DamagedError:  # not all bits are those of images
            x, filling = torch.zeros(self.shape, dtype=torch.int64), self.filling()
            for _, rows, cols in self.groups():
                bounds, drawn = filling.next_bounds(rows, cols), []
                while len(drawn) < self.shape[1]:
                    lowest, highest = (end.numpy() for end in bounds(drawn))
                    drawn.append(torch.from_numpy(random.integers(lowest, highest + 1)))
                x[:, :, rows, cols] = torch.stack(drawn, 1)
                filling.fill(rows, cols, x[:, :, rows, cols])
            return x

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
                    value, lowest, highest = (end[i, c].numpy() for end in (values, *bounds))
                    for step in encode_channel(masses, value, lowest, highest, width):
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
    """Make streams of different lengths. Some begin with the last outcome, which bounds may rule out, or beyond it."""
    random = np.random.default_rng(seed)
    some = [b"", random.bytes(1), random.bytes(7), random.bytes(4000), b"\xff" * 4, b"\xff" * 8]
    return [some[i] for i in random.choice(len(some), number, p=[0.1, 0.1, 0.2, 0.5, 0.06, 0.04])]


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
    x = case.typical(seed)
    streams = case.encode(x)
    for processor in (None, *HERE):
        assert torch.equal(case.decode(processor, [Reader(stream) for stream in streams]), x)


@needs_kernel
@settings(max_examples=20)
@given(case=cases(), seed=st.integers(0, 10**6), after=st.integers(0, 20))
def test_the_plain_decoder_goes_on_where_the_kernel_stopped(case: Case, seed: int, after: int) -> None:
    """Law: a stream can be handed over at any group; then it stays with constriction."""
    x, filling = case.typical(seed), case.filling()
    readers = [Reader(stream) for stream in case.encode(x)]
    with using_processor(HERE[0]):
        first = open_decoder(case.likelihood, filling, readers, case.offset)
        for i, (params, rows, cols) in enumerate(case.groups()):
            decode = first if i < after else PlainDecoder(case.likelihood, filling, readers, case.offset)
            assert torch.equal(decode(params, rows, cols), x[:, :, rows, cols])
        later = open_decoder(case.likelihood, filling, readers, case.offset)
    assert isinstance(first, CompiledDecoder)
    assert isinstance(later, PlainDecoder) == any(reader.plain for reader in readers)


@needs_kernel
@settings(max_examples=20)
@given(case=cases(), seed=st.integers(0, 10**6), number=st.sampled_from([float("nan"), float("inf"), -float("inf")]))
def test_no_parameters_lead_out_of_bounds(case: Case, seed: int, number: float) -> None:
    """Law: whatever the parameters are, there are levels or an error."""
    case.params[torch.rand(case.params.shape, generator=torch.Generator().manual_seed(seed)) < 0.3] = number
    for processor in HERE:
        result = case.result(processor, random_streams(seed, case.shape[0]))
        assert isinstance(result, str) or all(0 <= value < case.likelihood.levels for value in result)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_golden_files_are_the_same_for_all_decoders(path: Path) -> None:
    """Law: files of earlier versions do not depend on the processor."""
    content, model = path.read_bytes(), pixelcnn.load(path.parent)
    found = []
    for processor in (None, *HERE):
        with using_processor(processor):
            pictures = pixelcnn.decompress(content, model)
        found.append([np.asarray(picture) for picture in (pictures if is_archive(content) else [pictures])])
    for other in found[1:]:
        assert all(np.array_equal(*each) for each in zip(found[0], other, strict=True))


# Logistics so wide and so far away that a product and a sum which are rounded at once, instead of one after the other,
# give another mass below an edge: the mean in steps of 2^-14 half levels, the log-scale in steps of 2^-10, and the
# edge. They were found by trying 40 million of them.
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
