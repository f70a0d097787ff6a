"""Coding views with the factors of a model: encoding in one forward pass, decoding in a traversal.

Both see the same parameters to the last bit, since the factors are in exact arithmetic. The stream of a view holds its
pixels in the order of the traversal: group by group, in each group channel by channel, of each channel first the
buckets of all pixels and then the levels in their buckets (see `pixelcnn.codec.frequencies`).
"""

__all__ = ["ViewCoder"]

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pixelcnn.auxiliary.cells import Filling, whole_box
from pixelcnn.auxiliary.chain import Link
from pixelcnn.codec.decoder import by_pixel, open_decoder
from pixelcnn.codec.frequencies import Coded, Masses, bucket_width, encode_channel
from pixelcnn.codec.stream import Reader, Writer
from pixelcnn.common.devices import computing, device_of
from pixelcnn.common.memory import check_sampling_memory
from pixelcnn.likelihoods.base import Bounds
from pixelcnn.models.draw import canvas_type
from pixelcnn.models.exact import exact_twin
from pixelcnn.models.factor import Factor, Visit
from pixelcnn.models.margins import Stretch
from pixelcnn.models.tiles import Tiling, tile_params
from pixelcnn.nn.layers import evaluating
from pixelcnn.traversal.loop import Watch
from pixelcnn.traversal.schedule import visiting_times, wavefront_lag

CHUNK = 2**16  # pixels whose frequencies are computed, and whose outcomes are sorted, at once
STEPS = 2  # in which a channel is coded
PATIENCE = 0.1  # seconds between two signs of life
FEWER = "compress fewer pictures at once, or smaller ones"
CPU = torch.device("cpu")
BOX_BYTES = 100  # of a sub-pixel, for its bounds and temporary copies


class _Part(NamedTuple):
    """A part of some views: which images, and a tile of each."""

    images: slice
    row: Stretch
    col: Stretch


class ViewCoder:
    """A coder of one view of a chain, given the next one.

    Args:
        factor: of the view.
        consistent: whether to rule out values that contradict the given view.

    Raises:
        ValueError: if the factor cannot be put into exact arithmetic.
    """

    def __init__(self, factor: Factor, *, consistent: bool) -> None:
        self.factor, self.consistent = exact_twin(factor), consistent
        self.likelihood, self.device = factor.likelihood, device_of(self.factor)
        self.width = bucket_width(self.likelihood.levels)
        Masses.of(self.likelihood, np.zeros((1, self.likelihood.num_params)))  # raises for an unknown likelihood

    def lag(self, width: int) -> int | None:
        """Return the lag of the groups in the stream of a view of this width; None for raster order."""
        return wavefront_lag(self.factor.lag(consistent=self.consistent), width)

    def start(
        self, pool: Executor, threads: int, link: Link, labels: Tensor | None, tiling: Tiling
    ) -> "list[tuple[_Part, Future[Coded]]]":
        """Start to compute what the coder needs to write views (B, C, H, W), part by part.

        The parts are independent, so each is computed by one thread. Several threads in one operation would wait for
        each other thousands of times, which takes long on a busy machine.

        Args:
            pool, threads: a pool of so many threads.
            link: the views and what they are given.
            labels: (B,) class labels, for a factor with classes.
            tiling: the tiles of the views, which only decide how much memory this takes.
        """
        images = min(tiling.images, -(-len(link.view) // threads))
        starts = range(0, len(link.view), images)
        parts = [_Part(slice(i, i + images), row, col) for i in starts for row in tiling.rows for col in tiling.cols]
        return [(part, pool.submit(self._encode_part, link, labels, part)) for part in parts]

    def finish(
        self,
        writers: Sequence[Writer],
        link: Link,
        started: "list[tuple[_Part, Future[Coded]]]",
        progress: Callable[[int], None],
    ) -> None:
        """Write views to streams, one for each image, when their parts are there.

        Args:
            writers: of the streams.
            link, started: of `start`. What has been started is dropped when it is there, to save memory.
            progress: called with the number of pixels that are done.
        """
        B, C, H, W = link.view.shape
        below, frequency = (np.empty((B, H, W, STEPS * C), np.uint32) for _ in range(2))
        while started:
            (images, row, col), future = started.pop(0)
            while not wait([future], PATIENCE).done:
                progress(0)  # which may stop this
            for whole, each in zip((below, frequency), future.result(), strict=True):
                part = whole[images, row.core, col.core]
                part[:] = each.reshape(part.shape)
            progress(math.prod(part.shape[:3]))
        times = visiting_times((H, W), self.lag(W), CPU).numpy()
        order = times.argsort(kind="stable")
        times = times[order]
        # Slices of whole groups, since all buckets of a group come before its levels.
        cuts = np.unique([0, *np.searchsorted(times, times[CHUNK::CHUNK]), H * W])
        for writer, *coded in zip(writers, below, frequency, strict=True):
            for start, end in pairwise(cuts.tolist()):
                pixels = order[start:end]
                keys = times[start:end, None] * (STEPS * C) + np.arange(STEPS * C)
                sort = keys.ravel().argsort(kind="stable")
                writer.write(Coded(*(each.reshape(H * W, -1)[pixels].ravel()[sort] for each in coded)))

    def _encode_part(self, link: Link, labels: Tensor | None, part: "_Part") -> Coded:
        """Compute what the coder needs for the pixels of a part: (N, STEPS * C)."""
        images, row, col = part
        some = Link(link.view[images], None if link.given is None else link.given[images])
        with evaluating(), computing(self.factor, 1, FEWER):  # on one thread
            params, cells = tile_params(self.factor, some, None if labels is None else labels[images], row, col)
            x = some.view[:, :, row.core, col.core]
            return self._encode_pixels(params, x, self._bounds(x, cells))

    def _bounds(self, x: Tensor, given: Tensor | None) -> Bounds:
        constraint, levels = self.factor.constraint(consistent=self.consistent), self.likelihood.levels
        if constraint is None or given is None:
            return whole_box(x.shape, levels, x.device)
        return constraint.bounds(x, given, levels)

    def _encode_pixels(self, params: Tensor, x: Tensor, bounds: Bounds) -> Coded:
        """Compute what the coder needs for pixels: (N, STEPS * C)."""
        params_, values, lowest, highest = (by_pixel(each) for each in (params, x.to(torch.int64), *bounds))
        parts = []
        for start in range(0, len(values), CHUNK):
            part = slice(start, start + CHUNK)
            masses = Masses.of(self.likelihood, params_[part])
            steps = [
                step
                for c in range(self.likelihood.channels)
                for step in encode_channel(masses, values[part, c], lowest[part, c], highest[part, c], self.width)
            ]
            parts.append([np.stack(each, 1).astype(np.uint32) for each in zip(*steps, strict=True)])
        return Coded(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    def decode(
        self,
        readers: Sequence[Reader],
        size: tuple[int, int],
        given: Tensor | None,
        labels: Tensor | None,
        progress: Callable[[int], None],
    ) -> Tensor:
        """Read views (B, C, H, W), each from a stream of its own.

        Args:
            readers: of the streams.
            size: (H, W) of the views.
            given: the next views, (B, C', H', W'); None for the simplest view.
            labels: (B,) class labels, for a factor with classes.
            progress: called with the number of pixels that were decoded.

        Raises:
            DamagedError: if a stream cannot come from `encode`.
            MemoryError: if the cached activations need more memory than is free.
        """
        B, C, levels = len(readers), self.likelihood.channels, self.likelihood.levels
        check_sampling_memory(BOX_BYTES * B * C * math.prod(size), self.device)  # before anything is allocated
        canvas = torch.zeros(B, C, *size, dtype=canvas_type(levels), device=self.device)
        constraint = self.factor.constraint(consistent=self.consistent)
        filling = Filling(whole_box(canvas.shape, levels, self.device), constraint, given, levels)
        with evaluating():
            offset = self.factor.offset(size, given)  # which the decoder adds, instead of the traversal
        watch = Watch(advance=lambda pixels: progress(B * pixels))
        visit = Visit(consistent=self.consistent, watch=watch, offset=False)
        return self.factor.traverse(
            canvas, open_decoder(self.likelihood, filling, readers, offset), given, labels, visit
        )
