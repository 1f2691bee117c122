"""One execution of a graph, in an actor that can be ended, and the passes that a run is made of.

What stands in parts is the truth, so a run whose graph does not fit the cluster any more, or moves no longer, is begun
again with the songs that no part holds. Ending the actor ends all that it owns: tasks, encoders, blocks, whatever state
they are in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any

from mer_ray.cluster.session import prepare_environment, quiet_data
from mer_ray.cluster.supervision import Planned, Supervisor, Watched
from mer_ray.cluster.watch import beside_driver
from mer_ray.cluster.work import Work
from mer_ray.errors import InputError
from mer_ray.runs.receipts import Receipt

TICK_SECONDS = 2.0
FRUITLESS_PASSES = 3
"""After so many passes in a row that committed nothing, a run ends."""
MEND_SECONDS = 10.0
"""A run waits so long after a fruitless pass, twice after the next: Ray needs as much to see a node lost."""


def receipts(job: str, work: Work, planned: Callable[[int], Planned], watched: Watched) -> Iterator[Receipt | None]:
    """Bring songs to their parts in as many passes as that takes; None where a moment passed without a receipt.

    Args:
        job: whose songs they are.
        work: what is to do; who takes a receipt notes it there.
        planned: how to do what is left, on the cluster as it is, in a pass by its number.
        watched: what the workers tell.

    Raises:
        InputError: no pass gets anywhere, or too few encoders can work.
    """
    from ray.exceptions import RayError

    fruitless, patience = 0, 1.0
    for number in count():
        if not work.songs:
            return
        found = planned(number)
        supervisor = Supervisor(job, found, watched, patience)
        rows, committed, why = Pass(found.graph), 0, ""
        try:
            for row in rows:
                if row is not None:
                    committed += row["songs"]
                    supervisor.moves()
                yield None if row is None else Receipt(**row)
                if why := supervisor.look():
                    break
        except RayError as error:
            if (lost := rays_own(error)) is None:
                raise
            why = f"what the pass stood on is gone ({' '.join(str(lost).split())[:200].rstrip('.')})"
        finally:
            rows.end()
        if not why:
            return
        fruitless = 0 if committed else fruitless + 1
        patience = 2.0**fruitless
        if fruitless == FRUITLESS_PASSES:
            raise InputError(f"{job}: {why}; {fruitless} passes in a row committed no song. Mend the cluster.")
        if fruitless:
            time.sleep(MEND_SECONDS * fruitless)
        watched.begin_anew()
        work.anew()
        print(f"{job}: {why}; plans anew for {work.said} songs", flush=True)


def rays_own(error: BaseException) -> BaseException | None:
    """The loss of an actor, a node or an object that Ray tells of, which another pass may be spared; None for ours.

    Ray Data stands on actors of its own too, on whatever node: their loss is an exception inside its tasks.
    """
    from ray.exceptions import RayError, RayTaskError

    while isinstance(error, RayTaskError):
        error = error.cause
    return error if isinstance(error, RayError) else None


class Pass:
    """A graph at work. Its rows come one by one, and None where a moment passed without one."""

    def __init__(self, graph: Callable[[], Any]) -> None:
        self._actor = beside_driver(_Runner).remote()
        self._rows = self._actor.rows.options(num_returns="streaming").remote(graph)

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        import ray

        while True:
            if not ray.wait([self._rows], timeout=TICK_SECONDS, fetch_local=False)[0]:
                yield None
                continue
            try:
                row = next(self._rows)
            except StopIteration:
                return
            yield ray.get(row)

    def end(self) -> None:
        """End it and all that it started."""
        import ray

        with suppress(ValueError):  # Ray has gone before
            ray.kill(self._actor)


class _Runner:
    """The actor's side."""

    def __init__(self) -> None:
        prepare_environment()
        quiet_data()

    def rows(self, graph: Callable[[], Any]) -> Iterator[dict[str, Any]]:
        """Run a graph to its end."""
        yield from graph().iter_rows()
