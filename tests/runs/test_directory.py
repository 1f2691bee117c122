"""A run directory takes one run at a time and goes on only from the same question."""

from pathlib import Path

import pytest

from mer_ray.errors import InputError
from mer_ray.runs.directory import SETTINGS, RunDirectory


def model(folder: Path) -> RunDirectory:
    return RunDirectory(str(folder), "train", "model")


def test_the_first_run_finds_nothing_and_the_next_what_it_left(tmp_path: Path) -> None:
    with model(tmp_path) as run:
        assert run.earlier({"epochs": 3}, lambda: "") is None
        run.write_json(SETTINGS, {"fingerprint": {"epochs": 3}})
    with model(tmp_path) as run:
        assert run.earlier({"epochs": 3}, lambda: "") == {"fingerprint": {"epochs": 3}}
    assert not (tmp_path / "_run" / "lock").exists()


def test_other_settings_and_works_of_unknown_origin_are_refused_by_the_kind_of_directory(tmp_path: Path) -> None:
    with model(tmp_path) as run:
        with pytest.raises(InputError, match=f"^model {tmp_path}: holds a model already; use another directory"):
            run.earlier({"epochs": 3}, lambda: "a model already")
        run.write_json(SETTINGS, {"fingerprint": {"epochs": 3}})
        assert run.earlier({"epochs": 3}, lambda: "a model already") is not None
        with pytest.raises(InputError, match=f"^model {tmp_path}: begun with other settings: epochs is 3 there, 4"):
            run.earlier({"epochs": 4}, lambda: "")


def test_its_files_lie_in_run_and_one_that_is_not_there_reads_as_none(tmp_path: Path) -> None:
    run = model(tmp_path)
    assert run.read_json("notes") is None
