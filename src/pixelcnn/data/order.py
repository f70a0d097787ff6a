"""The order in which training sees images.

`shuffled[position]`, flip and crop included, depends on the seed and the position alone. So a run resumes exactly from
its step, whatever the number of processes.

A stream has no positions to go to. There, a `Position` says where to read on; each process reads its own shards, and
the order is fixed by the seed, the epoch, and the number of processes.
"""

__all__ = ["Position", "Shuffled", "ShuffledStream", "shuffle"]

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count, islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pixelcnn.data.images import Images
from pixelcnn.data.streams import StreamedImages

_BLOCK_IMAGES, _BLOCK_BYTES = 1024, 2**27  # of a stream: whichever is reached first


class _Changes:
    """The random changes of an image before a step, fixed by seed and position: a flip, and the place of a crop."""

    def __init__(self, size: tuple[int, int], *, seed: int, flip: bool, random_crop: int | None) -> None:
        if seed < 0:
            raise ValueError(f"seed={seed!r}: use a whole number, at least 0")
        if random_crop is not None and not 1 <= random_crop <= min(size):
            raise ValueError(f"random_crop={random_crop!r}: use 1 to {min(size)}, the images' short side")
        self.size, self.seed, self.flip, self.random_crop = size, seed, flip, random_crop

    def __call__(self, x: Tensor, position: int) -> Tensor:
        chance = np.random.default_rng((self.seed, 1, position))
        if self.flip and chance.random() < 0.5:
            x = x.flip(-1)
        if self.random_crop is not None:
            H, W = self.size
            top, left = chance.integers((H - self.random_crop + 1, W - self.random_crop + 1))
            x = x[:, top : top + self.random_crop, left : left + self.random_crop].contiguous()
        return x


class Shuffled(Dataset[tuple[Tensor, int]]):
    """An endless sequence of shuffled images: `shuffled[position]` is a uint8 image (C, H, W) and its label, or -1.

    With N images, positions 0 to N - 1 are the first epoch, the next N the second, and so on; each epoch visits every
    image once. Use it with a `DataLoader(batch_sampler=lists_of_positions)`.

    Args:
        images: the images to visit.
        seed: whole number, at least 0.
        flip: mirror a random half of the images.
        random_crop: side of a square to cut out at a random place, in pixels.
    """

    def __init__(self, images: Images, *, seed: int, flip: bool, random_crop: int | None) -> None:
        self.images, self._seed = images, seed
        self._change = _Changes(images.size, seed=seed, flip=flip, random_crop=random_crop)
        self._epoch, self._order = -1, np.empty(0, np.int64)

    @property
    def shown(self) -> Images:
        """The images to show if none are held out."""
        return self.images

    def first(self, number: int) -> list[tuple[Tensor, int]]:
        """Return the first images and labels."""
        return [self[position] for position in range(number)]

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        epoch, place = divmod(position, len(self.images))
        if epoch != self._epoch:
            self._order = np.random.default_rng((self._seed, 0, epoch)).permutation(len(self.images))
            self._epoch = epoch
        index = int(self._order[place])
        x = self._change(self.images[index], position)
        return x, -1 if self.images.labels is None else self.images.labels[index]


class Position(NamedTuple):
    """A place in the stream of one process, from which it goes on exactly.

    Args:
        epoch: epochs that this process has finished.
        shard, row: where the block at hand begins: shards that this process has finished in this epoch, and a row.
        before: images given before that block.
        within: images given of it.
    """

    epoch: int = 0
    shard: int = 0
    row: int = 0
    before: int = 0
    within: int = 0


class ShuffledStream:
    """An endless sequence of the images of a stream, shuffled.

    In every epoch, the shards are shuffled and dealt to the processes. Each reads its own, one after another, and puts
    the images of each block of about a thousand into random order. So a position takes five numbers, and going on from
    it reads one block again. A process whose shards hold fewer images begins its next epoch sooner.

    Args:
        images, seed, flip, random_crop: as for `Shuffled`.
    """

    def __init__(self, images: StreamedImages, *, seed: int, flip: bool, random_crop: int | None) -> None:
        self.images, self._seed = images, seed
        self._change = _Changes(images.size, seed=seed, flip=flip, random_crop=random_crop)
        H, W = images.size
        self._most = max(1, min(_BLOCK_IMAGES, _BLOCK_BYTES // (H * W * images.channels)))

    @property
    def shown(self) -> Images:
        """The images to show if none are held out."""
        return self.images.held_out

    def first(self, number: int) -> list[tuple[Tensor, int]]:
        """Return the first images that a single process would see, and -1 for their labels."""
        return [(x, -1) for x, _ in islice(self.visit(), number)]

    def visit(
        self, position: Position | None = None, *, rank: int = 0, ranks: int = 1, least: int = 1, threads: int = 0
    ) -> Iterator[tuple[Tensor, Position]]:
        """Iterate without end over images (C, H, W), each with the position after it.

        Args:
            position: where to go on; None to begin.
            rank, ranks: this process among those that share the shards.
            least: images that an epoch of this process needs to have.
            threads: threads that read and decode ahead; 0 to do it in between.

        Raises:
            ValueError: if there are fewer shards than processes, an epoch has too few images, or reading fails.
        """
        if ranks > len(self.images.shards):
            raise ValueError(
                f"{self.images.name!r} has {len(self.images.shards)} shards for {ranks} processes, each of which reads "
                "its own: use fewer processes, or more and smaller shards"
            )
        position = position or Position()
        with ExitStack() as held:
            pool = held.enter_context(ThreadPoolExecutor(threads)) if threads > 1 else None
            blocks = self._blocks(position, rank, ranks, least, pool)
            for begin, block in _ahead(blocks) if threads else blocks:
                order = np.random.default_rng((self._seed, 2, begin.before * ranks + rank)).permutation(len(block))
                start = position.within if begin == position._replace(within=0) else 0
                for i in range(start, len(block)):
                    x = torch.from_numpy(block[order[i]]).permute(2, 0, 1).contiguous()
                    x = self._change(x, (begin.before + i) * ranks + rank)
                    yield x, begin._replace(within=i + 1)

    def _blocks(
        self, at: Position, rank: int, ranks: int, least: int, pool: Executor | None
    ) -> Iterator[tuple[Position, list[np.ndarray]]]:
        """Read block after block, each with the position where it begins; a block ends with its epoch."""
        begin = at._replace(within=0)
        for epoch in count(at.epoch):
            order = np.random.default_rng((self._seed, 0, epoch)).permutation(len(self.images.shards))[rank::ranks]
            block, seen, whole = [], 0, begin.shard == begin.row == 0
            for place in range(begin.shard, len(order)):
                start = begin.row if place == begin.shard else 0
                for row, pixels in self.images.read(int(order[place]), start, pool):
                    block += pixels
                    seen += len(pixels)
                    if len(block) >= self._most:
                        yield begin, block
                        begin, block = Position(epoch, place, row, begin.before + len(block)), []
            if whole and seen < least:
                named = self.images.shards.names[order[0]]
                raise ValueError(
                    f"the shards of process {rank} ({named!r} and so on) hold {seen} images to train on, and its share "
                    f"of a batch is {least}: add images, or use a smaller --batch-size"
                )
            if block:
                yield begin, block
            begin = Position(epoch + 1, 0, 0, begin.before + len(block))


def _ahead(blocks: Iterator[tuple[Position, list[np.ndarray]]]) -> Iterator[tuple[Position, list[np.ndarray]]]:
    """Read the next block of endlessly many in a thread, while the one before is used."""
    reader = ThreadPoolExecutor(1)
    try:
        coming = reader.submit(next, blocks)
        while True:
            block = coming.result()
            coming = reader.submit(next, blocks)
            yield block
    finally:
        reader.shutdown(wait=False, cancel_futures=True)


def shuffle(
    images: Images | StreamedImages, *, seed: int, flip: bool, random_crop: int | None
) -> Shuffled | ShuffledStream:
    """Put images in the order of training, see `Shuffled` and `ShuffledStream`."""
    if isinstance(images, StreamedImages):
        return ShuffledStream(images, seed=seed, flip=flip, random_crop=random_crop)
    return Shuffled(images, seed=seed, flip=flip, random_crop=random_crop)
