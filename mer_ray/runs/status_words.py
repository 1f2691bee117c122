"""What was seen of a run directory, in words for a console."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from mer_ray.runs.directory import MANIFEST
from mer_ray.runs.lock import Holder, named
from mer_ray.runs.progress import clock
from mer_ray.runs.status import TRAINING, Status

LABEL_WIDTH = 11
NODES_SHOWN = 5


def in_words(status: Status) -> str:
    """For a console: what is known, a line each, aligned."""
    lines = _training_lines(status) if status.job == TRAINING else _song_lines(status)
    head = f"{status.uri}: {status.job}, {status.state}\n"
    return head + "".join(f"  {label.ljust(LABEL_WIDTH)}{text}\n" for label, text in lines)


def _song_lines(status: Status) -> Iterator[tuple[str, str]]:
    if status.asked is None:
        yield "songs", f"{status.done:,} done; how many were asked is not known (no readable _run/{MANIFEST})"
    else:
        yield "songs", f"{status.asked:,} asked, {status.done:,} done, {status.left:,} left"
    yield "ok", f"{status.ok:,}, {status.audio_hours:,.2f} h of audio"
    classes = ", ".join(f"{count:,} {name}" for name, count in status.error_classes.items())
    yield "failed", f"{status.failed:,}" + (f": {classes}" if classes else "")
    if status.failed_on:
        yield "by node", _by_node(status.failed_on)
    if status.forgotten:
        yield "forgotten", f"{status.forgotten:,} songs are left out"
    if status.unasked:
        yield "unasked", f"{status.unasked:,} songs in the parts that the manifest does not list"
    if status.doubled:
        yield "doubled", f"{status.doubled:,} rows too many; the next run mends them"
    torn = f"; {status.torn_parts:,} torn, the next run does their songs again" if status.torn_parts else ""
    age = f", the last {clock(status.last_part_age_s)} ago" if status.last_part_age_s is not None else ""
    if status.shards > 1:
        yield "shards", f"{status.shards:,}, {status.shards_done:,} of them finished"
    yield "parts", f"{status.parts:,}{age}{torn}"
    yield "started", _starts(status.started)
    yield "rate", f"{status.rate:,.0f} songs per hour ({status.rate_of})" if status.rate else "not known yet"
    if status.seconds_left is not None:
        once = "" if status.state == "running" else " of work once it is started again"
        yield "time left", f"about {clock(status.seconds_left)}{once}"
    if status.lock is not None or not status.ranges:
        yield "lock", _lock_line(status.lock)
    for shards, holder in status.ranges.items():
        yield "lock", f"shards {shards} {_lock_line(holder)}"
    yield "_SUCCESS", "there: every song is accounted for" if status.success else "not there"


def _by_node(nodes: dict[str, dict[str, Any]]) -> str:
    """Those on which the largest share failed first."""
    shares = {name: sum(node["failed"].values()) / node["songs"] for name, node in nodes.items()}
    worst = sorted(shares, key=lambda name: shares[name], reverse=True)
    said = [
        f"{name} {shares[name]:.0%} of {nodes[name]['songs']:,} "
        f"({', '.join(f'{count:,} {error}' for error, count in nodes[name]['failed'].items())})"
        for name in worst[:NODES_SHOWN]
    ]
    return "; ".join([*said, *([f"{len(worst) - NODES_SHOWN:,} nodes more"] if len(worst) > NODES_SHOWN else [])])


def _training_lines(status: Status) -> Iterator[tuple[str, str]]:
    asked = f" of {status.epochs_asked:,}" if status.epochs_asked else ""
    age = f", the last {clock(status.last_epoch_age_s)} ago" if status.last_epoch_age_s is not None else ""
    yield "epochs", f"{status.epochs_done:,}{asked} done{age}"
    if status.best_macro_f1 is not None:
        yield "best", f"validation macro F1 {status.best_macro_f1:.3f} in epoch {status.best_epoch}"
    yield "started", f"last {status.last_start}" if status.last_start else "not known"
    yield "lock", _lock_line(status.lock)
    yield "model", "there: the training is finished" if status.finished else "not written yet"


def _starts(started: list[str]) -> str:
    if not started:
        return "not known"
    first, last = (_ago(started[at]) for at in (0, -1))
    return first if len(started) == 1 else f"{first}; {len(started):,} starts, the last {last}"


def _ago(stamp: str) -> str:
    return f"{stamp} ({clock(max(0.0, time.time() - datetime.fromisoformat(stamp).timestamp()))} ago)"


def _lock_line(lock: Holder | None) -> str:
    if lock is None:
        return "held by nobody"
    who = f"{named(lock['job'], lock['process'], lock['host'])} since {lock['since']}"
    beat = f"last heartbeat {clock(lock['heartbeat_age_s'])} ago"
    if lock["alive"]:
        return f"held by {who}; {beat}: alive"
    return f"left by {who}; {beat}: expired, the next run takes over"
