"""Hashes of images, which decide what is held out and show whether the data changed."""

__all__ = [
    "changed_since",
    "fingerprint",
    "hash_bytes",
    "hash_row",
    "is_held_out",
    "joined_fingerprint",
    "shards_fingerprint",
]

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pixelcnn.data.decode import BrokenImageError, Preparation
from pixelcnn.data.rows import to_record

_HELD_OUT_SHARE = 0.05


def hash_bytes(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def hash_row(index: int, image: dict[str, Any] | None, file: bytes | None) -> bytes:
    try:
        return hash_bytes(to_record(image, file)["bytes"] or b"")
    except BrokenImageError:  # the check reports this file, or skips it
        return hash_bytes(b"")


def is_held_out(hash: bytes) -> bool:
    return int.from_bytes(hash[:8]) < _HELD_OUT_SHARE * 2**64


def fingerprint(hashes: Iterable[bytes], prepare: Preparation) -> dict[str, Any]:
    """Count images, and hash their contents and preparation together; their order does not matter."""
    hashes = sorted(hashes)
    return {"images": len(hashes), "blake2b": hash_bytes(b"".join([_steps(prepare), *hashes])).hex()}


def shards_fingerprint(shards: Mapping[str, int], prepare: Preparation) -> dict[str, Any]:
    """Count shards, and hash their names, sizes in bytes, and preparation together; their order does not matter."""
    listed = json.dumps(sorted(shards.items())).encode()
    return {"shards": len(shards), "blake2b": hash_bytes(_steps(prepare) + listed).hex()}


def _steps(prepare: Preparation) -> bytes:
    return json.dumps([prepare.channels, list(prepare.crop or (0, 0, 0, 0)), prepare.size]).encode()


def joined_fingerprint(fingerprints: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Combine the fingerprints of several sets of images; their order does not matter."""
    fingerprints = [*fingerprints]
    hashes = "".join(sorted(each["blake2b"] for each in fingerprints))
    return {"images": sum(each["images"] for each in fingerprints), "blake2b": hash_bytes(hashes.encode()).hex()}


def changed_since(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str | None:
    """Describe a change of the training data in one sentence; None if there is none, or no earlier fingerprint."""
    if not before or before.get("blake2b") == now["blake2b"]:
        return None
    unit = "shards" if "shards" in now else "images"
    return f"the data have changed since training began: {before.get(unit)} {unit} then, {now[unit]} now"
