"""Laws of the compiled kernel: it computes what plain torch does, on every processor that it is compiled for."""

import ctypes
import warnings
from collections.abc import Iterator
from time import sleep

import pytest
import torch
from conftest import Scramble, visit
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pixelcnn.apps.cli.main import _show_warning
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.common import kernel
from pixelcnn.common.kernel import PROCESSORS, MissingKernelWarning, find_kernel, using_processor
from pixelcnn.models.draw import DrawOptions, position_noise
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.pixel_draw import Canvas, PixelDraw
from pixelcnn.nn.causal import CausalNetwork
from pixelcnn.nn.grid import Bound, freeze
from pixelcnn.traversal import loop as traversal
from pixelcnn.traversal.cached import CachedNetwork
from pixelcnn.traversal.compiled import CompiledProgram
from pixelcnn.traversal.plain import PlainProgram

LEVELS = 16
SIZES = st.tuples(st.integers(1, 30), st.integers(1, 14))


def here() -> list[str]:
    """The processors that this machine can stand in for."""
    return [name for bits, name in PROCESSORS.items() if bits <= kernel._library()[1]]


def test_there_is_a_kernel() -> None:
    """On the machines that run these tests, so that they do not pass for want of it."""
    assert here()
    found = find_kernel()
    assert found is not None
    assert found.processor == here()[-1]


def traverse(network: CausalNetwork, x: Tensor, context: Tensor | None, lag: int | None, dtype: torch.dtype) -> Tensor:
    """Show a cached network the pixels of x: the parameters that it gave, (B, P, H, W)."""
    B, _, H, W = x.shape
    cached = CachedNetwork(network, (H, W), B, context, lag=lag, dtype=dtype)
    assert isinstance(cached.program, CompiledProgram if find_kernel() else PlainProgram)
    return visit(cached, x, lag)


@pytest.fixture
def _many_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Share every step among three threads."""
    monkeypatch.setattr("pixelcnn.common.threads.SHARE", 1)
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_many_threads")
@pytest.mark.parametrize("processor", PROCESSORS.values())
@pytest.mark.parametrize("exact", [False, True])
@given(
    size=SIZES,
    batch=st.integers(1, 4),
    channels=st.sampled_from([1, 3]),
    filters=st.integers(1, 40),
    blocks=st.integers(1, 2),
    scales=st.integers(1, 3),
    context=st.sampled_from([0, 2]),
    more_lag=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_a_traversal_is_that_of_plain_torch(
    scramble: Scramble,
    processor: str,
    exact: bool,
    size: tuple[int, int],
    batch: int,
    channels: int,
    filters: int,
    blocks: int,
    scales: int,
    context: int,
    more_lag: int,
    seed: int,
) -> None:
    """Law: in float32 up to rounding, and in exact arithmetic to the last bit, for all shapes and any threads."""
    if processor not in here():
        pytest.skip(f"this machine has no {processor}")
    torch.manual_seed(seed)
    network = CausalNetwork(
        channels, LEVELS, 7, filters=filters, blocks=blocks, scales=scales, context=context, dropout=0
    )
    scramble(network, seed)
    x = torch.randint(LEVELS, (batch, channels, *size))
    given = torch.randn(batch, context, *size, dtype=torch.float64) if context else None
    dtype = torch.float32
    if exact:
        freeze(network, Bound(2**22, 1) if context else None)
        given, dtype = None if given is None else (given * 1024).round(), torch.float64
    else:
        network.float()
        given = None if given is None else given.float()
    lags: list[int | None] = [None]
    if network.lag is not None and network.lag + more_lag < size[1]:
        lags.append(network.lag + more_lag)
    for lag in lags:
        with using_processor(None):
            plain = traverse(network, x, given, lag, dtype)
        with using_processor(processor):
            compiled = traverse(network, x, given, lag, dtype)
        if exact:
            assert torch.equal(compiled, plain)
        else:
            torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-4)


def test_values_beyond_the_levels_do_no_harm() -> None:
    """Law: whatever a fill gives, the kernel stays within its memory."""
    network = CausalNetwork(1, LEVELS, 7, filters=4, blocks=1, scales=1).eval()
    x = torch.full((1, 1, 5, 9), 2**40)
    x[:, :, ::2] = -(2**40)
    assert traverse(network, x, None, 4, torch.float32).isfinite().all()


@pytest.mark.parametrize(
    ("library", "reason"),
    [((None, 0), "it is not there"), ((ctypes.CDLL(None), 0), "processors with AVX2")],
    ids=["missing", "another processor"],
)
def test_without_a_kernel_there_is_plain_torch(
    library: tuple[object, int], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: a kernel that is missing, or does not fit the processor, is said in one line, once."""
    monkeypatch.setattr(kernel, "_library", lambda: library)
    network = CausalNetwork(1, LEVELS, 7, filters=4, blocks=1, scales=1).eval()
    x = torch.randint(LEVELS, (1, 1, 5, 9))
    forget = kernel._kernel.cache_clear, kernel._say_why.cache_clear
    for each in forget:
        each()
    try:
        with pytest.warns(MissingKernelWarning, match=reason) as said:
            shown = traverse(network, x, None, 4, torch.float32)
        assert len(said) == 1
        assert "\n" not in str(said[0].message)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(traverse(network, x, None, 4, torch.float32), shown)
    finally:
        for each in forget:
            each()
    with torch.no_grad():
        torch.testing.assert_close(shown.float(), network(x))


def test_a_file_that_is_no_library_counts_as_missing(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a kernel built for another kind of machine does not stop anything."""
    path = tmp_path / "_kernel.abi3.so"
    path.write_bytes(b"\x7fELF")
    spec = type("Spec", (), {"origin": str(path)})
    monkeypatch.setattr(kernel, "find_spec", lambda name: spec)
    assert kernel._library.__wrapped__() == (None, 0)


@pytest.mark.parametrize("processor", PROCESSORS.values())
@given(size=SIZES, batch=st.integers(1, 3), consistent=st.booleans(), scales=st.integers(1, 2), seed=st.integers(0, 99))
def test_many_groups_at_once_are_the_same_as_one_by_one(
    scramble: Scramble, processor: str, size: tuple[int, int], batch: int, consistent: bool, scales: int, seed: int
) -> None:
    """Law: whether somebody looks at the canvas after each group changes nothing, to the last bit."""
    if processor not in here():
        pytest.skip(f"this machine has no {processor}")
    torch.manual_seed(seed)
    model = ImageModel(3, 256, [Downsample(2)], filters=5, blocks=1, scales=scales, embedding_blocks=1)
    scramble(model, seed)
    model.float()
    seen: list[int] = []
    with using_processor(processor):
        watched = DrawOptions(consistent=consistent, callback=lambda k, canvas: seen.append(k))
        alone = DrawOptions(consistent=consistent)
        assert torch.equal(
            model.sample(batch, size, seed=seed, options=watched), model.sample(batch, size, seed=seed, options=alone)
        )
    assert set(seen) == {0, 1}


def test_a_network_that_fails_in_the_middle_of_many_groups_names_the_pixel(scramble: Scramble) -> None:
    """Law: parameters that are not finite are reported where they begin, and the pixels before are kept."""
    model = ImageModel(1, 256, filters=4, blocks=1, scales=1)
    scramble(model)
    model.float()
    factor, canvas = model.factors[0], torch.zeros(2, 1, 9, 13, dtype=torch.uint8)
    noise = position_noise(factor, (9, 13), [1, 2])
    context = torch.zeros(2, 4, 9, 13)
    context[1, 2, 5, 3] = torch.inf
    network = CausalNetwork(1, 256, factor.likelihood.num_params, filters=4, blocks=1, scales=1, context=4).eval()
    messages = []
    for processor in (None, *here()):
        with using_processor(processor):
            evaluator = CachedNetwork(network, (9, 13), 2, context, lag=4)
            fill = PixelDraw(factor.likelihood, Canvas(noise))
            with pytest.raises(FloatingPointError, match="row 5, column 2 of image 1") as error:
                traversal.traverse(evaluator, canvas.zero_(), fill, 4)
        messages.append(str(error.value))
        assert canvas[:, :, 0].any()
    assert len(set(messages)) == 1


@pytest.mark.usefixtures("_many_threads")
def test_ctrl_c_waits_for_the_threads_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: nothing is freed while another thread still writes there."""
    network = CausalNetwork(1, LEVELS, 7, filters=4, blocks=1, scales=1).eval()
    program = CachedNetwork(network, (9, 13), 3, lag=4).program
    assert isinstance(program, CompiledProgram)
    done: list[int] = []

    def visit(address: int, phase: int, time: int, start: int, end: int) -> None:
        if start == 0:  # the share of this thread
            raise KeyboardInterrupt
        sleep(0.1)
        done.append(start)

    monkeypatch.setattr(program, "_visit", visit)
    with pytest.raises(KeyboardInterrupt):
        program.visit_time(8, 4)
    assert len(done) == 2


def test_a_library_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: its structures may be others, so it counts as missing."""
    monkeypatch.setattr(kernel, "LAYOUT", kernel.LAYOUT + 1)
    assert kernel._library.__wrapped__() == (None, 0)


def test_the_command_line_says_it_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: it comes without the line of the source where it is; other warnings are shown as ever."""
    others: list[object] = []
    monkeypatch.setattr("pixelcnn.apps.cli.main.SHOW_WARNING", lambda *arguments: others.append(arguments))
    old = DeprecationWarning("old"), DeprecationWarning, "file.py", 7
    _show_warning(MissingKernelWarning("without the kernel"), MissingKernelWarning, "file.py", 7)
    _show_warning(*old)
    assert capsys.readouterr().err == "pixelcnn: without the kernel\n"
    assert others == [old]
