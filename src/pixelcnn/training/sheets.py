"""Sheets of samples written during training."""

__all__ = ["try_sheet"]

import sys
from pathlib import Path

import torch

from pixelcnn.common.text import shorten
from pixelcnn.data.images import Images
from pixelcnn.models.draw import DrawOptions, draw_view, position_noise
from pixelcnn.models.image_model import ImageModel
from pixelcnn.pictures.sheets import save_picture, sheet

SHEET_IMAGES = 8


def try_sheet(model: ImageModel, k: int, held_out: Images, path: Path) -> None:
    """Write a sheet of samples, or print why it failed: a missing picture must not stop the training."""
    try:
        _write_sheet(model, k, held_out, path)
    except Exception as error:
        reason = shorten(str(error)) or type(error).__name__
        print(f"pixelcnn: could not write {path.name}, training continues ({reason})", file=sys.stderr)


def _write_sheet(model: ImageModel, k: int, held_out: Images, path: Path) -> None:
    """Write samples of one factor above real views, and on top the view that both were given, if there is one."""
    indices = range(min(SHEET_IMAGES, len(held_out)))
    view, given = model.links(held_out.batch(indices))[k]
    labels = torch.tensor([held_out.labels[i] for i in indices]) if model.classes and held_out.labels else None
    factor, (H, W) = model.factors[k], view.shape[-2:]
    noise = position_noise(factor, (H, W), range(len(view)))
    options = DrawOptions(consistent=model.consistent)
    samples = draw_view(factor, noise, given, model.check_labels(labels, len(view)), options=options)
    strips = [("samples", samples, model.formats[k][1]), ("real images", view, model.formats[k][1])]
    if given is not None:
        strips.insert(0, ("given", given, model.formats[k + 1][1]))
    save_picture(sheet(strips), path)
