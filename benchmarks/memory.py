"""The memory and the CPU time of a command and of the Ray it starts, sampled while it runs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

EVERY_SECONDS = 1.0


@dataclass
class Peaks:
    """Most memory seen, in MB (10^6 bytes): private pages of one process; shared ones for the store.

    Attributes:
        driver: the command itself.
        decoder: the largest child of a worker, a song's decoder.
        store: of Ray's object store, pages that one worker has touched.
        workers: by the name Ray gives a worker.
        cpu_seconds: by process, of the command and all below it; what a short-lived one did last is missed.
    """

    driver: float = 0.0
    decoder: float = 0.0
    store: float = 0.0
    workers: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[int, float] = field(default_factory=dict)

    @property
    def worker(self) -> float:
        """The largest Ray worker."""
        return max(self.workers.values(), default=0.0)


def watched(command: Sequence[str]) -> Peaks:
    """Run a command to its end and return its peaks. Raises CalledProcessError."""
    peaks = Peaks()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        driver = psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                _sample(driver, peaks)
            time.sleep(EVERY_SECONDS)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return peaks


def high_water_mib() -> float:
    """The most memory this process has had, in MiB."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def _sample(driver: psutil.Process, peaks: Peaks) -> None:
    for process in (driver, *driver.children(recursive=True)):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            name, private = " ".join(process.cmdline()), process.memory_full_info().uss / 1e6
            times = process.cpu_times()
            peaks.cpu_seconds[process.pid] = times.user + times.system
            if process == driver:
                peaks.driver = max(peaks.driver, private)
            elif name.startswith("ray::"):
                peaks.store = max(peaks.store, process.memory_info().shared / 1e6)
                peaks.workers[name] = max(peaks.workers.get(name, 0.0), private)
            elif (above := process.parent()) and " ".join(above.cmdline()).startswith("ray::"):
                peaks.decoder = max(peaks.decoder, private)
