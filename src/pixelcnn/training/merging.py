"""Models whose factors were trained in separate folders, by runs that never met."""

__all__ = ["check_model_folder", "merge_runs"]

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelcnn.common.files import AGAIN
from pixelcnn.common.text import shorten
from pixelcnn.models.files import WEIGHTS, read_config
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load, save
from pixelcnn.models.shipped import CONFIG
from pixelcnn.models.weights import open_tensors, read_tensors
from pixelcnn.training.runs import STATE
from pixelcnn.training.same import RUN, differences_of

AVERAGED = "averaged.module."  # the names of the averaged weights in the state of a factor


def merge_runs(folders: Sequence[str | Path], out: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Put together a model from the factors that were trained in several folders, and save it.

    Each factor comes from the run that has trained it, which `factor-K/state.safetensors` shows. A folder that holds
    a model without a run can be one of them: it gives the factors that no run has trained.

    Args:
        folders: of runs and at most one model, all with the same configuration.
        out: the folder for the model. Nothing is written if anything is wrong.
        overwrite: replace a model that is there.

    Returns:
        For each factor, that of the image first, the folder that it comes from.

    Raises:
        ValueError: if the configurations differ, a factor was trained in two folders or in none, or a folder is not
            what it should be.

    Example:
        >>> import pixelcnn
        >>> from pixelcnn.training import merge_runs
        >>> images = pixelcnn.load_images("photos", size=8)
        >>> for k in (0, 1):  # as on two machines
        ...     model = pixelcnn.PyramidPixelCNN(depth=1, filters=4, blocks=1, embedding_blocks=1)
        ...     run = pixelcnn.Run(factor=k, sheet_minutes=0)
        ...     model = pixelcnn.train(model, images, f"run-{k}", pixelcnn.Training(batch_size=4), steps=1, run=run)
        >>> [str(folder) for folder in merge_runs(["run-0", "run-1"], "merged")]
        ['run-0', 'run-1']
        >>> pixelcnn.load("merged").size
        (8, 8)
    """
    places, out = [Path(folder) for folder in folders], Path(out)
    if len({place.resolve() for place in places}) < max(2, len(places)):
        raise ValueError(f"folders={[str(place) for place in places]!r}: name two or more, each once")
    check_model_folder(out, inputs=places, overwrite=overwrite)
    models = {place: load(place) for place in places}
    _check_configurations(models)
    origins = _origins(places, len(models[places[0]].factors))
    model = models[origins[0]]
    for k, place in enumerate(origins):
        model.factors[k].load_state_dict(_weights(place, models[place], k))
    save(model, out)
    return origins


def _check_configurations(models: Mapping[Path, ImageModel]) -> None:
    """Raise a ValueError if models have different configurations, apart from the size of their images."""
    configs = {
        place: json.loads(json.dumps(model.config.to_json() | {"size": None})) for place, model in models.items()
    }
    (here, first), *others = configs.items()
    for there, other in others:
        if found := list(differences_of(first, other)):
            told = "; ".join(f"{name} is {a!r} in {str(here)!r} and {b!r} in {str(there)!r}" for name, a, b in found)
            raise ValueError(f"these are different models, {shorten(told)}: merge runs of the same recipe")


def _origins(places: Sequence[Path], number: int) -> list[Path]:
    """Find the folder that each factor comes from."""
    runs = [place for place in places if (place / RUN).exists()]
    models = [place for place in places if place not in runs]
    if len(models) > 1:
        raise ValueError(
            f"{str(models[0])!r} and {str(models[1])!r} are models without a {RUN}, which would tell what was trained "
            "there: name only one of them, for the factors that no run has trained"
        )
    origins = []
    for k in range(number):
        trained = [place for place in runs if (place / f"factor-{k}" / STATE).is_file()]
        if len(trained) > 1:
            raise ValueError(
                f"factor {k} was trained in {str(trained[0])!r} and in {str(trained[1])!r}: leave out one of the "
                f"folders, or move factor-{k} out of the one that should not count"
            )
        if not (trained or models):
            raise ValueError(
                f"factor {k} was trained in none of the folders: name the folder of its run, or train it with "
                f"--factor {k}"
            )
        origins.append((trained or models)[0])
    return origins


def _weights(place: Path, model: ImageModel, k: int) -> dict[str, Any]:
    """Return the weights of a factor; those of a run from its state, which is written before the model."""
    path = place / f"factor-{k}" / STATE
    if not path.is_file():
        return model.factors[k].state_dict()
    with open_tensors(path, AGAIN) as (file, notes):
        tensors = read_tensors(file, notes, path, AGAIN)
    found = {name.removeprefix(AVERAGED): tensor for name, tensor in tensors.items() if name.startswith(AVERAGED)}
    expected = model.factors[k].state_dict()
    if {name: each.shape for name, each in found.items()} != {name: each.shape for name, each in expected.items()}:
        raise ValueError(f"{path} belongs to another model: {AGAIN}")
    return found


def check_model_folder(out: Path, *, inputs: Sequence[Path], overwrite: bool) -> None:
    """Raise a ValueError if a model cannot be saved in a folder without harm to what is there.

    Args:
        out: the folder.
        inputs: files or folders that the model is made from, which have to stay.
        overwrite: whether a model that is there may be replaced.
    """
    name = str(out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{name!r} is a file: name a folder")
    used = out.is_dir() and any(out.iterdir())
    if used and not overwrite:
        raise ValueError(f"{name!r} is not empty: use --overwrite to replace the model in it, or another folder")
    if (out / RUN).exists():
        raise ValueError(f"{name!r} holds a training run: name another folder")
    written = [out.resolve(), *((out / each).resolve() for each in (CONFIG, WEIGHTS))]
    if harmed := [str(each) for each in inputs if each.resolve() in written]:
        raise ValueError(f"{harmed[0]!r} would be overwritten by what is made from it: name another folder")
    if used:
        try:
            ImageModel.from_config(read_config(out))
        except ValueError:
            raise ValueError(f"{name!r} is not empty and not a model: name another folder") from None
