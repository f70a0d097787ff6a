"""The progress bar of everything that may take longer than two seconds."""

__all__ = ["progress_bar"]

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def progress_bar(*, visible: bool, fields: str = "") -> Progress:
    """A rich progress bar on standard error, so that standard output holds results alone.

    Args:
        visible: whether to show it at all; a pipe or a file shows nothing until the end either way.
        fields: a format for further figures, such as "{task.fields[loss]}".
    """
    text = [TextColumn(fields)] if fields else []
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        *text,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not visible,
    )
