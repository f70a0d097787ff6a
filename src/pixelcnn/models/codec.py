"""A codec: a model in exact arithmetic, which turns pictures into files, and files into pictures.

A picture (`.pxc`) holds the streams of its views, the simplest first, so that a part of it shows a smaller or a gray
picture. An archive (`.pxa`) holds many pictures, each as one stream. See `docs/format.md`.
"""

__all__ = ["AT_ONCE", "Codec", "Count", "uncounted"]

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from pixelcnn.codec.archive import Entry, check_names, write_archive
from pixelcnn.codec.chunks import DamagedError
from pixelcnn.codec.container import MODEL, MOST_PIXELS, TABLES, Coding, File, Shape, pixel_checksum, write_file
from pixelcnn.codec.stream import Reader, Writer
from pixelcnn.data.given import PICTURE_LEVELS
from pixelcnn.data.originals import Original
from pixelcnn.models.base import ChainModel, LabelsLike
from pixelcnn.models.coding import ViewCoder
from pixelcnn.models.exact import model_hash
from pixelcnn.models.restored import Restored, finish, packed_pixels, preview, unpack_png
from pixelcnn.models.tiles import plan
from pixelcnn.nn.tables import TABLES_HASH

MOST_LEVELS = 2**16  # as many as a header can say
AT_ONCE = 2**18  # pixels of pictures of one size that are coded at once
PART = 2**15  # pixels of a view, about, that a thread encodes before it says that they are done
Count = Callable[[int], None]
"""A function that is called with the number of pixels of any view that have been coded."""


def uncounted(pixels: int) -> None:
    """Count nothing."""


class Codec:
    """A model in exact arithmetic, which codes pictures.

    Making one takes a moment, so make one for many pictures. It copies the weights: a model may be trained further.

    Args:
        model: any model whose likelihoods are `LogisticMixture` or `Categorical`.
        name: of the model, which is written to files as a hint.
        consistent: whether the model is used consistently; None for its own setting.

    Raises:
        ValueError: if the weights of a layer are too large for exact arithmetic, or a likelihood has no frequencies.

    Example:
        >>> import pixelcnn
        >>> from PIL import Image
        >>> from pixelcnn.models.codec import Codec
        >>> codec = Codec(pixelcnn.load("photos-pyramid"))
        >>> x = torch.randint(0, 256, (2, 3, 6, 5), dtype=torch.uint8)
        >>> streams = codec.encode(x)
        >>> [len(views) for views in streams]
        [3, 3]
        >>> torch.equal(codec.decode(streams, (6, 5)), x)
        True
        >>> codec.decode(streams, (6, 5), view=1).shape
        torch.Size([2, 3, 3, 3])
    """

    def __init__(self, model: ChainModel, name: str = "", *, consistent: bool | None = None) -> None:
        self.chain, self.check_labels = model.config.chain, model.check_labels
        self.channels = model.config.chain.formats[0][0]
        self.consistent = model.consistent if consistent is None else consistent
        if model.levels > MOST_LEVELS:
            raise ValueError(f"levels={model.levels}: images of at most {MOST_LEVELS} levels can be compressed")
        self.coding = Coding(
            bytes.fromhex(TABLES_HASH)[:TABLES], model_hash(model)[:MODEL], name, self.consistent, model.levels
        )
        self.coders = []
        for k, factor in enumerate(model.factors):
            try:
                self.coders.append(ViewCoder(factor, consistent=self.consistent))
            except ValueError as error:
                raise ValueError(f"factor {k}: {error}") from None
        self.device = self.coders[0].device

    def encode(
        self, x: Tensor, labels: Tensor | None = None, *, joint: bool = False, count: Count = uncounted
    ) -> list[list[bytes]]:
        """Encode images of one size in one forward pass of each factor.

        Args:
            x: integers (B, C, H, W).
            labels: (B,) class labels, for a model with classes.
            joint: whether all views of an image share a stream.
            count: called with the number of pixels of any view that are done.

        Returns:
            For each image the streams of its views, the simplest first, or one stream.

        Raises:
            ValueError: if the images or the labels do not fit the model.
            MemoryError: if not even a small tile of one image fits in memory.
        """
        links, sizes = self.chain.links(x, self.device), self.chain.sizes((x.shape[2], x.shape[3]))
        factors = [coder.factor for coder in self.coders]
        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        tilings = plan(
            factors, len(x), sizes, consistent=self.consistent, at_once=threads, most=PART * min(threads, len(x))
        )
        labels = None if labels is None else labels.to(self.device)
        writers = [[Writer()] for _ in x]
        pool = ThreadPoolExecutor(threads)
        try:
            jobs = [
                (coder, link, coder.start(pool, threads, link, labels, tiling))
                for coder, link, tiling in zip(self.coders, links, tilings, strict=True)
            ]
            for coder, link, started in reversed(jobs):
                coder.finish([each[-1] for each in writers], link, started, count)
                if not joint and coder is not self.coders[0]:
                    for each in writers:
                        each.append(Writer())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # if it was stopped, what has begun may take seconds
        return [[writer.to_bytes() for writer in each] for each in writers]

    def decode(
        self,
        streams: Sequence[Sequence[bytes]],
        size: tuple[int, int],
        labels: Tensor | None = None,
        *,
        view: int = 0,
        count: Count = uncounted,
    ) -> Tensor:
        """Decode images of one size.

        Args:
            streams: of each image, as `encode` returns them.
            size: (H, W) of the images.
            labels: (B,) class labels, for a model with classes.
            view: the view to stop at: 0 for the images, K for the simplest view.
            count: called with the number of pixels of any view that are done.

        Returns:
            The view, integers (B, C, H, W).

        Raises:
            DamagedError: if a stream cannot come from `encode`.
            MemoryError: if the cached activations need more memory than is free.
        """
        readers, sizes = [[Reader(stream) for stream in each] for each in streams], self.chain.sizes(size)
        labels, given = None if labels is None else labels.to(self.device), None
        for k in range(len(self.coders) - 1, view - 1, -1):
            number = len(self.coders) - 1 - k
            mine = [each[min(number, len(each) - 1)] for each in readers]
            given = self.coders[k].decode(mine, sizes[k], given, labels, count)
        assert given is not None  # there is at least one factor
        return given

    def pixels(self, originals: Sequence[Original]) -> int:
        """Return the number of pixels of all views of pictures, which `count` is told of."""
        return sum(self.chain.pixels((each.x.shape[1], each.x.shape[2])) for each in originals)

    def compress(
        self, originals: Sequence[Original], labels: LabelsLike | None = None, *, count: Count = uncounted
    ) -> list[bytes]:
        """Compress pictures, each to a file of its own."""
        return [write_file(file) for file in self._files(originals, labels, joint=False, count=count)]

    def archive(
        self,
        originals: Sequence[Original],
        names: Sequence[str],
        labels: LabelsLike | None = None,
        *,
        count: Count = uncounted,
    ) -> bytes:
        """Compress pictures to one archive, with a name for each: a relative path with slashes."""
        if len(names) != len(originals):
            raise ValueError(f"{len(names)} names for {len(originals)} pictures: give one for each")
        check_names(names)
        entries, contents = [], []
        for name, file in zip(names, self._files(originals, labels, joint=True, count=count), strict=True):
            whole = file.png is not None or not originals[len(entries)].plain
            content = write_file(file) if whole else file.views[0]
            entries.append(Entry(name, whole, file.shape, len(content)))
            contents.append(content)
        return write_archive(self.coding, entries, contents)

    def _files(
        self, originals: Sequence[Original], labels: LabelsLike | None, *, joint: bool, count: Count
    ) -> list[File]:
        """Compress pictures; with `joint`, those that have nothing but pixels get one stream for all views."""
        for i, original in enumerate(originals):
            _, H, W = original.x.shape
            if H * W > MOST_PIXELS:
                raise ValueError(f"picture {i} is {W}x{H}: use pictures of at most {MOST_PIXELS:,} pixels")
            if original.x.shape[0] > self.channels:
                raise ValueError(f"picture {i} is in color, and the model is of gray: use a model of color")
        taken = self.check_labels(labels, len(originals))
        files: dict[int, File] = {}
        for places in _batches([(*each.x.shape[1:], each.x.shape[0], each.plain) for each in originals]):
            x = torch.stack([originals[i].x for i in places]).expand(-1, self.channels, -1, -1)
            some = None if taken is None else taken[places]
            together = joint and originals[places[0]].plain
            for i, streams in zip(places, self.encode(x, some, joint=together, count=count), strict=True):
                files[i] = self._file(originals[i], streams, None if taken is None else int(taken[i]), joint=together)
        return [files[i] for i in range(len(originals))]

    def _file(self, original: Original, streams: list[bytes], label: int | None, *, joint: bool) -> File:
        """Put the streams of a picture into a file, or PNG if that is smaller."""
        C, H, W = original.x.shape
        shape = Shape(C, H, W, label, pixel_checksum(packed_pixels(original.x, self.coding.levels)))
        extras = original.alpha, original.profile, original.exif
        file = File(self.coding, shape, len(streams), streams, None, *extras)
        if self.coding.levels == PICTURE_LEVELS:
            other = File(self.coding, shape, 0, [], Original(original.x).to_png(), *extras)
            if len(write_file(other)) < (len(streams[0]) if joint else len(write_file(file))):
                return other
        return file

    def restore(
        self, files: Sequence[File], view: int | None = 0, *, count: Count = uncounted
    ) -> list[Restored | DamagedError]:
        """Restore pictures that this model compressed, those of one size together.

        Args:
            files: the pictures. One that was cut off gives its last whole view, one that is damaged gives an error.
            view: the view to stop at: 0 for whole pictures, K or None for the simplest view.
            count: called with the number of pixels of any view that are done.

        Raises:
            ValueError: if there is no such view.
        """
        view = len(self.coders) - 1 if view is None else view
        if not 0 <= view < len(self.coders):
            raise ValueError(f"view={view!r}: this model has the views 0 to {len(self.coders) - 1}")
        found = {i: error for i, file in enumerate(files) if (error := self._misfit(file))}
        fitting = [i for i in range(len(files)) if i not in found]
        kinds = [
            (file.shape.height, file.shape.width, file.png is None, file.joint, max(view, file.missing))
            for file in map(files.__getitem__, fitting)
        ]
        results: dict[int, Restored | DamagedError] = {**found}
        for batch in _batches(kinds):
            places = [fitting[i] for i in batch]
            restored = self._restore_alike([files[i] for i in places], kinds[batch[0]][-1], count)
            results |= zip(places, restored, strict=True)
        return [results[i] for i in range(len(files))]

    def _misfit(self, file: File) -> DamagedError | None:
        if file.shape.channels > self.channels:
            return DamagedError("it claims to be in color, and its model is of gray")
        if file.png is None and file.number != (1 if file.joint else len(self.coders)):
            return DamagedError(f"it claims {file.number} views, and its model has {len(self.coders)}")
        return None

    def _restore_alike(self, files: list[File], view: int, count: Count) -> list[Restored | DamagedError]:
        if files[0].png is not None:
            return [self._reduce(file, unpack_png(file), view) for file in files]
        if view and files[0].joint:  # only the whole picture has a checksum
            return [self._reduce(*each, view) for each in zip(files, self._restore_alike(files, 0, count), strict=True)]
        labels = [file.shape.label for file in files if file.shape.label is not None]
        try:
            taken = self.check_labels(labels or None, len(files))
            size = files[0].shape.height, files[0].shape.width
            images = self.decode([file.views for file in files], size, taken, view=view, count=count)
        except ValueError as error:  # a damaged stream, or a label that the model does not have, of any of them
            if len(files) == 1:
                return [DamagedError(str(error))]
            half = len(files) // 2
            return [each for some in (files[:half], files[half:]) for each in self._restore_alike(some, view, count)]
        if view == 0:
            return [finish(file, x, self.coding.levels) for file, x in zip(files, images, strict=True)]
        return [preview(file, x, view, self.chain) for file, x in zip(files, images, strict=True)]

    def _reduce(self, file: File, whole: Restored | DamagedError, view: int) -> Restored | DamagedError:
        """Make a view of a picture from the picture."""
        if view == 0 or isinstance(whole, DamagedError):
            return whole
        x = whole.original.x[None].expand(-1, self.channels, -1, -1)
        return preview(file, self.chain.views(x)[view][0], view, self.chain)


def _batches(kinds: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Group things of equal kinds, whose first two numbers are a height and a width; yield their places."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for i, kind in enumerate(kinds):
        alike.setdefault(tuple(kind), []).append(i)
    for (H, W, *_), places in alike.items():
        number = max(1, AT_ONCE // (H * W))
        for start in range(0, len(places), number):
            yield places[start : start + number]
