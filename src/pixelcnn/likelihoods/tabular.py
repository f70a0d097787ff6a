"""Likelihoods that list the probability of every level of a channel."""

__all__ = ["Categorical", "TabularLikelihood"]

import math
from abc import abstractmethod
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcnn.common.checks import check_whole
from pixelcnn.likelihoods.base import Bounds, Likelihood, NextBounds, inverse_cdf, register_likelihood


class TabularLikelihood(Likelihood):
    """A likelihood from a table of all levels: a subclass gives `num_params` and `logits`, and the rest follows.

    Each draw inverts the distribution function, so `scale_shift` has no effect; and each level is a single point, so
    the mode of what is drawn (`map=True`) is the draw itself.
    """

    @abstractmethod
    def logits(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
        """Log-probability of every level of a channel, up to a constant.

        Args:
            params: float (B, P, ...).
            x: integers (B, C, ...), of which only the channels before this one may be read.
            channel: from 0 to C - 1.

        Returns:
            (B, levels, ...).
        """

    def _bounded_logits(self, params: Tensor, x: Tensor, channel: int, bounds: Bounds | None) -> Tensor:
        """The logits (B, levels, ...), minus infinity for the levels outside of the bounds (B, ...) of this channel."""
        logits = self.logits(self._at_least_float32(params), x, channel)
        if bounds is None:
            return logits
        every = torch.arange(self.levels, device=logits.device).view(-1, *[1] * (logits.dim() - 2))
        lowest, highest = (bound[:, None] for bound in bounds)
        return logits.masked_fill((every < lowest) | (every > highest), -math.inf)

    def log_prob(self, params: Tensor, x: Tensor, bounds: Bounds | None = None) -> Tensor:
        x = x.to(torch.int64)
        parts = []
        for channel in range(self.channels):
            between = None if bounds is None else Bounds(*(bound[:, channel] for bound in bounds))
            table = F.log_softmax(self._bounded_logits(params, x, channel, between), 1)
            parts.append(table.gather(1, x[:, channel, None])[:, 0])
        return torch.stack(parts).sum(0)

    def pmf(self, params: Tensor, x: Tensor, channel: int = 0, bounds: Bounds | None = None) -> Tensor:
        between = None if bounds is None else Bounds(*(bound[:, channel] for bound in bounds))
        return F.softmax(self._bounded_logits(params, x, channel, between), 1)

    def sample(
        self,
        params: Tensor,
        noise: Tensor,
        *,
        scale_shift: float = 0.0,
        map: bool = False,
        bounds: NextBounds | None = None,
    ) -> Tensor:
        B, _, *positions = params.shape
        x = torch.zeros(B, self.channels, *positions, dtype=torch.int64, device=params.device)
        for channel in range(self.channels):
            between = None if bounds is None else bounds(list(x[:, :channel].unbind(1)))
            logits = self._bounded_logits(params, x, channel, between)
            value = inverse_cdf(logits, noise[:, 2 * channel])[:, 0]
            # Rounding may leave some noise above the mass of all possible levels.
            x[:, channel] = value if between is None else value.minimum(between.highest)
        return x


@register_likelihood
@dataclass(frozen=True)
class Categorical(TabularLikelihood):
    """One channel, a free probability for every level: a softmax over `levels` values."""

    levels: int
    channels: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        check_whole(levels=self.levels, at_least=2)

    @property
    def num_params(self) -> int:
        return self.levels

    def logits(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
        return params
