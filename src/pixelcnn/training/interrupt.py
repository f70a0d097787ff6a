"""Leaving a training run on Ctrl-C or SIGTERM once the step at hand is done and saved."""

__all__ = ["InterruptedTraining", "Interruption", "ignore_signals"]

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what batch systems send before they kill a job


class InterruptedTraining(KeyboardInterrupt):
    """A training run that was interrupted, and has saved everything that it takes to go on."""


class Interruption:
    """A note of the first signal, so that training can save before it leaves. A second one acts as it usually does.

    Signals that are ignored, as SIGINT is in a process in the background, stay ignored. Outside of the main thread,
    where Python handles no signals, nothing is noted.
    """

    def __init__(self) -> None:
        self.asked, self._expendable = False, False

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note signals instead of leaving at once."""
        main = threading.current_thread() is threading.main_thread()
        usual = {each: signal.getsignal(each) for each in SIGNALS if main}
        usual = {each: handler for each, handler in usual.items() if handler not in (None, signal.SIG_IGN)}

        def note(number: int, _: Any) -> None:
            self.asked = True
            signal.signal(number, usual[signal.Signals(number)])
            if self._expendable:
                raise KeyboardInterrupt

        for each in usual:
            signal.signal(each, note)
        try:
            yield
        finally:
            for each, handler in usual.items():
                signal.signal(each, handler)

    @contextmanager
    def expendable(self) -> Iterator[None]:
        """Break off what is done inside on a signal, for work that takes long and can be missed."""
        self._expendable = True
        try:
            yield
        except KeyboardInterrupt:
            if not self.asked:
                raise
        finally:
            self._expendable = False

    def leave(self, folder: Path) -> None:
        """Raise an InterruptedTraining if there was a signal."""
        if self.asked:
            raise InterruptedTraining(f"training in {str(folder)!r} is saved: go on with Run(resume=True)")


def ignore_signals(_: int) -> None:
    """Leave signals to the main process: Ctrl-C reaches the processes that decode images too, and must not end them."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
