"""The order in which training sees images.

`shuffled[position]`, flip and crop included, depends on the seed and the position alone. So a run resumes exactly from
its step, whatever the number of processes.
"""

__all__ = ["Shuffled"]

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from pixelcnn.data.images import Images


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
        if seed < 0:
            raise ValueError(f"seed={seed!r}: use a whole number, at least 0")
        if random_crop is not None and not 1 <= random_crop <= min(images.size):
            raise ValueError(f"random_crop={random_crop!r}: use 1 to {min(images.size)}, the images' short side")
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
