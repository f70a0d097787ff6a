"""Hashes of images: which are held out, and whether they changed."""

__all__ = ["changed_since", "fingerprint", "hash_row", "is_held_out", "joined_fingerprint"]

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
    except BrokenImageError:  # named by the check, or left out there
        return hash_bytes(b"")


def is_held_out(hash: bytes) -> bool:
    return int.from_bytes(hash[:8]) < _HELD_OUT_SHARE * 2**64


def fingerprint(hashes: Iterable[bytes], prepare: Preparation) -> dict[str, Any]:
    """The number of images, and one hash of theirs and of their preparation, whatever their order."""
    hashes = sorted(hashes)
    steps = json.dumps([prepare.channels, list(prepare.crop or (0, 0, 0, 0)), prepare.size]).encode()
    return {"images": len(hashes), "blake2b": hash_bytes(b"".join([steps, *hashes])).hex()}


def joined_fingerprint(fingerprints: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """That of several sets of images together, whatever their order."""
    fingerprints = [*fingerprints]
    hashes = "".join(sorted(each["blake2b"] for each in fingerprints))
    return {"images": sum(each["images"] for each in fingerprints), "blake2b": hash_bytes(hashes.encode()).hex()}


def changed_since(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str | None:
    """A sentence where two fingerprints of what a model was trained on differ; None where one was not kept."""
    if not before or before.get("blake2b") == now["blake2b"]:
        return None
    return f"the data changed since the training began: {before.get('images')} images then, {now['images']} now"
