"""The line of jobs for a device: one is done at a time, in a thread; the others wait and see their place."""

__all__ = ["Job", "Line", "Stopped"]

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Send = Callable[..., None]
"""`send(event, payload=b"", **fields)` tells the page of an event; any thread may call it."""
PERIOD = 1 / 30  # seconds between two pictures, or two lengths of a progress bar


class Stopped(Exception):  # noqa: N818  (it is no error)
    """Raised inside a job that is to be stopped."""


class Job:
    """Something that a page asked for.

    Args:
        send: tells the page of an event.
        keep: keeps a result that the page may look into.
        has_room: whether the page keeps up with what it is sent.
    """

    def __init__(self, send: Send, keep: Callable[[Any], None], has_room: Callable[[], bool]) -> None:
        self.send, self.keep, self.has_room = send, keep, has_room
        self.place: int | None = None
        self.called = asyncio.Event()  # when its turn comes, or it is stopped
        self._stopped, self._shown = threading.Event(), 0.0

    def stop(self) -> None:
        """End the job: at once if it waits, else at its next `check`. Called from the event loop."""
        self._stopped.set()
        self.called.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def check(self) -> None:
        """Raise `Stopped` if the job is to end. Work calls this at least a few times a second."""
        if self.stopped:
            raise Stopped

    def due(self) -> bool:
        """Whether it is time to show something new, and the page has seen what was shown before."""
        if (now := time.monotonic()) - self._shown < PERIOD or not self.has_room():
            return False
        self._shown = now
        return True

    def counter(self, total: int) -> Callable[[int], None]:
        """Make a function to call with how many more of so many things are done, which shows the share of them."""
        done = 0

        def count(number: int) -> None:
            nonlocal done
            done += number
            self.show(min(1.0, done / total))

        return count

    def show(self, share: float) -> None:
        """Show which share of the work is done, now and then."""
        self.check()
        if self.due():
            self.send("progress", share=round(share, 3))


class Line:
    """A line of jobs. Its methods are called from the event loop."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.thread = ThreadPoolExecutor(1)

    async def do(self, job: Job, work: Callable[[], Any]) -> None:
        """Do the work of a job when its turn comes.

        Raises:
            Stopped: if the job was stopped before or while it was done.
        """
        job.check()
        self.jobs.append(job)
        self._move_up()
        try:
            await job.called.wait()
            job.check()
            job.send("started")
            await asyncio.get_running_loop().run_in_executor(self.thread, work)
        finally:
            job.stop()  # also if the event loop ends
            self.jobs.remove(job)
            self._move_up()

    def _move_up(self) -> None:
        """Call the first job, and tell the others their place."""
        for place, job in enumerate(self.jobs):
            if place == 0:
                job.called.set()
            elif job.place != place:
                job.place = place
                job.send("place", place=place)
