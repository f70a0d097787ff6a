"""Progress bars for everything that may take longer than two seconds."""

__all__ = ["counting_bar", "late_bar", "progress_bar", "steps_of"]

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PATIENCE = 2.0  # seconds
BETWEEN = 0.05  # seconds between two moves of a bar with quick steps, which is drawn ten times a second


def progress_bar(*, visible: bool, fields: str = "") -> Progress:
    """Make a progress bar on standard error, so that standard output holds nothing but results.

    Args:
        visible: whether to show it at all. In a pipe or a file, nothing appears until the end either way.
        fields: a format for extra numbers, such as "{task.fields[loss]}".
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


def steps_of(bar: Progress, task: TaskID) -> Callable[[int], None]:
    """Return a function to call with the number of steps after each few of thousands of quick steps of a task.

    A bar that nobody sees costs nothing, and a visible one moves when it is drawn, not at each step.

    Example:
        >>> from pixelcnn.common.progress import progress_bar, steps_of
        >>> with progress_bar(visible=True) as bar:
        ...     task = bar.add_task("counting", total=1000)
        ...     advance = steps_of(bar, task)
        ...     for _ in range(1000):
        ...         advance(1)
        >>> bar.finished
        True
    """
    if bar.disable:
        return lambda steps: None
    total, done, shown = bar.tasks[task].total, 0, 0.0

    def advance(steps: int) -> None:
        nonlocal done, shown
        done += steps
        if done == total or time.monotonic() - shown > BETWEEN:
            shown = time.monotonic()
            bar.update(task, completed=done)

    return advance


@contextmanager
def late_bar(description: str, *, visible: bool) -> Iterator[Callable[[float], None]]:
    """Show a progress bar for a task that may finish quickly: the bar appears after two seconds.

    Args:
        description: of the task; printed as is.
        visible: as for `progress_bar`.

    Returns:
        A function to call now and then with the fraction of the task that is done.
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


@contextmanager
def counting_bar(description: str, total: int, *, visible: bool) -> Iterator[Callable[[int], None]]:
    """Show a `late_bar` for a task of many steps, and give a function to call with how many more of them are done."""
    done = 0
    with late_bar(description, visible=visible) as show:

        def count(number: int) -> None:
            nonlocal done
            done += number
            show(min(1.0, done / max(1, total)))

        yield count
