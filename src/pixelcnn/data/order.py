"""The order in which training sees images."""

__all__ = ["Shuffled"]

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from pixelcnn.data.images import Images


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
