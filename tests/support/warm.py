"""Jobs in processes of their own that have imported everything already: forked from one that has.

A job's imports take longer than most of what a test asks of it. Tests that kill a job, or ask how it starts, start it
the plain way.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mer_ray.cluster.session import prepare_environment
from tests.support import ROOT

IMPORTED = ("ray.data", "torch", "transformers.models.hubert.modeling_hubert", "s3fs", "pyarrow.parquet", "pandas")
POLL_SECONDS = 0.02


class WarmJobs:
    """Runs scripts one after another, each in a fork of a process that is kept; use it as a context."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [sys.executable, "-m", "tests.support.warm"]
        self._server = subprocess.Popen(command, env=dict(environment), cwd=ROOT, **pipes)

    def __enter__(self) -> WarmJobs:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stdin.close()
        self._server.wait(30)

    def run(
        self, script: Path, *flags: object, cwd: Path = ROOT, timeout: float = 600.0
    ) -> subprocess.CompletedProcess[str]:
        """As ``python script flags`` would; a job that takes longer is killed."""
        command = [str(script), *map(str, flags)]
        with tempfile.TemporaryDirectory() as folder:
            asked = {"command": command, "timeout": timeout, "out": f"{folder}/out", "err": f"{folder}/err"}
            asked["cwd"] = str(cwd)
            print(json.dumps(asked), file=self._server.stdin, flush=True)
            code = int(self._server.stdout.readline())
            out, err = (Path(asked[name]).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess(command, code, out, err)


def serve() -> None:
    """Fork for each request; the child leaves this loop and is the job."""
    prepare_environment()
    for name in IMPORTED:
        importlib.import_module(name)
    while line := sys.stdin.readline():
        asked = json.loads(line)
        child = os.fork()
        if not child:
            _become(**asked)
        print(_ended(child, time.monotonic() + asked["timeout"]), flush=True)


def _become(command: list[str], out: str, err: str, cwd: str, timeout: float) -> None:
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(cwd)
    sys.argv, sys.path[0] = command, str(Path(command[0]).parent)
    runpy.run_path(command[0], run_name="__main__")
    raise SystemExit


def _ended(child: int, deadline: float) -> int:
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    serve()
