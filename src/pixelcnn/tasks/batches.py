"""Draw results for many pictures in batches, and score many pictures one by one."""

__all__ = ["Draw", "draw_alternatives", "score_pictures"]

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor, stack

from pixelcnn.common.progress import late_bar
from pixelcnn.common.text import printable
from pixelcnn.models.image_model import ImageModel
from pixelcnn.pictures.inputs import Picture
from pixelcnn.pictures.sheets import Strip, heat_map, save_picture, sheet, to_picture
from pixelcnn.tasks.results import Results, write_picture
from pixelcnn.tasks.scoring import surprisal

SHEET_PICTURES = 12  # at most, on a contact sheet
Draw = Callable[[Tensor, Sequence[int], str], tuple[Strip, Tensor]]
"""Takes images (n, C, H, W), a seed for each and a title for the progress bar; returns images to show and results."""
Job = tuple[Picture, int]  # a picture, and which of its alternatives


class _ContactSheet:
    """A contact sheet of the first pictures and all their results."""

    def __init__(self, samples: int) -> None:
        self.title, self.levels = "", 256
        self.given: list[Tensor] = []
        self.drawn: list[list[Tensor]] = [[] for _ in range(samples)]

    def add(self, title: str, given: Tensor, levels: int, results: Sequence[Tensor]) -> None:
        if len(self.given) < SHEET_PICTURES:
            self.title, self.levels = title, levels
            self.given.append(given)
            for images, x in zip(self.drawn, results, strict=True):
                images.append(x)

    def save(self, path: Path | None) -> None:
        if self.given and path is not None:
            strips = [(f"result {i}", images, 256) for i, images in enumerate(self.drawn, 1)]
            save_picture(sheet([(self.title, self.given, self.levels), *strips]), path)


def draw_alternatives(
    pictures: Iterable[Picture],
    draw: Draw,
    results: Results,
    *,
    seeds: Sequence[int],
    batch_size: int,
    done: Callable[[Path, bool], None],
) -> None:
    """Draw an image for each picture and seed, and write the results.

    Consecutive pictures of the same size are drawn together, which changes their results only by rounding. If a batch
    does not fit in memory, it is halved. After an interruption by Ctrl-C the finished results are written and the
    exception is raised again.

    Args:
        pictures: pictures to draw from.
        draw: function that draws a batch.
        results: where the results go.
        seeds: seed of each alternative, the same for every picture.
        batch_size: largest number of images drawn at once.
        done: called with the file of each result, and whether it is the last of its picture.
    """
    contact_sheet, row = _ContactSheet(len(seeds)), []
    try:
        for batch in _batches(pictures, len(seeds), batch_size):
            for (picture, i), (title, shown, levels), x in _draw_batch(draw, batch, seeds):
                file = results.files[picture.origin][i]
                write_picture(to_picture(x, 256), file)
                row.append(x)
                if last := len(row) == len(seeds):
                    contact_sheet.add(title, shown[0], levels, row)
                    row = []
                done(file, last)
    finally:
        contact_sheet.save(results.sheet)


def _batches(pictures: Iterable[Picture], samples: int, batch_size: int) -> Iterator[list[Job]]:
    batch: list[Job] = []
    try:
        for picture in pictures:
            for i in range(samples):
                if batch and (len(batch) == batch_size or batch[0][0].x.shape != picture.x.shape):
                    yield batch
                    batch = []
                batch.append((picture, i))
    except ValueError:  # a picture cannot be read: draw the ones before it first
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _draw_batch(draw: Draw, batch: list[Job], seeds: Sequence[int]) -> Iterator[tuple[Job, Strip, Tensor]]:
    """Yield each job of a batch with the strip to show next to its result, and the result."""
    names = list(dict.fromkeys(printable(picture.origin.name) for picture, _ in batch))
    title = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    try:
        (text, shown, levels), drawn = draw(
            stack([picture.x for picture, _ in batch]), [seeds[i] for _, i in batch], title
        )
    except MemoryError:
        if len(batch) == 1:
            raise
    else:
        for job, given, x in zip(batch, shown, drawn, strict=True):
            yield job, (text, [given], levels), x
        return
    for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
        yield from _draw_batch(draw, half, seeds)


def score_pictures(
    model: ImageModel, pictures: Iterable[Picture], heat_maps: Results | None = None, *, progress: bool = False
) -> Iterator[tuple[str, list[float]]]:
    """Yield the name and the bits per dimension of each picture: the total, then each factor.

    Args:
        model: any model.
        pictures: pictures with the model's channels.
        heat_maps: where to save a heat map of each picture: its views next to the bits of each of their pixels.
        progress: show a progress bar for each picture that takes longer than two seconds.
    """
    for picture in pictures:
        x, name = picture.x[None], str(picture.origin.name)
        with late_bar(f"scoring {printable(name)}", visible=progress) as show:
            maps = surprisal(model, x, callback=show)
        bits = [float(each.cpu().double().sum()) / x.numel() for each in maps]
        if heat_maps is not None:
            (file,) = heat_maps.files[picture.origin]
            write_picture(_draw_heat_maps(model, x, maps), file)
        yield name, [sum(bits), *bits]


def _draw_heat_maps(model: ImageModel, x: Tensor, maps: Sequence[Tensor]) -> Image.Image:
    strips = []
    for view, each, (channels, levels) in zip(model.views(x), maps, model.formats, strict=True):
        costs = each[0] / channels
        size = f"{view.shape[3]}x{view.shape[2]}"
        most = max(float(costs.max()), 1e-9)
        title = f"{size}: surprisal from 0 (black) to {most:.1f} bits per sub-pixel"
        stretched = (view[0].long() * 255 // (levels - 1)).expand(3, -1, -1)
        strips.append((title, [stretched, heat_map(costs, most)], 256))
    return sheet(strips, height=256)
