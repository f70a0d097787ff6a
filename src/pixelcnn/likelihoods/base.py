"""Distributions of one pixel: families without state, on integers in [0, levels).

A network gives `params` of shape (B, P, ...), an image holds `x` of shape (B, C, ...); the trailing dimensions are the
positions, a whole canvas (H, W) or any group of them (N,). A discretised logistic gives a level v of L the mass

    p(v) = sigmoid((v + 1/2 - m) / s) - sigmoid((v - 1/2 - m) / s)

with the lowest and the highest level taking the tails, so that it sums to one over the levels whatever m and s.

Where it is known between which bounds a channel lies, its distribution given the channels before it is divided by the
mass of the levels between them.

Reference: Salimans et al., PixelCNN++ (ICLR 2017), section 2.1 and equation 2.
"""

__all__ = [
    "LIKELIHOODS",
    "Bounds",
    "Likelihood",
    "NextBounds",
    "check_format",
    "inverse_cdf",
    "register_likelihood",
    "scale_levels",
]

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcnn.common.checks import check_whole
from pixelcnn.common.registry import Registry


def scale_levels(x: Tensor, levels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Integers in [0, levels) as numbers in [-1, 1]: the one place where images are scaled."""
    return x.to(dtype) * (2 / (levels - 1)) - 1


def check_format(channels: object, levels: object) -> None:
    """Raise a ValueError for images that have neither one nor three channels, or a single level."""
    if type(channels) is not int or channels not in (1, 3):
        raise ValueError(f"channels={channels!r}: use 1 (grey) or 3 (red, green, blue)")
    check_whole(levels=levels, at_least=2)


class Bounds(NamedTuple):
    """The least and the greatest value that each sub-pixel may have: integers of the shape of the image."""

    lowest: Tensor
    highest: Tensor


NextBounds = Callable[[list[Tensor]], Bounds]
"""From the channels of a pixel that are drawn already, each (B, ...), to the bounds of the next, each (B, ...)."""


class Likelihood(ABC):
    """A family of distributions over the `channels` integers of one pixel, each in [0, levels).

    With bounds each channel, given the channels before it, is renormalised: divided by its mass between its bounds.
    """

    channels: int
    levels: int

    @property
    @abstractmethod
    def num_params(self) -> int:
        """P, the values a pixel that the network must give."""

    @property
    def num_noise(self) -> int:
        """The uniform numbers that one draw of a pixel uses up."""
        return 2 * self.channels

    def _at_least_float32(self, params: Tensor) -> Tensor:
        """Half precision ends here: likelihoods are float32, or float64 where the network is."""
        if params.shape[1] != self.num_params:
            raise ValueError(f"params of shape {tuple(params.shape)}: the second dimension must be {self.num_params}")
        return params.to(torch.promote_types(params.dtype, torch.float32))

    def initial_stats(self) -> tuple[Tensor, Tensor]:
        """Means and standard deviations of the parameters, (P,) each, that training starts from; by default 0 and 1."""
        return torch.zeros(self.num_params), torch.ones(self.num_params)

    def offset_means(self, params: Tensor, offset: Tensor) -> Tensor:
        """Shift the means of the distributions; by default there are none, and the parameters stay as they are.

        Args:
            params: (B, P, ...), as the network gives them.
            offset: numbers (B, C, ...), about in [0, levels).

        Returns:
            (B, P, ...).
        """
        return params

    @abstractmethod
    def log_prob(self, params: Tensor, x: Tensor, bounds: Bounds | None = None) -> Tensor:
        """Log-probability of every pixel, in nats: (B, P, ...) and integers (B, C, ...) to (B, ...).

        Args:
            params: (B, P, ...).
            x: (B, C, ...); within the bounds.
            bounds: each (B, C, ...); None for all levels.
        """

    @abstractmethod
    def pmf(self, params: Tensor, x: Tensor, channel: int, bounds: Bounds | None = None) -> Tensor:
        """Exact distribution of one channel given the channels of `x` before it: (B, levels, ...), sums to one."""

    @abstractmethod
    def sample(
        self,
        params: Tensor,
        noise: Tensor,
        *,
        scale_shift: float = 0.0,
        map: bool = False,
        bounds: NextBounds | None = None,
    ) -> Tensor:
        """Draw pixels: int64 (B, C, ...), a deterministic function of `params` and `noise`.

        Args:
            params: (B, P, ...).
            noise: (B, num_noise, ...), uniform in [0, 1).
            scale_shift: added to the log-scales; below 0 it reduces the variance (Kolesnikov & Lampert, figure 5).
            map: draw a component, then take its mode instead of a value (same, section 4.2).
            bounds: tells the bounds of a channel when those before it are drawn.
        """


LIKELIHOODS: Registry[Likelihood] = Registry("likelihood", Likelihood)
register_likelihood = LIKELIHOODS.register


def inverse_cdf(logits: Tensor, noise: Tensor) -> Tensor:
    """Index in the second dimension whose share of [0, 1) holds the noise: (B, K, ...), (B, ...) to (B, 1, ...)."""
    cdf = F.softmax(logits, 1).cumsum(1)
    # Rounding may leave the last sum below the noise: the last index takes what is left.
    return (cdf[:, :-1] <= noise[:, None]).sum(1, keepdim=True)
