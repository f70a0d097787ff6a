r"""Distributions of one pixel: families without state, on integers in [0, levels).

A network gives `params` of shape (B, P, ...), an image holds `x` of shape (B, C, ...); the trailing dimensions are the
positions, a whole canvas (H, W) or any group of them (N,). A discretised logistic gives a level v of L the mass

    p(v) = sigmoid((v + 1/2 - m) / s) - sigmoid((v - 1/2 - m) / s)

with the lowest and the highest level taking the tails, so that it sums to one over the levels whatever m and s.

Reference: Salimans et al., PixelCNN++ (ICLR 2017), section 2.1 and equation 2.
"""

__all__ = ["Categorical", "Likelihood", "LogisticMixture", "check_format", "check_whole", "scale_levels"]

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def scale_levels(x: Tensor, levels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Integers in [0, levels) as numbers in [-1, 1]: the one place where images are scaled."""
    return x.to(dtype) * (2 / (levels - 1)) - 1


def check_whole(at_least: int = 1, **arguments: object) -> None:
    """Raise a ValueError for the first argument that is no whole number of at least `at_least`."""
    for name, value in arguments.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
            raise ValueError(f"{name}={value!r}: use a whole number of at least {at_least}")


def check_format(channels: object, levels: object) -> None:
    """Raise a ValueError for images that have neither one nor three channels, or a single level."""
    if type(channels) is not int or channels not in (1, 3):
        raise ValueError(f"channels={channels!r}: use 1 (grey) or 3 (red, green, blue)")
    check_whole(levels=levels, at_least=2)


class Likelihood(ABC):
    """A family of distributions over the `channels` integers of one pixel, each in [0, levels)."""

    channels: int
    levels: int

    @property
    @abstractmethod
    def num_params(self) -> int:
        """P, the values a pixel that the network must give."""

    @property
    def num_noise(self) -> int:
        """The uniform numbers that one draw of a pixel uses up."""
        return 1 + self.channels

    def _at_least_float32(self, params: Tensor) -> Tensor:
        """Half precision ends here: likelihoods are float32, or float64 where the network is."""
        if params.shape[1] != self.num_params:
            raise ValueError(f"params of shape {tuple(params.shape)}: the second dimension must be {self.num_params}")
        return params.to(torch.promote_types(params.dtype, torch.float32))

    @abstractmethod
    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Log-probability of every pixel, in nats: (B, P, ...) and integers (B, C, ...) to (B, ...)."""

    @abstractmethod
    def pmf(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
        """Exact distribution of one channel given the channels of `x` before it: (B, levels, ...), sums to one."""

    @abstractmethod
    def sample(self, params: Tensor, noise: Tensor, *, scale_shift: float = 0.0, map: bool = False) -> Tensor:
        """Draw pixels: int64 (B, C, ...), a deterministic function of `params` and `noise`.

        Args:
            params: (B, P, ...).
            noise: (B, num_noise, ...), uniform in [0, 1).
            scale_shift: added to the log-scales; below 0 it reduces the variance (Kolesnikov & Lampert, figure 5).
            map: draw a component, then take its mode instead of a value (same, section 4.2).
        """


class _Components(NamedTuple):
    """The parameters of a mixture, one axis a meaning."""

    logits: Tensor  # (B, K, ...)
    means: Tensor  # (B, C, K, ...), not yet shifted by the earlier channels
    log_scales: Tensor  # (B, C, K, ...)
    coefficients: Tensor  # (B, C, K, ...) for C = 3: green on red, blue on red, blue on green; else empty

    def mean(self, values: Tensor, channel: int) -> Tensor:
        """Means of one channel, (B, K, ...), given the scaled `values` (B, C, ...) of the channels before it."""
        mean = self.means[:, channel]
        first = channel * (channel - 1) // 2
        for earlier in range(channel):
            mean = mean + self.coefficients[:, first + earlier] * values[:, earlier, None]
        return mean


def _log_mass(x: Tensor, means: Tensor, log_scales: Tensor, levels: int) -> Tensor:
    """Log-mass of the levels x under discretised logistics, finite and differentiable for every level and scale.

    With a and b the upper and the lower edge of a level in units of the scale,
    `sigmoid(a) - sigmoid(b) = sigmoid(a) * sigmoid(-b) * (1 - exp(b - a))`: three factors between 0 and 1 and no
    difference of nearly equal numbers. The lowest level keeps the first alone, the highest the second.
    """
    precision = torch.exp(-log_scales)
    # The upper edge of a level and the lower one of the next come from the same integer, so they are equal to the last
    # bit: on a scale far below a level's width a gap between them would be worth mass.
    doubled = 2 * x.to(torch.int64)
    upper, lower = (scale_levels(doubled + side, 2 * levels - 1, means.dtype) for side in (1, -1))
    lowest, highest = x == 0, x == levels - 1
    below = F.logsigmoid((upper - means) * precision).masked_fill(highest, 0.0)
    above = F.logsigmoid((means - lower) * precision).masked_fill(lowest, 0.0)
    inside = torch.log(-torch.expm1(precision * (-2 / (levels - 1)))).masked_fill(lowest | highest, 0.0)
    return below + above + inside


def _inverse_cdf(logits: Tensor, noise: Tensor) -> Tensor:
    """Index in the second dimension whose share of [0, 1) holds the noise: (B, K, ...), (B, ...) to (B, 1, ...)."""
    cdf = F.softmax(logits, 1).cumsum(1)
    # Rounding may leave the last sum below the noise: the last index takes what is left.
    return (cdf[:, :-1] <= noise[:, None]).sum(1, keepdim=True)


@dataclass(frozen=True)
class LogisticMixture(Likelihood):
    r"""Mixture of discretised logistics whose means move with the channels before.

    `log p(r, g, b) = log sum_k w_k p_k(r) p_k(g | r) p_k(b | r, g)`, where the mean of green is shifted by
    `tanh(c_0) r` and that of blue by `tanh(c_1) r + tanh(c_2) g`, with r, g the true values in [-1, 1].

    The layout of `params` is that of PixelCNN++: K logits, then for each channel K means, K log-scales and, for three
    channels, K coefficients: 100 values for RGB and ten components. Log-scales are not clamped from below (PixelCNN++
    stops at -7): the masses are stable without it.
    """

    channels: int
    levels: int
    components: int = 10

    def __post_init__(self) -> None:
        check_format(self.channels, self.levels)
        check_whole(components=self.components)

    @property
    def num_params(self) -> int:
        return self.components * (10 if self.channels == 3 else 3)

    def _components(self, params: Tensor) -> _Components:
        params = self._at_least_float32(params).contiguous()  # parameter by parameter is faster than pixel by pixel
        B, P, *positions = params.shape
        logits, rest = params.split([self.components, P - self.components], dim=1)
        rest = rest.reshape(B, self.channels, -1, self.components, *positions)
        coefficients = torch.tanh(rest[:, :, 2]) if self.channels == 3 else rest[:, :0, 0]
        return _Components(logits, rest[:, :, 0], rest[:, :, 1], coefficients)

    def _channel_log_mass(self, mixture: _Components, x: Tensor, values: Tensor, channel: int) -> Tensor:
        """Log-mass of a channel of `x` under every component: (B, K, ...)."""
        mean, log_scale = mixture.mean(values, channel), mixture.log_scales[:, channel]
        return _log_mass(x[:, channel, None], mean, log_scale, self.levels)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        mixture = self._components(params)
        values = scale_levels(x, self.levels, mixture.means.dtype)
        means = torch.stack([mixture.mean(values, channel) for channel in range(self.channels)], 1)
        masses = _log_mass(x[:, :, None], means, mixture.log_scales, self.levels)
        return torch.logsumexp(F.log_softmax(mixture.logits, 1) + masses.sum(1), 1)

    def pmf(self, params: Tensor, x: Tensor, channel: int) -> Tensor:
        mixture = self._components(params)
        values = scale_levels(x, self.levels, mixture.means.dtype)
        # What the earlier channels say of the component: its posterior weights.
        logits = mixture.logits
        for earlier in range(channel):
            logits = logits + self._channel_log_mass(mixture, x, values, earlier)
        log_weights = F.log_softmax(logits, 1)
        every = torch.arange(self.levels, device=x.device).view(-1, *[1] * (logits.dim() - 1))
        mean, log_scale = mixture.mean(values, channel)[:, None], mixture.log_scales[:, channel, None]
        masses = _log_mass(every, mean, log_scale, self.levels)
        return (log_weights[:, None] + masses).exp().sum(2)

    def sample(self, params: Tensor, noise: Tensor, *, scale_shift: float = 0.0, map: bool = False) -> Tensor:
        # A traversal draws thousands of small groups: nothing is computed for components that are not drawn.
        params = self._at_least_float32(params)
        B, P, *positions = params.shape
        logits, rest = params.split([self.components, P - self.components], dim=1)
        rest = rest.reshape(B, self.channels, -1, self.components, *positions)
        component = _inverse_cdf(logits, noise[:, 0])[:, None, None].expand(*rest.shape[:3], 1, *positions)
        drawn = rest.gather(3, component).squeeze(3)
        values = drawn[:, :, 0]
        coefficients = torch.tanh(drawn[:, :, 2]) if self.channels == 3 else values
        if not map:
            logistic = torch.logit(noise[:, 1:].to(values.dtype), eps=2**-25)
            values = torch.addcmul(values, (drawn[:, :, 1] + scale_shift).exp(), logistic)
        half = (self.levels - 1) / 2
        levels: list[Tensor] = []
        scaled: list[Tensor] = []
        for channel, value in enumerate(values.unbind(1)):
            for earlier in range(channel):
                coefficient = coefficients[:, channel * (channel - 1) // 2 + earlier]
                value = torch.addcmul(value, coefficient, scaled[earlier])
            # The nearest level is the one whose mass the draw fell in; beyond the ends lie the tails. Green and blue
            # are conditioned on the integers, as in training, not on the unrounded values.
            levels.append(torch.add(half, value, alpha=half).round_().clamp_(0, self.levels - 1))
            scaled.append(scale_levels(levels[channel], self.levels, value.dtype))
        return torch.stack(levels, 1).to(torch.int64)


@dataclass(frozen=True)
class Categorical(Likelihood):
    """One channel, a free probability for every level: a softmax over `levels` values.

    It has no scale, so `scale_shift` leaves it as it is; and its components are its levels, each a single point, so the
    mode of a drawn component (`map=True`) is the draw.
    """

    levels: int
    channels: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        check_whole(levels=self.levels, at_least=2)

    @property
    def num_params(self) -> int:
        return self.levels

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        return F.log_softmax(self._at_least_float32(params), 1).gather(1, x.to(torch.int64))[:, 0]

    def pmf(self, params: Tensor, x: Tensor, channel: int = 0) -> Tensor:
        return F.softmax(self._at_least_float32(params), 1)

    def sample(self, params: Tensor, noise: Tensor, *, scale_shift: float = 0.0, map: bool = False) -> Tensor:
        return _inverse_cdf(self._at_least_float32(params), noise[:, 0])
