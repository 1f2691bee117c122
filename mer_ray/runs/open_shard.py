"""A shard at work: what its parts hold, what is to do, what came of it. A directory of one shard is one.

    part-*.parquet       its rows
    manifest.parquet     what was asked of it
    pending.parquet      what a run found to do, so that who asks again in that run is told the same
    failures.parquet     the rows that are not ok
    done.json            that it is finished, with which songs, and its counts; of a directory of several shards

A song is done when it stands in a committed part. A run does what the manifest lists and the parts lack, so any number
of kills and restarts ends with each song there exactly once. Workers that outlive their killed driver commit nothing:
a part is written only while the lock is held with the token of the run that began the work
(:func:`mer_ray.runs.lock.publish`), and deleted only as that run has seen it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mer_ray import storage
from mer_ray.runs import again
from mer_ray.runs.directory import DONE, FAILURES, MANIFEST, PENDING
from mer_ray.runs.forgetting import read_forgotten, without
from mer_ray.runs.lock import check_held, publish
from mer_ray.runs.shards import Shard, state_of
from mer_ray.runs.tally import Tally
from mer_ray.songs import STATUS_COLUMNS, Damage, part_name, read_parts, read_whole, stored_metadata

SMALL_PARTS = 8
"""So many small parts of one kind are put together; fewer stay, or a song a night would rewrite a part a night."""

_HELD = pa.schema([pa.field("track_id", pa.string()), pa.field("failed", pa.bool_()), pa.field("part", pa.int32())])
_PASS = "mer_ray.pass"


Counts = dict[str, dict[str, Any]]
"""What a shard holds and of it what was asked, as a summary states them."""


class LackingError(RuntimeError):
    """Songs that were asked for stand in no part."""


class Held(NamedTuple):
    """What the parts hold: ``track_id``, ``failed`` and ``part`` (an index) of each song, and its sum."""

    parts: list[storage.Entry]
    rows: pa.Table
    tally: Tally


@dataclass(frozen=True)
class Lease:
    """The right of a run to write to a directory of ``of`` shards, while it holds the lock in ``folder`` with this
    token."""

    output: str
    of: int
    job: str
    token: str
    folder: str = "_run"

    def open(self, number: int) -> OpenShard:
        """A shard to work on."""
        return OpenShard(Shard(self.output, number, self.of), self.job, self.token, self.folder)


@dataclass(frozen=True)
class OpenShard:
    """A shard while a lock of its directory is held with this token, by a run of this job."""

    shard: Shard
    job: str
    token: str
    folder: str = "_run"

    def file(self, name: str) -> str:
        """The URI of a file of its own."""
        return self.shard.file(name)

    def keep(self, name: str, table: pa.Table) -> None:
        """Write a table of its own."""
        self._publish(f"_run/{self.shard.path(name)}", storage.parquet_bytes(table))

    def ask(self, manifest: pa.Table) -> None:
        """Write down what is asked of it."""
        again.keep_audio(self)
        self.keep(MANIFEST, without(manifest, read_forgotten(self.shard.output)))

    def commit(self, rows: pa.Table) -> str:
        """Write whole songs as one part, or nothing; returns its name."""
        name = self.shard.part_name(rows)
        self._publish(name, storage.parquet_bytes(rows))
        return name

    def _publish(self, name: str, data: bytes) -> None:
        publish(self.shard.output, name, data, self.token, self.folder)

    def pending(
        self,
        *,
        retry_failed: bool = False,
        mended: pa.Array | None = None,
    ) -> pa.Table:
        """The manifest's songs (``track_id``, ``uri``) that no part holds, and those of it that are done again.

        These are the failed ones that may have failed for the world's sake, a bounded number of times, or all of them
        if that is asked; and those whose audio has changed since.

        Args:
            retry_failed: do all failed songs again.
            mended: ids that can be read by now: do these again if they failed, and no others by themselves.
        """
        storage.remove(self.file(DONE))
        manifest = self.manifest()
        held = self._mend(["track_id", "status", "error_class"])
        rows, made_of = held.rows, again.read_audio(self.shard)
        redo = self._done_again(held, manifest, made_of, retry_failed=retry_failed, mended=mended)
        if pc.any(redo).as_py():
            self._drop(held, redo)
            rows = rows.filter(pc.invert(redo))
        # Last: a run that is killed between must not forget a change.
        again.note_audio(self, made_of, manifest)
        return without(manifest.select(["track_id", "uri"]), rows["track_id"].combine_chunks())

    def pending_in(self, number: int, *, withheld: pa.Array | None = None, **first: Any) -> pa.Table:
        """What is to do in a pass of this run, found once: Ray may ask again for what it lost, and must get the same.

        Args:
            number: of the pass.
            withheld: ids that this run has done, though they stand in no part yet.
            first: of :meth:`pending`, which is asked in the first pass that opens this shard. In later ones only songs
                that no part holds are to do.
        """
        before = read_whole(self.file(PENDING))
        run, _, earlier = stored_metadata(before.schema).get(_PASS, "").partition(" ") if before else ("", "", "")
        if before is not None and (run, earlier) == (self.token, str(number)):
            return before
        if run == self.token:
            done = self._mend(["track_id", "status"]).rows["track_id"].combine_chunks()
            found = without(self.manifest().select(["track_id", "uri"]), done)
        else:
            found = self.pending(**first)
        found = found if withheld is None else without(found, withheld)
        found = found.replace_schema_metadata({_PASS: f"{self.token} {number}"})
        self.keep(PENDING, found)
        return found

    def take_out(self, ids: pa.Array) -> int:
        """Rewrite the parts without these songs; returns how many rows that took out."""
        held = self._mend(["track_id", "status"])
        unwanted = pc.is_in(held.rows["track_id"], value_set=ids)
        self._drop(held, unwanted)
        return pc.sum(unwanted).as_py() or 0

    def pack(self, most: int) -> None:
        """Put small parts together, up to so many bytes, once there are some: of songs that were read, and of others.

        Killed amid it, songs stand in two parts, which the next look mends.
        """
        held = self._held(["track_id", "status"])
        read = set(pc.unique(held.rows["part"].filter(pc.invert(held.rows["failed"]))).to_pylist())
        for alike in (True, False):
            small = [part for at, part in enumerate(held.parts) if part.size < most / 2 and (at in read) == alike]
            for bin_ in _bins(small, most) if len(small) >= SMALL_PARTS else ():
                name = self._put_together(bin_)
                for part in bin_:
                    if part.name != name:
                        self._discard(part)

    def _put_together(self, parts: Sequence[storage.Entry]) -> str:
        """Write the rows of several parts as one, a row group of each; returns its name."""
        ids: list[pa.Array] = []

        def tables() -> Iterator[pa.Table]:
            for part in parts:
                table = storage.read_table(part.uri)
                ids.extend(table["track_id"].chunks)
                yield table

        data = storage.parquet_bytes_of(storage.read_schema(parts[0].uri), tables())
        name = part_name(pa.chunked_array(ids, pa.string()), self.shard.prefix)
        self._publish(name, data)
        return name

    def account(self, key: str = "") -> Counts:
        """Account for every song from the parts themselves, and write down what failed.

        In a directory of several shards this one is done then, as far as what is asked of it has this ``key``.

        Raises:
            LackingError: a song of the manifest is missing from the parts.
            LockLostError: another run has the lock.
        """
        self.check()
        held = self._mend(STATUS_COLUMNS)
        asked = self.manifest()["track_id"].combine_chunks()
        lost = pc.sum(pc.invert(pc.is_in(asked, value_set=held.rows["track_id"].combine_chunks()))).as_py() or 0
        if lost:
            raise LackingError(f"{self.shard.output}: {lost} songs missing; run the same command again.")
        failed = held.tally.failed
        self.keep(FAILURES, failed)
        counts = {"held": held.tally.counts(), "asked": held.tally.counts_of(asked)}
        if self.shard.of > 1:
            again_ = len(again.waiting(failed.filter(pc.is_in(failed["track_id"], value_set=asked)), self.shard))
            done = {"key": key, "parts": state_of(self.shard.parts()), "again": again_, **counts}
            self._publish(f"_run/{self.shard.path(DONE)}", storage.as_json(done))
        return counts

    def check(self) -> None:
        """Raise LockLostError if another run has the lock."""
        check_held(storage.join(self.shard.output, self.folder), self.token)

    def manifest(self) -> pa.Table:
        """What is asked of it: ``track_id``, ``uri``, and what is known of the audio."""
        uri = self.file(MANIFEST)
        known = storage.read_schema(uri).names
        return storage.read_table(uri, [name for name in again.AUDIO_SCHEMA.names if name in known])

    def _done_again(
        self, held: Held, manifest: pa.Table, made_of: pa.Table, *, retry_failed: bool, mended: pa.Array | None
    ) -> pa.ChunkedArray:
        """Which of the held rows are taken back."""
        ids, asked = held.rows["track_id"], manifest["track_id"].combine_chunks()
        other = pc.is_in(ids, value_set=again.changed(made_of, again.audio_of(manifest)))
        if count := pc.sum(other).as_py():
            print(f"{self.job}: {count:,} songs are done again because their audio has changed")
        if retry_failed:
            failed = asked
        elif mended is not None:
            failed = mended
        else:
            failed = held.tally.failed
            failed = again.passing(failed.filter(pc.is_in(failed["track_id"], value_set=asked)), self)
            if len(failed):
                print(f"{self.job}: {len(failed):,} songs that may have failed for the world's sake are tried again")
        return pc.or_(other, pc.and_(held.rows["failed"], pc.is_in(ids, value_set=failed)))

    def _held(self, columns: list[str]) -> Held:
        """What all parts hold, of these columns; a torn part is deleted. Of each song its id, a bit and a number."""
        parts, rows, tally = self.shard.parts(), [_HELD.empty_table()], Tally()
        found = read_parts([part.uri for part in parts], lambda part: storage.read_table(part, columns))
        for number, (_, table) in enumerate(found):
            if isinstance(table, Damage):
                self._discard(parts[number])
                continue
            place = pa.array(np.full(len(table), number, np.int32))
            rows.append(pa.table([table["track_id"], pc.not_equal(table["status"], "ok"), place], schema=_HELD))
            tally.add(table)
        return Held(parts, pa.concat_tables(rows), tally)

    def _mend(self, columns: list[str]) -> Held:
        """Undo what a killed run may have left: torn parts, and songs that stand in two parts.

        Returns what the parts hold of these columns, each song once; a song that was read keeps that row.
        """
        held = self._held(columns)
        rows = held.rows
        if pc.count_distinct(rows["track_id"]).as_py() == len(rows):
            return held
        failed = rows["failed"].to_numpy().astype(np.int64)
        rank = pa.array(failed * len(rows) + np.arange(len(rows)))
        best = rows.append_column("rank", rank).group_by("track_id").aggregate([("rank", "min")])
        doubled = np.ones(len(rows), bool)
        doubled[best["rank_min"].to_numpy() % len(rows)] = False
        self._drop(held, pa.chunked_array([pa.array(doubled)]))
        return self._held(columns)  # the parts have changed, and with them where a row stands

    def _drop(self, held: Held, unwanted: pa.ChunkedArray) -> None:
        """Rewrite the parts that hold unwanted rows without them."""
        place = held.rows["part"]
        hit = pc.unique(place.filter(unwanted))
        mixed = pc.is_in(hit, value_set=pc.unique(place.filter(pc.invert(unwanted))))
        # Parts without a row to keep go first: what is left of another part may need the same name.
        for number in hit.filter(pc.invert(mixed)).to_pylist():
            self._discard(held.parts[number])
        for number in hit.filter(mixed).to_pylist():
            kept = pc.invert(unwanted.filter(pc.equal(place, number)))
            part = held.parts[number]
            # Killed between the two, a song stands there twice and is mended; the other order would lose work.
            if self.commit(storage.read_table(part.uri).filter(kept)) != part.name:
                self._discard(part)

    def _discard(self, part: storage.Entry) -> None:
        """Delete a part as it was listed; what another run may have written there since is its own."""
        self.check()
        storage.discard(part.uri, part.version)


def _bins(parts: Sequence[storage.Entry], most: int) -> Iterator[list[storage.Entry]]:
    """Parts in their order, so many together as have no more than ``most`` bytes; one alone is left out."""
    together: list[storage.Entry] = []
    for part in parts:
        if together and sum(each.size for each in together) + part.size > most:
            if len(together) > 1:
                yield together
            together = []
        together.append(part)
    if len(together) > 1:
        yield together
