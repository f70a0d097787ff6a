"""The likelihood of PixelCNN++: a *logistic mixture*, which is a weighted sum of discretized logistics."""

__all__ = ["DEFAULT_LOG_SCALES", "LogScales", "LogisticMixture", "check_log_scales"]

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcnn.common.checks import check_whole
from pixelcnn.likelihoods.base import (
    Bounds,
    Likelihood,
    NextBounds,
    check_format,
    inverse_cdf,
    register_likelihood,
    scale_levels,
)
from pixelcnn.likelihoods.levels import GREATEST_LOG_SCALE, LEAST_LOG_SCALE, Levels, draw_logistic, draw_wide_logistic

LogScales = tuple[float | None, float | None]
"""The lowest and the highest log-scale (the logarithm of the scale) of a logistic; None for no limit."""
# exp(-2) is a standard deviation of an eighth of all levels, and anything wider takes several components. Without a
# limit, one draw that looks like no training image can make the network predict nearly uniform next pixels, whose draws
# are even less like an image, and so on.
DEFAULT_LOG_SCALES: LogScales = (None, -2.0)
WIDE_LOG_SCALE = 2.0  # from here on, all levels are such a small part of a logistic that float32 loses them


def check_log_scales(log_scales: object) -> LogScales:
    """Return a range of log-scales as a pair of floats (JSON has lists); raise a ValueError if it is not a range."""
    if isinstance(log_scales, list | tuple) and len(log_scales) == 2:
        lowest, highest = log_scales
        numbers = [end for end in log_scales if end is not None]
        if all(isinstance(end, int | float) and not isinstance(end, bool) for end in numbers):
            least, greatest = log_scale_limits((lowest, highest))
            if LEAST_LOG_SCALE <= least < greatest <= GREATEST_LOG_SCALE:
                return None if lowest is None else float(lowest), None if highest is None else float(highest)
    raise ValueError(
        f"log_scales={log_scales!r}: use (lowest, highest), such as (-7, None), with None for no limit or numbers from "
        f"{LEAST_LOG_SCALE:g} to {GREATEST_LOG_SCALE:g}, the lowest below the highest"
    )


def log_scale_limits(log_scales: LogScales) -> tuple[float, float]:
    """Return a range of log-scales with the limits of arithmetic in place of None."""
    lowest, highest = log_scales
    return LEAST_LOG_SCALE if lowest is None else lowest, GREATEST_LOG_SCALE if highest is None else highest


class _Components(NamedTuple):
    """The parameters of a mixture, split by meaning."""

    logits: Tensor  # (B, K, ...)
    means: Tensor  # (B, C, K, ...), not yet shifted by the earlier channels
    log_scales: Tensor  # (B, C, K, ...)
    coefficients: Tensor  # (B, C, K, ...) for C = 3: of red for green, of red for blue, of green for blue; else empty

    def mean(self, values: Tensor, channel: int) -> Tensor:
        """Compute the means of a channel, (B, K, ...), given the scaled `values` (B, C, ...) of those before it."""
        mean = self.means[:, channel]
        first = channel * (channel - 1) // 2
        for earlier in range(channel):
            mean = mean + self.coefficients[:, first + earlier] * values[:, earlier, None]
        return mean


@register_likelihood
@dataclass(frozen=True)
class LogisticMixture(Likelihood):
    """A mixture of discretized logistics in which the mean of a channel depends on the channels before it.

    `log p(r, g, b) = log sum_k w_k p_k(r) p_k(g | r) p_k(b | r, g)`, where the mean of green is shifted by
    `tanh(c_0) r` and that of blue by `tanh(c_1) r + tanh(c_2) g`, with r and g the true values in [-1, 1].

    The layout of `params` is that of PixelCNN++: K logits (the weights w_k before a softmax), then for each channel K
    means, K log-scales and, for three channels, K coefficients. That makes 100 values for RGB and ten components.

    Log-scales outside the range `log_scales` are clamped to it, both to score and to draw. A `scale_shift` is added
    after that. By default, log-scales are at most -2, which keeps draws clean, and have no lower limit, since the
    arithmetic is stable without one. The range of PixelCNN++ is (-7, None).

    Args:
        channels, levels: of the image: 1 or 3, and 256 for 8 bits.
        components: K, the number of logistics.
        log_scales: the lowest and the highest log-scale, each None for no limit.

    Example:
        >>> import torch
        >>> from pixelcnn import LogisticMixture
        >>> mixture = LogisticMixture(channels=1, levels=256, components=1)
        >>> params = torch.tensor([0.0, 1 / 255, -2.0]).view(1, 3, 1)  # one logistic, with its mean at level 128
        >>> mixture.sample(params, noise=torch.tensor([0.5, 0.5]).view(1, 2, 1))
        tensor([[[128]]])
        >>> pmf = mixture.pmf(params, x=torch.zeros(1, 1, 1), channel=0)
        >>> pmf.shape, int(pmf.argmax()), round(float(pmf.sum()), 3)
        (torch.Size([1, 256, 1]), 128, 1.0)
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

    def initial_stats(self) -> tuple[Tensor, Tensor]:
        # Start with logistics far narrower than all levels, and with channels that hardly depend on each other. Layers
        # give unit deviations, and training would first have to undo those.
        lowest, highest = log_scale_limits(self.log_scales)
        margin = min(0.5, (highest - lowest) / 2)  # outside the range a log-scale has no gradient
        log_scale = min(max(-2.5, lowest + margin), highest - margin)
        means = {"logits": 0.0, "means": 0.0, "log_scales": log_scale, "coefficients": 0.0}
        deviations = {"logits": 1.0, "means": 0.2, "log_scales": 0.3, "coefficients": 0.1}
        names = ["means", "log_scales", *["coefficients"] * (self.channels == 3)] * self.channels
        kinds = torch.tensor([[stats[name] for name in ("logits", *names)] for stats in (means, deviations)])
        return kinds[0].repeat_interleave(self.components), kinds[1].repeat_interleave(self.components)

    def offset_means(self, params: Tensor, offset: Tensor) -> Tensor:
        params = self._at_least_float32(params).clone()
        groups = params.unflatten(1, (-1, self.components))
        means = groups[:, 1 :: 3 if self.channels == 3 else 2]
        means += scale_levels(offset, self.levels, params.dtype)[:, :, None]
        return params

    def _components(self, params: Tensor) -> _Components:
        params = self._at_least_float32(params).contiguous()  # sorted by parameter is faster than by pixel
        B, P, *positions = params.shape
        logits, rest = params.split([self.components, P - self.components], dim=1)
        rest = rest.reshape(B, self.channels, -1, self.components, *positions)
        coefficients = torch.tanh(rest[:, :, 2]) if self.channels == 3 else rest[:, :0, 0]
        return _Components(logits, rest[:, :, 0], rest[:, :, 1].clamp(*log_scale_limits(self.log_scales)), coefficients)

    def _levels(self, mixture: _Components, lowest: Tensor, highest: Tensor, values: Tensor, channel: int) -> Levels:
        """Put levels (B, ...) of a channel under every component, (B, K, ...), given the scaled `values` before it."""
        mean, log_scale = mixture.mean(values, channel), mixture.log_scales[:, channel]
        return Levels(lowest[:, None], highest[:, None], mean, log_scale, self.levels)

    def log_prob(self, params: Tensor, x: Tensor, bounds: Bounds | None = None) -> Tensor:
        mixture = self._components(params)
        values = scale_levels(x, self.levels, mixture.means.dtype)
        means = torch.stack([mixture.mean(values, channel) for channel in range(self.channels)], 1)
        drawn = Levels(x[:, :, None], x[:, :, None], means, mixture.log_scales, self.levels)
        masses = drawn.log_mass()
        if bounds is None:
            return torch.logsumexp(F.log_softmax(mixture.logits, 1) + masses.sum(1), 1)
        lowest, highest = (bound[:, :, None] for bound in bounds)
        possible = Levels(lowest, highest, means, mixture.log_scales, self.levels)
        # The weight of a component given the earlier channels, and given that the channel lies within its bounds.
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
        drawn = Levels(every, every, mean, log_scale, self.levels)
        if bounds is None:
            return (F.log_softmax(seen, 1)[:, None] + drawn.log_mass()).exp().sum(2)
        lowest, highest = (bound[:, channel, None, None] for bound in bounds)
        possible = Levels(lowest, highest, mean, log_scale, self.levels)
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
        # A traversal draws thousands of small groups, so nothing is computed for components that are not drawn.
        params = self._at_least_float32(params)
        B, P, *positions = params.shape
        logits, rest = params.split([self.components, P - self.components], dim=1)
        rest = rest.reshape(B, self.channels, -1, self.components, *positions)
        component = inverse_cdf(logits, noise[:, 0])[:, None, None].expand(*rest.shape[:3], 1, *positions)
        drawn = rest.gather(3, component).squeeze(3)
        half = (self.levels - 1) / 2
        values = drawn[:, :, 0] * half  # from here on, in levels from the middle one
        coefficients = torch.tanh(drawn[:, :, 2]) if self.channels == 3 else values
        if not map:
            logistic = torch.logit(noise[:, 1 : 1 + self.channels].to(values.dtype), eps=2**-25)
            log_scales = drawn[:, :, 1].clamp(*log_scale_limits(self.log_scales))
            values.addcmul_(log_scales.add_(scale_shift + math.log(half)).exp_(), logistic)
        levels: list[Tensor] = []
        for channel, value in enumerate(values.unbind(1)):
            for earlier in range(channel):
                value.addcmul_(coefficients[:, channel * (channel - 1) // 2 + earlier], levels[earlier])
            # Rounding finds the level whose mass the draw fell in, and clamping gives the tails to the end levels.
            # Green and blue are conditioned on the integers, as in training, not on the unrounded values.
            levels.append(value.add_(half).round_().clamp_(0, self.levels - 1).sub_(half))
        return (values + half).to(torch.int64)

    def _sample_between(
        self, params: Tensor, noise: Tensor, bounds: NextBounds, scale_shift: float, map: bool
    ) -> Tensor:
        """Draw channel by channel, each from a component of its own, since the weights depend on the bounds."""
        mixture = self._components(params)
        mixture = mixture._replace(log_scales=mixture.log_scales + scale_shift)
        wide = log_scale_limits(self.log_scales)[1] + scale_shift > WIDE_LOG_SCALE
        draw = draw_wide_logistic if wide else draw_logistic
        seen = mixture.logits
        values = torch.zeros_like(mixture.means[:, :, 0])
        half = (self.levels - 1) / 2
        drawn: list[Tensor] = []
        for channel in range(self.channels):
            lowest, highest = bounds(drawn)
            possible = self._levels(mixture, lowest, highest, values, channel)
            weights = seen + possible.log_mass()
            component = inverse_cdf(weights, noise[:, channel and self.channels + channel])
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
                logistic = draw(lower, upper, noise[:, 1 + channel].to(value.dtype))
                value = torch.addcmul(value, log_scale.exp(), logistic)
            level = (value * half + half).round().clamp(0, self.levels - 1).to(torch.int64)  # which may be too large
            drawn.append(torch.minimum(torch.maximum(level, lowest), highest))
            values[:, channel] = scale_levels(drawn[-1], self.levels, values.dtype)
            if channel + 1 < self.channels:
                seen = seen + self._levels(mixture, drawn[-1], drawn[-1], values, channel).log_mass()
        return torch.stack(drawn, 1)
