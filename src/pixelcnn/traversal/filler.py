"""Filling a canvas in the compiled kernel: the network, the fill and the canvas, for many groups in one call."""

__all__ = ["CompiledFill", "Filler", "open_filler"]

from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from pixelcnn.common.threads import threads_worth
from pixelcnn.traversal.compiled import CompiledProgram
from pixelcnn.traversal.program import Phase

SIZES = {torch.uint8: 1, torch.int64: 8}  # of the values on a canvas, in bytes


class CompiledFill(Protocol):
    """A fill that the kernel can do."""

    def compiled(self, dtype: torch.dtype, shape: tuple[int, int], most: int) -> tuple[int, int] | None:
        """Return the addresses of the function of the kernel and of its state; None if it has none.

        Args:
            dtype, shape: of the parameters, (B, P) of a pixel of each image.
            most: pixels of a group.
        """
        ...

    def fail(self) -> None:
        """Raise the error for which the function failed."""
        ...


class Filler:
    """Fills a canvas in the kernel, group by group.

    Args:
        program: that gives the parameters.
        x: the canvas (B, C, H, W).
        fill: what fills a group.
        state: the addresses of the function of the kernel for that, and of what it is given.
    """

    def __init__(self, program: CompiledProgram, x: Tensor, fill: CompiledFill, state: tuple[int, int]) -> None:
        output, most = program.layout.output, program.most // program.batch
        self.program, self.fill, size = program, fill, SIZES[x.dtype]
        rows, cols = torch.empty(2, most, dtype=torch.int64)
        values = torch.empty(x.shape[0] * x.shape[1] * most, dtype=torch.int64)
        self.kept = x, rows, cols, values
        strides = [size * stride for stride in x.stride()]
        words = [*state, output.now.data_ptr(), output.features, x.data_ptr(), size, *strides]
        words += [program.scaled, program.levels, *(each.data_ptr() for each in self.kept[1:])]
        self.words = np.array(words, np.int64)
        self.address = self.words.ctypes.data

    def run(self, time: int, end: int, *, lines: bool) -> int:
        """Visit and fill the groups between two times, and first, where they start, the lines.

        Returns the time of the group whose parameters are not finite or whose fill failed, or the end.
        """
        if lines:
            self.program.visit_lines(time)
        return self.program.run(self.program.program, self.address, time, end)


def open_filler(program: CompiledProgram, x: Tensor, fill: object) -> Filler | None:
    """Return what fills a canvas (B, C, H, W) in the kernel; None if it cannot, or if threads are faster."""
    if not hasattr(fill, "compiled") or x.dtype not in SIZES:
        return None
    output, known = program.layout.output, cast("CompiledFill", fill)
    state = known.compiled(output.now.dtype, (program.batch, output.features), program.most // program.batch)
    if state is None or threads_worth(program.most * program.work[Phase.GROUP]) > 1:
        return None
    return Filler(program, x, known, state)
