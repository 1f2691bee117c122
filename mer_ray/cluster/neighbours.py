"""The runs at work in a cluster, each of which takes its share.

A run is known by its watch (:mod:`mer_ray.cluster.watch`), an actor with a name that says whose it is, and since when;
it ends with its driver.
"""

from __future__ import annotations

import os
import socket
import time
from typing import NamedTuple

from mer_ray.runs.lock import named

NAMESPACE = "mer_ray"


class Run(NamedTuple):
    """A run that is at work: since when, in seconds since 1970, its job, its driver, and Ray's id of that."""

    since: float
    job: str
    process: int
    host: str
    driver: str

    def __str__(self) -> str:
        return named(self.job, self.process, self.host)

    @property
    def name(self) -> str:
        """Of its actor."""
        return "|".join(map(str, self))

    @classmethod
    def of(cls, name: str) -> Run:
        """Whose actor has this name."""
        since, job, process, host, driver = name.split("|")
        return cls(float(since), job, int(process), host, driver)


def this_run(job: str) -> Run:
    """The one of this process, which begins now."""
    return Run(time.time(), job, os.getpid(), socket.gethostname(), _driver())


def others() -> tuple[list[Run], int]:
    """The other runs in the order in which they began, and how many of them began before this process's own."""
    from ray.util import list_named_actors

    found = list_named_actors(all_namespaces=True)
    runs = sorted(Run.of(actor["name"]) for actor in found if actor["namespace"] == NAMESPACE)
    own = min((run for run in runs if run.driver == _driver()), default=None)
    rest = {run.driver: run for run in reversed(runs) if run.driver != _driver()}
    there = sorted(rest.values())
    return there, sum(own is None or run < own for run in there)


def _driver() -> str:
    import ray

    return str(ray.get_runtime_context().get_job_id())
