"""A directory of songs: what is asked, what is done, what came of it.

    part-*.parquet            all that a reader needs
    _run/manifest.parquet     what was asked
    _run/settings.json        how, resolved, with the code's version
    _run/summary.json         counts, audio seconds, rates
    _run/failures.parquet     the rows that are not ok
    _SUCCESS                  written last

A song is done when it stands in a committed part. A run does what the manifest lists and the parts
lack, so any number of kills and restarts ends with each song there exactly once. Workers that outlive
their killed driver commit nothing: a part is written only while the lock is held with the token of the
run that began the work (:func:`mer_ray.runs.lock.publish`), and deleted only as that run has seen it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mer_ray import __version__, storage
from mer_ray.fingerprints import canonical
from mer_ray.runs import again
from mer_ray.runs.directory import FAILURES, MANIFEST, PENDING, SETTINGS, SUMMARY, RunDirectory
from mer_ray.runs.forgetting import read_forgotten, without
from mer_ray.runs.lock import STAGED, publish, timestamp
from mer_ray.runs.tally import Tally
from mer_ray.songs import STATUS_COLUMNS, Damage, list_parts, part_name, read_parts

_HELD = pa.schema([pa.field("track_id", pa.string()), pa.field("failed", pa.bool_()), pa.field("part", pa.int32())])


class Held(NamedTuple):
    """What the parts hold: ``track_id``, ``failed`` and ``part`` (an index) of each song, and its sum."""

    parts: list[storage.Entry]
    rows: pa.Table
    tally: Tally


class SongsDirectory(RunDirectory):
    """The output of one job that writes a row a song."""

    def begin(self, fingerprint: Mapping[str, Any], settings: Mapping[str, Any], manifest: pa.Table) -> pa.Table:
        """Write down what is asked, or find that the directory goes on from the same question.

        Returns:
            The manifest without the songs that this directory is to forget.

        Raises:
            InputError: the directory was begun with other settings that change results.
        """
        unknown = f"parts of unknown origin (no _run/{SETTINGS})"
        before = self.earlier(fingerprint, holds=lambda: unknown if list_parts(self.uri) else "")
        storage.remove(storage.join(self.uri, "_SUCCESS"))
        started = [*(before or {}).get("started", []), timestamp(time.time())]
        asked = {"fingerprint": canonical(fingerprint), "settings": canonical(settings)}
        self.write_json(SETTINGS, {"job": self.job, "version": __version__, **asked, "started": started})
        again.keep_audio(self)
        asked = without(manifest, read_forgotten(self.uri))
        self._keep(MANIFEST, asked)
        return asked

    def pending(self, manifest: pa.Table, *, retry_failed: bool, mended: pa.Array | None = None) -> pa.Table:
        """The manifest's songs that no part holds, and those of it that are done again.

        These are the failed ones that may have failed for the world's sake, a bounded number of times, or all of them
        if that is asked; and those whose audio has changed since.

        Args:
            manifest: what :meth:`begin` returned, or some columns of it.
            retry_failed: do all failed songs again.
            mended: ids that can be read by now: do these again if they failed, and no others by themselves.
        """
        held = self._mend(["track_id", "status", "error_class"])
        rows, made_of = held.rows, again.read_audio(self.uri)
        redo = self._done_again(held, manifest, made_of, retry_failed=retry_failed, mended=mended)
        if pc.any(redo).as_py():
            self._drop(held, redo)
            rows = rows.filter(pc.invert(redo))
        # Last: a run that is killed between must not forget a change.
        again.note_audio(self, made_of, manifest)
        return without(manifest, rows["track_id"].combine_chunks())

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

    def take_out(self, ids: pa.Array) -> int:
        """Rewrite the parts without these songs; returns how many rows that took out."""
        held = self._mend(["track_id", "status"])
        unwanted = pc.is_in(held.rows["track_id"], value_set=ids)
        self._drop(held, unwanted)
        return pc.sum(unwanted).as_py() or 0

    def lacking(self, songs: pa.Table) -> pa.Table:
        """Those of the songs that stand in no part yet."""
        done = self._mend(["track_id", "status"]).rows["track_id"].combine_chunks()
        return without(songs, done)

    def write_pending(self, songs: pa.Table) -> None:
        """Put down the songs of this run, for who looks on. Written as its work begins."""
        self._keep(PENDING, songs)

    def finish(self, **run: Any) -> dict[str, Any]:
        """Account for every song from the parts themselves, and write _SUCCESS and the summary, which is returned.

        ``run`` are facts of this run to keep in it (songs done, seconds, rates).

        Raises:
            RuntimeError: a song of the manifest is missing from the parts.
            LockLostError: another run has the lock.
        """
        return self.account(self.job, {**run, "seconds": round(time.monotonic() - self._started, 2)})

    def account(self, job: str, this_run: Mapping[str, Any]) -> dict[str, Any]:
        """As :meth:`finish`, with these facts of a run of this job."""
        self.lock.check()
        # Of workers that were killed; and one that nobody waits for any more cannot move its part now.
        storage.remove_folder(self.file(STAGED))
        held = self._mend(STATUS_COLUMNS)
        asked = storage.read_table(self.file(MANIFEST), ["track_id"])["track_id"].combine_chunks()
        lost = pc.sum(pc.invert(pc.is_in(asked, value_set=held.rows["track_id"].combine_chunks()))).as_py() or 0
        if lost:
            raise RuntimeError(f"{self.uri}: {lost} songs missing; run the same command again.")
        tally = held.tally
        self._keep(FAILURES, tally.failed)
        finished = {"finished": timestamp(time.time()), "this_run": this_run}
        summary = {"job": job, **tally.counts(), "asked": tally.counts_of(asked), **finished}
        self.write_json(SUMMARY, summary)
        self.publish("_SUCCESS", b"")
        return summary

    def _keep(self, name: str, table: pa.Table) -> None:
        self.publish(f"_run/{name}", storage.parquet_bytes(table))

    def _held(self, columns: list[str]) -> Held:
        """What all parts hold, of these columns; a torn part is deleted.

        A million songs pass through here: what is kept of each is its id, a bit and a number.
        """
        parts, rows, tally = list_parts(self.uri), [_HELD.empty_table()], Tally()
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
        """Undo what a killed run may have left: half-written files, and songs that stand in two parts.

        Returns what the parts hold of these columns, each song once; a song that was read keeps that row.
        """
        storage.remove_temporaries(self.uri)
        held = self._held(columns)
        rows = held.rows
        if pc.count_distinct(rows["track_id"]).as_py() == len(rows):
            return held
        failed = rows["failed"].to_numpy().astype(np.int64)
        rank = pa.array(failed * len(rows) + np.arange(len(rows)))
        best = rows.append_column("rank", rank).group_by("track_id").aggregate([("rank", "min")])
        again = np.ones(len(rows), bool)
        again[best["rank_min"].to_numpy() % len(rows)] = False
        self._drop(held, pa.chunked_array([pa.array(again)]))
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
            keep = pc.invert(unwanted.filter(pc.equal(place, number)))
            part = held.parts[number]
            kept = storage.read_table(part.uri).filter(keep)
            # Killed between the two, a song stands there twice and is mended; the other order would lose work.
            if commit(self.uri, kept, self.lock.token) != part.name:
                self._discard(part)

    def _discard(self, part: storage.Entry) -> None:
        """Delete a part as it was listed; what another run may have written there since is its own."""
        self.lock.check()
        storage.discard(part.uri, part.version)


def commit(uri: str, rows: pa.Table, token: str | None = None) -> str:
    """Write whole songs as one part of an output directory, or nothing; returns the part's name.

    ``token`` is of the run that asked for the work; without one no run is at work there.

    Raises:
        LockLostError: that run no longer holds the lock.
    """
    name, data = part_name(rows), storage.parquet_bytes(rows)
    if token is None:
        storage.write_bytes(storage.join(uri, name), data)
    else:
        publish(uri, name, data, token)
    return name
