"""What makes two results the same: digests of weights and of settings, and how they differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_NO_ENCODER_KEYS = {"name", "revision", "weights_sha256", "licence", "dtype", "columns", "keep_tail"}
"""What an encoder's identity says that makes no other kind of features, or is compared in its own way."""


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


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    both = sorted(asked.keys() & found.keys() - _NO_ENCODER_KEYS)
    keys = [key for key in both if asked[key] is not None and found[key] is not None]
    problems = differences({key: asked[key] for key in keys}, {key: found[key] for key in keys})
    if asked.get("weights_sha256") and found.get("weights_sha256"):
        same, told = asked["weights_sha256"] == found["weights_sha256"], ("name", "weights_sha256")
        # Anything but a SHA-256, such as a version, tells only the weights of one name apart.
        same = same and (len(asked["weights_sha256"]) == 64 or asked.get("name") == found.get("name"))
    else:
        same, told = all(asked.get(key) == found.get(key) for key in ("name", "revision")), ("name", "revision")
    if not same:
        key = next((key for key in told if asked.get(key) != found.get(key)), told[0])
        what = {"name": "encoder", "weights_sha256": "sha256 of the weights"}.get(key, key)
        problems.insert(0, f"{what} is {str(found.get(key))[:60]} there, {str(asked.get(key))[:60]} asked")
    return problems
