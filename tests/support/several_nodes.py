"""Extraction on a Ray of several nodes of which one is lost for good; a script, so that its Ray is its own.

python -m tests.support.several_nodes MANIFEST FEATURES

Three raylets on this machine: a head with CPUs, and two nodes that claim a GPU each.
There is no GPU, so the job runs with its encoders' device replaced, and with nothing else changed. One of the
GPU nodes is killed (SIGKILL of its raylet, and with it of all that runs there) while its encoder stands and parts are
committed, and never replaced. Prints as JSON what ran where, and how the job ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.support.chaos import TITLES, family
from tests.support.shrinking import agent_ports

LIMIT_SECONDS = 140


class Nodes:
    """The raylets, by name."""

    def __init__(self) -> None:
        from ray._common.utils import reset_ray_address
        from ray.cluster_utils import Cluster

        from mer_ray.cluster.unpromised import keep_to_loopback

        keep_to_loopback()
        head = {"num_cpus": 2, "include_dashboard": False, **agent_ports()}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        reset_ray_address()  # or whoever starts Ray on this machine meanwhile would join this one
        self._nodes = {"cpu": self._cluster.head_node}
        for name in ("gpu", "lost gpu"):
            self._nodes[name] = self._cluster.add_node(num_cpus=1, num_gpus=1, **agent_ports())
        self.address: str = self._cluster.address

    def seen(self, ran: dict[str, set[str]]) -> None:
        """Note which kinds of worker each node has now."""
        for name in self._nodes:
            lines = self._family(name).values()
            ran.setdefault(name, set()).update(
                kind for kind, title in TITLES.items() if any(title in line for line in lines)
            )

    def encoding(self, name: str) -> bool:
        """Whether an encoder stands on a node."""
        return any(TITLES["encoder"] in line for line in self._family(name).values())

    def lose(self, name: str) -> None:
        """SIGKILL of a raylet; no other takes its place."""
        self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def shutdown(self) -> None:
        """Give everything back."""
        self._cluster.shutdown()

    def _family(self, name: str) -> dict[int, str]:
        (raylet,) = self._nodes[name].all_processes["raylet"]
        return family(raylet.process.pid)


def main(manifest: str, features: str) -> None:
    """Run the night and print what was seen of it."""
    nodes = Nodes()
    environment = {**os.environ, "RAY_ADDRESS": nodes.address}
    command = [sys.executable, __file__, "driver", "--catalog", manifest, "--features", features]
    command += ["--encoder", "descriptors", "--songs-per-part", "2", "--encoders", "2"]
    ran: dict[str, set[str]] = {}
    after: dict[str, set[str]] = {}
    try:
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as job:
            struck = _until(
                lambda: job.poll() is not None or (_parts(features) > 0 and nodes.encoding("lost gpu")),
                lambda: nodes.seen(ran),
            )
            before, struck = _parts(features), struck and job.poll() is None
            nodes.lose("lost gpu")
            lost_at = time.monotonic()
            _until(lambda: job.poll() is not None, lambda: nodes.seen(after))
            seconds = time.monotonic() - lost_at
            job.kill()
            printed = job.stdout.read() if job.stdout else ""
    finally:
        nodes.shutdown()
    seen = {"ran": _lists(ran), "after": _lists(after), "parts_before": before, "struck": struck}
    print(json.dumps({**seen, "code": job.returncode, "seconds": round(seconds, 1), "printed": printed}))


def driver() -> int:
    """The job with encoders on the CPU of the nodes that claim a GPU."""
    from jobs.extract import main as extract
    from mer_ray.cluster import extract as graphs
    from mer_ray.cluster.encoding import Encoding
    from mer_ray.cluster.settings import ExtractSettings
    from mer_ray.commandline import run

    chosen = graphs._encoding

    def without_cuda(settings: ExtractSettings, device: str) -> Encoding:
        assert device == "cuda"
        return replace(chosen(settings, device), device="cpu")

    graphs._encoding = without_cuda
    return run(extract, ExtractSettings)


def _parts(features: str) -> int:
    return len(list(Path(features).glob("part-*.parquet")))


def _until(done: Callable[[], bool], meanwhile: Callable[[], None]) -> bool:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not done():
        if time.monotonic() > deadline:
            return False
        meanwhile()
        time.sleep(0.02)
    return True


def _lists(ran: dict[str, set[str]]) -> dict[str, list[str]]:
    return {name: sorted(kinds) for name, kinds in ran.items()}


if __name__ == "__main__":
    if sys.argv[1] == "driver":
        del sys.argv[1]
        raise SystemExit(driver())
    main(*sys.argv[1:])
