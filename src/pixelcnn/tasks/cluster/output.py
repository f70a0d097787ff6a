"""The folder of results: files of rows, and a manifest that is written last.

    out/part-000000.parquet, ...     rows, in the order of the pictures
    out/_manifest.json               counts, sums, failures, and the hash of each file
    out/_unfinished.json             there instead of the manifest until all is done
    out/_working/part-000000.json    which process works on a file, and how many died of it

Programs that read a folder of parquet files leave out names that begin with an underscore, such as the last three.
Every file appears whole or not at all, and has the same bytes whoever writes it. So a file that is written twice,
because a worker was thought dead, is the same.
"""

__all__ = ["Marker", "Output", "part_name", "to_parquet", "write_part"]

import io
import os
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelcnn.common.files import read_json, write_atomically, write_json
from pixelcnn.tasks.results import check_out, is_file_name

if TYPE_CHECKING:
    import pyarrow

MANIFEST, UNFINISHED, WORKING = "_manifest.json", "_unfinished.json", "_working"
FORMAT = "pixelcnn batch 1"
PART = re.compile(r"part-\d{6,}\.parquet")


def part_name(part: int) -> str:
    return f"part-{part:06d}.parquet"


def to_parquet(rows: Sequence[Mapping[str, Any]], schema: "pyarrow.Schema") -> bytes:
    """Format rows as a parquet file, always with the same bytes."""
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    table = pyarrow.Table.from_pylist([dict(row) for row in rows], schema=schema)
    pyarrow.parquet.write_table(table, buffer, compression="zstd", row_group_size=max(1, len(rows)))
    return buffer.getvalue()


class Output:
    """A folder of results, as the process that asks for them sees it.

    Args:
        folder: the folder; it may not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def check(self, *, overwrite: bool) -> None:
        """Check that results can be written to the folder, before anything else is done.

        Raises:
            ValueError: if it holds something, unless `overwrite` and the results in it are ours.
        """
        name = f"--out {str(self.folder)!r}"
        if is_file_name(self.folder, ".parquet"):
            raise ValueError(f"{name}: name a folder, which gets several files")
        check_out(self.folder, overwrite, suffix=".parquet")
        if (there := self._parts()) and not self._is_ours():
            raise ValueError(f"{name} holds {there[0].name!r}, which another program made: name another folder")

    def begin(self) -> None:
        """Make the folder, remove earlier results, and say in it that these are not finished."""
        write_json(self.folder / UNFINISHED, {"format": FORMAT})
        (self.folder / MANIFEST).unlink(missing_ok=True)
        for file in self._parts():
            file.unlink()
        self._forget_workers()

    def _parts(self) -> list[Path]:
        return [each for each in self.folder.iterdir() if PART.fullmatch(each.name)] if self.folder.is_dir() else []

    def _is_ours(self) -> bool:
        for file in (self.folder / MANIFEST, self.folder / UNFINISHED):
            if file.is_file():
                with file.open("rb") as opened:  # a manifest may be long, and begins with its format
                    return FORMAT.encode() in opened.read(100)
        return False

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, once all files are there.

        Raises:
            ValueError: if a file is not, or has another size: then the workers wrote to another disk.
        """
        for part in manifest["files"]:
            file = self.folder / part["file"]
            if not file.is_file() or file.stat().st_size != part["bytes"]:
                raise ValueError(
                    f"{str(file)!r} was written by a worker and is not here: use a folder that all machines share"
                )
        write_json(self.folder / MANIFEST, {"format": FORMAT, **manifest})
        (self.folder / UNFINISHED).unlink(missing_ok=True)
        self._forget_workers()

    def _forget_workers(self) -> None:
        if (working := self.folder / WORKING).is_dir():
            for file in working.glob("part-*.json"):
                file.unlink(missing_ok=True)
            with suppress(OSError):  # something else is in it
                working.rmdir()


class Marker:
    """A note of which process works on a part, and on what: the next one learns from it what the last one died of.

    A worker that works on a part for the first time writes it once. If it dies, the next one is careful: it notes what
    it is about to do before it does it. So a picture that kills its worker is known by name after the second time.

    Args:
        folder: of the results.
        part: number of the part.
    """

    def __init__(self, folder: Path, part: int) -> None:
        self.file = (folder / WORKING / part_name(part)).with_suffix(".json")
        before: dict[str, Any] = {}
        with suppress(ValueError, OSError):
            before = read_json(self.file)
        self.careful = bool(before)
        self.deaths: dict[str, int] = dict(before.get("deaths", {}))
        if self.careful:
            at = str(before.get("at"))
            self.deaths[at] = self.deaths.get(at, 0) + 1
        self._write("start")

    def about_to(self, what: str) -> None:
        """Note what the worker does next, if one before it died."""
        if self.careful:
            self._write(what)

    def killed(self, what: str) -> int:
        """Return how many careful workers died while they did this."""
        return self.deaths.get(what, 0)

    def done(self) -> None:
        self.file.unlink(missing_ok=True)

    def _write(self, at: str) -> None:
        place = {"process": os.getpid(), "machine": socket.gethostname()}
        write_json(self.file, {**place, "at": at, "deaths": self.deaths})


def write_part(folder: Path, part: int, content: bytes) -> None:
    """Write a file of results in one step."""
    write_atomically(folder / part_name(part), content)
