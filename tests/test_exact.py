"""Laws of exact arithmetic: the same parameters to the last bit in every order, and whole-number frequencies."""

import math
import sys
import warnings
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Scramble
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pixelcnn import Categorical, Downsample, ImageModel, LogisticMixture, QuantizedGrayscale, TabularLikelihood
from pixelcnn.codec import stream
from pixelcnn.codec.chunks import DamagedError
from pixelcnn.codec.frequencies import TOTAL, Coded, Masses, bucket_width, decode_channel, encode_channel
from pixelcnn.codec.stream import Reader, Writer
from pixelcnn.common.kernel import PROCESSORS, find_kernel, using_processor
from pixelcnn.likelihoods.base import Bounds
from pixelcnn.models import coding, memory, tiles
from pixelcnn.models.codec import Codec
from pixelcnn.models.coding import ViewCoder
from pixelcnn.models.exact import exact_twin, model_hash
from pixelcnn.models.factor import Factor, Visit
from pixelcnn.nn import grid
from pixelcnn.nn.compiled import compiled_products
from pixelcnn.nn.grid import EXACT, GRID, check_functions
from pixelcnn.nn.layers import Conv, TransposedConv, concat_elu, gate
from pixelcnn.nn.tables import TABLES_HASH, tables

TINY: dict[str, Any] = {"filters": 3, "blocks": 1, "components": 2, "embedding_blocks": 1}
MODELS: dict[str, dict[str, Any]] = {
    "plain": {"scales": 1, "blocks": 2},
    "three scales": {"scales": 3},
    "gray with classes": {"channels": 1, "scales": 2, "classes": 3},
    "pyramid": {"auxiliaries": [Downsample(2)], "scales": (1, 2)},
    "free, a third, and gray": {
        "auxiliaries": [Downsample(3), QuantizedGrayscale(4)],
        "scales": (1, 1, 2),
        "classes": 2,
        "consistent": False,
    },
    "16 levels": {"channels": 1, "levels": 16, "auxiliaries": [Downsample(2)], "scales": (2, 1)},
}


def make(scramble: Scramble, kind: str) -> ImageModel:
    model = scramble(ImageModel(**{**TINY, **MODELS[kind]}))
    assert isinstance(model, ImageModel)
    return model.float()


def some_images(model: ImageModel, number: int, size: tuple[int, int], seed: int = 0) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, model.levels, (number, model.formats[0][0], *size), generator=generator)
    return x, torch.arange(number) % model.classes if model.classes else None


def visited(factor: Factor, x: Tensor, given: Tensor | None, labels: Tensor | None, options: Visit) -> Tensor:
    """Collect the parameters that a traversal sees."""
    seen = torch.full((len(x), factor.likelihood.num_params, *x.shape[2:]), math.nan, dtype=torch.float64)

    def fill(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        seen[:, :, rows, cols] = params
        return x[:, :, rows, cols]

    factor.traverse(torch.zeros_like(x), fill, given, labels, options)
    return seen


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=5)
@given(height=st.integers(1, 9), width=st.integers(1, 13), seed=st.integers(0, 10**6))
def test_every_order_gives_the_same_bits(scramble: Scramble, kind: str, height: int, width: int, seed: int) -> None:
    """Law: one pass, raster order, the wavefront, one image alone, one thread and two: equal to the last bit."""
    model = make(scramble, kind)
    x, labels = some_images(model, 2, (height, width), seed)
    for factor, (view, given_view) in zip(model.factors, model.links(x), strict=True):
        twin = exact_twin(factor)
        whole = twin.params(view, given_view, labels)
        assert torch.isfinite(whole).all()
        alone = [
            twin.params(view[i : i + 1], None if given_view is None else given_view[i : i + 1], part)
            for i, part in enumerate([None, None] if labels is None else labels.split(1))
        ]
        assert torch.equal(torch.cat(alone), whole)
        for schedule in ("auto", "raster"):
            visit = Visit(schedule=schedule, consistent=model.consistent)
            assert torch.equal(visited(twin, view, given_view, labels, visit), whole)
        torch.set_num_threads(2)
        try:
            assert torch.equal(twin.params(view, given_view, labels), whole)
        finally:
            torch.set_num_threads(1)


@pytest.mark.parametrize("kind", MODELS)
def test_other_products_give_the_same_bits(scramble: Scramble, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: the convolutions of torch in float64 give what our products give, since all sums are exact."""
    model = make(scramble, kind)
    x, labels = some_images(model, 2, (7, 12))
    links = model.links(x)
    twins = [exact_twin(factor) for factor in model.factors]
    expected = [twin.params(*link, labels) for twin, link in zip(twins, links, strict=True)]

    def layer(layer: Any, inputs: Any, size: tuple[int, ...] = ()) -> Any:
        tensors = [x.tensor for x in inputs]
        return grid._Activation(layer(*tensors, size) if isinstance(layer, TransposedConv) else layer(*tensors))

    monkeypatch.setattr(grid._Activation, "layer", layer)
    for twin, link, params in zip(twins, links, expected, strict=True):
        assert torch.equal(twin.params(*link, labels), params)


@pytest.mark.parametrize("processor", PROCESSORS.values())
@settings(max_examples=20)
@given(
    sizes=st.tuples(*[st.integers(1, 9)] * 3, st.integers(1, 40)),
    rows=st.sets(st.integers(-2, 2), min_size=1),
    cols=st.sets(st.integers(-2, 2), min_size=1),
    number=st.integers(1, 6),
    stride=st.integers(1, 2),
    threads=st.integers(1, 2),
)
# More terms than the kernel takes at once, and rows whose vectors overlap.
@example(sizes=(3, 4, 2, 9), rows={-1, 0, 1}, cols={-1, 1}, number=11, stride=1, threads=1)
@example(sizes=(3, 4, 2, 17), rows={-1, 0, 1}, cols={-1, 1}, number=11, stride=2, threads=2)
def test_the_kernel_gives_the_same_products(
    processor: str, sizes: tuple[int, ...], rows: set[int], cols: set[int], number: int, stride: int, threads: int
) -> None:
    """Law: convolutions in the compiled kernel have the bits of those in torch, whatever the offsets."""
    with using_processor(processor), warnings.catch_warnings(action="ignore"):
        kernel = find_kernel()
    if kernel is None:
        pytest.skip(f"{processor} is not to be had here")
    generator = torch.Generator().manual_seed(0)

    def whole(*shape: int) -> Tensor:
        return torch.randint(-999, 1000, shape, generator=generator, dtype=torch.float64)

    height, width, channels, outputs = sizes
    inputs = [
        (whole(2, channels + i, height, width), {(r, c): whole(outputs, channels + i) for r in rows for c in cols})
        for i in range(number)
    ]
    bias = whole(outputs)
    with using_processor(None):
        expected = grid._products(inputs, bias, stride)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(compiled_products(kernel, inputs, bias, stride), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", MODELS)
def test_little_is_lost(scramble: Scramble, kind: str) -> None:
    """The bits of a model change by less than 0.005 in exact arithmetic, even with weights of noise."""
    model = make(scramble, kind)
    x, labels = some_images(model, 4, (12, 14))
    for factor, link in zip(model.requires_grad_(requires_grad=False).factors, model.links(x), strict=True):
        bits = [
            -float(each.log_prob(*link, labels, consistent=model.consistent).mean()) / math.log(2) / x[0].numel()
            for each in (factor, exact_twin(factor))
        ]
        assert abs(bits[1] - bits[0]) < 0.005


def test_a_copy_is_made(scramble: Scramble) -> None:
    """Law: the factor itself stays as it is, and its twin does not see a change of its weights."""
    factor = make(scramble, "pyramid").factors[0]
    before = {name: value.clone() for name, value in factor.state_dict().items()}
    twin = exact_twin(factor)
    weight = twin.network.last.weight().clone()
    assert all(torch.equal(value, before[name]) for name, value in factor.state_dict().items())
    assert factor.network.arithmetic is not GRID
    with torch.no_grad():
        factor.network.last.gain.mul_(2)
    assert torch.equal(twin.network.last.weight(), weight)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("network.down.0.0.ul.side", "network: layer down.0.0.ul.side"),
        ("network.last", "network: layer last"),
        ("embedding.first", "embedding: layer first"),
        ("embedding.enlarge", "embedding: layer enlarge"),
    ],
)
def test_weights_that_are_too_large_are_refused(scramble: Scramble, part: str, name: str) -> None:
    """Law: a layer whose sums could reach 2^53 steps is named; just below, all sums are whole numbers."""
    factor = make(scramble, "pyramid").factors[0]
    layer = factor.get_submodule(part)
    assert isinstance(layer, Conv | TransposedConv)
    with torch.no_grad():
        layer.gain.fill_(1e12)
    with pytest.raises(ValueError, match=rf"{name}: its sums may reach"):
        exact_twin(factor)
    with torch.no_grad():
        layer.gain.fill_(1.0)
    assert exact_twin(factor) is not factor


def test_other_weights_that_are_not_exact_are_refused(scramble: Scramble) -> None:
    """Law: weights that are not finite are refused at once, and so is a context whose sums could be too large."""
    factor = make(scramble, "gray with classes").factors[0]
    with torch.no_grad():
        factor.network.last.gain[0] = math.inf
    with pytest.raises(ValueError, match="network: a layer has weights that are not finite"):
        exact_twin(factor)
    network = make(scramble, "three scales").factors[0].network
    with pytest.raises(ValueError, match="the context: its sums may reach"):
        grid.freeze(network, grid.Bound(1e15, 1))


def test_the_default_type_changes_nothing(scramble: Scramble) -> None:
    """Law: files do not depend on the default type of the process that writes them."""
    model = make(scramble, "pyramid")
    x, _ = some_images(model, 1, (6, 7))
    expected = Codec(model).encode(x)
    torch.set_default_dtype(torch.float64)
    try:
        assert Codec(model).encode(x) == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_impossible_outcomes_are_refused() -> None:
    """Law: an outcome beyond the highest level, which only a damaged stream has, is an error and no value."""
    likelihood = LogisticMixture(1, 256, 2)
    masses = Masses.of(likelihood, np.zeros((2, likelihood.num_params)))
    lowest, highest = np.array([250, 0]), np.array([255, 255])
    with pytest.raises(DamagedError, match="its stream is damaged"):
        decode_channel(masses, lowest, highest, 16, lambda pixels, rows: np.full(len(pixels), 15))


def test_bounds_hold(scramble: Scramble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: no sum in a pass over the most extreme images exceeds the bound of its layer, nor do its steps EXACT."""
    model = make(scramble, "pyramid")
    bounds: dict[int, float] = {}
    original = grid.Bound.layer.__func__

    def noted(cls: Any, layer: Any, inputs: Any, size: tuple[int, ...] = ()) -> Any:
        result = original(cls, layer, inputs, size)
        bounds[id(layer)] = result.largest
        assert result.largest < EXACT * result.step
        return result

    monkeypatch.setattr(grid.Bound, "layer", classmethod(noted))
    twins = [exact_twin(factor) for factor in model.factors]
    sums: dict[int, float] = {}
    plain = grid._Activation.layer.__func__

    def measured(cls: Any, layer: Any, inputs: Any, size: tuple[int, ...] = ()) -> Any:
        result = plain(cls, layer, inputs, size)
        sums[id(layer)] = max(sums.get(id(layer), 0.0), float(result.tensor.abs().max()))
        return result

    monkeypatch.setattr(grid._Activation, "layer", classmethod(measured))
    for value in (0, 255):
        x = torch.full((1, 3, 6, 6), value)
        for twin, link in zip(twins, model.links(x), strict=True):
            twin.params(*link)
    assert sums.keys() == bounds.keys()
    assert all(sums[key] <= bounds[key] for key in sums)


def test_the_hash_is_of_what_decides(scramble: Scramble) -> None:
    """Law: the hash of a model changes with its weights and its chain, not with its size or consistency."""
    model = make(scramble, "pyramid")
    same = deepcopy(model)
    same.consistent, same.size = False, 40
    assert model_hash(model) == model_hash(same)
    with torch.no_grad():
        same.factors[1].network.last.bias[0] += 0.01
    assert model_hash(model) != model_hash(same)


def test_tables_do_not_depend_on_rounding() -> None:
    """Law: with more precise functions the tables are the same, and torch computes the same functions."""
    made = tables()
    assert TABLES_HASH.startswith("8eba1bf4")  # files that exist were made with these
    wide = [np.arange(len(table), dtype=np.longdouble) for table in made[:-1]]
    elu, gates, weight = wide[0] / 1024 - 8, wide[1] / 1024 - 16, wide[3] / 1024 - 16
    logistic = np.arange(len(made.logistic) - 1, dtype=np.longdouble) / 64 - 24
    assert np.array_equal(made.elu, np.rint(1024 * np.expm1(elu)).astype(float))
    assert np.array_equal(made.sigmoid, np.rint(2**14 / (1 + np.exp(-gates))).astype(float))
    assert np.array_equal(made.tanh, np.rint(2**14 * np.tanh(gates)).astype(float))
    assert np.array_equal(made.weight, np.rint(2**20 * np.exp(weight)).astype(float))
    assert np.array_equal(made.precision, np.exp(gates).astype(np.float32).astype(float))
    assert np.array_equal(made.logistic[:-1], np.rint(2**32 / (1 + np.exp(-logistic))).astype(float))
    check_functions(torch.device("cpu"))


def test_other_tables_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a machine whose functions differ is refused, before anything is coded."""
    monkeypatch.setattr(grid, "_table_elu", lambda x: x + 1)
    with pytest.raises(ValueError, match="differs from the tables"):
        check_functions(torch.device("cpu"))


def test_functions_beyond_the_tables_are_constant() -> None:
    """Law: where the tables end, the functions are constant, so that clamping changes nothing."""
    x = torch.tensor([[-8193.0, -(2.0**22), 8193.0, 2.0**22]], dtype=torch.float64)
    assert grid.FUNCTIONS[concat_elu](x).tolist()[0][:4] == [-1024, -1024, 8193, 2**22]
    ab = torch.tensor([[3.0, 3.0, 16385.0, -16385.0]], dtype=torch.float64)
    assert grid.FUNCTIONS[gate](torch.zeros(1, 2, dtype=torch.float64), ab).tolist() == [[3, 0]]


LIKELIHOODS = st.one_of(
    st.builds(Categorical, levels=st.integers(2, 40)),
    st.builds(
        LogisticMixture,
        channels=st.sampled_from([1, 3]),
        levels=st.sampled_from([2, 3, 16, 17, 256, 1000, 65536]),
        components=st.integers(1, 4),
        log_scales=st.sampled_from([(None, -2.0), (None, None), (-7.0, None)]),
    ),
)


@given(likelihood=LIKELIHOODS, seed=st.integers(0, 10**6), spread=st.sampled_from([0.0, 1.0, 30.0, 3000.0]))
def test_whatever_is_written_is_read(likelihood: Any, seed: int, spread: float) -> None:
    """Law: for any parameters and bounds, frequencies are at least one and values come back through a stream."""
    random, N, C, levels = np.random.default_rng(seed), 40, likelihood.channels, likelihood.levels
    params = np.rint(random.normal(size=(N, likelihood.num_params)) * spread * 2**24) / 2**24
    lowest, highest = np.sort(random.integers(0, levels, (2, N, C)), 0)
    lowest[: N // 4], highest[: N // 4] = 0, levels - 1
    x, width = random.integers(lowest, highest + 1), bucket_width(levels)
    masses, writer, bits = Masses.of(likelihood, params.copy()), Writer(), 0.0
    for c in range(C):
        for step in encode_channel(masses, x[:, c], lowest[:, c], highest[:, c], width):
            writer.write(step)
            coded = step.frequency > 0
            assert (step.below >= 0).all()
            assert (step.below + step.frequency <= TOTAL).all()
            bits -= float(np.log2(step.frequency[coded] / TOTAL).sum())
        one = lowest[:, c] == highest[:, c]
        assert (step.frequency[one] == 0).all()  # one possible value costs nothing
    stream = writer.to_bytes()
    assert 8 * len(stream) <= bits + 64
    reader, masses = Reader(stream), Masses.of(likelihood, params.copy())
    rows: list[np.ndarray] = []

    def read(pixels: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
        rows.append(frequencies)
        return reader.read(frequencies)

    for c in range(C):
        assert np.array_equal(decode_channel(masses, lowest[:, c], highest[:, c], width, read), x[:, c])
    for frequencies in rows:
        assert frequencies.shape[1] == width
        assert (frequencies >= 1).all()
        assert (frequencies.sum(1) == TOTAL).all()


@given(
    likelihood=st.sampled_from([LogisticMixture(3, 256, 3), LogisticMixture(1, 16, 2), Categorical(16)]),
    seed=st.integers(0, 10**6),
)
def test_frequencies_are_those_of_the_likelihood(likelihood: Any, seed: int) -> None:
    """Law: values drawn from a likelihood between bounds cost what it says, to a few hundredths of a bit."""
    random, N, C, levels = np.random.default_rng(seed), 2000, likelihood.channels, likelihood.levels
    params = random.normal(size=(N, likelihood.num_params))
    if isinstance(likelihood, LogisticMixture):  # far from all means, all levels between the bounds are equally likely
        kinds = 3 if C == 3 else 2
        params.reshape(N, -1, likelihood.components)[:, 1::kinds] *= 0.3  # means
        params.reshape(N, -1, likelihood.components)[:, 2::kinds] -= 3.0  # log-scales
    params = np.rint(params * 2**24) / 2**24
    lowest = random.integers(0, levels // 4, (N, C))
    highest = random.integers(3 * levels // 4, levels, (N, C))
    bounds = Bounds(torch.from_numpy(lowest)[..., None], torch.from_numpy(highest)[..., None])
    noise = torch.from_numpy(random.random((N, likelihood.num_noise, 1)))

    def next_bounds(drawn: list[Tensor]) -> Bounds:
        return Bounds(*(end[:, len(drawn)] for end in bounds))

    drawn = likelihood.sample(torch.from_numpy(params)[..., None], noise, bounds=next_bounds)
    x = drawn[..., 0].numpy()
    masses, bits = Masses.of(likelihood, params.copy()), np.zeros(N)
    for c in range(C):
        for step in encode_channel(masses, x[:, c], lowest[:, c], highest[:, c], bucket_width(levels)):
            bits -= np.log2(np.where(step.frequency > 0, step.frequency, TOTAL) / TOTAL)
    expected = -likelihood.log_prob(torch.from_numpy(params)[..., None], drawn, bounds)[:, 0].numpy() / math.log(2)
    assert -0.01 < (bits - expected).mean() < 0.03
    assert np.median(np.abs(bits - expected)) < 0.005


def read_by_hand(stream: bytes, rows: np.ndarray) -> list[int]:
    """Read a stream with a range coder of a few lines, as docs/format.md describes it."""
    words = [int.from_bytes(stream[i : i + 4].ljust(4, b"\0"), "little") for i in range(0, len(stream), 4)]
    take = iter(words + [0] * (len(rows) + 2))
    lower, size, point, found = 0, 2**64 - 1, next(take) << 32 | next(take), []
    for row in rows:
        scale = size >> 24
        quantile = (point - lower) % 2**64 // scale
        below = np.cumsum([0, *row])
        i = int(np.searchsorted(below, quantile, side="right")) - 1
        lower, size = (lower + scale * int(below[i])) % 2**64, scale * int(row[i])
        if size < 2**32:
            lower, size, point = lower * 2**32 % 2**64, size * 2**32, point * 2**32 % 2**64 | next(take)
        found.append(i)
    return found


@given(seed=st.integers(0, 10**6), number=st.integers(0, 200), spread=st.sampled_from([0.01, 0.3, 5.0]))
def test_the_coder_is_the_one_of_the_format(seed: int, number: int, spread: float) -> None:
    """Law: a range coder written by hand reads what constriction writes, whatever the frequencies."""
    random, width = np.random.default_rng(seed), 16
    rows = np.floor(random.dirichlet(np.full(width, spread), number) * (TOTAL - width)).astype(np.int64) + 1
    rows[:, 3] += TOTAL - rows.sum(1)
    symbols = random.integers(0, width, number)
    below = np.concatenate([np.zeros((number, 1), np.int64), rows.cumsum(1)], 1)
    every = np.arange(number)
    writer = Writer()
    writer.write(Coded(below[every, symbols], rows[every, symbols]))
    stream = writer.to_bytes()
    assert read_by_hand(stream, rows) == symbols.tolist()
    assert Reader(stream).read(rows).tolist() == symbols.tolist()


def test_without_the_coder_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: where constriction is not installed, everything else works, and compressing says what it needs."""
    stream._constriction.cache_clear()
    monkeypatch.setitem(sys.modules, "constriction", None)
    try:
        with pytest.raises(ValueError, match="need the package constriction, which is not installed: pip install"):
            Writer()
    finally:
        stream._constriction.cache_clear()


def test_other_likelihoods_are_refused() -> None:
    """A likelihood without exact frequencies is refused, with those that have them."""

    class Flat(TabularLikelihood):
        levels, channels, num_params = 4, 1, 1  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

        def logits(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
            return params.expand(-1, 4, *params.shape[2:])

    factor = Factor(Flat(), ImageModel(1, 4, filters=2, blocks=1, scales=1).factors[0].network)
    with pytest.raises(ValueError, match="no exact frequencies: compress with LogisticMixture or Categorical"):
        ViewCoder(factor, consistent=False)


@pytest.mark.parametrize("kind", ["free, a third, and gray"])
def test_tiles_and_threads_give_the_same_streams(
    scramble: Scramble, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: little memory and more threads change how long encoding takes, not a byte of what it gives."""
    model = make(scramble, kind)
    x, labels = some_images(model, 3, (55, 60))
    codec = Codec(model)
    expected = codec.encode(x, labels)
    monkeypatch.setattr(memory, "LITTLE", 10**6)
    monkeypatch.setattr(memory, "free_memory", lambda device: 8 * 10**6)
    monkeypatch.setattr(tiles, "NO_MATTER", 0)
    sizes = model.sizes((55, 60))
    tilings = tiles.plan([coder.factor for coder in codec.coders], 3, sizes, consistent=model.consistent, at_once=2)
    assert max(len(tiling.rows) * len(tiling.cols) for tiling in tilings) > 1
    counted: list[int] = []
    monkeypatch.setattr(coding, "CHUNK", 7)  # slices of the stream that end within groups, were they not made longer
    torch.set_num_threads(2)
    try:
        assert codec.encode(x, labels, count=counted.append) == expected
    finally:
        torch.set_num_threads(1)
    assert sum(counted) == 3 * sum(H * W for H, W in sizes)
