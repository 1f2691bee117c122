"""A training that is killed goes on from its last checkpoint and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mer_ray.storage import read_json
from tests.support import ROOT
from tests.support.chaos import family

pytestmark = pytest.mark.slow

EPOCHS = 8
"""As many as the session's model was trained for."""


def epoch(model: Path) -> int:
    """The last epoch that a training has noted, -1 before the first."""
    noted = read_json(str(model / "_run" / "progress.json"))
    return int(noted["epoch"]) if noted else -1


def lowest_until(number: int, model: Path, run: subprocess.Popen[bytes]) -> int:
    """Wait for an epoch; the lowest that was noted meanwhile."""
    lowest, deadline = epoch(model), time.monotonic() + 120
    while (now := epoch(model)) < number:
        lowest = min(lowest, now)
        assert run.poll() is None, "the training was over before the kill"
        assert time.monotonic() < deadline, f"no epoch {number}"
        time.sleep(0.005)
    return lowest


def lowest_until_the_end(model: Path, run: subprocess.Popen[bytes]) -> int:
    lowest = epoch(model)
    while run.poll() is None:
        lowest = min(lowest, epoch(model))
        time.sleep(0.005)
    return lowest


def test_a_killed_worker_and_a_killed_driver_change_no_bit(
    store: Path, model: Path, job_environment: dict[str, str], tmp_path: Path
) -> None:
    killed = tmp_path / "model"
    data = ["--train", store / "demo-gems.parquet", "--features", store / "features", "--epochs", EPOCHS]
    flags = [*data, "--model", killed, "--checkpoint-seconds", 0]
    command = [sys.executable, str(ROOT / "jobs" / "train.py"), *map(str, flags)]
    with subprocess.Popen(command, env=job_environment, cwd=ROOT, stdout=subprocess.DEVNULL) as run:
        lowest_until(3, killed, run)
        workers = [pid for pid, line in family(os.getpid()).items() if "TrainWorker" in line]
        os.kill(workers[0], signal.SIGKILL)
        assert lowest_until(5, killed, run) >= 1, "the second worker began anew"
        run.kill()
    assert not (killed / "config.json").exists()
    with subprocess.Popen(command, env=job_environment, cwd=ROOT, stdout=subprocess.DEVNULL) as run:
        assert lowest_until_the_end(killed, run) >= 3, "the second run began anew"
    assert run.returncode == 0
    for name in ("projector.safetensors", "last.safetensors", "background.safetensors", "metrics.json"):
        assert (killed / name).read_bytes() == (model / name).read_bytes(), name
    assert len(json.loads((killed / "metrics.json").read_text())["history"]) == EPOCHS
    assert not (killed / "_run" / "train").exists()
    assert not (killed / "_run" / "lock").exists()
