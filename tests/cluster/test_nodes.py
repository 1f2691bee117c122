"""A run waits for the nodes that it requires, and asks an autoscaler for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mer_ray.cluster import nodes
from mer_ray.cluster.neighbours import Run
from mer_ray.cluster.nodes import Cluster, Node, wait_for
from mer_ray.errors import InputError
from tests.cluster.test_plan import cluster


class Growing:
    """A cluster that is another at each look, and what an autoscaler is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *stages: Cluster) -> None:
        from ray.autoscaler import sdk

        self.stages, self.asked, self.now = [*stages], list[list[dict[str, int]]](), 0.0
        monkeypatch.setattr(nodes, "listed", lambda: self.stages.pop(0) if len(self.stages) > 1 else self.stages[0])
        monkeypatch.setattr(sdk, "request_resources", lambda bundles: self.asked.append(bundles))
        monkeypatch.setattr(nodes.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(nodes.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_head_alone_is_enough_to_begin_with_where_nodes_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Growing(monkeypatch, cluster(0), cluster(0, 8), cluster(0, 8, 4), cluster(8, 8, gpus=2))
    wait_for(2, minutes=5)
    assert growing.asked == [[{"CPU": 2}, {"GPU": 1}, {"GPU": 1}], []]
    assert growing.now > 0


def test_gpus_that_do_not_come_end_the_wait_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Growing(monkeypatch, cluster(8, gpus=1))
    with pytest.raises(InputError, match="--require-gpus 2: the cluster has 1 after 3 min; add GPU nodes"):
        wait_for(2, minutes=3)
    assert growing.now == pytest.approx(180)


def test_without_patience_a_cluster_that_lacks_gpus_is_refused_at_once_and_one_that_has_them_asks_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    growing = Growing(monkeypatch, cluster(8))
    with pytest.raises(InputError, match="--require-gpus 1: the cluster has 0; add"):
        wait_for(1, minutes=0)
    wait_for(0, minutes=5)
    assert (growing.asked, growing.now) == ([], 0.0)


def test_a_node_that_does_not_answer_is_named_and_not_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = cluster(2, 2, 2)

    def only_two(asked: tuple[Any, ...], function: Any) -> dict[str, Any]:
        return {node.id: function() for node in asked[:2]}

    monkeypatch.setattr(nodes, "listed", lambda: there)
    monkeypatch.setattr(nodes, "on_each", only_two)
    found = nodes.answering()
    assert (found.cpus, found.silent) == (4, {"2"})
    assert "node host2: does not answer; its CPUs and GPUs are not counted." in capsys.readouterr().err
    assert there.without(found.silent).ids == found.ids


def test_of_more_runs_than_a_cluster_has_places_for_the_later_ones_wait(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = Cluster((Node("c", "c", 2, 0, 1e12),))
    other = Run(0.0, "tag", 1, "host", "01")
    growing = Growing(monkeypatch, *[replace(there, others=(other,), before=1)] * 4, there)
    monkeypatch.setattr(nodes, "on_each", lambda asked, function: {one.id: function() for one in asked})
    assert nodes.gathered(0, minutes=0, again=False) == there
    assert growing.now > 0
    waits = "cluster: 2 CPUs have no place beside the tag run with process 1 on host; waits for its end\n"
    assert capsys.readouterr().out == waits, "said once"
    first = replace(there, others=(other,), before=0)
    Growing(monkeypatch, first)
    assert nodes.gathered(0, minutes=0, again=False) == first


def test_nodes_that_all_went_are_waited_for_while_ray_still_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Cluster((Node("a", "a", 4, 0, 1e12), Node("b", "b", 4, 0, 1e12)))
    back = Cluster((*gone.nodes, Node("c", "c", 4, 0, 1e12)))
    growing = Growing(monkeypatch, gone, gone, gone, back)
    monkeypatch.setattr(
        nodes, "on_each", lambda asked, function: {one.id: function() for one in asked if one.id == "c"}
    )
    found = nodes.gathered(0, minutes=0, again=True)
    assert (found.ids, found.silent) == ({"c"}, {"a", "b"})
    assert growing.now > 0
