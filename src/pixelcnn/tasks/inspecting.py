"""The exact distribution of one pixel, given everything that comes before it."""

__all__ = ["PixelDistribution", "pixel_distribution"]

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pixelcnn.auxiliary.cells import whole_box
from pixelcnn.auxiliary.chain import Link, check_images
from pixelcnn.common.devices import computing
from pixelcnn.likelihoods.base import Bounds
from pixelcnn.models.base import LabelsLike
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.margins import Margins, length
from pixelcnn.models.tiles import tile_params
from pixelcnn.nn.layers import evaluating


class PixelDistribution(NamedTuple):
    """The distribution of one pixel of B images, channel by channel.

    Attributes:
        pmf: probability of each level of a channel, given the channels before it: (B, C, levels).
        bounds: the lowest and the highest level that the next view allows: (B, C) each.
        values: of the pixel in the images: (B, C).
        bits: what these values cost, over all channels: (B,).
    """

    pmf: Tensor
    bounds: Bounds
    values: Tensor
    bits: Tensor


def pixel_distribution(
    model: ImageModel,
    views: Sequence[Tensor] | Mapping[int, Tensor],
    k: int,
    row: int,
    col: int,
    labels: LabelsLike | None = None,
) -> PixelDistribution:
    """Compute the exact distribution of one pixel of a view, given the next view and the pixels before it.

    Only the part of the images that the network sees from there is computed, so this takes milliseconds at any size.

    Args:
        model: any model.
        views: of the images, the image first, as from `model.views(x)`; or by their numbers, as from
            `dict(model.sample_views(...))`. Only views k and k + 1 are used.
        k: the number of the view: 0 for the image.
        row, col: place of the pixel in that view.
        labels: a class label for all images, or (B,) labels, for a model with classes.

    Raises:
        ValueError: if there is no such view or pixel, or the views or labels do not fit the model.

    Example:
        >>> import pixelcnn
        >>> model = pixelcnn.load("photos-pyramid")
        >>> views = model.views(pixelcnn.load_images("photos", "test", size=16).batch([0]))
        >>> found = pixelcnn.pixel_distribution(model, views, 0, row=5, col=7)
        >>> found.pmf.shape, round(float(found.pmf[0, 0].sum()), 3)
        (torch.Size([1, 3, 256]), 1.0)
        >>> bits = pixelcnn.surprisal(model, views[0])[0][0, 5, 7]
        >>> bool(abs(found.bits[0] - bits) < 1e-3)
        True
    """
    if k not in range(len(model.factors)):
        raise ValueError(f"k={k!r}: this model has the views 0 to {len(model.factors) - 1}")
    factor, levels = model.factors[k], model.formats[k][1]
    link = Link(views[k].to(model.device), views[k + 1].to(model.device) if k + 1 < len(model.factors) else None)
    check_images(link.view, *model.formats[k], name=f"views[{k}]")
    B, _, H, W = link.view.shape
    if not (0 <= row < H and 0 <= col < W):
        raise ValueError(f"row={row!r}, col={col!r}: view {k} has {H} rows and {W} columns")
    taken, margins = model.check_labels(labels, B), Margins(factor)
    tile = [margins.cut(axis, (H, W)[axis], 1)[at // margins.step] for axis, at in enumerate((row, col))]
    with evaluating(), computing(factor, B * math.prod(length(each.window) for each in tile), "use fewer images"):
        params, cells = tile_params(factor, link, taken, *tile)
        core = link.view[:, :, tile[0].core, tile[1].core]
        constraint = factor.constraint(consistent=model.consistent)
        bounds = whole_box(core.shape, levels, core.device)
        if constraint is not None and cells is not None:
            bounds = constraint.bounds(core, cells, levels)
        i, j = row - tile[0].core.start, col - tile[1].core.start
        params, x, lowest, highest = (each[:, :, i, j, None] for each in (params, core, *bounds))
        within = Bounds(lowest, highest)
        pmf = torch.stack([factor.likelihood.pmf(params, x, c, within)[..., 0] for c in range(x.shape[1])], 1)
        bits = factor.likelihood.log_prob(params, x, within)[:, 0] / -math.log(2)
    return PixelDistribution(pmf, Bounds(lowest[..., 0], highest[..., 0]), x[..., 0], bits)
