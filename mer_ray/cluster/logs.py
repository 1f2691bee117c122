"""What Ray's processes last said, kept with a run that failed: by morning their nodes may be gone.

_run/logs/<node>.txt      the ends of a node's logs since the run began, the newest first; of the last failed run
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mer_ray import storage
from mer_ray.cluster import unpromised
from mer_ray.errors import InputError
from mer_ray.runs.directory import LOGS, RunDirectory, run_file

LOG_BYTES, NODE_BYTES = 32_000, 1_000_000
"""Of one log, and of all of a node."""
WITHIN_S = 20.0
"""A node that does not answer by then is passed over."""


@contextmanager
def kept_if_it_fails(output: RunDirectory) -> Iterator[None]:
    """Keep the logs of every node that still answers, should what is done inside fail otherwise than by a sentence."""
    begun = time.time()
    try:
        yield
    except InputError:
        raise
    except Exception:
        with suppress(Exception):  # why the run failed matters more
            _keep(output.uri, begun)
        raise


def _keep(uri: str, since: float) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = [
        ray.remote(ends).options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], False))
        for node in ray.nodes()
        if node["Alive"]
    ]
    done, _ = ray.wait([task.remote(since) for task in asked], num_returns=len(asked), timeout=WITHIN_S)
    for answer in done:
        with suppress(ray.exceptions.RayError):
            node, text = ray.get(answer)
            storage.write_bytes(run_file(uri, f"{LOGS}/{node}.txt"), text.encode())


def ends(since: float) -> tuple[str, str]:
    """This node's name, and the ends of its logs that were written after a moment (seconds since 1970)."""
    folder = unpromised.logs_folder()
    logs = [path for path in Path(folder).rglob("*") if path.suffix in (".err", ".out", ".log")] if folder else []
    written = {path: path.stat() for path in logs if path.is_file()}
    told, room = [], NODE_BYTES
    for path in sorted(written, key=lambda path: written[path].st_mtime, reverse=True):
        size = min(written[path].st_size, LOG_BYTES, room)
        if not size or written[path].st_mtime < since:
            continue
        with path.open("rb") as file:
            file.seek(-size, os.SEEK_END)
            told.append(f"==> {path.relative_to(str(folder))} <==\n{file.read(size).decode(errors='replace')}\n")
        room -= size
    return os.uname().nodename, "".join(told)
