"""The command `studio`, which serves a page to look at models."""

__all__ = ["studio"]

import os
from typing import Annotated

import typer

import pixelcnn.apps.studio
import pixelcnn.models
from pixelcnn.apps.cli.help import USE
from pixelcnn.apps.cli.options import MODELS, Device, command

EXTRA = ("starlette", "uvicorn", "websockets")


@command(USE)
def studio(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODELS",
            help=f"{MODELS} By default, all shipped models. Runs are also shown as they train.",
            autocompletion=pixelcnn.models.shipped_names,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 is open to others.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 picks a free one.")] = 7860,
    device: Device = "auto",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    name: Annotated[
        list[str] | None,
        typer.Option(help="A host name by which other machines may open the page, or '*' for any; use with --host."),
    ] = None,
) -> None:
    """Look at models in the browser, on one page."""
    try:
        serve = pixelcnn.apps.studio.serve
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        raise ValueError(f"the studio needs {error.name}: install it with pip install 'pixelcnn[studio]'") from None
    serve(models or (), host=host, port=port, device=device, browser=browser, names=name or ())
    os._exit(0)  # at once: threads that still work would be waited for, and there is nothing to save
