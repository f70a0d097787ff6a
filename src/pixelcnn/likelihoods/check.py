"""A check for likelihoods that you write yourself."""

__all__ = ["check_likelihood"]

import itertools
import math

import torch
from torch import Tensor

from pixelcnn.likelihoods.base import Bounds, Likelihood

TOLERANCE = 1e-4
MOST_PIXELS = 2**16
DRAWS = 2**14
RARE = 5  # pixels that are expected less often are counted together
SURE = 6  # standard deviations from what is expected that are no accident


def check_likelihood(likelihood: Likelihood, seed: int = 0) -> None:
    """Check by brute force that a likelihood is correct, with random parameters.

    The probabilities of all pixels must sum to one, with and without bounds. `pmf` and `log_prob` must agree, and must
    be the same for a canvas as for single pixels. Log-probabilities must be finite, and so must their gradients. Draws
    must be levels within the bounds that follow `log_prob`, and the same noise must give the same draw.

    Args:
        likelihood: what to check. Every value of a pixel is tried, so give it few levels: at most 65,536 values in all.
        seed: of the random parameters.

    Raises:
        ValueError: if one of these fails; the message says which.

    Example:
        >>> from pixelcnn.likelihoods import LogisticMixture, check_likelihood
        >>> check_likelihood(LogisticMixture(channels=3, levels=4, components=2))
    """
    C, L = likelihood.channels, likelihood.levels
    if L**C > MOST_PIXELS:
        raise ValueError(f"levels={L!r}: {L**C} pixels are too many to try; check it with fewer levels")
    generator = torch.Generator().manual_seed(seed)
    one = torch.randn(1, likelihood.num_params, 1, generator=generator, dtype=torch.float64)
    noise = torch.rand(DRAWS, likelihood.num_noise, 1, generator=generator)
    x = torch.tensor(list(itertools.product(range(L), repeat=C)))[:, :, None]  # every pixel: (L^C, C, 1)
    low, high = L // 4, max(L // 4, L - 2)
    for name, box in {"without bounds": None, f"in [{low}, {high}]": (low, high)}.items():
        inside = x if box is None else x[((x >= low) & (x <= high)).all(1)[:, 0]]
        log_prob = _check_scores(likelihood, one, inside, box, name)
        _check_draws(likelihood, one, noise, inside, log_prob, box, name)


def _check_scores(likelihood: Likelihood, one: Tensor, x: Tensor, box: tuple[int, int] | None, name: str) -> Tensor:
    """Check the probabilities of all possible pixels (N, C, 1), and return their logarithms (N,)."""
    params = one.expand(len(x), -1, -1).clone().requires_grad_()
    bounds = None if box is None else Bounds(*(torch.full_like(x, end) for end in box))
    log_prob = likelihood.log_prob(params, x, bounds)[:, 0]
    if not log_prob.isfinite().all():
        raise ValueError(f"{likelihood}: log_prob {name} is not finite")
    if not torch.autograd.grad(log_prob.sum(), params)[0].isfinite().all():
        raise ValueError(f"{likelihood}: the gradient of log_prob {name} is not finite")
    log_prob = log_prob.detach()
    total = float(log_prob.exp().sum())
    if abs(total - 1) > TOLERANCE:
        raise ValueError(f"{likelihood}: the probabilities of all pixels {name} sum to {total:.6f}, not to 1")
    tables = [likelihood.pmf(params, x, channel, bounds) for channel in range(x.shape[1])]  # (N, L, 1) each
    chosen = [table.gather(1, x[:, channel, None])[:, 0, 0] for channel, table in enumerate(tables)]
    if not torch.allclose(torch.stack(chosen).prod(0), log_prob.exp(), atol=TOLERANCE):
        raise ValueError(f"{likelihood}: pmf and log_prob {name} differ")
    canvas = [each.detach().permute(1, 2, 0)[None] for each in (params, x, *(bounds or ()))]  # (1, ..., 1, N)
    whole = likelihood.log_prob(canvas[0], canvas[1], Bounds(*canvas[2:]) if bounds else None)
    if whole.shape != (1, 1, len(x)) or not torch.allclose(whole.flatten(), log_prob, atol=TOLERANCE):
        raise ValueError(f"{likelihood}: log_prob {name} of a canvas (H, W) is not that of its pixels")
    return log_prob


def _check_draws(
    likelihood: Likelihood,
    one: Tensor,
    noise: Tensor,
    x: Tensor,
    log_prob: Tensor,
    box: tuple[int, int] | None,
    name: str,
) -> None:
    """Check that draws follow the log-probabilities (N,) of the possible pixels (N, C, 1)."""
    low, high = box or (0, likelihood.levels - 1)
    params = one.expand(len(noise), -1, -1)

    def following(drawn: list[Tensor]) -> Bounds:
        """Return the bounds of the next channel, which are the same for all."""
        ends = (torch.full((len(noise), 1), end) for end in (low, high))
        return Bounds(*ends)

    first, again = (likelihood.sample(params, noise, bounds=following if box else None) for _ in range(2))
    shape = (len(noise), likelihood.channels, 1)
    if first.shape != shape or first.is_floating_point() or first.min() < low or first.max() > high:
        raise ValueError(f"{likelihood}: draws {name} are not integers {shape} in [{low}, {high}]")
    if not torch.equal(first, again):
        raise ValueError(f"{likelihood}: two draws {name} from the same noise differ")
    digits = (likelihood.levels ** torch.arange(likelihood.channels))[:, None]
    counts = torch.bincount((first * digits).sum((1, 2)), minlength=likelihood.levels**likelihood.channels).double()
    counts, expected = counts[(x * digits).sum((1, 2))], len(noise) * log_prob.double().exp()
    rare = expected < RARE
    pairs = [torch.cat([each[~rare], each[rare].sum()[None]]) for each in (counts, expected)]
    # The statistic of Pearson's chi-squared test: its mean is at most the number of cells, its variance twice that.
    statistic, cells = float(((pairs[0] - pairs[1]) ** 2 / pairs[1].clamp_min(1)).sum()), len(pairs[0])
    if statistic > cells + SURE * math.sqrt(2 * cells):
        raise ValueError(f"{likelihood}: draws {name} do not follow log_prob (chi-squared {statistic:.0f} of {cells})")
