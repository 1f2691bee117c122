"""An output directory: who writes to it, what was asked, what is done, what came of it.

    part-*.parquet            all that a reader needs
    _run/manifest.parquet     what was asked
    _run/settings.json        how, resolved, with the code's version
    _run/summary.json         counts, audio seconds, rates
    _run/failures.parquet     the rows that are not ok
    _run/lock                 one run at a time; a dead run's lock expires
    _SUCCESS                  written last

A song is done when it stands in a committed part. A run does what the manifest lists and the parts
lack, so any number of kills and restarts ends with each song there exactly once. Workers that outlive
their killed driver commit nothing: a part is written only while the lock is held with the token of the
run that began the work. What slips through between that check and the write is mended before accounting.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mer_ray import __version__, storage
from mer_ray.errors import InputError
from mer_ray.features import STATUS_COLUMNS, STATUS_FIELDS, part_uris, read_columns
from mer_ray.fingerprints import canonical, differences, text_sha256
from mer_ray.runs.lock import RunLock, check_held

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")

_HELD_FIELDS = [pa.field("track_id", pa.string()), pa.field("failed", pa.bool_()), pa.field("part", pa.int32())]

SETTINGS, SUMMARY, MANIFEST, FAILURES = "settings.json", "summary.json", "manifest.parquet", "failures.parquet"


def connect() -> dict[str, float]:
    """Join the Ray cluster at hand, or start one here that listens on the loopback alone, with a quiet console.

    Returns:
        The cluster's resources, such as ``{"CPU": 16, "GPU": 1}``.
    """
    import logging

    prepare_environment()
    import ray
    import ray.data
    from ray._private import services

    if not ray.is_initialized():
        if services.canonicalize_bootstrap_address(None) is None:
            keep_to_loopback()
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False, configure_logging=True)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    resources: dict[str, float] = ray.cluster_resources()
    return resources


def keep_to_loopback() -> None:
    """Have a Ray that this process starts listen on 127.0.0.1 alone, metrics and object transfer included.

    Ray listens on all of a Linux machine's addresses, and turns a 127.0.0.1 it is told into the machine's own.
    What keeps it to the loopback is its switch for desktop systems: an environment variable, which is read at
    import. It stays set for processes started from here, which could not join that Ray without it.
    """
    from ray._private import ray_constants

    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def prepare_environment() -> None:
    """Set what Ray reads from the environment as it starts, unless the user has."""
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "CRITICAL")  # what it would log as an error it raises as well
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Ray ends a worker that idles for a second where there are more workers than CPUs: each commit would start one.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")


def instruments() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What makes a counter and a gauge that Ray serves to Prometheus."""
    from ray.util import metrics

    return metrics.Counter, metrics.Gauge


def side_by_side(function: Callable[[Task], Outcome], tasks: Sequence[Task], at_once: int | None) -> Iterator[Outcome]:
    """Call a function on each task, several at a time on the cluster; outcomes come as they are done.

    Args:
        function: importable; what it prints goes to Ray's logs.
        tasks: its arguments.
        at_once: how many at a time; one a CPU if None.
    """
    import ray

    cpus = connect().get("CPU", 1)
    share = max(1.0, cpus // at_once) if at_once else 1.0

    def alone(task: Task) -> Outcome:
        import torch

        torch.set_num_threads(int(share))
        return function(task)

    remote = ray.remote(alone).options(num_cpus=share)
    waiting = list(tasks)
    running: list[Any] = []
    while waiting or running:
        while waiting and len(running) < (at_once or cpus):
            running.append(remote.remote(waiting.pop(0)))
        done, running = ray.wait(running, num_returns=1)
        yield ray.get(done[0])


@dataclass(frozen=True)
class Held:
    """What the parts of a directory hold.

    Attributes:
        parts: their URIs.
        rows: a row a song: ``track_id``, ``failed`` and ``part``, an index into ``parts``.
        failures: the status columns that were read, of failed songs alone.
        truncated: songs cut short, and ``audio_seconds`` of all songs; 0 where the columns were not read.
    """

    parts: list[str]
    rows: pa.Table
    failures: pa.Table
    truncated: int
    audio_seconds: float


@dataclass
class OutputDirectory:
    """The output of one extract or tag job. Use it as a context: inside, the lock is held."""

    uri: str
    job: str

    def __enter__(self) -> OutputDirectory:
        self._lock = RunLock(self._run(""), self.job)
        self._lock.acquire()
        self._started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @property
    def token(self) -> str:
        """What this run's workers show to commit parts; worthless once the lock is gone."""
        return self._lock.token

    def begin(self, fingerprint: Mapping[str, Any], settings: Mapping[str, Any], manifest: pa.Table) -> None:
        """Write down what is asked, or find that the directory goes on from the same question.

        Raises:
            InputError: the directory was begun with other settings that change results.
        """
        asked = canonical(fingerprint)
        before = read_json(self._run(SETTINGS))
        if before is not None:
            unlike = differences(asked, before.get("fingerprint", {}))
            if unlike:
                raise InputError(
                    f"output {self.uri}: begun with other settings: {'; '.join(unlike)}; use another directory."
                )
        elif part_uris(self.uri):
            raise InputError(
                f"output {self.uri}: holds parts of unknown origin (no _run/settings.json); use another directory."
            )
        storage.remove(storage.join(self.uri, "_SUCCESS"))
        stamp = {"job": self.job, "version": __version__, "fingerprint": asked, "settings": canonical(settings)}
        started = [*(before or {}).get("started", []), _now()]
        storage.write_bytes(self._run(SETTINGS), as_json({**stamp, "started": started}))
        storage.write_table(self._run(MANIFEST), manifest)

    def pending(self, manifest: pa.Table, *, retry_failed: bool) -> pa.Table:
        """The manifest's songs that no part holds; failed ones too when they are to be done again."""
        held = self._mend(["track_id", "status"])
        rows = held.rows
        if retry_failed:
            self._drop(held, rows["failed"])
            rows = rows.filter(pc.invert(rows["failed"]))
        if not len(rows):
            return manifest  # as it is: a filter would copy it
        done = rows["track_id"].combine_chunks()
        return manifest.filter(pc.invert(pc.is_in(manifest["track_id"], value_set=done)))

    def write_pending(self, songs: pa.Table) -> str:
        """Put down the songs of this run, for who looks on; returns the URI. Written as its work begins."""
        storage.write_table(self._run("pending.parquet"), songs)
        return self._run("pending.parquet")

    def read_file(self, name: str) -> bytes | None:
        """A file of the run directory, None if it is not there."""
        try:
            return storage.read_bytes(self._run(name))
        except FileNotFoundError:
            return None

    def write_file(self, name: str, content: bytes) -> None:
        """Keep a file in the run directory."""
        storage.write_bytes(self._run(name), content)

    def check_lock(self) -> None:
        """Raise unless this run still holds the directory (a stalled machine may have lost it)."""
        self._lock.check()

    def finish(self, **run: Any) -> dict[str, Any]:
        """Account for every song from the parts themselves, and write the summary and _SUCCESS.

        Args:
            run: facts of this run to keep in the summary (songs done, seconds, rates).

        Returns:
            The summary.

        Raises:
            RuntimeError: a song of the manifest is missing from the parts, or another run has the lock.
        """
        self.check_lock()
        held = self._mend(STATUS_COLUMNS)
        rows, failed = held.rows, held.failures
        asked = storage.read_table(self._run(MANIFEST), ["track_id"])["track_id"]
        lost = pc.sum(pc.invert(pc.is_in(asked, value_set=rows["track_id"].combine_chunks()))).as_py() or 0
        if lost:
            raise RuntimeError(f"{self.uri}: {lost} songs missing; run the same command again.")
        storage.write_table(self._run(FAILURES), failed)
        summary = {
            "job": self.job,
            "songs": len(rows),
            "ok": len(rows) - len(failed),
            "failed": len(failed),
            "error_classes": dict(Counter(failed["error_class"].to_pylist()).most_common()),
            "truncated": held.truncated,
            "audio_seconds": round(held.audio_seconds, 1),
            "finished": _now(),
            "this_run": {**run, "seconds": round(time.monotonic() - self._started, 2)},
        }
        storage.write_bytes(self._run(SUMMARY), as_json(summary))
        storage.write_bytes(storage.join(self.uri, "_SUCCESS"), b"")
        return summary

    def _run(self, name: str) -> str:
        return storage.join(self.uri, "_run", name) if name else storage.join(self.uri, "_run")

    def _held(self, columns: list[str]) -> Held:
        """What all parts hold, of these columns; a torn part is deleted.

        A million songs pass through here: what is kept of each is its id, a bit and a number.
        """
        rows = [pa.schema(_HELD_FIELDS).empty_table()]
        failures = [pa.schema([field for field in STATUS_FIELDS if field.name in columns]).empty_table()]
        parts, truncated, audio_seconds = part_uris(self.uri), 0, 0.0
        for number, (part, table) in enumerate(read_columns(parts, columns)):
            if table is None:
                storage.remove(part)
                continue
            failed = pc.not_equal(table["status"], "ok")
            place = pa.array(np.full(len(table), number, np.int32))
            rows.append(pa.table([table["track_id"], failed, place], schema=rows[0].schema))
            failures.append(table.filter(failed).cast(failures[0].schema))
            if "truncated" in columns:
                truncated += pc.sum(table["truncated"]).as_py() or 0
                audio_seconds += pc.sum(table["duration_s"].cast(pa.float64())).as_py() or 0.0
        return Held(parts, pa.concat_tables(rows), pa.concat_tables(failures), truncated, audio_seconds)

    def _mend(self, columns: list[str]) -> Held:
        """Undo what a killed run may have left: half-written files, and songs that stand in two parts.

        Returns:
            What the parts hold of these columns, each song once; a song that was read keeps that row.
        """
        for folder in (self.uri, self._run("")):
            storage.remove_temporaries(folder)
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
            storage.remove(held.parts[number])
        for number in hit.filter(mixed).to_pylist():
            keep = pc.invert(unwanted.filter(pc.equal(place, number)))
            part = held.parts[number]
            kept = storage.read_table(part).filter(keep)
            # Killed between the two, a song stands there twice and is mended; the other order would lose work.
            if storage.join(self.uri, commit(self.uri, kept)) != part:
                storage.remove(part)


def part_name(table: pa.Table) -> str:
    """A part is named by the songs in it, so that work done twice lands on the same name."""
    return f"part-{text_sha256(chr(0).join(sorted(table['track_id'].to_pylist())))[:20]}.parquet"


def commit(uri: str, table: pa.Table, token: str | None = None) -> str:
    """Write one part, whole or not at all; returns its name.

    Args:
        uri: the output directory.
        table: whole songs.
        token: of the run that asked for the work, where it is done by another process than the lock's.

    Raises:
        RuntimeError: that run no longer holds the lock.
    """
    name = part_name(table)
    if token is not None:
        check_held(storage.join(uri, "_run"), token)
    storage.write_table(storage.join(uri, name), table)
    return name


def read_json(uri: str) -> dict[str, Any] | None:
    """A JSON object, or None where there is none or a torn one."""
    try:
        value = json.loads(storage.read_bytes(uri))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def as_json(value: Mapping[str, Any]) -> bytes:
    """Readable JSON."""
    return (json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n").encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
