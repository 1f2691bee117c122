"""One command for all jobs, from a checkout and installed; a package that no folder hides."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mer_ray.commandline import jobs_folder
from tests.support import ROOT

JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))
COMMAND = [str(Path(sys.executable).with_name("mer-ray"))]


def said(*arguments: str, cwd: Path = ROOT, code: int = 0) -> subprocess.CompletedProcess[str]:
    found = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=cwd, check=False)
    assert found.returncode == code, found.stderr
    return found


def test_every_job_is_a_command_with_its_first_line() -> None:
    lines = said().stdout.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == JOBS
    assert said("--help").stdout == said().stdout


def test_a_command_is_its_job(tmp_path: Path) -> None:
    helped = said("status", "--help", cwd=tmp_path).stdout
    assert helped.startswith("usage: mer-ray status")
    by_path = [sys.executable, str(ROOT / "jobs" / "status.py"), "--run", str(tmp_path)]
    job = subprocess.run(by_path, capture_output=True, text=True, check=False)
    assert said("status", "--run", str(tmp_path), code=2).stderr == job.stderr != ""


def test_a_command_that_is_none_is_refused_with_the_nearest() -> None:
    assert "did you mean 'catalog'?" in said("catalogue", code=2).stderr
    assert said("nonsense", code=2).stdout == ""


@pytest.mark.parametrize(("given", "found"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_that_wait_leave_their_core_to_others_unless_the_user_says_otherwise(
    given: dict[str, str], found: str
) -> None:
    code = (
        "import os, sys; from mer_ray.commandline import run; from mer_ray.runs.settings import StatusSettings;"
        "run(lambda _: print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules) or 0, StatusSettings)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
    command = [sys.executable, "-c", code, "--run", "nowhere"]
    job = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert job.stdout.split()[-2:] == [found, "False"], "set before anything reads it"


def test_installed_the_jobs_lie_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "mer_ray"
    (package / "jobs").mkdir(parents=True)
    monkeypatch.setattr("mer_ray.commandline.__file__", str(package / "commandline.py"))
    assert jobs_folder() == package / "jobs"
    (package / "jobs").rmdir()
    assert jobs_folder() == tmp_path / "site" / "jobs"


def test_the_package_is_found_where_a_folder_of_its_name_lies(tmp_path: Path) -> None:
    """As in the folder above a clone, where ``mer_ray`` is the clone and not the package."""
    (tmp_path / "mer_ray" / "jobs").mkdir(parents=True)
    code = "import mer_ray.settings as found; print(found.__file__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert Path(found.stdout.strip()) == ROOT / "mer_ray" / "settings.py"
