"""What would spoil a night, looked at in seconds before it begins: each miss is one sentence.

Every node is asked at once: whether it has the driver's versions, sees and can write the output, can read a few of the
songs, and has room on its disk. With one node only the room is in question.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from mer_ray import storage
from mer_ray.cluster.nodes import Cluster, on_each
from mer_ray.errors import InputError

SONGS = 3
"""Looked at on each node, spread over what is to do."""
LEAST_FREE = 2_000_000_000
"""Bytes that a node keeps free for what Ray spills and logs."""
WINDOWS_A_SONG = 22

Facts = dict[str, Any]


def check(output: str, songs: pa.Table, count: int, cluster: Cluster, dim: int) -> None:
    """Look at all that would spoil this run.

    Args:
        output: the directory of the parts.
        songs: some that are to do, with their ``uri``.
        count: how many there are.
        cluster: of nodes that answer.
        dim: features of a window.

    Raises:
        InputError: something would, in a sentence for each.
    """
    uris = songs["uri"].take(pa.array(sorted({at * len(songs) // SONGS for at in range(SONGS)}))).to_pylist()
    folder = storage.join(output, "_run")
    seen = storage.join(folder, "preflight")
    storage.write_bytes(seen, b"written by the driver")
    try:
        answers = on_each(cluster.nodes, _look(seen, folder, uris))
    finally:
        storage.remove(seen)
    hosts = {node.id: node.host for node in cluster.nodes}
    found = {hosts[node]: facts for node, facts in answers.items()}
    for node in hosts.keys() - answers.keys():
        print(f"preflight: node {hosts[node]} did not say what it sees; not looked at.", file=sys.stderr, flush=True)
    misses = [*misses_of(found, _driver(answers)), *_room(output, count, dim)]
    if misses:
        raise InputError(f"preflight: {' '.join(misses)} --no-preflight would go on regardless.")


def misses_of(found: dict[str, Facts], driver: Facts) -> Iterator[str]:
    """A sentence for each thing that is wrong with a node, by its name."""
    readable = {uri for facts in found.values() for uri, why in facts["songs"].items() if not why}
    for host, facts in found.items():
        for what, version in driver["versions"].items():
            if (there := facts["versions"][what]) != version:
                yield f"Node {host} has {what} {there}, the driver {version}; install the same."
        if not facts["sees"]:
            yield f"Node {host} does not see the output; give a place that all nodes share, such as s3://."
        elif facts["refuses"]:
            yield f"Node {host} cannot write the output ({facts['refuses']}); give it the right to."
        for uri in sorted(readable):
            if why := facts["songs"][uri]:
                yield f"Node {host} cannot read {uri} ({why}), which others can; give it the same access."
        if facts["free"] < LEAST_FREE:
            yield f"Node {host} has {facts['free'] / 1e9:.1f} GB free in {facts['disk']}; make room."


def _driver(answers: dict[str, Facts]) -> Facts:
    import ray

    return answers[ray.get_runtime_context().get_node_id()]


def _room(output: str, songs: int, dim: int) -> Iterator[str]:
    """Whether a local output has room for what the songs will come to."""
    if storage.is_s3(output):
        return
    free, wanted = shutil.disk_usage(output).free, songs * WINDOWS_A_SONG * dim * 2
    if free < wanted:
        yield f"{output} has {free / 1e9:.1f} GB free, {songs:,} songs will take some {wanted / 1e9:.1f}; make room."


def _look(seen: str, folder: str, songs: Sequence[str]) -> Callable[[], Facts]:
    """What a node does: whether it sees a file that the driver wrote, can write beside it, and can read songs.

    Sent as it stands, because a node may have another version of this module, or none.
    """

    def versions() -> dict[str, str]:
        import platform
        from importlib.metadata import PackageNotFoundError, version

        found = {"python": platform.python_version()}
        for name in ("ray", "torch"):  # without the seconds that their import takes
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = "none"
        try:
            from mer_ray import __version__ as ours
        except ImportError:
            ours = "none"
        return {**found, "mer_ray": ours}

    def look() -> Facts:
        import os
        import shutil
        import tempfile
        import uuid

        disk = tempfile.gettempdir()
        facts: Facts = {"versions": versions(), "sees": True, "refuses": "", "songs": dict.fromkeys(songs, "")}
        facts |= {"disk": disk, "free": shutil.disk_usage(disk).free}
        try:
            from mer_ray import storage
            from mer_ray.audio.fetching import fetch
        except ImportError:  # its versions say so
            return facts
        facts["sees"] = storage.exists(seen)
        if facts["sees"]:
            own = storage.join(folder, f"preflight-{os.uname().nodename}-{uuid.uuid4().hex[:8]}")
            try:
                storage.write_bytes(own, b"")
                storage.remove(own)
            except OSError as error:
                facts["refuses"] = str(error).rstrip(".")
        for uri in songs:
            try:
                fetch(uri)
            except Exception as error:  # noqa: BLE001 - whatever keeps this node from a song
                facts["songs"][uri] = str(error).rstrip(".")
        return facts

    return look
