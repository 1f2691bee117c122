"""The machines of a cluster: those that answer, what each has, and waiting for those that are to come."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from mer_ray.cluster.neighbours import Run, others
from mer_ray.errors import InputError

Answer = TypeVar("Answer")

ANSWER_SECONDS = 30.0
"""A node that has not run the smallest task by then does not answer; a busy one takes seconds to start a process."""
LOOK_SECONDS = 5.0
COME_BACK_MINUTES = 5.0
"""So long at least a run waits where no node is left that could do its work."""
ENOUGH_CPUS = 2
"""Ray Data's own tasks ask for a whole CPU: with one they would wait for ever beside an encoder."""


@dataclass(frozen=True)
class Node:
    """A machine, by Ray's id and the name a person knows it by; memory in bytes."""

    id: str
    host: str
    cpus: float = 0.0
    gpus: float = 0.0
    memory: float = 0.0


@dataclass(frozen=True)
class Cluster:
    """The nodes that work can be given to, and who works there.

    Attributes:
        nodes: that answer.
        silent: nodes that Ray still lists but that do not answer.
        others: other runs, in the order in which they began.
        before: how many of them began before this one.
    """

    nodes: tuple[Node, ...]
    silent: frozenset[str] = frozenset()
    others: tuple[Run, ...] = ()
    before: int = 0

    @property
    def cpus(self) -> float:
        """CPUs of all nodes together."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        """GPUs of all nodes together."""
        return sum(node.gpus for node in self.nodes)

    @property
    def places(self) -> int:
        """Runs that can be at work side by side."""
        return max(1, int(self.cpus // ENOUGH_CPUS))

    @property
    def own_cpus(self) -> float:
        """CPUs that are this run's share."""
        return self.cpus / min(1 + len(self.others), self.places)

    @property
    def own_gpus(self) -> int:
        """GPUs that are this run's share, if it encodes: one at least where there is one."""
        encoding = 1 + sum(run.job == "extract" for run in self.others)
        return max(min(1, int(self.gpus)), int(self.gpus) // encoding)

    @property
    def ids(self) -> frozenset[str]:
        """Of its nodes."""
        return frozenset(node.id for node in self.nodes)

    def without(self, silent: frozenset[str]) -> Cluster:
        """The same less nodes that are known not to answer."""
        nodes = tuple(node for node in self.nodes if node.id not in silent)
        return replace(self, nodes=nodes, silent=silent & self.ids)


def listed() -> Cluster:
    """The nodes that Ray takes to be alive, one that was lost for some seconds more; and the other runs there."""
    import ray

    def node(found: dict[str, Any]) -> Node:
        has = found["Resources"]
        host = found.get("NodeManagerHostname") or found["NodeManagerAddress"]
        return Node(found["NodeID"], host, has.get("CPU", 0.0), has.get("GPU", 0.0), has.get("memory", 0.0))

    runs, before = others()
    return Cluster(tuple(node(found) for found in ray.nodes() if found["Alive"]), others=tuple(runs), before=before)


def answering() -> Cluster:
    """The nodes that run a task at this moment; of one that does not, the console is told."""
    there = listed()

    def here() -> bool:  # sent as it stands: what a node has installed is another question
        return True

    answers = on_each(there.nodes, here)
    silent = frozenset(node.id for node in there.nodes if node.id not in answers)
    for node in there.nodes:
        if node.id in silent:
            print(f"node {node.host}: does not answer; its CPUs and GPUs are not counted.", file=sys.stderr, flush=True)
    return there.without(silent)


def on_each(nodes: Sequence[Node], function: Callable[[], Answer]) -> dict[str, Answer]:
    """What a function says on each node, by the node's id; of those that answer within ANSWER_SECONDS."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    others = [node for node in nodes if node.id != here]
    ask = ray.remote(function)
    asked = {
        ask.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote(): node.id
        for node in others
    }
    answers = {node.id: function() for node in nodes if node.id == here}
    if asked:
        done, late = ray.wait([*asked], num_returns=len(asked), timeout=ANSWER_SECONDS)
        for ref in late:
            ray.cancel(ref, force=True)
        for ref in done:
            try:
                answers[asked[ref]] = ray.get(ref)
            except RayError:  # it went while it was asked
                continue
    return answers


def gathered(gpus: int, minutes: float, again: bool) -> Cluster:
    """The nodes that answer; waited for where they are too few, whatever Ray still lists, or have no place left.

    Of runs that are too many for a cluster, those that began later wait for the others' end, however long.

    Args:
        gpus: that they must have.
        minutes: at most.
        again: not the first pass of a run: nodes that all went may come back, COME_BACK_MINUTES at least.

    Raises:
        InputError: as :func:`wait_for`.
    """
    minutes = max(minutes, COME_BACK_MINUTES) if again else minutes
    there = answering()
    if not _enough(there, gpus):
        wait_for(gpus, minutes, there.silent)
        there = answering()
    said = ""
    while there.before >= there.places:
        if said != (said := f"cluster: {there.cpus:g} CPUs have no place beside {there.others[0]}; waits for its end"):
            print(said, flush=True)
        time.sleep(LOOK_SECONDS)
        there = listed()
    return answering() if said else there


def wait_for(gpus: int, minutes: float, silent: frozenset[str] = frozenset()) -> None:
    """Wait until the cluster can begin: with two CPUs and so many GPUs, for which an autoscaler is asked.

    Args:
        gpus: that it must have.
        minutes: at most.
        silent: nodes that are known not to answer.

    Raises:
        InputError: the GPUs have not come within that time.
    """
    from ray.autoscaler.sdk import request_resources

    deadline = time.monotonic() + 60 * minutes
    asked = False
    while not _enough(there := listed().without(silent), gpus):
        if time.monotonic() >= deadline:
            break
        if not asked:
            asked = True
            request_resources(bundles=[{"CPU": ENOUGH_CPUS}, *[{"GPU": 1}] * gpus])
            print(f"cluster: {there.cpus:g} CPUs, {there.gpus:g} GPUs; waits {minutes:g} min for more", flush=True)
        time.sleep(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
    if asked:
        request_resources(bundles=[])
    if there.gpus < gpus:
        waited = f" after {minutes:g} min" if minutes else ""
        raise InputError(
            f"--require-gpus {gpus}: the cluster has {there.gpus:g}{waited}; add GPU nodes, or wait for them with "
            "--wait-minutes."
        )


def _enough(there: Cluster, gpus: int) -> bool:
    return there.cpus >= ENOUGH_CPUS and there.gpus >= gpus
