"""What a run has to do, by shard: opened where it is worked on, accounted for as its last song is committed.

The driver knows shards, never songs: how many of each are to do, and how many of these are committed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from mer_ray.errors import InputError, StorageError
from mer_ray.runs.lock import LockLostError
from mer_ray.runs.open_shard import LackingError, OpenShard
from mer_ray.runs.receipts import Receipt
from mer_ray.runs.shards import numbers_of
from mer_ray.runs.songs_directory import SongsDirectory

OPENERS, NODES_AN_OPENER, OPEN_CPUS = 2, 16, 0.2
"""Shards opened at a time, and one more for so many nodes: that takes seconds each, and their songs are an hour's work
of a node."""
FINISH_CPUS, FINISH_MEMORY = 0.2, 3
"""To finish a shard: and so many times the bytes of a part that small ones are put together to."""
FEATURE_BYTES, TAG_BYTES = 256_000_000, 64_000_000
"""Of such a part."""


class Opened(NamedTuple):
    """A shard that was opened: rows of work, as its job needs them, how many songs that are, and of how many, if only
    who opens it can tell."""

    work: pa.Table
    songs: int
    asked: int | None = None


Opener = Callable[[int, int], Opened]
"""Opens a shard by its number, in a pass by its number; asked again in that pass, it finds the same."""

TOLD = pa.struct([("shard", pa.int64()), ("songs", pa.int64()), ("asked", pa.int64())])
"""What is told of a shard that was opened."""


def source_rows(shards: pa.Table, opener: Opener, number: int, each: int) -> Iterator[pa.Table]:
    """The stage that opens shards: of each a row that tells how many songs are to do, then rows of its work.

    What keeps a shard from being opened is told in a row too: it ends the run.

    Args:
        shards: their numbers.
        opener: of the job.
        number: of the pass.
        each: rows of a shard's work in one row, which becomes one task.
    """
    for shard in shards["shard"].to_pylist():
        try:
            found = opener(shard, number)
        except (InputError, StorageError, LockLostError) as error:
            yield _row(trouble=pa.array([str(error)]))
            continue
        yield _row(opened=pa.array([{"shard": shard, "songs": found.songs, "asked": found.asked}], TOLD))
        for start in range(0, len(found.work), each):
            rows = found.work.slice(start, each).to_struct_array().combine_chunks()
            yield _row(work=pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), rows))


def _row(work: pa.Array | None = None, opened: pa.Array | None = None, trouble: pa.Array | None = None) -> pa.Table:
    columns = [
        pa.nulls(1) if work is None else work,
        pa.nulls(1, TOLD) if opened is None else opened,
        pa.nulls(1, pa.string()) if trouble is None else trouble,
    ]
    return pa.table(columns, ["work", "opened", "trouble"])


def work_of(row: pa.Table) -> pa.Table:
    """The work in one row of a source."""
    return pa.Table.from_struct_array(row["work"].combine_chunks().flatten())


def told_by(row: pa.Table) -> Receipt:
    """What is told in one row of a source that is no work."""
    opened, trouble = row["opened"][0].as_py(), row["trouble"][0].as_py()
    if opened is None:
        return Receipt(trouble=trouble)
    return Receipt(shard=opened["shard"], opened=opened["songs"], asked=opened["asked"])


def from_shards(shards: list[int], opener: Opener, number: int, nodes: int, each: int) -> Any:
    """The source of a graph on so many ``nodes``: blocks of one row of :func:`source_rows`, made as it takes them."""
    from ray.data import TaskPoolStrategy

    from mer_ray.cluster.session import quiet_data

    opened = (
        quiet_data()
        .from_blocks([pa.table({"shard": [shard]}) for shard in shards])
        .map_batches(
            source_rows,
            batch_size=1,
            batch_format="pyarrow",
            fn_kwargs={"opener": opener, "number": number, "each": each},
            compute=TaskPoolStrategy(size=OPENERS + nodes // NODES_AN_OPENER),
            num_cpus=OPEN_CPUS,
        )
    )
    return opened.repartition(target_num_rows_per_block=1)


class Work:
    """How far the shards of a run are. What is asked of it with every receipt costs the same however many there are."""

    def __init__(self, output: SongsDirectory, estimates: Mapping[int, int], part_bytes: int = 0) -> None:
        """Args:
        output: the directory.
        estimates: the shards to do, and how many songs of each, at most.
        part_bytes: of a part that small ones are put together to; 0 leaves them as they are.
        """
        self.output, self._part_bytes = output, part_bytes
        self._expected, self._left = dict(estimates), dict(estimates)
        self._unopened = set(estimates)
        self._committed: Counter[int] = Counter()
        self._complete: set[int] = set()
        self._handed_on: set[int] = set()
        self._finishing: dict[Any, int] = {}
        self._lacking: dict[int, str] = {}
        self.songs = sum(estimates.values())
        """Songs that are still to do, at most as long as not all shards were opened."""
        self.found = 0
        """Songs that this run found to do."""

    def begin(self, opener: Opener) -> pa.Table:
        """Open shards until one has something to do, and return that: songs that the run will do."""
        work = pa.table({})
        for number in self.left:
            work, songs, asked = opener(number, 0)
            self._note(number, songs, asked)
            if songs:
                break
        return work

    @property
    def left(self) -> list[int]:
        """The shards that are not finished."""
        return [*self._left]

    @property
    def said(self) -> str:
        """How many songs are to do."""
        return f"{'at most ' if self._unopened else ''}{self.songs:,}"

    @property
    def where(self) -> str:
        """In which share of the shards these are; empty where there is one shard."""
        of = len(self.output.shards)
        return f" in {len(self._left):,} of {of:,} shards" if of > 1 else ""

    def add(self, receipt: Receipt) -> None:
        """What a receipt says of a shard; songs may be committed before it is told how many are to do."""
        if receipt.opened is not None:
            self._note(receipt.shard, receipt.opened, receipt.asked)
        self._committed[receipt.shard] += receipt.songs
        self._count(receipt.shard)

    def _note(self, number: int, songs: int, asked: int | None) -> None:
        """A shard was opened with so many songs to do."""
        if number in self._unopened:
            self._unopened.remove(number)
            self._expected[number] = songs
            self.found += songs
            self.output.sizes[number] = self.output.sizes[number] if asked is None else asked
            self._count(number)

    def _count(self, number: int) -> None:
        if number not in self._left:
            return
        left = max(0, self._expected[number] - self._committed[number])
        self.songs += left - self._left[number]
        self._left[number] = left
        if not left and number not in self._unopened and number not in self._handed_on:
            self._complete.add(number)

    def anew(self) -> None:
        """A pass was ended: what is left of the shards is found out anew."""
        for number, left in self._left.items():
            self.found -= 0 if number in self._unopened else left
            self._expected[number] = self._left[number] = max(1, left)
        self.songs = sum(self._left.values())
        self._unopened = set(self._left)
        self._committed.clear()
        self._complete.clear()
        self._handed_on = {*self._finishing.values()}

    def finish_ready(self, withheld: pa.Array) -> None:
        """Account for the shards whose last song is committed, in tasks of the cluster; ``withheld`` are not yet."""
        if len(self.output.shards) == 1:
            return
        if self._complete:
            held = set(np.unique(numbers_of(withheld, len(self.output.shards))).tolist())
            ready, self._complete = self._complete - held, self._complete & held
            self._handed_on |= ready
            self._finish(sorted(ready))
        self._collect(timeout=0)

    def finish_all(self) -> None:
        """Account for all shards; a directory of one with nothing to put together does that at its own end.

        Raises:
            LackingError: a song is missing.
            StorageError: storage refused a worker for good, or the lock is another's.
        """
        if len(self.output.shards) == 1 and not (self.found and self._part_bytes):
            return
        self._collect(timeout=None)
        self._lacking.clear()  # too early: work that was lost and done again counts twice
        self._finish(self.left)
        self._collect(timeout=None)
        for why in self._lacking.values():
            raise LackingError(why)

    def _finish(self, numbers: list[int]) -> None:
        import ray

        account = ray.remote(_account).options(num_cpus=FINISH_CPUS, memory=FINISH_MEMORY * self._part_bytes or None)
        for number in numbers:
            answer = account.remote(self.output.shards[number], self.output.keys[number], self._part_bytes)
            self._finishing[answer] = number

    def _collect(self, timeout: float | None) -> None:
        """Take the answers that are there, or without a ``timeout`` all."""
        import ray

        while self._finishing:
            answers = ray.wait([*self._finishing], num_returns=1, timeout=timeout)[0]
            if not answers:
                return
            number = self._finishing.pop(answers[0])
            lacking, trouble = ray.get(answers[0])
            if trouble:
                raise StorageError(trouble)
            if lacking:
                self._lacking[number] = lacking
            else:
                self.songs -= self._left.pop(number)


def _account(shard: OpenShard, key: str, part_bytes: int) -> tuple[str, str]:
    """Put the small parts of a shard together and account for it; returns what is missing, and what ends the run."""
    try:
        if part_bytes:
            shard.pack(part_bytes)
        shard.account(key)
    except LackingError as error:
        return str(error), ""
    except (StorageError, LockLostError) as error:
        return "", str(error)
    return "", ""
