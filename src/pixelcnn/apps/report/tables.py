"""The tables of a report."""

__all__ = ["tables"]

from collections.abc import Iterator, Sequence

from pixelcnn.apps.report.paper import PUBLISHED, PUBLISHED_COLORS, PUBLISHED_PARTS, PUBLISHED_RESOLUTIONS, UNCONFIRMED
from pixelcnn.apps.report.subjects import Subject, by_resolution
from pixelcnn.pictures.page import Section, Table

CODECS_TEXT = """The number of bits that a codec built from the model would need, next to those of lossless codecs at
their settings for the smallest files. Files include headers, which matter for small images."""
TABLE_1 = """Our models next to the published results (the paper's Table 1), with the best at the bottom. An upper
bound, marked ≤, counts the bits of all views of an image together. The figure of a consistent model is exact."""
TABLE_2 = """Bits per dimension of each view on its own, including all simpler views, per sub-pixel of that view. Larger
views need fewer, since their neighboring pixels are more alike. The paper's figures are for CelebA test images."""
PARTS = """The paper argues that the gray view, which shows the objects, takes only a small share of the bits, so a
network that models everything at once has little reason to pay attention to it. Training and test images score almost
the same, so the model does not memorize its images. The paper's figures are for all of CIFAR-10."""


def tables(subjects: Sequence[Subject]) -> Iterator[Section]:
    """Yield those tables of the paper for which the models have scores."""
    scored = [subject for subject in subjects if "test" in subject.scores]
    if compared := [subject for subject in scored if subject.codecs]:
        yield Section("Compared with lossless codecs", [CODECS_TEXT, _codecs(compared)])
    if cifar := [subject for subject in scored if "cifar" in subject.source.lower()]:
        yield Section("CIFAR-10", [TABLE_1, UNCONFIRMED, _published(cifar)])
    if pyramids := [subject for subject in scored if subject.pyramid]:
        yield Section("Bits per dimension for each resolution", [TABLE_2, UNCONFIRMED, _resolutions(pyramids)])
    if grayscale := [subject for subject in scored if subject.gray]:
        yield Section("Structure and color", [PARTS, UNCONFIRMED, _parts(grayscale)])


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
        "Bits per dimension. Scores on JPEG copies, or on only a few images, are not comparable with published results"
    )
    return Table(["", "bits/dim", ""], [(name, shown, where) for name, _, shown, where in rows], caption)


def _resolutions(subjects: Sequence[Subject]) -> Table:
    sides = sorted({side for subject in subjects for side in by_resolution(subject)} | set(PUBLISHED_RESOLUTIONS))
    rows = [["the paper *", *(f"{PUBLISHED_RESOLUTIONS[s]:.2f}" if s in PUBLISHED_RESOLUTIONS else "" for s in sides)]]
    for subject in subjects:
        bits = by_resolution(subject)
        bound = dict.fromkeys(bits, subject.bound)
        if subject.model.formats[-1] == subject.model.formats[0]:
            bound[min(bits)] = ""  # the last view is not given another one
        rows.append([subject.name, *(f"{bound[s]}{bits[s]:.2f}" if s in bits else "" for s in sides)])
    return Table(["", *(f"{side}x{side}" for side in sides)], rows, "Bits per dimension of held-out images")


def _parts(subjects: Sequence[Subject]) -> Table:
    rows = [["the paper *", *PUBLISHED_PARTS.values(), "", PUBLISHED_COLORS]]
    for subject in subjects:
        scores = [subject.scores.get(split) for split in PUBLISHED_PARTS]
        gray = [f"{sum(score.factors[1:]):.3f}" if score else "" for score in scores]
        colors = [f"{score.factors[0]:.3f}" if score else "" for score in scores]
        rows.append([subject.name, *gray, *colors])
    header = ["", *(f"gray view, {s}" for s in PUBLISHED_PARTS), *(f"colors, {s}" for s in PUBLISHED_PARTS)]
    return Table(header, rows, "Bits per sub-pixel of the image")
