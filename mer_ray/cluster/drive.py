"""Driving a graph to its end: progress, metrics, failures, what bound it, and the account of every song.

A stage's load is the share of its processes' time in which they worked on a song. Encoders count from
the moment the first of them is loaded, so that a slow start is no idleness; decoders from the run's start.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mer_ray.cluster.logs import kept_if_it_fails
from mer_ray.cluster.passes import receipts
from mer_ray.cluster.plan import Plan
from mer_ray.cluster.settings import RunSettings
from mer_ray.cluster.supervision import Planned, Watched
from mer_ray.cluster.work import Work
from mer_ray.commandline import ALL_DONE, TOO_MANY_FAILURES
from mer_ray.errors import StorageError
from mer_ray.runs.directory import NODES
from mer_ray.runs.metrics import FailureLines, RunMetrics
from mer_ray.runs.progress import Progress
from mer_ray.runs.receipts import COSTS, Receipt
from mer_ray.runs.withheld import Withheld

FULL = 0.5
"""A stage that works less than this share of its time does not bind."""

Summary = dict[str, Any]
"""As :meth:`mer_ray.runs.songs_directory.SongsDirectory.finish` writes it."""


def drive(
    work: Work,
    total: int,
    planned: Callable[[int], Planned],
    watched: Watched,
    withheld: Withheld | None = None,
) -> Summary:
    """Do the songs, printing progress, and account for every song.

    Args:
        work: what is to do, of ``total`` songs that are asked for.
        planned: how to do what is left, on the cluster as it is, in a pass by its number.
        watched: what the workers tell.
        withheld: of an extract, which writes its failed songs.

    Raises:
        StorageError: storage refused a worker for good.
        InputError: the cluster cannot do it, or (nearly) all songs fail.
    """
    from ray.util import metrics as prometheus

    output, account, plan = work.output, Account(time.time()), None
    metrics, lines = RunMetrics(output.job, work.songs, prometheus.Counter, prometheus.Gauge), FailureLines(output.uri)

    def watch() -> None:
        output.lock.check()
        if withheld is not None:
            output.write_json(output.own(NODES), withheld.nodes())

    with kept_if_it_fails(output), Progress(output.job, total, total - work.songs, watch) as progress:

        def noted(number: int) -> Planned:
            nonlocal plan
            found = planned(number)
            plan = plan or found.plan
            return found

        for receipt in receipts(output.job, work, noted, watched):
            if progress.trouble is not None:
                raise progress.trouble
            if receipt is not None:
                if receipt.trouble is not None:
                    raise StorageError(receipt.trouble)
                work.add(receipt)
                progress.add(receipt.songs, len(receipt.failures), receipt.audio_s)
                metrics.add(receipt)
                account.add(receipt)
                if plan is not None:  # tag only repeats what the store says of a failed song
                    lines.add(receipt.failures)
                if withheld is not None:
                    withheld.add(receipt)
            # What a pass had committed when it was ended may not have been told; a shard may have less to do.
            progress.done = total - work.songs
            work.finish_ready(pa.array([], pa.string()) if withheld is None else withheld.ids())
        if withheld is not None:
            withheld.close()
            output.write_json(output.own(NODES), withheld.nodes())
        work.finish_all()
    watched.close()
    return output.finish(songs=work.found, failed=progress.failed, **account.figures(plan, progress))


@dataclass
class Account:
    """What the receipts of a run that ``begun`` then, in seconds since 1970, add up to."""

    begun: float
    ready: float = math.inf
    costs: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COSTS, 0.0))
    classes: Counter[str] = field(default_factory=Counter)

    def add(self, receipt: Receipt) -> None:
        """One more."""
        self.classes.update(failure["error_class"] for failure in receipt.failures)
        self.costs = {name: spent + getattr(receipt, name) for name, spent in self.costs.items()}
        self.ready = min(self.ready, receipt.ready or math.inf)  # what tells of a shard comes from no worker of ours

    def figures(self, plan: Plan | None, progress: Progress) -> dict[str, Any]:
        """For a summary; ``plan`` is that of an extract."""
        startup = min(max(0.0, self.ready - self.begun), progress.seconds)
        costs = {name: round(seconds, 2) for name, seconds in self.costs.items()}
        busy = self.costs["decode_s"], self.costs["encode_s"]
        return {
            "error_classes": dict(self.classes.most_common()),
            "work_seconds": round(progress.seconds, 2),
            "audio_hours_per_hour": round(progress.audio_s / max(progress.seconds, 1e-9), 1),
            **costs,
            "fetch_retries": int(self.costs["fetch_retries"]),
            "startup_s": round(startup, 2),
            **(bottleneck(plan, progress.seconds, startup, *busy) if plan else {}),
        }


def bottleneck(plan: Plan, work_s: float, startup_s: float, decode_s: float, encode_s: float) -> dict[str, Any]:
    """What binds and what would change it, for a summary.

    Args:
        plan: the pools of the extract.
        work_s: from the start of the graph to its last commit.
        startup_s: until the first encoder was loaded.
        decode_s: busy, summed over songs, fetching included.
        encode_s: busy, summed over songs.
    """
    decode, encode = _share(decode_s, plan.decoders * work_s), _share(encode_s, plan.encoders * (work_s - startup_s))
    idle_decoders, idle_encoders = (f"idle {1 - load:.0%} of the time" for load in (decode, encode))
    if max(decode, encode) < FULL:
        binding = "neither"
        sentence = (
            f"neither stage was full: decoders {idle_decoders}, encoders {idle_encoders}; "
            "the run was short, or waited for Ray, storage or commits"
        )
    elif decode > encode:
        binding = "decode"
        more = plan.decoders * plan.decoder_cpus * decode * (1 / max(encode, 0.01) - 1)
        sentence = (
            f"decode-bound: the encoders were {idle_encoders}; {more:,.1f} CPUs more for decoding would keep them busy"
        )
    else:
        binding = "encode"
        times = encode / max(decode, 0.01)
        sentence = (
            f"encode-bound: the decoders were {idle_decoders}; encoding {times:,.1f} times as fast (a GPU, more cores) "
            "would keep them busy"
        )
    return {
        "decoders_idle": round(1 - decode, 3),
        "encoders_idle": round(1 - encode, 3),
        "bound_by": binding,
        "bottleneck": sentence,
    }


def _share(busy: float, of: float) -> float:
    return min(1.0, busy / of) if of > 0 else 0.0


def report(summary: Summary, uri: str) -> None:
    """Print what came of a run."""
    run, asked = summary["this_run"], summary["asked"]
    classes = ", ".join(f"{count:,} {name}" for name, count in asked["error_classes"].items())
    others = f", {more:,} other songs among it" if (more := summary["songs"] - asked["songs"]) else ""
    repeated = f", {run['fetch_retries']:,} fetches repeated ({run['fetch_retry_s']:,.1f} s)"
    print(
        f"{summary['job']}: {asked['ok']:,} ok, {asked['failed']:,} failed{f' ({classes})' if classes else ''}, "
        f"{summary['audio_seconds'] / 3600:,.2f} h of audio in {uri}{others}; "
        f"this run {run['seconds']:,.1f} s{repeated if run['fetch_retries'] else ''}",
        flush=True,
    )
    if "bottleneck" in run:
        print(f"{summary['job']}: {run['bottleneck']}", flush=True)


def exit_code(summary: Summary, settings: RunSettings) -> int:
    """0, or 3 when more of the songs that this run did failed than the settings allow."""
    run = summary["this_run"]
    too_many = run["failed"] > settings.max_failure_rate * run["songs"]
    return TOO_MANY_FAILURES if too_many else ALL_DONE
