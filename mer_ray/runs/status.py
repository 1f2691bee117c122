"""What a run directory holds and who works on it, read from beside a run that may be writing to it.

Nothing here writes or takes a lock. Parts may come and go between a listing and a read: a part that
is gone is passed over, one that is no readable Parquet file is counted as torn.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.runs.asked import Asked, added, records
from mer_ray.runs.directory import MANIFEST, NODES, PENDING, PROGRESS, SETTINGS, SUMMARY, run_file
from mer_ray.runs.forgetting import read_forgotten
from mer_ray.runs.lock import Holder, read_holder, timestamp
from mer_ray.runs.ranges import Range, at_work, folders
from mer_ray.runs.shards import Shard, all_of, listed
from mer_ray.runs.tally import Tally
from mer_ray.songs import Damage, read_parts, read_whole

TRAINING = "train"

Status = SimpleNamespace
"""All that ``--json`` prints; None stands for what cannot be known (yet)."""

_COLUMNS = ["track_id", "status", "error_class", "duration_s"]


class RunFiles(NamedTuple):
    """The settings of a run directory ({} if they are torn or not yet there), its lock, and runs with a range."""

    settings: dict[str, Any]
    job: str
    lock: Holder | None
    ranges: dict[Range, Holder]

    @property
    def at_work(self) -> Holder | None:
        """A run that is at work there."""
        alive = [self.lock] if self.lock is not None and self.lock["alive"] else []
        return next(iter([*alive, *self.ranges.values()]), None)


def look(uri: str) -> Status:
    """Look at a run directory.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    with storage.readable(uri):
        found = open_run(uri)
        return _training(uri, found) if found.job == TRAINING else _songs(uri, found)


def open_run(uri: str) -> RunFiles:
    """The settings and the lock of a run directory.

    Raises:
        InputError: it is no run directory.
    """
    settings, lock = storage.read_json(run_file(uri, SETTINGS)), read_holder(storage.join(uri, "_run"))
    if settings is None and lock is None and not storage.exists(run_file(uri, MANIFEST)):
        raise InputError(
            f"--run {uri}: not a run directory (no _run/{SETTINGS}); point to what extract, tag or train wrote."
        )
    settings = settings or {}
    # A training keeps its fingerprint alone; settings that are torn or not yet there leave the lock to say.
    job = settings.get("job") or (TRAINING if "fingerprint" in settings else lock["job"] if lock else "unknown job")
    return RunFiles(settings, str(job), lock, at_work(uri))


def read_asked(shard: Shard) -> pa.ChunkedArray | None:
    """The ids of a shard's manifest; None where it is not there yet, or torn."""
    asked = read_whole(shard.file(MANIFEST), ["track_id"])
    return None if asked is None else asked["track_id"]


@dataclass
class Seen:
    """What was seen of a shard, or of several.

    Attributes:
        asked: songs; None if that is not known.
        done: songs of the manifest that stand in the parts, or if it is not known all of these.
        counts: of them, as a summary states them.
        audio_s: of all rows.
        commits: when each part was written, and how many songs it has.
    """

    asked: int | None = 0
    done: int = 0
    counts: list[dict[str, Any]] = field(default_factory=list)
    audio_s: float = 0.0
    doubled: int = 0
    unasked: int = 0
    torn: int = 0
    commits: list[tuple[float, float]] = field(default_factory=list)

    def add(self, other: Seen) -> None:
        """Count another shard."""
        self.asked = None if self.asked is None or other.asked is None else self.asked + other.asked
        for name in ("done", "counts", "audio_s", "doubled", "unasked", "torn", "commits"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def _songs(uri: str, found: RunFiles) -> Status:
    """``done`` are songs of the manifest that stand in the parts, ``ok`` and ``failed`` alike; ``rate`` is per hour.

    ``failed_on`` tells of each node on which songs of the run at work, or of the last one, failed how many it read.
    """
    # The lock was read first: a run that ends meanwhile shows as running, never as interrupted with all songs done.
    success = storage.exists(storage.join(uri, "_SUCCESS"))
    seen, shards, asked = Seen(), all_of(uri), Asked.read(uri)
    parts, _ = listed(uri, len(shards))
    finished = records(shards, asked.digests if asked else [""] * len(shards), parts)
    for shard, own, done in zip(shards, parts, finished, strict=True):
        seen.add(_look_into(shard, own) if done is None else _told(done, own))
    counts = added(seen.counts)
    left = None if seen.asked is None else seen.asked - seen.done
    nodes = _nodes(uri)
    rate, rate_of = _rate(uri, seen.commits, finished=success)
    return Status(
        uri=uri,
        job=found.job,
        state=_state(found, success),
        asked=seen.asked,
        done=seen.done,
        left=left,
        ok=counts["ok"],
        failed=counts["failed"],
        error_classes={name or "unnamed": songs for name, songs in counts["error_classes"].items()},
        failed_on={name: node for name, node in nodes.items() if node["failed"]},
        forgotten=len(read_forgotten(uri)),
        doubled=seen.doubled,
        unasked=seen.unasked,
        audio_hours=round(seen.audio_s / 3600, 4),
        shards=len(shards),
        shards_done=len(shards) - finished.count(None),
        parts=len(seen.commits) + seen.torn,
        torn_parts=seen.torn,
        started=[str(start) for start in found.settings.get("started", [])],
        rate=rate,
        rate_of=rate_of,
        last_part_age_s=_age(max(seen.commits)[0] if seen.commits else None),
        seconds_left=round(left / rate * 3600, 1) if left and rate else None,
        lock=found.lock,
        ranges={str(range_): holder for range_, holder in found.ranges.items()},
        success=success,
    )


def _told(done: dict[str, Any], parts: list[storage.Entry]) -> Seen:
    """Of a finished shard by its record."""
    held, asked = done["held"], done["asked"]
    return Seen(
        asked=asked["songs"],
        done=asked["songs"],
        counts=[asked],
        audio_s=held["audio_seconds"],
        unasked=held["songs"] - asked["songs"],
        commits=[(part.written, held["songs"] / len(parts)) for part in parts],
    )


def _look_into(shard: Shard, parts: list[storage.Entry]) -> Seen:
    """Of a shard by its parts."""
    tally, commits, torn = Tally(), [], 0
    found = read_parts([part.uri for part in parts], lambda part: storage.read_table(part, _COLUMNS))
    for part, (_, rows) in zip(parts, found, strict=True):
        if isinstance(rows, Damage):
            torn += rows is Damage.TORN
            continue
        tally.add(rows)
        commits.append((part.written, float(len(rows))))
    asked, distinct = read_asked(shard), pc.unique(pa.chunked_array(tally.ids, pa.string()))
    done = len(distinct) if asked is None else pc.sum(pc.is_in(asked, value_set=distinct)).as_py() or 0
    return Seen(
        asked=None if asked is None else len(asked),
        done=done,
        counts=[tally.counts_of(distinct if asked is None else asked.combine_chunks())],
        audio_s=tally.audio_s,
        doubled=tally.songs - len(distinct),
        unasked=len(distinct) - done,
        torn=torn,
        commits=commits,
    )


def _nodes(uri: str) -> dict[str, dict[str, Any]]:
    """What came of the songs of each node: of the runs with a range, or of the one that has all shards."""
    uris = [storage.join(uri, folder, NODES) for folder in folders(uri).values()]
    told = [found for own in uris if (found := storage.read_json(own))] or [
        storage.read_json(run_file(uri, NODES)) or {}
    ]
    total: dict[str, dict[str, Any]] = {}
    for name, node in (each for found in told for each in found.items()):
        before = total.setdefault(name, {"songs": 0, "failed": {}})
        failed = Counter(before["failed"]) + Counter(node["failed"])
        total[name] = {**node, "songs": before["songs"] + node["songs"], "failed": dict(failed)}
    return total


def _state(found: RunFiles, finished: bool) -> str:
    if found.at_work is not None:
        return "running"
    return "finished" if finished else "interrupted"


def _noted(uri: str, name: str) -> float | None:
    """When a file of ``_run`` was written; None if it is not there."""
    return storage.written(run_file(uri, name))


def _age(moment: float | None) -> float | None:
    return None if moment is None else round(max(0.0, time.time() - moment), 1)


def _rate(uri: str, commits: list[tuple[float, float]], *, finished: bool) -> tuple[float | None, str | None]:
    """Songs per hour and of which run: by the parts of the run at work, or by the last summary."""
    done = (storage.read_json(run_file(uri, SUMMARY)) or {}).get("this_run", {})
    songs, seconds = done.get("songs") or 0, done.get("work_seconds") or 0
    summed = (round(songs / seconds * 3600, 1), "the last finished run") if songs and seconds else (None, None)
    # Both are written as a run begins, after it has mended what an earlier one left, and never again.
    begun = max(_noted(uri, name) or 0.0 for name in (SETTINGS, PENDING))
    fresh = [commit for commit in commits if commit[0] >= begun]
    seconds = max(fresh)[0] - begun if fresh and begun else 0.0
    if seconds < 1 or (finished and summed[0]):
        return summed
    return round(sum(songs for _, songs in fresh) / seconds * 3600, 1), "this run"


def _training(uri: str, found: RunFiles) -> Status:
    """Of a model directory; epochs count from 1."""
    noted = storage.read_json(run_file(uri, PROGRESS))
    metrics = storage.read_json(storage.join(uri, "metrics.json")) or {}
    best = (noted or metrics).get("best", {})
    finished, begun = storage.exists(storage.join(uri, "config.json")), _noted(uri, SETTINGS)
    return Status(
        uri=uri,
        job=TRAINING,
        state=_state(found, finished),
        epochs_done=int(noted["epoch"]) + 1 if noted else int(metrics.get("epochs", 0)),
        epochs_asked=found.settings.get("fingerprint", {}).get("epochs"),
        best_macro_f1=best.get("macro_f1"),
        best_epoch=int(best["epoch"]) + 1 if best else None,
        last_start=None if begun is None else timestamp(begun),
        last_epoch_age_s=_age(_noted(uri, PROGRESS)),
        lock=found.lock,
        finished=finished,
    )
