"""The interface of likelihoods: families of distributions of one pixel, over integers in [0, levels).

A pixel has one or three channels, and the value of one channel of one pixel is a *sub-pixel*. A network gives `params`
of shape (B, P, ...) and an image holds `x` of shape (B, C, ...). The trailing dimensions are the positions: a whole
canvas (H, W), or any group of its pixels (N,).

The main family is built from the *discretized logistic*, a logistic distribution with mean m and scale s whose mass is
collected at the L levels. Level v gets

    p(v) = sigmoid((v + 1/2 - m) / s) - sigmoid((v - 1/2 - m) / s)

and the lowest and the highest level get the tails, so that the levels always sum to one. Networks output the
*log-scale*, log s, which may be any real number.

If a channel is known to lie between bounds, its distribution given the channels before it is divided by the mass of the
levels within the bounds.

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
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcnn.common.checks import check_whole
from pixelcnn.common.registry import Registry

C = TypeVar("C", bound=type)


def scale_levels(x: Tensor, levels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scale integers in [0, levels) to numbers in [-1, 1]. This is the one place where images are scaled."""
    return x.to(dtype) * (2 / (levels - 1)) - 1


def check_format(channels: object, levels: object) -> None:
    """Raise a ValueError unless images have one or three channels and at least two levels."""
    if type(channels) is not int or channels not in (1, 3):
        raise ValueError(f"channels={channels!r}: use 1 (gray) or 3 (red, green, blue)")
    check_whole(levels=levels, at_least=2)


class Bounds(NamedTuple):
    """The lowest and the highest value that each sub-pixel may have, both included: integers shaped like the image."""

    lowest: Tensor
    highest: Tensor


NextBounds = Callable[[list[Tensor]], Bounds]
"""A function from the channels of a pixel drawn so far, each (B, ...), to the bounds of the next, each (B, ...)."""


class Likelihood(ABC):
    """A family of distributions over the `channels` integers of one pixel, each in [0, levels).

    A likelihood has no weights of its own: it turns the parameters that a network gives for a pixel into
    probabilities, and draws pixels from them. Given bounds, the distribution of each channel given the channels before
    it is renormalized, that is, divided by its mass within the bounds.

    To write your own, extend `TabularLikelihood` if listing the probability of every level is fast enough, make it a
    frozen dataclass, and try it with `check_likelihood`.

    Example:
        >>> import torch
        >>> from pixelcnn import Categorical
        >>> likelihood = Categorical(levels=4)
        >>> params = torch.zeros(2, likelihood.num_params, 8, 8)  # of two images of 8x8 pixels
        >>> noise = torch.rand(2, likelihood.num_noise, 8, 8)
        >>> x = likelihood.sample(params, noise)
        >>> x.shape, likelihood.log_prob(params, x).shape
        (torch.Size([2, 1, 8, 8]), torch.Size([2, 8, 8]))
    """

    channels: int
    levels: int

    @property
    @abstractmethod
    def num_params(self) -> int:
        """P, the number of values that the network has to give for each pixel."""

    @property
    def num_noise(self) -> int:
        """The number of uniform random numbers needed to draw one pixel."""
        return 2 * self.channels

    def _at_least_float32(self, params: Tensor) -> Tensor:
        """Convert parameters in half precision to float32, since probabilities need it; float64 stays."""
        if params.shape[1] != self.num_params:
            raise ValueError(f"params of shape {tuple(params.shape)}: the second dimension must be {self.num_params}")
        return params.to(torch.promote_types(params.dtype, torch.float32))

    def initial_stats(self) -> tuple[Tensor, Tensor]:
        """Return means and standard deviations for the parameters, (P,) each, to start training from: 0 and 1 here."""
        return torch.zeros(self.num_params), torch.ones(self.num_params)

    def offset_means(self, params: Tensor, offset: Tensor) -> Tensor:
        """Shift the means of the distributions. A family without means, the default, returns its parameters unchanged.

        Args:
            params: (B, P, ...), from the network.
            offset: numbers (B, C, ...), roughly in [0, levels).

        Returns:
            (B, P, ...).
        """
        return params

    @abstractmethod
    def log_prob(self, params: Tensor, x: Tensor, bounds: Bounds | None = None) -> Tensor:
        """Compute the log-probability of every pixel, in nats (natural-log units): (B, ...).

        Args:
            params: (B, P, ...).
            x: integers (B, C, ...), within the bounds.
            bounds: (B, C, ...) each; None if every level is possible.
        """

    @abstractmethod
    def pmf(self, params: Tensor, x: Tensor, channel: int, bounds: Bounds | None = None) -> Tensor:
        """Compute the distribution of a channel given the channels of `x` before it: (B, levels, ...), sums to one."""

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
            scale_shift: a number added to the log-scales. Below 0 it reduces the variance (Kolesnikov & Lampert, figure
                5).
            map: MAP sampling (*maximum a posteriori*): draw a component of the mixture, then take its mode instead of
                drawing from it (same paper, section 4.2).
            bounds: a function that gives the bounds of a channel once the channels before it are drawn.
        """


LIKELIHOODS: Registry[Likelihood] = Registry("likelihood", Likelihood)


def register_likelihood(cls: C) -> C:
    """Register a likelihood under the name of its class, so that models that use it can be saved and loaded.

    Use it as a decorator above `@dataclass(frozen=True)`, on a class that extends `Likelihood`.

    Raises:
        ValueError: if the class is not a frozen dataclass that extends `Likelihood`, or its name is taken.

    Example:
        >>> import torch
        >>> from dataclasses import dataclass
        >>> from pixelcnn import ImageModel, TabularLikelihood, check_likelihood, register_likelihood
        >>> @register_likelihood
        ... @dataclass(frozen=True)
        ... class CoinFlips(TabularLikelihood):
        ...     levels: int
        ...     channels: int = 1
        ...
        ...     @property
        ...     def num_params(self):
        ...         return 1
        ...
        ...     def logits(self, params, x, channel):
        ...         n = torch.tensor(self.levels - 1.0)
        ...         k = torch.arange(self.levels).view(-1, *[1] * (params.dim() - 2))
        ...         return k * params - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
        >>> check_likelihood(CoinFlips(levels=5))
        >>> ImageModel(1, 5, likelihoods=[CoinFlips(5)], filters=4, blocks=1).config.to_json()["likelihoods"]
        [{'name': 'CoinFlips', 'levels': 5, 'channels': 1}]
    """
    return LIKELIHOODS.register(cls)


def inverse_cdf(logits: Tensor, noise: Tensor) -> Tensor:
    """Draw an index of the second dimension, by inverting its distribution function at the noise.

    Args:
        logits: (B, K, ...).
        noise: (B, ...), uniform in [0, 1).

    Returns:
        int64 (B, 1, ...).
    """
    cdf = F.softmax(logits, 1).cumsum(1)
    # The last sum is left out: rounding may put it below the noise, and the last index takes whatever is left.
    return (cdf[:, :-1] <= noise[:, None]).sum(1, keepdim=True)
