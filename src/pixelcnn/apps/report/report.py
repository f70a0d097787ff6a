"""The paper's tables and figures from trained models: one HTML page that needs nothing else, and PNG files.

Which of them a model has follows from its chain: a grey view, smaller views, or none. What a model was trained on and
how it scores is measured on its images where these are at hand, and else read from its card.

Reference: Kolesnikov & Lampert, PixelCNN models with auxiliary variables (ICML 2017), tables 1 and 2, figures 3 to 7.
"""

__all__ = ["PAGE", "has_title", "write_report"]

import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from pixelcnn.apps.report.figures import subject_sections
from pixelcnn.apps.report.subjects import ReportOptions, find_subject
from pixelcnn.apps.report.tables import tables
from pixelcnn.common.files import write_atomically
from pixelcnn.pictures.page import Chart, Gallery, Section, page
from pixelcnn.pictures.sheets import save_picture, sheet

PAGE, TITLE = "report.html", "PixelCNN models with auxiliary variables: a report"


def write_report(
    names: Sequence[str], folder: Path, options: ReportOptions | None = None, *, overwrite: bool = False
) -> Path:
    """Write `report.html` and a PNG file for each of its pictures.

    Args:
        names: of models: folders, shipped models, hub ids.
        folder: for the page and the pictures.
        options: which images the models are scored on.
        overwrite: replace an earlier report in the folder: `report.html`, and the pictures that the new one has too.

    Returns:
        The path of the page.

    Raises:
        ValueError: where one of the names is no model, the images cannot be had, or the folder holds something else.
    """
    options = options or ReportOptions()
    if not names:
        raise ValueError("name the models to report on: folders that training made, or shipped models")
    _check_folder(folder, overwrite)
    subjects = [find_subject(name, options) for name in names]
    called = [subject.name for subject in subjects]
    subjects = [
        replace(subject, name=f"{subject.name}-{called[:i].count(subject.name) + 1}")
        if subject.name in called[:i]
        else subject
        for i, subject in enumerate(subjects)
    ]
    sections = [*tables(subjects)]
    for subject in subjects:
        sections += subject_sections(subject, seed=options.seed, progress=options.progress)
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


def _save_pictures(sections: Sequence[Section], folder: Path) -> None:
    """A PNG file for each gallery and chart, named after its section."""
    for section in sections:
        name = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")
        for part in section.parts:
            if isinstance(part, Gallery):
                save_picture(sheet(part.strips), folder / f"{name}.png")
            elif isinstance(part, Chart):
                write_atomically(folder / f"{name}.png", part.drawing.png)
