"""The memory and the CPU time of a command and of the Ray it starts, read from /proc while it runs."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

EVERY_SECONDS = 1.0


@dataclass
class Peaks:
    """Most memory seen, in MB (10^6 bytes): private pages of one process; shared ones for the store.

    Attributes:
        driver: the command itself.
        worker: the largest Ray worker.
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
        return max(self.workers.values(), default=0.0)


class _Process(NamedTuple):
    name: str
    parent: int
    cpu_seconds: float


def watched(command: Sequence[str]) -> Peaks:
    """Run a command to its end and return its peaks. Raises CalledProcessError."""
    peaks = Peaks()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            _sample(process.pid, peaks)
            time.sleep(EVERY_SECONDS)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return peaks


def high_water_mib() -> float:
    """The most memory this process has had, in MiB."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def _sample(driver: int, peaks: Peaks) -> None:
    processes = dict(_processes())
    peaks.driver = max(peaks.driver, _private(driver))
    for process, (name, parent, cpu_seconds) in processes.items():
        above = _above(process, processes)
        if driver not in above:
            continue
        peaks.cpu_seconds[process] = cpu_seconds
        if name.startswith("ray::"):
            peaks.store = max(peaks.store, _field(process, "status", "RssShmem:"))
            peaks.workers[name] = max(peaks.workers.get(name, 0.0), _private(process))
        elif parent in processes and processes[parent].name.startswith("ray::"):
            peaks.decoder = max(peaks.decoder, _private(process))


def _processes() -> Iterator[tuple[int, _Process]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                tail = (folder / "stat").read_text().rpartition(")")[2]
                name = (folder / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            fields = tail.split()
            cpu_seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            yield int(folder.name), _Process(name, int(fields[1]), cpu_seconds)


def _above(process: int, processes: dict[int, _Process]) -> Iterator[int]:
    """The process and those it descends from."""
    while process in processes:
        yield process
        process = processes[process].parent


def _private(process: int) -> float:
    return _field(process, "smaps_rollup", "Private_Clean:") + _field(process, "smaps_rollup", "Private_Dirty:")


def _field(process: int, file: str, name: str) -> float:
    """A size of a process in MB; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(name))
