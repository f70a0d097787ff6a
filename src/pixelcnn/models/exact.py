"""Factors in exact arithmetic, and the hash that says which model it is.

Reference: `pixelcnn.nn.grid`.
"""

__all__ = ["exact_twin", "model_hash"]

import hashlib
import json
from copy import deepcopy

import torch

from pixelcnn.common.devices import device_of
from pixelcnn.models.base import ChainModel
from pixelcnn.models.factor import Factor
from pixelcnn.models.weights import checksum
from pixelcnn.nn.causal import CausalNetwork
from pixelcnn.nn.embedding import EmbeddingNetwork
from pixelcnn.nn.grid import LARGEST, Bound, check_functions, freeze
from pixelcnn.nn.tables import STEPS

NO_FLOAT64 = ("mps",)  # kinds of devices
# The fields of a config that decide the parameters of a pixel. Fields of later versions must not change the hash of a
# model that does not use them.
HASHED = (
    "channels",
    "levels",
    "auxiliaries",
    "likelihoods",
    "components",
    "log_scales",
    "filters",
    "blocks",
    "scales",
    "embedding_filters",
    "embedding_blocks",
    "embedding_scales",
    "classes",
)


def exact_twin(factor: Factor) -> Factor:
    """Make a copy of a factor that gives the same parameters, in float64, on every machine and in every order.

    It is on the device of the factor, unless that device has no float64, in which case it is on the CPU.

    Raises:
        ValueError: if the bounds of a layer fail, which the message names, or this machine computes `exp` with a larger
            error than any sound library.

    Example:
        >>> import torch, pixelcnn
        >>> from pixelcnn.models.exact import exact_twin
        >>> factor = pixelcnn.load("photos-pyramid").factors[2]
        >>> x, twin = torch.randint(0, 256, (2, 3, 5, 6)), exact_twin(factor)
        >>> torch.equal(twin.params(x)[1:], twin.params(x[1:]))
        True
        >>> bool((twin.params(x) - factor.params(x)).abs().max() < 0.5)
        True
    """
    twin = deepcopy(factor).requires_grad_(requires_grad=False).eval()
    if device_of(twin).type in NO_FLOAT64:
        twin = twin.cpu()
    check_functions(device_of(twin))
    context = None if twin.embedding is None else _freeze("embedding", twin.embedding)
    if twin.classes is not None:
        twin.classes.double().weight.mul_(STEPS).round_().clamp_(-LARGEST, LARGEST)
        context = Bound(LARGEST, 1) + (context or Bound(0, 1))
    _freeze("network", twin.network, context)
    return twin


def _freeze(name: str, network: CausalNetwork | EmbeddingNetwork, context: Bound | None = None) -> Bound:
    """Do as `freeze` does, and name the network in errors."""
    try:
        return freeze(network, context)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def model_hash(model: ChainModel) -> bytes:
    """Compute the SHA-256 of everything about a model that decides the parameters of a pixel."""
    config = {name: value for name, value in model.config.to_json().items() if name in HASHED}
    weights = {name: tensor.detach().cpu().to(torch.float32) for name, tensor in model.state_dict().items()}
    text = json.dumps(config, sort_keys=True, separators=(",", ":")) + checksum(weights)
    return hashlib.sha256(text.encode()).digest()
