"""Two hosts of one name, their clocks five minutes apart, race for one lock while each stalls as it writes.

python -m tests.two_hosts --rounds 200              # in a shared folder, then on S3; a table at the end
python -m tests.two_hosts --rounds 40 --unfenced    # as it was without a fence: written right after the look

A host is a process in a network, host name and process id namespace of its own (``unshare``, which needs root). In
each round both take the lock at once, one waiting for the other; who has it lists the parts, writes one, and stalls,
its heartbeat with it, between the look at the lock and the write of another: often so long that the other takes over.

What the last holder found and what it wrote itself must be all that is there in the end, and what the other believes
to have written must be among it: else a writer's part counts whose time was over, or a part was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mer_ray import storage
from mer_ray.runs import lock
from mer_ray.runs.lock import LockLostError, RunLock, publish
from mer_ray.songs import part_uris
from tests.support import ROOT
from tests.support.relay import relayed, unix_relay
from tests.support.s3 import forget_servers, seaweed_server

SKEWS_S = (-150.0, 150.0)
EXPIRES_S = {"folder": 1.0, "S3": 6.0}
"""Of a lock in this race: long beside a heartbeat on a busy machine. S3 tells the time of a write in whole seconds."""
SIDE_BY_SIDE = 8
"""Rounds at a time, each in a directory of its own."""
NAMESPACES = ("unshare", "--net", "--uts", "--pid", "--fork", "--kill-child")
DEADLINE_S = 3_000

Told = dict[str, Any]
"""What a host tells of its part in a round."""


def main() -> int:
    """Race, print the table, and fail if a part counts that must not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unfenced", action="store_true")
    parser.add_argument("--host", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.host is not None:
        print(json.dumps(host(json.loads(asked.host))))
        return 0
    found = {place: race(place, asked.rounds, asked.seed, unfenced=asked.unfenced) for place in EXPIRES_S}
    for place, counts in found.items():
        print(f"{place:8}" + ", ".join(f"{count:,} {name}" for name, count in counts.items()), flush=True)
    return 1 if any(counts["counted wrongly"] for counts in found.values()) else 0


def race(place: str, rounds: int, seed: int, *, unfenced: bool = False) -> Counter[str]:
    """Let two hosts race for the locks of many directories, in a folder or on S3; counts what came of it."""
    chance, started = random.Random(seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="two-hosts-") as folder, contextlib.ExitStack() as stack:
        root, environment = f"{folder}/shared", {}
        if place == "S3":
            server = stack.enter_context(seaweed_server(Path(folder) / "weed"))
            stack.enter_context(unix_relay(f"{folder}/s3.sock", server.endpoint))
            stack.enter_context(patch.dict(os.environ, server.environment))
            root = f"s3://{server.bucket}/shared"
            environment = server.environment
            stack.callback(forget_servers)
            forget_servers()
        plan = [
            {
                "uri": f"{root}/{number}",
                "stalls": [chance.uniform(0, 2) * EXPIRES_S[place] for _ in SKEWS_S],
                "delays": [chance.choice([0.0, chance.uniform(0, 0.3)]) for _ in SKEWS_S],
            }
            for number in range(rounds)
        ]
        common = {"rounds": plan, "folder": folder, "expires": EXPIRES_S[place], "unfenced": unfenced}
        with ThreadPoolExecutor(len(SKEWS_S)) as pool:
            told = [*pool.map(lambda me: _start({**common, "me": me}, environment), range(len(SKEWS_S)))]
        left = [part_uris(one["uri"]) for one in plan]
    counts: Counter[str] = Counter()
    for one, there in zip(zip(*told, strict=True), left, strict=True):
        counts.update(judged(one, there))
    counts["seconds"] = round(time.monotonic() - started)
    return counts


def judged(told: tuple[Told, ...], left: list[str]) -> Counter[str]:
    """What one round counts for, by what its hosts tell and what is there in the end."""
    first, last = sorted(told, key=lambda one: one["acquired"])
    counted = {*last["known"], *last["own"]}
    return Counter(
        {
            "rounds": 1,
            "taken over": int(last["acquired"] < first["released"]),
            "late writes refused": int(first["lost"]) + int(last["lost"]),
            "parts": len(left),
            "counted wrongly": len((set(left) ^ counted) | (set(first["own"]) - counted)),
        }
    )


def _start(settings: dict[str, Any], environment: dict[str, str]) -> list[Told]:
    """Run a host to its end; returns what it tells of each round."""
    run = [sys.executable, "-m", "tests.two_hosts", "--host", json.dumps(settings)]
    inside = "hostname shared-name && ip link set lo up && exec " + " ".join(['"$0"', '"$@"'])
    done = subprocess.run(
        [*NAMESPACES, "sh", "-c", inside, *run],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        timeout=DEADLINE_S,
        check=True,
    )
    told: list[Told] = json.loads(done.stdout)
    return told


def host(settings: dict[str, Any]) -> list[Told]:
    """One host: its part in every round, some rounds at a time."""
    me, right, look = settings["me"], time.time, lock.check_held
    lock.EXPIRES_SECONDS, lock.HEARTBEAT_SECONDS, lock.POLL_SECONDS = settings["expires"], settings["expires"] / 5, 0.05
    stalls: dict[str, Callable[[], None]] = {}

    def stalled_look(run: str, token: str) -> None:
        look(run, token)
        stalls[token]()

    def unfenced(output: str, name: str, data: bytes, token: str) -> None:
        stalled_look(storage.join(output, "_run"), token)
        storage.write_bytes(storage.join(output, name), data)

    def play(one: dict[str, Any]) -> Told:
        _meet(Path(settings["folder"]) / one["uri"].rsplit("/", 1)[-1], me)
        time.sleep(one["delays"][me])
        return run(one["uri"], me, one["stalls"][me], stalls, unfenced if settings["unfenced"] else publish)

    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(time, "time", lambda: right() + SKEWS_S[me]))
        stack.enter_context(patch.object(lock, "check_held", stalled_look))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        socket = Path(settings["folder"]) / "s3.sock"
        if socket.exists():
            stack.enter_context(patch.dict(os.environ, {"AWS_ENDPOINT_URL": stack.enter_context(relayed(str(socket)))}))
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            return list(pool.map(play, settings["rounds"]))


def run(uri: str, me: int, stall_s: float, stalls: dict[str, Callable[[], None]], write: Callable[..., None]) -> Told:
    """Take the lock of a directory and write two parts, stalling at the second; tells what it saw and believes."""
    mine = _taken(uri, me, stalls)

    def stall() -> None:
        stopped = mine._lost
        mine._lost = True  # a process that stalls does not beat either
        time.sleep(stall_s)
        mine._lost = stopped

    told = {"acquired": time.monotonic(), "known": part_uris(uri), "own": [], "lost": False}
    with contextlib.suppress(LockLostError):
        told["lost"] = True
        for number in (1, 2):
            name = f"part-{number}-{mine.token[:8]}.parquet"
            stalls[mine.token] = stall if number == 2 else lambda: None
            write(uri, name, b"songs", mine.token)
            told["own"].append(storage.join(uri, name))
        told["lost"] = False
    mine.release()
    return {**told, "released": time.monotonic()}


def _taken(uri: str, me: int, stalls: dict[str, Callable[[], None]]) -> RunLock:
    """The lock of a directory, taken again where a busy machine lost it at once."""
    while True:
        mine = RunLock(storage.join(uri, "_run"), f"host-{me}")
        stalls[mine.token] = lambda: None
        with contextlib.suppress(LockLostError):
            mine.acquire(wait=True)
            return mine


def _meet(place: Path, me: int) -> None:
    """Wait until the other host has come to the same round."""
    (place.parent / f"{place.name}-{me}").touch()
    deadline = time.monotonic() + DEADLINE_S
    while not all((place.parent / f"{place.name}-{other}").exists() for other in range(len(SKEWS_S))):
        assert time.monotonic() < deadline, "the other host never came"
        time.sleep(0.002)


if __name__ == "__main__":
    raise SystemExit(main())
