"""The studio: one page, served from this machine, that shows what exact models do.

From the outside in:

    server     the port, the browser, the end
    app        addresses of the page, and who may ask
    tab        an open page: its requests, its picture, its results
    asked      what a page asks for, checked
    line       one drawing at a time; the others see their place
    works      the work itself: draw, score, change pictures, compress
    viewer     pixels of a drawing as they appear
    shelf      the models, loaded once
    uploads    pictures that people bring
    runs       folders of training
    messages   what goes over the wire
    page/      the page: HTML, CSS and JavaScript modules
"""

__all__ = ["serve"]

from typing import TYPE_CHECKING

from pixelcnn.common.lazy import lazy_names

if TYPE_CHECKING:
    from pixelcnn.apps.studio.server import serve

__getattr__, __dir__ = lazy_names(__name__, {"server": ["serve"]})
