"""The server of the studio: what goes over the wire, who may ask, and what is freed when a page is closed.

`test_page.py` tests the page in a browser.
"""

import io
import re
import signal
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import pixelcnn
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from studio import Served, fresh, write_history
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from pixelcnn.apps.studio.app import make_app
from pixelcnn.apps.studio.messages import pack, unpack
from pixelcnn.apps.studio.runs import Runs
from pixelcnn.apps.studio.tab import MOST_JOBS, Studio
from pixelcnn.apps.studio.uploads import MOST_BYTES
from pixelcnn.data.images import load_images
from pixelcnn.models.draw import DrawOptions
from pixelcnn.models.load import load, save
from pixelcnn.models.presets import GrayscalePixelCNN, PyramidPixelCNN
from pixelcnn.models.sampling import sample_views
from pixelcnn.tasks.scoring import surprisal

ENDS = ("done", "failed", "stopped")
Event = tuple[dict[str, Any], bytes]


class Page:
    """A connection, as the page has one."""

    def __init__(self, connection: Any) -> None:
        self.connection, self.count = connection, 0

    def send(self, message: bytes | str) -> None:
        if isinstance(self.connection, ClientConnection):
            self.connection.send(message)
        else:
            self.connection.send_text(message) if isinstance(message, str) else self.connection.send_bytes(message)

    def receive(self) -> Event:
        if isinstance(self.connection, ClientConnection):
            return unpack(self.connection.recv(timeout=30))
        message = self.connection.receive()
        return unpack(message["text"] if message.get("text") is not None else message["bytes"])

    def begin(self, payload: bytes = b"", **fields: Any) -> int:
        self.count += 1
        self.send(pack({"id": self.count, **fields}, payload))
        return self.count

    def until_end(self, number: int | None) -> list[Event]:
        """Return the events of a job up to its last one."""
        events: list[Event] = []
        while not events or events[-1][0]["event"] not in ENDS:
            event = self.receive()
            if event[0]["id"] == number:
                events.append(event)
        return events

    def ask(self, payload: bytes = b"", **fields: Any) -> list[Event]:
        return self.until_end(self.begin(payload, **fields))

    def fail(self, payload: bytes = b"", **fields: Any) -> str:
        """Ask for what cannot be done, and return the reason."""
        ((end, _),) = [event for event in self.ask(payload, **fields) if event[0]["event"] in ENDS]
        assert end["event"] == "failed"
        return end["message"]

    def ask_wrongly(self, payload: bytes, **fields: Any) -> str:
        """Send what is no request, and return the reason."""
        self.begin(payload, **fields)
        return self.until_end(None)[-1][0]["message"]


def of_kind(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event[0]["event"] == kind]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a small Pyramid and a small Grayscale model."""
    folder = tmp_path_factory.mktemp("studio")
    save(fresh(PyramidPixelCNN(depth=2, filters=8, blocks=1, embedding_blocks=1)), folder / "pyramid")
    save(fresh(GrayscalePixelCNN(filters=8, blocks=1, embedding_blocks=1)), folder / "gray")
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    studio = Studio([str(folder / "pyramid"), str(folder / "gray"), "photos-pyramid"], "cpu")
    with TestClient(make_app(studio, ["testserver"])) as client:
        yield client


@pytest.fixture
def page(client: TestClient) -> Iterator[Page]:
    with client.websocket_connect("/tab") as connection:
        yield Page(connection)


@pytest.fixture
def pyramid(folder: Path) -> str:
    return str(folder / "pyramid")


@pytest.fixture
def gray(folder: Path) -> str:
    return str(folder / "gray")


def png(x: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(x).save(file, "PNG", **options)
    return file.getvalue()


SLOW = {"do": "draw", "model": "photos-pyramid", "size": 512}  # takes seconds, long enough to do something meanwhile
NOISE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans(), max_size=4), st.binary())
def test_messages_arrive_as_they_were_sent(fields: dict[str, Any], payload: bytes) -> None:
    """Law: unpacking undoes packing, and the payload begins at a multiple of four bytes."""
    message = pack(fields, payload)
    assert unpack(message) == (fields, payload)
    assert isinstance(message, str) == (not payload)
    assert (len(message) - len(payload)) % 4 == 0 or not payload


@pytest.mark.parametrize("options", [{}, {"map": True}, {"shift": -1}, {"size": 13, "seed": 7}])
def test_pixels_that_appear_are_those_that_are_drawn(page: Page, pyramid: str, options: dict[str, Any]) -> None:
    """Law: frames put each pixel of each view on the page once, and together they are what `sample` draws."""
    events = page.ask(do="draw", model=pyramid, **options)
    (begun, _), *_ = of_kind(events, "begun")
    canvases = [np.full((v["channels"], v["height"] * v["width"]), -1) for v in begun["views"]]
    for fields, payload in of_kind(events, "pixels"):
        count, canvas = fields["count"], canvases[fields["k"]]
        places = np.frombuffer(payload[: 4 * count], "<u4")
        assert (canvas[:, places] == -1).all()
        canvas[:, places] = np.frombuffer(payload[4 * count :], np.uint8).reshape(-1, count)
    drawing = {"scale_shift": options.get("shift", 0.0), "map": options.get("map", False)}
    drawn = sample_views(
        load(pyramid), 1, options.get("size", 16), seed=options.get("seed", 0), options=DrawOptions(**drawing)
    )
    whole = {fields["k"]: payload for fields, payload in of_kind(events, "view")}
    for k, view in drawn:
        assert canvases[k].astype(np.uint8).tobytes() == view.numpy().tobytes() == whole[k]
    assert events[-1][0]["event"] == "done"
    order = [fields["k"] for fields, _ in of_kind(events, "pixels")]
    assert order == sorted(order, reverse=True)


def test_a_pixel_has_the_distribution_of_the_model(page: Page, pyramid: str) -> None:
    """Law: what the page shows of a pixel sums to one, keeps its bounds, and costs the bits of `surprisal`."""
    drawn = page.begin(do="draw", model=pyramid)
    views = {fields["k"]: payload for fields, payload in of_kind(page.until_end(drawn), "view")}
    x = torch.frombuffer(bytearray(views[0]), dtype=torch.uint8).view(1, 3, 16, 16)
    maps = surprisal(load(pyramid), x)
    for k, row, col in [(0, 0, 0), (0, 7, 9), (0, 15, 15), (1, 3, 4), (2, 3, 3)]:
        ((found, payload),) = of_kind(page.ask(do="pixel", of=drawn, k=k, row=row, col=col), "pixel")
        pmf = np.frombuffer(payload, "<f4").reshape(3, 256)
        assert pmf.sum(1) == pytest.approx(1, abs=1e-4)
        for c in range(3):
            assert found["lowest"][c] <= found["values"][c] <= found["highest"][c]
            assert pmf[c, : found["lowest"][c]].sum() == pmf[c, found["highest"][c] + 1 :].sum() == 0
        assert found["bits"] == pytest.approx(float(maps[k][0, row, col]), abs=2e-3)
        chance = np.prod([pmf[c, value] for c, value in enumerate(found["values"])])
        assert found["bits"] == pytest.approx(-np.log2(chance), abs=2e-3)


def test_views_can_be_inspected_while_the_next_is_drawn(page: Page, pyramid: str) -> None:
    drawn = page.begin(**SLOW)
    while page.receive()[0]["event"] != "view":
        pass
    assert of_kind(page.ask(do="pixel", of=drawn, k=2, row=9, col=9), "pixel")
    assert "has not been drawn yet" in page.fail(do="pixel", of=drawn, k=0, row=0, col=0)
    page.send(pack({"id": drawn, "do": "stop"}))
    page.until_end(drawn)
    assert of_kind(page.ask(do="pixel", of=drawn, k=2, row=9, col=9), "pixel")


def test_work_is_stopped(page: Page, pyramid: str) -> None:
    """Law: a drawing ends within a second of being stopped, and so does one that waits."""
    first = page.begin(**SLOW)
    second = page.begin(**SLOW)
    while page.receive()[0] != {"id": second, "event": "place", "place": 1}:
        pass
    start = time.monotonic()
    page.send(pack({"id": second, "do": "stop"}))
    assert page.until_end(second)[-1][0]["event"] == "stopped"
    page.send(pack({"id": first, "do": "stop"}))
    assert page.until_end(first)[-1][0]["event"] == "stopped"
    assert time.monotonic() - start < 1


def test_a_closed_page_frees_its_place(client: TestClient, page: Page, pyramid: str) -> None:
    """Law: others see their place, and go on within a second after a page before them is closed."""
    with client.websocket_connect("/tab") as connection:
        other = Page(connection)
        other.begin(**SLOW)
        while other.receive()[0]["event"] != "begun":
            pass
        mine = page.begin(do="draw", model=pyramid)
        assert page.receive()[0] == {"id": mine, "event": "place", "place": 1}
    start = time.monotonic()
    assert page.receive()[0] == {"id": mine, "event": "started"}
    assert time.monotonic() - start < 1
    assert page.until_end(mine)[-1][0]["event"] == "done"


def test_what_is_stopped_at_once_leaves_the_line_at_once(page: Page, pyramid: str) -> None:
    """Law: a job that is stopped before its turn ends at once, and keeps nothing in memory."""
    long = page.begin(**SLOW)
    while page.receive()[0]["event"] != "pixels":
        pass
    start = time.monotonic()
    for _ in range(3 * MOST_JOBS):
        number = page.begin(bytes(512**2), do="complete", model=pyramid)
        page.send(pack({"id": number, "do": "stop"}))
        assert page.until_end(number)[-1][0]["event"] == "stopped"
    assert time.monotonic() - start < 3
    page.send(pack({"id": long, "do": "stop"}))
    page.until_end(long)


def test_the_newest_picture_counts(page: Page) -> None:
    """Law: opening a picture ends the opening of an earlier one."""
    first = page.begin(png(np.zeros((2000, 2000, 3), np.uint8)), do="open", name="large.png")
    second = page.begin(do="photo", photo=1)
    ends = {}
    while len(ends) < 2:
        event, _ = page.receive()
        ends |= {event["id"]: event["event"]} if event["event"] in ENDS else {}
    assert ends[second] == "done"
    assert ends[first] in ("stopped", "done")
    assert page.ask(do="score", model="photos-pyramid")[0][0]["event"] != "failed"
    (begun, _), *_ = of_kind(page.ask(do="score", model="photos-pyramid"), "begun")
    assert begun["views"][0]["width"] == 128


def test_looking_does_not_wait_for_a_drawing(page: Page, pyramid: str) -> None:
    page.ask(do="photo", photo=0)
    scored = page.begin(do="score", model=pyramid)
    page.until_end(scored)
    long = page.begin(**SLOW)
    assert page.ask(do="pixel", of=scored, k=0, row=1, col=1)[-1][0]["event"] == "done"
    assert page.ask(do="photo", photo=0)[-1][0]["event"] == "done"
    page.send(pack({"id": long, "do": "stop"}))
    assert page.until_end(long)[-1][0]["event"] == "stopped"


def open_photo(page: Page, x: np.ndarray = NOISE, **options: Any) -> dict[str, Any]:
    ((photo, payload),) = of_kind(page.ask(png(x), do="open", name="a.png", **options), "photo")
    return photo | {"x": np.frombuffer(payload, np.uint8).reshape(photo["channels"], photo["height"], photo["width"])}


def test_a_picture_is_scored(page: Page, pyramid: str) -> None:
    """Law: the bits of the page are those of the model, in total, for each view and for each pixel."""
    photo = open_photo(page)
    assert (photo["x"] == NOISE.transpose(2, 0, 1)).all()
    assert photo["notes"] == []
    events = page.ask(do="score", model=pyramid)
    x = torch.tensor(photo["x"])[None]
    maps = surprisal(load(pyramid), x)
    for (fields, payload), bits in zip(of_kind(events, "bits"), maps, strict=True):
        assert fields["total"] == pytest.approx(float(bits.sum()), rel=1e-5)
        assert np.frombuffer(payload, "<f4") == pytest.approx(bits.flatten().numpy(), rel=1e-3, abs=1e-4)
    sizes = {fields["name"]: fields["bytes"] for fields, _ in of_kind(events, "size")}
    assert sizes["PNG"] == len(png(NOISE, optimize=True))
    assert {"PNG", "WebP"} <= sizes.keys()


def test_gray_pictures_stay_gray(page: Page, pyramid: str) -> None:
    photo = open_photo(page, NOISE[:, :, 0].copy())
    assert photo["channels"] == 1
    events = page.ask(do="compress", model=pyramid)
    *_, (last, pixels) = of_kind(events, "part")
    assert last["same"]
    assert last["channels"] == 1
    assert pixels == NOISE[:, :, 0].tobytes()


def test_large_pictures_are_made_smaller(page: Page) -> None:
    photo = open_photo(page, np.repeat(np.repeat(NOISE, 4, 0), 4, 1), side=20)
    assert (photo["x"] == NOISE.transpose(2, 0, 1)).all()
    assert photo["notes"] == ["it was scaled down from 80x48"]


def test_pictures_are_changed_as_far_as_they_say(page: Page, pyramid: str, gray: str) -> None:
    """Law: the small version, the gray view and the known pixels stay."""
    photo = open_photo(page, NOISE[:8, :8].copy())
    x = torch.tensor(photo["x"])[None]

    def views(events: list[Event]) -> dict[int, np.ndarray]:
        (begun, _), *_ = of_kind(events, "begun")
        shapes = [(begun["images"], v["channels"], v["height"], v["width"]) for v in begun["views"]]
        return {f["k"]: np.frombuffer(b, np.uint8).reshape(shapes[f["k"]]) for f, b in of_kind(events, "view")}

    assert (views(page.ask(do="upscale", model=pyramid, factor=4))[2] == photo["x"]).all()
    colored = views(page.ask(do="colorize", model=gray, images=3))
    assert (colored[1] == load(gray).views(x)[1].numpy()).all()
    assert len({image.tobytes() for image in colored[0]}) == 3
    hole = np.zeros((8, 8), np.uint8)
    hole[2:5, 3:8] = 1
    for tries in (1, 4):
        events = page.ask(hole.tobytes(), do="complete", model=pyramid, images=2, tries=tries)
        completed = views(events)[0]
        assert (completed[:, :, hole == 0] == photo["x"][:, hole == 0]).all()
        assert (completed[:, :, hole == 1] != photo["x"][:, hole == 1]).any()
        assert {fields["k"] for fields, _ in of_kind(events, "pixels")} == {0, 1, 2}


def test_a_file_grows_from_its_simplest_view(page: Page) -> None:
    """Law: each beginning of a file gives the view it should, the whole file the picture, and it can be opened."""
    x = load_images("photos", "test")[7][:, 40:80, 40:70]
    photo, model = open_photo(page, x.permute(1, 2, 0).numpy()), "photos-pyramid"
    events = page.ask(do="compress", model=model)
    ((file, content),) = of_kind(events, "file")
    views = load(model).views(torch.tensor(photo["x"])[None])
    parts = of_kind(events, "part")
    for (part, pixels), end, view in zip(parts, file["ends"], reversed(views), strict=True):
        assert part["end"] == end
        assert pixels == view.numpy().tobytes()
        assert part["same"] == (end == len(content))
    for end, view in zip(file["ends"], reversed(views), strict=True):
        ((again, pixels),) = of_kind(page.ask(content[:end], do="open", name="a.pxc"), "photo")
        assert pixels == view.numpy().tobytes()
        assert bool(again["notes"]) == (end < len(content))
    damaged = content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]
    assert "damaged" in page.fail(damaged, do="open", name="a.pxc")


def header(width: int, height: int) -> bytes:
    """Make a PNG that claims a size, and has no pixels."""
    head = b"IHDR" + width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + head + zlib.crc32(head).to_bytes(4) + png(NOISE)[33:]


BROKEN = {
    "an empty file": (b"", "message is shorter|cannot be read"),
    "text": (b"hello", "not an image"),
    "half a picture": (png(NOISE)[:200], "cannot be read"),
    "many pixels": (header(5000, 5000), "more than 17 million pixels: choose another"),
    "more pixels than anything": (header(2**30, 2**30), "pixels"),
    "16 bits": (png(np.zeros((4, 4), np.uint16)), "8-bit"),
    "many bytes": (b"\x89PNG" + bytes(MOST_BYTES), "use files of at most"),
    "a compressed picture without pixels": (b"\x89PXC\r\n\x1a\n", "ends too early|cut off"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused(page: Page, name: str) -> None:
    content, reason = BROKEN[name]
    message = page.fail(content or b" ", do="open", name="../../etc/passwd")
    assert re.search(reason, message)
    assert "--skip-broken" not in message


def test_what_a_picture_loses_is_said(page: Page) -> None:
    picture = Image.fromarray(NOISE)
    picture.putalpha(128)
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    picture.save(file, "PNG", pnginfo=info)
    ((photo, _),) = of_kind(page.ask(file.getvalue(), do="open", name="a.png"), "photo")
    assert photo["notes"] == ["its transparency is ignored"]


WRONG = {
    "model": ["", None, 3, "../pyramid", ["pyramid"]],
    "seed": [-1, 1.5, "1", 2**31, True, None],
    "shift": ["x", 99, None, True],
    "size": [0, 513, 1.5, "8"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong_fields_are_named(page: Page, pyramid: str, name: str, value: Any) -> None:
    asked = {"do": "draw", "model": pyramid, name: value}
    assert page.fail(**asked).startswith(f"{name}=")


def test_what_cannot_be_done_is_said(page: Page, pyramid: str, gray: str) -> None:
    assert "choose one first" in page.fail(do="score", model=pyramid)
    assert "no such request" in page.fail(do="dance")
    assert "no longer kept" in page.fail(do="pixel", of=99, k=0, row=0, col=0)
    open_photo(page)
    assert "no such request" in page.fail(do="dance", model=pyramid)
    assert "no smaller view" in page.fail(do="upscale", model=gray, factor=2)
    assert "to colorize, use" in page.fail(do="colorize", model=pyramid)
    assert "paint it again" in page.fail(b"1", do="complete", model=pyramid)
    assert "no unknown pixel" in page.fail(bytes(240), do="complete", model=pyramid)
    open_photo(page, np.zeros((512, 512, 3), np.uint8), side=512)
    assert "one picture of 2048x2048" in page.fail(do="upscale", model=pyramid, factor=4)
    assert "3 pictures of 512x512" in page.fail(do="colorize", model=gray, images=3)
    assert "8 pictures" in page.fail(bytes(512**2), do="complete", model=pyramid, images=2, tries=4)
    assert "too large" in page.ask_wrongly(bytes(512**2 + 1), do="complete", model=pyramid)
    drawn = page.begin(do="draw", model=pyramid)
    page.until_end(drawn)
    assert "row=16" in page.fail(do="pixel", of=drawn, k=0, row=16, col=0)
    assert "k=3" in page.fail(do="pixel", of=drawn, k=3, row=0, col=0)
    assert "image 1 has" in page.fail(do="pixel", of=drawn, k=0, row=0, col=0, image=1)


@pytest.mark.parametrize(
    "message", ["", "[]", "{", '{"id": "a"}', '{"id": -1}', b"\xff\xff\xff\xff{}", b"\0", b"\2\0\0\0[]"]
)
def test_messages_that_make_no_sense_do_no_harm(page: Page, pyramid: str, message: bytes | str) -> None:
    page.send(message)
    ((end, _),) = page.until_end(None)
    assert end["event"] == "failed"
    assert page.ask(do="draw", model=pyramid, size=8)[-1][0]["event"] == "done"


def test_a_page_cannot_ask_for_too_much(page: Page, pyramid: str) -> None:
    numbers = [page.begin(do="draw", model=pyramid, size=64) for _ in range(MOST_JOBS + 1)]
    assert "too much at once" in page.until_end(numbers[-1])[-1][0]["message"]
    for number in numbers[:-1]:
        page.send(pack({"id": number, "do": "stop"}))
    ended: set[int] = set()
    while len(ended) < MOST_JOBS:
        event, _ = page.receive()
        if event["event"] in ENDS:
            ended.add(event["id"])
            assert event["event"] in ("stopped", "done")


NOWPOLICY = "default-src 'self'; frame-ancestors 'none'"


NOWHERE = ["/app.py", "/../app.py", "/..%2fapp.py", "/%2e%2e/app.py", "/etc/passwd"]
NOWHERE += [f"/{kind}/{number}" for kind in ("photos", "sheets/0", "sheets/9") for number in ("99", "a", "9" * 5000)]
POLICY = "default-src 'self'; frame-ancestors 'none'"


def test_pages_and_pictures_are_served(client: TestClient) -> None:
    """Law: everything carries the policy, and only the files of the page are there."""
    for path, kind in {
        "/": "text/html",
        "/main.js": "text/javascript",
        "/style.css": "text/css",
        "/photos/0": "image/png",
    }.items():
        response = client.get(path)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(kind)
        assert response.headers["content-security-policy"] == POLICY
    for path in NOWHERE:
        response = client.get(path)
        assert response.status_code == 404
        assert response.headers["content-security-policy"] == POLICY
    assert client.post("/").status_code == 405


@pytest.mark.parametrize("names", [(), ("studio.example",), ("*",)])
def test_only_pages_from_here_may_ask(folder: Path, names: tuple[str, ...]) -> None:
    """Law: a Host that is no address and not allowed, and another Origin, are refused, also with a WebSocket."""
    client = TestClient(make_app(Studio([str(folder / "pyramid")], "cpu"), names))
    hosts = {"127.0.0.1:7860": True, "[::1]:80": True, "localhost": True, "192.168.1.2": True}
    hosts |= {"studio.example:80": bool(names), "evil.example": "*" in names, "127.0.0.1.evil.example": "*" in names}
    for host, welcome in hosts.items():
        origins = {None: welcome, f"http://{host}": welcome, f"https://{host}": welcome}
        origins |= dict.fromkeys(["http://other.example", "null", "http://[x", f"http://{host}.evil.example"], False)
        for origin, allowed in origins.items():
            headers = {"host": host} | ({} if origin is None else {"origin": origin})
            assert client.get("/", headers=headers).status_code == (200 if allowed else 403), headers
            refusal = nullcontext() if allowed else pytest.raises(WebSocketDisconnect)
            with refusal, client.websocket_connect("/tab", headers=headers):
                pass
    policy = client.get("/", headers={"host": "localhost"}).headers["content-security-policy"]
    assert ("frame-ancestors" in policy) == ("*" not in names)


def test_runs_are_described(tmp_path: Path) -> None:
    points = [
        {"step": i, "seconds": 60.0 * i, "bits_per_dim": 8.0 / i, "images_per_second": 1.0, "share": i / 2000}
        for i in range(1, 1001)
    ]
    write_history(tmp_path / "factor-0", points)
    write_history(
        tmp_path / "factor-1", [{name: point[name] for name in point if name != "share"} for point in points[:2]]
    )
    (tmp_path / "factor-2").mkdir()
    for step in (5, 999_999, 1_000_000):
        (tmp_path / "factor-0" / f"sheet-{step:06d}.png").write_bytes(str(step).encode())
    runs = Runs({"a run": tmp_path})
    ((run),) = runs.look()
    first, second, third = run["factors"]
    assert first["points"][-1] == [1000.0, 0.008]
    assert len(first["points"]) <= 301
    assert (first["share"], first["left"], first["minutes"]) == (0.5, 1000.0, 1000.0)
    assert (second["share"], second["left"], len(second["points"])) == (None, None, 2)
    assert (third["points"], third["sheet"]) == ([], None)
    assert runs.sheet("0", "0") == b"1000000"
    assert runs.sheet("0", "1") is None
    assert runs.sheet("1", "0") is None
    assert runs.sheet("0", "0/../..") is None


def test_a_run_is_shown_as_it_trains(tmp_path: Path, folder: Path) -> None:
    """Law: a page that watches is told of new figures, and draws with the new weights."""
    model = load(folder / "pyramid")
    save(model, tmp_path)
    (tmp_path / "run.json").write_text('{"training": {}}')
    write_history(tmp_path / "factor-0", [])
    studio = Studio([str(tmp_path)], "cpu")
    with TestClient(make_app(studio, ["testserver"])) as client, client.websocket_connect("/tab") as connection:
        page = Page(connection)
        watching = page.begin(do="watch")
        assert page.receive()[0]["runs"][0]["factors"][0]["points"] == []
        point = {"step": 1, "seconds": 1.0, "bits_per_dim": 5.0, "images_per_second": 1.0, "share": 1.0}
        write_history(tmp_path / "factor-0", [point])
        assert page.receive()[0]["runs"][0]["factors"][0]["share"] == 1.0
        page.send(pack({"id": watching, "do": "stop"}))
        assert page.until_end(watching)[-1][0]["event"] == "done"
        before = of_kind(page.ask(do="draw", model=str(tmp_path)), "view")
        with torch.no_grad():
            model.factors[0].network.last.bias.add_(1.0)
        save(model, tmp_path)
        assert of_kind(page.ask(do="draw", model=str(tmp_path)), "view") != before


@contextmanager
def connected(served: Served) -> Iterator[Page]:
    origin = Origin(f"http://{served.host}")
    with connect(f"ws://{served.host}/tab", origin=origin, max_size=None) as connection:
        yield Page(connection)


def test_twenty_pages_at_once(pyramid: str) -> None:
    """Law: twenty pages draw without an error, one after another; Ctrl-C ends it at once, even while it draws."""
    with Served("--port", 0, pyramid) as served, ExitStack() as open_pages:
        pages = [open_pages.enter_context(connected(served)) for _ in range(20)]
        numbers = [page.begin(do="draw", model=pyramid, size=16, seed=i) for i, page in enumerate(pages)]
        for page, number in zip(pages, numbers, strict=True):
            assert page.until_end(number)[-1][0]["event"] == "done"
        pages[0].begin(do="draw", model=pyramid, size=512)
        while pages[0].receive()[0]["event"] != "pixels":
            pass
        start = time.monotonic()
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(10) == 0
        assert time.monotonic() - start < 3
        assert served.process.stderr is not None
        assert served.process.stderr.read() == ""


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = pixelcnn("studio", "--no-browser", "--port", port, "photos-pyramid")
    assert result.returncode == 2
    assert result.stderr == f"pixelcnn: port {port} is taken: use --port {port + 1}, or --port 0 for one that is free\n"
