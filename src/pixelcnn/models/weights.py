"""Weights in safetensors files, with notes (a few strings by name) and a checksum."""

__all__ = [
    "DTYPES",
    "HASH",
    "check_tensors",
    "checksum",
    "first_not_finite",
    "open_tensors",
    "parse_note",
    "read_tensors",
    "serialize",
]

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from pixelcnn.common.files import AGAIN
from pixelcnn.common.strict_json import parse_json
from pixelcnn.common.text import shorten

HASH, NOTES = "weights_sha256", "pixelcnn"  # in config.json, and in the metadata of safetensors files
MOST_HEADER = 2**24  # bytes at the beginning of a safetensors file: names and shapes
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def check_tensors(file: Any, expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Raise a ValueError for the first tensor of an open file that is missing, extra, or of the wrong shape or type.

    Args:
        file: an open file, from `open_tensors`.
        expected: the shapes that config.json asks for.
        path: of the file, for the message.
    """
    found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    for name in sorted(expected.keys() | found.keys()):
        ours, theirs = expected.get(name, "none"), tuple(found[name].get_shape()) if name in found else "none"
        if ours != theirs:
            difference = shorten(f"{name} is {theirs}, config.json asks for {ours}")
            raise ValueError(f"{path} belongs to another configuration: {difference}")
        if (dtype := found[name].get_dtype()) not in DTYPES:
            raise ValueError(f"{path}: {name} is of type {dtype}; weights are of type {' or '.join(DTYPES)}")


@contextmanager
def open_tensors(path: Path, remedy: str) -> Iterator[tuple[Any, dict[str, str]]]:
    """Open a safetensors file: yield it and its notes.

    Args:
        path: of the file.
        remedy: what to do if the file is missing or damaged, for the message of the ValueError.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing: {remedy}")
    try:
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > MOST_HEADER:
            raise ValueError(f"{path} is damaged (a header of {header} bytes): {remedy}")
        with safetensors.safe_open(path, "pt") as file:
            notes = file.metadata() or {}
            # All notes are in one entry, since safetensors writes entries in any order. Earlier versions wrote several.
            yield file, (parse_note(path, notes[NOTES]) if NOTES in notes else notes)
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged ({shorten(str(error))}): {remedy}") from None


def parse_note(path: Path, text: object) -> dict[str, Any]:
    """Parse a note that holds a JSON object; raise a ValueError that names the file if it does not."""
    try:
        return parse_json(str(text))
    except ValueError as error:
        raise ValueError(f"{path} is damaged (its notes: {shorten(str(error))}): {AGAIN}") from None


def read_tensors(file: Any, notes: Mapping[str, str], path: Path, remedy: str) -> dict[str, Tensor]:
    """Read the tensors of an open file; raise a ValueError if they do not match the checksum in its notes."""
    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    if "sha256" in notes and notes["sha256"] != checksum(tensors):
        raise ValueError(f"{path} is damaged (its checksum differs): {remedy}")
    return tensors


def serialize(tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> tuple[bytes, str]:
    """Make the content of a safetensors file with notes and a checksum; return the content and the checksum."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    digest = checksum(tensors)
    return safetensors.torch.save(tensors, {NOTES: json.dumps({**notes, "sha256": digest})}), digest


def first_not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor with a value that is not finite; None if there is none."""
    return next((name for name in sorted(weights) if not weights[name].isfinite().all()), None)


def checksum(weights: Mapping[str, Tensor]) -> str:
    """Compute the SHA-256 of all tensors in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
