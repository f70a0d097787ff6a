"""The work that a page asks for. Each function runs in a thread, tells the page what it finds, and can be stopped."""

__all__ = ["Subject", "colorize", "complete", "compress", "draw", "inspect", "score", "upscale"]

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelcnn.apps.studio.asked import Asked
from pixelcnn.apps.studio.line import Job
from pixelcnn.apps.studio.uploads import Photo
from pixelcnn.apps.studio.viewer import Viewer, describe_views
from pixelcnn.codec.chunks import DamagedError
from pixelcnn.codec.container import read_file, view_ends
from pixelcnn.data.originals import Original
from pixelcnn.models.codec import Codec
from pixelcnn.models.draw import DrawOptions
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.sampling import sample_views
from pixelcnn.tasks.inspecting import pixel_distribution
from pixelcnn.tasks.lossless import encode_losslessly
from pixelcnn.tasks.scoring import surprisal

MOST_ALTERNATIVES = 4
MOST_TRIES = 16
MOST_DRAWN = 2**18  # pixels drawn at once, all alternatives and tries together


@dataclass(frozen=True, eq=False)
class Subject:
    """Images whose pixels a page may look at: their views by number, each (n, C, H, W), and their class."""

    model: ImageModel
    views: dict[int, Tensor]
    label: int | None = None


def draw(job: Job, model: ImageModel, asked: Asked) -> None:
    """Draw an image, view by view."""
    size, label = asked.size(model), asked.label(model)
    viewer = Viewer(job, model, model.sizes(size), 1, consistent=model.consistent)
    job.send("begun", views=describe_views(model, size), images=1)
    options = DrawOptions(asked.shift, asked.map, callback=viewer)
    job.keep(subject := Subject(model, {}, label))
    for k, view in sample_views(model, 1, size, seed=asked.seed, labels=label, options=options):
        subject.views[k] = view
        _send_view(job, k, view)


def upscale(job: Job, model: ImageModel, asked: Asked, photo: Photo) -> None:
    """Enlarge a picture."""
    factor = asked.whole("factor", 2, 16)
    size = photo.size[0] * factor, photo.size[1] * factor
    _check_pixels(size, 1)
    x = _colored(photo)
    _draw_alternatives(job, model, asked, size, 1, lambda o: model.upscale(x, factor, seed=asked.seed, options=o))


def colorize(job: Job, model: ImageModel, asked: Asked, photo: Photo) -> None:
    """Draw colors, in several ways, for the gray view of a picture."""
    n = asked.whole("images", 1, MOST_ALTERNATIVES, 1)
    _check_pixels(photo.size, n)
    x = photo.x.expand(n, -1, -1, -1)
    _draw_alternatives(job, model, asked, photo.size, n, lambda o: model.colorize(x, seed=asked.seed, options=o))


def complete(job: Job, model: ImageModel, asked: Asked, photo: Photo) -> None:
    """Fill a hole in a picture, in several ways."""
    n, tries = asked.whole("images", 1, MOST_ALTERNATIVES, 1), asked.whole("tries", 1, MOST_TRIES, 1)
    _check_pixels(photo.size, n * tries)
    x, unknown = _colored(photo).expand(n, -1, -1, -1), asked.mask(photo.size)

    def drawn(options: DrawOptions) -> Tensor:
        return model.complete(x, unknown, candidates=tries, seed=asked.seed, options=options)

    _draw_alternatives(job, model, asked, photo.size, n, drawn)


def _check_pixels(size: tuple[int, int], images: int) -> None:
    """Raise a ValueError if these images are too many to draw at once: the start of a drawing cannot be stopped."""
    if images * size[0] * size[1] > MOST_DRAWN:
        what = f"{images} pictures" if images > 1 else "one picture"
        raise ValueError(f"{what} of {size[1]}x{size[0]} at once: at most {MOST_DRAWN:,} pixels can be drawn at once")


def _draw_alternatives(
    job: Job,
    model: ImageModel,
    asked: Asked,
    size: tuple[int, int],
    images: int,
    drawn: Callable[[DrawOptions], Tensor],
) -> None:
    """Draw images within what a picture tells of them."""
    viewer = Viewer(job, model, model.sizes(size), images, consistent=True)
    job.send("begun", views=describe_views(model, size), images=images)
    x = drawn(DrawOptions(asked.shift, asked.map, callback=viewer))
    views = dict(enumerate(model.views(x)))
    job.keep(Subject(model, views))
    for k, view in views.items():
        _send_view(job, k, view)


def score(job: Job, model: ImageModel, photo: Photo) -> None:
    """Tell what a picture costs: in total, for each view, for each pixel, and as other files."""
    x = _colored(photo)
    views = dict(enumerate(model.views(x)))
    job.keep(Subject(model, views))
    job.send("begun", views=describe_views(model, photo.size), images=1)
    for k, view in views.items():
        _send_view(job, k, view)
    maps = surprisal(model, x, callback=job.show)
    for k, bits in enumerate(maps):
        bits = bits.clamp_min(0).cpu()  # rounding may put what is certain a little below
        job.send("bits", bits[0].float().numpy().astype("<f4").tobytes(), k=k, total=float(bits.double().sum()))
    for name, content in encode_losslessly(photo.x):
        job.check()
        job.send("size", name=name, bytes=len(content))


def compress(job: Job, codec: Codec, photo: Photo) -> None:
    """Compress a picture, and read the file as it arrives: after each of its views, and at last the whole."""
    count = job.counter(3 * codec.chain.pixels(photo.size))  # once to compress, and about twice to read all beginnings
    (content,) = codec.compress([Original(photo.x)], count=count)
    ends = view_ends(content)
    job.send("file", content, ends=ends)
    for end in ends:
        (restored,) = codec.restore([read_file(content[:end])], count=count)
        if isinstance(restored, DamagedError):
            raise restored
        x = restored.original.x
        same = end == len(content) and torch.equal(x, photo.x)
        C, H, W = x.shape
        job.send("part", x.byte().numpy().tobytes(), end=end, channels=C, height=H, width=W, same=same)


def inspect(job: Job, subject: Subject, asked: Asked) -> None:
    """Tell the distribution of a pixel."""
    k = asked.whole("k", 0, len(subject.model.factors) - 1)
    image, row, col = (asked.whole(name, 0, 2**16, 0) for name in ("image", "row", "col"))
    needed = range(k, min(k + 2, len(subject.model.factors)))
    if any(i not in subject.views or image >= len(subject.views[i]) for i in needed):
        raise ValueError(f"view {k} of image {image} has not been drawn yet")
    views = {i: subject.views[i][image : image + 1] for i in needed}
    pmf, bounds, values, bits = pixel_distribution(subject.model, views, k, row, col, subject.label)
    lowest, highest, values = (each[0].tolist() for each in (*bounds, values))
    payload = pmf[0].float().cpu().numpy().astype("<f4").tobytes()
    job.send("pixel", payload, values=values, lowest=lowest, highest=highest, bits=max(0.0, round(float(bits[0]), 3)))


def _send_view(job: Job, k: int, view: Tensor) -> None:
    """Send a finished view of all images."""
    job.send("view", view.byte().cpu().numpy().tobytes(), k=k)


def _colored(photo: Photo) -> Tensor:
    """Return a picture as an image (1, 3, H, W); a gray one gets three equal channels."""
    return photo.x[None].expand(-1, 3, -1, -1)
