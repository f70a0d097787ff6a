"""What the tests share: quiet settings, and networks with weights that hide nothing."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import settings
from torch import nn

torch.set_num_threads(1)  # the networks here are so small that a second thread only waits
settings.register_profile("laws", deadline=None, max_examples=15, derandomize=True)
settings.load_profile("laws")

Scramble = Callable[..., nn.Module]


@pytest.fixture(scope="session")
def scramble() -> Scramble:
    """Makes a module exact and generic: float64, without dropout, and every parameter moved at random."""

    def scrambled(module: nn.Module, seed: int = 0, noise: float = 0.3) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.double().eval().parameters():
                parameter.add_(noise * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
        return module

    return scrambled
