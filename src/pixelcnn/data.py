"""Images from anywhere as uint8 tensors of one size, and the endless order in which training reads them.

`load_images` opens a source and looks at every image once, so that a bad one is named before training and not
in the middle of it. Every image goes through the same steps: to colour or grey (an alpha channel is dropped),
cut off a fixed border, cut out the centre square, average its areas down to the size.

`Shuffled` is the order of training: `shuffled[position]`, flip and crop included, depends on the seed and the
position alone. So a run resumes exactly from its step, whatever the number of processes.
"""

__all__ = [
    "TERMS",
    "Images",
    "JoinedImages",
    "Preparation",
    "Shuffled",
    "UnfetchedError",
    "load_images",
    "visible_files",
]

import difflib
import glob
import io
import re
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import Dataset

if TYPE_CHECKING:  # `datasets` takes a second to import: the functions that need it do so themselves
    from datasets import Dataset as Rows

Crop = tuple[int, int, int, int]

# Data sets of the Hugging Face hub with a name of their own here: hub id, and the crop where none is given.
_HUB: dict[str, tuple[str, Crop | None]] = {
    "cifar10": ("uoft-cs/cifar10", None),
    # The aligned faces, 178x218, all in one part. The crop is the paper's and leaves 128x128.
    "celeba": ("nielsr/CelebA-faces", (25, 25, 50, 40)),
}
# What one may do with the sources that have a name; models that are trained on them are for the same.
TERMS = {
    "photos": "CC BY-SA 4.0",
    "cifar10": "none stated: research",
    "celeba": "non-commercial research",
}
_IMAGE_COLUMNS = ("image", "img")
_PHOTOS = Path(__file__).parent / "photos"
_TEST_SHARE, _TEST_SEED = 0.05, 0
_KEPT_BYTES = 2**28  # of decoded images that are kept in memory: decoding them again takes a share of every step


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


class _BrokenImageError(ValueError):
    """A file that cannot be decoded: the only error that `skip_broken` forgives."""


class UnfetchedError(ValueError):
    """A data set of the hub that is not to be had here; its `options` are those of the command line once it is."""

    def __init__(self, message: str, options: str) -> None:
        super().__init__(message)
        self.options = options


@dataclass(frozen=True)
class Preparation:
    """The steps from a stored image, a record of `bytes` or `path`, to its pixels.

    Args:
        channels: 3 for colour, 1 for grey (ITU-R 601 luma); an alpha channel is dropped.
        crop: pixels to cut off first: left, right, top, bottom.
        size: side of the centre square that is cut out, its areas averaged; None for all that is left.
    """

    channels: int
    crop: Crop | None
    size: int | None

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"channels={self.channels!r}: use 1 (grey) or 3 (red, green, blue)")
        if self.crop is not None and (len(self.crop) != 4 or min(self.crop) < 0):
            raise ValueError(f"crop={self.crop!r}: --crop takes left right top bottom, each at least 0")
        if self.size is not None and self.size < 1:
            raise ValueError(f"size={self.size!r}: --size must be at least 1")

    def __call__(self, record: dict[str, Any], index: int) -> np.ndarray:
        """Decode, convert, crop and resize: uint8 (H, W, C). The index names an image without a file name."""
        content, path = record["bytes"], record["path"]
        name = f"image {path!r}" if path else f"image number {index}"
        try:
            with Image.open(path if content is None else io.BytesIO(content)) as file:
                # This reads the pixels, and turns a camera's picture upright, as `datasets` does.
                image = ImageOps.exif_transpose(file)
        except Exception as error:  # Pillow's decoders raise a dozen kinds
            reason = "no image" if isinstance(error, UnidentifiedImageError) else _first_line(error)
            raise _BrokenImageError(f"{name} cannot be read ({reason}): remove it or use --skip-broken") from error
        if image.mode.startswith(("I", "F", "LAB")):
            raise ValueError(f"{name} has pixels of mode {image.mode}: convert it to 8-bit colour or grey")
        if image.has_transparency_data:
            image = image.convert("RGBA")  # straight to RGB, Pillow warns about transparent palettes
        image = self._frame(image.convert("L" if self.channels == 1 else "RGB"), name)
        return np.asarray(image).reshape(image.height, image.width, self.channels)

    def _frame(self, image: Image.Image, name: str) -> Image.Image:
        left, right, top, bottom = self.crop or (0, 0, 0, 0)
        W, H = image.width - left - right, image.height - top - bottom
        if min(W, H) < 1:
            size, crop = f"{image.width}x{image.height}", f"--crop {left} {right} {top} {bottom}"
            raise ValueError(f"{name} is {size}, too small for {crop}: use a smaller crop")
        if self.size is None:
            return image.crop((left, top, left + W, top + H))
        side = min(W, H)
        if side < self.size:
            raise ValueError(f"{name} gives {W}x{H}, too small for --size {self.size}: use {side} or less")
        left, top = left + (W - side) // 2, top + (H - side) // 2
        square = (left, top, left + side, top + side)
        return image.resize((self.size, self.size), Image.Resampling.BOX, square)


class Images(Dataset[Tensor]):
    """Images of one size: `images[i]` is uint8 (C, H, W). Made by `load_images`; if they are many, decoded each time.

    Attributes:
        name: the source.
        size: (H, W) of every image.
        channels: 1 or 3.
        labels: the class of each image, or None where the source has none.
        skipped: number of files left out because they cannot be decoded.
    """

    def __init__(
        self,
        name: str,
        rows: "Rows",
        prepare: Preparation,
        *,
        size: tuple[int, int],
        skipped: int,
        pixels: np.ndarray | None = None,
    ) -> None:
        self.name, self.size, self.channels, self.skipped = name, size, prepare.channels, skipped
        labels = list(rows["label"]) if "label" in rows.column_names else []
        self.labels = labels if labels and all(isinstance(label, int) for label in labels) else None
        self._rows, self._prepare, self._pixels = rows.select_columns("image"), prepare, pixels

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
            records = self._rows[indices]["image"]
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


class Shuffled(Dataset[tuple[Tensor, int]]):
    """The order of training, without end: `shuffled[position]` is uint8 (C, H, W) and its label, -1 for none.

    An epoch is N positions from a multiple of N on, and visits each of the N images once. For use with a
    `DataLoader(batch_sampler=lists_of_positions)`.

    Args:
        images: what to visit.
        seed: whole number of at least 0.
        flip: mirror half of the images, at random.
        random_crop: side of a square to cut out at a random place, in pixels.
    """

    def __init__(self, images: Images, *, seed: int, flip: bool, random_crop: int | None) -> None:
        if seed < 0:
            raise ValueError(f"seed={seed!r}: use a whole number of at least 0")
        if random_crop is not None and not 1 <= random_crop <= min(images.size):
            raise ValueError(f"random_crop={random_crop!r}: use 1 to {min(images.size)}, the images' side")
        self.images, self.seed, self.flip, self.random_crop = images, seed, flip, random_crop
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        epoch, place = divmod(position, len(self.images))
        if epoch != self._epoch:
            self._order = np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.images))
            self._epoch = epoch
        index = int(self._order[place])
        x = self.images[index]
        chance = np.random.default_rng((self.seed, 1, position))
        if self.flip and chance.random() < 0.5:
            x = x.flip(-1)
        if self.random_crop is not None:
            H, W = self.images.size
            top, left = chance.integers((H - self.random_crop + 1, W - self.random_crop + 1))
            x = x[:, top : top + self.random_crop, left : left + self.random_crop].contiguous()
        return x, -1 if self.images.labels is None else self.images.labels[index]


def visible_files(folder: Path, pattern: str) -> list[Path]:
    """Files that match, hidden ones aside, in an order that is the same on every machine."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.glob(pattern) if path.is_file()}
    return [files[name] for name in sorted(files) if not re.search(r"(^|/)\.", name)]


def _find_files(path: Path) -> dict[str, list[Path]]:
    """The files of each part, `train` or `test`, of a local source: parquet files or images."""
    if path.is_file():
        if path.suffix != ".parquet":
            raise ValueError(f"source={str(path)!r} is no parquet file: use the folder that holds the images")
        return {"train": [path]}
    parquet = {part: visible_files(path, f"**/{part}*.parquet") for part in ("train", "test")}
    if any(parquet.values()):
        return {part: files for part, files in parquet.items() if files}
    folders = {part: visible_files(path, f"{part}/**/*") for part in ("train", "test")}
    if all(folders.values()):
        return folders
    files = visible_files(path, "**/*")
    if not files:
        raise ValueError(f"source={str(path)!r} is an empty folder: put images into it or use another one")
    return {"train": files}


def _read_files(files: list[Path]) -> "Rows":
    from datasets import Dataset, load_dataset

    if files[0].suffix != ".parquet":
        return Dataset.from_dict({"image": [str(file) for file in files]})
    names = [str(file.absolute()) for file in files]
    try:
        return load_dataset("parquet", data_files=[glob.escape(name) for name in names], split="train")
    except Exception as error:  # a bad file, an unreadable one, a full disk: no common base
        reason = _first_line(error.__cause__ or error)
        raise ValueError(f"{names[0]!r} cannot be read as parquet ({reason}): check the file") from error


def _fetch(hub_id: str, crop: Crop | None = None) -> dict[str, "Rows"]:
    """Every part of a data set of the Hugging Face hub."""
    from datasets import load_dataset
    from huggingface_hub import HfApi, constants

    try:
        if not constants.HF_HUB_OFFLINE:
            # Fails at once where there is no network: `load_dataset` would retry for half a minute.
            HfApi().dataset_info(hub_id, timeout=5)
        return {str(part): rows for part, rows in load_dataset(hub_id).items()}
    except Exception as error:  # no network, no such data set, a full disk: no common base either
        reason = f"{hub_id!r}: no folder here, and not given by the Hugging Face hub ({_first_line(error)})"
        options = "--data FOLDER" + (f" --crop {' '.join(map(str, crop))}" if crop else "")
        remedy = f"run 'hf download {hub_id} --repo-type dataset --local-dir FOLDER' where there is a network"
        raise UnfetchedError(f"{reason}: {remedy}, and use {options}", options) from error


def _open_parts(source: str) -> dict[str, "Rows"]:
    """Every part of a source, undecoded."""
    if source in _HUB:
        return _fetch(*_HUB[source])
    path = _PHOTOS if source == "photos" else Path(source).expanduser()
    if path.exists():
        return {part: _read_files(files) for part, files in _find_files(path).items()}
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", source):
        return _fetch(source)
    names = ["photos", *_HUB]
    nearest = difflib.get_close_matches(source, names, n=1)
    remedy = f"did you mean {nearest[0]!r}?" if nearest else f"use a path, owner/name or one of {names}"
    raise ValueError(f"source={source!r}: no such file or folder, {remedy}")


def _select_columns(rows: "Rows", source: str) -> "Rows":
    """The columns `image`, undecoded, and `label`, where there is one."""
    from datasets import Image as ImageColumn

    column = next((name for name in _IMAGE_COLUMNS if name in rows.column_names), None)
    if column is None:
        raise ValueError(f"source={source!r} has columns {rows.column_names}: rename one of them to 'image'")
    try:
        rows = rows.rename_columns({column: "image"}).cast_column("image", ImageColumn(decode=False))
    except (RuntimeError, TypeError, ValueError) as error:
        reason = f"column {column!r} holds no images ({_first_line(error)})"
        raise ValueError(f"source={source!r}: {reason}, use another file") from error
    return rows.select_columns([name for name in ("image", "label") if name in rows.column_names])


def _hold_out(count: int, split: str) -> list[int]:
    """Indices of the train or the test images of a source without a test part: the same on every call."""
    if count < 2:
        raise ValueError(f"split={split!r}: the only image cannot be split, add images or use split 'all'")
    order = np.random.default_rng(_TEST_SEED).permutation(count)
    tests = max(1, round(_TEST_SHARE * count))
    return sorted((order[:tests] if split == "test" else order[tests:]).tolist())


def _open_split(source: str, split: str) -> "Rows":
    from datasets import concatenate_datasets

    parts = _open_parts(source)
    if split == "all" or "test" not in parts:
        rows = concatenate_datasets([_select_columns(rows, source) for rows in parts.values()])
        return rows if split == "all" else rows.select(_hold_out(len(rows), split))
    if split not in parts:
        raise ValueError(f"split={split!r}: source={source!r} has only a test part, use 'test' or 'all'")
    return _select_columns(parts[split], source)


def _check(
    rows: "Rows", prepare: Preparation, skip_broken: bool, progress: bool
) -> tuple[list[int], tuple[int, int], np.ndarray | None]:
    """Prepare every image once: the indices of those that can be decoded, their (H, W), and them if they are few."""

    def check_chunk(start: int) -> list[tuple[int, tuple[int, int], np.ndarray | None]]:
        found = []
        for index, record in enumerate(rows[start : start + 64]["image"], start):
            try:
                pixels = prepare(record, index)
                few = len(rows) * pixels.nbytes <= _KEPT_BYTES
                found.append((index, pixels.shape[:2], pixels if few else None))
            except _BrokenImageError:
                if not skip_broken:
                    raise
        return found

    found = []
    show_at = time.monotonic() + 2
    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task("checking images", total=len(rows))
    try:
        # Threads are enough: Pillow decodes without holding the interpreter's lock.
        with ThreadPoolExecutor() as pool:
            for chunk in pool.map(check_chunk, range(0, len(rows), 64)):
                found += chunk
                bar.advance(task, 64)
                if progress and time.monotonic() > show_at:
                    bar.start()
    finally:
        if bar.live.is_started:
            bar.stop()
    if not found:
        raise ValueError(f"none of {len(rows)} files can be read as an image: use another source")
    first, size, _ = found[0]
    for index, (H, W), _ in found:
        if size != (H, W):
            name, other = (rows[i]["image"]["path"] or f"number {i}" for i in (first, index))
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
            images of any nesting, a folder of `train*.parquet` and `test*.parquet`, a parquet file, or a hub
            id `owner/name`. The three names win over folders of that name: write `./photos` for the folder.
        split: `train`, `test` or `all`. Sub-folders `train` and `test`, where both hold files, are the splits
            of a folder. A source without a test part has 5 % held out, always the same; `all` is everything.
        size: side in pixels: cut out the centre square and average its areas. Images are never enlarged.
        crop: pixels to cut off first: left, right, top, bottom. `celeba` has the paper's unless one is given.
        channels: 3 for colour, 1 for grey (ITU-R 601 luma).
        skip_broken: leave out files that cannot be decoded, and count them, instead of stopping at the first.
        progress: show a progress bar on stderr where the check takes longer than two seconds.

    Raises:
        ValueError: whatever is wrong with an argument, the source or an image, with the remedy.
    """
    if split not in ("train", "test", "all"):
        raise ValueError(f"split={split!r}: use 'train', 'test' or 'all'")
    source = source if isinstance(source, str) else str(source.absolute())  # never one of the names
    if crop is None and source in _HUB:
        crop = _HUB[source][1]
    prepare = Preparation(channels, crop, size)
    rows = _open_split(source, split)
    good, common_size, pixels = _check(rows, prepare, skip_broken, progress)
    skipped = len(rows) - len(good)
    return Images(source, rows.select(good), prepare, size=common_size, skipped=skipped, pixels=pixels)
