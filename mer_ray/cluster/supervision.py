"""Whether a pass still fits its cluster and still moves; if not, why, so that it can be planned anew.

A pass is looked at every few seconds. Nodes that went may have left encoders that hold what decoding and committing
need; nodes that came may hold more encoders. Where nothing moves for a minute the console is told who has what in hand,
and unless somebody is at work the pass is given up a minute later.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mer_ray import storage
from mer_ray.cluster.nodes import Cluster, listed
from mer_ray.cluster.plan import Plan
from mer_ray.cluster.watch import View, start_watch
from mer_ray.errors import InputError
from mer_ray.runs.directory import DEATHS
from mer_ray.runs.songs_directory import SongsDirectory

if TYPE_CHECKING:
    from ray.data import Dataset

STILL_SECONDS = 60.0
"""A pass in which nothing moves for so long says why."""
GIVEN_UP_SECONDS = 120.0
"""It is given up after so long if nobody is at work: an encoder that starts anew takes its time on a busy machine."""
STARTS_SECONDS = 300.0
"""So long the first worker of a pass may take to say anything."""
LONGEST_SECONDS = 1800.0
"""Nobody is at work on one song or one batch for longer."""
GROWS_AFTER_SECONDS = 30.0
"""A pass is not begun anew for nodes that came sooner, nor for another run before it is there so long."""
LOOK_SECONDS = 4.0
MOST_UNFIT = 0.5
"""Where more than this share of the encoders cannot work, it is not the machines."""


@dataclass(frozen=True)
class Planned:
    """A pass before it begins.

    Attributes:
        graph: makes the graph whose rows are receipts, where it will run.
        plan: its pools, where it has any that could cease to fit.
        cluster: what it was made for.
    """

    graph: Callable[[], Dataset]
    cluster: Cluster
    plan: Plan | None = None


class Watched:
    """The driver's side of a :class:`mer_ray.cluster.watch.Watch`; songs that encoders died of are kept in ``_run``."""

    def __init__(self, output: SongsDirectory) -> None:
        self._output = output
        self._known = output.read_json(output.own(DEATHS)) or {}
        self._born = 0.0

    @cached_property
    def actor(self) -> Any:
        """The actor, which workers are given; started as it is first asked for."""
        return start_watch(self._output.job, self._known)

    def look(self) -> View | None:
        """What it sees; None if it does not answer."""
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        try:
            view: View = ray.get(self.actor.look.remote(), timeout=LOOK_SECONDS)
        except (RayError, GetTimeoutError):
            return None
        if self._born and view.born != self._born:
            self.actor.remember.remote(self._known)
        elif view.deaths != self._known:
            self._known = view.deaths
            self._output.write_json(self._output.own(DEATHS), view.deaths)
        self._born = view.born
        return view

    def begin_anew(self) -> None:
        """All workers have been ended."""
        self.actor.anew.remote()

    def close(self) -> None:
        """All songs stand in parts, those that were given up too; others may have this run's share of the cluster."""
        import ray

        if "actor" in vars(self):
            ray.kill(self.actor)
        if self._known:
            storage.remove(self._output.file(self._output.own(DEATHS)))


class Supervisor:
    """Looks after one pass; ``patience`` stretches the time that it may stand still."""

    def __init__(self, job: str, planned: Planned, watched: Watched, patience: float) -> None:
        self._job, self._planned, self._watched, self._patience = job, planned, watched, patience
        self._begun = self._moved = self._looked = time.monotonic()
        self._done, self._said, self._alive = 0, False, False
        self._left_out: set[str] = set()
        self._crowded: float | None = None

    def moves(self) -> None:
        """A receipt has come."""
        self._moved, self._said = time.monotonic(), False

    def look(self) -> str:
        """Why the pass should be given up, if it should.

        Raises:
            InputError: too few encoders can work.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return ""
        self._looked = now
        view = self._watched.look() or View()
        self._alive = self._alive or bool(view.busy or view.done)
        if view.done > self._done:
            self._done = view.done
            self.moves()
        self._leave_out(view)
        return self._misfit(now) or self._standstill(now, view)

    def _leave_out(self, view: View) -> None:
        """Tell of encoders that cannot work."""
        for encoder in sorted(view.unfit.keys() - self._left_out):
            print(f"{self._job}: left out: {view.unfit[encoder]}", file=sys.stderr, flush=True)
        self._left_out |= view.unfit.keys()
        encoders = self._planned.plan.encoders if self._planned.plan else 0
        if view.unfit and len(view.unfit) > MOST_UNFIT * encoders:
            raise InputError(
                f"{self._job}: {len(view.unfit)} of {encoders} encoders cannot work: {'; '.join(view.unfit.values())}"
            )

    def _misfit(self, now: float) -> str:
        """What the cluster has become that the plan does not fit."""
        plan, was = self._planned.plan, self._planned.cluster
        if plan is None:
            return ""
        cluster = listed().without(was.silent)
        gone, came = len(was.ids - cluster.ids), len(cluster.ids - was.ids)
        if gone and not plan.fits(cluster):
            return f"{gone} node{'s' * (gone > 1)} went, and the encoders hold what decoding needs"
        grows = now - self._begun > GROWS_AFTER_SECONDS * self._patience
        if came and grows and plan.outgrown_by(cluster):
            return f"{came} node{'s' * (came > 1)} came"
        if len(cluster.others) < len(was.others) and grows and plan.outgrown_by(cluster):
            return "another run has left the cluster"
        self._crowded = (self._crowded or now) if plan.crowds(cluster, was) else None
        if self._crowded is not None and now - self._crowded > GROWS_AFTER_SECONDS:
            return f"{cluster.others[-1]} needs its share of the cluster"
        return ""

    def _standstill(self, now: float, view: View) -> str:
        still = now - self._moved
        if still < STILL_SECONDS:
            return ""
        why = f"nothing moved for {still:.0f} s: {holders(view, self._planned)}"
        if not self._said:
            self._said = True
            print(f"{self._job}: {why}", flush=True)
        waits = view.busy or listed().others  # for what these hold
        most = LONGEST_SECONDS if waits else GIVEN_UP_SECONDS if self._alive else STARTS_SECONDS
        return why if still > most * self._patience else ""


def holders(view: View, planned: Planned) -> str:
    """Who has what in hand, and what is held."""
    import ray

    counts = Counter(f"{work.stage} on {work.node}" for work in view.busy.values())
    at_work = ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "nobody is at work"
    free: dict[str, Any] = ray.available_resources()
    cpus = planned.cluster.cpus
    held = f"{max(0.0, cpus - free.get('CPU', 0.0)):g} of {cpus:g} CPUs are held"
    encoders = f" by up to {planned.plan.encoders} encoders of {planned.plan.encoder_cpus:g}" if planned.plan else ""
    others = "".join(f", and by {run}" for run in listed().others)
    return f"{at_work}; {held}{encoders}{others}"
