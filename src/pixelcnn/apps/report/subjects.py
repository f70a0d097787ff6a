"""The models of a report and their scores."""

__all__ = ["ReportOptions", "Score", "Subject", "by_resolution", "find_subject"]

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.common.checks import check_whole
from pixelcnn.data.decode import Crop
from pixelcnn.data.images import Images, load_images, load_unseen
from pixelcnn.data.sources import NothingHeldOutError
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load
from pixelcnn.models.shipped import is_shipped
from pixelcnn.tasks.lossless import codec_bits_per_dim
from pixelcnn.tasks.scoring import evaluate
from pixelcnn.training.runs import data_of


@dataclass(frozen=True)
class Score:
    """Bits per sub-pixel of the image. The factors, the finest first, add up to the total."""

    total: float
    factors: list[float]
    images: int
    source: str


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained model with its images and scores.

    Attributes:
        name: the last part of the folder or name that the user gave.
        model: the model.
        size: side of its images.
        source: the training data, in words.
        images: the images of the splits `train` and `test`, if available. `train` has only images it was trained on.
        scores: the scores on these splits.
        codecs: bits per dimension of lossless codecs on the images of the test score.
    """

    name: str
    model: ImageModel
    size: int
    source: str
    images: dict[str, Images]
    scores: dict[str, Score]
    codecs: dict[str, float]

    @property
    def bound(self) -> str:
        """The sign before a total, which marks it as an upper bound if the views are free."""
        return "" if self.model.consistent or not self.model.auxiliaries else "≤ "

    @property
    def views(self) -> list[str]:
        return [f"{W}x{H}" for H, W in self.model.sizes((self.size, self.size))]

    @property
    def gray(self) -> bool:
        first = self.model.auxiliaries[:1]
        return self.model.formats[0][0] == 3 and any(isinstance(each, QuantizedGrayscale) for each in first)

    @property
    def pyramid(self) -> bool:
        return any(isinstance(auxiliary, Downsample) for auxiliary in self.model.auxiliaries)


@dataclass(frozen=True)
class ReportOptions:
    """Options of a report, mostly about the images to score its models on.

    Args:
        data, size, crop, skip_broken: the images to score all models on, as in `load_images`. By default each model is
            scored on its own data. The images of shipped models are not included, so their cards provide the scores.
        limit: maximum number of images to score from each split.
        seed: seed of the samples.
        device: where to put the models, as in `load`.
        progress: show progress bars.
    """

    data: str | None = None
    size: int | None = None
    crop: Crop | None = None
    skip_broken: bool = False
    limit: int = 200
    seed: int = 0
    device: str = "cpu"
    progress: bool = False

    def __post_init__(self) -> None:
        check_whole(limit=self.limit)
        check_whole(at_least=0, seed=self.seed)


def find_subject(name: str, options: ReportOptions | None = None) -> Subject:
    """Load a model and score it on its images; for a shipped model, read the scores from its card.

    Raises:
        ValueError: if there is no such model, it has classes or not 256 levels, or its images are not available.
    """
    given = options or ReportOptions()
    model = load(name, device=given.device)
    if model.classes or model.levels != 256:
        raise ValueError(
            f"{name!r} has {model.classes} classes and {model.levels} levels: reports need models of 8-bit images "
            "without classes"
        )
    card = model.card if is_shipped(name) else {}
    trained = data_of(Path(name))
    short = Path(name).resolve().name
    side: int = given.size or trained.get("size") or model.side or 32
    if given.data is None and "source" not in trained:
        scores = {split: Score(**score) for split, score in card.get("scores", {}).items()}
        source = ", ".join(dict.fromkeys(part["source"] for part in card.get("data", [])))
        return Subject(short, model, side, source, {}, scores, card.get("codecs", {}))
    how: dict[str, Any] = {
        "size": side,
        "crop": given.crop or (trained.get("crop") if given.data is None else None),
        "skip_broken": given.skip_broken,
        "channels": model.formats[0][0],
        "progress": given.progress,
    }
    images, scores = {}, {}
    if given.data is not None:
        images["test"] = load_unseen(given.data, trained, **how)
    else:
        images["train"] = load_images(trained["source"], "train", **how)
        with suppress(NothingHeldOutError):  # then the report has no scores on held-out images
            images["test"] = load_images(trained["source"], "test", **how)
    for split in images:
        result = evaluate(model, images[split], limit=given.limit, progress=given.progress)
        scores[split] = Score(result.bits_per_dim, result.factors, result.images, images[split].name)
    codecs = codec_bits_per_dim(images["test"], limit=given.limit, progress=given.progress) if "test" in images else {}
    return Subject(short, model, side, given.data or trained["source"], images, scores, codecs)


def by_resolution(subject: Subject) -> dict[int, float]:
    """Compute the bits per sub-pixel of each color view, counting its factor and all coarser ones, by its side."""
    sizes, formats = subject.model.sizes((subject.size, subject.size)), subject.model.formats
    factors = subject.scores["test"].factors
    pixels = [channels * H * W for (channels, _), (H, W) in zip(formats, sizes, strict=True)]
    return {
        H: sum(factors[k:]) * pixels[0] / pixels[k]
        for k, ((channels, levels), (H, _)) in enumerate(zip(formats, sizes, strict=True))
        if (channels, levels) == formats[0]
    }
