"""The paper's tables: what they need, where what is missing is said, and that finished work is not done again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mer_ray import storage
from mer_ray.demo.simulated import simulate_manifests, simulate_store
from mer_ray.paper.tables import DATASETS, comparisons, paper_tables, sweep
from tests.conftest import Job, done, refused

SMALL = ("--width", 16, "--heads", 2)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifests and features of a small simulated world."""
    folder = tmp_path_factory.mktemp("simulated")
    manifests = simulate_manifests(0, (90, 90, 90))
    for name, table in manifests.items():
        storage.write_table(str(folder / f"{name}.parquet"), table)
    simulate_store(list(manifests.values()), str(folder / "features"), dim=24, windows=2)
    return folder


def songs_to_test(folder: Path, dataset: str) -> int:
    """How many songs the hash of their ids has put into the test split."""
    return storage.read_table(str(folder / f"{dataset}.parquet"))["split"].to_pylist().count("test")


def test_the_tables_hold_the_papers_figures_and_name_their_models() -> None:
    tables = paper_tables()
    assert [cell.paper for cell in tables["table2"].rows["EMO"]] == [0.0193, 0.267, 0.421]
    assert [cell.paper for cell in tables["table5"].rows["regularized"]] == [0.400, 0.0202, 0.229]
    assert [cell.test for cell in tables["table5"].rows["regularized"]] == ["emotify", "jamendo", "cal500"]
    assert {cell.level for cells in tables["table6"].rows.values() for cell in cells} == {"window"}
    swept = [training for models in sweep().values() for training in models.values()]
    names = {training.name for table in tables.values() for training in table.trainings()}
    names |= {training.name for training in swept}
    assert len(names) == 22
    assert "MTG+CAL-clusters-positive-2.5" in names


def test_no_table_tests_zero_shot_on_a_dataset_it_trained_on() -> None:
    rows = paper_tables()["table5"].rows
    assert all(cell.test not in cell.training.datasets for cells in rows.values() for cell in cells)


def test_differences_are_between_figures_that_stand_in_the_tables() -> None:
    tables = paper_tables()
    titles = [one.title.partition(":")[0] for one in comparisons(tables)]
    assert titles == ["Zero-shot", "Table 4 against Table 3", "Table 6"]
    clusters, regularized = comparisons(tables)[0].rows.values(), comparisons(tables)[1].rows
    assert [round(one.paper or 0, 4) for one in next(iter(clusters))] == [0.031, 0.0046, 0.015]
    assert all(one.this.test == one.other.test for cells in regularized.values() for one in cells)
    assert [one.title for one in comparisons({"table3": tables["table3"]})] == []


@pytest.mark.slow
def test_given_datasets_fill_their_cells_and_others_are_marked_not_run(
    simulated: Path, job: Job, tmp_path: Path
) -> None:
    given = ("--cal500", simulated / "cal500.parquet", "--emotify", simulated / "emotify.parquet")
    flags = (*given, "--features", simulated / "features", "--output", tmp_path, *SMALL, "--epochs", 2)
    only = ("--only", "table3", "--only", "figure2")
    printed = done(job("reproduce", *flags, *only))
    assert "1 of 3 models to train" in printed
    table = json.loads((tmp_path / "results.json").read_text())["table3"]
    assert [cell["ours"] is None for cell in table["CAL+EMO"]] == [True, False, False]
    assert all(cell["ours"] is None for cell in table["MTG+CAL"])
    emotify = table["CAL+EMO"][DATASETS.index("emotify")]
    assert emotify["low"] <= emotify["ours"] <= emotify["high"]
    assert (emotify["paper"], emotify["level"]) == (0.5, "song_vote")
    page = (tmp_path / "report.html").read_text()
    assert "not run" in page
    assert "data:image/png;base64" in page
    assert (tmp_path / "clusters_CAL+EMO.png").read_bytes().startswith(b"\x89PNG")
    assert (emotify["songs"], emotify["deviation"]) == (songs_to_test(simulated, "emotify"), None)
    assert "epochs is 2 there, 3 asked" in refused(job("reproduce", *flags[:-1], 3, *only))


def test_a_manifest_of_another_dataset_is_refused(simulated: Path, job: Job, tmp_path: Path) -> None:
    flags = ("--jamendo", simulated / "emotify.parquet", "--features", simulated / "features", "--output", tmp_path)
    assert "a manifest of emotify" in refused(job("reproduce", *flags))
    assert "no dataset is given" in refused(job("reproduce", *flags[2:]))
