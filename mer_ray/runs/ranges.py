"""Several runs side by side in one directory, each with shards of its own and a lock of its own.

    _run/lock                              of a run that has all shards
    _run/ranges/<first>-<end>/lock         of one that has those from the first to before the end
    _run/ranges/<first>-<end>/…            its nodes.json, its summary.json: what such a run alone knows

Runs whose shards overlap are refused. Each looks at the others once it has its own lock, so of two that begin at once
at least one sees the other.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.runs.lock import Holder, named, read_holder

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
        """Where its lock lies, and what its runs alone know."""
        return f"{_FOLDER}/{self.first:05d}-{self.end:05d}"

    def overlaps(self, other: Range) -> bool:
        """Whether some shard is in both."""
        return self.first < other.end and other.first < self.end

    def __str__(self) -> str:
        return f"{self.first}:{self.end}"


def folders(uri: str) -> dict[Range, str]:
    """The ranges that runs have had in a directory, and the folder of each."""
    names = storage.names(storage.join(uri, _FOLDER))
    return {Range(*map(int, name.split("-"))): f"{_FOLDER}/{name}" for name in names}


def at_work(uri: str) -> dict[Range, Holder]:
    """The live runs that have a range of a directory's shards."""
    found = {range_: read_holder(storage.join(uri, folder)) for range_, folder in folders(uri).items()}
    return {range_: holder for range_, holder in found.items() if holder is not None and holder["alive"]}


def others_at_work(uri: str, own: Range | None) -> list[str]:
    """The runs at work in a directory whose shards are among ``own``, or of all if there is none, in words."""
    others = {other: holder for other, holder in at_work(uri).items() if other != own}
    found = [(f"shards {other}", holder) for other, holder in others.items() if own is None or own.overlaps(other)]
    whole = read_holder(storage.join(uri, "_run")) if own is not None else None
    if whole is not None and whole["alive"]:
        found.append(("all shards", whole))
    return [f"{which} by {named(it['job'], it['process'], it['host'])}" for which, it in found]


def forget_ranges(uri: str) -> None:
    """Delete what runs with ranges have left, while all shards are held."""
    storage.remove_folder(storage.join(uri, _FOLDER))
