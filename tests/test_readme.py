"""What is written keeps to the code: the Fidelity table, the jobs, the examples, the links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mer_ray.catalog.settings import CatalogSettings
from mer_ray.cluster.settings import ExtractSettings
from mer_ray.evaluation.settings import EvaluateSettings
from mer_ray.learning.settings import TrainSettings
from mer_ray.settings import READING, JobSettings, Part, marked, part_of
from tests.support import ROOT

README = (ROOT / "README.md").read_text()
DOCS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
FIDELITY = (ROOT / "docs" / "fidelity.md").read_text().split("<!-- fidelity -->")[1].split("<!-- /fidelity -->")[0]
JOBS: tuple[type[JobSettings], ...] = (CatalogSettings, ExtractSettings, TrainSettings, EvaluateSettings)


def parts() -> Iterator[type[Part]]:
    """The settings that encoders, datasets and losses bring along."""
    for job in JOBS:
        for door in job.doors.values():
            yield from (part_of(door, name) for name in door.names())


ALL = (*JOBS, *parts())


def flag(name: str) -> str:
    """A setting as a user types it."""
    name = name.rstrip("_").replace("_", "-")
    return f"-{name}" if len(name) == 1 else f"--{name}"


def test_every_setting_of_the_fidelity_table_exists() -> None:
    named = set(re.findall(r"`(-{1,2}[a-z][a-z0-9-]*)", FIDELITY))
    assert named
    assert named <= {flag(name) for cls in ALL for name in cls.model_fields} | {"--no-standardize"}


def test_every_reading_stands_in_the_fidelity_table() -> None:
    readings = {name for cls in ALL for name in marked(cls, READING)}
    assert len(readings) > 15
    for name in readings:
        assert f"`{flag(name)}" in FIDELITY or f"`--no-{flag(name)[2:]}" in FIDELITY, f"{flag(name)} is missing"


def test_every_choice_of_a_reading_in_the_table_is_one_the_setting_takes() -> None:
    cases = re.findall(r"`--([a-z0-9-]+) ([a-z0-9]+(?:\\\|[a-z0-9:]+)+)`", FIDELITY)
    assert len(cases) >= 5
    doors = {name: door.names() for job in JOBS for name, door in job.doors.items()}
    for setting, choices in cases:
        name = setting.replace("-", "_")
        taken = " ".join(str(cls.model_fields[name].annotation) for cls in ALL if name in cls.model_fields)
        named = {**doors, "bandwidth": ["auto", "reference", "quantile:q", "number", "none"]}.get(name, [])
        for choice in choices.split("\\|"):
            assert f"'{choice}'" in taken or choice in named, (setting, choice)


def test_every_job_is_named() -> None:
    for job in (ROOT / "jobs").glob("*.py"):
        assert f"`{job.stem}`" in README, job.name


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        assert "://" in target or (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_the_python_that_is_shown_compiles(path: Path) -> None:
    for code in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
        compile(code, str(path), "exec")


def shown(path: str, name: str) -> dict[str, Any]:
    """The names of the first example that defines this function."""
    examples = re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(next(code for code in examples if f"def {name}(" in code), names)
    return names


@pytest.mark.parametrize("path", ["README.md", "docs/design.md"])
def test_the_encoder_that_is_shown_encodes(path: str) -> None:
    encoder = shown(path, "load")["load"]("small", Part(), "cpu")
    assert encoder(np.ones((2, 48_000), np.float32)).shape == (2, encoder.dim)
    assert encoder.name == "clap:small"


def test_the_dataset_and_the_loss_that_are_shown_do_what_they_are_for() -> None:
    (song,) = shown("docs/design.md", "read")["read"]("deam/", Part())
    assert song.track_id == "deam/2"
    truth_BL = torch.tensor([[True, False]])
    towards, away = (
        shown("docs/design.md", "loss")["loss"](
            SimpleNamespace(projected_BE=torch.tensor([row]), targets_LE=torch.eye(2), truth_BL=truth_BL), Part()
        )
        for row in ([1.0, 0.0], [0.0, 1.0])
    )
    assert towards < away
