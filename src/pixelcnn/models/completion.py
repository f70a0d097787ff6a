"""Filling holes: drawing the unknown pixels of images, view by view, so that they fit the known ones.

A view is drawn within the bounds that the known pixels set, from distributions that are tilted toward what they tell
(see `pixelcnn.auxiliary.evidence`). That is only a proposal. To come closer to the distribution of the unknown pixels
given the known ones, several *candidates* of each view are drawn. Each is weighted by how likely it makes the known
pixels, compared to how likely it was to be proposed; then the next view is drawn for candidates that are chosen by
their weights (importance resampling, also known as a twisted particle filter). With more and more candidates, the
result is drawn from the exact conditional distribution.

With `z` for the mass that the bounds leave of the distribution of a sub-pixel, tilts included, the weight of a view is
the product of all `z`, over the tilts of the view before, which have done their duty now that this view is known.

Reference: Naesseth, Lindsten & Schön, Elements of sequential Monte Carlo (2019), sections 2 and 3.
"""

__all__ = ["complete_views"]

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pixelcnn.auxiliary.cells import Filling, whole_box
from pixelcnn.auxiliary.chain import Chain
from pixelcnn.auxiliary.evidence import Evidence, Tilt, find_evidence
from pixelcnn.likelihoods.base import Bounds
from pixelcnn.models.draw import DrawOptions, canvas_type, draw_views, position_noise
from pixelcnn.models.factor import Factor, Visit
from pixelcnn.models.pixel_draw import Canvas, PixelDraw
from pixelcnn.models.request import Hole, Request
from pixelcnn.traversal.loop import Watch


def complete_views(
    factors: Sequence[Factor], chain: Chain, request: Request, hole: Hole, options: DrawOptions
) -> Iterator[tuple[int, Tensor]]:
    """Complete images view by view: yield (k, x_k) for k = K, ..., 0, as `draw_views` does.

    Each view but that of the image itself has all candidates, those of an image one after another.

    Raises:
        ValueError: if a view is not a `CellAuxiliary`, or the request or the options do not fit the chain.
        MemoryError: if the cached activations need more memory than is free.
        FloatingPointError: if a network gives parameters that are not finite.
    """
    N, seeds = hole.candidates, request.seeds()
    labels = None if request.labels is None else request.labels.repeat_interleave(N)
    every = replace(request, n=request.n * N, seed=[seed for seed in seeds for _ in range(N)], labels=labels)
    options = replace(options, consistent=True)
    completion = _Completion(find_evidence(chain, hole.x, hole.unknown), seeds, N, labels, options)
    return draw_views(factors, chain, every, options, completion.draw)


class _Completion:
    """Draws the views of all candidates, and chooses among them."""

    def __init__(
        self,
        evidence: list[Evidence],
        seeds: Sequence[int],
        candidates: int,
        labels: Tensor | None,
        options: DrawOptions,
    ) -> None:
        self.evidence, self.seeds, self.candidates = evidence, seeds, candidates
        self.labels, self.options = labels, options
        self.tilts = torch.zeros(len(seeds), candidates, dtype=torch.float64)  # of the view before

    def draw(self, k: int, factor: Factor, given: Tensor | None, watch: Watch) -> Tensor:
        """Draw view k of all candidates given the next view of each, and choose among them."""
        N, (box, guess, spread) = self.candidates, self.evidence[k]
        lowest, highest, guess, spread = (each.repeat_interleave(N, 0) for each in (*box, guess, spread))
        H, W = guess.shape[2:]
        noise = position_noise(factor, (H, W), self.seeds, k, N).to(guess.device)
        fill = _Fill(factor, noise, given, Evidence(Bounds(lowest, highest), guess, spread), self.options, weigh=N > 1)
        canvas = lowest.to(canvas_type(factor.likelihood.levels))
        visit = Visit(self.options.schedule, self.options.dtype, consistent=True, watch=watch, offset=False)
        view = factor.traverse(canvas, fill, given, self.labels, visit)
        if N == 1:
            return view
        log_weights, tilts = (each.view(-1, N).cpu() for each in (fill.log_weights, fill.tilts))
        chosen = self._choose(k, log_weights - self.tilts, 1 if k == 0 else N)
        self.tilts = tilts.gather(1, chosen)
        return view[(chosen + N * torch.arange(len(chosen))[:, None]).flatten().to(view.device)]

    def _choose(self, k: int, log_weights: Tensor, number: int) -> Tensor:
        """Choose candidates by their weights (images, candidates), with equally spaced quantiles: (images, number)."""
        generators = [np.random.default_rng((seed, k, self.candidates)) for seed in self.seeds]
        first = torch.tensor([generator.random() for generator in generators], dtype=torch.float64)
        quantiles = (first[:, None] + torch.arange(number)) / number
        return torch.searchsorted(log_weights.softmax(1).cumsum(1), quantiles).clamp_max(self.candidates - 1)


class _Fill:
    """A fill that draws from tilted distributions within bounds.

    Attributes:
        log_weights: the logarithms of the weights of images so far, (n,); only if they are to be weighed.
        tilts: the sum of the own tilts of images so far, (n,).
    """

    def __init__(
        self,
        factor: Factor,
        noise: Tensor,
        given: Tensor | None,
        evidence: Evidence,
        options: DrawOptions,
        *,
        weigh: bool,
    ) -> None:
        self.likelihood, self.noise, self.map = factor.likelihood, noise, options.map
        levels, device, constraint = factor.likelihood.levels, noise.device, factor.constraint(consistent=True)
        self.filling = Filling(evidence.box, constraint, given, levels)
        self.unbounded = None
        if weigh:
            self.unbounded = Filling(whole_box(evidence.guess.shape, levels, device), constraint, given, levels)
        self.tilt = Tilt(evidence, constraint, given, levels)
        self.tilted = bool(self.tilt.anywhere.any())
        self.draw_pixels = PixelDraw(
            factor.likelihood,
            Canvas(noise, factor.offset((noise.shape[2], noise.shape[3]), given), self.filling),
            scale_shift=options.scale_shift,
            map=options.map,
            fill=not self.tilted,  # else once the tilted pixels are drawn again
        )
        self.every = torch.arange(levels, device=device).view(1, -1, 1)
        self.log_weights, self.tilts = torch.zeros(2, len(noise), dtype=torch.float64, device=device)

    def __call__(self, params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        bounds = None if self.unbounded is None else self.filling.next_bounds(rows, cols)
        values = self.draw_pixels(params, rows, cols)
        if self.tilted or bounds is not None:
            params = self.draw_pixels.shifted(params, rows, cols)
        if self.tilted:
            tilted = self.tilt.anywhere[rows, cols].nonzero()[:, 0]
            if len(tilted):
                values[:, :, tilted] = self._draw_tilted(params[:, :, tilted], values, rows, cols, tilted)
        if self.unbounded is not None and bounds is not None:
            wide, narrow = self.unbounded.next_bounds(rows, cols).of(values), bounds.of(values)
            mass = self.likelihood.log_prob(params, values, wide) - self.likelihood.log_prob(params, values, narrow)
            self.log_weights += mass.double().sum(1)
            self.unbounded.fill(rows, cols, values)
        if self.tilted:
            self.filling.fill(rows, cols, values)
        return values

    def _draw_tilted(self, params: Tensor, values: Tensor, rows: Tensor, cols: Tensor, tilted: Tensor) -> Tensor:
        """Draw the tilted pixels of a group again, channel by channel: (B, C, tilted).

        Args:
            params: of the tilted pixels.
            values: of all pixels of the group, as drawn without tilts; they stay for images that have none here.
            rows, cols: of the group.
            tilted: which of its pixels are tilted in any image.
        """
        x, rows, cols = values[:, :, tilted], rows[tilted], cols[tilted]
        on = self.tilt.tilts[:, rows, cols]
        bounds, noise = self.filling.next_bounds(rows, cols), self.noise[:, :, rows, cols]
        for channel in range(x.shape[1]):
            before = list(x[:, :channel].unbind(1))
            lowest, highest = bounds(before)
            spent = bounds.before(before)
            between = Bounds(*(end[:, None].expand_as(x) for end in (lowest, highest)))
            own, rest = self.tilt.own, self.tilt.rest
            tilts = own(self.every, channel, rows, cols) + rest(self.every, channel, rows, cols, spent)
            logits = self.likelihood.pmf(params, x, channel, between).log() + tilts
            # MAP sampling takes the mode of a component. Here there are none, and the median is as good.
            quantile = 0.5 if self.map else noise[:, channel, None]
            level = (logits.softmax(1).cumsum(1) <= quantile).sum(1)
            x[:, channel] = torch.where(on, level.clamp(lowest, highest), x[:, channel])
            if self.unbounded is not None:
                drawn = x[:, channel]
                kept, used = own(drawn, channel, rows, cols), rest(drawn, channel, rows, cols, spent)
                gained = logits.logsumexp(1) - used
                self.log_weights += torch.where(on, gained, 0).double().sum(1)
                self.tilts += torch.where(on, kept, 0).double().sum(1)
        return x
