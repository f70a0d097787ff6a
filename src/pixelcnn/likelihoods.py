r"""Distributions of one pixel: families without state, on integers in [0, levels).

A network gives `params` of shape (B, P, ...), an image holds `x` of shape (B, C, ...); the trailing dimensions are the
positions, a whole canvas (H, W) or any group of them (N,). A discretised logistic gives a level v of L the mass

    p(v) = sigmoid((v + 1/2 - m) / s) - sigmoid((v - 1/2 - m) / s)

with the lowest and the highest level taking the tails, so that it sums to one over the levels whatever m and s.

Where it is known between which bounds a channel lies, its distribution given the channels before it is divided by the
mass of the levels between them.

Reference: Salimans et al., PixelCNN++ (ICLR 2017), section 2.1 and equation 2.
"""

__all__ = [
    "Bounds",
    "Categorical",
    "Likelihood",
    "LogisticMixture",
    "NextBounds",
    "check_format",
    "check_log_scales",
    "check_whole",
    "scale_levels",
]

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LogScales = tuple[float | None, float | None]
"""The lowest and the highest log-scale of a logistic; None for no limit."""

# Where arithmetic ends: far below the width of a level, and far above that of all levels. At -88 and 88 a precision or
# a scale would be infinite in float32.
LEAST_LOG_SCALE, GREATEST_LOG_SCALE = -60.0, 60.0
# A standard deviation of an eighth of all levels; what is wider takes several components. Without a limit a draw that
# is unlike all images can make a network say "anything" of the next pixels, whose draws are worse still, and so on.
DEFAULT_LOG_SCALES: LogScales = (None, -2.0)
WIDE_LOG_SCALE = 2.0  # from here on the levels between two bounds are so little of a logistic that float32 loses them


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


def check_log_scales(log_scales: object) -> LogScales:
    """The range of log-scales as a pair, which JSON has as a list; a ValueError for anything that is no range."""
    if isinstance(log_scales, list | tuple) and len(log_scales) == 2:
        lowest, highest = log_scales
        numbers = [end for end in log_scales if end is not None]
        if all(isinstance(end, int | float) and not isinstance(end, bool) for end in numbers):
            least, greatest = _limits((lowest, highest))
            if LEAST_LOG_SCALE <= least < greatest <= GREATEST_LOG_SCALE:
                return None if lowest is None else float(lowest), None if highest is None else float(highest)
    raise ValueError(
        f"log_scales={log_scales!r}: use (lowest, highest), such as (-7, None): None for no limit, or numbers from "
        f"{LEAST_LOG_SCALE:g} to {GREATEST_LOG_SCALE:g}, the lowest below the highest"
    )


def _limits(log_scales: LogScales) -> tuple[float, float]:
    lowest, highest = log_scales
    return LEAST_LOG_SCALE if lowest is None else lowest, GREATEST_LOG_SCALE if highest is None else highest


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

    @abstractmethod
    def start(self) -> tuple[Tensor, Tensor]:
        """Means and deviations of the parameters, (P,) each, that training best begins with."""

    @abstractmethod
    def count_from(self, params: Tensor, guess: Tensor) -> Tensor:
        """Parameters whose means are counted from a guess of the image: (B, P, ...) and (B, C, ...) to (B, P, ...).

        Args:
            params: (B, P, ...), as a network gives them.
            guess: numbers (B, C, ...), about in [0, levels).
        """

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


class _Levels:
    """The levels from `lowest` to `highest` under discretised logistics, and their mass.

    With a and b the lower and the upper edge in units of the scale, infinite at the ends of all levels,
    `sigmoid(b) - sigmoid(a) = sigmoid(b) * sigmoid(-a) * (1 - exp(a - b))`: three factors between 0 and 1 and no
    difference of nearly equal numbers, so that the log-mass is finite and differentiable for every level and scale.
    """

    def __init__(self, lowest: Tensor, highest: Tensor, means: Tensor, log_scales: Tensor, levels: int) -> None:
        self.lowest, self.highest = lowest.to(torch.int64), highest.to(torch.int64)
        self.first, self.last = self.lowest == 0, self.highest == levels - 1
        self.precision = torch.exp(-log_scales.clamp(LEAST_LOG_SCALE, GREATEST_LOG_SCALE))
        self.level = self.precision * (2 / (levels - 1))  # its width
        # The upper edge of a level and the lower one of the next come from the same integer, so they are equal to the
        # last bit: on a scale far below a level's width a gap between them would be worth mass.
        doubled = 2 * self.lowest - 1, 2 * self.highest + 1
        lower, upper = ((scale_levels(x, 2 * levels - 1, means.dtype) - means) * self.precision for x in doubled)
        self.lower, self.upper = lower.masked_fill(self.first, -math.inf), upper.masked_fill(self.last, math.inf)
        width = self.level * (self.highest - self.lowest + 1)
        self.log_inside = torch.log(-torch.expm1(-width.masked_fill(self.first | self.last, math.inf)))

    def log_mass(self) -> Tensor:
        return F.logsigmoid(self.upper) + F.logsigmoid(-self.lower) + self.log_inside

    def log_share(self, part: "_Levels") -> Tensor:
        """Log of the mass of some of these levels over the mass of all: exact however small both are.

        It is a difference of `logsigmoid(y) = min(y, 0) - softplus(-|y|)`, and that of the minima is known: it is at
        most the distance of the edges.
        """
        above = self.level * (self.highest - part.highest)
        below = self.level * (part.lowest - self.lowest)
        above, below = above.masked_fill(self.last, math.inf), below.masked_fill(self.first, math.inf)
        zero = torch.zeros_like(above)
        minima = -torch.clamp(-part.upper, zero, above) - torch.clamp(part.lower, zero, below)
        rests = [F.softplus(-edge.abs()) for edge in (self.upper, self.lower, part.upper, part.lower)]
        return minima + (rests[0] - rests[2]) + (rests[1] - rests[3]) + (part.log_inside - self.log_inside)


def _draw_logistic(lower: Tensor, upper: Tensor, noise: Tensor) -> Tensor:
    """The logistic between two edges, by the inverse of its distribution function: exact however small its mass is."""
    u, v = noise.clamp_min(2**-25).log(), torch.log1p(-noise)
    below = torch.logaddexp(v + F.logsigmoid(lower), u + F.logsigmoid(upper))
    return below - torch.logaddexp(v + F.logsigmoid(-lower), u + F.logsigmoid(-upper))


def _draw_wide_logistic(lower: Tensor, upper: Tensor, noise: Tensor) -> Tensor:
    """The same where the edges may be so close that both have nearly the same mass below them: counted from the lower.

    With `m = sigmoid(upper) sigmoid(-lower) (1 - exp(lower - upper))`, the mass between the edges, the draw is at
    `lower + log(1 + noise m / sigmoid(lower)) - log(1 - noise m / sigmoid(-lower))`.
    """
    width = upper - lower
    share = noise * -torch.expm1(-width)
    above = share * torch.sigmoid(upper)  # noise * m / sigmoid(-lower)
    below = share * torch.exp(F.logsigmoid(upper) - lower)  # noise * m / sigmoid(lower)
    near = lower + torch.log1p(below) - torch.log1p(-above)
    return torch.where(width < 1, near, _draw_logistic(lower, upper, noise))


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
    channels, K coefficients: 100 values for RGB and ten components.

    Log-scales outside of the range `log_scales` count as its nearest end, in likelihoods and in draws alike; what
    `scale_shift` adds comes after that. By default those above -2 count as -2, for the sake of draws, and there is no
    lower end: the masses are stable without. The range of PixelCNN++ is (-7, None).
    """

    channels: int
    levels: int
    components: int = 10
    log_scales: LogScales = DEFAULT_LOG_SCALES

    def __post_init__(self) -> None:
        check_format(self.channels, self.levels)
        check_whole(components=self.components)
        object.__setattr__(self, "log_scales", check_log_scales(self.log_scales))

    @property
    def num_params(self) -> int:
        return self.components * (10 if self.channels == 3 else 3)

    def start(self) -> tuple[Tensor, Tensor]:
        # Logistics far narrower than all levels, and channels that do not speak of each other yet. Unit deviations, as
        # layers begin with, would be a network that first has to unlearn what it says.
        lowest, highest = _limits(self.log_scales)
        margin = min(0.5, (highest - lowest) / 2)  # outside of the range a log-scale has no gradient
        log_scale = min(max(-2.5, lowest + margin), highest - margin)
        means = {"logits": 0.0, "means": 0.0, "log_scales": log_scale, "coefficients": 0.0}
        deviations = {"logits": 1.0, "means": 0.2, "log_scales": 0.3, "coefficients": 0.1}
        names = ["means", "log_scales", *["coefficients"] * (self.channels == 3)] * self.channels
        kinds = torch.tensor([[start[name] for name in ("logits", *names)] for start in (means, deviations)])
        return kinds[0].repeat_interleave(self.components), kinds[1].repeat_interleave(self.components)

    def count_from(self, params: Tensor, guess: Tensor) -> Tensor:
        params = self._at_least_float32(params).clone()
        groups = params.unflatten(1, (-1, self.components))
        means = groups[:, 1 :: 3 if self.channels == 3 else 2]
        means += scale_levels(guess, self.levels, params.dtype)[:, :, None]
        return params

    def _components(self, params: Tensor) -> _Components:
        params = self._at_least_float32(params).contiguous()  # parameter by parameter is faster than pixel by pixel
        B, P, *positions = params.shape
        logits, rest = params.split([self.components, P - self.components], dim=1)
        rest = rest.reshape(B, self.channels, -1, self.components, *positions)
        coefficients = torch.tanh(rest[:, :, 2]) if self.channels == 3 else rest[:, :0, 0]
        return _Components(logits, rest[:, :, 0], rest[:, :, 1].clamp(*_limits(self.log_scales)), coefficients)

    def _levels(self, mixture: _Components, lowest: Tensor, highest: Tensor, values: Tensor, channel: int) -> _Levels:
        """Levels (B, ...) of a channel under every component, (B, K, ...), given the scaled `values` before it."""
        mean, log_scale = mixture.mean(values, channel), mixture.log_scales[:, channel]
        return _Levels(lowest[:, None], highest[:, None], mean, log_scale, self.levels)

    def log_prob(self, params: Tensor, x: Tensor, bounds: Bounds | None = None) -> Tensor:
        mixture = self._components(params)
        values = scale_levels(x, self.levels, mixture.means.dtype)
        means = torch.stack([mixture.mean(values, channel) for channel in range(self.channels)], 1)
        drawn = _Levels(x[:, :, None], x[:, :, None], means, mixture.log_scales, self.levels)
        masses = drawn.log_mass()
        if bounds is None:
            return torch.logsumexp(F.log_softmax(mixture.logits, 1) + masses.sum(1), 1)
        lowest, highest = (bound[:, :, None] for bound in bounds)
        possible = _Levels(lowest, highest, means, mixture.log_scales, self.levels)
        # What the earlier channels say of the component, and that the channel lies between its bounds.
        seen = torch.cat([mixture.logits[:, None], masses[:, :-1]], 1).cumsum(1)
        log_weights = F.log_softmax(seen + possible.log_mass(), 2)
        return torch.logsumexp(log_weights + possible.log_share(drawn), 2).sum(1)

    def pmf(self, params: Tensor, x: Tensor, channel: int, bounds: Bounds | None = None) -> Tensor:
        mixture = self._components(params)
        values = scale_levels(x, self.levels, mixture.means.dtype)
        seen = mixture.logits
        for earlier in range(channel):
            seen = seen + self._levels(mixture, x[:, earlier], x[:, earlier], values, earlier).log_mass()
        every = torch.arange(self.levels, device=x.device).view(-1, *[1] * (seen.dim() - 1))
        mean, log_scale = mixture.mean(values, channel)[:, None], mixture.log_scales[:, channel, None]
        drawn = _Levels(every, every, mean, log_scale, self.levels)
        if bounds is None:
            return (F.log_softmax(seen, 1)[:, None] + drawn.log_mass()).exp().sum(2)
        lowest, highest = (bound[:, channel, None, None] for bound in bounds)
        possible = _Levels(lowest, highest, mean, log_scale, self.levels)
        log_weights = F.log_softmax(seen[:, None] + possible.log_mass(), 2)
        outside = (every < lowest) | (every > highest)
        return (log_weights + possible.log_share(drawn)).masked_fill(outside, -math.inf).exp().sum(2)

    def sample(
        self,
        params: Tensor,
        noise: Tensor,
        *,
        scale_shift: float = 0.0,
        map: bool = False,
        bounds: NextBounds | None = None,
    ) -> Tensor:
        if bounds is not None:
            return self._sample_between(params, noise, bounds, scale_shift, map)
        # A traversal draws thousands of small groups: nothing is computed for components that are not drawn.
        params = self._at_least_float32(params)
        B, P, *positions = params.shape
        logits, rest = params.split([self.components, P - self.components], dim=1)
        rest = rest.reshape(B, self.channels, -1, self.components, *positions)
        component = _inverse_cdf(logits, noise[:, 0])[:, None, None].expand(*rest.shape[:3], 1, *positions)
        drawn = rest.gather(3, component).squeeze(3)
        half = (self.levels - 1) / 2
        values = drawn[:, :, 0] * half  # in levels from the middle one, as are all that follow
        coefficients = torch.tanh(drawn[:, :, 2]) if self.channels == 3 else values
        if not map:
            logistic = torch.logit(noise[:, 1 : 1 + self.channels].to(values.dtype), eps=2**-25)
            log_scales = drawn[:, :, 1].clamp(*_limits(self.log_scales))
            values.addcmul_(log_scales.add_(scale_shift + math.log(half)).exp_(), logistic)
        levels: list[Tensor] = []
        for channel, value in enumerate(values.unbind(1)):
            for earlier in range(channel):
                value.addcmul_(coefficients[:, channel * (channel - 1) // 2 + earlier], levels[earlier])
            # The nearest level is the one whose mass the draw fell in; beyond the ends lie the tails. Green and blue
            # are conditioned on the integers, as in training, not on the unrounded values.
            levels.append(value.add_(half).round_().clamp_(0, self.levels - 1).sub_(half))
        return (values + half).to(torch.int64)

    def _sample_between(
        self, params: Tensor, noise: Tensor, bounds: NextBounds, scale_shift: float, map: bool
    ) -> Tensor:
        """Draw channel by channel, each from a component of its own: their weights depend on the bounds."""
        mixture = self._components(params)
        mixture = mixture._replace(log_scales=mixture.log_scales + scale_shift)
        wide = _limits(self.log_scales)[1] + scale_shift > WIDE_LOG_SCALE
        draw_logistic = _draw_wide_logistic if wide else _draw_logistic
        seen = mixture.logits
        values = torch.zeros_like(mixture.means[:, :, 0])
        half = (self.levels - 1) / 2
        drawn: list[Tensor] = []
        for channel in range(self.channels):
            lowest, highest = bounds(drawn)
            possible = self._levels(mixture, lowest, highest, values, channel)
            weights = seen + possible.log_mass()
            component = _inverse_cdf(weights, noise[:, channel and self.channels + channel])
            value, lower, upper, log_scale = (
                each.gather(1, component)[:, 0]
                for each in (
                    mixture.mean(values, channel),
                    possible.lower,
                    possible.upper,
                    mixture.log_scales[:, channel],
                )
            )
            if not map:
                logistic = draw_logistic(lower, upper, noise[:, 1 + channel].to(value.dtype))
                value = torch.addcmul(value, log_scale.exp(), logistic)
            level = (value * half + half).round().to(torch.int64)
            drawn.append(torch.minimum(torch.maximum(level, lowest), highest))
            values[:, channel] = scale_levels(drawn[-1], self.levels, values.dtype)
            if channel + 1 < self.channels:
                seen = seen + self._levels(mixture, drawn[-1], drawn[-1], values, channel).log_mass()
        return torch.stack(drawn, 1)


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

    def start(self) -> tuple[Tensor, Tensor]:
        return torch.zeros(self.levels), torch.ones(self.levels)

    def count_from(self, params: Tensor, guess: Tensor) -> Tensor:
        return params  # which have no means

    def _logits(self, params: Tensor, bounds: Bounds | None) -> Tensor:
        """The logits (B, levels, ...), minus infinity for the levels that the bounds (B, 1, ...) leave out."""
        logits = self._at_least_float32(params)
        if bounds is None:
            return logits
        every = torch.arange(self.levels, device=logits.device).view(-1, *[1] * (logits.dim() - 2))
        return logits.masked_fill((every < bounds.lowest) | (every > bounds.highest), -math.inf)

    def log_prob(self, params: Tensor, x: Tensor, bounds: Bounds | None = None) -> Tensor:
        return F.log_softmax(self._logits(params, bounds), 1).gather(1, x.to(torch.int64))[:, 0]

    def pmf(self, params: Tensor, x: Tensor, channel: int = 0, bounds: Bounds | None = None) -> Tensor:
        return F.softmax(self._logits(params, bounds), 1)

    def sample(
        self,
        params: Tensor,
        noise: Tensor,
        *,
        scale_shift: float = 0.0,
        map: bool = False,
        bounds: NextBounds | None = None,
    ) -> Tensor:
        if bounds is None:
            return _inverse_cdf(self._at_least_float32(params), noise[:, 0])
        between = Bounds(*(bound[:, None] for bound in bounds([])))
        # Rounding may leave some noise above the mass of all possible levels.
        return _inverse_cdf(self._logits(params, between), noise[:, 0]).minimum(between.highest)
