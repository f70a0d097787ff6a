"""Images from anywhere as uint8 tensors of one size, and the endless order in which training reads them.

`load_images` opens a source and looks at every image once, so that a bad one is named before training and not
in the middle of it. Every image goes through the same steps: to colour or grey (an alpha channel is dropped),
cut off a fixed border, cut out the centre square, average its areas down to the size.

A source has parts: those to train on, to test with and to validate with, by the usual names. Of a source without a part
to hold out, an image is held out by its own content: where the first 64 bits of the BLAKE2b hash of its encoded bytes,
as a number below 1, are below 0.05. So images that are added or removed move no other, and copies stay together.

`Shuffled` is the order of training: `shuffled[position]`, flip and crop included, depends on the seed and the
position alone. So a run resumes exactly from its step, whatever the number of processes.
"""

__all__ = ["SPLITS", "Images", "JoinedImages", "load_images", "load_unseen"]

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pixelcnn.data.decode import BrokenImageError, Crop, Preparation
from pixelcnn.data.fingerprints import changed_since, fingerprint, joined_fingerprint
from pixelcnn.data.rows import for_each, name_of, pairs, to_record, without_labels
from pixelcnn.data.sources import HUB, Selection, Source, is_same_source, open_source

if TYPE_CHECKING:
    from datasets import Dataset as Rows

SPLITS = ("train", "test", "validation", "all")
_KEPT_BYTES = 2**28  # of decoded images that are kept in memory: decoding them again takes a share of every step


class Images(Dataset[Tensor]):
    """Images of one size: `images[i]` is uint8 (C, H, W). Made by `load_images`; if they are many, decoded each time.

    Attributes:
        name: the source.
        size: (H, W) of every image.
        channels: 1 or 3.
        labels: the class of each image, or None where the source has none.
        skipped: number of files left out because they cannot be decoded.
        part: which images of the source these are, in words: "its part train".
        notes: sentences on what was found in the source and is not among these images.
        fingerprint: the number of `images`, and a `blake2b` hash of their contents and preparation.
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
        """The images at these indices: uint8 (B, C, H, W)."""
        indices = [int(index) for index in indices]
        if self._pixels is not None:
            pixels = self._pixels[indices]
        else:
            records = [to_record(*pair) for pair in pairs(self._rows[indices])]
            pixels = np.stack([self._prepare(*pair) for pair in zip(records, indices, strict=True)])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


class JoinedImages(Images):
    """Several sets of images of the same size and channels as one, in their order. It has no labels.

    Raises:
        ValueError: where they differ in size or channels.
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
        """The images at these indices: uint8 (B, C, H, W)."""
        found = []
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"index {index} of {len(self)} images")
            part = int(np.searchsorted(self._starts, index, "right")) - 1
            found.append(self.parts[part][int(index - self._starts[part])])
        return torch.stack(found)


def _preparation(source: str, size: int | None, crop: Crop | None, channels: int) -> Preparation:
    if crop is None and source in HUB:
        crop = HUB[source][1]
    return Preparation(channels, crop, size)


def _check(
    rows: "Rows", prepare: Preparation, skip_broken: bool, progress: bool
) -> tuple[list[int], tuple[int, int], np.ndarray | None]:
    """Prepare every image once: the indices of those that can be decoded, their (H, W), and them if they are few."""

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
            sizes = f"{name!r} gives {size[1]}x{size[0]}, {other!r} {W}x{H}"
            raise ValueError(f"images of different sizes, {sizes}: make them alike with --size")
    kept = [pixels for _, _, pixels in found if pixels is not None]
    return [index for index, _, _ in found], size, np.stack(kept) if len(kept) == len(found) else None


def load_images(
    source: str | Path,
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
        source: `photos` (shipped), `cifar10` or `celeba` (fetched from the Hugging Face hub), a folder of
            images and parquet files of any nesting, such a file, or a hub id `owner/name`. The three names win over
            folders of that name: write `./photos` for the folder.
        split: `train`, `test`, `validation` or `all`. Parts have the usual names, such as `train`, `Test` or `val`:
            of the sub-folders of a folder, of parquet files, of a data set of the hub. To test is the part `test`,
            or `validation` where that is missing. Without either, 5 % are held out, each image by its own content;
            `all` is everything.
        size: side in pixels: cut out the centre square and average its areas. Images are never enlarged.
        crop: pixels to cut off first: left, right, top, bottom. `celeba` has the paper's unless one is given.
        channels: 3 for colour, 1 for grey (ITU-R 601 luma).
        skip_broken: leave out files that cannot be decoded, and count them, instead of stopping at the first.
        progress: show a progress bar on stderr where the check takes longer than two seconds.

    Raises:
        NothingHeldOutError: a ValueError, where there are so few images that the split has none.
        ValueError: whatever is wrong with an argument, the source or an image, with the remedy.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: use one of {', '.join(map(repr, SPLITS))}")
    source = source if isinstance(source, str) else str(source.absolute())  # never one of the names
    prepare = _preparation(source, size, crop, channels)
    return _load(open_source(source), split, prepare, skip_broken, progress)


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
    """Open a source and check those of its images that a model was not trained on.

    These are its part to test with; without one, the images that were held out if the model was trained on this source,
    and else all of it. That the source is another now than it was in training is among the `notes` of the result.

    Args:
        source, size, crop, channels, skip_broken, progress: as for `load_images`.
        trained: `source`, `size`, `crop` and `fingerprint` of what the model was trained on, as far as known.

    Raises:
        NothingHeldOutError, ValueError: as `load_images` does.
    """
    source = source if isinstance(source, str) else str(source.absolute())
    prepare = _preparation(source, size, crop, channels)
    opened = open_source(source)
    known, seen = trained.get("fingerprint"), is_same_source(source, trained.get("source"))
    notes = []
    if known and (seen or opened.held_out is None):
        then = _preparation(trained["source"], trained.get("size"), trained.get("crop"), channels)
        now = fingerprint(opened.training_hashes(progress), then)
        if seen and (changed := changed_since(known, now)):
            notes.append(changed)
        seen = seen or now["blake2b"] == known["blake2b"]
    elif seen and trained.get("source") and opened.held_out is None:
        notes.append("nothing says which of these images the model was trained on, so it may have seen some")
    images = _load(opened, "test" if opened.held_out or seen else "all", prepare, skip_broken, progress)
    images.notes += notes
    return images


def _load(source: Source, split: str, prepare: Preparation, skip_broken: bool, progress: bool) -> Images:
    selection = source.select(split, progress)
    good, size, pixels = _check(selection.rows, prepare, skip_broken, progress)
    return Images(source.name, selection, prepare, good, size=size, pixels=pixels)
