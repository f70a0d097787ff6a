"""The paper's tables and figures from trained models: one HTML page that needs nothing else, and PNG files.

Which of them a model has follows from its chain: a grey view, smaller views, or none. What a model was trained on and
how it scores is measured on its images where these are at hand, and else read from its card.

Reference: Kolesnikov & Lampert, PixelCNN models with auxiliary variables (ICML 2017), tables 1 and 2, figures 3 to 7.
"""

__all__ = ["FIGURES", "PAGE", "Score", "Subject", "find_subject", "has_title", "report", "subject_sections"]

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelcnn.auxiliary import Downsample, QuantizedGrayscale
from pixelcnn.checkpoint import load, write_atomically
from pixelcnn.codecs import codec_bits_per_dim
from pixelcnn.data import Crop, Images, NothingHeldOutError, load_images, load_unseen
from pixelcnn.evaluation import evaluate
from pixelcnn.figures import Chart, Gallery, Part, Section, Strip, Table, bars, page, save_picture, sheet
from pixelcnn.likelihoods import check_whole
from pixelcnn.models import ImageModel, evaluating
from pixelcnn.runs import data_of
from pixelcnn.sampling import colorize, sample
from pixelcnn.shipped import is_shipped

PAGE, TITLE = "report.html", "PixelCNN models with auxiliary variables: a report"
COLUMNS = 8  # pictures in a row
SHIFTS = [round(-0.1 * i, 1) for i in range(11)]
GRID_ROWS, GRID_COLUMNS = 4, len(SHIFTS) + 1
NEIGHBOURS, COMPARED_SIDE = 3, 32
SPEED_REPEATS = 3

# Bits per dimension of CIFAR-10 test images, and whether they are an upper bound; as recalled where marked.
PUBLISHED = [
    ("Deep Diffusion (as recalled)", 5.40, True),
    ("NICE", 4.48, False),
    ("DRAW (as recalled)", 4.13, True),
    ("Deep GMMs (as recalled)", 4.00, False),
    ("Conv DRAW", 3.58, True),
    ("Real NVP", 3.49, False),
    ("Pyramid PixelCNN, the paper (as recalled)", 3.32, True),
    ("MatNet + AR", 3.24, True),
    ("PixelCNN", 3.14, False),
    ("VAE with IAF", 3.11, True),
    ("Gated PixelCNN", 3.03, False),
    ("PixelRNN", 3.00, False),
    ("Grayscale PixelCNN, the paper", 2.98, True),
    ("DenseNet VLAE", 2.95, True),
    ("PixelCNN++", 2.92, False),
]
PUBLISHED_RESOLUTIONS = {8: 4.58, 16: 4.30, 32: 3.33, 64: 2.61, 128: 1.52}
PUBLISHED_PARTS = {"train": "0.442", "test": "0.459"}
PUBLISHED_COLOURS = "2.52"
CODECS_TEXT = """So many bits a codec made from the model would need, and so many do the files of lossless codecs, each
at its settings for small files. Files hold headers too, which matters for small images."""
TABLE_1 = """Ours are beside the published values (the paper's Table 1), the best last. A bound, marked ≤, is what the
views of an image need together; a consistent model's own figure is exact."""
TABLE_2 = """Each view as an image of its own, with what is simpler than it, in bits for each of its own sub-pixels. The
larger the view, the fewer: neighbouring pixels are more alike. The paper's are of CelebA test images, as recalled."""
PARTS = """The paper's argument: the grey view, where objects are, costs a small share of the bits, so that a network
that models all at once has little reason to care about it. And train and test hardly differ: it does not learn images
by heart. The paper's figures are of CIFAR-10 in full, as recalled."""
NEIGHBOURS_TEXT = """Below each sample the training images that are nearest to it in squared differences of pixels, at
{side}x{side}. They are here since you made this report from your own copy of them: mind the terms of the data before
you pass it on."""
GRID = """Along a row the random numbers stay the same, and the log-scales are reduced by more and more; the last column
is MAP sampling, which draws a component of the mixture for each pixel and takes its mode."""
SPEED = """Milliseconds a pixel of the image, all views together, on {threads} threads of this machine: from cached
activations, as this package samples, and by a full forward pass for every pixel (its time is that of {repeats} passes,
times the number of pixels)."""


@dataclass(frozen=True)
class Score:
    """Bits for each sub-pixel of the image; the factors, the finest first, add up to the total."""

    total: float
    factors: list[float]
    images: int
    source: str


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained model, and what is known of its data.

    Attributes:
        name: what it is called: the last part of what was asked for.
        model: the model.
        size: side of its images.
        source: what it was trained on, in words.
        images: of the splits `train` and `test`, where they are at hand; of `train` only what it was trained on.
        scores: of these splits.
        codecs: bits per dimension of lossless files of the images that the test score is of.
    """

    name: str
    model: ImageModel
    size: int
    source: str
    images: dict[str, Images]
    scores: dict[str, Score]
    codecs: dict[str, float]

    @property
    def bound(self) -> str:
        """What stands before a total; it says that this is a bound, since the views are free."""
        return "" if self.model.consistent or not self.model.auxiliaries else "≤ "

    @property
    def views(self) -> list[str]:
        return [f"{W}x{H}" for H, W in self.model.sizes((self.size, self.size))]

    @property
    def grey(self) -> bool:
        first = self.model.auxiliaries[:1]
        return self.model.formats[0][0] == 3 and any(isinstance(each, QuantizedGrayscale) for each in first)

    @property
    def pyramid(self) -> bool:
        return any(isinstance(auxiliary, Downsample) for auxiliary in self.model.auxiliaries)


def report(
    names: Sequence[str],
    folder: Path,
    *,
    data: str | None = None,
    size: int | None = None,
    crop: Crop | None = None,
    skip_broken: bool = False,
    limit: int = 200,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Write `report.html` and a PNG file for each of its pictures.

    Args:
        names: of models: folders, shipped models, hub ids.
        folder: for the page and the pictures.
        data, size, crop, skip_broken: images to score all models on, as in `load_images`; by default those that each
            was trained on, and for shipped models, whose images are elsewhere, the figures of their cards.
        limit: images of each split that are scored.
        seed: of the samples.
        overwrite: replace an earlier report in the folder: `report.html`, and the pictures that the new one has too.
        progress: show progress bars.

    Returns:
        The path of the page.

    Raises:
        ValueError: where one of the names is no model, the images cannot be had, or the folder holds something else.
    """
    check_whole(limit=limit)
    check_whole(at_least=0, seed=seed)
    if not names:
        raise ValueError("name the models to report on: folders that training made, or shipped models")
    _check_folder(folder, overwrite)
    options: dict[str, Any] = {"data": data, "size": size, "crop": crop, "skip_broken": skip_broken, "limit": limit}
    subjects = [find_subject(name, **options, progress=progress) for name in names]
    called = [subject.name for subject in subjects]
    subjects = [
        replace(subject, name=f"{subject.name}-{called[:i].count(subject.name) + 1}")
        if subject.name in called[:i]
        else subject
        for i, subject in enumerate(subjects)
    ]
    sections = [*_tables(subjects)]
    for subject in subjects:
        sections += subject_sections(subject, seed=seed, progress=progress)
    path = folder / PAGE
    write_atomically(path, page(TITLE, sections).encode())  # first: a folder without it would not be known as a report
    _save_pictures(sections, folder)
    return path


def _check_folder(folder: Path, overwrite: bool) -> None:
    """A ValueError for a folder that is neither empty nor that of an earlier report, to be replaced."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is a file: name a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not has_title(folder / PAGE, TITLE):
        raise ValueError(f"{str(folder)!r} is not empty, and holds no report: name another folder")
    if not overwrite:
        raise ValueError(
            f"{str(folder)!r} is not empty: use --overwrite to replace the report in it, or another folder"
        )


def has_title(path: Path, title: str) -> bool:
    """Whether a file is a page of that title that this package made."""
    return path.is_file() and f"<title>{escape(title)}</title>" in path.read_text(errors="replace")


def find_subject(
    name: str,
    *,
    data: str | None = None,
    size: int | None = None,
    crop: Crop | None = None,
    skip_broken: bool = False,
    limit: int = 200,
    progress: bool = False,
) -> Subject:
    """Load a model, and score it on its images; of a shipped one the card has the figures.

    The arguments are those of `report`.

    Raises:
        ValueError: where there is no such model, it has classes or other than 256 levels, or its images cannot be had.
    """
    model = load(name)
    if model.classes or model.levels != 256:
        raise ValueError(
            f"{name!r} has {model.classes} classes and {model.levels} levels: reports are of models of 8-bit images "
            "without classes"
        )
    card = model.card if is_shipped(name) else {}
    trained = data_of(Path(name))
    short = Path(name).resolve().name
    side: int = size or trained.get("size") or model.side or 32
    if data is None and "source" not in trained:
        scores = {split: Score(**score) for split, score in card.get("scores", {}).items()}
        source = ", ".join(dict.fromkeys(part["source"] for part in card.get("data", [])))
        return Subject(short, model, side, source, {}, scores, card.get("codecs", {}))
    options = {
        "size": side,
        "crop": crop or (trained.get("crop") if data is None else None),
        "skip_broken": skip_broken,
    }
    options |= {"channels": model.formats[0][0], "progress": progress}
    images, scores = {}, {}
    if data is not None:
        images["test"] = load_unseen(data, trained, **options)
    else:
        images["train"] = load_images(trained["source"], "train", **options)
        with suppress(NothingHeldOutError):  # then there are no figures of held-out images
            images["test"] = load_images(trained["source"], "test", **options)
    for split in images:
        result = evaluate(model, images[split], limit=limit, progress=progress)
        scores[split] = Score(result.bits_per_dim, result.factors, result.images, images[split].name)
    codecs = codec_bits_per_dim(images["test"], limit=limit, progress=progress) if "test" in images else {}
    return Subject(short, model, side, data or trained["source"], images, scores, codecs)


def _tables(subjects: Sequence[Subject]) -> Iterator[Section]:
    """Those of the paper that the models have figures for."""
    scored = [subject for subject in subjects if "test" in subject.scores]
    if compared := [subject for subject in scored if subject.codecs]:
        yield Section("Beside lossless files", [CODECS_TEXT, _codecs(compared)])
    if cifar := [subject for subject in scored if "cifar" in subject.source.lower()]:
        yield Section("CIFAR-10", [TABLE_1, _published(cifar)])
    if pyramids := [subject for subject in scored if subject.pyramid]:
        yield Section("Bits per dimension for each resolution", [TABLE_2, _resolutions(pyramids)])
    if grey := [subject for subject in scored if subject.grey]:
        yield Section("Structure and colour", [PARTS, _parts(grey)])


def _codecs(subjects: Sequence[Subject]) -> Table:
    names = list(dict.fromkeys(name for subject in subjects for name in subject.codecs))
    rows = []
    for subject in subjects:
        score = subject.scores["test"]
        files = [f"{subject.codecs[name]:.3f}" if name in subject.codecs else "" for name in names]
        source = f"{score.images} images of {score.source}"
        rows.append([subject.name, f"{subject.bound}{score.total:.3f}", *files, source])
    return Table(["", "the model", *names, "images"], rows, "Bits per dimension of held-out images")


def _published(subjects: Sequence[Subject]) -> Table:
    rows = [(name, bits, f"{'≤ ' if bound else ''}{bits:.2f}", "published") for name, bits, bound in PUBLISHED]
    for subject in subjects:
        score = subject.scores["test"]
        where = f"ours, {score.images} images of {score.source}"
        rows.append((subject.name, score.total, f"{subject.bound}{score.total:.2f}", where))
    rows.sort(key=lambda row: -row[1])
    caption = (
        "Bits per dimension. Images that are stored as JPEG, or few of them, cannot be compared with published values"
    )
    return Table(["", "bits/dim", ""], [(name, shown, where) for name, _, shown, where in rows], caption)


def _resolutions(subjects: Sequence[Subject]) -> Table:
    sides = sorted({side for subject in subjects for side in by_resolution(subject)} | set(PUBLISHED_RESOLUTIONS))
    rows = [["the paper", *(f"{PUBLISHED_RESOLUTIONS[s]:.2f}" if s in PUBLISHED_RESOLUTIONS else "" for s in sides)]]
    for subject in subjects:
        bits = by_resolution(subject)
        bound = dict.fromkeys(bits, subject.bound)
        if subject.model.formats[-1] == subject.model.formats[0]:
            bound[min(bits)] = ""  # the last view is given nothing
        rows.append([subject.name, *(f"{bound[s]}{bits[s]:.2f}" if s in bits else "" for s in sides)])
    return Table(["", *(f"{side}x{side}" for side in sides)], rows, "Bits per dimension of held-out images")


def by_resolution(subject: Subject) -> dict[int, float]:
    """Bits for each sub-pixel of the views in colour, by their side: of a view's factor and of the coarser ones."""
    sizes, formats = subject.model.sizes((subject.size, subject.size)), subject.model.formats
    factors = subject.scores["test"].factors
    pixels = [channels * H * W for (channels, _), (H, W) in zip(formats, sizes, strict=True)]
    return {
        H: sum(factors[k:]) * pixels[0] / pixels[k]
        for k, ((channels, levels), (H, _)) in enumerate(zip(formats, sizes, strict=True))
        if (channels, levels) == formats[0]
    }


def _parts(subjects: Sequence[Subject]) -> Table:
    rows = [["the paper", *PUBLISHED_PARTS.values(), "", PUBLISHED_COLOURS]]
    for subject in subjects:
        scores = [subject.scores.get(split) for split in PUBLISHED_PARTS]
        grey = [f"{sum(score.factors[1:]):.3f}" if score else "" for score in scores]
        colours = [f"{score.factors[0]:.3f}" if score else "" for score in scores]
        rows.append([subject.name, *grey, *colours])
    header = ["", *(f"grey view, {s}" for s in PUBLISHED_PARTS), *(f"colours, {s}" for s in PUBLISHED_PARTS)]
    return Table(header, rows, "Bits for each sub-pixel of the image")


@lru_cache(maxsize=2)
def _draw(subject: Subject, seed: int, progress: bool, **options: Any) -> list[Tensor]:
    """A row of samples with their views."""
    return sample(subject.model, COLUMNS, subject.size, seed=seed, progress=progress, **options)


def _samples(subject: Subject, seed: int, progress: bool, **options: Any) -> list[Part]:
    """All views of samples, the coarsest on top: the pyramid growing, or grey images above their colours."""
    drawn = _draw(subject, seed, progress, **options)
    formats = [levels for _, levels in subject.model.formats]
    strips: list[Strip] = [(view, x, levels) for view, x, levels in zip(subject.views, drawn, formats, strict=True)]
    strips.reverse()  # the coarsest on top
    grown = " Each column is one sample, and the views that it grew from." if len(strips) > 1 else ""
    return [Gallery(strips, f"{len(drawn[0])} draws, seeds {seed} to {seed + COLUMNS - 1}.{grown}")]


def _colourings(subject: Subject, seed: int, progress: bool) -> list[Part]:
    """Real images, their grey views, and three colourings of each: the paper's figure 4."""
    if not subject.grey:
        return []
    images = subject.images.get("test") or load_images("photos", "test", size=subject.size)
    x = images.batch(range(min(COLUMNS, len(images))))
    grey_levels = subject.model.formats[1][1]
    strips: list[Strip] = [("real", x, 256), ("grey view", subject.model.views(x)[1], grey_levels)]
    for i in range(3):
        drawn = colorize(subject.model, x, seed=seed + i * len(x), progress=progress)
        strips.append((f"colouring {i + 1}", drawn, subject.model.levels))
    caption = "Colourings of held-out images: the grey view of each is exactly the one it was given."
    if "test" not in subject.images:
        caption += " These are photographs of CID22 by Cloudinary, CC BY-SA 4.0; the model was not trained on them."
    return [Gallery(strips, caption)]


def _variance(subject: Subject, seed: int, progress: bool) -> list[Part]:
    """The grid of log-scale reductions: the paper's figure 5."""
    options = [{"scale_shift": shift} for shift in SHIFTS] + [{"map": True}]
    drawn = [
        sample(subject.model, GRID_ROWS, subject.size, seed=seed, progress=progress, **option)[0] for option in options
    ]
    names = [f"{-shift:.1f}" for shift in SHIFTS] + ["MAP"]
    strips: list[Strip] = []
    for row in range(GRID_ROWS):
        title = f"log-scales reduced by {', '.join(names)}" if row == 0 else f"seed {seed + row}"
        strips.append((title, [images[row] for images in drawn], subject.model.levels))
    return [GRID, Gallery(strips, "From left to right: 0.0, 0.1, … 1.0, and MAP")]


def _neighbours(subject: Subject, seed: int, progress: bool) -> list[Part]:
    """Samples above the training images nearest to them."""
    if "train" not in subject.images:
        return []
    images = subject.images["train"]
    drawn = _draw(subject, seed, progress)[0]
    wanted = _shrunk(drawn)
    distances = []
    for start in range(0, len(images), 512):
        others = _shrunk(images.batch(range(start, min(start + 512, len(images)))))
        distances.append(torch.cdist(wanted, others))
    nearest = torch.cat(distances, 1).topk(min(NEIGHBOURS, len(images)), largest=False).indices
    strips: list[Strip] = [("samples", drawn, subject.model.levels)]
    strips += [(f"nearest {i + 1}", images.batch(column), 256) for i, column in enumerate(nearest.T.tolist())]
    side = min(COMPARED_SIDE, subject.size)
    return [NEIGHBOURS_TEXT.format(side=side), Gallery(strips, "")]


def _shrunk(x: Tensor) -> Tensor:
    """Images as vectors, reduced to a side that is quick to compare: (B, C, H, W) to (B, n)."""
    side = min(COMPARED_SIDE, *x.shape[2:])
    return torch.nn.functional.adaptive_avg_pool2d(x.float(), side).flatten(1)


def _speed(subject: Subject, seed: int, progress: bool) -> list[Part]:
    """Time to sample, cached and by full forward passes."""
    model, pixels = subject.model, subject.size**2
    values = {}
    for n in (1, COLUMNS):
        seconds = _median_seconds(lambda n=n: sample(model, n, subject.size, seed=seed))
        values[f"cached, {n} at once" if n > 1 else "cached, one image"] = 1e3 * seconds / (n * pixels)
    x = torch.zeros(1, *([model.formats[0][0]] + [subject.size] * 2), dtype=torch.uint8)
    with evaluating(model):
        naive = 0.0
        for factor, (view, given) in zip(model.factors, model.links(x), strict=True):
            context = factor.context((view.shape[2], view.shape[3]), given, None)
            seconds = _median_seconds(lambda f=factor, view=view, context=context: f.network(view, context))
            naive += seconds * view[0, 0].numel()
    values["full forward passes, one image"] = 1e3 * naive / pixels
    text = SPEED.format(threads=torch.get_num_threads(), repeats=SPEED_REPEATS)
    chart = bars(values, "milliseconds a pixel", digits=3, log=True)
    return [text, Chart(chart, "Less is better; the scale is logarithmic.")]


def _median_seconds(run: Callable[[], object]) -> float:
    times = []
    for _ in range(SPEED_REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


FIGURES: dict[str, Callable[[Subject, int, bool], list[Part]]] = {
    "samples": _samples,
    "MAP samples": lambda subject, seed, progress: _samples(subject, seed + COLUMNS, progress, map=True),
    "colourings of real images": _colourings,
    "less variance": _variance,
    "nearest training images": _neighbours,
    "sampling speed": _speed,
}
"""The figures of one model by their titles; nothing where it, or what is known of its images, has no such figure."""


def subject_sections(
    subject: Subject, *, seed: int = 0, figures: Sequence[str] | None = None, progress: bool = False
) -> list[Section]:
    """The figures of one model.

    Args:
        subject: the model.
        seed: of the samples.
        figures: titles of those that are wanted, out of `FIGURES`; None for all that the model has.
        progress: show progress bars.
    """
    wanted = FIGURES if figures is None else {title: FIGURES[title] for title in figures}
    made = {title: make(subject, seed, progress) for title, make in wanted.items()}
    return [Section(f"{subject.name}: {title}", parts) for title, parts in made.items() if parts]


def _save_pictures(sections: Sequence[Section], folder: Path) -> None:
    """A PNG file for each gallery and chart, named after its section."""
    for section in sections:
        name = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")
        for part in section.parts:
            if isinstance(part, Gallery):
                save_picture(sheet(part.strips), folder / f"{name}.png")
            elif isinstance(part, Chart):
                write_atomically(folder / f"{name}.png", part.drawing.png)
