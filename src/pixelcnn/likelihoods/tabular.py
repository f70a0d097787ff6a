"""Likelihoods that list the probability of every level of a channel in a table."""

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
    """A likelihood that lists every level: a subclass defines `num_params` and `logits`, and the rest follows.

    There is no scale, so `scale_shift` has no effect. Each level counts as a component whose mode is itself, so
    `map=True` gives an ordinary draw.

    Example:
        >>> import torch
        >>> from dataclasses import dataclass
        >>> from pixelcnn import TabularLikelihood, check_likelihood
        >>> @dataclass(frozen=True)
        ... class Geometric(TabularLikelihood):
        ...     levels: int
        ...     channels: int = 1
        ...
        ...     @property
        ...     def num_params(self):
        ...         return 1
        ...
        ...     def logits(self, params, x, channel):
        ...         return params * torch.arange(self.levels).view(-1, *[1] * (params.dim() - 2))
        >>> check_likelihood(Geometric(levels=5))
    """

    @abstractmethod
    def logits(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
        """Compute the log-probability of every level of a channel, up to a constant.

        Args:
            params: float (B, P, ...).
            x: integers (B, C, ...). Only the channels before this one may be read.
            channel: from 0 to C - 1.

        Returns:
            (B, levels, ...).
        """

    def _bounded_logits(self, params: Tensor, x: Tensor, channel: int, bounds: Bounds | None) -> Tensor:
        """Compute the logits (B, levels, ...), with minus infinity outside the bounds (B, ...) of this channel."""
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
            # Rounding can put the noise above the sum of all possible levels.
            x[:, channel] = value if between is None else value.minimum(between.highest)
        return x


@register_likelihood
@dataclass(frozen=True)
class Categorical(TabularLikelihood):
    """A free probability for every level of one channel: a softmax over `levels` values.

    Args:
        levels: the number of levels, at least 2.

    Example:
        >>> import torch
        >>> from pixelcnn import Categorical
        >>> params = torch.log(torch.tensor([0.5, 0.25, 0.25])).view(1, 3, 1)
        >>> Categorical(levels=3).log_prob(params, x=torch.tensor([[[1]]])).exp()
        tensor([[0.2500]])
    """

    levels: int
    channels: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        check_whole(levels=self.levels, at_least=2)

    @property
    def num_params(self) -> int:
        return self.levels

    def logits(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
        return params
