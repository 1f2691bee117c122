"""The README keeps to the code: its Fidelity table, its jobs, its rooms."""

from __future__ import annotations

import re

from pydantic import BaseModel

from mer_ray.catalog.settings import CatalogSettings
from mer_ray.cluster.settings import ExtractSettings
from mer_ray.encoders import mert
from mer_ray.evaluation.settings import EvaluateSettings
from mer_ray.learning.recipe import READINGS
from mer_ray.learning.settings import TrainSettings
from tests.support import ROOT

README = (ROOT / "README.md").read_text()
FIDELITY = README.split("<!-- fidelity -->")[1].split("<!-- /fidelity -->")[0]


def flags_of(*classes: type[BaseModel]) -> set[str]:
    """All flags of some jobs, as a user types them."""
    names = {name.rstrip("_").replace("_", "-") for cls in classes for name in cls.model_fields}
    return {f"-{name}" if len(name) == 1 else f"--{name}" for name in names}


def test_every_setting_of_the_fidelity_table_exists() -> None:
    named = set(re.findall(r"`(-{1,2}[a-z][a-z0-9-]*)", FIDELITY))
    jobs = (CatalogSettings, ExtractSettings, mert.Settings, TrainSettings, EvaluateSettings)
    known = flags_of(*jobs) | {"--no-standardize"}
    assert named
    assert named <= known


def test_every_reading_that_a_model_records_stands_in_the_fidelity_table() -> None:
    for name in READINGS:
        flag = "--" + name.rstrip("_").replace("_", "-")
        assert f"`{flag}" in FIDELITY or f"`--no-{flag[2:]}" in FIDELITY, f"{flag} is missing"


def test_every_choice_of_a_reading_in_the_table_is_one_the_setting_takes() -> None:
    cases = re.findall(r"`--([a-z0-9-]+) ([a-z0-9]+(?:\\\|[a-z0-9:]+)+)`", FIDELITY)
    assert len(cases) >= 5
    classes = (CatalogSettings, ExtractSettings, mert.Settings, TrainSettings, EvaluateSettings)
    for flag, choices in cases:
        name = flag.replace("-", "_")
        taken = " ".join(str(cls.model_fields[name].annotation) for cls in classes if name in cls.model_fields)
        for choice in choices.split("\\|"):
            literal = f"'{choice}'" in taken
            assert literal or (name == "bandwidth" and choice in ("auto", "quantile:q", "number", "none")), (
                flag,
                choice,
            )


def test_every_job_and_every_room_is_named() -> None:
    for job in (ROOT / "jobs").glob("*.py"):
        assert f"jobs/{job.name}" in README, job.name
    for room in (ROOT / "mer_ray").glob("[a-z]*.py"):
        assert f"`{room.name}`" in README, room.name
