"""A pass whose ground goes from under it is followed by another, but not for ever."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from ray.exceptions import ActorUnavailableError, ActorUnschedulableError, NodeDiedError, RayError, RayTaskError

from mer_ray.cluster import passes
from mer_ray.cluster.supervision import Planned, View
from mer_ray.cluster.work import Opened, Work
from mer_ray.errors import InputError
from tests.cluster.test_plan import cluster

SONGS = pa.table({"track_id": ["a", "b", "c", "d"]})
UNAVAILABLE = ActorUnavailableError("RPC error: Socket closed", b"1" * 16)


class Script:
    """Passes that commit so many songs each and then end, or fail with what stands behind their number."""

    def __init__(self, *script: tuple[int, RayError | None]) -> None:
        self.script = list(script)
        self.slept: list[float] = []

    def __call__(self, graph: object) -> Script:
        self.songs, self.error = self.script.pop(0)
        return self

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        if self.songs:
            yield {"songs": self.songs}
        if self.error is not None:
            raise self.error

    def end(self) -> None: ...

    def look(self) -> View:
        return View()

    def begin_anew(self) -> None: ...


def run(monkeypatch: pytest.MonkeyPatch, script: Script) -> int:
    monkeypatch.setattr(passes, "Pass", script)
    monkeypatch.setattr(passes.time, "sleep", script.slept.append)
    planned = Planned(lambda: None, cluster(2))  # type: ignore[arg-type,return-value]
    output: Any = SimpleNamespace(shards=[None], sizes=[len(SONGS)])
    work = Work(output, {0: len(SONGS)})
    assert work.begin(lambda shard, number: Opened(SONGS, len(SONGS))) is SONGS
    done = 0
    for row in passes.receipts("extract", work, lambda number: planned, script):  # type: ignore[arg-type]
        if row is not None:
            work.add(row)
            done += row.songs
    return done


def inside(cause: Exception) -> RayError:
    """As a task fails that an exception was raised in."""
    error: RayError = RayTaskError("rows", "Traceback", cause).as_instanceof_cause()
    return error


LOSSES = {
    "an actor does not answer": UNAVAILABLE,
    "a node died": NodeDiedError("the node was lost"),
    "an actor of Ray Data's was there": inside(ActorUnschedulableError("The node doesn't exist any more.")),
}


@pytest.mark.parametrize("error", LOSSES.values(), ids=LOSSES)
def test_what_was_lost_is_planned_anew(
    error: RayError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Script((1, error), (0, error), (0, error), (3, None))
    assert run(monkeypatch, script) == 4
    assert script.slept == [10, 20], "a moment for Ray to see what was lost, where a pass did nothing"
    printed = capsys.readouterr().out
    assert "what the pass stood on is gone (" in printed
    assert "plans anew for at most 3 songs" in printed


def test_a_cluster_on_which_no_pass_gets_anywhere_ends_the_run_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    fruitless = [(0, UNAVAILABLE)] * passes.FRUITLESS_PASSES
    with pytest.raises(InputError, match=r"Socket closed.*3 passes in a row committed no song"):
        run(monkeypatch, Script((1, UNAVAILABLE), *fruitless))


def test_what_is_wrong_with_our_own_code_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        run(monkeypatch, Script((1, inside(ZeroDivisionError("division by zero"))), (3, None)))
