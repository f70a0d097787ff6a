"""Configurations (configs): everything about a model except its weights, checked once.

A config file is JSON, possibly from a stranger, so there are limits to what it may ask for (`MOST`, `MOST_BLOCKS`,
`MOST_PARAMETERS`). A file that asks for more is refused before anything is allocated. The limits are far above the
published models, of which the largest has 135 million parameters and the deepest about 80 blocks. They apply to files
only: in Python, a model may be as large as the machine allows, but beyond the limits it cannot be loaded from a file.
"""

__all__ = ["DEFAULTS", "MOST_PARAMETERS", "ModelConfig", "ModelOptions", "PerFactor"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import cached_property
from typing import Any, TypedDict, cast

from pixelcnn.auxiliary.base import AUXILIARIES, Auxiliary
from pixelcnn.auxiliary.chain import Chain, require_cells
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.common.checks import check_whole
from pixelcnn.common.text import LONGEST_MESSAGE, shorten
from pixelcnn.likelihoods.base import LIKELIHOODS, Likelihood
from pixelcnn.likelihoods.logistic import DEFAULT_LOG_SCALES, LogisticMixture, LogScales, check_log_scales
from pixelcnn.likelihoods.tabular import Categorical

PerFactor = int | Sequence[int]
"""One number for all factors, or a sequence with a number for each, the factor of the image first."""

MOST = {
    "levels": 2**16,
    "components": 1_000,
    "filters": 10_000,
    "blocks": 200,
    "scales": 12,
    "embedding_filters": 10_000,
    "embedding_blocks": 200,
    "embedding_scales": 12,
    "classes": 1_000_000,
    "size": 1_000_000,
}
MOST_VIEWS = 16
MOST_SHRINKAGE = 64  # of an auxiliary variable
MOST_OUTPUTS = 2**16  # parameters of the distribution of a pixel
MOST_BLOCKS = 1_000  # of all networks together
MOST_PARAMETERS = 4_000_000_000
MOST_CATEGORICAL_LEVELS = 16  # the paper's 4-bit gray view; with more levels, their order matters
BUILT_IN = (Downsample, QuantizedGrayscale, LogisticMixture, Categorical)  # importing them registers them


class ModelOptions(TypedDict, total=False):
    """The fields of `ModelConfig` besides the format of the images and the chain."""

    likelihoods: Sequence[Likelihood | None] | None
    components: int
    log_scales: LogScales
    filters: PerFactor
    blocks: PerFactor
    scales: PerFactor
    embedding_filters: PerFactor | None
    embedding_blocks: PerFactor
    embedding_scales: PerFactor
    dropout: float
    classes: int
    consistent: bool
    size: int | Sequence[int] | None


@dataclass(frozen=True)
class ModelConfig:
    """The configuration of an image model; see `ImageModel` for the fields.

    Options for each factor are always stored as lists of K + 1 (or K) numbers.

    Raises:
        ValueError: if a field is out of range, or a sequence does not fit the length of the chain.

    Example:
        >>> from pixelcnn import Downsample
        >>> from pixelcnn.models.config import ModelConfig
        >>> config = ModelConfig(auxiliaries=[Downsample(2)], filters=32, blocks=(3, 2))
        >>> config.filters, config.blocks
        ([32, 32], [3, 2])
        >>> ModelConfig.from_json(config.to_json()) == config
        True
    """

    channels: int = 3
    levels: int = 256
    auxiliaries: Sequence[Auxiliary] = ()
    likelihoods: Sequence[Likelihood | None] | None = None
    components: int = 10
    log_scales: LogScales = DEFAULT_LOG_SCALES
    filters: PerFactor = 160
    blocks: PerFactor = 5
    scales: PerFactor = 3
    embedding_filters: PerFactor | None = None
    embedding_blocks: PerFactor = 3
    embedding_scales: PerFactor = 2
    dropout: float = 0.5
    classes: int = 0
    consistent: bool = True
    size: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        check_whole(components=self.components)
        check_whole(classes=self.classes, at_least=0)
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout!r}: use a number of at least 0 and below 1")
        if not isinstance(self.consistent, bool):
            raise ValueError(f"consistent={self.consistent!r}: use True or False")
        chain = Chain(self.channels, self.levels, self.auxiliaries)
        K = len(chain.auxiliaries)
        filters = per_factor(K + 1, filters=self.filters)
        embedded = filters[:K] if self.embedding_filters is None else self.embedding_filters
        settled: dict[str, Any] = {
            "auxiliaries": chain.auxiliaries,
            "log_scales": check_log_scales(self.log_scales),
            "filters": filters,
            "blocks": per_factor(K + 1, blocks=self.blocks),
            "scales": per_factor(K + 1, scales=self.scales),
            "embedding_filters": per_factor(K, embedding_filters=embedded),
            "embedding_blocks": per_factor(K, embedding_blocks=self.embedding_blocks),
            "embedding_scales": per_factor(K, embedding_scales=self.embedding_scales),
            "size": _check_size(self.size),
        }
        for name, value in settled.items():
            object.__setattr__(self, name, value)  # normalized once, before anyone sees it
        self._check_likelihoods(chain)
        if self.consistent:
            for auxiliary in chain.auxiliaries:
                require_cells(auxiliary)

    def _check_likelihoods(self, chain: Chain) -> None:
        if self.likelihoods is None:
            return
        if not isinstance(self.likelihoods, list | tuple) or len(self.likelihoods) != len(chain.formats):
            raise ValueError(
                f"likelihoods={self.likelihoods!r}: use one for each of the {len(chain.formats)} views, or None for "
                "its default"
            )
        for likelihood, form in zip(self.likelihoods, chain.formats, strict=True):
            if likelihood is None:
                continue
            if not isinstance(likelihood, Likelihood) or (likelihood.channels, likelihood.levels) != form:
                raise ValueError(f"likelihoods: {likelihood!r} is not one of {form[0]} channels and {form[1]} levels")

    @property
    def sides(self) -> tuple[int, int] | None:
        """(H, W) of the images that the model is trained on; None if unknown."""
        return cast("tuple[int, int] | None", self.size)

    @cached_property
    def chain(self) -> Chain:
        """The chain of views."""
        return Chain(self.channels, self.levels, self.auxiliaries)

    def likelihood(self, k: int) -> Likelihood:
        """Return the likelihood of a pixel of view k."""
        if self.likelihoods is not None and (given := self.likelihoods[k]) is not None:
            return given
        channels, levels = self.chain.formats[k]
        if channels == 1 and levels <= MOST_CATEGORICAL_LEVELS:
            return Categorical(levels)
        return LogisticMixture(channels, levels, self.components, self.log_scales)

    def of_factor(self, name: str, k: int) -> int:
        """Return the option `name` of factor k."""
        return cast("list[int]", getattr(self, name))[k]

    def of_view(self, k: int) -> "ModelConfig":
        """Return the configuration of the part of the chain from view k on."""
        channels, levels = self.chain.formats[k]
        numbers = {name: getattr(self, name)[k:] for name in PER_FACTOR}
        return replace(
            self,
            channels=channels,
            levels=levels,
            auxiliaries=self.auxiliaries[k:],
            likelihoods=None if self.likelihoods is None else self.likelihoods[k:],
            size=None if self.sides is None else self.chain.sizes(self.sides)[k],
            **numbers,
        )

    def to_json(self) -> dict[str, Any]:
        """Convert the configuration to the types of JSON; the inverse of `from_json`.

        Raises:
            ValueError: if an auxiliary variable or a likelihood could not be loaded again (see `Registry.describe`).
        """
        value: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        value["auxiliaries"] = [AUXILIARIES.describe(auxiliary) for auxiliary in self.auxiliaries]
        if self.likelihoods is None:
            del value["likelihoods"]
        else:
            value["likelihoods"] = [None if each is None else LIKELIHOODS.describe(each) for each in self.likelihoods]
        return value | {name: list(value[name]) for name in ("log_scales", "size") if value[name] is not None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ModelConfig":
        """Make a configuration from the content of a file, within the limits of files.

        Raises:
            ValueError: if a field is unknown, or a value is out of range or beyond the limits.
        """
        known = [each.name for each in fields(cls)]
        for name in value:
            if name not in known:
                near = get_close_matches(name[:LONGEST_MESSAGE], known, 1)
                hint = f", did you mean {near[0]!r}?" if near else f"; the fields are {', '.join(known)}"
                raise ValueError(f"unknown field {shorten(repr(name))}{hint}")
        try:
            _check_limits(value)
            made: dict[str, Any] = {"auxiliaries": _build_all(value.get("auxiliaries", []))}
            if value.get("likelihoods") is not None:
                made["likelihoods"] = _build_likelihoods(value["likelihoods"])
            return cls(**{**value, **made})
        except (TypeError, ValueError) as error:
            raise ValueError(shorten(str(error))) from None


PER_FACTOR = ("filters", "blocks", "scales", "embedding_filters", "embedding_blocks", "embedding_scales")


def per_factor(number: int, **argument: Any) -> list[int]:
    """Spread an option over the factors: a list of `number` whole numbers, from one number or a sequence."""
    ((name, value),) = argument.items()
    values: list[Any] = list(value) if isinstance(value, list | tuple) else [value] * number
    if len(values) != number:
        raise ValueError(f"{name}={value!r}: use one number, or one for each of the {number} factors of this chain")
    for each in values:
        check_whole(1, **{name: each})
    return values


def _check_size(size: object) -> tuple[int, int] | None:
    """Return (H, W) from (H, W), one number for squares, or None."""
    sides = [size, size] if isinstance(size, int) else size
    if sides is None:
        return None
    if not isinstance(sides, list | tuple) or len(sides) != 2:
        raise ValueError(f"size={size!r}: use one number for squares, (H, W), or None if it is unknown")
    for side in sides:
        check_whole(size=side)
    return sides[0], sides[1]


def _build_all(value: Any) -> list[Auxiliary]:
    """Build the chain from its form in a file: [{"name": "Downsample", "factor": 2}, ...]."""
    if not isinstance(value, list):
        raise ValueError(f"auxiliaries={value!r}: use a list of objects, each with a name")
    if len(value) > MOST_VIEWS:
        raise ValueError(f"{len(value)} auxiliaries: at most {MOST_VIEWS} can be loaded")
    auxiliaries = [AUXILIARIES.build(each) for each in value]
    for auxiliary in auxiliaries:
        if auxiliary.shrinkage > MOST_SHRINKAGE:
            raise ValueError(f"{auxiliary!r}: views at most {MOST_SHRINKAGE} times smaller can be loaded")
    return auxiliaries


def _build_likelihoods(value: Any) -> list[Likelihood | None]:
    """Build the likelihoods from their form in a file: null for the default, or an object as for the chain."""
    if not isinstance(value, list):
        raise ValueError(f"likelihoods={value!r}: use a list of objects, each with a name, or null")
    likelihoods = [None if each is None else LIKELIHOODS.build(each) for each in value]
    for likelihood in filter(None, likelihoods):
        if likelihood.num_params > MOST_OUTPUTS:
            raise ValueError(f"{likelihood!r}: at most {MOST_OUTPUTS} parameters of a pixel can be loaded")
    return likelihoods


def _check_limits(config: Mapping[str, Any]) -> None:
    """Raise a ValueError for numbers beyond the limits. Values of a wrong type are left for the model to refuse."""
    for name, most in MOST.items():
        value = config.get(name)
        values = value if isinstance(value, list) else [value]
        if any(isinstance(each, int | float) and each > most for each in values):
            raise ValueError(f"{name}={value!r}: at most {most} can be loaded")
    chain = config.get("auxiliaries", [])
    factors = 1 + min(len(chain), MOST_VIEWS) if isinstance(chain, list) else 1
    blocks = 0
    for prefix in ("", "embedding_"):
        numbers, scales = (config.get(prefix + name, DEFAULTS[prefix + name]) for name in ("blocks", "scales"))
        pairs = zip(_spread(numbers, factors), _spread(scales, factors), strict=False)
        blocks += sum(2 * n * s for n, s in pairs if isinstance(n, int) and isinstance(s, int))
    if blocks > MOST_BLOCKS:
        raise ValueError(f"a model of about {blocks} blocks: at most {MOST_BLOCKS} can be loaded")


def _spread(value: Any, number: int) -> list[Any]:
    return value if isinstance(value, list) else [value] * number


DEFAULTS = {each.name: each.default for each in fields(ModelConfig)}
