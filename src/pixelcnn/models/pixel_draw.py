"""Drawing the pixels of a group: in one call of the compiled kernel where there is one, else by `Likelihood.sample`."""

__all__ = ["Canvas", "PixelDraw"]

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pixelcnn.auxiliary.cells import Filling
from pixelcnn.common.kernel import address_of, find_kernel
from pixelcnn.likelihoods.base import Likelihood, scale_levels
from pixelcnn.likelihoods.logistic import WIDE_LOG_SCALE, LogisticMixture, log_scale_limits
from pixelcnn.likelihoods.tabular import Categorical

WIDEST = 16  # as many floats are in a vector at most
MOST_LEVELS = 2**24  # that float32 tells apart


class Canvas(NamedTuple):
    """What is known of a canvas before its pixels are drawn."""

    noise: Tensor  # (B, num_noise, H, W), uniform in [0, 1)
    offset: Tensor | None = None  # of the means, (B, C, H, W), roughly in [0, levels); see `Factor.offset`
    filling: Filling | None = None  # the bounds; None if all levels are possible


class PixelDraw:
    """Draws the pixels of a canvas group by group, from parameters whose means are not shifted by the offset yet.

    The compiled kernel is for `LogisticMixture` and `Categorical` in float32 on the CPU. It gives the same as
    `Likelihood.sample` up to rounding.

    Args:
        likelihood: the distribution of a pixel.
        canvas: the noise, the offset and the bounds.
        scale_shift, map: as for `Likelihood.sample`.
        fill: whether to record the values in the filling, as bounds of later pixels need.

    Example:
        >>> import torch
        >>> from pixelcnn import LogisticMixture
        >>> from pixelcnn.models.pixel_draw import Canvas, PixelDraw
        >>> mixture = LogisticMixture(channels=1, levels=256, components=1)
        >>> draw = PixelDraw(mixture, Canvas(noise=torch.full((1, 2, 8, 8), 0.5)))
        >>> params = torch.tensor([0.0, 1 / 255, -2.0]).view(1, 3, 1)  # one logistic, with its mean at level 128
        >>> draw(params, rows=torch.tensor([0]), cols=torch.tensor([0]))
        tensor([[[128]]])
    """

    def __init__(
        self, likelihood: Likelihood, canvas: Canvas, *, scale_shift: float = 0.0, map: bool = False, fill: bool = True
    ) -> None:
        self.likelihood, self.canvas = likelihood, canvas
        self.scale_shift, self.map, self.fill = scale_shift, map, fill
        self.size, self.channels = (len(canvas.noise), likelihood.num_params), likelihood.channels
        self.kept: list[Any] = []  # everything that the kernel knows the address of
        self.function = None
        known = type(likelihood) is LogisticMixture or type(likelihood) is Categorical
        if known and _fits(canvas, likelihood) and (kernel := find_kernel()):
            self.function = kernel.function("draw", "ppippp", "i")
            self.address = self._address(torch.tensor(self._words(likelihood)))

    def __call__(self, params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        """Draw the pixels at rows (N,) and cols (N,), int64, from their parameters (B, P, N): int64 (B, C, N)."""
        number = len(rows)
        if self.function is None or params.dtype != torch.float32 or params.shape != (*self.size, number):
            return self._draw_plainly(self.shifted(params, rows, cols), rows, cols)
        params = params.permute(2, 0, 1).contiguous()  # as a cached network gives them anyway
        rows, cols = (each.to(torch.int64).contiguous() for each in (rows, cols))
        values = torch.empty((self.size[0], self.channels, number), dtype=torch.int64)
        self.function(self.address, params.data_ptr(), number, rows.data_ptr(), cols.data_ptr(), values.data_ptr())
        return values

    def compiled(self, dtype: torch.dtype, shape: tuple[int, int], most: int) -> tuple[int, int] | None:
        """Return the addresses of the function of the kernel and of its state; None if it has none for such parameters.

        It may draw many groups at once (see `pixelcnn.traversal.filler.CompiledFill`).
        """
        if self.function is None or dtype != torch.float32 or shape != self.size:
            return None
        return address_of(self.function), self.address

    def fail(self) -> None:
        """Draws of the kernel do not fail."""

    def shifted(self, params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        """Return the parameters with their means shifted by the offset, which are those of the pixels."""
        offset = self.canvas.offset
        return params if offset is None else self.likelihood.offset_means(params, offset[:, :, rows, cols])

    def _draw_plainly(self, params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        noise, _, filling = self.canvas
        noise, bounds = noise[:, :, rows, cols], filling and filling.next_bounds(rows, cols)
        values = self.likelihood.sample(params, noise, scale_shift=self.scale_shift, map=self.map, bounds=bounds)
        if filling is not None and self.fill:
            filling.fill(rows, cols, values)
        return values

    def _words(self, likelihood: Likelihood) -> list[int]:
        """Describe the draws to the kernel, as `struct draw` of `kernel/draw.h`."""
        noise, offset, filling = self.canvas
        components, limits, room = 0, (0.0, 0.0), 3 * (likelihood.levels + WIDEST)
        if isinstance(likelihood, LogisticMixture):
            components, limits = likelihood.components, log_scale_limits(likelihood.log_scales)
            room = (3 * WIDEST + 4) * (components + WIDEST)
        if offset is not None:
            offset = scale_levels(offset, likelihood.levels).contiguous()
        least, greatest = limits
        in_levels = self.scale_shift + math.log((likelihood.levels - 1) / 2)
        return [
            *(len(noise), likelihood.channels, likelihood.levels, components, likelihood.num_params),
            *noise.shape[1:],
            self._address(noise.contiguous()),
            0 if offset is None else self._address(offset),
            0 if filling is None else self._address(torch.tensor(filling.words())),
            int(self.fill),
            int(self.map),
            int(greatest + self.scale_shift > WIDE_LOG_SCALE),
            self._address(torch.tensor([least, greatest, self.scale_shift, in_levels], dtype=torch.float32)),
            self._address(torch.empty(room)),
        ]

    def _address(self, tensor: Tensor) -> int:
        self.kept.append(tensor)
        return tensor.data_ptr()


def _fits(canvas: Canvas, likelihood: Likelihood) -> bool:
    """Whether the tensors of a canvas are those that the kernel reads."""
    noise, offset, filling = canvas
    B, number, *sides = noise.shape
    shape = (B, likelihood.channels, *sides)
    return (
        (noise.device.type, noise.dtype, number) == ("cpu", torch.float32, likelihood.num_noise)
        and likelihood.levels <= MOST_LEVELS
        and (offset is None or offset.shape == shape)
        and (filling is None or all(
            (each.dtype, each.shape) == (torch.int64, (2, *shape)) for each in (filling.limits, filling.box)
        ))
    )  # fmt: skip
