"""Whole-number frequencies: what an entropy coder needs to know of a pixel, computed alike on every machine.

The *mass* of a channel below an edge between two levels is a whole number that grows from edge to edge. It is computed
from the parameters that a network on the grid gives for the pixel (see `pixelcnn.nn.grid`), with tables, and with
single operations whose results IEEE 754 prescribes. Level v of a channel between `lowest` and `highest` has the share

    (below(v + 1) - below(v)) / (below(highest + 1) - below(lowest))

A coder takes frequencies that add up to `TOTAL`. To make 256 of them for every sub-pixel would take long, so a value is
coded in two steps: in which *bucket* of `width` levels it is, counted from `lowest`, and which level of its bucket it
is. Each step has `width` outcomes, every one of which has a frequency of at least one. A step with only one possible
outcome is not coded.
"""

__all__ = ["TOTAL", "Coded", "Masses", "Read", "bucket_width", "decode_channel", "encode_channel"]

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pixelcnn.codec.chunks import DamagedError
from pixelcnn.likelihoods.base import Likelihood
from pixelcnn.likelihoods.logistic import LogisticMixture, log_scale_limits
from pixelcnn.likelihoods.tabular import Categorical
from pixelcnn.nn.tables import EXP_REACH, GATE, GATE_REACH, LOGISTIC_REACH, LOGISTIC_STEPS, STEPS, WEIGHT, tables

TOTAL = 2**24
MEAN_STEPS = 2**14  # of a mean, in half a level
LEAST_WIDTH = 4
Array = np.ndarray
Read = Callable[[Array, Array], Array]
"""`read(pixels, frequencies)` maps the indices of n pixels and rows of frequencies (n, width) to outcomes (n,)."""


class Masses(ABC):
    """The masses of one channel of many pixels after another, each given the channels before it."""

    @staticmethod
    def of(likelihood: Likelihood, params: Array) -> "Masses":
        """Begin with the first channel of N pixels that have these parameters, float64 (N, P).

        Raises:
            ValueError: if the likelihood is neither a `LogisticMixture` nor a `Categorical`.
        """
        if isinstance(likelihood, LogisticMixture):
            return _LogisticMasses(likelihood, params)
        if isinstance(likelihood, Categorical):
            return _CategoricalMasses(params)
        raise ValueError(f"{likelihood!r} has no exact frequencies: compress with LogisticMixture or Categorical")

    @abstractmethod
    def below(self, edges: Array, pixels: Array) -> Array:
        """Compute the mass below edges: float64 (n, E), whole numbers below 2^53.

        Args:
            edges: int64 (n, E). Edge v is the lower one of level v, from 0 to the number of levels.
            pixels: int64 (n,), the indices of the pixels.
        """

    @abstractmethod
    def observe(self, values: Array) -> None:
        """Go on to the next channel of all pixels, given the values (N,) of this one."""


class _CategoricalMasses(Masses):
    def __init__(self, params: Array) -> None:
        sums = _weights(params).cumsum(1)
        self.sums = np.concatenate([np.zeros_like(sums[:, :1]), sums], 1)

    def below(self, edges: Array, pixels: Array) -> Array:
        return self.sums[pixels[:, None], edges]

    def observe(self, values: Array) -> None:
        pass  # there is only one channel


class _LogisticMasses(Masses):
    """A mixture of logistics. Positions are in half levels from the middle of all levels."""

    def __init__(self, likelihood: LogisticMixture, params: Array) -> None:
        self.levels, K = likelihood.levels, likelihood.components
        self.weights = _normalize(_weights(params[:, :K]))
        kinds = 3 if likelihood.channels == 3 else 2
        rest = params[:, K:].reshape(len(params), likelihood.channels, kinds, K)
        self.means = rest[:, :, 0] * (self.levels - 1)
        log_scales = rest[:, :, 1].clip(*log_scale_limits(likelihood.log_scales))
        self.precisions = _look_up(tables().precision, -STEPS * log_scales, EXP_REACH * STEPS) / (self.levels - 1)
        if kinds == 3:
            self.coefficients = _look_up(tables().tanh, STEPS * rest[:, :, 2], GATE_REACH * STEPS) / GATE
        self.positions = 2.0 * np.arange(self.levels + 1) - self.levels  # of edges
        self.positions[[0, -1]] = -np.inf, np.inf  # the lowest and the highest level get the tails
        self.channel = 0
        self._look_at(0)

    def _look_at(self, channel: int) -> None:
        self.mean = np.rint(self.means[:, channel] * MEAN_STEPS) / MEAN_STEPS
        self.precision = self.precisions[:, channel] * LOGISTIC_STEPS

    def _components_below(self, edges: Array, pixels: Array) -> Array:
        """Compute the mass of each component below edges, (n, E, K), as in the table of the logistic."""
        z = self.positions[edges][:, :, None] - self.mean[pixels, None]
        z *= self.precision[pixels, None]
        return _interpolate(tables().logistic, z, LOGISTIC_REACH * LOGISTIC_STEPS)

    def below(self, edges: Array, pixels: Array) -> Array:
        return np.einsum("nek,nk->ne", self._components_below(edges, pixels), self.weights[pixels])

    def observe(self, values: Array) -> None:
        self.channel += 1
        if self.channel == self.means.shape[1]:
            return
        lower, upper = self._components_below(np.stack([values, values + 1], 1), np.arange(len(values))).transpose(
            1, 0, 2
        )
        seen = self.weights * (upper - lower)
        possible = seen.any(1)
        self.weights[possible] = _normalize(seen[possible])
        position = (2 * values - (self.levels - 1))[:, None]
        first = self.channel - 1
        for later in range(self.channel, self.means.shape[1]):
            self.means[:, later] += self.coefficients[:, later * (later - 1) // 2 + first] * position
        self._look_at(self.channel)


def _look_up(table: Array, x: Array, reach: int) -> Array:
    """Look up numbers, which are overwritten, in a table whose first entry is of `-reach` and the next of one more."""
    np.rint(x, out=x)
    x += reach
    np.clip(x, 0, len(table) - 1, out=x)
    return table.take(x.astype(np.intp), mode="clip")  # nothing is left to clip, but to raise an error is slower


def _interpolate(table: Array, x: Array, reach: int) -> Array:
    """Look up numbers, which are overwritten, as `_look_up` does, but between the entries, and round the result."""
    x += reach
    np.clip(x, 0, 2 * reach, out=x)
    index = x.astype(np.intp)
    x -= index
    below = table.take(index, mode="clip")
    index += 1
    x *= table.take(index, mode="clip") - below
    x += below
    return np.rint(x, out=x)


def _weights(logits: Array) -> Array:
    """Compute weights in proportion to `exp(logits)`, (N, K): whole numbers, the largest of which is WEIGHT."""
    return _look_up(tables().weight, STEPS * (logits - logits.max(1, keepdims=True)), EXP_REACH * STEPS)


def _normalize(weights: Array) -> Array:
    """Scale weights so that they add up to WEIGHT, apart from rounding."""
    return np.rint(weights / weights.sum(1, keepdims=True) * WEIGHT)


def bucket_width(levels: int) -> int:
    """Return the number of levels of a bucket, which is also the most buckets: a power of two.

    Example:
        >>> from pixelcnn.codec.frequencies import bucket_width
        >>> [bucket_width(levels) for levels in (2, 16, 17, 256)]
        [4, 4, 8, 16]
    """
    return max(LEAST_WIDTH, 2 ** (((levels - 1).bit_length() + 1) // 2))


class Coded(NamedTuple):
    """What a coder needs to write outcomes: whole numbers, (N,) each."""

    below: Array
    """The sum of the frequencies of the outcomes before."""
    frequency: Array
    """The frequency of the outcome; 0 if the step has only one and is not coded."""


def _cumulative(masses: Array, edges: Array, outcomes: Array, width: int) -> Array:
    """Compute the sums of the frequencies of all outcomes before some of them: int64 (n, E).

    Args:
        masses: below edges, (n, E).
        edges: (n, E); the first and the last are the ends of all levels of this step.
        outcomes: (n, E), the numbers of the outcomes that begin at these edges.
        width: the number of outcomes.
    """
    first, total = masses[:, :1], masses[:, -1:] - masses[:, :1]
    empty = total == 0  # all of it is lost to rounding, so all levels are equally likely
    share = np.where(empty, edges - edges[:, :1], masses - first) / np.where(empty, edges[:, -1:] - edges[:, :1], total)
    return outcomes + np.floor(share * (TOTAL - width)).astype(np.int64)


def encode_channel(masses: Masses, values: Array, lowest: Array, highest: Array, width: int) -> tuple[Coded, Coded]:
    """Compute what a coder needs to write a channel of N pixels, in two steps; then go on to the next channel.

    Args:
        masses: of the pixels.
        values, lowest, highest: int64 (N,). Values lie within their bounds.
        width: of buckets.
    """
    bucket = (values - lowest) // width
    start = lowest + bucket * width
    end = np.minimum(start + width, highest + 1)
    edges = np.stack([lowest, start, values, values + 1, end, highest + 1], 1)
    below = masses.below(edges, np.arange(len(values)))
    masses.observe(values)
    steps = []
    for columns, outcome, coded in (
        ([0, 1, 4, 5], bucket, highest - lowest >= width),
        ([1, 2, 3, 4], values - start, end - start > 1),
    ):
        outcomes = np.stack([outcome * 0, outcome, outcome + 1, outcome * 0 + width], 1)
        sums = _cumulative(below[:, columns], edges[:, columns], outcomes, width)
        steps.append(Coded(sums[:, 1], np.where(coded, sums[:, 2] - sums[:, 1], 0)))
    return steps[0], steps[1]


def decode_channel(masses: Masses, lowest: Array, highest: Array, width: int, read: Read) -> Array:
    """Read a channel of N pixels, as `encode_channel` describes it: int64 (N,).

    Raises:
        DamagedError: if `read` gives an outcome that is impossible.
    """
    values, ends = lowest.copy(), highest + 1
    for step in (width, 1):
        (pixels,) = np.nonzero(ends - values > step)
        if len(pixels):
            first, end = values[pixels, None], ends[pixels, None]
            outcomes = np.arange(width + 1)
            edges = np.minimum(first + outcomes * step, end)
            sums = _cumulative(masses.below(edges, pixels), edges, outcomes[None], width)
            values[pixels] += step * read(pixels, np.diff(sums, axis=1))
            if (values >= ends).any():
                raise DamagedError("its stream is damaged")
        ends = np.minimum(values + step, ends)
    masses.observe(values)
    return values
