"""What makes two results the same: digests of weights and of settings, and how they differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_ENCODER_KEYS = ("layers", "pooling", "window_seconds", "sample_rate", "dim")


def weights_sha256(module: nn.Module) -> str:
    """A digest of names, shapes and values: the same for a ``.bin`` and a safetensors of one model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().contiguous().cpu().numpy().data)
    return digest.hexdigest()


def text_sha256(text: str) -> str:
    """The SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(value: Any) -> Any:
    """A value as it comes back from JSON, so that tuples equal lists."""
    return json.loads(json.dumps(value, sort_keys=True, default=str))


def differences(asked: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """One phrase for each key in which two fingerprints part ways."""
    asked, found = canonical(asked), canonical(found)
    keys = sorted(asked.keys() | found.keys())
    return [
        f"{key} is {found.get(key)!r} there, {asked.get(key)!r} asked"
        for key in keys
        if asked.get(key) != found.get(key)
    ]


def encoder_differences(asked: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """How two encoders' features differ in kind; empty if one can stand for the other.

    Weights decide where both digests are known, else name and revision; a key that one side
    does not state is not held against it. The arithmetic's dtype does not count.
    """
    by_weights = bool(asked.get("weights_sha256") and found.get("weights_sha256"))
    keys = (*(("weights_sha256",) if by_weights else ("name", "revision")), *_ENCODER_KEYS)
    shared = [key for key in keys if asked.get(key) is not None and found.get(key) is not None]
    problems = differences({key: asked[key] for key in shared}, {key: found[key] for key in shared})
    if by_weights and asked["weights_sha256"] != found["weights_sha256"]:
        problems.insert(0, f"encoder is {found.get('name')} there, {asked.get('name')} asked")
    return problems
