"""Driving a graph to its end: progress, metrics, failures and the account of every song."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from mer_ray.cluster.bottleneck import Stages
from mer_ray.cluster.plan import Plan
from mer_ray.cluster.settings import RunSettings
from mer_ray.commandline import ALL_DONE, TOO_MANY_FAILURES
from mer_ray.errors import StorageError
from mer_ray.runs.metrics import FailureLines, RunMetrics
from mer_ray.runs.progress import Progress
from mer_ray.runs.receipts import COSTS, Receipt
from mer_ray.runs.songs_directory import SongsDirectory

if TYPE_CHECKING:
    from ray.data import Dataset

Summary = dict[str, Any]
"""As :meth:`mer_ray.runs.songs_directory.SongsDirectory.finish` writes it."""


def drive(output: SongsDirectory, graph: Dataset | None, total: int, pending: int, plan: Plan | None = None) -> Summary:
    """Run a graph to its end, printing progress, and account for every song.

    Args:
        output: where its parts go.
        graph: to receipts, a row for each committed part; None if there is nothing to do.
        total: songs asked for.
        pending: songs to do.
        plan: of an extract, whose bottleneck is told.

    Raises:
        StorageError: storage refused a worker for good.
    """
    from ray.util.metrics import Counter, Gauge  # which Ray serves to Prometheus

    costs = dict.fromkeys(COSTS, 0.0)
    begun, ready = time.time(), math.inf
    metrics, lines = RunMetrics(output.job, pending, Counter, Gauge), FailureLines(output.uri)
    with Progress(output.job, total, done=total - pending, watch=output.lock.check) as progress:
        for row in graph.iter_rows() if graph is not None else ():
            receipt = Receipt(**row)
            if receipt.trouble is not None:
                raise StorageError(receipt.trouble)
            progress.add(receipt.songs, len(receipt.failures), receipt.audio_s)
            metrics.add(receipt)
            if plan is not None:  # tag only repeats what the store says of a failed song
                lines.add(receipt.failures)
            costs = {name: spent + getattr(receipt, name) for name, spent in costs.items()}
            ready = min(ready, receipt.ready)
            if progress.trouble is not None:
                raise progress.trouble
    startup = min(max(0.0, ready - begun), progress.seconds) if graph is not None else 0.0
    rate = progress.audio_s / max(progress.seconds, 1e-9)
    retries, busy = int(costs.pop("fetch_retries")), (costs["decode_s"], costs["encode_s"])
    return output.finish(
        songs=pending,
        failed=progress.failed,
        work_seconds=round(progress.seconds, 2),
        audio_hours_per_hour=round(rate, 1),
        fetch_retries=retries,
        **{name: round(seconds, 2) for name, seconds in costs.items()},
        startup_s=round(startup, 2),
        **(Stages(plan, progress.seconds, startup, *busy).facts() if plan and graph else {}),
    )


def report(summary: Summary, uri: str) -> None:
    """Print what came of a run."""
    classes = ", ".join(f"{count:,} {name}" for name, count in summary["error_classes"].items())
    run = summary["this_run"]
    repeated = f", {run['fetch_retries']:,} fetches repeated ({run['fetch_retry_s']:,.1f} s)"
    print(
        f"{summary['job']}: {summary['ok']:,} ok, {summary['failed']:,} failed{f' ({classes})' if classes else ''}, "
        f"{summary['audio_seconds'] / 3600:,.2f} h of audio in {uri}; "
        f"this run {run['seconds']:,.1f} s{repeated if run['fetch_retries'] else ''}",
        flush=True,
    )
    if "bottleneck" in run:
        print(f"{summary['job']}: {run['bottleneck']}", flush=True)


def exit_code(summary: Summary, settings: RunSettings) -> int:
    """0, or 3 when more songs failed than the settings allow."""
    too_many = summary["failed"] > settings.max_failure_rate * max(1, summary["songs"])
    return TOO_MANY_FAILURES if too_many else ALL_DONE
