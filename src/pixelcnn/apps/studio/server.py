"""Serving the studio: the port, the browser, and the end."""

__all__ = ["serve"]

import errno
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from contextlib import suppress

import uvicorn

from pixelcnn.apps.studio.app import make_app
from pixelcnn.apps.studio.tab import Studio
from pixelcnn.apps.studio.uploads import MOST_BYTES
from pixelcnn.common.devices import find_device


def serve(
    models: Sequence[str] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    device: str = "auto",
    browser: bool = True,
    names: Sequence[str] = (),
) -> None:
    """Serve the studio until Ctrl-C.

    Args:
        models: folders, shipped models and hub ids to offer; by default all shipped models. Runs are also shown live.
        host: the address to listen at. At any other than this machine's own, everybody who reaches it can use it.
        port: the port; 0 for one that is free.
        device: to compute on; "auto" is the accelerator if there is one.
        browser: open the page in the browser.
        names: of this machine, by which others may ask for the page, besides its addresses; "*" for any.

    Raises:
        ValueError: if the port is taken, the host is not one of this machine, or a model cannot be loaded.
    """
    listening = _listen(host, port)
    with listening:
        where = listening.getsockname()
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{where[1]}"
        studio = Studio(models, str(find_device(device)))
        config = uvicorn.Config(
            make_app(studio, (host, *names)),
            log_level="warning",
            access_log=False,
            ws="websockets-sansio",
            ws_max_size=MOST_BYTES + 2**16,
            ws_per_message_deflate=False,  # pixels of drawings hardly shrink
            timeout_graceful_shutdown=1,
            server_header=False,
        )
        with suppress(KeyboardInterrupt):  # the usual way to end it
            _Server(config, address, browser=browser).run(sockets=[listening])


class _Server(uvicorn.Server):
    """A server that says when it is ready."""

    def __init__(self, config: uvicorn.Config, address: str, *, browser: bool) -> None:
        super().__init__(config)
        self.address, self.browser = address, browser

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"pixelcnn: the studio is at {self.address} (Ctrl-C ends it)", file=sys.stderr, flush=True)
        if self.browser:
            threading.Thread(target=webbrowser.open, args=[self.address], daemon=True).start()  # some wait for it


def _listen(host: str, port: int) -> socket.socket:
    """Listen at a port, before anything else takes time."""
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # small messages need not wait for each other
        return listening
    except (OSError, OverflowError) as error:
        reason = getattr(error, "errno", None)
        if reason == errno.EADDRINUSE:
            raise ValueError(f"port {port} is taken: use --port {port + 1}, or --port 0 for one that is free") from None
        if reason == errno.EACCES:
            raise ValueError(f"port {port} needs administrator rights: use one above 1023") from None
        if isinstance(error, OverflowError):
            raise ValueError(f"port {port}: use a number from 0 to 65535") from None
        raise ValueError(
            f"host {host!r} is not an address of this machine ({error}): use 127.0.0.1 or 0.0.0.0"
        ) from None
