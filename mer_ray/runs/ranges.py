"""Several runs side by side in one directory, each with shards of its own and a lock of its own.

    _run/lock                              of a run that has all shards
    _run/ranges/<first>-<end>/lock         of one that has those from the first to before the end

Runs whose shards overlap are refused. Each looks at the others once it has its own lock, so of two that begin at once
at least one sees the other.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.runs.lock import read_holder

_FOLDER = "_run/ranges"


class Range(NamedTuple):
    """Shards from ``first`` to before ``end``."""

    first: int
    end: int

    @classmethod
    def given(cls, text: str | None) -> Range | None:
        """What ``--shards`` says; None if it says nothing.

        Raises:
            InputError: it says no range.
        """
        if text is None:
            return None
        found = re.fullmatch(r"(\d+):(\d+)", text)
        if found is None or int(found[1]) >= int(found[2]):
            raise InputError(f"--shards {text}: not a range of shards; say 0:1024 for the first 1,024.")
        return cls(int(found[1]), int(found[2]))

    @property
    def folder(self) -> str:
        """Where its lock lies."""
        return f"{_FOLDER}/{self.first:05d}-{self.end:05d}"

    def overlaps(self, other: Range) -> bool:
        """Whether some shard is in both."""
        return self.first < other.end and other.first < self.end


def others_at_work(uri: str, own: Range | None) -> list[str]:
    """The runs at work in a directory whose shards are among ``own``, or of all if there is none, in words."""
    found = []
    for name in storage.names(storage.join(uri, _FOLDER)):
        other = Range(*map(int, name.split("-")))
        if other != own and (own is None or own.overlaps(other)):
            found.append((f"shards {other.first}:{other.end}", storage.join(uri, _FOLDER, name)))
    if own is not None:
        found.append(("all shards", storage.join(uri, "_run")))
    told = []
    for which, folder in found:
        holder = read_holder(folder)
        if holder is not None and holder["alive"]:
            told.append(f"{which} by the {holder['job']} run with process {holder['process']} on {holder['host']}")
    return told
