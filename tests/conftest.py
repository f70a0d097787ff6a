"""Tools that the tests share: settings, networks with generic weights, a test of draws, and the command line."""

import io
import math
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from scipy.stats import chisquare
from torch import Tensor, nn

from pixelcnn.apps.cli.main import main
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.sampling import sample_views
from pixelcnn.traversal.cached import CachedNetwork
from pixelcnn.traversal.schedule import groups

torch.set_num_threads(1)  # the networks here are too small to gain from a second thread
settings.register_profile("laws", deadline=None, max_examples=10, derandomize=True)
settings.load_profile("laws")

Scramble = Callable[..., nn.Module]
# The first lines of a script that measures its own memory: `watch`, run in a thread, keeps the highest in `peak[0]`.
WATCH_MEMORY = """
import threading, time
from pathlib import Path

def resident():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])

def watch():
    while True:
        peak[0] = max(peak[0], resident())
        time.sleep(0.002)

peak = [0]
"""
SIGNIFICANCE = 1e-3  # of the chi-squared tests; the seeds are fixed, so a test passes always or never


def assert_follows(counts: Tensor, probabilities: Tensor) -> None:
    """Test counts against probabilities (chi-squared); cells with fewer than five expected are merged."""
    expected = probabilities.double() / probabilities.double().sum() * counts.sum()
    rare = expected < 5
    f_obs = torch.cat([counts[~rare], counts[rare].sum()[None]])
    f_exp = torch.cat([expected[~rare], expected[rare].sum()[None]])
    kept = f_exp > 0
    assert f_obs[~kept].sum() == 0
    assert chisquare(f_obs[kept].numpy(), f_exp[kept].numpy()).pvalue > SIGNIFICANCE


def visit(cached: CachedNetwork, x: Tensor, lag: int | None) -> Tensor:
    """Show a cached network the pixels of x group by group: the parameters that it gave, (B, P, H, W)."""
    H, W = x.shape[2:]
    shown = torch.full((len(x), cached.output.features, H, W), math.nan, dtype=torch.float64)
    for group in groups((H, W), lag):
        rows, cols = group.pixels(lag or W)
        shown[:, :, rows, cols] = cached.params(group).double()
        cached.update(group, x[:, :, rows, cols])
    return shown


@pytest.fixture(scope="session")
def scramble() -> Scramble:
    """Make a module exact and generic: float64, without dropout, and with noise added to every parameter."""

    def scrambled(module: nn.Module, seed: int = 0, noise: float = 0.3) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.double().eval().parameters():
                parameter.add_(noise * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
        return module

    return scrambled


def all_views(model: ImageModel, *arguments: Any, **options: Any) -> list[Tensor]:
    """Draw images with their views x_0, ..., x_K."""
    return [view for _, view in sample_views(model, *arguments, **options)][::-1]


def save_noise(folder: Path, number: int, size: tuple[int, int]) -> Path:
    """Save pictures of noise (H, W) in a folder."""
    random = np.random.default_rng(0)
    for i in range(number):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def pixelcnn(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "pixelcnn", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def inside(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, which is faster."""
    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.setattr("sys.argv", ["pixelcnn", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
    code = exit.value.code
    return subprocess.CompletedProcess([], code if isinstance(code, int) else 0, output.getvalue(), errors.getvalue())
