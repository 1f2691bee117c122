"""The Ray that a job works on: joined or started, and what it lends."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from threading import Thread, current_thread, main_thread
from typing import Any, TypeVar

from mer_ray.cluster import unpromised
from mer_ray.errors import Terminated

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")


def connect(*needed: str) -> dict[str, float]:
    """Join the Ray cluster at hand, or start one here that listens on the loopback alone, with a quiet console.

    Args:
        needed: modules that the job will import; they are, while Ray starts, which is waiting for the most part.

    Returns:
        The cluster's resources, such as ``{"CPU": 16, "GPU": 1}``.
    """
    import logging

    prepare_environment()
    import ray

    if not ray.is_initialized():
        own = not unpromised.is_running()
        if own:
            unpromised.keep_to_loopback()
        imports = Thread(target=_import, args=needed, name="imports", daemon=True)
        imports.start()
        bare = unpromised.bare_node() if own else nullcontext()
        with unpromised.without_greeting(), bare, _our_sigterm():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False, configure_logging=True)
        imports.join()
        atexit.register(ray.shutdown)  # Ray's own, later at exit, would sleep half a second for its workers' last lines
    resources: dict[str, float] = ray.cluster_resources()
    return resources


@contextmanager
def _our_sigterm() -> Iterator[None]:
    """While Ray starts: its ``sys.exit(15)`` at SIGTERM, and then its C++ handler, which aborts, are not ours."""
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as end:
        raise (Terminated() if end.code == signal.SIGTERM else end) from None
    finally:
        if current_thread() is main_thread():
            signal.signal(signal.SIGTERM, ours)


def prepare_environment() -> None:
    """Set what Ray reads from the environment as it starts, unless the user has."""
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "CRITICAL")  # what it would log as an error it raises as well
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Ray ends a worker that idles for a second where there are more workers than CPUs: each commit would start one.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")


def _import(*names: str) -> None:
    with suppress(Exception):  # raised where it is imported again
        for name in names:
            import_module(name)


def quiet_data() -> Any:
    """``ray.data`` without a word on the console, imported where a graph is made: it takes half a second."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return ray.data


def side_by_side(function: Callable[[Task], Outcome], tasks: Sequence[Task], at_once: int | None) -> Iterator[Outcome]:
    """Call an importable function on each task, ``at_once`` of them (None: one a CPU) at a time on the cluster.

    Outcomes come as they are done; what is printed goes to Ray's logs.
    """
    import ray

    cpus = connect().get("CPU", 1)
    share = max(1.0, cpus // at_once) if at_once else 1.0

    def alone(task: Task) -> Outcome:
        import torch

        torch.set_num_threads(int(share))
        return function(task)

    remote = ray.remote(alone).options(num_cpus=share)
    waiting = list(tasks)
    running: list[Any] = []
    while waiting or running:
        while waiting and len(running) < (at_once or cpus):
            running.append(remote.remote(waiting.pop(0)))
        done, running = ray.wait(running, num_returns=1)
        yield ray.get(done[0])
