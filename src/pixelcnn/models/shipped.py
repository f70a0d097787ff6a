"""The zoo: models that come with this package, and models that the package `pixelcnn-zoo` adds.

Each is the folder of a model with a `card.json`, which says where it comes from and holds the SHA-256 of its files.
Models trained on freely licensed photos are in this package. Models trained on faces or on CIFAR-10 are for research
only, so they are in a separate distribution, `pixelcnn-zoo`, whose version must be that of this package.
"""

__all__ = [
    "CARD",
    "CONFIG",
    "RESEARCH_ONLY",
    "check_shipped",
    "distribution",
    "is_shipped",
    "list_models",
    "names_with",
    "shipped_names",
    "why_missing",
    "zoo_card",
    "zoo_folder",
]

import hashlib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pixelcnn.common.strict_json import parse_json

CARD, CONFIG = "card.json", "config.json"
VERSION = version("pixelcnn")
ZOO = Path(__file__).parents[1] / "zoo"
PACKAGE, DISTRIBUTION = "pixelcnn_zoo", "pixelcnn-zoo"
# What a card must have, for the listing and for messages.
FIELDS = {
    "title": str,
    "size": int,
    "parameters": int,
    "data": list,
    "terms": str,
    "bits_per_dim": dict,
    "held_out": str,
    "recipe": str,
    "sha256": dict,
}
RESEARCH_ONLY = ("cifar10-classes", "cifar10-grayscale", "faces128-pyramid", "faces32-grayscale")


def distribution(name: str) -> str:
    """Return the name of the distribution that a shipped model comes with."""
    return DISTRIBUTION if name in RESEARCH_ONLY else "pixelcnn"


def shipped_names() -> list[str]:
    """List the names of all shipped models, including those that are not installed."""
    return sorted({*RESEARCH_ONLY, *(path.parent.name for path in ZOO.glob(f"*/{CONFIG}"))})


def list_models() -> list[str]:
    """List the names of the shipped models that are installed, for `load`.

    The others come with the package `pixelcnn-zoo`: `pip install pixelcnn-zoo`, or `pip install ./zoo` from the
    repository. `pixelcnn models` describes all of them.

    Example:
        >>> import pixelcnn
        >>> "photos-pyramid" in pixelcnn.list_models()
        True
    """
    return [name for name in shipped_names() if why_missing(name) is None]


def names_with(auxiliary: str) -> list[str]:
    """List the installed models without classes whose first auxiliary variable has this registered name."""
    configs = {name: parse_json((zoo_folder(name) / CONFIG).read_bytes()) for name in list_models()}
    return [
        name
        for name, config in configs.items()
        if not config["classes"] and [each["name"] for each in config["auxiliaries"]][:1] == [auxiliary]
    ]


def is_shipped(name: str) -> bool:
    """Return whether this is the name of a shipped model, installed or not, and no local folder holds a model."""
    return name in shipped_names() and not (Path(name) / CONFIG).is_file()


def why_missing(name: str) -> str | None:
    """Explain in one line why a shipped model is missing, and how to get it; None if it is installed."""
    if name not in RESEARCH_ONLY:
        return None
    remedy = f"pip install {DISTRIBUTION}=={VERSION}, or pip install ./zoo from the repository"
    try:
        theirs = import_module(PACKAGE).__version__
    except ImportError:
        return f"{name!r} comes with {DISTRIBUTION}, which is not installed: {remedy}"
    if theirs != VERSION:
        return f"{name!r}: {DISTRIBUTION} {theirs} does not go with pixelcnn {VERSION}: {remedy}"
    return None


def zoo_folder(name: str) -> Path:
    """Return the folder of a shipped model.

    Raises:
        ValueError: if there is no such model, or its distribution is missing or has another version.
    """
    if name not in shipped_names():
        raise ValueError(f"no shipped model {name!r}: there are {', '.join(shipped_names())}")
    if reason := why_missing(name):
        raise ValueError(reason)
    if name not in RESEARCH_ONLY:
        return ZOO / name
    (folder,) = import_module(PACKAGE).__path__
    return Path(folder) / name


def zoo_card(name: str) -> dict[str, Any]:
    """Read the card of a shipped model: its data and their license, how it was trained, and its scores.

    Raises:
        ValueError: if the model is not installed, or its card is damaged.
    """
    path = zoo_folder(name) / CARD
    try:
        card = parse_json(path.read_bytes())
        if lacking := [field for field, kind in FIELDS.items() if not isinstance(card.get(field), kind)]:
            raise ValueError(f"it lacks {lacking[0]!r}")
        return card
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): install {distribution(name)} again") from None


def check_shipped(name: str) -> None:
    """Raise a ValueError if a file of a shipped model does not have the hash in its card."""
    for file, shipped in zoo_card(name)["sha256"].items():
        path = zoo_folder(name) / file
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        if digest != shipped:
            raise ValueError(
                f"{path} is not the file that was shipped (SHA-256 {digest[:12]}, the card says {shipped[:12]}): "
                f"install {distribution(name)} again"
            )
