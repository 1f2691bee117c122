"""What a run directory holds and who works on it, read from beside a run that may be writing to it.

Nothing here writes or takes a lock. Parts may come and go between a listing and a read: a part that
is gone is passed over, one that is no readable Parquet file is counted as torn.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.features import part_uris
from mer_ray.runs.directory import MANIFEST, SETTINGS, SUMMARY, read_json
from mer_ray.runs.lock import read_holder

TRAINING = "train"

_COLUMNS = ["track_id", "status", "error_class", "duration_s"]


@dataclass(frozen=True)
class Holder:
    """Who holds a lock; ``alive`` is false for a run that died, whose lock the next run takes over."""

    job: str
    process: int
    host: str
    since: str
    heartbeat_age_s: float
    alive: bool


@dataclass(frozen=True)
class SongsStatus:
    """An output directory of songs. ``None`` stands for what cannot be known (yet).

    Attributes:
        state: ``running``, ``finished`` or ``interrupted``.
        done: songs of the manifest that stand in the parts, failed ones too.
        doubled: rows too many; the next run mends them.
        unasked: songs in the parts that the manifest does not list.
        started: when each run on the directory began, first to last.
        rate: songs per hour, and ``rate_of`` whose: this run's, or the last finished run's.
        seconds_left: of work at that rate.
    """

    uri: str
    job: str
    state: str
    asked: int | None
    done: int
    left: int | None
    ok: int
    failed: int
    error_classes: dict[str, int]
    doubled: int
    unasked: int
    audio_hours: float
    parts: int
    torn_parts: int
    started: list[str]
    rate: float | None
    rate_of: str | None
    last_part_age_s: float | None
    seconds_left: float | None
    lock: Holder | None
    success: bool


@dataclass(frozen=True)
class TrainingStatus:
    """A model directory; epochs count from 1."""

    uri: str
    job: str
    state: str
    epochs_done: int
    epochs_asked: int | None
    best_macro_f1: float | None
    best_epoch: int | None
    last_start: str | None
    last_epoch_age_s: float | None
    lock: Holder | None
    finished: bool


class RunFiles(NamedTuple):
    """The settings of a run directory ({} if they are torn or not yet there), and its lock."""

    settings: dict[str, Any]
    job: str
    lock: Holder | None


@dataclass
class _Tally:
    """What the parts hold."""

    parts: int = 0
    torn: int = 0
    ids: list[pa.Array] = field(default_factory=list)
    classes: Counter[str] = field(default_factory=Counter)
    ok: int = 0
    audio_s: float = 0.0
    commits: list[tuple[float, int]] = field(default_factory=list)

    def add(self, rows: pa.Table, modified: float) -> None:
        ok = pc.equal(rows["status"], "ok")
        self.ids += rows["track_id"].chunks
        self.ok += pc.sum(ok).as_py() or 0
        self.classes.update(name or "unnamed" for name in rows["error_class"].filter(pc.invert(ok)).to_pylist())
        self.audio_s += pc.sum(rows["duration_s"].cast(pa.float64())).as_py() or 0.0
        self.commits.append((modified, len(rows)))


def inspect(uri: str) -> SongsStatus | TrainingStatus:
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
    settings, lock = read_json(_run(uri, SETTINGS)), _holder(uri)
    if settings is None and lock is None and not storage.exists(_run(uri, MANIFEST)):
        raise InputError(
            f"--run {uri}: not a run directory (no _run/{SETTINGS}); point to what extract, tag or train wrote."
        )
    settings = settings or {}
    # A training keeps its fingerprint alone; settings that are torn or not yet there leave the lock to say.
    job = settings.get("job") or (TRAINING if "fingerprint" in settings else lock.job if lock else "unknown job")
    return RunFiles(settings, str(job), lock)


def damaged(error: Exception) -> bool:
    """Whether a failed read tells of a file that is not readable Parquet, not of storage that does not answer."""
    return isinstance(error, pa.ArrowException) or (type(error) is OSError and error.errno is None)


def _run(uri: str, name: str) -> str:
    return storage.join(uri, "_run", name)


def _holder(uri: str) -> Holder | None:
    found = read_holder(storage.join(uri, "_run"))
    if found is None:
        return None
    age = max(0.0, time.time() - float(found.get("heartbeat", 0)))
    since = _time(float(found.get("since", 0)))
    who = str(found.get("job")), int(found.get("pid", 0)), str(found.get("host"))
    return Holder(*who, since, round(age, 1), bool(found["alive"]))


def _songs(uri: str, found: RunFiles) -> SongsStatus:
    # The lock was read first: a run that ends meanwhile shows as running, never as interrupted with all songs done.
    success = storage.exists(storage.join(uri, "_SUCCESS"))
    tally, asked = _count(uri), _asked(uri)
    ids = pa.chunked_array(tally.ids, pa.string())
    distinct = pc.unique(ids)
    done = len(distinct) if asked is None else pc.sum(pc.is_in(asked, value_set=distinct)).as_py() or 0
    left = None if asked is None else len(asked) - done
    rate, rate_of = _rate(uri, tally, finished=success)
    last = max((modified for modified, _ in tally.commits), default=None)
    return SongsStatus(
        uri=uri,
        job=found.job,
        state=_state(found.lock, success),
        asked=None if asked is None else len(asked),
        done=done,
        left=left,
        ok=tally.ok,
        failed=len(ids) - tally.ok,
        error_classes=dict(tally.classes.most_common()),
        doubled=len(ids) - len(distinct),
        unasked=len(distinct) - done,
        audio_hours=round(tally.audio_s / 3600, 4),
        parts=tally.parts,
        torn_parts=tally.torn,
        started=[str(start) for start in found.settings.get("started", [])],
        rate=rate,
        rate_of=rate_of,
        last_part_age_s=None if last is None else round(max(0.0, time.time() - last), 1),
        seconds_left=round(left / rate * 3600, 1) if left and rate else None,
        lock=found.lock,
        success=success,
    )


def _state(lock: Holder | None, finished: bool) -> str:
    if lock is not None and lock.alive:
        return "running"
    return "finished" if finished else "interrupted"


def _asked(uri: str) -> pa.ChunkedArray | None:
    """The ids of the manifest; None where it is not there yet, or torn."""
    try:
        return storage.read_table(_run(uri, MANIFEST), ["track_id"])["track_id"]
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        if damaged(error):
            return None
        raise


def _count(uri: str) -> _Tally:
    tally = _Tally()
    for part in _parts(uri):
        if part is None:
            continue
        modified, rows = part
        tally.parts += 1
        if rows is None:
            tally.torn += 1
        else:
            tally.add(rows, modified)
    return tally


def _parts(uri: str) -> Iterator[tuple[float, pa.Table | None] | None]:
    """Each part's time of commit and rows, several in flight; rows None if torn, all None if gone."""

    def read(part: str) -> tuple[float, pa.Table | None] | None:
        modified = _modified(part)
        if modified is None:
            return None
        try:
            return modified, storage.read_table(part, _COLUMNS)
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException) as error:
            if damaged(error):
                return modified, None
            raise

    parts = part_uris(uri)
    with ThreadPoolExecutor(max_workers=16) as pool:
        for start in range(0, len(parts), 64):
            yield from pool.map(read, parts[start : start + 64])


def _modified(uri: str) -> float | None:
    """When an object was written, by the storage's clock; None if it is not there."""
    fs, path = storage.filesystem(uri)
    try:
        return float(fs.modified(path).timestamp())
    except FileNotFoundError:
        return None


def _rate(uri: str, tally: _Tally, *, finished: bool) -> tuple[float | None, str | None]:
    """Songs per hour and of which run: by the parts of the run at work, or by the last summary."""
    done = (read_json(_run(uri, SUMMARY)) or {}).get("this_run", {})
    songs, seconds = done.get("songs") or 0, done.get("work_seconds") or 0
    summed = (round(songs / seconds * 3600, 1), "the last finished run") if songs and seconds else (None, None)
    # Both are written as a run begins, after it has mended what an earlier one left, and never again.
    begun = max(_modified(_run(uri, name)) or 0.0 for name in (SETTINGS, "pending.parquet"))
    fresh = [(modified, songs) for modified, songs in tally.commits if modified >= begun]
    seconds = max(fresh)[0] - begun if fresh and begun else 0.0
    if seconds < 1 or (finished and summed[0]):
        return summed
    return round(sum(songs for _, songs in fresh) / seconds * 3600, 1), "this run"


def _training(uri: str, found: RunFiles) -> TrainingStatus:
    noted = read_json(_run(uri, "progress.json"))
    metrics = read_json(storage.join(uri, "metrics.json")) or {}
    best = (noted or metrics).get("best", {})
    finished = storage.exists(storage.join(uri, "config.json"))
    begun, last = _modified(_run(uri, SETTINGS)), _modified(_run(uri, "progress.json"))
    return TrainingStatus(
        uri=uri,
        job=TRAINING,
        state=_state(found.lock, finished),
        epochs_done=int(noted["epoch"]) + 1 if noted else int(metrics.get("epochs", 0)),
        epochs_asked=found.settings.get("fingerprint", {}).get("epochs"),
        best_macro_f1=best.get("macro_f1"),
        best_epoch=int(best["epoch"]) + 1 if best else None,
        last_start=None if begun is None else _time(begun),
        last_epoch_age_s=None if last is None else round(max(0.0, time.time() - last), 1),
        lock=found.lock,
        finished=finished,
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
