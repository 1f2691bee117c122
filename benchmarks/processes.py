"""Jobs and functions in processes of their own: what they took, in seconds and in memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from typing import Any, TypeVar

import psutil

Result = TypeVar("Result")

ROOT = Path(__file__).parents[1]
EVERY_SECONDS = 1.0


@dataclass
class Peaks:
    """Most memory seen of a job and its Ray, in MB (10^6 bytes): private pages of a process; shared ones for the store.

    Attributes:
        driver: the job itself.
        decoder: the largest child of a worker, a song's decoder.
        store: of Ray's object store, pages that one worker has touched.
        workers: by the name Ray gives a worker.
        cpu_seconds: by process, of the job and all below it; what a short-lived one did last is missed.
        driver_cpu_s: of the job itself.
    """

    driver: float = 0.0
    decoder: float = 0.0
    store: float = 0.0
    workers: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[int, float] = field(default_factory=dict)
    driver_cpu_s: float = 0.0

    def worker(self, part: str = "") -> float:
        """The largest Ray worker with this in its name."""
        return max((most for name, most in self.workers.items() if part in name), default=0.0)

    def look(self, driver: psutil.Process) -> None:
        """Sample a job and all below it."""
        for process in (driver, *driver.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                name, private = " ".join(process.cmdline()), process.memory_full_info().uss / 1e6
                times = process.cpu_times()
                self.cpu_seconds[process.pid] = times.user + times.system
                if process == driver:
                    self.driver, self.driver_cpu_s = max(self.driver, private), self.cpu_seconds[process.pid]
                elif name.startswith("ray::"):
                    self.store = max(self.store, process.memory_info().shared / 1e6)
                    self.workers[name] = max(self.workers.get(name, 0.0), private)
                elif (above := process.parent()) and " ".join(above.cmdline()).startswith("ray::"):
                    self.decoder = max(self.decoder, private)


def this_run(job: Sequence[object], output: Path, peaks: Peaks | None = None) -> dict[str, Any]:
    """Run a job to its end, its memory sampled each second if ``peaks`` are wanted.

    Args:
        job: arguments of Python, from the root of the repository.
        output: the directory it makes.
        peaks: what is seen.

    Returns:
        What its summary says of this run, and ``wall``, the seconds of the process.

    Raises:
        CalledProcessError: it failed.
    """
    begun = time.monotonic()
    command = [sys.executable, *map(str, job)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT) as process:
        while peaks is not None and process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                peaks.look(psutil.Process(process.pid))
            with suppress(subprocess.TimeoutExpired):
                process.wait(EVERY_SECONDS)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    wall = time.monotonic() - begun
    return {**json.loads((output / "_run" / "summary.json").read_text())["this_run"], "wall": wall}


def working_seconds(run: dict[str, Any]) -> float:
    """Of a run, from the moment its workers are ready to the last commit."""
    return float(run["work_seconds"] - run["startup_s"])


def alone(function: Callable[..., Result], *arguments: object, times: int = 1) -> Result:
    """What an importable function returns in a process of its own, or in the first of several that do the same.

    Where there are several, the last argument of each is its number.
    """
    with ProcessPoolExecutor(times, mp_context=get_context("spawn")) as pool:
        ranks: list[tuple[int, ...]] = [()] if times == 1 else [(rank,) for rank in range(times)]
        first, *_ = [pool.submit(function, *arguments, *rank) for rank in ranks]
        return first.result()


@contextmanager
def private_memory() -> Iterator[list[float]]:
    """The most private memory of this process meanwhile, in MiB, sampled: no pages of files that it maps."""
    most, over = [0.0], Event()

    def watch() -> None:
        while not over.wait(0.02):
            status = Path("/proc/self/status").read_text()
            most[0] = max(most[0], int(status.split("RssAnon:")[1].split()[0]) / 1024)

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield most
    finally:
        over.set()
        watcher.join()


def high_water_mib() -> float:
    """The most memory this process has had, in MiB."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
