"""Arithmetic of discretized logistics: the mass of a range of levels, and draws from between two edges.

The *edges* of a level are half a level below and above it.
"""

__all__ = ["GREATEST_LOG_SCALE", "LEAST_LOG_SCALE", "Levels", "draw_logistic", "draw_wide_logistic"]

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcnn.likelihoods.base import scale_levels

# Log-scales are clamped here: far below the width of one level, and far above the width of all levels together. At -88
# and 88, a precision or a scale would be infinite in float32.
LEAST_LOG_SCALE, GREATEST_LOG_SCALE = -60.0, 60.0


class Levels:
    """The levels from `lowest` to `highest` under discretized logistics, and their mass.

    Let a and b be the lower and the upper edge relative to the mean, in units of the scale, infinite at the two ends of
    all levels. Then `sigmoid(b) - sigmoid(a) = sigmoid(b) * sigmoid(-a) * (1 - exp(a - b))`. The right side has three
    factors between 0 and 1 and no difference of nearly equal numbers, so the logarithm of the mass is finite and
    differentiable for every level and every scale.
    """

    def __init__(self, lowest: Tensor, highest: Tensor, means: Tensor, log_scales: Tensor, levels: int) -> None:
        self.lowest, self.highest = lowest.to(torch.int64), highest.to(torch.int64)
        self.first, self.last = self.lowest == 0, self.highest == levels - 1
        self.precision = torch.exp(-log_scales.clamp(LEAST_LOG_SCALE, GREATEST_LOG_SCALE))
        self.level = self.precision * (2 / (levels - 1))  # the width of one level
        # The upper edge of a level and the lower edge of the next come from the same integer, so they are equal to the
        # last bit. A gap between them would lose mass if the scale is far below the width of a level.
        doubled = 2 * self.lowest - 1, 2 * self.highest + 1
        lower, upper = ((scale_levels(x, 2 * levels - 1, means.dtype) - means) * self.precision for x in doubled)
        self.lower, self.upper = lower.masked_fill(self.first, -math.inf), upper.masked_fill(self.last, math.inf)
        width = self.level * (self.highest - self.lowest + 1)
        self.log_inside = torch.log(-torch.expm1(-width.masked_fill(self.first | self.last, math.inf)))

    def log_mass(self) -> Tensor:
        """Return the logarithm of the mass of these levels."""
        return F.logsigmoid(self.upper) + F.logsigmoid(-self.lower) + self.log_inside

    def log_share(self, part: "Levels") -> Tensor:
        """Return the logarithm of the share that some of these levels have of their mass, exact even if both are tiny.

        It is a difference of terms `logsigmoid(y) = min(y, 0) - softplus(-|y|)`. The minima can be large and nearly
        equal, so their difference is computed from the distance between the edges, which bounds it.
        """
        above = self.level * (self.highest - part.highest)
        below = self.level * (part.lowest - self.lowest)
        above, below = above.masked_fill(self.last, math.inf), below.masked_fill(self.first, math.inf)
        zero = torch.zeros_like(above)
        minima = -torch.clamp(-part.upper, zero, above) - torch.clamp(part.lower, zero, below)
        rests = [F.softplus(-edge.abs()) for edge in (self.upper, self.lower, part.upper, part.lower)]
        return minima + (rests[0] - rests[2]) + (rests[1] - rests[3]) + (part.log_inside - self.log_inside)


def draw_logistic(lower: Tensor, upper: Tensor, noise: Tensor) -> Tensor:
    """Draw from a logistic between two edges by inverting its distribution function, exact even for a tiny mass."""
    u, v = noise.clamp_min(2**-25).log(), torch.log1p(-noise)
    below = torch.logaddexp(v + F.logsigmoid(lower), u + F.logsigmoid(upper))
    return below - torch.logaddexp(v + F.logsigmoid(-lower), u + F.logsigmoid(-upper))


def draw_wide_logistic(lower: Tensor, upper: Tensor, noise: Tensor) -> Tensor:
    """Draw from a logistic between two edges that may be very close compared to its scale.

    `draw_logistic` would subtract nearly equal numbers then, so this draws the distance from the lower edge. With
    `m = sigmoid(upper) sigmoid(-lower) (1 - exp(lower - upper))`, the mass between the edges, the draw is
    `lower + log(1 + noise m / sigmoid(lower)) - log(1 - noise m / sigmoid(-lower))`.
    """
    width = upper - lower
    share = noise * -torch.expm1(-width)
    above = share * torch.sigmoid(upper)  # noise * m / sigmoid(-lower)
    below = share * torch.exp(F.logsigmoid(upper) - lower)  # noise * m / sigmoid(lower)
    near = lower + torch.log1p(below) - torch.log1p(-above)
    return torch.where(width < 1, near, draw_logistic(lower, upper, noise))
