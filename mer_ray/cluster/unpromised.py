"""What Ray does not promise, in one room: each use with what is done where a version of Ray lacks it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partialmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.data import Dataset

CLUSTERS_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's switch for desktop systems. It keeps a Ray to the loopback, which none of its arguments does: it listens on
all of a Linux machine's addresses, and turns a 127.0.0.1 it is told into the machine's own."""

NOT_ASKED = ("start_api_server", "start_monitor", "start_log_monitor")
"""Processes of a head node that nobody asks here, a second each of Python's start: the dashboard's head (of which only
usage reports are left without a dashboard), the autoscaler's monitor (one node has nothing to scale), the log monitor
(``log_to_driver`` is off). The agent that serves metrics stays."""


def is_running() -> bool:
    """Whether ``ray.init`` would join a Ray; without Ray's own word, where RAY_ADDRESS names one."""
    try:
        from ray._private.services import canonicalize_bootstrap_address
    except ImportError:
        return "RAY_ADDRESS" in os.environ
    return canonicalize_bootstrap_address(None) is not None


def keep_to_loopback() -> None:
    """Have a Ray that this process starts listen on 127.0.0.1 alone, metrics and object transfer included.

    The variable is read at import; it stays set for processes started from here, which could not join that Ray
    without it. Where Ray was imported before and has no such constant any more, the variable alone is set: a Ray
    started from here listens on all addresses, as one started by ``ray start`` does.
    """
    os.environ[CLUSTERS_VARIABLE] = "0"
    with suppress(ImportError):
        from ray._private import ray_constants

        ray_constants.ENABLE_RAY_CLUSTER = False


@contextmanager
def without_greeting() -> Iterator[None]:
    """Leave out the line that Ray's core writes to standard error, past Python, of the log level it was asked for.

    What else is written meanwhile comes when Ray has started.
    """
    try:
        kept = os.dup(2)
    except OSError:  # no standard error at all
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            for line in file:
                if b"Set ray log level" not in line:
                    os.write(2, line)


@contextmanager
def bare_node() -> Iterator[None]:
    """While a Ray of this process starts: leave out NOT_ASKED, as far as Ray still calls them so.

    The agent takes any port: a second Ray on this machine would have it wait three seconds for one that is taken.
    """
    try:
        from ray._private.node import Node
        from ray._private.parameter import RayParams
    except ImportError:
        yield
        return
    kept: dict[str, Callable[..., Any]] = {name: getattr(Node, name) for name in NOT_ASKED if hasattr(Node, name)}
    made = RayParams.__init__
    for name in kept:
        setattr(Node, name, lambda self, **_: None)
    RayParams.__init__ = partialmethod(made, dashboard_agent_listen_port=0)
    try:
        yield
    finally:
        RayParams.__init__ = made
        for name, method in kept.items():
            setattr(Node, name, method)


def map_as_they_come(blocks: Dataset, stage: type, batch_songs: int, **options: Any) -> Dataset:
    """Give each block to a stage as it comes: putting others together would copy gigabytes of long songs.

    The public ``map_batches`` refuses that where there are GPUs, for fear of batches too large for them; ours are cut
    by the encoder. Where there is nothing else, such a stage gets ``batch_songs`` at a time.
    """
    inside = getattr(blocks, "map_batches_internal", None)
    if inside is None:
        size = batch_songs if options.get("num_gpus") else None
        return blocks.map_batches(stage, batch_size=size, batch_format="pyarrow", **options)
    return inside(stage, batch_size=None, batch_format="pyarrow", **options)


def quiet_training() -> dict[str, Any]:
    """For a ``RunConfig``: errors alone on the console; what Ray likes to say where that cannot be asked for."""
    try:
        from ray.train.v2.api.config import LoggingConfig
    except ImportError:
        return {}
    return {"logging_config": LoggingConfig(log_level="ERROR")}


def logs_folder() -> str | None:
    """Where the Ray processes of this node write their logs; the usual place of the newest session, if that is gone."""
    try:
        from ray._private.worker import _global_node

        return str(_global_node.get_logs_dir_path())
    except (ImportError, AttributeError):
        usual = "/tmp/ray/session_latest/logs"
        return usual if os.path.isdir(usual) else None
