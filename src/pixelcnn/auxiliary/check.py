"""A check for auxiliary variables that you write yourself."""

__all__ = ["check_auxiliary"]

import itertools

import torch
from torch import Tensor

from pixelcnn.auxiliary.base import Auxiliary
from pixelcnn.auxiliary.cells import CellAuxiliary, Filling, whole_box

MOST_IMAGES, FEW_IMAGES = 2**14, 2**11
BYTES = 256


def check_auxiliary(
    auxiliary: Auxiliary, *, channels: int = 1, levels: int = 3, size: tuple[int, int] | None = None
) -> None:
    """Check by brute force that an auxiliary variable is correct, on every image of a tiny format.

    The view must have the format, the size and the integer type that it promises. It must be the same for an image
    alone and in a batch, and for bytes and wider integers. An estimate from the view must have the shape of the images.

    For a `CellAuxiliary`, every view must belong to some image, and must grow by zero or one if a sub-pixel grows by
    one. The images whose sub-pixels all lie within their bounds must be exactly those with the given view. The bounds
    of a sub-pixel may depend only on the sub-pixels before it, and every value within them must leave one for the next
    sub-pixel.

    Args:
        auxiliary: what to check.
        channels, levels, size: of the images. There may be at most 16,384 of them. The default is to try all sizes with
            few images, up to one pixel more than a cell on each side.

    Raises:
        ValueError: if one of these fails; the message names the first image for which it does.

    Example:
        >>> from pixelcnn import QuantizedGrayscale
        >>> from pixelcnn.auxiliary import check_auxiliary
        >>> check_auxiliary(QuantizedGrayscale(bits=2), channels=3, levels=8, size=(1, 1))
    """
    sides = range(1, auxiliary.shrinkage + 2)
    few = [each for each in itertools.product(sides, sides) if levels ** (channels * each[0] * each[1]) <= FEW_IMAGES]
    for H, W in few if size is None else [size]:
        number = levels ** (channels * H * W)
        if number > MOST_IMAGES:
            raise ValueError(f"size={size!r}: {number} images are too many to try; use a smaller size or fewer levels")
        # The last sub-pixel in raster order changes fastest; the channels of a pixel come one after another.
        values = torch.tensor(list(itertools.product(range(levels), repeat=channels * H * W)))
        x = values.view(number, H, W, channels).permute(0, 3, 1, 2).contiguous()
        view = _check_view(auxiliary, x, levels)
        _check_estimate(auxiliary, x, view, levels)
        _check_bytes(auxiliary, torch.randint(BYTES, x[:9].shape, generator=torch.Generator().manual_seed(0)))
        if isinstance(auxiliary, CellAuxiliary):
            _check_steps(auxiliary, x, view, levels)
            for given in view.unique(dim=0):
                _check_cells(auxiliary, x, view, given, levels)


def _check_view(auxiliary: Auxiliary, x: Tensor, levels: int) -> Tensor:
    """Check the view of all images (N, C, H, W) by itself, and return it."""
    N, C, H, W = x.shape
    view = auxiliary(x, levels)
    channels, most = auxiliary.view_format(C, levels)
    shape = (N, channels, *auxiliary.view_size((H, W)))
    if view.shape != shape or view.dtype != x.dtype or view.min() < 0 or view.max() >= most:
        raise ValueError(
            f"{auxiliary}: views are {view.dtype} {tuple(view.shape)} from {view.min()} to {view.max()}, "
            f"not {x.dtype} {shape} from 0 to {most - 1}"
        )
    if not torch.equal(auxiliary(x[-1:], levels), view[-1:]):
        raise ValueError(f"{auxiliary}: the view of an image differs when it is alone")
    return view


def _check_estimate(auxiliary: Auxiliary, x: Tensor, view: Tensor, levels: int) -> None:
    """Check the other methods that a factor calls, also without values: memory is estimated on the device "meta"."""
    _, C, H, W = x.shape
    estimate = auxiliary.expectation(view, C, (H, W), levels)
    if estimate is not None and (estimate.shape != x.shape or not estimate.isfinite().all()):
        raise ValueError(
            f"{auxiliary}: the expectation is {tuple(estimate.shape)}, not finite numbers {tuple(x.shape)}"
        )
    try:
        auxiliary.expectation(view.to("meta"), C, (H, W), levels)
        if isinstance(auxiliary, CellAuxiliary):
            auxiliary.bounds(x.to("meta"), view.to("meta"), levels)
    except RuntimeError as error:
        raise ValueError(f"{auxiliary}: without values, on the device 'meta', it fails: {error}") from None


def _check_bytes(auxiliary: Auxiliary, x: Tensor) -> None:
    """Check that sums and products do not overflow for bytes, if images of 256 levels have a view."""
    try:
        auxiliary.view_format(x.shape[1], BYTES)
    except ValueError:
        return
    view = auxiliary(x, BYTES)
    try:
        of_bytes = auxiliary(x.to(torch.uint8), BYTES)
        same = of_bytes.dtype == torch.uint8 and torch.equal(of_bytes.to(view.dtype), view)
    except RuntimeError:  # such as when a byte is divided by 256
        same = False
    if not same:
        raise ValueError(f"{auxiliary}: the view of bytes is not that of the same numbers; compute in torch.int64")


def _check_steps(auxiliary: CellAuxiliary, x: Tensor, view: Tensor, levels: int) -> None:
    """Check that every view belongs to an image, even if some pixels are known: then no view may be skipped."""
    number, most = len(view.unique(dim=0)), auxiliary.view_format(x.shape[1], levels)[1] ** view[0].numel()
    if number < most:
        raise ValueError(f"{auxiliary}: of {most} views {tuple(view.shape[1:])} only {number} are those of an image")
    views, sub_pixels = view.flatten(1), x[0].numel()
    for i in range(sub_pixels):  # images are sorted like numbers whose digits are their sub-pixels
        steps = views.view(levels**i, levels, -1, views.shape[1]).diff(dim=1)
        if ((steps < 0) | (steps > 1)).any() or (steps.sum(3) > 1).any():
            raise ValueError(f"{auxiliary}: a sub-pixel that grows by one does not move its view by zero or one")


def _check_cells(auxiliary: CellAuxiliary, x: Tensor, view: Tensor, given: Tensor, levels: int) -> None:
    """Check the bounds that one view (C', H', W') sets on all images (N, C, H, W)."""
    every = given.expand_as(view)
    bounds = auxiliary.bounds(x, every, levels)
    lowest, highest = (_in_raster_order(end) for end in bounds)  # (N, sub-pixels)
    values = _in_raster_order(x)
    inside = (values >= lowest) & (values <= highest)
    reached = torch.cat([torch.ones_like(inside[:, :1]), inside.cumprod(1)[:, :-1].bool()], 1)
    tests = {
        "has no value left within its bounds at some sub-pixel": (reached & (lowest > highest)).any(1),
        "lies within the bounds of a view that it does not have": inside.all(1) & (view != every).flatten(1).any(1),
        "does not lie within the bounds of its own view": ~inside.all(1) & (view == every).flatten(1).all(1),
        "has bounds that depend on a later sub-pixel": _differ_by_future(values, lowest, levels)
        | _differ_by_future(values, highest, levels),
        "has other bounds when it is filled pixel by pixel": _differ_when_filled(auxiliary, x, every, levels, reached),
    }
    for problem, failed in tests.items():
        if failed.any():
            image = x[failed.nonzero()[0, 0]].tolist()
            raise ValueError(f"{auxiliary}: the image {image} {problem}; the view is {given.tolist()}")


def _in_raster_order(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(1)


def _differ_by_future(values: Tensor, bounds: Tensor, levels: int) -> Tensor:
    """Return whether a bound differs from that of the first image with the same sub-pixels before it."""
    number, sub_pixels = values.shape
    differ = torch.zeros(number, dtype=torch.bool)
    for i in range(sub_pixels):
        step = levels ** (sub_pixels - i)  # images in a row with the same sub-pixels before this one
        first = torch.arange(number) // step * step
        differ |= bounds[:, i] != bounds[first, i]
    return differ


def _differ_when_filled(auxiliary: CellAuxiliary, x: Tensor, view: Tensor, levels: int, reached: Tensor) -> Tensor:
    """Return whether `Filling`, which is used to draw, disagrees with `bounds`, which is used to score."""
    bounds = auxiliary.bounds(x, view, levels)
    filling = Filling(whole_box(x.shape, levels, x.device), auxiliary, view, levels)
    _, C, H, W = x.shape
    differ = torch.zeros(len(x), dtype=torch.bool)
    for row, col in itertools.product(range(H), range(W)):
        place = torch.tensor([row]), torch.tensor([col])
        following = filling.next_bounds(*place)
        for channel in range(C):
            ends = following(list(x[:, :channel, row, col, None].unbind(1)))
            same = [end[:, 0] == all_[:, channel, row, col] for end, all_ in zip(ends, bounds, strict=True)]
            differ |= reached[:, (row * W + col) * C + channel] & ~(same[0] & same[1])
        filling.fill(*place, x[:, :, row, col, None])
    return differ
