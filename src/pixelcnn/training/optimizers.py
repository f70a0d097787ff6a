"""Optimizers: Adam, and Muon for the directions of the weights.

Every weight in this package is `gain * direction / |direction|`. Muon treats each direction as a matrix D (outputs x
everything else). With its gradient G, a step at rate `r` is

    M <- m M + G
    O  = orthogonal(G + m M)           all singular values about 1, by five Newton-Schulz steps
    D <- D - r |D| O / |O|             then scaled back to its previous norm, which changes no weight

so the rate is the share of a direction that one step replaces: 0.015 for fresh weights, a fifth of that for trained
ones. Adam updates the gains, biases and everything else that is not a matrix, at a fixed share of that rate. We do not
use `torch.optim.Muon`, since it takes only matrices and its steps do not scale with the weights.

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

ADAM_SHARE = 0.25  # of Muon's rate, for parameters that are not matrices (docs/learning.md)
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al.: the steepest at 0 that keep singular values near 1
NEWTON_SCHULZ_STEPS = 5
TINY = 1e-30  # so that a gradient of zeros gives no step instead of NaN


def orthogonalize(matrices: Tensor) -> Tensor:
    """Approximate the nearest orthogonal matrices, (..., m, n) to (..., m, n).

    Singular values end up between 0.7 and 1.2, and zeros stay zeros.
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
    """Momentum with orthogonalized steps, for parameters of which only the direction matters (see the module).

    Args:
        params: parameters (outputs, ...) with at least two dimensions, which the layer divides by their norm.
        lr: the length of a step, as a share of the parameter's norm.
        momentum: the Nesterov momentum, m above.

    Example:
        >>> weight = torch.nn.Parameter(torch.eye(2))
        >>> (weight / weight.norm())[0, 0].neg().backward()
        >>> Muon([weight], lr=0.1).step()
        >>> weight.norm().item()  # unchanged: sqrt(2)
        1.41421...
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take a step; closures are not supported."""
        if closure is not None:
            raise ValueError("closure: Muon does not support closures; leave it out")
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for parameters in alike.values():  # matrices of the same shape are batched
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
    """The learning rates of an optimizer: the usual one, and the highest we accept."""

    usual_rate: float
    highest_rate: float


OPTIMIZERS = {"adam": Rates(0.001, 1.0), "muon": Rates(0.015, 0.5)}
"""The optimizers that `make_optimizers` knows, by name."""


def make_optimizers(network: nn.Module, name: str, moments: tuple[float, float] = (0.9, 0.999)) -> list[Optimizer]:
    """Create the optimizers of a network, which together cover all its parameters; `set_rate` sets their rate.

    Args:
        network: a network made of this package's layers, which call their weights `direction`.
        name: "adam", or "muon" to use Muon for the directions and Adam for the rest.
        moments: Adam's decay rates for the mean gradient and its square.
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
