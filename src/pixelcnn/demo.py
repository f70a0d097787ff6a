"""What `pixelcnn demo` runs: train a small pyramid on the shipped photographs, score it, sample it, and report.

The run is that of the recipe `photos32-pyramid-small`, so that `pixelcnn train` can go on where the demonstration ends.
"""

__all__ = ["demo"]

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table as Listing

from pixelcnn.checkpoint import write_atomically
from pixelcnn.data import Images, load_images
from pixelcnn.evaluation import Evaluation, codec_bits_per_dim, evaluate
from pixelcnn.figures import Chart, Code, Gallery, Section, Strip, Table, bars, curves, report
from pixelcnn.history import HISTORY
from pixelcnn.models import ImageModel, evaluating
from pixelcnn.progress import progress_bar
from pixelcnn.recipes import find_recipe
from pixelcnn.sampling import sample, sample_factor
from pixelcnn.training import INITIAL_IMAGES, train
from pixelcnn.traversal import schedule

RECIPE = "photos32-pyramid-small"
SHARES = (0.7, 0.2, 0.1)  # of the training time: a step on a finer view is longer, and there is more to learn
PICTURES = 6
VARIANTS: dict[str, dict[str, Any]] = {
    "as trained": {},
    "log-scales reduced by 0.5": {"scale_shift": -0.5},
    "log-scales reduced by 1.0": {"scale_shift": -1.0},
    "MAP, the mode of a drawn component": {"map": True},
}

IDEA = """A photograph x₀ is made simpler step by step: x₁ is x₀ at half the size, x₂ is x₁ at half the size. A network \
for each view gives the probability of every pixel given all of the next simpler view and the pixels above and to the \
left. The simplest view is given nothing. Together they bound the probability of the photograph from below:"""
PAPER = "The Pyramid PixelCNN of Kolesnikov and Lampert, PixelCNN models with auxiliary variables (ICML 2017)."
BITS = """Bits per dimension: the negative base-2 logarithm of that, over the number of sub-pixels of x₀, width x height \
x 3. So many bits a lossless codec made from the model would need; less is better. The three factors add up to the \
total. Before training the layers are only scaled to give unit variance on {photos} training photographs. The files of \
PNG and of lossless WebP hold headers too, which matters at this size."""
HONEST = """Expect blobs with texture: {minutes:g} minutes of training on {photos} photographs teach a small network \
colours, smooth areas and edges, but not what things look like. Each picture is an exact draw from the model, the \
coarsest view first, then the finer ones given it."""
GIVEN = """Here the finest factor alone draws, given the coarse view of photographs that it was not trained on: with the \
same random numbers each time, first as trained, then with less and less variance."""
NOTICE = """Photographs from the Cloudinary Image Dataset '22 (CID22), https://cloudinary.com/labs/cid22, by Cloudinary, \
CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/), reduced to {size}x{size}."""


def demo(
    folder: Path, *, minutes: float = 1.0, size: int = 32, seed: int = 0, overwrite: bool = False, progress: bool = True
) -> Path:
    """Train for so many minutes in all, and leave the model and a report in a folder.

    Args:
        folder: of the run and its `report.html`.
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
        raise ValueError(f"{str(folder)!r} is not empty: use --overwrite to replace what is in it, or another folder")
    if not 0 < minutes < math.inf:
        raise ValueError(f"minutes={minutes!r}: use a number above 0")
    photos, held_out = (load_images("photos", split, size=size, progress=progress) for split in ("train", "test"))
    recipe = find_recipe(RECIPE)
    torch.manual_seed(seed)
    model = recipe.model()
    for factor, link in zip(model.factors, model.links(photos.batch(range(INITIAL_IMAGES))), strict=True):
        factor.initialize(*link)
    scores = {"before training": evaluate(model, held_out, progress=progress)}
    training = replace(recipe.training, seed=seed)
    notes = {"recipe": RECIPE, "data": {"source": "photos", "size": size, "crop": None}}
    for k in reversed(range(len(model.factors))):
        model = train(
            model, photos, folder, training, minutes=minutes * SHARES[k], factor=k, resume=k + 1 < len(model.factors),
            overwrite=overwrite, sheet_minutes=0, notes=notes, progress=progress,
        )  # fmt: skip
    scores["after training"] = evaluate(model, held_out, progress=progress)
    codecs = codec_bits_per_dim(held_out)
    totals = {name: score.bits_per_dim for name, score in scores.items()} | codecs
    views = [f"{W}x{H}" for H, W in model.sizes((size, size))]
    formula = Code("log p(x₀) ≥ log p(x₂) + log p(x₁ | x₂) + log p(x₀ | x₁)")
    honest = HONEST.format(minutes=minutes, photos=len(photos))
    samples = sample(model, PICTURES, size, seed=seed, progress=progress)
    growing = [(view, x, model.levels) for view, x in zip(views[::-1], samples[::-1], strict=True)]
    variants = Gallery(_given_view(model, held_out, seed, progress), NOTICE.format(size=size))
    sections = [
        Section("The idea", [IDEA, formula, PAPER]),
        Section("Bits per dimension", [BITS.format(photos=INITIAL_IMAGES), _table(scores, codecs, views, len(held_out)),
                                       Chart(bars(totals), "The totals. Less is better.")]),
        Section("Training", [Chart(curves(_histories(folder, views)), "What each factor adds to the bits per dimension "
                                   "of the photographs that it is trained on.")]),
        Section("Samples", [honest, Gallery(growing, "Each column is one sample.")]),
        Section("Samples given a real coarse view", [GIVEN, variants]),
        Section("Going on", ["Train it further, score it, sample it, and see what else there is:",
                             Code(_commands(folder, size, seed))]),
    ]  # fmt: skip
    path = folder / "report.html"
    write_atomically(path, report("PixelCNN with auxiliary variables: a demonstration", sections).encode())
    _print_totals(totals, held_out)
    print(path)
    return path


def _table(scores: Mapping[str, Evaluation], codecs: Mapping[str, float], views: list[str], images: int) -> Table:
    header = ["", "total", *(f"{view} given {coarser}" for view, coarser in pairwise(views)), views[-1]]
    rows = [[name, f"{s.bits_per_dim:.3f}", *(f"{bits:.3f}" for bits in s.factors)] for name, s in scores.items()]
    rows += [[name, f"{bits:.3f}", *("" for _ in views)] for name, bits in codecs.items()]
    return Table(header, rows, f"Bits per dimension of {images} photographs that the model was not trained on")


def _histories(folder: Path, views: list[str]) -> dict[str, list[dict[str, float]]]:
    histories = {}
    for k, view in enumerate(views):
        lines = (folder / f"factor-{k}" / HISTORY).read_text().splitlines()
        histories[f"factor {k}, {view}"] = [json.loads(line) for line in lines]
    return histories


def _given_view(model: ImageModel, held_out: Images, seed: int, progress: bool) -> list[Strip]:
    """What the finest factor draws given a real view, in all variants, between the view and the photograph."""
    x, given, *_ = model.views(held_out.batch(range(PICTURES)))
    H, W = x.shape[-2:]
    strips = [(f"given, {given.shape[3]}x{given.shape[2]}", given, model.levels)]
    with evaluating(model), progress_bar(visible=progress) as bar:
        groups = sum(1 for _ in schedule((H, W), model.factors[0].network.lag))
        task = bar.add_task("sampling given a view", total=groups * len(VARIANTS))
        for title, options in VARIANTS.items():
            drawn = sample_factor(
                model.factors[0],
                len(x),
                (H, W),
                seed=seed,
                auxiliary=given,
                progress=lambda: bar.advance(task),
                **options,
            )
            strips.append((f"drawn, {W}x{H}, {title}", drawn, model.levels))
    return [*strips, (f"the photograph, {W}x{H}", x, model.levels)]


def _commands(folder: Path, size: int, seed: int) -> str:
    options = (f" --size {size}" if size != 32 else "") + (f" --seed {seed}" if seed else "")
    run = shlex.quote(str(folder))
    return (
        f"pixelcnn train {RECIPE} --out {run} --resume --minutes 10{options}\n"
        f"pixelcnn evaluate {run} --codecs\n"
        f"pixelcnn sample {run} --map --out samples.png\n"
        "pixelcnn models"
    )


def _print_totals(totals: Mapping[str, float], held_out: Images) -> None:
    listing = Listing(
        "", "bits per dimension", title=f"{len(held_out)} held-out photographs, {held_out.size[0]} pixels wide"
    )
    for name, bits in totals.items():
        listing.add_row(name, f"{bits:.3f}")
    Console().print(listing)
