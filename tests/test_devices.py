"""Laws of devices: everything moves to the model, and a traversal neither waits for a device nor sends to it.

Most tests need no accelerator: the device "meta" takes its place, with tensors that have no values.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import inside, save_noise
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import pixelcnn.common.devices as devices
from pixelcnn.auxiliary.base import Auxiliary
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.common.devices import computing, exact_products, find_device, naming_memory
from pixelcnn.common.memory import free_memory
from pixelcnn.data.images import load_images
from pixelcnn.models.draw import DrawOptions
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load
from pixelcnn.models.sampling import colorize, complete, sample, upscale
from pixelcnn.tasks.scoring import evaluate, surprisal
from pixelcnn.training.devices import make_accelerator
from pixelcnn.training.loop import train
from pixelcnn.training.options import Run, Training
from pixelcnn.training.steps import warming_average

COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Elsewhere(TorchDispatchMode):
    """A mode in which "meta" is a device of its own: it refuses operations on tensors of two devices.

    A value that is read from it is zero or true. `sent` and `reads` count the copies to it and the values read from it.
    """

    sent = reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        places = {tensor.device.type for tensor in tensors if tensor.dim() > 0 or tensor.device.type == "meta"}
        if func in COPIES:
            target = kwargs.get("device") or args[0].device
            self.sent += target.type == "meta" and "cpu" in {tensor.device.type for tensor in tensors}
            if target.type == "cpu" and "meta" in places:
                return torch.zeros(tensors[-1].shape, dtype=kwargs.get("dtype") or tensors[-1].dtype)
        elif len(places) > 1:
            raise AssertionError(f"{func} of tensors on {' and '.join(sorted(places))}")
        if func is torch.ops.aten._local_scalar_dense.default and "meta" in places:
            self.reads += 1
            return {torch.bool: True}.get(args[0].dtype, 0.0 if args[0].is_floating_point() else 0)
        return func(*args, **kwargs)


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    with Elsewhere() as mode:
        yield mode


def tiny(*chain: Auxiliary, classes: int = 0) -> ImageModel:
    torch.manual_seed(0)
    scales = 1 if len(chain) > 1 else 2
    return ImageModel(
        3, 256, chain, filters=4, blocks=1, scales=scales, components=2, embedding_blocks=1, classes=classes
    ).eval()


X = torch.zeros(2, 3, 5, 6, dtype=torch.uint8)
LABELS = torch.tensor([0, 1])
QUESTIONS: dict[str, Callable[[ImageModel], Any]] = {
    "log_prob": lambda model: model.log_prob(X, LABELS),
    "bits_per_dim": lambda model: model.bits_per_dim(X, LABELS),
    "views": lambda model: model.views(X),
    "links": lambda model: [each for link in model.links(X) for each in link if each is not None],
    "surprisal": lambda model: surprisal(model, X, LABELS),
    "sample": lambda model: sample(model, 2, (5, 6), labels=LABELS),
    "sample freely": lambda model: sample(model, 2, (5, 6), labels=LABELS, options=DrawOptions(consistent=False)),
    "sample in raster order": lambda model: sample(model, 2, labels=LABELS, options=DrawOptions(schedule="raster")),
    "sample naively": lambda model: sample(model, 2, (5, 6), labels=LABELS, options=DrawOptions(schedule="naive")),
    "sample given a view": lambda model: sample(model, 2, (5, 6), labels=LABELS, given=(2, gray(model))),
    "model.sample": lambda model: model.sample(2, 5, labels=LABELS),
}


def gray(model: ImageModel) -> Tensor:
    channels, _ = model.formats[2]
    return torch.zeros(2, channels, 3, 3, dtype=torch.uint8)


@pytest.mark.parametrize("question", QUESTIONS)
def test_inputs_move_to_the_model(question: str, elsewhere: Elsewhere) -> None:
    """Law: images, labels, masks and views on the CPU are moved, and the answer is on the device of the model."""
    model = tiny(Downsample(2), QuantizedGrayscale(4), classes=2).to("meta")
    model.size = (5, 6)
    answer = QUESTIONS[question](model)
    assert {tensor.device.type for tensor in tree_leaves(answer)} == {"meta"}
    assert elsewhere.sent > 0


def test_pictures_move_to_the_model_and_back(elsewhere: Elsewhere) -> None:
    """Law: what is drawn from images comes back to where they were.

    `complete` cannot be tried without values, since it asks which pixels are partly known.
    """
    gray, pyramid = tiny(QuantizedGrayscale(4)).to("meta"), tiny(Downsample(2), classes=2).to("meta")
    small = X[:, :, :2, :3]  # the mode is slow
    for x in (small, small[:, :1]):
        assert colorize(gray, x).device.type == "cpu"
    assert upscale(pyramid, small, labels=LABELS).device.type == "cpu"
    assert upscale(pyramid, small.to("meta"), labels=LABELS).device.type == "meta"
    assert elsewhere.sent > 0


def test_images_to_evaluate_move_to_the_model(elsewhere: Elsewhere) -> None:
    """Law: also those of a data set."""
    result = evaluate(tiny(Downsample(2)).to("meta"), load_images("photos", "test", size=8), limit=2)
    assert result.images == 2
    assert elsewhere.sent > 0


def test_the_mode_can_fail(elsewhere: Elsewhere) -> None:
    """Law: the laws above can fail: a factor does not move what it is given."""
    factor = tiny().to("meta").factors[0]
    with pytest.raises(AssertionError, match="tensors on cpu and meta"):
        factor(X, None, None)


@pytest.mark.parametrize("consistent", [False, True])
@pytest.mark.parametrize("schedule", ["raster", "wavefront"])
def test_a_traversal_does_not_wait_for_its_device(schedule: Any, consistent: bool, elsewhere: Elsewhere) -> None:
    """Law: with four times as many groups there are as many transfers, and at most two more values read."""
    model = tiny(Downsample(2), Downsample(2)).to("meta")
    counts = []
    for width in (5, 20):
        elsewhere.sent = elsewhere.reads = 0
        sample(model, 1, (2, width), options=DrawOptions(schedule=schedule, consistent=consistent))
        counts.append((elsewhere.sent, elsewhere.reads))
    (sent, reads), (more_sent, more_reads) = counts
    assert more_sent == sent
    assert more_reads <= reads + 3 * 2  # for each factor


def test_devices_that_do_not_exist_are_named(tmp_path: Path) -> None:
    """Law: one line lists the devices there are, in Python and on the command line, before anything is done."""
    save_noise(tmp_path, 2, (8, 8))
    for device in ("gpu", "tpu", "cuda:77", "meta", "", "AUTO"):
        with pytest.raises(ValueError, match=f"device='{device}': there is no such device; use cpu"):
            find_device(device)
        with pytest.raises(ValueError, match=f"device='{device}'"):
            load("photos-pyramid", device=device)
        with pytest.raises(ValueError, match=f"device='{device}'"):
            train(tiny(), load_images(tmp_path), tmp_path / "run", steps=1, run=Run(device=device))
    assert not (tmp_path / "run").exists()
    picture = tmp_path / "0.png"
    for verb in (
        ("sample", "photos-pyramid", "--out", tmp_path / "out"),
        ("evaluate", "photos-pyramid", "--limit", 1),
        ("score", "photos-pyramid", picture),
        ("upscale", "photos-pyramid", picture, "--out", tmp_path / "out"),
        ("complete", "photos-pyramid", picture, "--box", 0, 0, 2, 2, "--out", tmp_path / "out"),
        ("colorize", "faces32-grayscale", picture, "--out", tmp_path / "out"),
        ("report", "photos-pyramid", "--out", tmp_path / "out"),
        ("train", "photos32-pyramid-small", "--out", tmp_path / "out"),
        ("demo", "--out", tmp_path / "out"),
    ):
        done = inside(*verb, "--device", "cuda:77")
        assert done.returncode == 2, done
        assert done.stderr.splitlines()[-1].startswith("pixelcnn: device='cuda:77': there is no such device; use cpu")
    assert not (tmp_path / "out").exists()


def test_the_device_can_be_chosen(tmp_path: Path) -> None:
    """Law: "auto" is the accelerator if there is one; Python loads to the CPU unless told."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    assert find_device("auto") == (accelerator or torch.device("cpu"))
    assert load("photos-pyramid").device == torch.device("cpu")
    done = inside("sample", "photos-pyramid", "-n", 1, "--size", 4, "--device", "cpu", "--out", tmp_path / "a.png")
    assert done.returncode == 0


def test_an_accelerator_is_found_and_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: with two of them, all names are offered, and "auto" takes the current one."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert find_device("auto").type == "cuda"
    assert find_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="use cpu or cuda or cuda:0 or cuda:1"):
        find_device("cuda:2")


def test_training_goes_where_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: to the CPU although there is an accelerator, to a GPU by its number, one after another."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.accelerator, "is_available", lambda: True)
        patch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
        patch.setattr(torch.accelerator, "device_count", lambda: 2)
        patch.setattr("accelerate.state.PartialState.default_device", torch.device("cuda"))
        for device in ("cpu", "cuda", "cuda:1", "cpu"):
            assert make_accelerator(Training(), tmp_path, device).device == torch.device(device)
    assert make_accelerator(Training(), tmp_path, "cpu").device == torch.device("cpu")


def full(*_: object, **__: object) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has ...")


def test_a_full_device_is_a_memory_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Law: where drawing, scoring and training run out of memory, the error is one line with a remedy."""
    model = tiny(Downsample(2))
    save_noise(tmp_path, 2, (8, 8))
    monkeypatch.setattr(nn.functional, "conv2d", full)
    monkeypatch.setattr(torch, "addmm", full)
    asked: list[tuple[Callable[[], object], str]] = [
        (lambda: sample(model, 1, 4), "draw fewer images at once"),
        (lambda: model.log_prob(X), "score fewer images at once; pixelcnn.surprisal"),
        (lambda: surprisal(model, X), "end other programs"),
        (
            lambda: train(tiny(), load_images(tmp_path), tmp_path / "run", Training(2), steps=1, run=Run(device="cpu")),
            "--accumulate 2",
        ),
    ]
    for ask, remedy in asked:
        with pytest.raises(MemoryError, match=f"^the memory of 'cpu' is full: .*{remedy}") as error:
            ask()
        assert "\n" not in str(error.value)


def test_only_errors_of_memory_are_turned() -> None:
    """Law: that of torch's allocator on a CPU is one; other errors stay what they are."""
    with (
        pytest.raises(MemoryError, match="the memory of 'cpu' is full: wait"),
        naming_memory(torch.device("cpu"), "wait"),
    ):
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="size of tensor a"), naming_memory(torch.device("cpu"), "wait"):
        torch.add(torch.zeros(2), torch.zeros(3))


class Setting:
    def __init__(self, precision: str) -> None:
        self.fp32_precision = precision


def test_products_are_exact_and_the_setting_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: TF32 is off inside, also when computations overlap or fail, and on again when the last one is done."""
    products, convolutions, other = Setting("none"), Setting("tf32"), Setting("bf16")
    both = (products, convolutions, other)
    monkeypatch.setitem(devices._PRECISIONS, "meta", devices._Precision(*both))
    device = torch.device("meta")

    def precisions() -> list[str]:
        return [each.fp32_precision for each in both]

    first, second = exact_products(device), exact_products(device)
    first.__enter__()
    second.__enter__()
    assert precisions() == ["none", "ieee", "ieee"]
    first.__exit__(None, None, None)
    assert precisions() == ["none", "ieee", "ieee"]
    second.__exit__(None, None, None)
    assert precisions() == ["none", "tf32", "bf16"]
    with pytest.raises(KeyboardInterrupt), exact_products(device):
        raise KeyboardInterrupt
    assert precisions() == ["none", "tf32", "bf16"]


def test_a_cpu_does_not_round_products_either() -> None:
    """Law: whatever `torch.set_float32_matmul_precision` says; and it says the same afterwards."""
    usual, products = torch.get_float32_matmul_precision(), vars(torch.backends)["mkldnn"].matmul
    try:
        torch.set_float32_matmul_precision("medium")
        assert products.fp32_precision == "bf16"
        with computing(nn.Linear(2, 2), 1, ""):
            assert products.fp32_precision == "ieee"
        assert torch.get_float32_matmul_precision() == "medium"
        assert products.fp32_precision == "bf16"
    finally:
        torch.set_float32_matmul_precision(usual)


def test_memory_that_the_allocator_can_reuse_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: what torch keeps of a GPU counts; processes that share a GPU share the rest."""
    for name, value in {"mem_get_info": (800, 1000), "memory_reserved": 150, "memory_allocated": 50}.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert free_memory(torch.device("cuda")) == 900
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert free_memory(torch.device("cuda")) == 900
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory(torch.device("cuda")) == 500


@pytest.mark.parametrize("decay", [0.3, 0.9995])
def test_the_average_is_the_same_to_the_bit(decay: float) -> None:
    """Law: all tensors at once are averaged as they are one by one."""
    generator = torch.Generator().manual_seed(0)
    averaged, expected = ([torch.randn(n, generator=generator.manual_seed(n)) for n in (3, 70)] for _ in range(2))
    for n in range(30):
        current = [torch.randn(len(mean), generator=generator) for mean in averaged]
        warming_average(decay)(averaged, current, torch.tensor(n))
        for mean, tensor in zip(expected, current, strict=True):
            mean.lerp_(tensor, 1 - min(decay, (1 + n) / (10 + n)))
    assert all(torch.equal(a, b) for a, b in zip(averaged, expected, strict=True))


@needs_gpu
def test_a_gpu_scores_as_a_cpu_does() -> None:
    """Law: the bits of the shipped model agree within 1e-4, whatever the user's setting of TF32."""
    x = load_images("photos", "test", size=32).batch(range(4))
    expected = load("photos-pyramid").bits_per_dim(x).factors
    found = load("photos-pyramid", device="cuda").bits_per_dim(x).factors
    assert found.device.type == "cuda"
    assert torch.allclose(found.cpu(), expected, atol=1e-4)


@needs_gpu
def test_a_gpu_draws_as_a_cpu_does() -> None:
    """Law: the same seed gives the same image, but for draws on an edge between two levels."""
    expected, found = (sample(load("photos-pyramid", device=device), 2, 16)[-1].cpu() for device in ("cpu", "cuda"))
    assert (expected.long() - found.long()).abs().max() <= 1
    small = load_images("photos", "test", size=8).batch(range(2))
    model = load("photos-pyramid", device="cuda")
    assert torch.equal(model.views(upscale(model, small))[1].cpu(), small)
    unknown = torch.arange(8).expand(8, 8) >= 4
    assert torch.equal(complete(model, small, unknown).cpu()[:, :, ~unknown], small[:, :, ~unknown])


@needs_gpu
def test_a_gpu_trains(tmp_path: Path) -> None:
    """Law: a step moves the weights, and the averaged model is on the GPU; `device="cpu"` stays on the CPU."""
    save_noise(tmp_path, 4, (8, 8))
    for device in ("cuda", "cpu"):
        options = {"steps": 1, "run": Run(sheet_minutes=0, device=device)}
        model = train(tiny(), load_images(tmp_path), tmp_path / device, Training(batch_size=2), **options)
        assert model.device.type == device
        assert math.isfinite(float(model.log_prob(X).sum()))
