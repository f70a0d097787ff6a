"""Pixels of a drawing as they appear: groups of pixels, put together into a frame thirty times a second."""

__all__ = ["Viewer", "describe_views"]

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelcnn.apps.studio.line import Job
from pixelcnn.models.base import ChainModel
from pixelcnn.traversal.schedule import groups, visiting_times, wavefront_lag


def describe_views(model: ChainModel, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Describe the views of an image (H, W) for the page, the image first."""
    shapes = zip(model.sizes(size), model.formats, strict=True)
    return [{"height": H, "width": W, "channels": C, "levels": levels} for (H, W), (C, levels) in shapes]


class Viewer:
    """A callback for `DrawOptions` that sends new pixels to the page, as positions and values.

    Args:
        job: the job that draws, which this also stops.
        model: that draws.
        sizes: (H, W) of every view, the image first.
        images: number of images that the page sees. The canvas may hold several candidates of each, one after another,
            of which the first is sent.
        consistent: whether it draws within the bounds of the next view.
    """

    def __init__(
        self, job: Job, model: ChainModel, sizes: list[tuple[int, int]], images: int, *, consistent: bool
    ) -> None:
        self.job, self.model, self.sizes, self.images, self.consistent = job, model, sizes, images, consistent
        self.k, self.order, self.ends, self.step, self.sent = -1, np.zeros(0), [0], 0, 0

    def __call__(self, k: int, canvas: Tensor) -> None:
        self.job.check()
        if k != self.k:
            self._begin(k)
        self.step += 1
        if self.step == len(self.ends) or self.job.due():
            self._send(k, canvas)

    def _begin(self, k: int) -> None:
        """Find out in which order the pixels of a view appear."""
        size = self.sizes[k]
        lag = wavefront_lag(self.model.factors[k].lag(consistent=self.consistent), size[1])
        self.order = visiting_times(size, lag).argsort(stable=True).numpy().astype("<u4")
        self.ends = np.cumsum([group.number for group in groups(size, lag)]).tolist()
        self.k, self.step, self.sent = k, 0, 0

    def _send(self, k: int, canvas: Tensor) -> None:
        """Send the pixels of the groups that were not sent yet."""
        places, self.sent = self.order[self.sent : self.ends[self.step - 1]], self.ends[self.step - 1]
        shown = canvas[:: len(canvas) // self.images].flatten(2)
        values = shown[:, :, torch.from_numpy(places.astype(np.int64)).to(canvas.device)]
        payload = places.tobytes() + values.byte().cpu().numpy().tobytes()
        self.job.send("pixels", payload, k=k, count=len(places))
