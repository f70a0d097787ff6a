"""The addresses of the studio, and who may ask.

No part of a request is ever used as the path of a file. The files of the page are read once, when the studio begins.
"""

__all__ = ["make_app"]

import asyncio
import re
from collections.abc import Sequence
from importlib.resources import files
from ipaddress import ip_address

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketClose

from pixelcnn.apps.studio.tab import Studio, Tab
from pixelcnn.apps.studio.uploads import MOST_BYTES, MOST_PIXELS, MOST_SIDE, sample_photos
from pixelcnn.data.given import to_picture
from pixelcnn.pictures.sheets import color_map, to_png

KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY = "default-src 'self'"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
FRESH, FOREVER = {"Cache-Control": "no-cache"}, {"Cache-Control": "max-age=31536000, immutable"}
ANY = "*"


class Guard:
    """Lets in what was meant for this machine, and came from a page of it, and says what the page may load.

    Another page in the same browser can send requests here, even under a name of its own that it makes lead here (DNS
    rebinding). They carry another Origin, or a Host that is a name; addresses cannot be made to lead elsewhere.

    Args:
        app: what it guards.
        names: of hosts that may be asked for, besides localhost and any address; "*" for all.
    """

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        self.app, self.names = app, ("localhost", *names)
        framed = "" if ANY in names else "; frame-ancestors 'none'"  # hosting services show pages in a frame
        headers = HEADERS | {"Content-Security-Policy": POLICY + framed}
        self.headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        app = self.app
        if not self._is_here(host):
            app = _refusal(f"the studio does not answer to the name {host}: open the address that it printed", scope)
        elif origin is not None and origin.partition("://")[2] != host:
            app = _refusal("another page may not use the studio", scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self.headers]
            await send(message)

        await app(scope, receive, send_guarded)

    def _is_here(self, host: str) -> bool:
        """Whether a Host, with or without a port, is an address or one of the names."""
        name = re.sub(r":\d+$", "", host).removeprefix("[").removesuffix("]")
        if ANY in self.names or name in self.names:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True


def _refusal(reason: str, scope: Scope) -> ASGIApp:
    return PlainTextResponse(reason, 403) if scope["type"] == "http" else WebSocketClose(reason=reason[:120])


def make_app(studio: Studio, names: Sequence[str] = ()) -> Starlette:
    """Make the application.

    Args:
        studio: what all pages share.
        names: of hosts that may be asked for, besides localhost and any address; "*" for all.
    """
    entries = files("pixelcnn.apps.studio").joinpath("page").iterdir()
    page = {entry.name: entry.read_bytes() for entry in entries if entry.name.rpartition(".")[2] in KINDS}
    photos = {str(i): to_png(to_picture(photo.x, 256)) for i, photo in enumerate(sample_photos())}
    facts = {
        "models": studio.shelf.describe(),
        "photos": len(photos),
        "runs": list(studio.runs.folders),
        "limits": {"bytes": MOST_BYTES, "pixels": MOST_PIXELS, "side": MOST_SIDE},
        "colors": color_map().tobytes().hex(),
    }

    async def show_file(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in page:
            return PlainTextResponse("there is no such page", 404)
        return Response(page[name], headers=FRESH, media_type=KINDS[name.rpartition(".")[2]])

    async def show_facts(request: Request) -> Response:
        return JSONResponse(facts, headers=FRESH)

    async def show_photo(request: Request) -> Response:
        return _png(photos.get(request.path_params["number"]))

    async def show_sheet(request: Request) -> Response:
        return _png(await asyncio.to_thread(studio.runs.sheet, request.path_params["run"], request.path_params["k"]))

    routes = [
        Route("/", show_file),
        Route("/facts", show_facts),
        Route("/photos/{number}", show_photo),
        Route("/sheets/{run}/{k}", show_sheet),
        WebSocketRoute("/tab", lambda socket: serve_tab(socket, studio)),
        Route("/{name}", show_file),
    ]
    app = Starlette(routes=routes)
    app.add_middleware(Guard, names=names)
    return app


def _png(content: bytes | None) -> Response:
    """Answer with a picture, whose address is that of no other."""
    if content is None:
        return PlainTextResponse("there is no such picture", 404)
    return Response(content, headers=FOREVER, media_type="image/png")


async def serve_tab(socket: WebSocket, studio: Studio) -> None:
    """Serve an open page until it is closed, or no longer takes what it is sent."""
    await socket.accept()

    async def send(message: bytes | str) -> None:
        await (socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message))

    async def listen() -> None:
        while (received := await socket.receive())["type"] != "websocket.disconnect":
            await tab.take(received.get("bytes") or received.get("text") or "")

    tab = Tab(studio, send)
    ends = [asyncio.create_task(listen()), asyncio.create_task(tab.send_all())]
    for end in ends:
        end.add_done_callback(lambda end: end.cancelled() or end.exception())  # a page that is gone is no error
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        tab.close()
        for end in ends:
            end.cancel()
