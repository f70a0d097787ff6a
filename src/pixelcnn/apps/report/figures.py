"""The figures of a report for each model."""

__all__ = ["FIGURES", "subject_sections"]

import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import torch
from torch import Tensor

from pixelcnn.apps.report.subjects import Subject
from pixelcnn.data.images import load_images
from pixelcnn.models.draw import DrawOptions
from pixelcnn.models.sampling import colorize, sample, sample_views
from pixelcnn.nn.layers import evaluating
from pixelcnn.pictures.charts import bars
from pixelcnn.pictures.page import Chart, Gallery, Part, Section
from pixelcnn.pictures.sheets import Strip

COLUMNS = 8  # pictures in a row
SHIFTS = [round(-0.1 * i, 1) for i in range(11)]
GRID_ROWS, GRID_COLUMNS = 4, len(SHIFTS) + 1
NEIGHBORS, COMPARED_SIDE = 3, 32
SPEED_REPEATS = 3
NEIGHBORS_TEXT = """Below each sample are the training images that are closest to it by the squared differences of
pixels at {side}x{side}. They come from your own copy of the data: check its terms before you share this report."""
GRID = """All pictures in a row use the same random numbers, and the log-scales are lower from column to column. The
last column is MAP sampling, which draws a component of the mixture for each pixel and takes its mode."""
SPEED = """Milliseconds per pixel of the image, all views together, on {where}. This package samples with cached
activations. For comparison, we estimate the time with a full forward pass for every pixel from the median of {repeats}
passes, times the number of pixels."""


@lru_cache(maxsize=2)
def _draw(subject: Subject, seed: int, options: DrawOptions) -> list[Tensor]:
    """Draw a row of samples with their views, the image first."""
    views = dict(sample_views(subject.model, COLUMNS, subject.size, seed=seed, options=options))
    return [views[k] for k in sorted(views)]


def _samples(subject: Subject, seed: int, progress: bool, map: bool = False) -> list[Part]:
    """Show all views of samples, the coarsest on top: a growing pyramid, or gray images above their colors."""
    drawn = _draw(subject, seed, DrawOptions(map=map, progress=progress))
    formats = [levels for _, levels in subject.model.formats]
    strips: list[Strip] = [(view, x, levels) for view, x, levels in zip(subject.views, drawn, formats, strict=True)]
    strips.reverse()  # the coarsest on top
    grown = " Each column is one sample with the views that it grew from." if len(strips) > 1 else ""
    return [Gallery(strips, f"{len(drawn[0])} draws, seeds {seed} to {seed + COLUMNS - 1}.{grown}")]


def _colorings(subject: Subject, seed: int, progress: bool) -> list[Part]:
    """Show real images, their gray views, and three colorings of each, as in the paper's figure 4."""
    if not subject.gray:
        return []
    images = subject.images.get("test") or load_images("photos", "test", size=subject.size)
    x = images.batch(range(min(COLUMNS, len(images))))
    gray_levels = subject.model.formats[1][1]
    strips: list[Strip] = [("real", x, 256), ("gray view", subject.model.views(x)[1], gray_levels)]
    for i in range(3):
        options = DrawOptions(progress=progress)
        drawn = colorize(subject.model, x, seed=seed + i * len(x), options=options)
        strips.append((f"coloring {i + 1}", drawn, subject.model.levels))
    caption = "Colorings of held-out images. The gray view of each one is exactly the one it was given."
    if "test" not in subject.images:
        caption += " These photographs are from CID22 by Cloudinary, CC BY-SA 4.0; the model was not trained on them."
    return [Gallery(strips, caption)]


def _variance(subject: Subject, seed: int, progress: bool) -> list[Part]:
    """Show a grid of log-scale reductions, as in the paper's figure 5."""
    options = [DrawOptions(shift, progress=progress) for shift in SHIFTS] + [DrawOptions(map=True, progress=progress)]
    drawn = [sample(subject.model, GRID_ROWS, subject.size, seed=seed, options=option) for option in options]
    names = [f"{-shift:.1f}" for shift in SHIFTS] + ["MAP"]
    strips: list[Strip] = []
    for row in range(GRID_ROWS):
        title = f"log-scales reduced by {', '.join(names)}" if row == 0 else f"seed {seed + row}"
        strips.append((title, [images[row] for images in drawn], subject.model.levels))
    return [GRID, Gallery(strips, "From left to right: 0.0, 0.1, … 1.0, and MAP")]


def _neighbors(subject: Subject, seed: int, progress: bool) -> list[Part]:
    """Show samples above the closest training images."""
    if "train" not in subject.images:
        return []
    images = subject.images["train"]
    drawn = _draw(subject, seed, DrawOptions(progress=progress))[0]
    wanted = _shrunk(drawn)
    distances = []
    for start in range(0, len(images), 512):
        others = _shrunk(images.batch(range(start, min(start + 512, len(images)))).to(drawn.device))
        distances.append(torch.cdist(wanted, others))
    nearest = torch.cat(distances, 1).topk(min(NEIGHBORS, len(images)), largest=False).indices
    strips: list[Strip] = [("samples", drawn, subject.model.levels)]
    strips += [(f"nearest {i + 1}", images.batch(column), 256) for i, column in enumerate(nearest.T.tolist())]
    side = min(COMPARED_SIDE, subject.size)
    return [NEIGHBORS_TEXT.format(side=side), Gallery(strips, "")]


def _shrunk(x: Tensor) -> Tensor:
    """Reduce images to vectors that are quick to compare, (B, C, H, W) to (B, n)."""
    side = min(COMPARED_SIDE, *x.shape[2:])
    return torch.nn.functional.adaptive_avg_pool2d(x.float(), side).flatten(1)


def _speed(subject: Subject, seed: int, progress: bool) -> list[Part]:
    """Measure the time to sample, with cached activations and with full forward passes."""
    model, pixels = subject.model, subject.size**2
    values = {}
    for n in (1, COLUMNS):
        seconds = _median_seconds(partial(sample, model, n, subject.size, seed=seed), model.device)
        values[f"cached, {n} at once" if n > 1 else "cached, one image"] = 1e3 * seconds / (n * pixels)
    x = torch.zeros(1, *([model.formats[0][0]] + [subject.size] * 2), dtype=torch.uint8)
    with evaluating():
        naive = 0.0
        for factor, (view, given) in zip(model.factors, model.links(x), strict=True):
            context = factor.context((view.shape[2], view.shape[3]), given, None)
            forward = partial(factor.network, view, context)
            seconds = _median_seconds(forward, model.device)
            naive += seconds * view[0, 0].numel()
    values["full forward passes, one image"] = 1e3 * naive / pixels
    cpu = model.device.type == "cpu"
    where = f"{torch.get_num_threads()} threads of this machine" if cpu else f"the device {model.device}"
    text = SPEED.format(where=where, repeats=SPEED_REPEATS)
    chart = bars(values, "milliseconds per pixel", digits=3, log=True)
    return [text, Chart(chart, "Lower is better. The scale is logarithmic.")]


def _median_seconds(run: Callable[[], object], device: torch.device) -> float:
    def finish() -> None:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    times = []
    for _ in range(SPEED_REPEATS):
        finish()
        start = time.perf_counter()
        run()
        finish()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


FIGURES: dict[str, Callable[[Subject, int, bool], list[Part]]] = {
    "samples": _samples,
    "MAP samples": lambda subject, seed, progress: _samples(subject, seed + COLUMNS, progress, map=True),
    "colorings of real images": _colorings,
    "less variance": _variance,
    "nearest training images": _neighbors,
    "sampling speed": _speed,
}
"""The figures of one model by title. A function returns no parts if the model or its data do not have this figure."""


def subject_sections(
    subject: Subject, *, seed: int = 0, figures: Sequence[str] | None = None, progress: bool = False
) -> list[Section]:
    """Make the figures of one model.

    Args:
        subject: the model.
        seed: seed of the samples.
        figures: titles from `FIGURES` to make; None for all that the model has.
        progress: show progress bars.
    """
    wanted = FIGURES if figures is None else {title: FIGURES[title] for title in figures}
    made = {title: make(subject, seed, progress) for title, make in wanted.items()}
    return [Section(f"{subject.name}: {title}", parts) for title, parts in made.items() if parts]
