"""Kills, damage and their accounting: what a night may bring to a job, and what must be left afterwards.

    night = Night(environment, cluster=os.getpid(), seed=0)
    night.through("extract", flags, output, ["driver", "encoder", "decoder"], watched=[music])
    assert_same(output, undisturbed)

A job is started, something of it is killed at a random moment, and the same command is run again whenever
the job has ended otherwise than well. Linux only: processes are found in /proc, work is seen with inotify.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mer_ray.runs.directory import SETTINGS
from mer_ray.runs.shards import Shard, by_shard, stated
from tests.support import ROOT

TITLES = {
    "encoder": "MapWorker(MapBatches(EncodeSongs))",
    "tagger": "MapWorker(MapBatches(TagSongs))",
    "decode worker": "(decode_work)",
    "commit worker": "(commit_features)",
    "decoder": "mer_ray.audio.child",
}
"""What the command line of a process shows that can be killed: actors, a task's worker, an isolated decoder."""

DRIVERS = {"driver": signal.SIGKILL, "driver (SIGTERM)": signal.SIGTERM}
DAMAGE = ("torn part", "empty part", "part twice", "temporary", "stale lock", "half a summary", "no _SUCCESS")
DAMAGE_OF_SHARDS = ("torn record", "no record", "torn asked", "no pending")
"""Of a directory of several shards."""
_DAMAGE = (*DAMAGE, *DAMAGE_OF_SHARDS)

READS_A_SONG = 2
"""A local song is opened to see whether it can be, and then by its decoder."""

DEADLINE_SECONDS = 280
"""A run that is longer about its end hangs."""

ATTEMPTS = 4
"""So many runs in a row may not end badly with nothing killed in them."""


def family(root: int) -> dict[int, str]:
    """Command lines of all that descends from a process, by process id."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        with suppress(ValueError, OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found, waiting = {}, [root]
    while waiting:
        for pid in children.get(waiting.pop(), []):
            waiting.append(pid)
            with suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found


class Reads:
    """Notes when each file of some folders has been read, while used as a context."""

    _CLOSE_NOWRITE = 0x10

    def __init__(self, folders: Sequence[Path]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._folders = folders
        self._seen: list[tuple[float, str]] = []
        self._over = threading.Event()

    def __enter__(self) -> Reads:
        self._descriptor = self._libc.inotify_init()
        for folder in self._folders:
            if self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), self._CLOSE_NOWRITE) < 0:
                raise OSError(ctypes.get_errno(), f"{folder}: cannot be watched")
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        os.close(self._descriptor)

    def again(self) -> list[float]:
        """When decoding began of a file that had been decoded before."""
        seen: Counter[str] = Counter()
        times = []
        for when, name in list(self._seen):
            if seen[name] and seen[name] % READS_A_SONG == 0:
                times.append(when)
            seen[name] += 1
        return times

    def _listen(self) -> None:
        while not self._over.is_set():
            if not select.select([self._descriptor], [], [], 0.2)[0]:
                continue
            events, at = os.read(self._descriptor, 1 << 16), 0
            while at < len(events):
                watch, _, _, size = struct.unpack_from("iIII", events, at)
                name = os.fsdecode(events[at + 16 : at + 16 + size].rstrip(b"\0"))
                at += 16 + size
                if name:
                    self._seen.append((time.monotonic(), f"{watch}/{name}"))


@dataclass
class Night:
    """Kills and restarts, and what they cost.

    Attributes:
        environment: of the jobs, with the address of a Ray of one's own.
        cluster: the process whose descendants that Ray is.
        seed: of every moment and choice.
        undisturbed: rows of an undisturbed run, of which a ``late part`` is made.
        lose_node: kills a node of the cluster and adds another.
        kills: what was struck, in order.
        redone: songs decoded once more, by what was struck before.
    """

    environment: Mapping[str, str]
    cluster: int
    seed: int
    undisturbed: pa.Table | None = None
    lose_node: Callable[[], None] | None = None
    kills: list[str] = field(default_factory=list)
    redone: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def through(
        self, job: str, flags: Sequence[object], output: Path, kinds: Sequence[str], watched: Sequence[Path] = ()
    ) -> list[str]:
        """Run a job to its good end through kills of these kinds, in order.

        Args:
            job: ``extract`` or ``tag``.
            flags: of the job.
            output: its output directory.
            kinds: keys of TITLES and DRIVERS, members of DAMAGE and DAMAGE_OF_SHARDS (done before the next start),
                ``node``, ``late part``.
            watched: folders with the songs.

        Returns:
            The kinds that did not come to strike, because the job was done before.
        """
        waiting, bad_ends = list(kinds), 0
        struck: list[tuple[float, str]] = []
        with Reads(watched) as reads:
            while True:
                while waiting and waiting[0] in _DAMAGE and damage(output, waiting[0], self._random):
                    struck.append((time.monotonic(), waiting.pop(0)))
                with self._started(job, flags) as run:
                    before = len(struck)
                    while waiting and waiting[0] not in _DAMAGE and self._strike(run, waiting[0], output):
                        struck.append((time.monotonic(), waiting.pop(0)))
                    if waiting and waiting[0] in _DAMAGE and self._strike(run, "driver", output):
                        struck.append((time.monotonic(), "driver"))  # damage comes with a power loss
                    code = self._ended(job, run)
                if code == 0:
                    break
                bad_ends = bad_ends + 1 if len(struck) == before else 0
                assert bad_ends < ATTEMPTS, f"{job}: still exit code {code} with nothing killed any more"
            self._account(struck, reads.again())
        return waiting

    @property
    def killed(self) -> int:
        """How many processes or nodes were killed, damage and late parts aside."""
        return sum(kind not in (*_DAMAGE, "late part") for kind in self.kills)

    def _started(self, job: str, flags: Sequence[object]) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *map(str, flags)]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, env=dict(self.environment), cwd=ROOT, stdout=quiet, stderr=quiet)

    @staticmethod
    def _ended(job: str, run: subprocess.Popen[bytes]) -> int:
        """The exit code of a run that nothing strikes any more, which has its time."""
        try:
            return run.wait(timeout=DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            run.kill()
            raise AssertionError(f"{job}: hangs; not done {DEADLINE_SECONDS} s after what struck it last") from None

    def _account(self, struck: Sequence[tuple[float, str]], again: Sequence[float]) -> None:
        self.kills += [kind for _, kind in struck]
        for when in again:
            before = [kind for at, kind in struck if at < when]
            self.redone[before[-1] if before else "nothing"] += 1

    def _strike(self, run: subprocess.Popen[bytes], kind: str, output: Path) -> bool:
        """Kill at a random moment; False if the run was over before."""
        # Decoding runs ahead: by the time of the first part, a short run may have nothing left to decode.
        ahead = kind in ("decoder", "decode worker")
        parts = len(list(output.glob("part-*"))) + (0 if ahead else self._random.choice([0, 1, 1, 2]))
        while run.poll() is None and len(list(output.glob("part-*"))) < parts:
            time.sleep(0.02)
        while kind == "late part" and run.poll() is None and not (output / "_run" / SETTINGS).exists():
            time.sleep(0.02)  # no worker of a dead run writes where none has begun
        time.sleep(self._random.uniform(0, 0.4))
        if kind in DRIVERS:
            if run.poll() is not None:
                return False
            run.send_signal(DRIVERS[kind])
            run.wait(timeout=60)
            return True
        if kind in ("node", "late part"):
            if run.poll() is None:
                self._disturb(kind, output)
            return run.returncode is None
        return self._kill_one(run, TITLES[kind])

    def _disturb(self, kind: str, output: Path) -> None:
        if kind == "node":
            assert self.lose_node is not None
            self.lose_node()
            return
        # What a worker of a dead run would leave that had passed the lock's check before it was stopped.
        assert self.undisturbed is not None
        late = self.undisturbed.take(self._random.sample(range(len(self.undisturbed)), 2))
        for number, rows in by_shard(late, of := stated(str(output))):
            pq.write_table(rows, output / Shard(str(output), number, of).part_name(rows))

    def _kill_one(self, run: subprocess.Popen[bytes], title: str) -> bool:
        while run.poll() is None:
            found = [pid for pid, line in family(self.cluster).items() if title in line]
            with suppress(ProcessLookupError):
                if found:
                    os.kill(self._random.choice(found), signal.SIGKILL)
                    return True
            time.sleep(0.01)
        return False


def damage(output: Path, kind: str, chance: random.Random) -> bool:
    """What a power loss may leave in an output directory; False while there is nothing to damage."""
    parts, run = sorted(output.glob("part-*.parquet")), output / "_run"
    if not parts:
        return False
    part = chance.choice(parts)
    match kind:
        case "torn part":
            os.truncate(part, part.stat().st_size // 2)
        case "empty part":
            os.truncate(part, 0)
        case "part twice":
            shutil.copy(part, output / f"{part.name.rpartition('-')[0]}-{chance.randrange(16**20):020x}.parquet")
        case "temporary":
            (output / f".{part.name}.{chance.randrange(9999)}.tmp").write_bytes(part.read_bytes()[:100])
        case "stale lock":
            holder = {"token": "gone", "job": "extract", "host": "lost-node", "pid": 1, "heartbeat": time.time() - 600}
            (run / "lock").write_text(json.dumps(holder))
            os.utime(run / "lock", (0, 0))
        case "torn record":
            (chance.choice(sorted(run.glob("shards/*"))) / "done.json").write_text('{"key": "')
        case "no record" | "no pending":
            name = "pending.parquet" if kind == "no pending" else "done.json"
            (chance.choice(sorted(run.glob("shards/*"))) / name).unlink(missing_ok=True)
        case "torn asked":
            (run / "asked.json").write_text('{"songs": [1')
        case "half a summary":
            (run / "summary.json").write_text('{"job": "extr')
        case _:
            (output / "_SUCCESS").unlink(missing_ok=True)
    return True


def rows_of(output: Path) -> pa.Table:
    """Every row of the parts, in order of the ids."""
    return pa.concat_tables([pq.read_table(part) for part in sorted(output.glob("part-*.parquet"))]).sort_by("track_id")


def lost_and_doubled(output: Path, undisturbed: pa.Table) -> tuple[int, int]:
    """How many ids of an undisturbed run the parts lack, and how many rows they hold too many."""
    ids = rows_of(output)["track_id"].to_pylist()
    return len(set(undisturbed["track_id"].to_pylist()) - set(ids)), len(ids) - len(set(ids))


def assert_same(output: Path, undisturbed: pa.Table, without: Sequence[str] = ()) -> None:
    """Raise unless a directory ended well, with the rows of an undisturbed run (some columns aside) and no litter."""
    rows, other = rows_of(output).drop_columns([*without]).to_pandas(), undisturbed.to_pandas()
    assert rows.track_id.tolist() == other.track_id.tolist(), "other songs"
    wide = [name for name in ("features", "tags") if name in rows]
    pd.testing.assert_frame_equal(rows.drop(columns=wide), other.drop(columns=wide))
    for one, two in zip(rows.get("features", []), other.get("features", []), strict=True):
        assert len(one) == len(two), f"a song of {len(two)} windows has {len(one)}"
        if len(one):
            np.testing.assert_allclose(np.stack(one), np.stack(two), atol=1e-3)
    for one, two in zip(rows.get("tags", []), other.get("tags", []), strict=True):
        assert [tag["label"] for tag in one] == [tag["label"] for tag in two], "other tags"
        np.testing.assert_allclose([tag["score"] for tag in one], [tag["score"] for tag in two], atol=1e-5)
    summary = json.loads((output / "_run" / "summary.json").read_text())
    counted, there = (summary["songs"], summary["ok"]), (len(other), int((other.status == "ok").sum()))
    assert counted == there, f"the summary counts {counted} songs and good ones, the parts hold {there}"
    assert (output / "_SUCCESS").exists(), "no _SUCCESS"
    assert not (output / "_run" / "lock").exists(), f"still locked: {(output / '_run' / 'lock').read_text()}"
    litter = sorted(str(path.relative_to(output)) for path in output.rglob(".*.tmp"))
    assert not litter, f"left behind: {litter}"
