"""Convolutions of exact arithmetic in the compiled kernel, whose products of float64 are faster than those of torch."""

__all__ = ["Taps", "compiled_products"]

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from pixelcnn.common.kernel import TERMS, Kernel

Taps = dict[tuple[int, int], Tensor]
"""The weights (outputs, inputs) of a kernel, by the row and the column that they read."""
Term = tuple[Tensor, int, list[Tensor]]  # what is read, from which pixel on, and the weights
PIXELS = 128  # which share what is read of weights


def compiled_products(kernel: Kernel, inputs: list[tuple[Tensor, Taps]], bias: Tensor, stride: int) -> Tensor:
    """Convolve images in float64 on the CPU: (B, C, H, W) each to a sum (B, outputs, h, w).

    The numbers of a pixel lie together in the result, and so do those of the padded copies that are read here. So a row
    of a kernel is one term of a matrix product.

    Args:
        kernel: of this processor.
        inputs: images of one size, each with weights for the same offsets.
        bias: (outputs,).
        stride: of the pixels that the result has.

    Example:
        >>> import torch
        >>> from pixelcnn.common.kernel import find_kernel
        >>> from pixelcnn.nn.compiled import compiled_products
        >>> x, weight, kernel = torch.ones(1, 2, 3, 3).double(), torch.ones(1, 2).double(), find_kernel()
        >>> taps = {(0, 0): weight, (0, 1): weight}
        >>> kernel is None or compiled_products(kernel, [(x, taps)], torch.zeros(1).double(), 1)[0, 0, 0].tolist()
        [4.0, 4.0, 2.0]
    """
    B, _, H, W = inputs[0][0].shape
    rows, cols = zip(*inputs[0][1], strict=True)
    top, left = max(0, -min(rows)), max(0, -min(cols))
    bottom, right = max(0, max(rows)), max(0, max(cols))
    h, w, pitch, outputs = -(-H // stride), -(-W // stride), W + left + right, len(bias)
    bias = bias.contiguous()
    terms: list[Term] = []
    for x, taps in inputs:
        padded = _padded(x.movedim(1, -1), (top, bottom), (left, right))
        before = None
        for row, col in sorted(taps):
            if before == (row, col - 1):
                terms[-1][2].append(taps[row, col])
            else:
                terms.append((padded, (row + top) * pitch + col + left, [taps[row, col]]))
            before = row, col
    base = bias
    for first in range(0, len(terms), TERMS):
        # Another result each time: a row that is no multiple of a vector is written twice where two vectors overlap.
        out = bias.new_empty(B, h, w, outputs)
        _multiply(kernel, out, base, terms[first : first + TERMS], (stride, pitch))
        base = out
    return base.movedim(-1, 1)


def _padded(x: Tensor, rows: tuple[int, int], cols: tuple[int, int]) -> Tensor:
    """Put zeros around images (B, H, W, C): so many rows before and after them, and so many columns."""
    if not any(rows + cols):
        return x.contiguous()
    B, H, W, C = x.shape
    padded = x.new_empty(B, H + sum(rows), W + sum(cols), C)
    padded[:, rows[0] : rows[0] + H, cols[0] : cols[0] + W] = x
    for edge in (padded[:, : rows[0]], padded[:, rows[0] + H :], padded[:, :, : cols[0]], padded[:, :, cols[0] + W :]):
        edge.zero_()
    return padded


def _multiply(kernel: Kernel, out: Tensor, base: Tensor, terms: list[Term], steps: tuple[int, int]) -> None:
    """Add terms to a bias (outputs,), or to another result like the one here: (B, h, w, outputs)."""
    B, h, w, outputs = out.shape
    stride, pitch = steps
    weights = torch.cat([weight for _, _, each in terms for weight in each], 1).T.contiguous()
    lengths = np.array([sum(weight.shape[1] for weight in each) for _, _, each in terms], np.int64)
    sorted_weights = out.new_empty(kernel.function("packed_double", "ii", "i")(*weights.shape))
    kernel.function("pack_double", "iipp")(*weights.shape, weights.data_ptr(), sorted_weights.data_ptr())
    product, at_once = kernel.function("product_double", "ppiipii"), max(1, PIXELS // w)

    size = out.element_size()
    places = outputs, w * outputs
    start_of_base, places_of_base = base.data_ptr(), places if base.dim() > 1 else (0, 0)
    to, reads = out.data_ptr(), [(read.data_ptr(), read[0].numel(), read.shape[3], start) for read, start, _ in terms]

    def compute(part: tuple[int, int]) -> None:
        """Compute a few rows of an image: write `struct rows` of `kernel/network.h` of everything that is needed."""
        image, row = part
        here = size * (image * h + row) * w * outputs
        words = [to + here, *places, start_of_base + (here if places_of_base[0] else 0), *places_of_base]
        for address, image_size, across, start in reads:
            first = image * image_size + across * (start + row * stride * pitch)
            words += [address + size * first, stride * across, stride * pitch * across]
        described = np.array(words, np.int64)
        rows = min(at_once, h - row)
        product(described.ctypes.data, lengths.ctypes.data, len(terms), outputs, sorted_weights.data_ptr(), rows, w)

    parts, threads = [(image, row) for image in range(B) for row in range(0, h, at_once)], torch.get_num_threads()
    if threads == 1:
        for part in parts:
            compute(part)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(compute, parts))
