"""Laws of threads: nothing is changed to answer a question, so that any number of threads can ask at once."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest
import torch
from conftest import Scramble, all_views
from torch import Tensor, nn

from pixelcnn.auxiliary.base import Auxiliary
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.common.threads import SHARE, threads_for
from pixelcnn.models.config import ModelOptions
from pixelcnn.models.draw import DrawOptions
from pixelcnn.models.factor import Visit
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.sampling import colorize, complete, sample, sample_views, upscale
from pixelcnn.nn.layers import Dropout
from pixelcnn.tasks.scoring import surprisal

THREADS, ROUNDS = 8, 3
PYRAMID: list[Auxiliary] = [Downsample(2), QuantizedGrayscale(2)]
GRAYSCALE: list[Auxiliary] = [QuantizedGrayscale(2)]
Job = Callable[[ImageModel, int], list[Tensor]]


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    """Let threads take turns every few steps of Python, not every five milliseconds."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


def tiny(scramble: Scramble, chain: list[Auxiliary], *, dropout: float = 0.0, seed: int = 0) -> ImageModel:
    """A model in training mode that is not consistent by itself, so that each task has to ask for it."""
    torch.manual_seed(0)
    sizes: ModelOptions = {"filters": 4, "blocks": 1, "components": 2, "embedding_blocks": 1}
    sizes |= {"scales": 1 if len(chain) > 1 else 2, "dropout": dropout, "consistent": False}
    model = ImageModel(3, 16, chain, **sizes)
    scramble(model, seed)
    return model.train()


def images(seed: int, channels: int = 3, size: tuple[int, int] = (4, 5)) -> Tensor:
    return torch.randint(16, (2, channels, *size), generator=torch.Generator().manual_seed(seed))


def score(model: ImageModel, seed: int) -> list[Tensor]:
    return surprisal(model, images(seed))


def draw(model: ImageModel, seed: int) -> list[Tensor]:
    return all_views(model, 2, (4, 5), seed=seed, options=DrawOptions(scale_shift=-0.1))


def draw_consistently(model: ImageModel, seed: int) -> list[Tensor]:
    views = all_views(model, 2, (4, 5), seed=seed, options=DrawOptions(consistent=True))
    assert all(torch.equal(a, b) for a, b in zip(model.views(views[0]), views, strict=True))
    return views


def fill_in(model: ImageModel, seed: int) -> list[Tensor]:
    x, unknown = images(seed), torch.arange(20).view(4, 5) % 3 == 0
    drawn = complete(model, x, unknown, seed=seed)
    assert torch.equal(drawn.long()[:, :, ~unknown], x[:, :, ~unknown])
    return [drawn]


def enlarge_or_color(model: ImageModel, seed: int) -> list[Tensor]:
    if isinstance(model.auxiliaries[0], QuantizedGrayscale):
        return [colorize(model, images(seed, 1), seed=seed)]
    small = images(seed, size=(2, 3))
    large = upscale(model, small, seed=seed)
    assert torch.equal(model.views(large)[1].long(), small)
    return [large]


def differentiate(model: ImageModel, seed: int) -> list[Tensor]:
    """The gradients, without adding them to what other threads may be adding to."""
    log_prob = model.log_prob(images(seed))
    return [log_prob.detach(), *torch.autograd.grad(log_prob.sum(), list(model.parameters()))]


def differentiate_consistently(model: ImageModel, seed: int) -> list[Tensor]:
    links = zip(model.factors, model.links(images(seed)), strict=True)
    log_probs = [factor(*link, consistent=True) for factor, link in links]
    return [each.detach() for each in log_probs] + list(
        torch.autograd.grad(torch.stack(log_probs).sum(), list(model.parameters()))
    )


WITHOUT_DROPOUT: list[Job] = [score, draw, draw_consistently, fill_in, enlarge_or_color]
JOBS: list[Job] = [*WITHOUT_DROPOUT, differentiate, differentiate_consistently, score]


def in_threads(tasks: list[Callable[[], list[list[Tensor]]]]) -> list[list[list[Tensor]]]:
    """The results of tasks that all begin at the same time; the first error of any."""
    barrier = Barrier(len(tasks))

    def run(task: Callable[[], list[list[Tensor]]]) -> list[list[Tensor]]:
        barrier.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result() for future in [pool.submit(run, task) for task in tasks]]


def assert_same(first: list[list[list[Tensor]]], second: list[list[list[Tensor]]]) -> None:
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("chain", [PYRAMID, GRAYSCALE], ids=str)
@pytest.mark.parametrize("shared", [True, False])
def test_threads_get_what_the_same_calls_get_in_a_row(scramble: Scramble, chain: list[Auxiliary], shared: bool) -> None:
    """Law: eight threads score, draw, enlarge and differentiate at once, and not a bit differs, nor a mode."""
    models = [tiny(scramble, chain)] * THREADS if shared else [tiny(scramble, chain, seed=i) for i in range(THREADS)]

    def task(i: int) -> Callable[[], list[list[Tensor]]]:
        # Each thread begins with another job, so that all kinds of them meet.
        return lambda: [JOBS[(i + r) % len(JOBS)](models[i], 10 * i + r) for r in range(ROUNDS)]

    tasks = [task(i) for i in range(THREADS)]
    in_a_row = [each() for each in tasks]
    before = [modes(model) for model in models]
    assert_same(in_threads(tasks), in_a_row)
    assert [modes(model) for model in models] == before
    assert all(parameter.grad is None for model in models for parameter in model.parameters())
    assert not any(model.consistent for model in models)


def test_a_thread_keeps_its_dropout_while_others_draw(scramble: Scramble) -> None:
    """Law: of one model with dropout, some threads draw and score without it, while others train with it."""
    model = tiny(scramble, PYRAMID, dropout=0.5)
    x, done = images(0), Event()

    def train() -> list[list[Tensor]]:
        number = 0
        while number < 3 or not done.is_set():
            first, second = model.log_prob(x), model.log_prob(x)
            assert first.requires_grad
            assert not torch.equal(first, second)
            number += 1
        return []

    def task(i: int) -> Callable[[], list[list[Tensor]]]:
        return lambda: [job(model, i) for job in WITHOUT_DROPOUT[i:] + WITHOUT_DROPOUT[:i]]

    tasks = [task(i) for i in range(len(WITHOUT_DROPOUT))]
    in_a_row = [each() for each in tasks]
    before = modes(model)
    assert all(before)

    with ThreadPoolExecutor(THREADS) as pool:
        training = [pool.submit(train) for _ in range(THREADS - len(tasks))]
        drawing = [pool.submit(each) for each in tasks]
        try:
            assert_same([future.result() for future in drawing], in_a_row)
        finally:
            done.set()
        for future in training:
            future.result()
    assert modes(model) == before
    assert any(isinstance(module, Dropout) and module.dropped for module in model.modules())


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_between_views_the_caller_has_his_own_mode(scramble: Scramble, grad: bool, training: bool) -> None:
    """Law: `next` on `sample_views` leaves gradients and modes as they are: between views, at the end, when closed."""
    model = tiny(scramble, PYRAMID, dropout=0.5).train(training)
    before = modes(model)

    def check() -> None:
        assert torch.is_grad_enabled() == grad
        assert modes(model) == before
        assert model.log_prob(images(0)).requires_grad == grad
        assert torch.equal(model.log_prob(images(0)), model.log_prob(images(0))) != training

    with torch.set_grad_enabled(grad):
        for _ in sample_views(model, 2, (4, 5)):
            check()
        check()
        views = sample_views(model, 2, (4, 5))
        check()
        next(views)
        views.close()  # pyright: ignore[reportAttributeAccessIssue]  (it is a generator)
        check()

        def stop(k: int, canvas: Tensor) -> None:
            raise RuntimeError("stop")

        with pytest.raises(RuntimeError, match="stop"):
            next(sample_views(model, 2, (4, 5), options=DrawOptions(callback=stop)))
        check()


def test_the_model_of_a_view_leaves_modes_as_they_are(scramble: Scramble) -> None:
    """Law: also where one factor is in training and the rest of the model is not."""
    model = tiny(scramble, PYRAMID, dropout=0.5).eval()
    model.factors[1].train()
    before = modes(model)
    views = [model.of_view(k) for k in range(3)]
    assert modes(model) == before
    assert not any(view.training for view in views)
    assert all(view.training for view in (model.train().of_view(k) for k in range(3)))


def test_modules_of_others_work_while_one_thread_draws(scramble: Scramble) -> None:
    """Law: networks are recorded in one thread, again and again, and forward passes of any module go on in another."""
    model = tiny(scramble, PYRAMID)
    other = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ELU(), nn.Flatten(), nn.Linear(16, 1))
    x = torch.ones(1, 1, 4, 4)
    expected, done = other(x), Event()

    def draw_all() -> None:
        try:
            for seed in range(10):
                sample(model, 1, (2, 2), seed=seed)
        finally:
            done.set()

    with ThreadPoolExecutor(1) as pool:
        drawing, number = pool.submit(draw_all), 0
        while not done.is_set():
            assert torch.equal(other(x), expected)
            assert other(x).requires_grad
            number += 1
        drawing.result()
    assert number > 10


def test_nothing_of_torch_is_patched(scramble: Scramble) -> None:
    """Law: while a network is recorded, and while a canvas is filled, torch is what it was before."""

    def parts() -> list[object]:
        functions = [vars(nn.functional)[name] for name in ("conv2d", "elu", "pad", "pixel_shuffle")]
        return [vars(nn.Module)["__call__"], vars(nn.Module)["__getattr__"], torch.cat, torch.addcmul, *functions]

    model, before, seen = tiny(scramble, PYRAMID), parts(), []

    def look(*_: object) -> None:
        seen.append(all(a is b for a, b in zip(parts(), before, strict=True)))

    factor = model.factors[-1]
    factor.network.down[0][0].register_forward_pre_hook(look)  # the forward pass is run once, to be recorded

    def fill(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        look()
        return torch.zeros(len(params), 1, len(rows), dtype=torch.int64)

    factor.traverse(torch.zeros(1, 1, 3, 3, dtype=torch.uint8), fill, options=Visit("raster"))
    assert seen == [True] * (1 + 9)  # and then the fill looks at every pixel


@pytest.fixture
def _two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def threads_of_a_new_thread() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


@pytest.mark.usefixtures("_two_threads")
def test_a_step_uses_the_threads_that_it_is_worth() -> None:
    """Law: one for a little work, all for much, and never more than the user has set."""
    layer = nn.Linear(100, 100)
    for pixels, threads in ((1, 1), (SHARE // 10**4, 1), (2 * SHARE // 10**4, 2), (10**9, 2), (0, 1)):
        with threads_for(layer, pixels):
            assert torch.get_num_threads() == threads
            assert threads_of_a_new_thread() == 2
        assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    with threads_for(layer, 10**9):
        assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_setting_of_threads_returns(scramble: Scramble, error: type[BaseException]) -> None:
    """Law: after drawing and scoring, between views, after an error and after Ctrl-C: here and for new threads."""
    model, seen = tiny(scramble, PYRAMID), []

    def check() -> None:
        assert torch.get_num_threads() == 2
        assert threads_of_a_new_thread() == 2

    def look(k: int, canvas: Tensor) -> None:
        seen.append(torch.get_num_threads())

    for _ in sample_views(model, 2, (4, 5), options=DrawOptions(callback=look)):
        check()
    assert set(seen) == {1}  # inside, a step is worth one
    for job in (score, draw, draw_consistently, fill_in, lambda model, seed: [model.log_prob(images(seed))]):
        job(model, 0)
        check()

    def stop(k: int, canvas: Tensor) -> None:
        raise error

    with pytest.raises(error):
        sample(model, 2, (4, 5), options=DrawOptions(callback=stop))
    check()


@pytest.mark.usefixtures("_two_threads")
def test_threads_that_draw_at_once_leave_the_setting() -> None:
    """Law: contexts of many threads that overlap in any order leave each thread, and new ones, as they were."""
    layer, ready = nn.Linear(2, 2), Barrier(THREADS)

    def work(i: int) -> Callable[[], list[list[Tensor]]]:
        def run() -> list[list[Tensor]]:
            assert torch.get_num_threads() == 2
            ready.wait()  # a thread that first uses torch while another one changes its setting may start with that
            for _ in range(20):
                assert torch.get_num_threads() == 2
                with threads_for(layer, 1):
                    assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 2
            return []

        return run

    in_threads([work(i) for i in range(THREADS)])
    assert torch.get_num_threads() == 2
    assert threads_of_a_new_thread() == 2
