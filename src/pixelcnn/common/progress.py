"""The progress bar of everything that may take longer than two seconds, and what can be printed in it."""

__all__ = ["late_bar", "progress_bar"]

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PATIENCE = 2.0  # seconds


def progress_bar(*, visible: bool, fields: str = "") -> Progress:
    """A rich progress bar on standard error, so that standard output holds results alone.

    Args:
        visible: whether to show it at all; a pipe or a file shows nothing until the end either way.
        fields: a format for further figures, such as "{task.fields[loss]}".
    """
    text = [TextColumn(fields)] if fields else []
    return Progress(
        TextColumn("{task.description}", markup=False),  # it may hold a file's name
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        *text,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not visible,
    )


@contextmanager
def late_bar(description: str, *, visible: bool) -> Iterator[Callable[[float], None]]:
    """A progress bar for a task that may be over at once: it appears after two seconds.

    Args:
        description: of the task; printed as it is.
        visible: as for `progress_bar`.

    Returns:
        A function to call with the share of the task that is done, now and then.
    """
    start, bar = time.monotonic(), progress_bar(visible=visible)
    task = bar.add_task(description, total=100)

    def show(share: float) -> None:
        if not bar.live.is_started and time.monotonic() - start > PATIENCE:
            bar.start()
        bar.update(task, completed=100 * share)

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()
