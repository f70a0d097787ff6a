r"""What the known pixels of an image tell about its views, if other pixels are unknown.

A pixel of a view that is made only of known pixels is known. One that is made of known and unknown pixels, a
*half-known* one, has bounds, and it is likely to be close to the mean of its known part. How close is measured in the
same image: the hole is moved to other places, where all pixels are known, and the mean of the part that it would leave
is compared with the true value.

So the distribution of a half-known sub-pixel is tilted: it is multiplied by a logistic distribution around that mean.
The sub-pixels of a cell must also add up to what the next view says. If all that follow in a cell are half-known or
known, what is left for them must be close to the sum of their means, and that tilts the ones before. Without this, the
last one would have to make up for all others.
"""

__all__ = ["Evidence", "Tilt", "find_evidence"]

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcnn.auxiliary.cells import CellAuxiliary, per_channel
from pixelcnn.auxiliary.chain import Chain, require_cells
from pixelcnn.likelihoods.base import Bounds

MOVES = 24  # places that a hole is moved to, the nearest ones
ENOUGH = 3  # places that must have all pixels known to measure a spread
LEAST_SPREAD = 0.3  # levels: views are rounded
UNKNOWN_SPREAD = 1 / 32  # of the levels, if it cannot be measured
MEAN_DEVIATION = 2 * math.log(2)  # of a logistic distribution of scale 1 from its mean
VARIANCE = math.pi**2 / 3  # of the same
FAR = 10.0**6  # a scale so large that a logistic does not tilt anything


class Evidence(NamedTuple):
    """What is known of the sub-pixels of a view, (B, C, H, W) each."""

    box: Bounds
    """The lowest and the highest value that is possible; the same for known sub-pixels."""
    guess: Tensor
    """The mean of the known part. It means nothing where nothing is known."""
    spread: Tensor
    """The scale of a logistic distribution around the guess: 0 where all is known, infinite where nothing is."""


def find_evidence(chain: Chain, x: Tensor, unknown: Tensor) -> list[Evidence]:
    """Collect what the known pixels of images tell about each of their views, the image first.

    Args:
        chain: of the views.
        x: integers (B, C, H, W); the values of unknown pixels do not matter.
        unknown: bool (B, 1, H, W).

    Raises:
        ValueError: if a view is not a `CellAuxiliary`.

    Example:
        >>> import torch
        >>> from pixelcnn import Downsample
        >>> from pixelcnn.auxiliary.chain import Chain
        >>> from pixelcnn.auxiliary.evidence import find_evidence
        >>> x, unknown = torch.tensor([[[[100, 100], [104, 0]]]]), torch.tensor([[[[False, False], [False, True]]]])
        >>> image, half = find_evidence(Chain(1, 256, [Downsample(2)]), x, unknown)
        >>> int(half.box.lowest), int(half.box.highest), int(half.guess)
        (76, 140, 101)
    """
    x = x.to(torch.int64)
    levels = chain.formats[0][1]
    boxes = [Bounds(x.masked_fill(unknown, 0), x.masked_fill(unknown, levels - 1))]
    for auxiliary, (_, levels) in zip(chain.auxiliaries, chain.formats, strict=False):
        require_cells(auxiliary, "known pixels", "derive it")
        boxes.append(Bounds(*(auxiliary(end, levels) for end in boxes[-1])))
    guesses = _guess(chain, x, ~unknown)
    spreads = _measure_spreads(chain, x, unknown, guesses)
    return [
        Evidence(
            box,
            torch.where(guess.whole, box.lowest, guess.mean),
            spread.masked_fill(guess.whole, 0).masked_fill(~guess.some, math.inf),
        )
        for box, guess, spread in zip(boxes, guesses, spreads, strict=True)
    ]


class _Guess(NamedTuple):
    """Means of the known parts of the pixels of a view, and whether some or all of each part is known."""

    mean: Tensor  # (B, C, H, W)
    some: Tensor  # bool (B, 1, H, W)
    whole: Tensor  # bool (B, 1, H, W)


def _guess(chain: Chain, x: Tensor, known: Tensor) -> list[_Guess]:
    """Find the means of the known parts in every view. Each pixel of which something is known counts the same."""
    guesses = [_Guess(x.float(), known, known)]
    for auxiliary, (_, levels) in zip(chain.auxiliaries, chain.formats, strict=False):
        (mean, some, whole), f = guesses[-1], auxiliary.shrinkage
        share = F.avg_pool2d(some.float(), f, ceil_mode=True)
        means = F.avg_pool2d(mean * some, f, ceil_mode=True) / share.clamp_min(1 / f**2)
        # The view of an image whose cells are filled with their means.
        filled = means.repeat_interleave(f, 2).repeat_interleave(f, 3)[:, :, : mean.shape[2], : mean.shape[3]]
        part = 1 - F.max_pool2d(1 - whole.float(), f, ceil_mode=True)
        guesses.append(_Guess(auxiliary(filled.round().to(torch.int64), levels).float(), share > 0, part > 0))
    return guesses


def _measure_spreads(chain: Chain, x: Tensor, unknown: Tensor, guesses: list[_Guess]) -> list[Tensor]:
    """Measure how far guesses are from the truth, with the hole moved elsewhere: (B, 1, H, W) for each view."""
    views, steps = chain.views(x), [1]
    for auxiliary in chain.auxiliaries:
        steps.append(steps[-1] * auxiliary.shrinkage)
    total = [torch.zeros_like(guess.whole, dtype=torch.float32) for guess in guesses]
    count = [torch.zeros_like(each) for each in total]
    for row, col in _moves((x.shape[2], x.shape[3]), steps[-1]):
        moved = _guess(chain, x, ~unknown & ~_move(unknown, row, col))
        for k in range(1, len(views)):
            back = -row // steps[k], -col // steps[k]
            seen = guesses[k].whole & moved[k].some & ~moved[k].whole
            deviation = (moved[k].mean - views[k]).abs().mean(1, keepdim=True)
            total[k] += _move(torch.where(seen, deviation, 0), *back)
            count[k] += _move(seen, *back)
    return [
        _spread(each, number, guess, levels)
        for each, number, guess, (_, levels) in zip(total, count, guesses, chain.formats, strict=True)
    ]


def _spread(total: Tensor, count: Tensor, guess: _Guess, levels: int) -> Tensor:
    """Turn sums of deviations into scales. Where there are few, those of all half-known pixels of the image serve."""
    enough = guess.some & ~guess.whole & (count >= ENOUGH)
    everywhere, number = ((each * enough).sum((1, 2, 3), keepdim=True) for each in (total, count))
    elsewhere = torch.where(number > 0, everywhere / number.clamp_min(1), MEAN_DEVIATION * levels * UNKNOWN_SPREAD)
    return (torch.where(enough, total / count.clamp_min(1), elsewhere) / MEAN_DEVIATION).clamp_min(LEAST_SPREAD)


def _moves(size: tuple[int, int], step: int) -> list[tuple[int, int]]:
    """List the nearest places that something in an image (H, W) can be moved to, in multiples of the step."""

    def multiples(side: int) -> range:
        most = min((side - 1) // step, MOVES)
        return range(-most * step, most * step + 1, step)

    moves = [(row, col) for row in multiples(size[0]) for col in multiples(size[1]) if (row, col) != (0, 0)]
    return sorted(moves, key=lambda move: move[0] ** 2 + move[1] ** 2)[:MOVES]


def _move(values: Tensor, rows: int, cols: int) -> Tensor:
    """Move a map (B, 1, H, W) down and to the right; zeros come in."""
    return F.pad(values, (cols, -cols, rows, -rows))


class Tilt:
    """The logarithms of the factors by which evidence multiplies the distributions of sub-pixels.

    Args:
        evidence: of a view.
        auxiliary: the auxiliary variable that made the given view; None if no view is given.
        view: the given view, (B, C', H', W').
        levels: of the view that the evidence is about.
    """

    def __init__(self, evidence: Evidence, auxiliary: CellAuxiliary | None, view: Tensor | None, levels: int) -> None:
        _, C, H, W = evidence.guess.shape
        spread, self.mean = evidence.spread.expand(-1, C, -1, -1), evidence.guess
        unknown = spread > 0
        half = unknown & spread.isfinite()
        self.scale = torch.where(half, spread, FAR)
        self.weights, self.left, self.left_scale = (1,) * C, self.mean, torch.full_like(self.scale, FAR)
        if auxiliary is not None and view is not None:
            self.weights = tuple(auxiliary.weights(C))
            weights = per_channel(list(self.weights), view.device)
            variance = torch.where(half, VARIANCE * (weights * spread) ** 2, 0)
            after, variance, nothing = (
                auxiliary.partial_sums(each)[1] for each in (weights * self.mean, variance, spread.isinf().float())
            )
            sums = auxiliary.sums_of_pixels(view, (H, W), levels)
            self.left = (sums.lowest + sums.highest) / 2 - after
            told = unknown & (variance > 0) & (nothing == 0)
            self.left_scale = torch.where(told, (variance / VARIANCE).sqrt(), FAR)
        self.tilts = ((self.scale < FAR) | (self.left_scale < FAR)).any(1)
        """Whether a pixel is tilted, (B, H, W)."""
        self.anywhere = self.tilts.any(0)

    def own(self, values: Tensor, channel: int, rows: Tensor, cols: Tensor) -> Tensor:
        """Tilt values (B, ..., N) of a channel toward the mean of the known part of each pixel."""
        mean, scale = (each[:, channel, rows, cols] for each in (self.mean, self.scale))
        return log_logistic(values, mean, scale)

    def rest(self, values: Tensor, channel: int, rows: Tensor, cols: Tensor, before: Tensor) -> Tensor:
        """Tilt values (B, ..., N) toward what they leave for the rest of their cell, given the sums before, (B, N)."""
        left, scale = (each[:, channel, rows, cols] for each in (self.left, self.left_scale))
        return log_logistic(self.weights[channel] * values, left - before, scale)


def log_logistic(values: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Compute the logarithm of a logistic density at values (B, ..., N), without the part that only has the scale."""
    between = [1] * (values.dim() - mean.dim())
    mean, scale = (each.view(len(each), *between, -1) for each in (mean, scale))
    z = ((values - mean) / scale).abs()
    return -z - 2 * torch.log1p(torch.exp(-z))
