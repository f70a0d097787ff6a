"""What `pixelcnn demo` runs: train a small pyramid on the shipped photographs, score it, sample it, and report.

The run is that of the recipe `photos32-pyramid-small`, so that `pixelcnn train` can go on where the demonstration ends.
"""

__all__ = ["demo"]

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table as Listing

from pixelcnn.checkpoint import write_atomically
from pixelcnn.data import Images, load_images
from pixelcnn.evaluation import Evaluation, codec_bits_per_dim, evaluate
from pixelcnn.figures import Chart, Code, Gallery, Section, Strip, Table, bars, curves, report
from pixelcnn.history import HISTORY
from pixelcnn.models import ImageModel
from pixelcnn.progress import progress_bar
from pixelcnn.recipes import find_recipe
from pixelcnn.sampling import sample, sample_factor
from pixelcnn.traversal import schedule
from pixelcnn.training import train

RECIPE = "photos32-pyramid-small"
SHARES = (0.7, 0.2, 0.1)  # of the training time: the finer a view, the more pixels has a step
PICTURES = 6
VARIANTS = {
    "as the model has it": {},
    "log-scales reduced by 0.5": {"scale_shift": -0.5},
    "log-scales reduced by 1.0": {"scale_shift": -1.0},
    "MAP: for each pixel the mode of a drawn component": {"map": True},
}

IDEA = """A photograph x₀ is made simpler step by step: x₁ is x₀ at half the size, x₂ is x₁ at half the size. One network \
for each view gives the probability of every pixel given the pixels above and to the left of it and the whole of the next \
simpler view; the simplest view is given nothing. Multiplied, they bound the probability of the photograph from below:"""
BITS = """Bits per dimension are −log₂ of that, divided by the number of sub-pixels of x₀ (width x height x 3): what a \
lossless codec made from the model would need. Less is better, and the three factors add up to the total. Everything is \
measured on {images} photographs that the model was not trained on. "Before training" is the freshly initialised model, \
its layers scaled to training photographs. PNG and lossless WebP are at the settings that make them small; their files \
also hold headers, which at this size matter."""
HONEST = """{minutes:g} minutes of training on {images} photographs teach a small network colours, smooth areas and \
edges, not what things look like: expect blobs with texture. What carries over to larger models is that each of these \
pictures is an exact sample, and that the coarse view settles the layout before any detail is drawn."""
NOTICE = """Photographs from the Cloudinary Image Dataset '22 (CID22), https://cloudinary.com/labs/cid22, by Cloudinary, \
CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/), reduced to {size}x{size}."""
PAPER = """The model is the Pyramid PixelCNN of Kolesnikov and Lampert, PixelCNN models with auxiliary variables for \
natural image modeling (ICML 2017)."""


def demo(folder: Path, *, minutes: float = 1.0, size: int = 32, seed: int = 0, overwrite: bool = False,
         progress: bool = True) -> Path:
    """Train for so many minutes in all, and leave the model and `report.html` in a folder.

    Args:
        folder: of the run and the report.
        minutes: of training, all factors together. Scoring and sampling take about another minute on two cores.
        size: side of the photographs, at most 128.
        seed: of the weights, the training and the samples.
        overwrite: replace what an earlier run left in the folder.
        progress: show progress bars.

    Returns:
        The path of the report.

    Raises:
        ValueError: for a folder that is not empty, or an argument out of range.
    """
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise ValueError(f"{str(folder)!r} is not empty: use --overwrite to replace what is in it, or another --out")
    if not 0 < minutes < math.inf:
        raise ValueError(f"minutes={minutes!r}: use a number above 0")
    photos, held_out = (load_images("photos", split, size=size, progress=progress) for split in ("train", "test"))
    recipe = find_recipe(RECIPE)
    training = replace(recipe.training, seed=seed)
    torch.manual_seed(seed)
    model = recipe.model()
    for factor, (view, given) in zip(model.factors, model.links(photos.batch(range(32))), strict=True):
        factor.initialize(view, given)
    before = evaluate(model, held_out, progress=progress)
    data = {"source": "photos", "size": size, "crop": None}
    for i, k in enumerate(reversed(range(len(model.factors)))):
        model = train(model, photos, folder, training, minutes=minutes * SHARES[k], factor=k, resume=i > 0,
                      overwrite=overwrite, sheet_minutes=0, notes={"recipe": RECIPE, "data": data}, progress=progress)
    scores = {"before training": before, "after training": evaluate(model, held_out, progress=progress)}
    codecs = codec_bits_per_dim(held_out)
    page = report("PixelCNN with auxiliary variables: a demonstration", [
        Section("The idea", [IDEA, Code("log p(x₀) ≥ log p(x₂) + log p(x₁ | x₂) + log p(x₀ | x₁)"), PAPER]),
        _bits_section(model, scores, codecs, size),
        _training_section(model, folder, size),
        _growing_section(model, size, seed, HONEST.format(minutes=minutes, images=len(photos)), progress),
        _given_section(model, held_out, seed, progress),
        _next_section(folder, size, seed),
    ])
    path = folder / "report.html"
    write_atomically(path, page.encode())
    _print_totals({name: score.bits_per_dim for name, score in scores.items()} | codecs, held_out)
    print(path)
    return path
