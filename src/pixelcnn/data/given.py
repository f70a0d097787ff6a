"""Images as people have them, turned into integer tensors, and results given back as the images came.

An image is a picture (PIL), the path of one, a NumPy array or a tensor; several are a batch of one size, or a list in
which kinds and sizes may be mixed:

    given             one image              a batch          comes back as
    PIL               8-bit color or gray                     PIL
    path              str or Path                             PIL
    NumPy             (H, W) or (H, W, C)    (B, H, W, C)     NumPy, in the same layout
    tensor            (C, H, W)              (B, C, H, W)     a tensor, on the device it was on
    list or tuple                            of all these     a list, in the same order

Pictures and paths are treated as on the command line: turned upright, converted to the color or gray of the model, and
without their transparency. Gray arrays become color with equal channels for a model of color, and their results have
the layout (H, W, C) or (B, H, W, C). Everything else must fit: nothing is scaled, cropped or cut off.
"""

__all__ = [
    "GRAY_MODES",
    "PICTURE_LEVELS",
    "Batch",
    "Given",
    "ImageLike",
    "ImagesLike",
    "as_computable",
    "take_images",
    "to_picture",
]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pixelcnn.auxiliary.chain import check_images
from pixelcnn.common.checks import array_hint, check_integers, tensor_hint
from pixelcnn.common.text import first_line
from pixelcnn.data.decode import BrokenImageError, Preparation, check_mode, convert, read_file

ImageLike = Image.Image | np.ndarray | Tensor | str | Path
"""An image as people have it, a picture (PIL), an array, a tensor, or a path. Arrays and tensors may be batches."""
ImagesLike = ImageLike | Sequence[ImageLike]
"""One image or more, as an `ImageLike`, or a list or tuple of these, of any sizes."""
PICTURE_LEVELS = 256
GRAY_MODES = ("1", "L", "LA")  # of Pillow
KINDS = "use pictures (PIL), arrays (H, W, C), tensors (C, H, W), paths, or a list of these"
WIDE = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}
"""Types that torch can hardly compute with, and those that hold their values."""


class Batch(NamedTuple):
    """Images of one size: their places among all images, and integers (n, C, H, W)."""

    places: list[int]
    x: Tensor


@dataclass(frozen=True, eq=False)
class _Item:
    """One thing that was given: its images (n, C, H, W), and the way back from results (n, C', H', W')."""

    x: Tensor
    back: Callable[[Tensor], Any]


class Given:
    """Images that were given, as integer tensors, and the way back.

    Attributes:
        batches: the images, those of equal size together.
        number: of images.
        xs: the images of each thing that was given, integers (n, C, H, W).
    """

    def __init__(self, items: Sequence[_Item], *, listed: bool) -> None:
        self._items, self._listed = items, listed
        self.xs = [item.x for item in items]
        starts = np.cumsum([0, *(len(item.x) for item in items)]).tolist()
        self.number: int = starts[-1]
        alike: dict[tuple[int, ...], list[int]] = {}
        for i, item in enumerate(items):
            alike.setdefault(tuple(item.x.shape[1:]), []).append(i)
        self.batches: list[Batch] = []
        self._slices: dict[int, tuple[int, slice]] = {}  # of each item: the batch that it is in, and where
        for j, found in enumerate(alike.values()):
            places = [place for i in found for place in range(starts[i], starts[i + 1])]
            xs = [items[i].x for i in found]
            self.batches.append(Batch(places, xs[0] if len(xs) == 1 else torch.cat(xs)))
            first = 0
            for i in found:
                self._slices[i] = j, slice(first, first := first + len(items[i].x))

    def only(self, name: str = "x") -> Tensor:
        """Return all images as one batch (B, C, H, W).

        Raises:
            ValueError: if they differ in size.
        """
        if len(self.batches) > 1:
            sizes = " and ".join(f"{x.shape[3]}x{x.shape[2]}" for _, x in self.batches[:2])
            raise ValueError(f"{name} has images of {sizes}: give images of one size at a time")
        return self.batches[0].x

    def joined(self, results: Sequence[Tensor]) -> Tensor:
        """Join the results for each batch, (n, ...) each, in the order of the images."""
        if len(results) == 1:
            return results[0]
        order = torch.tensor([place for batch in self.batches for place in batch.places]).argsort()
        return torch.cat(list(results))[order.to(results[0].device)]

    def listed(self, results: Sequence[Any], part: Callable[[Any, slice], Any]) -> Any:
        """Return the results of each item: `part` of those of its batch; a list if a list was given."""
        each = [part(results[j], within) for j, within in (self._slices[i] for i in range(len(self._items)))]
        return each if self._listed else each[0]

    def back(self, results: Sequence[Tensor]) -> Any:
        """Give the results for each batch, (n, C', H', W') each, back as the images came."""
        backs = iter([item.back for item in self._items])
        return self.listed(results, lambda result, within: next(backs)(result[within]))


def take_images(
    images: object,
    channels: int,
    levels: int,
    *,
    device: torch.device | None = None,
    gray: bool = False,
    name: str = "x",
) -> Given:
    """Turn images as people have them into integer tensors.

    Args:
        images: an `ImagesLike`.
        channels, levels: that the images must have.
        device: to put the images on; None to leave tensors where they are.
        gray: gray images also fit, and keep their one channel.
        name: of the argument, for errors.

    Raises:
        ValueError: if something is not an image, does not fit, or cannot be read; or if there is no image.
    """
    listed = isinstance(images, list | tuple)
    if listed and not images:
        raise ValueError(f"{name}={images!r} is empty: give at least one image")
    found = images if isinstance(images, list | tuple) else [images]
    items = []
    for i, image in enumerate(found):
        each = f"{name}[{i}]" if listed else name
        item = _take(image, channels, levels, each, gray=gray)
        if not len(item.x):
            raise ValueError(f"{each} of shape {tuple(getattr(image, 'shape', ()))} holds no image: give at least one")
        check_images(item.x, 1 if gray and item.x.shape[1] == 1 else channels, levels, each)
        items.append(item if device is None else _Item(item.x.to(device), item.back))
    return Given(items, listed=listed)


def _take(image: object, channels: int, levels: int, name: str, *, gray: bool) -> _Item:
    if isinstance(image, Tensor):
        return _take_tensor(image, channels, levels, name, gray=gray)
    if isinstance(image, np.ndarray):
        return _take_array(image, channels, levels, name, gray=gray)
    if not isinstance(image, Image.Image | str | Path):
        raise ValueError(f"{name} of type {type(image).__name__}: {KINDS}")
    if levels != PICTURE_LEVELS:
        raise ValueError(f"{name} is a picture of {PICTURE_LEVELS} levels: use arrays or tensors in [0, {levels})")
    if isinstance(image, Image.Image):
        pixels = _read_picture(image, 1 if gray and image.mode in GRAY_MODES else channels, name)
    else:
        pixels = _read_path(image, channels)
    x = torch.tensor(pixels).permute(2, 0, 1)[None].contiguous()
    return _Item(x, lambda result: to_picture(result[0], levels))


def _take_tensor(x: Tensor, channels: int, levels: int, name: str, *, gray: bool) -> _Item:
    check_integers(x.dtype, levels, name)
    fitting = (channels, 1) if gray else (channels,)
    if x.dim() not in (3, 4) or x.shape[-3] not in fitting or 0 in x.shape[-2:]:
        wanted = f"({channels}, H, W) or (B, {channels}, H, W)"
        hint = tensor_hint(x.shape, channels, name)
        raise ValueError(f"{name} of shape {tuple(x.shape)}: use images {wanted}{hint}")
    device, batch = x.device, as_computable(x)
    if x.dim() == 3:
        return _Item(batch[None], lambda result: result[0].to(device))
    return _Item(batch, lambda result: result.to(device))


def as_computable(x: Tensor) -> Tensor:
    """Return integers in a type that torch can compute with; those beyond it become its largest number."""
    if x.dtype not in WIDE:
        return x
    wide = x.to(WIDE[x.dtype])
    return wide.where(wide >= 0, torch.iinfo(wide.dtype).max)  # only of 64 bits there may be some


def _take_array(x: np.ndarray, channels: int, levels: int, name: str, *, gray: bool) -> _Item:
    check_integers(x.dtype.name, levels, name)
    pixels = x[..., None] if x.ndim == 2 else x
    if pixels.ndim not in (3, 4) or pixels.shape[-1] not in (1, channels) or 0 in pixels.shape[-3:-1]:
        wanted = f"(H, W{', 3) or (B, H, W, 3)' if channels == 3 else ') or (B, H, W, 1)'}"
        hint = array_hint(x.shape, channels, name)
        raise ValueError(f"{name} of shape {x.shape}: use images {wanted}{hint}")
    if pixels.size and not (pixels.min() >= 0 and pixels.max() < levels):
        raise ValueError(f"{name} with values from {x.min()} to {x.max()}: use integers in [0, {levels})")
    kind = np.uint8 if levels <= 256 else np.int64
    ours = torch.from_numpy(np.moveaxis(pixels, -1, -3).astype(kind, order="C"))
    single, flat = ours.dim() == 3, x.ndim == 2
    batch = ours[None] if single else ours
    if not gray:
        batch = batch.expand(-1, channels, -1, -1)

    def back(result: Tensor) -> np.ndarray:
        channels_last = np.ascontiguousarray(np.moveaxis(result.cpu().numpy(), 1, -1))
        if flat and channels_last.shape[-1] == 1:
            channels_last = channels_last[..., 0]
        return channels_last[0] if single else channels_last

    return _Item(batch, back)


def _read_picture(picture: Image.Image, channels: int, name: str) -> np.ndarray:
    check_mode(picture, name)
    try:
        image = convert(picture, channels)
        return np.asarray(image).reshape(image.height, image.width, channels)
    except Exception as error:  # of a file that was opened, not read: Pillow's decoders raise a dozen kinds
        raise ValueError(f"{name} cannot be read ({first_line(error)}): use another picture") from error


def _read_path(path: str | Path, channels: int) -> np.ndarray:
    try:
        content = read_file(Path(path).expanduser())
        return Preparation(channels, None, None)({"bytes": content, "path": str(path)}, 0)
    except BrokenImageError as error:
        raise ValueError(f"{str(error).rpartition(': ')[0]}: name another picture") from None


def to_picture(x: Tensor, levels: int) -> Image.Image:
    """Convert an image (C, H, W) of integers in [0, levels) to an 8-bit picture, stretching the levels to 0 to 255.

    Raises:
        ValueError: if values are out of range, since they would wrap around.
    """
    if x.numel() and not (int(x.min()) >= 0 and int(x.max()) < levels):
        raise ValueError(f"an image with values from {int(x.min())} to {int(x.max())}: use integers in [0, {levels})")
    stretched = (x.cpu().long() * 255 + (levels - 1) // 2) // (levels - 1)
    pixels = stretched.byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
