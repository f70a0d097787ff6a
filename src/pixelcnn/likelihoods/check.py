"""A check for likelihoods that you write yourself."""

__all__ = ["check_likelihood"]

import itertools

import torch

from pixelcnn.likelihoods.base import Bounds, Likelihood

TOLERANCE = 1e-4
MOST_PIXELS = 2**16


def check_likelihood(likelihood: Likelihood, seed: int = 0) -> None:
    """Check by brute force that a likelihood is correct, with random parameters.

    The probabilities of all pixels must sum to one, with and without bounds. `pmf` and `log_prob` must agree.
    Log-probabilities must be finite, and so must their gradients. Draws must be levels within the bounds, and the same
    noise must give the same draw.

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
    x = torch.tensor(list(itertools.product(range(L), repeat=C)))[:, :, None]  # every pixel: (L^C, C, 1)
    params = one.expand(len(x), -1, -1).clone().requires_grad_()
    low, high = L // 4, max(L // 4, L - 2)
    boxes = {"without bounds": None, f"in [{low}, {high}]": Bounds(torch.full_like(x, low), torch.full_like(x, high))}
    for name, bounds in boxes.items():
        inside = torch.ones(len(x), dtype=torch.bool) if bounds is None else ((x >= low) & (x <= high)).all(1)[:, 0]
        log_prob = likelihood.log_prob(params, x.clamp(low, high) if bounds else x, bounds)[inside, 0]
        if not log_prob.isfinite().all():
            raise ValueError(f"{likelihood}: log_prob {name} is not finite")
        total = float(log_prob.detach().exp().sum())
        if abs(total - 1) > TOLERANCE:
            raise ValueError(f"{likelihood}: the probabilities of all pixels {name} sum to {total:.6f}, not to 1")
        tables = [likelihood.pmf(params, x, channel, bounds) for channel in range(C)]  # (L^C, L, 1) each
        chosen = [table.gather(1, x[:, channel, None])[:, 0, 0] for channel, table in enumerate(tables)]
        if not torch.allclose(torch.stack(chosen).prod(0)[inside], log_prob.exp(), atol=TOLERANCE):
            raise ValueError(f"{likelihood}: pmf and log_prob {name} differ")
    if not torch.autograd.grad(likelihood.log_prob(params, x).sum(), params)[0].isfinite().all():
        raise ValueError(f"{likelihood}: the gradient of log_prob is not finite")
    noise = torch.rand(len(x), likelihood.num_noise, 1, generator=generator)
    between = boxes[f"in [{low}, {high}]"]
    for name, bounds in {"without bounds": None, f"in [{low}, {high}]": between}.items():

        def following(drawn: list[torch.Tensor], bounds: Bounds | None = bounds) -> Bounds:
            assert bounds is not None
            return Bounds(bounds.lowest[:, len(drawn)], bounds.highest[:, len(drawn)])

        with torch.no_grad():
            draws = [likelihood.sample(params, noise, bounds=bounds and following) for _ in range(2)]
        least, most = (0, L - 1) if bounds is None else (low, high)
        if draws[0].shape != x.shape or draws[0].min() < least or draws[0].max() > most:
            raise ValueError(f"{likelihood}: draws {name} are not integers {tuple(x.shape)} in [{least}, {most}]")
        if not torch.equal(*draws):
            raise ValueError(f"{likelihood}: two draws {name} from the same noise differ")
