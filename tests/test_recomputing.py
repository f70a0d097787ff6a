"""Laws of recomputed activations: the same loss, the same gradient, the same draws, and less memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import inside, save_noise
from torch import Tensor, nn

from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.common.memory import peak_memory
from pixelcnn.data.images import load_images
from pixelcnn.models.exact import exact_twin
from pixelcnn.models.factor import Factor
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.memory import rehearse
from pixelcnn.models.presets import PixelCNN, PyramidPixelCNN
from pixelcnn.nn.blocks import recompute_activations
from pixelcnn.training.loop import train
from pixelcnn.training.options import Run, Training

TINY: dict[str, Any] = {"filters": 4, "blocks": 1, "embedding_blocks": 1, "dropout": 0.5}
Gradient = dict[str, Tensor]


def models() -> list[ImageModel]:
    """Networks with and without scales, with a view, a view and a class, and a class alone."""
    torch.manual_seed(0)
    classes = {"classes": 3, "consistent": False, "scales": [1, 2, 3]}
    chain = [Downsample(2), QuantizedGrayscale(4)]
    return [PyramidPixelCNN(1, **TINY), ImageModel(auxiliaries=chain, **TINY | {"filters": 5}, **classes)]


def inputs(model: ImageModel, k: int, images: int = 3) -> tuple[Tensor, Tensor | None, Tensor | None]:
    x = torch.randint(0, 256, (images, 3, 9, 12), generator=torch.Generator().manual_seed(1))
    view, given = model.links(x)[k]
    return view, given, torch.arange(images) % 3 if model.classes else None


def gradient(factor: Factor, *given: Tensor | None, recompute: bool, bf16: bool = False) -> tuple[Tensor, Gradient]:
    """Compute the loss, and its gradient, from the same random numbers each time; check that as many are drawn."""
    recompute_activations(factor, recompute=recompute)
    factor.zero_grad()
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = -factor(*given).mean()
    torch.rand(())  # so that the backward pass would show in the random state if it left its own behind
    after = torch.get_rng_state()
    loss.backward()
    assert torch.equal(after, torch.get_rng_state())
    return loss.detach(), {name: p.grad.float() for name, p in factor.named_parameters() if p.grad is not None}


def distance(a: Gradient, b: Gradient) -> float:
    """Compute the largest difference of two gradients, as a share of the second, over all parameters."""
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).norm() / (b[name].norm() + 1e-9)) for name in a)


def test_the_gradient_is_the_same() -> None:
    """Law: the loss is equal to the bit and the gradient up to the order of sums, with the same dropout."""
    for model in models():
        for k, factor in enumerate(model.factors):
            given = inputs(model, k)
            factor.train().initialize(*given)
            (kept, expected), (again, found) = (gradient(factor, *given, recompute=r) for r in (False, True))
            assert torch.equal(kept, again)
            assert len(expected) > 0
            assert distance(found, expected) < 1e-5


def test_the_gradient_is_as_good_in_bf16() -> None:
    """Law: in bfloat16, sums in another order differ more, but are no further from the gradient in float32."""
    for model in models():
        for k, factor in enumerate(model.factors):
            given = inputs(model, k)
            factor.train().initialize(*given)
            _, exact = gradient(factor, *given, recompute=False)
            (kept, expected), (again, found) = (gradient(factor, *given, recompute=r, bf16=True) for r in (False, True))
            assert torch.equal(kept, again)
            assert distance(found, exact) < 1.5 * distance(expected, exact)


def test_nothing_else_changes() -> None:
    """Law: without gradients, a network computes and draws the same, in exact arithmetic too, and saves the same."""
    for model in models():
        given = [inputs(model, k) for k in range(len(model.factors))]
        labels = torch.arange(2) if model.classes else None

        def answers(model: ImageModel = model, given: list[Any] = given, labels: Tensor | None = labels) -> list[Any]:
            with torch.no_grad():
                scores = [factor(*each) for factor, each in zip(model.factors, given, strict=True)]
                exact = [exact_twin(factor).params(*each) for factor, each in zip(model.factors, given, strict=True)]
            return [*scores, *exact, model.sample(2, 6, labels=labels, seed=3), *model.state_dict().values()]

        model.eval()
        before, config = answers(), model.config
        recompute_activations(model)
        assert all(torch.equal(a, b) for a, b in zip(before, answers(), strict=True))
        assert model.config == config


def test_the_rehearsal_sees_what_a_real_step_holds() -> None:
    """Law: the estimate is within a tenth of the tensors of a real forward and backward pass, and far below keeping."""
    for model in (PixelCNN(filters=16, blocks=3, scales=2), PyramidPixelCNN(1, filters=16, blocks=2)):
        factor = model.factors[0].train()
        x = torch.randint(0, 256, (4, 3, 32, 32))
        view, given = model.links(x)[0]
        recompute_activations(factor)
        for parameter in factor.parameters():  # the gradients of the weights are counted elsewhere
            parameter.register_post_accumulate_grad_hook(lambda parameter: setattr(parameter, "grad", None))

        def step(factor: nn.Module = factor, view: Tensor = view, given: Tensor | None = given) -> None:
            factor(view, given, consistent=True).sum().backward()

        options: dict[str, Any] = {"learning": True, "consistent": True}
        again, kept = (rehearse(factor, 4, (32, 32), **options, recompute=recompute) for recompute in (True, False))
        assert again == pytest.approx(peak_memory(step), rel=0.1)
        assert again < 0.6 * kept


@pytest.mark.slow
def test_a_run_learns_the_same_and_resumes_either_way(tmp_path: Path) -> None:
    """Law: weights after a few steps are the same up to rounding, also with accumulated parts, and when changing."""
    images = load_images(save_noise(tmp_path, 8, (8, 8)))

    def run(name: str, *ways: tuple[int, bool]) -> dict[str, Tensor]:
        for steps, recompute in ways:
            torch.manual_seed(0)
            model = PyramidPixelCNN(1, **TINY).double()
            how = Training(batch_size=4, accumulate=2, recompute=recompute)
            options = Run(sheet_minutes=0, device="cpu", resume=steps > ways[0][0])
            model = train(model, images, tmp_path / name, how, steps=steps, run=options)
        return model.state_dict()

    kept, again = run("kept", (4, False)), run("again", (4, True))
    changing = run("changing", (2, True), (4, False))
    for name, x in kept.items():
        torch.testing.assert_close(again[name], x, rtol=0, atol=1e-9, msg=name)
        torch.testing.assert_close(changing[name], x.to(changing[name]), rtol=0, atol=1e-6, msg=name)


def test_the_command_line_says_what_training_takes(tmp_path: Path) -> None:
    """Law: a line for each factor on standard error, before its first step."""
    save_noise(tmp_path, 4, (8, 8))
    train = ("train", "photos32-pyramid-small", "--data", tmp_path, "--size", 8, "--steps", 1)
    done = inside(*train, "--batch-size", 2, "--sheet-minutes", 0, "--recompute", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("factor ") and "GB" in line]
    assert [line.split(":")[0] for line in lines] == ["factor 2", "factor 1", "factor 0"]
    assert all(" GB of " in line and line.endswith(" GB that are free") for line in lines)
