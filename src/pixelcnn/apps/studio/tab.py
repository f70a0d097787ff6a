"""An open page: what it asks for, its picture and its results. All of it is freed when it is closed."""

__all__ = ["Studio", "Tab"]

import asyncio
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from pixelcnn.apps.studio import works
from pixelcnn.apps.studio.asked import Asked
from pixelcnn.apps.studio.line import Job, Line, Stopped
from pixelcnn.apps.studio.messages import pack, unpack
from pixelcnn.apps.studio.runs import PERIOD, Runs
from pixelcnn.apps.studio.shelf import Shelf
from pixelcnn.apps.studio.uploads import MOST_SIDE, Photo, is_packed, open_packed, open_photo, sample_photos

MOST_JOBS = 8  # of a page at once
ENOUGH = 8  # frames under way to a page, after which pixels wait for the next frame
TOO_MANY = 64  # messages under way to a page, after which it is not listened to
PATIENCE = 0.05  # seconds
CHANGES = {"upscale": works.upscale, "colorize": works.colorize, "complete": works.complete}


class Studio:
    """What all pages share: the models, the runs, and the lines of jobs.

    Args:
        names: of the models, see `Shelf`.
        device: to compute on.
    """

    def __init__(self, names: Sequence[str], device: str) -> None:
        self.shelf = Shelf(names, device)
        self.runs = Runs(self.shelf.runs)
        self.long, self.quick = Line(), Line()  # a look at a pixel does not wait for a drawing


class Tab:
    """An open page.

    Args:
        studio: what all pages share.
        send: sends a message to the page.
    """

    def __init__(self, studio: Studio, send: Callable[[bytes | str], Any]) -> None:
        self.studio, self.send = studio, send
        self.loop = asyncio.get_running_loop()
        self.outgoing: asyncio.Queue[bytes | str] = asyncio.Queue()
        self.jobs: dict[int, Job] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.photo: Photo | None = None
        self.opening: Job | None = None
        self.subjects: dict[str, tuple[int, works.Subject]] = {}  # the newest of each kind
        self.closed = False

    def post(self, number: int | None, event: str, payload: bytes = b"", **fields: Any) -> None:
        """Tell the page of an event; any thread may call this."""
        if not self.closed:
            message = pack({"id": number, "event": event, **fields}, payload)
            self.loop.call_soon_threadsafe(self.outgoing.put_nowait, message)

    async def send_all(self) -> None:
        """Send messages as they come, until the page is closed."""
        while True:
            await self.send(await self.outgoing.get())

    async def take(self, message: bytes | str) -> None:
        """Begin what the page asks for."""
        while self.outgoing.qsize() > TOO_MANY:
            await asyncio.sleep(PATIENCE)
        try:
            fields, payload = unpack(message)
            number = fields.get("id")
            if type(number) is not int or not 0 <= number < 2**31:
                raise ValueError(f"id={number!r}: use a whole number")
            if len(payload) > MOST_SIDE**2 and fields.get("do") != "open":
                raise ValueError("the message is too large")
        except ValueError as error:
            self.post(None, "failed", message=str(error))
            return
        if fields.get("do") == "stop":
            if number in self.jobs:
                self.jobs[number].stop()
        elif number in self.jobs or len(self.jobs) >= MOST_JOBS:
            self.post(number, "failed", message="this page asks for too much at once: wait for something to end")
        else:
            asked = Asked(fields, payload)
            keep = partial(self._keep, number, "change" if asked.do in CHANGES else str(asked.do))
            job = Job(partial(self.post, number), keep, lambda: self.outgoing.qsize() < ENOUGH)
            self.jobs[number] = job
            task = asyncio.create_task(self._do(number, job, asked))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _do(self, number: int, job: Job, asked: Asked) -> None:
        """Do what was asked for, and tell how it ended."""
        start = time.perf_counter()
        try:
            await self._choose(job, asked)
            job.send("done", seconds=round(time.perf_counter() - start, 3))
        except Stopped:
            job.send("stopped")
        except (ValueError, FloatingPointError, MemoryError, OSError) as error:
            job.send("failed", message=" ".join(str(error).split()))
        except Exception:
            traceback.print_exc()
            job.send("failed", message="unexpected error: see the terminal that runs the studio")
        finally:
            del self.jobs[number]

    async def _choose(self, job: Job, asked: Asked) -> None:
        quick, long = self.studio.quick, self.studio.long
        if asked.do == "watch":
            await self._watch(job)
        elif asked.do in ("photo", "open"):
            if self.opening is not None:
                self.opening.stop()  # the newest picture counts
            self.opening = job
            await (long if is_packed(asked.payload) else quick).do(job, lambda: self._open(job, asked))
        elif asked.do == "pixel":
            subjects = dict(self.subjects.values())
            if (subject := subjects.get(asked.whole("of", 0, 2**31))) is None:
                raise ValueError("this result is no longer kept: make it again")
            await quick.do(job, lambda: works.inspect(job, subject, asked))
        else:
            photo = self.photo  # which may be another when the turn of the job comes
            await long.do(job, lambda: self._work(job, asked, photo))

    def _open(self, job: Job, asked: Asked) -> None:
        """Take a picture that the page sent, or one of the photographs."""
        if asked.do == "photo":
            photo = sample_photos()[asked.whole("photo", 0, len(sample_photos()) - 1)]
        elif is_packed(asked.payload):
            photo = open_packed(asked.payload, asked.name, self.studio.shelf.codecs(), job.counter)
        else:
            photo = open_photo(asked.payload, asked.name, asked.whole("side", 16, MOST_SIDE, 128))
        job.check()
        self.photo = photo
        C, (H, W) = len(photo.x), photo.size
        pixels = photo.x.numpy().tobytes()
        job.send("photo", pixels, name=photo.name, channels=C, height=H, width=W, notes=photo.notes)

    def _work(self, job: Job, asked: Asked, photo: Photo | None) -> None:
        """Do one of the works that take long."""
        name, shelf = asked.fields.get("model"), self.studio.shelf
        if asked.do not in ("draw", "score", "compress", *CHANGES):
            raise ValueError(f"do={asked.do!r}: there is no such request")
        model = shelf.model(name, pictures=asked.do != "draw")
        if asked.do == "draw":
            works.draw(job, model, asked)
        elif photo is None:
            raise ValueError("there is no picture: choose one first")
        elif asked.do == "compress":
            works.compress(job, shelf.codec(str(name)), photo)
        elif asked.do == "score":
            works.score(job, model, photo)
        else:
            CHANGES[asked.do](job, model, asked, photo)

    def _keep(self, number: int, kind: str, subject: works.Subject) -> None:
        """Keep a result, so that the page can look into it, in place of the one before."""
        self.subjects[kind] = number, subject

    async def _watch(self, job: Job) -> None:
        """Tell the page of the runs, whenever they change, until it is stopped."""
        before = None
        while not job.stopped:
            if (runs := await asyncio.to_thread(self.studio.runs.look)) != before:
                job.send("runs", runs=runs)
                before = runs
            with suppress(TimeoutError):
                await asyncio.wait_for(job.called.wait(), PERIOD)

    def close(self) -> None:
        """Stop all work for the page."""
        self.closed = True
        for job in self.jobs.values():
            job.stop()
        self.subjects.clear()
