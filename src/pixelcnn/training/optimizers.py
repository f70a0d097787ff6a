"""Optimizers: Adam, and Muon for the directions of the weights.

Every weight here is `gain * direction / |direction|`. For Muon each direction is a matrix D (outputs x the rest), and
with G its gradient a step of the rate `r` is

    M <- m M + G
    O  = orthogonal(G + m M)           all singular values about 1, by five Newton-Schulz steps
    D <- D - r |D| O / |O|             then scaled back to the norm that it had, which changes no weight

so that a rate is the share of a direction that one step replaces: 0.015 for fresh weights, a fifth of that for trained
ones. Gains, biases and everything else that is no matrix go by Adam, at a fixed share of that rate.
`torch.optim.Muon` takes matrices alone, and its steps do not scale with the weights.

References:
    Jordan et al., Muon: an optimizer for hidden layers in neural networks (2024).
    Kingma & Ba, Adam (ICLR 2015).
"""

__all__ = ["OPTIMIZERS", "Muon", "make_optimizers", "orthogonalize", "set_rate"]

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

ADAM_SHARE = 0.25  # of Muon's rate, for what is no matrix (docs/learning.md)
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al.: the steepest that keep singular values near 1
NEWTON_SCHULZ_STEPS = 5
TINY = 1e-30  # a gradient of zeros has no direction, and gives no step


def orthogonalize(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrices, roughly: singular values between 0.7 and 1.2, (..., m, n) to (..., m, n).

    Zeros stay zeros.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(TINY)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(Optimizer):
    """Momentum whose steps are made orthogonal, for parameters of which only the direction counts (see the module).

    Args:
        params: parameters (outputs, ...) of at least two dimensions, which a layer divides by their norm.
        lr: the share of a parameter's norm that a step is long.
        momentum: m, Nesterov's.

    Example:
        >>> weight = torch.nn.Parameter(torch.eye(2))
        >>> (weight / weight.norm())[0, 0].neg().backward()
        >>> Muon([weight], lr=0.1).step()
        >>> weight.norm().item()  # as before: sqrt(2)
        1.41421...
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Make a step; there is no closure to call again."""
        if closure is not None:
            raise ValueError("closure: Muon looks at gradients once; leave it out")
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for parameters in alike.values():  # matrices of one shape are multiplied together
                self._step(parameters, group["lr"], group["momentum"])

    def _step(self, parameters: list[nn.Parameter], rate: float, m: float) -> None:
        ahead = []
        for parameter in parameters:
            gradient = cast(Tensor, parameter.grad)
            momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
            momentum.mul_(m).add_(gradient)
            ahead.append(gradient.add(momentum, alpha=m).flatten(1))
        steps = orthogonalize(torch.stack(ahead))
        steps *= rate / torch.linalg.matrix_norm(steps, keepdim=True).clamp_min(TINY)
        for parameter, step in zip(parameters, steps.unflatten(2, parameters[0].shape[1:]), strict=True):
            norm = torch.linalg.vector_norm(parameter)
            parameter.sub_(norm * step)
            parameter.mul_(norm / torch.linalg.vector_norm(parameter))


class Rates(NamedTuple):
    """The learning rates of an optimizer: the usual one, and the highest that makes any sense."""

    usual_rate: float
    highest_rate: float


OPTIMIZERS = {"adam": Rates(0.001, 1.0), "muon": Rates(0.015, 0.5)}
"""The names that `make_optimizers` knows."""


def make_optimizers(network: nn.Module, name: str, moments: tuple[float, float] = (0.9, 0.999)) -> list[Optimizer]:
    """The optimizers of all parameters of a network, which step together; `set_rate` sets their rate.

    Args:
        network: of the layers of this package, whose weights are named `direction`.
        name: "adam", or "muon" for the directions with Adam for the rest.
        moments: Adam's decay of the mean gradient and of its square.
    """
    if name == "adam":
        return [Adam([{"params": list(network.parameters()), "share": 1.0}], betas=moments, fused=True)]
    directions, rest = [], []
    for path, parameter in network.named_parameters():
        (directions if path.endswith("direction") else rest).append(parameter)
    return [
        Muon([{"params": directions, "share": 1.0}], lr=0.0),
        Adam([{"params": rest, "share": ADAM_SHARE}], betas=moments, fused=True),
    ]


def set_rate(optimizers: Iterable[Optimizer], rate: float) -> None:
    """Set the learning rate of the next step."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
