"""Who works on what: an actor beside the driver that every worker of a run tells, so that a run can say why it stands.

A worker says every few seconds what it has in hand; one that is silent is gone. Of encoders it keeps more: which songs
one had begun when its process died. Songs that were there several times are encoded alone, and one that was alone
there is given up: a block that kills its encoder is never tried for ever.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from weakref import WeakSet

from mer_ray.cluster.neighbours import NAMESPACE, this_run
from mer_ray.threads import Ticker

BEAT_SECONDS = 5.0
GONE_SECONDS = 45.0
"""A worker that has said nothing for so long has ended with its process."""

TOGETHER = 2
"""After so many deaths of encoders that had it with others, a song is encoded alone."""
ALONE = 2
"""After so many more that had it alone, it is the song."""
MOST_STARTS = 2 + TOGETHER + ALONE
"""An encoder that has started more often without one song encoded is no good: one song alone takes fewer."""

Deaths = dict[str, list[int]]
"""By song: deaths of encoders that had it with others, and alone."""


@dataclass
class Work:
    """What a worker has in hand: the stage, since when, and what it had done in all; times in seconds since 1970."""

    stage: str
    node: str
    since: float
    seen: float
    done: int = 0


@dataclass
class View:
    """What a driver sees of its workers.

    Attributes:
        busy: workers that have something in hand, by their process.
        unfit: encoders that cannot work, with the reason.
        deaths: songs whose encoders died.
        done: songs decoded and windows encoded, by all workers there ever were.
        born: when the actor was started, in seconds since 1970; anew where its node was lost.
    """

    busy: dict[str, Work] = field(default_factory=dict)
    unfit: dict[str, str] = field(default_factory=dict)
    deaths: Deaths = field(default_factory=dict)
    done: int = 0
    born: float = field(default_factory=time.time)


class Watch:
    """The actor's side. ``deaths`` are those that an earlier run wrote down."""

    def __init__(self, deaths: Deaths) -> None:
        self._view = View(deaths=deaths)
        self._open: dict[str, tuple[str, list[str], float]] = {}
        self._starts: Counter[str] = Counter()
        self._last: dict[str, str] = {}

    def tell(self, process: str, stage: str, node: str, since: float, done: int) -> None:
        """A worker has something in hand; with ``since`` 0 it has nothing any more."""
        before = self._view.busy.pop(process, None)
        self._view.done += done
        if since:
            total = done + (before.done if before else 0)
            self._view.busy[process] = Work(stage, node, since, time.time(), total)

    def remember(self, deaths: Deaths) -> None:
        """It was started anew, and knows only the first of these."""
        self._view.deaths.update(deaths)

    def starts(self, encoder: str) -> str:
        """An encoder's process starts; returns why it should not, where it died too often."""
        self._starts[encoder] += 1
        died = self._starts[encoder] - 1
        last = self._last.get(encoder, "")
        return f"it died {died} times with no song encoded{last}" if died >= MOST_STARTS else ""

    def begins(self, encoder: str, process: str, songs: list[str]) -> Deaths:
        """An encoder has songs in hand; returns which of them had been in hand when encoders died.

        ``encoder`` stays the same when it is started anew, ``process`` does not: what the last process had begun and
        not ended, it died of or with.
        """
        before, had, _ = self._open.get(encoder, (process, [], 0.0))
        if before != process:
            self._blame(had)
        self._open[encoder] = (process, songs, time.time())
        return {song: self._view.deaths[song] for song in songs if song in self._view.deaths}

    def ends(self, encoder: str) -> None:
        """It has done what it began, and is alive; a song that was given up stays known until its row is committed."""
        _, had, _ = self._open.pop(encoder, ("", [], 0.0))
        del self._starts[encoder]
        for song in had:
            if self._view.deaths.get(song, [0, 0])[1] < ALONE:
                self._view.deaths.pop(song, None)

    def dies(self, encoder: str, why: str) -> None:
        """An encoder's process is about to end itself."""
        self._last[encoder] = f", the last time by: {why}"

    def is_unfit(self, encoder: str, why: str) -> None:
        """An encoder cannot work where it is, and waits for the end of the run."""
        self._view.unfit[encoder] = why

    def look(self) -> View:
        """The state of things; workers that are gone are left out."""
        now = time.time()
        for process in [name for name, work in self._view.busy.items() if now - work.seen > GONE_SECONDS]:
            del self._view.busy[process]
        return self._view

    def anew(self) -> None:
        """All workers have been ended; the songs they had are not to blame, but where their encoder was gone before."""
        alive, lately = self.look().busy, time.time() - GONE_SECONDS
        for process, had, begun in self._open.values():
            if process not in alive and begun < lately:
                self._blame(had)
        self._open.clear()
        self._view.busy.clear()
        self._view.unfit.clear()

    def _blame(self, songs: Sequence[str]) -> None:
        for song in songs:
            self._view.deaths.setdefault(song, [0, 0])[len(songs) == 1] += 1


def start_watch(job: str, deaths: Mapping[str, Sequence[int]]) -> Any:
    """A watch as an actor beside this driver, which it does not outlive; other runs know this one by it."""
    actor = beside_driver(Watch, name=this_run(job).name, namespace=NAMESPACE, max_restarts=-1)
    return actor.remote({song: [*counts] for song, counts in deaths.items()})


def beside_driver(actor: type, **options: Any) -> Any:
    """An actor's class, to be started on this driver's node, where it takes no CPU from the work."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(actor).options(num_cpus=0, scheduling_strategy=here, **options)


class Told:
    """A worker's side: what it has in hand is told while it has it, and what it has done, every few seconds.

    What is over sooner is told with what follows: a watch hears each worker as often however short its songs are.
    Without a watch nothing is told.
    """

    def __init__(self, watch: Any, stage: str) -> None:
        self._watch, self._stage, self._done = watch, stage, 0
        self._lock, self._now, self._since, self._last, self._said = threading.Lock(), stage, 0.0, time.time(), False
        self.process, self.encoder = uuid.uuid4().hex, ""
        self.node = os.uname().nodename
        if watch is not None:
            import ray

            context = ray.get_runtime_context()
            self.encoder = context.get_actor_id() or ""
            _BEATING.add(self)
            _start_clock()

    @contextmanager
    def busy(self, stage: str = "") -> Iterator[None]:
        """While something is in hand."""
        self._now, self._since = stage or self._stage, time.time()
        try:
            yield
        finally:
            with self._lock:
                self._since = 0.0
                if self._said or time.time() - self._last > BEAT_SECONDS:
                    self._tell()

    def beat(self) -> None:
        """Tell what is in hand, if anything is."""
        with self._lock:
            if self._since:
                self._tell()

    def step(self, done: int = 1) -> None:
        """Something is done, which is told with the next beat."""
        self._done += done

    def ask(self, method: str, *arguments: Any) -> Any:
        """What the watch answers to a question about this encoder; None where there is no watch, or it is gone."""
        if self._watch is None:
            return None
        import ray
        from ray.exceptions import RayError

        try:
            return ray.get(getattr(self._watch, method).remote(self.encoder, *arguments))
        except RayError:  # a run goes on without its watch
            return None

    def _tell(self) -> None:
        self._last, self._said = time.time(), bool(self._since)
        if self._watch is not None:
            done, self._done = self._done, 0
            self._watch.tell.remote(self.process, self._now, self.node, self._since, done)


_BEATING: WeakSet[Told] = WeakSet()
"""Those of this process, which have one clock."""


@cache
def _start_clock() -> None:
    Ticker("watched", BEAT_SECONDS, _beat).start()


def _beat() -> None:
    for told in list(_BEATING):
        told.beat()
