"""Images that do not fit: read from shards while training goes on, and never all of them at once.

Nothing is known about the images of a stream until they come, so they have no labels, their number is unknown, and a
bad image is found when it is its turn. `pixelcnn.data.order.ShuffledStream` puts them in order.
"""

__all__ = ["StreamedImages", "stream_images"]

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from pixelcnn.common.progress import late_bar
from pixelcnn.data.decode import Crop, Preparation
from pixelcnn.data.fingerprints import hash_bytes, is_held_out, shards_fingerprint
from pixelcnn.data.folders import OTHER
from pixelcnn.data.images import Images, load_images, preparation
from pixelcnn.data.shards import Shards, open_shards

HELD_OUT = 8  # images: as many as a sheet of samples shows
_MOST_LOOKED_AT = 4096  # images, in search of the held-out ones
_AT_ONCE = 16  # rows, whose encoded pictures may be large
_MOST_NAMED = 10_000  # broken images


class StreamedImages:
    """Images of one size that are read from shards, made by `stream_images`.

    Attributes:
        name: the source.
        size: (H, W) of every image.
        channels: 1 or 3.
        labels: None, since labels are not read.
        part: which images of the source these are, in words.
        notes: sentences on what was found in the source but is not among these images.
        shards: the shards, see `pixelcnn.data.shards`.
        fingerprint: the number of `shards`, and a `blake2b` hash of their names, sizes, and preparation.
        held_out: a few images for sample sheets, which are not among these if any were found.
        broken: names of images that were left out so far, up to ten thousand.

    Example:
        >>> from datasets import Dataset
        >>> import pixelcnn
        >>> photos = pixelcnn.to_pil(pixelcnn.load_images("photos", size=8).batch(range(100)))
        >>> _ = Dataset.from_dict({"image": photos}).to_parquet("shards/0.parquet")
        >>> images = stream_images("shards", size=8)
        >>> row, pixels = next(images.read(0, 0))
        >>> row, pixels[0].shape
        (16, (8, 8, 3))
    """

    labels = None

    def __init__(
        self,
        name: str,
        shards: Shards,
        prepare: Preparation,
        size: tuple[int, int],
        held_out: Images,
        *,
        by_content: bool,
        skip_broken: bool,
    ) -> None:
        self.name, self.size, self.channels = name, size, prepare.channels
        self.shards, self.held_out, self.broken = shards, held_out, set[str]()
        self.part = "all but the 5 % held out by content hash" if by_content else "its part train"
        self.notes: list[str] = []
        self.fingerprint = shards_fingerprint(self.list_shards(), prepare)
        self._prepare, self._by_content, self._skip_broken = prepare, by_content, skip_broken

    @property
    def skipped(self) -> int:
        """The number of images that were left out so far."""
        return len(self.broken)

    def list_shards(self) -> dict[str, int]:
        """List the shards: their names, and their sizes in bytes."""
        return dict(zip(self.shards.names, self.shards.sizes, strict=True))

    def read(self, shard: int, row: int, pool: Executor | None = None) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Read a shard from a row on, a few rows at a time: the row after these, and their images (H, W, C).

        Raises:
            ValueError: if the shard is missing or damaged, or an image cannot be used and broken ones are not skipped.
        """
        at_once = max(1, min(_AT_ONCE, 2**27 // (self.size[0] * self.size[1] * self.channels)))
        for records in self.shards.read(shard, row, at_once):
            row += len(records)
            chosen = [each for each in records if not (self._by_content and _is_held_out(each))]
            prepared = (pool.map if pool else map)(self._try, chosen)
            yield row, [pixels for pixels in prepared if pixels is not None]

    def _try(self, record: Mapping[str, Any]) -> np.ndarray | None:
        """Prepare an image; None if it cannot be used and broken ones are skipped."""
        try:
            pixels = self._prepare(record, 0)
            if pixels.shape[:2] != self.size:
                sizes = " and not ".join(f"{W}x{H}" for H, W in (pixels.shape[:2], self.size))
                raise ValueError(f"image {record['path']!r} is {sizes} as the first one: use size=N (--size N)")
        except ValueError:
            if not self._skip_broken:
                raise
            if len(self.broken) < _MOST_NAMED:
                self.broken.add(record["path"])
            return None
        return pixels.copy()  # since that of Pillow cannot be written to


def _is_held_out(record: Mapping[str, Any]) -> bool:
    return is_held_out(hash_bytes(record["bytes"] or b""))


def stream_images(
    source: str | Path,
    *,
    size: int | None = None,
    crop: Crop | None = None,
    channels: int = 3,
    skip_broken: bool = False,
    progress: bool = False,
) -> StreamedImages:
    """Open a source whose images do not fit into memory, and look at the first few.

    The images to train on are its part `train`. If there is no test or validation part, 5 % of the images are held
    out, each by the hash of its own content, just as `load_images` does.

    Args:
        source: a folder of parquet files, or of WebDataset tar files, at any depth; one such file; a pattern, such as
            `shards/train-*.tar`; or a hub id `owner/name`, which is not downloaded as a whole.
        size, crop, channels: as for `load_images`. Without a size, all images need that of the first one.
        skip_broken: leave out and count images that cannot be decoded, or that are too small or of another size.
        progress: show a progress bar on stderr if this takes longer than two seconds.

    Raises:
        ValueError: if anything is wrong with an argument or the source, or a shard is damaged.

    Example:
        >>> from datasets import Dataset
        >>> import pixelcnn
        >>> photos = pixelcnn.to_pil(pixelcnn.load_images("photos", size=8).batch(range(100)))
        >>> _ = Dataset.from_dict({"image": photos}).to_parquet("shards/0.parquet")
        >>> images = stream_images("shards")
        >>> images.size, 0 < len(images.held_out) <= 8, images.fingerprint["shards"]
        ((8, 8), True, 1)
    """
    source = str(source)
    prepare = preparation(source, size, crop, channels)
    parts = open_shards(source, progress=progress)
    if "train" not in parts:
        raise ValueError(f"source={source!r} has only the parts {[*parts]}: add a part train")
    part = next((part for part in ("test", "validation") if part in parts), None)
    first = next(_usable(parts["train"], prepare, skip_broken), None)
    if first is None:
        raise ValueError(f"source={source!r}: none of its first images can be read, use another source")
    side = first[1]
    shown = []
    with late_bar("looking for held-out images", visible=progress) as show:
        for record, other in _usable(parts[part or "train"], prepare, skip_broken):
            if other == side and (part or _is_held_out(record)):
                shown.append(record)
                show(len(shown) / HELD_OUT)
            if len(shown) == HELD_OUT:
                break
    held_out = _as_images(source, shown or [first[0]], prepare)
    images = StreamedImages(
        source, parts["train"], prepare, side, held_out, by_content=part is None, skip_broken=skip_broken
    )
    if not shown:
        images.notes.append("found no images that are held out, so sheets show the first one to train on")
    if OTHER in parts:
        images.notes.append(f"{len(parts[OTHER])} shards belong to no part, and are not used")
    return images


def _usable(shards: Shards, prepare: Preparation, skip_broken: bool) -> Iterator[tuple[dict[str, Any], Any]]:
    """Go through the first few thousand images that can be used: their records, and their (H, W)."""
    looked = 0
    for shard in range(len(shards)):
        for records in shards.read(shard, 0, _AT_ONCE):
            for record in records:
                try:
                    pixels = prepare(record, 0)
                except ValueError:
                    if not skip_broken:
                        raise
                else:
                    yield record, pixels.shape[:2]
            looked += len(records)
            if looked >= _MOST_LOOKED_AT:
                return


def _as_images(name: str, records: list[dict[str, Any]], prepare: Preparation) -> Images:
    from datasets import Dataset

    rows = Dataset.from_list([{"image": record} for record in records])
    images = load_images(rows, "all", size=prepare.size, crop=prepare.crop, channels=prepare.channels)
    images.name = name
    return images
