"""The demonstration: faces from the zoo, a small pyramid trained on the shipped photographs, and a page about both.

It trains the recipe `photos32-pyramid-small`, so `pixelcnn train` can continue where the demonstration ends.
"""

__all__ = ["run_demo"]

import math
import shlex
import sys
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table as Listing

from pixelcnn.apps.report.figures import subject_sections
from pixelcnn.apps.report.report import PAGE, has_title
from pixelcnn.apps.report.subjects import ReportOptions, find_subject
from pixelcnn.common.devices import find_device
from pixelcnn.common.files import write_atomically
from pixelcnn.data.images import Images, load_images
from pixelcnn.models.draw import DrawOptions
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.sampling import sample, sample_views, upscale
from pixelcnn.models.shipped import why_missing
from pixelcnn.pictures.charts import Drawing, bars, curves
from pixelcnn.pictures.page import Chart, Code, Gallery, Section, Table, page
from pixelcnn.pictures.sheets import Strip, save_picture, sheet
from pixelcnn.tasks.lossless import codec_bits_per_dim
from pixelcnn.tasks.scoring import Evaluation, evaluate
from pixelcnn.training.history import HISTORY, read_history
from pixelcnn.training.loop import INITIAL_IMAGES, train
from pixelcnn.training.options import Run
from pixelcnn.training.runs import begin_run, check_run_folder
from pixelcnn.zoo.recipe import Recipe
from pixelcnn.zoo.recipes import find_recipe

FACES, COLORS, ENLARGER = "faces128-pyramid", "faces32-grayscale", "photos-pyramid"  # of the zoo
RECIPE = "photos32-pyramid-small"
TITLE, FACES_PICTURE = "PixelCNN with auxiliary variables: a demonstration", "faces.png"
REMEDIES = "--overwrite to replace the run in it, or another folder"
UNDER_WAY = "The model is still training. This page will be replaced when it is done."
SHARES = (0.7, 0.2, 0.1)  # of the training time: finer views have slower steps and more to learn
PICTURES = 6
VARIANTS = {
    "as trained": DrawOptions(),
    "with log-scales reduced by 0.5": DrawOptions(scale_shift=-0.5),
    "by MAP sampling": DrawOptions(map=True),
}
IDEA = """We simplify a photograph x₀ step by step: x₁ is x₀ at half the size, and x₂ is x₁ at half the size. Each of
these views has a network that predicts its pixels one by one, given the next simpler view and the pixels above and to
the left. Values that would contradict the simpler view get no probability. The simplest view is predicted on its own.
Together, the three networks give the exact probability of the photograph:"""
FORMULA = "log p(x₀) = log p(x₂) + log p(x₁ | x₂) + log p(x₀ | x₁)"
PAPER = "This is the Pyramid PixelCNN of Kolesnikov and Lampert, PixelCNN models with auxiliary variables (ICML 2017)."
BITS = """Bits per dimension are the negative base-2 logarithm of this probability, divided by the number of sub-pixels
of x₀ (width x height x 3). A lossless codec built from the model would need this many bits per sub-pixel: lower is
better, and a uniform guess needs 8. The three factors add up to the total. Before training, the weights are random and
scaled so that every layer has unit variance on photographs. The files of the lossless codecs include headers, which
matter at this size."""
HONEST = """Expect textured blobs: in {minutes:g} min of training on {photos} photographs, a small network learns about
colors, smooth areas and edges, but not what things look like. Each picture is an exact sample from the model, which
draws the coarsest view first and then each finer view given the last one."""
GIVEN = """Here only the finest factor draws, given the coarse view of photographs that it was not trained on. The
random numbers are the same in every row: first as trained, then with less variance."""
NOTICE = """Photographs from the Cloudinary Image Dataset '22 (CID22), https://cloudinary.com/labs/cid22, by
Cloudinary, CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/), reduced to {size}x{size}."""
ZOO = """These faces come from a model in `pixelcnn-zoo`, which was trained for hours on one core and minutes on a
GPU. Each column is one face, drawn from 8x8 pixels up by MAP sampling, which takes the mode of a mixture component
for each pixel, as the paper does for its faces. Plain samples are more varied, but most have flaws at this size: try
`pixelcnn sample faces128-pyramid`. `pixelcnn models` lists all models with their data and terms."""
ENLARGED = """A model of photographs enlarges small pictures by drawing plausible details. Reduced again, each result is
identical to the picture it was given, to the last bit."""
NEXT_STEPS = "Train the model further, score it, sample from it, and see the other models:"


def run_demo(
    folder: Path,
    *,
    minutes: float = 1.0,
    size: int = 32,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Train a small model for a few minutes, and save it to a folder with a page about it.

    Without `pixelcnn-zoo`, the sections that show its models are left out, and a line on standard error says so.

    Args:
        folder: the folder for the run and its `report.html`.
        minutes: training time of all factors together. Scoring and sampling take additional time.
        size: side of the photographs, at most 128.
        seed: seed of the weights, the training and the samples.
        device: where to compute; "auto" is the accelerator if there is one, else the CPU.
        overwrite: replace the run in the folder, with its `report.html` and `faces.png`.
        progress: show progress bars.

    Returns:
        The path of the report.

    Raises:
        ValueError: if the folder is not empty or holds something else, or an argument is out of range.
    """
    _check_folder(folder, overwrite)
    if not 0 < minutes < math.inf:
        raise ValueError(f"minutes={minutes!r}: use a number above 0")
    place = find_device(device)
    photos, held_out = (load_images("photos", split, size=size, progress=progress) for split in ("train", "test"))
    recipe = find_recipe(RECIPE)
    recipe = replace(recipe, size=size, minutes=minutes, training=replace(recipe.training, seed=seed))
    missing = {name: reason for name in (FACES, COLORS) if (reason := why_missing(name))}
    for reason in missing.values():
        print(f"pixelcnn: left out: {reason}", file=sys.stderr)
    begin_run(folder, _notes(recipe, photos), overwrite=overwrite, remedies=REMEDIES)
    write_atomically(folder / PAGE, page(TITLE, [Section("In progress", [UNDER_WAY])]).encode())
    options = ReportOptions(seed=seed, device=device, progress=progress)
    faces = [] if FACES in missing else [_faces(folder, options)]
    torch.manual_seed(seed)
    model = recipe.model().to(place)
    for factor, link in zip(model.factors, model.links(photos.batch(range(INITIAL_IMAGES))), strict=True):
        factor.initialize(*link)
    scores = {"before training": evaluate(model, held_out, progress=progress)}
    _train(model, photos, folder, recipe, options)
    scores["after training"] = evaluate(model, held_out, progress=progress)
    codecs = codec_bits_per_dim(held_out, progress=progress)
    totals = {name: score.bits_per_dim for name, score in scores.items()} | codecs
    sections = [
        *faces,
        Section("The idea", [IDEA, Code(FORMULA), PAPER]),
        Section("Bits per dimension", [BITS, _table(model, scores, codecs, size), Chart(bars(totals), "The totals")]),
        Section("Training", [Chart(_curves(model, folder, size), "Each factor on training photographs")]),
        Section("Samples", [
            HONEST.format(minutes=minutes, photos=len(photos)),
            Gallery(_samples(model, size, seed, progress), "Each column is one sample"),
        ]),
        Section("Samples given a real coarse view", [
            GIVEN,
            Gallery(_samples_given_view(model, held_out, seed, progress), NOTICE.format(size=size)),
        ]),
        _enlarged(options),
        *([] if COLORS in missing else _colored(options)),
        Section("Next steps", [NEXT_STEPS, Code(_commands(folder, recipe))]),
    ]  # fmt: skip
    path = folder / PAGE
    write_atomically(path, page(TITLE, sections).encode())
    _print(f"{len(held_out)} held-out photographs at {size}x{size}", totals, path)
    return path


def _check_folder(folder: Path, overwrite: bool) -> None:
    """Raise a ValueError if a folder is neither empty nor a run, or has a page that is not from a demonstration."""
    check_run_folder(folder, overwrite=overwrite, remedies=REMEDIES)
    others = [name for name in (PAGE, FACES_PICTURE) if (folder / name).exists()]
    if others and not has_title(folder / PAGE, TITLE):
        raise ValueError(f"{str(folder / others[0])!r} was not made by a demonstration: name another folder")


def _notes(recipe: Recipe, photos: Images) -> dict[str, Any]:
    data = {"source": recipe.source, "size": recipe.size, "crop": None, "fingerprint": photos.fingerprint}
    return {"training": asdict(recipe.training), "recipe": RECIPE, "data": data}


def _faces(folder: Path, options: ReportOptions) -> Section:
    """Draw faces, and update `faces.png` after every view."""
    subject, path = find_subject(FACES, options), folder / FACES_PICTURE
    strips: list[Strip] = []
    drawing = DrawOptions(map=True, progress=options.progress)
    for k, view in sample_views(subject.model, PICTURES, subject.size, seed=options.seed, options=drawing):
        strips.append((subject.views[k], view, subject.model.levels))
        save_picture(sheet(strips, height=subject.size), path)
    print(path)
    seeds = f"seeds {options.seed} to {options.seed + PICTURES - 1}"
    return Section("Faces", [ZOO, Gallery(strips, f"MAP samples of `{FACES}`, {seeds}")])


def _colored(options: ReportOptions) -> list[Section]:
    """Color photographs of which only the gray view is given."""
    figures = ["colorings of real images"]
    return subject_sections(
        find_subject(COLORS, options), figures=figures, seed=options.seed, progress=options.progress
    )


def _enlarged(options: ReportOptions) -> Section:
    """Enlarge reduced photographs."""
    subject = find_subject(ENLARGER, options)
    x = load_images("photos", "test", size=subject.size).batch(range(PICTURES))
    given = subject.model.views(x)[-1]
    factor = x.shape[2] // given.shape[2]
    strips: list[Strip] = [("given", given, 256)]
    for variant, choice in VARIANTS.items():
        drawing = replace(choice, progress=options.progress)
        drawn = upscale(subject.model, given, factor, seed=options.seed, options=drawing)
        strips.append((f"drawn {variant}", drawn, 256))
    strips.append(("the photographs", x, 256))
    return Section("Enlarged photographs", [ENLARGED, Gallery(strips, NOTICE.format(size=subject.size))])


def _train(model: ImageModel, photos: Images, folder: Path, recipe: Recipe, options: ReportOptions) -> None:
    """Train as `pixelcnn train` does, the coarsest factor first, but give each factor its own share of the time."""
    run = Run(
        sheet_minutes=0,
        notes=_notes(recipe, photos),
        overwrite=True,
        progress=options.progress,
        device=options.device,
    )
    for k in reversed(range(len(SHARES))):
        minutes, run = recipe.minutes * SHARES[k], replace(run, factor=k, resume=k + 1 < len(SHARES))
        train(model, photos, folder, recipe.training, minutes=minutes, run=run)


def _views(model: ImageModel, size: int) -> list[str]:
    return [f"{W}x{H}" for H, W in model.sizes((size, size))]


def _table(model: ImageModel, scores: dict[str, Evaluation], codecs: dict[str, float], size: int) -> Table:
    views = _views(model, size)
    header = ["", "total", *(f"{view} given {coarser}" for view, coarser in pairwise(views)), views[-1]]
    rows = [[name, f"{s.bits_per_dim:.3f}", *(f"{bits:.3f}" for bits in s.factors)] for name, s in scores.items()]
    rows += [[name, f"{bits:.3f}", *("" for _ in views)] for name, bits in codecs.items()]
    images = scores["after training"].images
    return Table(header, rows, f"Bits per dimension of {images} photographs that the model was not trained on")


def _curves(model: ImageModel, folder: Path, size: int) -> Drawing:
    histories = {}
    for k, view in enumerate(_views(model, size)):
        points = read_history(folder / f"factor-{k}" / HISTORY)
        histories[f"factor {k}, {view}"] = [point for _, point in points]
    return curves(histories)


def _samples(model: ImageModel, size: int, seed: int, progress: bool) -> list[Strip]:
    """Draw samples, and show their views from the coarsest to the finest."""
    names, options = _views(model, size), DrawOptions(progress=progress)
    return [(names[k], x, model.levels) for k, x in sample_views(model, PICTURES, size, seed=seed, options=options)]


def _samples_given_view(model: ImageModel, held_out: Images, seed: int, progress: bool) -> list[Strip]:
    """Show a real view, the samples of the finest factor given it in all variants, and the photograph."""
    x, given, *_ = model.views(held_out.batch(range(PICTURES)))
    fine, coarse, *_ = _views(model, held_out.size[0])
    drawn = []
    for variant, choice in VARIANTS.items():
        options = replace(choice, progress=progress and "sampling given a view")
        sampled = sample(model, PICTURES, held_out.size, seed=seed, given=(1, given), options=options)
        drawn.append((f"{fine}, drawn {variant}", sampled, model.levels))
    return [(f"{coarse}, given", given, model.levels), *drawn, (f"{fine}, the photograph", x, model.levels)]


def _commands(folder: Path, recipe: Recipe) -> str:
    run, size, seed = shlex.quote(str(folder)), recipe.size, recipe.training.seed
    options = (f" --size {size}" if size != find_recipe(RECIPE).size else "") + (f" --seed {seed}" if seed else "")
    return f"""\
pixelcnn train {RECIPE} --out {run} --resume --minutes 10{options}
pixelcnn evaluate {run} --codecs
pixelcnn sample {run} --map --out samples.png
pixelcnn models"""


def _print(title: str, totals: dict[str, float], path: Path) -> None:
    listing = Listing("", "bits per dimension", title=title)
    for name, bits in totals.items():
        listing.add_row(name, f"{bits:.3f}")
    Console().print(listing)
    print(path)
