"""Reports that reproduce the paper's tables and figures from trained models, as one HTML page and PNG files.

The chain of a model (a gray view, smaller views, or none) decides which figures it has. Models are scored on their own
images if these are available. Otherwise the scores come from the model card.

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
        names: the models: folders, shipped models or hub ids.
        folder: the folder for the page and the pictures.
        options: the images to score the models on, and further options.
        overwrite: replace an earlier report in the folder: its `report.html`, and pictures of the same names.

    Returns:
        The path of the page.

    Raises:
        ValueError: if a name is not a model, the images are not available, or the folder holds something else.
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
    write_atomically(path, page(TITLE, sections).encode())  # first, since it identifies the folder as a report
    _save_pictures(sections, folder)
    return path


def _check_folder(folder: Path, overwrite: bool) -> None:
    """Raise a ValueError unless a folder is empty, or holds an earlier report that may be replaced."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is a file: name a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not has_title(folder / PAGE, TITLE):
        raise ValueError(f"{str(folder)!r} is not empty and not a report: name another folder")
    if not overwrite:
        raise ValueError(
            f"{str(folder)!r} is not empty: use --overwrite to replace the report in it, or another folder"
        )


def has_title(path: Path, title: str) -> bool:
    """Check whether a file is a page with this title, made by this package."""
    return path.is_file() and f"<title>{escape(title)}</title>" in path.read_text(errors="replace")


def _save_pictures(sections: Sequence[Section], folder: Path) -> None:
    """Write a PNG file for each gallery and chart, named after its section."""
    for section in sections:
        name = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")
        for part in section.parts:
            if isinstance(part, Gallery):
                save_picture(sheet(part.strips), folder / f"{name}.png")
            elif isinstance(part, Chart):
                write_atomically(folder / f"{name}.png", part.drawing.png)
