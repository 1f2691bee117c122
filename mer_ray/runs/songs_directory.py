"""A directory of songs: what is asked, what is done, what came of it.

    part-*.parquet            all that a reader needs
    _run/settings.json        how, resolved, with the code's version and the number of shards
    _run/summary.json         counts, audio seconds, rates
    _SUCCESS                  written last

What is to do and what is done is known by shard (:mod:`mer_ray.runs.shards`, :mod:`mer_ray.runs.open_shard`); which
shards are finished the records say that they leave, so that neither a start nor an end reads what was done before.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa

from mer_ray import __version__, storage
from mer_ray.catalog.repeats import refuse_repeated_ids
from mer_ray.errors import InputError
from mer_ray.fingerprints import canonical
from mer_ray.runs.asked import SOURCE, Asked, added, records, write_manifests
from mer_ray.runs.directory import ASKED, SETTINGS, SUMMARY, RunDirectory
from mer_ray.runs.forgetting import read_forgotten, without
from mer_ray.runs.lock import POLL_SECONDS, STAGED, timestamp
from mer_ray.runs.open_shard import Lease, OpenShard
from mer_ray.runs.ranges import Range, forget_ranges, others_at_work
from mer_ray.runs.shards import SONGS, Shard, by_shard, listed, stated
from mer_ray.songs import list_parts

CROWDED = 10
"""A shard of so many times the songs that one is made for is worth a word."""


@dataclass
class SongsDirectory(RunDirectory):
    """The output of one job that writes a row a song; with a ``range`` a run has these of its shards alone."""

    range: Range | None = None
    lease: Lease = field(init=False)
    """Known once it has begun, as the others are."""
    shards: list[OpenShard] = field(init=False)
    keys: list[str] = field(init=False)
    """What is asked of each shard, where there are several."""
    sizes: list[int] = field(init=False)
    """How many songs are asked of each shard."""

    def __post_init__(self) -> None:
        self.folder = self.folder if self.range is None else self.range.folder

    def __enter__(self) -> Self:
        super().__enter__()
        while others := others_at_work(self.uri, self.range):
            self.lock.release()  # or two that wait would wait for each other
            if not self.wait:
                raise InputError(f"output {self.uri}: in use, {others[0]}; wait for it (--wait) or stop it.")
            time.sleep(POLL_SECONDS * (1 + random.random()))
            super().__enter__()
        return self

    def begin(
        self,
        fingerprint: Mapping[str, Any],
        settings: Mapping[str, Any],
        manifest: pa.Table | Iterable[pa.Table] | None,
        *,
        of: int = 1,
    ) -> None:
        """Write down what is asked, or find that the directory goes on from the same question.

        Songs that the directory is to forget are left out.

        Args:
            fingerprint: of all that changes results.
            settings: of the run, resolved.
            manifest: the songs, at once or some at a time; None if who opens a shard says what is asked of it.
            of: shards, if this is the first run.

        Raises:
            InputError: the directory was begun with other settings that change results.
        """
        before = self._earlier(fingerprint)
        asked = {"fingerprint": canonical(fingerprint), "settings": canonical(settings)}
        found = {"job": self.job, "version": __version__, **asked}
        if before is None and self.range is not None:  # of several that begin at once one says how many shards
            storage.swap(self.file(SETTINGS), storage.as_json({**found, **_parted(of)}), None)
            before = self._earlier(fingerprint)
        of = of if before is None else int(before.get("shards", 1))
        if self.range is None:
            forget_ranges(self.uri)
        storage.remove(storage.join(self.uri, "_SUCCESS"))
        storage.remove_temporaries(self.uri)
        started = [*(before or {}).get("started", []), timestamp(time.time())]
        self.write_json(SETTINGS, {**found, **_parted(of), "started": started})
        self.go_on()
        if manifest is not None:
            self._ask([manifest] if isinstance(manifest, pa.Table) else manifest)
        if (each := sum(self.sizes) // of) > CROWDED * SONGS:
            print(
                f"{self.job}: {each:,} songs a shard; it has {of:,} since its first run, when there were fewer songs. "
                "A directory begun anew would start and end faster.",
                file=sys.stderr,
                flush=True,
            )

    def _earlier(self, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
        unknown = f"parts of unknown origin (no _run/{SETTINGS})"
        return self.earlier(fingerprint, holds=lambda: unknown if list_parts(self.uri) else "")

    def go_on(self) -> None:
        """Take up the shards as an earlier run left them, with what that asked of them."""
        of = stated(self.uri)
        if self.range is not None and self.range.end > of:
            has = f"{of:,} shard{'s' if of > 1 else ''}"
            raise InputError(f"--shards {self.range}: {self.uri} has {has}; stay within 0:{of}.")
        self.lease = Lease(self.uri, of, self.job, self.lock.token, self.folder)
        self.shards = [self.lease.open(number) for number in range(of)]
        asked = Asked.read(self.uri)
        known = asked is not None and len(asked.songs) == of
        self.sizes, self.keys = (asked.songs, asked.digests) if asked and known else ([0] * of, [""] * of)

    def _ask(self, batches: Iterable[pa.Table]) -> None:
        forgotten = read_forgotten(self.uri)
        if len(self.shards) > 1:
            self.ask_as(write_manifests(self.shards, self._has, batches, forgotten))
        else:
            asked = without(pa.concat_tables(batches), forgotten)
            refuse_repeated_ids(asked["track_id"], SOURCE)
            self.sizes = [len(asked)]
            self.shards[0].ask(asked)

    def once(self, name: str, data: bytes) -> bytes:
        """Keep a file in ``_run`` that a directory has from its first run on; returns what is kept: of two runs with
        ranges that begin at once, the first one's."""
        storage.swap(self.file(name), data, None)
        return storage.read_bytes(self.file(name))

    def own(self, name: str) -> str:
        """The name of a file that this run alone writes, from ``_run``."""
        return name if self.range is None else f"{self.range.folder.removeprefix('_run/')}/{name}"

    def ask_as(self, asked: Asked) -> None:
        """Have this asked of the shards."""
        self.keys, self.sizes = asked.digests, asked.songs
        if len(self.shards) > 1:
            self.write_json(ASKED, vars(asked))

    def pending(self, **options: Any) -> pa.Table:
        """All that is to do, of all shards, as :meth:`OpenShard.pending` finds it: for who does it in this process."""
        return pa.concat_tables(shard.pending(**options) for shard in self.shards)

    def unfinished(self, *, retry_failed: bool = False, again: bool = True) -> dict[int, int]:
        """The shards that have something to do, as far as their records tell, and how many songs at most.

        Args:
            retry_failed: those with failed songs too.
            again: those too of whose failed songs some are tried again by themselves.
        """
        if len(self.shards) == 1:
            return {0: self.sizes[0]}
        found = {}
        for number, done in enumerate(self.records()):
            if not self._has(number):
                continue
            if done is None:
                found[number] = self.sizes[number]
            elif songs := int(done["asked"]["failed"] if retry_failed else done["again"] if again else 0):
                found[number] = songs
        return found

    def _has(self, number: int) -> bool:
        """Whether a shard is this run's."""
        return self.range is None or self.range.first <= number < self.range.end

    @property
    def asked(self) -> int:
        """Songs that are asked of the shards that are this run's."""
        return sum(songs for number, songs in enumerate(self.sizes) if self._has(number))

    def records(self) -> list[dict[str, Any] | None]:
        """What each shard says of itself that is finished, with all that is asked of it and all that it holds now; None
        of others. Costs a listing, and a request a shard."""
        parts, _ = listed(self.uri, len(self.shards))
        return records([shard.shard for shard in self.shards], self.keys, parts)

    def finish(self, **run: Any) -> dict[str, Any]:
        """Account for every song from the parts themselves, and write _SUCCESS and the summary, which is returned.

        ``run`` are facts of this run to keep in it (songs done, seconds, rates).

        Raises:
            LackingError: a song of the manifest is missing from the parts.
            LockLostError: another run has the lock.
        """
        return self.account(self.job, {**run, "seconds": round(time.monotonic() - self._started, 2)})

    def account(self, job: str, this_run: Mapping[str, Any]) -> dict[str, Any]:
        """As :meth:`finish`, with these facts of a run of this job."""
        self.lock.check()
        # Of workers that were killed; and one that nobody waits for any more cannot move its part now.
        storage.remove_folder(storage.join(self.uri, self.folder, STAGED))
        storage.remove_temporaries(self.uri)
        done = self.records() if len(self.shards) > 1 else [None]
        counts = {number: found for number, found in enumerate(done) if found is not None}
        for number, shard in enumerate(self.shards):
            if number not in counts and self._has(number):
                counts[number] = shard.account(self.keys[number])
        whole = len(counts) == len(self.shards)
        own = [found for number, found in counts.items() if whole or self._has(number)]
        finished = {"finished": timestamp(time.time()), "this_run": this_run}
        asked = added([each["asked"] for each in own])
        summary = {"job": job, **added([each["held"] for each in own]), "asked": asked, **finished}
        if whole:
            self.write_json(SUMMARY, summary)
            self.publish("_SUCCESS", b"")
        else:
            self.write_json(self.own(SUMMARY), summary)
            left = len(self.shards) - len(counts)
            print(f"{job}: {left:,} other shards are not finished; whoever ends the last of them writes _SUCCESS")
        return summary

    def commit(self, rows: pa.Table) -> None:
        """Write whole songs, a part for each of their shards."""
        for number, own in by_shard(rows, len(self.shards)):
            self.shards[number].commit(own)


def _parted(of: int) -> dict[str, int]:
    return {"shards": of} if of > 1 else {}


def commit(uri: str, rows: pa.Table, token: str | None = None) -> str:
    """Write whole songs as one part of a directory of one shard, or nothing; returns the part's name.

    ``token`` is of the run that asked for the work; without one no run is at work there.

    Raises:
        LockLostError: that run no longer holds the lock.
    """
    shard = Shard(uri)
    if token is not None:
        return OpenShard(shard, "", token).commit(rows)
    name = shard.part_name(rows)
    storage.write_bytes(storage.join(uri, name), storage.parquet_bytes(rows))
    return name
