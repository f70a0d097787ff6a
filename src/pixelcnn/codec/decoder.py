"""Decoding the pixels of a group: in the compiled kernel where there is one, else channel by channel in NumPy.

Both read the same values from the same bits. The kernel is `kernel/decode.h`.
"""

__all__ = ["CompiledDecoder", "Decoder", "PlainDecoder", "by_pixel", "open_decoder"]

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pixelcnn.auxiliary.cells import Filling
from pixelcnn.codec.chunks import DamagedError
from pixelcnn.codec.frequencies import Array, Masses, bucket_width, decode_channel
from pixelcnn.codec.stream import DAMAGED, Reader, read_together
from pixelcnn.common.kernel import Kernel, address_of, find_kernel
from pixelcnn.likelihoods.base import Likelihood, scale_levels
from pixelcnn.likelihoods.logistic import LogisticMixture, log_scale_limits
from pixelcnn.likelihoods.tabular import Categorical
from pixelcnn.nn.tables import tables

Decoder = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`decode(params, rows, cols)` maps parameters (B, P, N) of pixels at rows (N,), cols (N,) to values (B, C, N)."""
MOST_CHANNELS = 3
PIXEL, COMPONENT = 8, 3  # numbers of eight bytes that the kernel notes for a pixel, and for each of its components
LONGEST_VECTOR = 8  # of such numbers


def by_pixel(x: Tensor) -> Array:
    """Sort by pixel instead of by channel: (B, C, ...) to (N, C)."""
    return x.movedim(1, -1).flatten(0, -2).contiguous().cpu().numpy()


def open_decoder(
    likelihood: Likelihood, filling: Filling, readers: Sequence[Reader], offset: Tensor | None = None
) -> Decoder:
    """Return what decodes the pixels of images, group by group.

    Args:
        likelihood: of the pixels.
        filling: the bounds of the pixels, which the decoder also fills.
        readers: of the streams, one for each image.
        offset: to shift the means of the pixels by, (B, C, H, W), as `Likelihood.offset_means` takes it.

    Returns:
        A function of parameters (B, P, N), as the network gives them, and of rows and columns (N,). It returns values
        (B, C, N), and raises a DamagedError if a stream cannot come from a `Writer`.

    Example:
        >>> import torch
        >>> from pixelcnn import Categorical
        >>> from pixelcnn.auxiliary.cells import Filling, whole_box
        >>> from pixelcnn.codec.decoder import open_decoder
        >>> from pixelcnn.codec.stream import Reader
        >>> filling = Filling(whole_box((1, 1, 4, 4), 2, torch.device("cpu")), None, None, levels=2)
        >>> decode, pixel = open_decoder(Categorical(levels=2), filling, [Reader(b"")]), torch.tensor([0])
        >>> decode(torch.zeros(1, 2, 1, dtype=torch.float64), pixel, pixel)
        tensor([[[0]]])
    """
    kernel = find_kernel() if filling.box.device.type == "cpu" else None
    known = isinstance(likelihood, LogisticMixture | Categorical) and likelihood.channels <= MOST_CHANNELS
    if kernel is None or not known or any(reader.plain for reader in readers):
        return PlainDecoder(likelihood, filling, readers, offset)
    return CompiledDecoder(kernel, likelihood, filling, readers, offset)


class PlainDecoder:
    """A decoder in NumPy, for every device. See `open_decoder` for its arguments."""

    def __init__(
        self, likelihood: Likelihood, filling: Filling, readers: Sequence[Reader], offset: Tensor | None
    ) -> None:
        self.likelihood, self.filling, self.readers, self.offset = likelihood, filling, readers, offset
        self.width = bucket_width(likelihood.levels)

    def __call__(self, params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        B, N, drawn = len(self.readers), len(rows), []
        if self.offset is not None:
            params = self.likelihood.offset_means(params, self.offset[:, :, rows, cols])
        masses, bounds = Masses.of(self.likelihood, by_pixel(params)), self.filling.next_bounds(rows, cols)

        def read(pixels: Array, frequencies: Array) -> Array:
            ends = np.searchsorted(pixels, N * np.arange(B + 1)).tolist()
            return read_together(self.readers, ends, frequencies)

        for _ in range(self.likelihood.channels):
            lowest, highest = (end.flatten().cpu().numpy() for end in bounds(drawn))
            values = decode_channel(masses, lowest, highest, self.width, read)
            drawn.append(torch.from_numpy(values).view(B, N).to(params.device))
        values = torch.stack(drawn, 1)
        self.filling.fill(rows, cols, values)
        return values


class CompiledDecoder:
    """A decoder in the compiled kernel. See `open_decoder` for its other arguments.

    Args:
        kernel: of this processor.
    """

    def __init__(
        self,
        kernel: Kernel,
        likelihood: Likelihood,
        filling: Filling,
        readers: Sequence[Reader],
        offset: Tensor | None,
    ) -> None:
        self.decode = kernel.function("decode", "ppippp", "i")
        self.shape, self.most, numbers = (len(readers), likelihood.channels), 0, likelihood.levels + 1
        components, limits, self.num_params = 0, (0.0, 0.0), likelihood.num_params
        if isinstance(likelihood, LogisticMixture):
            components, limits = likelihood.components, log_scale_limits(likelihood.log_scales)
            numbers = COMPONENT * (components + LONGEST_VECTOR)
        self.room = PIXEL + numbers
        scaled = None
        if offset is not None and components:
            scaled = scale_levels(offset, likelihood.levels, torch.float64).contiguous()
        streams = np.array([reader.state.ctypes.data for reader in readers], np.int64)
        described, log_scales = np.array(filling.words(), np.int64), np.array(limits, np.float64)
        given = tables()
        arrays = streams, described, given.weight, given.precision, given.tanh, given.logistic, log_scales
        self.kept = *arrays, scaled, filling, readers  # everything that the kernel knows the address of
        addresses = [array.ctypes.data for array in arrays]
        addresses.insert(2, 0 if scaled is None else scaled.data_ptr())
        sizes = [len(readers), components, likelihood.levels, bucket_width(likelihood.levels)]
        self.words = np.array([*addresses, 0, 8 * self.room, *sizes], np.int64)
        self.scratch = len(addresses)
        self.address = self.words.ctypes.data

    def __call__(self, params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        number, (B, C) = len(rows), self.shape
        if params.shape != (B, self.num_params, number):
            raise ValueError(f"params of shape {tuple(params.shape)}: these pixels need {(B, self.num_params, number)}")
        if number > self.most:
            self._make_room(number)
        rows, cols = (each.to(torch.int64).contiguous() for each in (rows, cols))
        values = torch.empty(B, C, number, dtype=torch.int64)
        params = params.permute(2, 0, 1).to(torch.float64).contiguous()  # no copy of what a `CachedNetwork` gives
        places = params.data_ptr(), number, rows.data_ptr(), cols.data_ptr(), values.data_ptr()
        if self.decode(self.address, *places) >= 0:
            self.fail()
        return values

    def compiled(self, dtype: torch.dtype, shape: tuple[int, int], most: int) -> tuple[int, int] | None:
        """Return the addresses of the function of the kernel and of its state; None if it has none for such parameters.

        It may decode many groups at once (see `pixelcnn.traversal.filler.CompiledFill`).
        """
        if dtype != torch.float64 or shape != (self.shape[0], self.num_params):
            return None
        if most > self.most:
            self._make_room(most)
        return address_of(self.decode), self.address

    def fail(self) -> None:
        """Raise the error of a damaged stream."""
        raise DamagedError(DAMAGED)

    def _make_room(self, number: int) -> None:
        """Allocate what the kernel notes for the pixels of a group."""
        self.most, self.notes = number, torch.empty(number, self.room, dtype=torch.int64)
        self.words[self.scratch] = self.notes.data_ptr()
