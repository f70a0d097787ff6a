"""The tables of a report."""

__all__ = ["tables"]

from collections.abc import Iterator, Sequence

from pixelcnn.apps.report.paper import PUBLISHED, PUBLISHED_COLOURS, PUBLISHED_PARTS, PUBLISHED_RESOLUTIONS
from pixelcnn.apps.report.subjects import Subject, by_resolution
from pixelcnn.pictures.page import Section, Table

CODECS_TEXT = """So many bits a codec made from the model would need, and so many do the files of lossless codecs, each
at its settings for small files. Files hold headers too, which matters for small images."""
TABLE_1 = """Ours are beside the published values (the paper's Table 1), the best last. A bound, marked ≤, is what the
views of an image need together; a consistent model's own figure is exact."""
TABLE_2 = """Each view as an image of its own, with what is simpler than it, in bits for each of its own sub-pixels. The
larger the view, the fewer: neighbouring pixels are more alike. The paper's are of CelebA test images, as recalled."""
PARTS = """The paper's argument: the grey view, where objects are, costs a small share of the bits, so that a network
that models all at once has little reason to care about it. And train and test hardly differ: it does not learn images
by heart. The paper's figures are of CIFAR-10 in full, as recalled."""


def tables(subjects: Sequence[Subject]) -> Iterator[Section]:
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


def _parts(subjects: Sequence[Subject]) -> Table:
    rows = [["the paper", *PUBLISHED_PARTS.values(), "", PUBLISHED_COLOURS]]
    for subject in subjects:
        scores = [subject.scores.get(split) for split in PUBLISHED_PARTS]
        grey = [f"{sum(score.factors[1:]):.3f}" if score else "" for score in scores]
        colours = [f"{score.factors[0]:.3f}" if score else "" for score in scores]
        rows.append([subject.name, *grey, *colours])
    header = ["", *(f"grey view, {s}" for s in PUBLISHED_PARTS), *(f"colours, {s}" for s in PUBLISHED_PARTS)]
    return Table(header, rows, "Bits for each sub-pixel of the image")
