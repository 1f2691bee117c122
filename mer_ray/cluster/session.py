"""The Ray that a job works on: joined or started, and what it lends."""

from __future__ import annotations

import atexit
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from threading import Thread, current_thread, main_thread
from typing import Any, TypeVar

from mer_ray.cluster import unpromised
from mer_ray.errors import InputError, Terminated

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")

REACH_SECONDS = 10.0
"""A head that takes no connection by then does not answer."""


def connect(*needed: str) -> dict[str, float]:
    """Join the Ray cluster at hand, or start one here that listens on the loopback alone, with a quiet console.

    Args:
        needed: modules that the job will import; they are, while Ray starts, which is waiting for the most part.

    Returns:
        The cluster's resources, such as ``{"CPU": 16, "GPU": 1}``.

    Raises:
        InputError: there is none to be joined where RAY_ADDRESS says, or none can be started.
    """
    prepare_environment()
    import ray

    if not ray.is_initialized():
        _check_address(os.environ.get("RAY_ADDRESS", ""))
        imports = Thread(target=_import, args=needed, name="imports", daemon=True)
        imports.start()
        try:
            _begin()
        except (OSError, RuntimeError, ValueError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"Ray: none could be joined or started here: {first.rstrip('.')}. RAY_ADDRESS names one that runs, "
                "RAY_TMPDIR a folder with room."
            ) from error
        imports.join()
        atexit.register(ray.shutdown)  # Ray's own, later at exit, would sleep half a second for its workers' last lines
    resources: dict[str, float] = ray.cluster_resources()
    return resources


def _check_address(address: str) -> None:
    """Raise InputError where nobody answers at RAY_ADDRESS: Ray itself would try for minutes, without a word."""
    if address in ("", "auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if "/" in address or not port.isdigit():
        raise InputError(
            f"RAY_ADDRESS {address}: not the HOST:PORT of a head; from outside a cluster, work is given to it with "
            "`ray job submit`."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"RAY_ADDRESS {address}: does not answer ({error}); start that Ray, or unset RAY_ADDRESS to work on one of "
            "this machine's own."
        ) from error


def _begin() -> None:
    import logging

    import ray

    own = not unpromised.is_running()
    if own:
        unpromised.keep_to_loopback()
        # An actor of Ray Train's that hears of nodes that a cloud takes back; this one goes with the job.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    bare = unpromised.bare_node() if own else nullcontext()
    with unpromised.without_greeting(), bare, _our_sigterm():
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False, configure_logging=True)


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
