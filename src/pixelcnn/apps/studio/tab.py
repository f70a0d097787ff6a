"""An open page: what it asks for, its picture and its results. All of it is freed when it is closed."""

__all__ = ["Studio", "Tab"]

import asyncio
import time
import traceback
from collections.abc import Callable, Sequence
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
MOST_SUBJECTS = 4  # results of a page that it may look into
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
        self.subjects: dict[int, works.Subject] = {}
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
        except ValueError as error:
            self.post(None, "failed", message=str(error))
            return
        if fields.get("do") == "stop":
            if number in self.jobs:
                self.jobs[number].stop()
        elif number in self.jobs or len(self.jobs) >= MOST_JOBS:
            self.post(number, "failed", message="this page asks for too much at once: wait for something to end")
        else:
            job = self.jobs[number] = Job(partial(self.post, number))
            task = asyncio.create_task(self._do(number, job, Asked(fields, payload)))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _do(self, number: int, job: Job, asked: Asked) -> None:
        """Do what was asked for, and tell how it ended."""
        start = time.perf_counter()
        try:
            await self._choose(number, job, asked)
            job.send("done", seconds=round(time.perf_counter() - start, 3))
        except Stopped:
            job.send("stopped")
        except (ValueError, FloatingPointError, MemoryError, OSError) as error:
            job.send("failed", message=" ".join(str(error).split()))
        except Exception:
            traceback.print_exc()
            job.send("failed", message="this should not have happened: the terminal of the studio says more")
        finally:
            del self.jobs[number]

    async def _choose(self, number: int, job: Job, asked: Asked) -> None:
        do, studio = asked.fields.get("do"), self.studio
        if do == "watch":
            await self._watch(job)
        elif do == "photo":
            await studio.quick.do(job, lambda: self._show(job, sample_photos()[asked.whole("photo", 0, 7)]))
        elif do == "open":
            await (studio.long if is_packed(asked.payload) else studio.quick).do(job, lambda: self._open(job, asked))
        elif do == "pixel":
            subject = self.subjects.get(asked.whole("of", 0, 2**31))
            if subject is None:
                raise ValueError("this result is no longer kept: make it again")
            await studio.quick.do(job, lambda: works.inspect(job, subject, asked))
        else:
            await studio.long.do(job, lambda: self._work(number, job, asked))

    def _open(self, job: Job, asked: Asked) -> None:
        """Take a picture that the page sent."""
        if is_packed(asked.payload):
            codecs = self.studio.shelf.codecs()
            self._show(job, open_packed(asked.payload, asked.name, codecs, lambda done, all: job.show(done / all)))
        else:
            self._show(job, open_photo(asked.payload, asked.name, asked.whole("side", 16, MOST_SIDE, 128)))

    def _show(self, job: Job, photo: Photo) -> None:
        self.photo = photo
        C, (H, W) = len(photo.x), photo.size
        pixels = photo.x.numpy().tobytes()
        job.send("photo", pixels, name=photo.name, channels=C, height=H, width=W, notes=photo.notes)

    def _work(self, number: int, job: Job, asked: Asked) -> None:
        """Do one of the works that take long."""
        do, name, shelf = asked.fields.get("do"), asked.fields.get("model"), self.studio.shelf
        if do not in ("draw", "score", "compress", *CHANGES):
            raise ValueError(f"do={do!r}: there is no such thing to do")
        model = shelf.model(name, pictures=do != "draw")
        if do == "draw":
            self._keep(number, works.draw(job, model, asked))
            return
        if (photo := self.photo) is None:
            raise ValueError("there is no picture: choose one first")
        if do == "compress":
            works.compress(job, shelf.codec(str(name)), photo)
        else:
            subject = works.score(job, model, photo) if do == "score" else CHANGES[do](job, model, asked, photo)
            self._keep(number, subject)

    def _keep(self, number: int, subject: works.Subject) -> None:
        """Keep the result of a job, so that the page can look into it, and forget the oldest."""
        self.subjects[number] = subject
        for old in list(self.subjects)[:-MOST_SUBJECTS]:
            del self.subjects[old]

    async def _watch(self, job: Job) -> None:
        """Tell the page of the runs, whenever they change, until it is stopped."""
        before = None
        while not job.stopped:
            if (runs := await asyncio.to_thread(self.studio.runs.look)) != before:
                job.send("runs", runs=runs)
                before = runs
            for _ in range(round(PERIOD / PATIENCE)):
                if not job.stopped:
                    await asyncio.sleep(PATIENCE)

    def close(self) -> None:
        """Stop all work for the page."""
        self.closed = True
        for job in self.jobs.values():
            job.stop()
        self.subjects.clear()
