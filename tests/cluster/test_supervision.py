"""A pass that no longer fits its cluster, or stands still, is given up with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from mer_ray.cluster import supervision
from mer_ray.cluster.nodes import Cluster
from mer_ray.cluster.supervision import (
    GIVEN_UP_SECONDS,
    LONGEST_SECONDS,
    STARTS_SECONDS,
    STILL_SECONDS,
    Planned,
    Supervisor,
)
from mer_ray.cluster.watch import View, Work
from mer_ray.errors import InputError
from tests.cluster.test_plan import cluster, plan, shared


class Clock:
    """Time and a cluster that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, there: Cluster) -> None:
        self.now, self.there, self.view = 1000.0, there, View()
        monkeypatch.setattr(supervision.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(supervision, "listed", lambda: self.there)
        monkeypatch.setattr(supervision, "holders", lambda view, planned: f"{len(view.busy)} at work")

    def look(self) -> View:
        return self.view

    def after(self, seconds: float, supervisor: Supervisor) -> str:
        self.now += seconds
        return supervisor.look()


def watched(monkeypatch: pytest.MonkeyPatch, found: Any) -> tuple[Clock, Supervisor]:
    there = cluster(2, 2, 2)
    clock = Clock(monkeypatch, there)
    planned = Planned(lambda: None, there, found)  # type: ignore[arg-type,return-value]
    return clock, Supervisor("extract", planned, clock, patience=1.0)  # type: ignore[arg-type]


def test_a_node_that_goes_ends_a_pass_only_where_encoders_would_hold_what_decoding_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, supervisor = watched(monkeypatch, plan(6))
    assert clock.after(10, supervisor) == ""
    clock.there = cluster(2, 2)
    assert clock.after(10, supervisor) == "1 node went, and the encoders hold what decoding needs"
    clock, supervisor = watched(monkeypatch, plan(6, flags="--encoders 2"))
    clock.there = cluster(2, 2)
    assert clock.after(10, supervisor) == ""


def test_nodes_that_come_begin_a_pass_on_cpus_anew_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, supervisor = watched(monkeypatch, plan(6))
    clock.there = cluster(2, 2, 2, 2)
    assert clock.after(10, supervisor) == ""
    assert clock.after(30, supervisor) == "1 node came"


def test_a_run_that_joins_gets_its_share_after_a_while_and_one_that_leaves_gives_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, supervisor = watched(monkeypatch, plan(6))
    clock.there = shared(2, 2, 2)
    assert clock.after(10, supervisor) == ""
    assert clock.after(25, supervisor) == ""
    assert clock.after(10, supervisor) == "the extract run with process 1 on host needs its share of the cluster"
    clock, supervisor = watched(monkeypatch, plan(6))
    for there in (shared(2, 2, 2), cluster(2, 2, 2), shared(2, 2, 2)):
        clock.there = there
        assert clock.after(20, supervisor) == "", "a short run is gone before"
    clock.there = shared(2, 2, 2)
    planned = Planned(lambda: None, shared(2, 2, 2), plan(3))  # type: ignore[arg-type,return-value]
    supervisor = Supervisor("extract", planned, clock, patience=1.0)  # type: ignore[arg-type]
    assert clock.after(40, supervisor) == ""
    clock.there = cluster(2, 2, 2)
    assert clock.after(10, supervisor) == "another run has left the cluster"


def test_who_waits_for_what_another_run_holds_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, supervisor = watched(monkeypatch, None)
    clock.there = shared(2, 2, 2)
    assert clock.after(STARTS_SECONDS + 5, supervisor) == ""
    clock.there = cluster(2, 2, 2)
    assert "0 at work" in clock.after(10, supervisor)


def test_where_nothing_moves_for_a_minute_the_reason_is_said_and_after_another_the_pass_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, supervisor = watched(monkeypatch, None)
    clock.view.busy["one"] = Work("encode", "host", 0.0, 0.0)
    assert clock.after(STILL_SECONDS - 1, supervisor) == ""
    supervisor.moves()
    assert clock.after(STILL_SECONDS - 1, supervisor) == ""
    clock.view.done += 1
    assert clock.after(STILL_SECONDS - 1, supervisor) == ""
    assert capsys.readouterr().out == ""
    clock.view.busy.clear()
    assert clock.after(STILL_SECONDS + 1, supervisor) == ""
    assert capsys.readouterr().out == "extract: nothing moved for 61 s: 0 at work\n"
    assert clock.after(GIVEN_UP_SECONDS - STILL_SECONDS, supervisor) == "nothing moved for 121 s: 0 at work"
    assert capsys.readouterr().out == "", "it was said"


def test_a_worker_with_something_in_hand_is_waited_for_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, supervisor = watched(monkeypatch, None)
    clock.view.busy["one"] = Work("encode", "host", 0.0, 0.0)
    assert clock.after(GIVEN_UP_SECONDS + 5, supervisor) == ""
    assert "1 at work" in clock.after(LONGEST_SECONDS, supervisor)


def test_a_pass_that_starts_no_worker_has_its_time_to_do_so(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, supervisor = watched(monkeypatch, None)
    assert clock.after(GIVEN_UP_SECONDS + 5, supervisor) == ""
    assert "0 at work" in clock.after(STARTS_SECONDS, supervisor)


def test_encoders_that_cannot_work_are_named_and_more_than_half_of_them_end_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, supervisor = watched(monkeypatch, plan(6))
    clock.view.unfit["a"] = "encoder on host7: torch sees no GPU."
    assert clock.after(10, supervisor) == ""
    assert clock.after(10, supervisor) == ""
    assert capsys.readouterr().err == "extract: left out: encoder on host7: torch sees no GPU.\n"
    clock.view.unfit |= dict.fromkeys("bc", "it too.")
    with pytest.raises(InputError, match="3 of 4 encoders cannot work: encoder on host7"):
        clock.after(10, supervisor)
