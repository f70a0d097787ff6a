"""The addresses of the studio, and who may ask: pages that came from here, in a browser that asked for this host.

No part of a request is ever used as the path of a file. The files of the page are read once, when the studio begins.
"""

__all__ = ["make_app"]

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketClose, WebSocketDisconnect

import pixelcnn
from pixelcnn.apps.studio.tab import Studio, Tab
from pixelcnn.apps.studio.uploads import MOST_BYTES, MOST_PIXELS, MOST_SIDE, sample_photos
from pixelcnn.data.given import to_picture
from pixelcnn.pictures.sheets import color_map, to_png
from pixelcnn.tasks.lossless import available_codecs

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
TOO_BIG = 1009  # the code with which a connection ends whose message is too large


class Guard:
    """Lets in what was meant for this host, and came from a page of this host, and says what the page may load.

    Another page in the same browser can send requests to this machine, even under a name of its own that it makes lead
    here (DNS rebinding). Such requests carry another Host, or another Origin.

    Args:
        app: what it guards.
        hosts: with their ports, that may be asked for; None for any.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str] | None) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        refused = None
        if self.hosts is not None and host not in self.hosts:
            refused = f"this is not {host}: use the address that the studio printed"
        elif origin is not None and urlsplit(origin).netloc != host:
            refused = f"{origin} may not use the studio"
        app = self.app if refused is None else _refusal(refused, scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                named = {name.lower().encode(): value.encode() for name, value in HEADERS.items()}
                message["headers"] = [*message["headers"], *named.items()]
            await send(message)

        await app(scope, receive, send_guarded)


def _refusal(reason: str, scope: Scope) -> ASGIApp:
    return PlainTextResponse(reason, 403) if scope["type"] == "http" else WebSocketClose(reason=reason[:120])


def make_app(studio: Studio, hosts: Sequence[str] | None = None) -> Starlette:
    """Make the application.

    Args:
        studio: what all pages share.
        hosts: with their ports, that may be asked for; None for any.
    """
    page = {entry.name: entry.read_bytes() for entry in files("pixelcnn.apps.studio").joinpath("page").iterdir()}
    photos = [to_png(to_picture(photo.x, 256)) for photo in sample_photos()]
    facts = {
        "version": pixelcnn.__version__,
        "models": studio.shelf.describe(),
        "photos": len(photos),
        "codecs": available_codecs(),
        "runs": list(studio.runs.folders),
        "limits": {"bytes": MOST_BYTES, "pixels": MOST_PIXELS, "side": MOST_SIDE},
        "colors": color_map().tobytes().hex(),
    }

    async def show_file(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in page:
            return PlainTextResponse("there is no such page", 404)
        return Response(page[name], media_type=KINDS["." + name.rpartition(".")[2]])

    async def show_facts(request: Request) -> Response:
        return JSONResponse(facts)

    async def show_photo(request: Request) -> Response:
        number = request.path_params["number"]
        return _png(photos[number] if number < len(photos) else None)

    async def show_sheet(request: Request) -> Response:
        return _png(await asyncio.to_thread(studio.runs.sheet, request.path_params["run"], request.path_params["k"]))

    routes = [
        Route("/", show_file),
        Route("/facts", show_facts),
        Route("/photos/{number:int}", show_photo),
        Route("/sheets/{run:int}/{k:int}", show_sheet),
        WebSocketRoute("/tab", lambda socket: serve_tab(socket, studio)),
        Route("/{name}", show_file),
    ]
    app = Starlette(routes=routes)
    app.add_middleware(Guard, hosts=hosts)
    return app


def _png(content: bytes | None) -> Response:
    return (
        PlainTextResponse("there is no such picture", 404)
        if content is None
        else Response(content, media_type="image/png")
    )


async def serve_tab(socket: WebSocket, studio: Studio) -> None:
    """Serve an open page until it is closed."""
    await socket.accept()

    async def send(message: bytes | str) -> Any:
        await (socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message))

    tab = Tab(studio, send)
    sender = asyncio.create_task(tab.send_all())
    try:
        while True:
            received = await socket.receive()
            if received["type"] == "websocket.disconnect":
                break
            message = received.get("bytes") or received.get("text") or ""
            if len(message) > MOST_BYTES + 2**16:
                await socket.close(TOO_BIG)
                break
            await tab.take(message)
    finally:
        tab.close()
        sender.cancel()
        with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
            await sender
