"""Configurations: from JSON that anybody may have written to a model without weights, or to one clear error.

A `config.json` holds the keyword arguments of `ImageModel`. What it may ask for is limited (`MOST`, `MOST_BLOCKS`,
`MOST_PARAMETERS`, `MOST_JSON`), far above the published models, of which the largest has 135 million parameters and the
deepest some 80 blocks: a file that asks for the impossible is refused before anything is allocated. The limits are
those of files; in Python a model may be as large as the machine allows, but beyond them it cannot be loaded.
"""

__all__ = ["build_model", "parse_json", "shorten"]

import inspect
import json
import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from pixelcnn.auxiliary import Auxiliary, Downsample, QuantizedGrayscale
from pixelcnn.models import ImageModel

MOST_JSON = 2**20  # bytes
MOST_NESTED = 16  # objects and lists inside one another
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
MOST_FACTOR = 64  # of a `Downsample`
MOST_BLOCKS = 1_000  # of all networks together
MOST_PARAMETERS = 4_000_000_000
AUXILIARIES: dict[str, type[Auxiliary]] = {cls.__name__: cls for cls in (Downsample, QuantizedGrayscale)}
LONGEST_MESSAGE = 400


def parse_json(content: bytes | str) -> dict[str, Any]:
    """The object that JSON describes.

    Raises:
        ValueError: for anything else, and for what JSON leaves open or forbids and parsers let pass: names that come
            twice, NaN and infinities, and more bytes or nested lists than we ever write.
    """
    if len(content) > MOST_JSON:
        raise ValueError(f"{len(content)} bytes, more than the {MOST_JSON} that it may have")
    try:
        value = json.loads(content, object_pairs_hook=_object, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError(f"lists nested deeper than {MOST_NESTED}") from None
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__}, not an object")
    if _is_nested(value, MOST_NESTED):
        raise ValueError(f"lists nested deeper than {MOST_NESTED}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {shorten(repr(name))} comes twice")
        found[name] = value
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shorten(text)} is not a finite number")
    return value


def _is_nested(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested deeper than so many levels."""
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_nested(each, levels - 1) for each in inside)


def shorten(text: str) -> str:
    """One readable line, with the beginning and the end of what is longer: a message may quote a whole file."""
    text = " ".join(text.split())
    half = LONGEST_MESSAGE // 2
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:half]} ... {text[-half:]}"


def build_model(config: Mapping[str, Any]) -> ImageModel:
    """The model that a configuration describes, on the device "meta": its weights have a shape and no values yet.

    Raises:
        ValueError: for an unknown field, a value out of range, or a model beyond the limits.
    """
    known = [name for name in inspect.signature(ImageModel.__init__).parameters if name != "self"]
    for field in config:
        if field not in known:
            near = get_close_matches(field[:LONGEST_MESSAGE], known, 1)
            hint = f", did you mean {near[0]!r}?" if near else f"; the fields are {', '.join(known)}"
            raise ValueError(f"unknown field {shorten(repr(field))}{hint}")
    try:
        _check_limits(config)
        arguments = {**config, "auxiliaries": _auxiliaries(config.get("auxiliaries", []))}
        with torch.device("meta"), _WithoutValues():
            model = ImageModel(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(shorten(str(error))) from None
    if (number := sum(parameter.numel() for parameter in model.parameters())) > MOST_PARAMETERS:
        raise ValueError(f"a model of {number} parameters: at most {MOST_PARAMETERS} can be loaded")
    return model


class _WithoutValues(TorchFunctionMode):
    """Leave out the drawing of fresh weights, which on the device "meta" have no values.

    For it torch would load its compiler, which takes a second.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.nn.init.normal_, torch.Tensor.mul, torch.Tensor.__mul__):
            return args[0] if args else None
        return (torch.empty if func is torch.randn else func)(*args, **(kwargs or {}))


def _check_limits(config: Mapping[str, Any]) -> None:
    """A ValueError for numbers beyond the limits; those of a wrong type are left to the model itself."""
    for name, most in MOST.items():
        value = config.get(name)
        values = value if isinstance(value, list) else [value]
        if any(isinstance(each, int | float) and each > most for each in values):
            raise ValueError(f"{name}={value!r}: at most {most} can be loaded")
    chain = config.get("auxiliaries", [])
    if isinstance(chain, list) and len(chain) > MOST_VIEWS:
        raise ValueError(f"{len(chain)} auxiliaries: at most {MOST_VIEWS} can be loaded")
    factors = 1 + len(chain) if isinstance(chain, list) else 1
    defaults = inspect.signature(ImageModel.__init__).parameters
    blocks = 0
    for prefix in ("", "embedding_"):
        numbers, scales = (config.get(prefix + name, defaults[prefix + name].default) for name in ("blocks", "scales"))
        pairs = zip(_per_factor(numbers, factors), _per_factor(scales, factors), strict=False)
        blocks += sum(2 * n * s for n, s in pairs if isinstance(n, int) and isinstance(s, int))
    if blocks > MOST_BLOCKS:
        raise ValueError(f"a model of about {blocks} blocks: at most {MOST_BLOCKS} can be loaded")


def _per_factor(value: Any, number: int) -> list[Any]:
    return value if isinstance(value, list) else [value] * number


def _auxiliaries(value: Any) -> list[Auxiliary]:
    """The chain from its form in the config: [{"name": "Downsample", "factor": 2}, ...]."""
    chain = []
    for fields in value if isinstance(value, list) else [value]:
        name = fields.get("name") if isinstance(fields, dict) else None
        if not isinstance(name, str) or name not in AUXILIARIES:
            names = ", ".join(AUXILIARIES)
            raise ValueError(f"auxiliaries={value!r}: use a list of objects, each with a name out of {names}")
        numbers = {field: number for field, number in fields.items() if field != "name"}
        for field, number in numbers.items():
            if isinstance(number, int) and number > MOST_FACTOR:
                raise ValueError(f"{field}={number!r} of {name}: at most {MOST_FACTOR} can be loaded")
        chain.append(AUXILIARIES[name](**numbers))
    return chain
