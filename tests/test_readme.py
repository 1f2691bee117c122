"""The README keeps to the code: its Fidelity table, its jobs, its rooms."""

from __future__ import annotations

import re

from mer_ray.catalog.settings import CatalogSettings
from mer_ray.cluster.settings import ExtractSettings
from mer_ray.evaluation.settings import EvaluateSettings
from mer_ray.learning.losses import DOOR
from mer_ray.learning.settings import TrainSettings
from mer_ray.settings import READING, JobSettings, Part, marked, part_of
from tests.support import ROOT

README = (ROOT / "README.md").read_text()
FIDELITY = README.split("<!-- fidelity -->")[1].split("<!-- /fidelity -->")[0]


LOSSES = [part_of(DOOR, name) for name in DOOR.names()]


def flags_of(*classes: type[JobSettings] | type[Part]) -> set[str]:
    """All flags of some jobs, as a user types them."""
    names = {name.rstrip("_").replace("_", "-") for cls in classes for name in cls.model_fields}
    return {f"-{name}" if len(name) == 1 else f"--{name}" for name in names}


def test_every_setting_of_the_fidelity_table_exists() -> None:
    named = set(re.findall(r"`(-{1,2}[a-z][a-z0-9-]*)", FIDELITY))
    jobs = (CatalogSettings, ExtractSettings, TrainSettings, EvaluateSettings)
    known = flags_of(*jobs, *LOSSES) | {"--no-standardize"}
    assert named
    assert named <= known


def test_every_reading_that_a_model_records_stands_in_the_fidelity_table() -> None:
    for name in [name for cls in (TrainSettings, *LOSSES) for name in marked(cls, READING)]:
        flag = "--" + name.rstrip("_").replace("_", "-")
        assert f"`{flag}" in FIDELITY or f"`--no-{flag[2:]}" in FIDELITY, f"{flag} is missing"


def test_every_choice_of_a_reading_in_the_table_is_one_the_setting_takes() -> None:
    cases = re.findall(r"`--([a-z0-9-]+) ([a-z0-9]+(?:\\\|[a-z0-9:]+)+)`", FIDELITY)
    assert len(cases) >= 5
    classes = (CatalogSettings, ExtractSettings, TrainSettings, EvaluateSettings, *LOSSES)
    for flag, choices in cases:
        name = flag.replace("-", "_")
        taken = " ".join(
            str(cls.model_fields[name].annotation) for cls in (*classes, *LOSSES) if name in cls.model_fields
        )
        for choice in choices.split("\\|"):
            literal = f"'{choice}'" in taken
            named = {"loss": DOOR.names(), "bandwidth": ["auto", "quantile:q", "number", "none"]}.get(name, [])
            assert literal or choice in named, (flag, choice)


def test_every_job_and_every_room_is_named() -> None:
    for job in (ROOT / "jobs").glob("*.py"):
        assert f"jobs/{job.name}" in README, job.name
    for room in (ROOT / "mer_ray").glob("[a-z]*.py"):
        assert f"`{room.name}`" in README, room.name
