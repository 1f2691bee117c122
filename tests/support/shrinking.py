"""Extracts on a Ray that is smaller than it was, or becomes so; a script, so that its Ray is its own.

python -m tests.support.shrinking MANIFEST FOLDER [joins | returns]

Three raylets of two CPUs on this machine. One is killed just before the first extract starts, when Ray still counts it,
and never replaced. Another is killed when the second extract has committed its first part; with ``joins`` two come back
a little later. With ``returns`` the head has no CPU, all others are killed at once, and one comes back. Prints as JSON
how each ended, what it printed, and on which nodes encoders were seen.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import ROOT
from tests.support.chaos import TITLES, family
from tests.support.s3 import free_ports

LIMIT_SECONDS = 240
JOIN_AFTER_SECONDS = 10


def agent_ports() -> dict[str, int]:
    """Free ports for a node's agent: a raylet that is not told them gives its agent half a minute to say them."""
    names = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
    return dict(zip(names, free_ports(len(names)), strict=True))


class Raylets:
    """A head and others, of two CPUs each; the head of none if asked."""

    def __init__(self, others: int, head_cpus: int = 2) -> None:
        from ray._common.utils import reset_ray_address
        from ray.cluster_utils import Cluster

        from mer_ray.cluster.unpromised import keep_to_loopback

        keep_to_loopback()
        head = {"num_cpus": head_cpus, "include_dashboard": False, **agent_ports()}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        reset_ray_address()  # or whoever starts Ray on this machine meanwhile would join this one
        self._others = [self._cluster.add_node(num_cpus=2, **agent_ports()) for _ in range(others)]
        self.address: str = self._cluster.address

    def lose(self) -> None:
        """SIGKILL of one, and of all that runs on it."""
        self._cluster.remove_node(self._others.pop(), allow_graceful=False)

    def lose_all(self) -> None:
        """Of all but the head."""
        while self._others:
            self.lose()

    def join(self) -> None:
        """One more comes."""
        self._others.append(self._cluster.add_node(num_cpus=2, wait=False, **agent_ports()))

    def encoding(self) -> int:
        """On how many nodes an encoder stands at this moment."""
        nodes = [self._cluster.head_node, *self._others]
        families = [family(node.all_processes["raylet"][0].process.pid) for node in nodes]
        return sum(any(TITLES["encoder"] in line for line in lines.values()) for lines in families)

    def shutdown(self) -> None:
        """Give everything back."""
        self._cluster.shutdown()


def night(raylets: Raylets, manifest: str, features: Path, strike: Callable[[], None], join: int = 0) -> dict[str, Any]:
    """One extract that is struck when it has committed a part; so many raylets join a little later."""
    command = [sys.executable, str(ROOT / "jobs" / "extract.py"), "--catalog", manifest, "--features", str(features)]
    command += ["--encoder", "descriptors", "--songs-per-part", "2"]
    environment = {**os.environ, "RAY_ADDRESS": raylets.address, "PYTHONUNBUFFERED": "1"}
    begun, most = time.monotonic(), 0
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment, cwd=ROOT, **pipes) as job:
        struck = float("inf")
        while job.poll() is None and time.monotonic() - begun < LIMIT_SECONDS:
            if struck == float("inf") and list(features.glob("part-*.parquet")):
                strike()
                struck = time.monotonic()
            if join and time.monotonic() - struck > JOIN_AFTER_SECONDS:
                for _ in range(join):
                    raylets.join()
                join = 0
            if time.monotonic() > struck:
                most = max(most, raylets.encoding())
            time.sleep(0.2)
        job.kill()
        printed = job.stdout.read() if job.stdout else ""
    seconds = round(time.monotonic() - begun, 1)
    return {"code": job.returncode, "seconds": seconds, "encoding_nodes": most, "printed": printed}


def main(manifest: str, folder: str, mode: str = "") -> None:
    """Both nights, or the one of a cluster that goes and returns."""
    returns, nights = mode == "returns", {}
    raylets = Raylets(2, head_cpus=0 if returns else 2)
    try:
        if not returns:
            raylets.lose()
            nights["before"] = night(raylets, manifest, Path(folder) / "before", lambda: None)
        strike, join = (raylets.lose_all, 1) if returns else (raylets.lose, 2 * (mode == "joins"))
        nights["during"] = night(raylets, manifest, Path(folder) / "during", strike, join)
    finally:
        raylets.shutdown()
    print(json.dumps(nights))


if __name__ == "__main__":
    main(*sys.argv[1:4])
