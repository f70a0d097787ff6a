"""Shards of images, parquet or tar files on this machine or on the hub, which are read one at a time and in order.

The reading itself is that of `datasets.IterableDataset`. The tar files are WebDatasets: the files of a sample follow
each other and have a common name, such as `0001.png` and `0001.json`. Only the pictures are used.
"""

__all__ = ["Shards", "open_shards"]

import glob
import logging
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelcnn.common.progress import counting_bar
from pixelcnn.common.text import first_line
from pixelcnn.data.decode import Crop
from pixelcnn.data.folders import OTHER, TAR, find_files, find_parts, is_table, part_of, settle
from pixelcnn.data.rows import IMAGE_COLUMNS
from pixelcnn.data.sources import HUB, HUB_ID, reach_hub, unfetched

if TYPE_CHECKING:
    from datasets import DatasetBuilder, IterableDataset

    Streams = Mapping[str, IterableDataset]

KINDS = ("parquet", "webdataset")  # as `datasets` calls them
_BLOCK = 512  # bytes: a tar file consists of such blocks, and ends with two of zeros
_ON_HUB = re.compile(r"hf://datasets/[^/]+/[^/@]+(@[^/]+)?/")
_BACK = "put the whole file back, or begin anew without it"


@dataclass(frozen=True)
class Shards:
    """The shards of one part of a source.

    Args:
        stream: the data set of all of them.
        columns: the columns that may hold the picture of a row.
        names: the path of each shard, from the folder that holds all of them.
        sizes: bytes of each shard.
    """

    stream: "IterableDataset"
    columns: Sequence[str]
    names: Sequence[str]
    sizes: Sequence[int]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, shard: int, row: int, number: int) -> Iterator[list[dict[str, Any]]]:
        """Read a shard from a row on, in lists of `number` records of `bytes` and `path`; the last one may be shorter.

        Raises:
            ValueError: if the shard is missing, damaged, or holds no rows at all.
        """
        from datasets import Image

        name = self.names[shard]
        try:
            rows = self.stream.shard(num_shards=len(self), index=shard).select_columns([*self.columns])
            for column in self.columns:
                rows = rows.cast_column(column, Image(decode=False))
            for batch in (rows.skip(row) if row else rows).iter(number):
                found = [next(filter(None, each), None) for each in zip(*(batch[c] for c in self.columns), strict=True)]
                yield [_record(name, row + i, each) for i, each in enumerate(found)]
                row += len(found)
        except Exception as error:  # damaged files raise many kinds
            raise ValueError(f"shard {name!r} cannot be read ({first_line(error)}): {_BACK}") from error
        if row == 0:
            raise ValueError(f"shard {name!r} holds no images: remove it, and begin anew without it")


def _record(shard: str, row: int, image: Mapping[str, Any] | None) -> dict[str, Any]:
    """Make a record whose path, which is only a name, says where it is from."""
    image = image or {}
    return {"bytes": image.get("bytes"), "path": f"{shard}/{image.get('path') or f'row {row}'}"}


def open_shards(source: str, *, progress: bool) -> dict[str, Shards]:
    """Open the shards of every part of a source, without reading any image.

    Args:
        source: a folder of parquet or tar files at any depth, one such file, a pattern such as `shards/*.tar`, or a
            hub id `owner/name`.
        progress: show a progress bar if checking the files takes longer than two seconds.

    Raises:
        UnfetchedError: a ValueError, if the hub cannot be reached, or has no such data set.
        ValueError: if there are no shards, or one of them is damaged.
    """
    # It logs what it then raises.
    logging.getLogger("datasets.packaged_modules.parquet.parquet").setLevel(logging.CRITICAL)
    path = Path(source).expanduser()
    if source not in HUB and (path.exists() or glob.has_magic(source)):
        return _open_files(source, path, progress)
    if source in HUB or HUB_ID.fullmatch(source):
        return _open_hub(source, *HUB.get(source, (source, None)))
    raise ValueError(f"source={source!r}: no such file or folder, use a path, a pattern in quotes, or owner/name")


def _open_files(source: str, path: Path, progress: bool) -> dict[str, Shards]:
    from datasets import load_dataset_builder

    if path.is_dir():
        found = [file for file in find_files(path).visible if is_table(file) or file.suffix.lower() == TAR]
        parts = find_parts(path, found)[0] if found else {}
    else:
        found = sorted(Path(file) for file in glob.glob(str(path), recursive=True)) if not path.exists() else [path]
        parts, path = {"train": found}, Path(os.path.commonpath([file.parent for file in found] or ["."]))
    kinds = {"parquet" if is_table(file) else "webdataset" for file in found}
    if not found or not all(is_table(file) or file.suffix.lower() == TAR for file in found):
        what = "there are none" if not found else f"{str(found[0])!r} is neither"
        raise ValueError(f"source={source!r}: --stream reads .parquet and .tar files, and {what}; name some")
    if len(kinds) > 1:
        raise ValueError(f"source={source!r} holds parquet and tar files: name the files of one kind, as in '*.tar'")
    column: set[str] = set()
    with counting_bar("checking shards", len(found), visible=progress) as count:
        for file in found:
            column |= {_check_table(file)} if is_table(file) else _check_tar(file)
            count(1)
    if len(column) > 1:
        raise ValueError(f"source={source!r}: its files have the columns {sorted(column)}; name those with one of them")
    files = {part: [glob.escape(str(each.absolute())) for each in chosen] for part, chosen in parts.items()}
    options = {"columns": [*column]} if column else {}
    try:
        builder = load_dataset_builder(*kinds, data_files=files, **options)
        return _open_parts(source, builder, path.absolute())
    except (IndexError, OSError, KeyError) as error:
        raise ValueError(f"source={source!r} cannot be read ({first_line(error)}): check the files") from error


def _check_table(file: Path) -> str:
    """Check the end of a parquet file, which says what is in it, and return its column of images."""
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_metadata(file)
    except Exception as error:  # these share no base class
        raise ValueError(f"shard {str(file)!r} cannot be read ({first_line(error)}): {_BACK}") from error
    names = metadata.schema.to_arrow_schema().names
    if not metadata.num_rows:
        raise ValueError(f"shard {str(file)!r} holds no images: remove it")
    column = next((name for name in IMAGE_COLUMNS if name in names), None)
    if column is None:
        raise ValueError(f"shard {str(file)!r} has columns {names}: rename one of them to 'image'")
    return column


def _check_tar(file: Path) -> set[str]:
    """Check both ends of a tar file: a file that was cut short lacks the zeros at its end."""
    try:
        with file.open("rb") as opened:
            first = opened.read(_BLOCK)
            opened.seek(max(0, os.fstat(opened.fileno()).st_size - 2 * _BLOCK))
            last = opened.read()
        if any(first):
            tarfile.TarInfo.frombuf(first, "utf-8", "replace")
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"shard {str(file)!r} cannot be read ({first_line(error)}): {_BACK}") from error
    if len(last) < 2 * _BLOCK or any(last):
        raise ValueError(f"shard {str(file)!r} is cut short: {_BACK}")
    if not any(first):
        raise ValueError(f"shard {str(file)!r} holds no images: remove it")
    return set()


def _open_hub(source: str, hub_id: str, crop: Crop | None) -> dict[str, Shards]:
    from datasets import load_dataset_builder

    try:
        reach_hub(hub_id)
        builder = load_dataset_builder(hub_id)
        if builder.name in KINDS:
            return _open_parts(source, builder, None)
    except ValueError:
        raise
    except Exception as error:  # no network, no such data set: no common base class
        raise unfetched(hub_id, crop, error) from error
    raise ValueError(f"source={source!r} consists of no parquet or tar files: leave out --stream")


def _open_parts(source: str, builder: "DatasetBuilder", folder: Path | None) -> dict[str, Shards]:
    """Stream the parts of a data set; parts of the hub get the usual names, and the first of a name counts."""
    from datasets import Image

    found: dict[str, Shards] = {}
    streams: Any = builder.as_streaming_dataset()
    for split, stream in streams.items():
        images = [name for name, feature in stream.features.items() if isinstance(feature, Image)]
        usual = [name for name in IMAGE_COLUMNS if name in stream.column_names]
        columns = images if builder.name == "webdataset" else usual[:1]
        if not columns:
            raise ValueError(f"source={source!r} has no column of images, only {stream.column_names}: use another one")
        files = [str(file) for file in (builder.config.data_files or {})[split]]
        shards = Shards(stream, columns, [_name(file, folder) for file in files], [_bytes(file) for file in files])
        if stream.num_shards != len(files):
            raise ValueError(
                f"source={source!r} has {len(files)} files in {stream.num_shards} parts: leave out --stream"
            )
        part = str(split) if folder else part_of(str(split), whole=True) or OTHER
        found.setdefault(part, shards)
    return settle(found)


def _name(file: str, folder: Path | None) -> str:
    return _ON_HUB.sub("", file) if folder is None else Path(file).relative_to(folder).as_posix()


def _bytes(file: str) -> int:
    import fsspec

    files, path = fsspec.url_to_fs(file)
    return int(files.size(path))
