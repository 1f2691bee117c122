"""What the tests share: one Ray a process, jobs run as a user runs them, a small composed world."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
import torch

from mer_ray.encoders import _settings
from tests.support import ROOT
from tests.support.faults import FaultyProxy
from tests.support.s3 import S3Server, seaweed_server
from tests.support.warm import WarmJobs


class Job(Protocol):
    """Runs ``python jobs/<name>.py`` with these flags and returns what it printed and its exit code."""

    def __call__(self, name: str, *flags: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]: ...


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Hold tests to where they belong; what needs Ray waits for the most part, and begins first."""
    for item in items:
        if "ray_address" in getattr(item, "fixturenames", ()) and "e2e" not in item.path.parts:
            raise pytest.UsageError(f"{item.nodeid} needs the session's Ray; it belongs in tests/e2e")
    items.sort(key=lambda item: "e2e" not in item.path.parts)


@pytest.fixture(scope="session", autouse=True)
def offline() -> None:
    """No test may reach for a hub."""
    os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The tests' models are small; more threads would fight with what else the machine does."""
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as jobs do; the session's Ray has it too


@pytest.fixture(scope="session", autouse=True)
def float32_on_cpus() -> Iterator[None]:
    """What encoders give is compared to the last digits, also where the CPU is faster in bfloat16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_settings, "multiplies_bfloat16", lambda: False)
        yield


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server on the loopback."""
    with seaweed_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_proxy(s3_server: S3Server) -> Iterator[FaultyProxy]:
    """What stands before the server and does nothing unless told to."""
    with FaultyProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def s3(s3_server: S3Server, s3_proxy: FaultyProxy) -> Iterator[S3Server]:
    """The server as the jobs see it, through the proxy; the standard AWS variables point to it."""
    server = replace(s3_server, endpoint=s3_proxy.url)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def faults(s3: S3Server, s3_proxy: FaultyProxy) -> Iterator[FaultyProxy]:
    """The proxy to inject faults with; transparent again afterwards."""
    yield s3_proxy
    s3_proxy.inject()


@pytest.fixture(scope="session")
def ray_address(s3: S3Server) -> Iterator[str]:
    """One local Ray for all tests of this process, two CPUs whatever the machine has; it knows the S3 server."""
    import ray

    from mer_ray.cluster.unpromised import bare_node, keep_to_loopback

    keep_to_loopback()
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    with bare_node():  # another test process has a Ray of its own
        ray.init("local", num_cpus=2, **options)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture(scope="session")
def job_environment(ray_address: str) -> dict[str, str]:
    """The environment of a job that joins the session's Ray."""
    return {**os.environ, "RAY_ADDRESS": ray_address, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="session")
def job(job_environment: dict[str, str]) -> Iterator[Job]:
    """Run a job in a process of its own, on the session's Ray."""
    with WarmJobs(job_environment) as jobs:
        yield lambda name, *flags, cwd=ROOT: jobs.run(ROOT / "jobs" / f"{name}.py", *flags, cwd=cwd)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two small composed datasets, ``demo-gems.tsv`` and ``demo-jamendo.tsv``."""
    from mer_ray.demo.composer import write_world

    folder = tmp_path_factory.mktemp("world")
    write_world(folder, songs_per_dataset=30, seed=3)
    return folder


@pytest.fixture(scope="session")
def store(world: Path, job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature store of one dataset of the world, beside its manifest ``demo-gems.parquet``."""
    folder = tmp_path_factory.mktemp("store")
    done(job("catalog", "--source", world / "demo-gems.tsv", "--output", folder / "demo-gems.parquet"))
    catalog = ("--catalog", folder / "demo-gems.parquet")
    done(job("extract", *catalog, "--features", folder / "features", "--encoder", "descriptors"))
    return folder


@pytest.fixture(scope="session")
def model(store: Path, job: Job) -> Path:
    """A model trained on the store."""
    folder = store / "model"
    features = ("--features", store / "features")
    done(job("train", "--train", store / "demo-gems.parquet", *features, "--model", folder, "--epochs", 8))
    return folder


def done(result: subprocess.CompletedProcess[str], code: int = 0) -> str:
    """The console output of a job that ended with this exit code."""
    assert result.returncode == code, f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a job that ended with exit code 2."""
    assert result.returncode == 2, f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.stderr
    sentences = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1, result.stderr
    return sentences[0]
