"""The line of jobs for a device: one is done at a time, in a thread; the others wait and see their place."""

__all__ = ["Job", "Line", "Stopped"]

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
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
    """

    def __init__(self, send: Send) -> None:
        self.send = send
        self.place: int | None = None
        self.future: Future[None] | None = None
        self._stopped, self._shown = threading.Event(), 0.0

    def stop(self) -> None:
        """End the job: at once if it waits, else at its next `check`."""
        self._stopped.set()
        if self.future is not None:
            self.future.cancel()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def check(self) -> None:
        """Raise `Stopped` if the job is to end. Work calls this at least a few times a second."""
        if self.stopped:
            raise Stopped

    def due(self) -> bool:
        """Whether it is time to show something new."""
        if (now := time.monotonic()) - self._shown < PERIOD:
            return False
        self._shown = now
        return True

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

        def begin() -> None:
            job.check()
            job.send("started")
            work()

        future = job.future = self.thread.submit(begin)
        self.jobs.append(job)
        self._tell_places()
        try:
            await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not job.stopped:
                job.stop()
                raise
            raise Stopped from None
        finally:
            self.jobs.remove(job)
            self._tell_places()

    def _tell_places(self) -> None:
        for place, job in enumerate(self.jobs):
            if job.place != place:
                job.place = place
                if place > 0:
                    job.send("place", place=place)
