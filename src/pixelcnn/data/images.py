"""Images from anywhere as uint8 tensors of one size.

`load_images` opens a source and looks at every image once, so that a bad image is reported before training, not in the
middle of it. Every image goes through the same steps: convert to color or gray (dropping any alpha channel), cut off a
fixed border, cut out the center square, and reduce it to the requested size by averaging areas.

A source can have the usual parts: train, test, validation. Without a test or validation part, 5 % of the images are
held out, each by the hash of its own content (see `pixelcnn.data.sources`).
"""

__all__ = [
    "SPLITS",
    "ImageSource",
    "Images",
    "JoinedImages",
    "PictureSequence",
    "as_images",
    "load_images",
    "load_unseen",
    "preparation",
]

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pixelcnn.data.decode import BrokenImageError, Crop, Preparation
from pixelcnn.data.fingerprints import changed_since, fingerprint, joined_fingerprint
from pixelcnn.data.rows import for_each, name_of, pairs, to_record, without_labels
from pixelcnn.data.sources import HUB, Selection, Source, is_same_source, open_given, open_source

if TYPE_CHECKING:
    from datasets import Dataset as Rows

SPLITS = ("train", "test", "validation", "all")
_KEPT_BYTES = 2**28  # decoded images up to this size stay in memory, since decoding them again slows every step


class PictureSequence(Protocol):
    """Anything with a length whose items are images: a list, a batch of arrays or tensors, a `datasets.Dataset`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


ImageSource = str | Path | PictureSequence
"""A name or a path, a sequence of pictures, or a `datasets.Dataset`, see `load_images`."""


class Images(Dataset[Tensor]):
    """Images of one size, made by `load_images`: `images[i]` is uint8 (C, H, W).

    Small sets stay decoded in memory; large ones are decoded each time.

    Attributes:
        name: the source.
        size: (H, W) of every image.
        channels: 1 or 3.
        labels: the class of each image, or None if the source has no labels.
        skipped: number of files left out because they cannot be decoded.
        part: which images of the source these are, in words: "its part train".
        notes: sentences on what was found in the source but is not among these images.
        fingerprint: the number of `images`, and a `blake2b` hash of their contents and preparation.

    Example:
        >>> import pixelcnn
        >>> photos = pixelcnn.load_images("photos", "test", size=8)
        >>> len(photos), photos.size, photos[0].dtype
        (41, (8, 8), torch.uint8)
        >>> photos.batch([0, 5, 7]).shape
        torch.Size([3, 3, 8, 8])
    """

    def __init__(
        self,
        name: str,
        selection: Selection,
        prepare: Preparation,
        good: list[int],
        *,
        size: tuple[int, int],
        pixels: np.ndarray | None = None,
    ) -> None:
        rows = selection.rows.select(good)
        self.name, self.size, self.channels = name, size, prepare.channels
        self.skipped = len(selection.rows) - len(rows)
        labels = list(rows["label"]) if "label" in rows.column_names else []
        self.labels = labels if labels and None not in labels else None
        self.part, self.notes = selection.part, [*selection.notes]
        self.fingerprint = fingerprint(selection.hashes, prepare)
        self._rows, self._prepare, self._pixels = without_labels(rows), prepare, pixels

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.batch([index])[0]

    def batch(self, indices: Iterable[int]) -> Tensor:
        """Stack the images at these indices: uint8 (B, C, H, W)."""
        indices = [int(index) for index in indices]
        if self._pixels is not None:
            pixels = self._pixels[indices]
        else:
            records = [to_record(*pair) for pair in pairs(self._rows[indices])]
            pixels = np.stack([self._prepare(*pair) for pair in zip(records, indices, strict=True)])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


class JoinedImages(Images):
    """Several sets of images, one after another, as a single set without labels.

    Raises:
        ValueError: if they differ in size or channels.
    """

    def __init__(self, parts: Sequence[Images]) -> None:
        formats = [(part.name, part.channels, *part.size) for part in parts]
        if len({each[1:] for each in formats}) != 1:
            raise ValueError(
                f"sets of images (name, channels, height, width) {formats}: use at least one, and load all with the "
                "same size and channels"
            )
        self.name, self.parts, self.labels = " + ".join(part.name for part in parts), parts, None
        self.size, self.channels = parts[0].size, parts[0].channels
        self.skipped = sum(part.skipped for part in parts)
        self.part = " + ".join(part.part for part in parts)
        self.notes = [note for part in parts for note in part.notes]
        self.fingerprint = joined_fingerprint([part.fingerprint for part in parts])
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def batch(self, indices: Iterable[int]) -> Tensor:
        """Stack the images at these indices: uint8 (B, C, H, W)."""
        found = []
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"index {index} of {len(self)} images")
            part = int(np.searchsorted(self._starts, index, "right")) - 1
            found.append(self.parts[part][int(index - self._starts[part])])
        return torch.stack(found)


def preparation(source: object, size: int | None, crop: Crop | None, channels: int) -> Preparation:
    """Choose the steps from a stored image to its pixels; a source that has a name has a crop of its own."""
    if crop is None and isinstance(source, str) and source in HUB:
        crop = HUB[source][1]
    return Preparation(channels, crop, size)


def _check(
    rows: "Rows", prepare: Preparation, skip_broken: bool, progress: bool
) -> tuple[list[int], tuple[int, int], np.ndarray | None]:
    """Prepare every image once; return the indices of the good ones, their (H, W), and their pixels if few."""

    def check(index: int, image: Any, file: Any) -> tuple[int, tuple[int, int], np.ndarray | None] | None:
        try:
            pixels = prepare(to_record(image, file), index)
        except BrokenImageError:
            if not skip_broken:
                raise
            return None
        few = len(rows) * pixels.nbytes <= _KEPT_BYTES
        return index, pixels.shape[:2], pixels if few else None

    found = [each for each in for_each(rows, check, "checking images", progress) if each is not None]
    if not found:
        raise ValueError(f"none of {len(rows)} files can be read as an image: use another source")
    first, size, _ = found[0]
    for index, (H, W), _ in found:
        if size != (H, W):
            name, other = (name_of(rows, i) for i in (first, index))
            sizes = f"{name!r} is {size[1]}x{size[0]}, {other!r} is {W}x{H}"
            raise ValueError(f"images of different sizes, {sizes}: make them the same with size=N (--size N)")
    kept = [pixels for _, _, pixels in found if pixels is not None]
    return [index for index, _, _ in found], size, np.stack(kept) if len(kept) == len(found) else None


def load_images(
    source: ImageSource,
    split: str = "train",
    *,
    size: int | None = None,
    crop: Crop | None = None,
    channels: int = 3,
    skip_broken: bool = False,
    progress: bool = False,
) -> Images:
    """Open a source and check every image of one split.

    Args:
        source: `photos` (shipped), `cifar10` or `celeba` (downloaded from the Hugging Face hub), a single image or
            parquet file, a folder of these at any depth, or a hub id `owner/name`. The three names take precedence
            over folders of the same name: write `./photos` for the folder. Or images that you have: a sequence of
            pictures in any form that `pixelcnn.data.given` lists, or of pairs of a picture and its label; a
            `datasets.Dataset` with a column `image`; or a dictionary of data sets by part.
        split: `train`, `test`, `validation` or `all`. Parts are recognized by the usual names, such as `train`, `Test`
            or `val`, among the subfolders of a folder, parquet files, and the splits of a hub data set. If there is no
            `test` part, `validation` is used to test. Without either, 5 % of the images are held out, each by the hash
            of its own content. `all` is everything.
        size: side in pixels: cut out the center square and average its areas. Images are never enlarged.
        crop: pixels to cut off first: left, right, top, bottom. The default for `celeba` is the crop of the paper.
        channels: 3 for color, 1 for gray (luma, the weighted brightness of ITU-R 601).
        skip_broken: leave out and count files that cannot be decoded, instead of stopping at the first.
        progress: show a progress bar on stderr if the check takes longer than two seconds.

    Raises:
        NothingHeldOutError: a ValueError, if there are so few images that the split is empty.
        ValueError: if anything is wrong with an argument, the source or an image; the message says what to do.

    Example:
        >>> import pixelcnn
        >>> photos = pixelcnn.load_images("photos", "test", size=16, channels=1)
        >>> len(photos), photos[0].shape
        (41, torch.Size([1, 16, 16]))
        >>> pictures = pixelcnn.to_pil(photos.batch(range(3)))
        >>> pixelcnn.load_images(pictures, "all", size=8).size
        (8, 8)
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: use one of {', '.join(map(repr, SPLITS))}")
    if isinstance(source, Path):
        source = str(source.absolute())  # a Path is never one of the names
    prepare = preparation(source, size, crop, channels)
    opened = open_source(source) if isinstance(source, str) else open_given(source)
    return _load(opened, split, prepare, skip_broken, progress)


def as_images(images: Images | ImageSource, split: str, channels: int) -> Images:
    """Load images that are not loaded yet: those of a split if the source has parts or a name, and else all."""
    if isinstance(images, Images):
        return images
    return load_images(images, split if isinstance(images, str | Path | Mapping) else "all", channels=channels)


def load_unseen(
    source: str | Path,
    trained: Mapping[str, Any],
    *,
    size: int | None = None,
    crop: Crop | None = None,
    channels: int = 3,
    skip_broken: bool = False,
    progress: bool = False,
) -> Images:
    """Open a source and check the images in it that a model was not trained on.

    These are its test part, if it has one. Otherwise they are the images that were held out if the model was trained
    on this source, and all images if it was not. If the source has changed since training, the `notes` say so.

    Args:
        source, size, crop, channels, skip_broken, progress: as for `load_images`.
        trained: `source`, `size`, `crop` and `fingerprint` of the training data, as far as known.

    Raises:
        NothingHeldOutError, ValueError: as `load_images` does.
    """
    source = source if isinstance(source, str) else str(source.absolute())
    prepare = preparation(source, size, crop, channels)
    opened = open_source(source)
    known, seen = trained.get("fingerprint"), is_same_source(source, trained.get("source"))
    notes = []
    if known and "images" in known and (seen or opened.held_out is None):
        then = preparation(trained["source"], trained.get("size"), trained.get("crop"), channels)
        now = fingerprint(opened.training_hashes(progress), then)
        if seen and (changed := changed_since(known, now)):
            notes.append(changed)
        seen = seen or now["blake2b"] == known["blake2b"]
    elif seen and trained.get("source") and not known and opened.held_out is None:
        notes.append("it is not recorded which of these images the model was trained on, so it may have seen some")
    images = _load(opened, "test" if opened.held_out or seen else "all", prepare, skip_broken, progress)
    images.notes += notes
    return images


def _load(source: Source, split: str, prepare: Preparation, skip_broken: bool, progress: bool) -> Images:
    selection = source.select(split, progress)
    good, size, pixels = _check(selection.rows, prepare, skip_broken, progress)
    return Images(source.name, selection, prepare, good, size=size, pixels=pixels)
