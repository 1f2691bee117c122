"""A reproduction goes on where it stopped, does nothing twice, and never mixes figures of different songs."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from mer_ray import storage
from mer_ray.commandline import parse
from mer_ray.demo.simulated import simulate_manifests, simulate_store
from mer_ray.errors import InputError
from mer_ray.pages import Grid
from mer_ray.paper import reproduction
from mer_ray.paper.measures import Choice, Measured
from mer_ray.paper.report import REGULARIZATION, table_sections, write_paper_report
from mer_ray.paper.reproduction import Reproduction, reproduce
from mer_ray.paper.settings import ReproduceSettings
from mer_ray.paper.tables import CAL500, EMOTIFY, JAMENDO, Targets, Training, paper_tables
from mer_ray.paper.trials import Trial, make_trial

SMALL = {"width": 16, "heads": 2, "epochs": 1, "bandwidth": "0.85"}


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials run in this process, one after the other."""

    def in_turn(run: Callable[[Any], Any], tasks: Sequence[Any], at_once: int | None) -> Iterator[Any]:
        yield from map(run, tasks)

    monkeypatch.setattr(reproduction, "side_by_side", in_turn)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifests and features of a tiny simulated CAL500 and Emotify."""
    folder = tmp_path_factory.mktemp("world")
    manifests = simulate_manifests(0, (40, 40, 40))
    for name in (CAL500, EMOTIFY):
        storage.write_table(str(folder / f"{name}.parquet"), manifests[name])
    simulate_store([manifests[CAL500], manifests[EMOTIFY]], str(folder / "features"), dim=8, windows=1)
    return folder


def asked(world: Path, output: Path, *datasets: str, features: Path | None = None, **more: Any) -> ReproduceSettings:
    manifests = {name: str(world / f"{name}.parquet") for name in datasets or (CAL500, EMOTIFY)}
    stores = [str(features or world / "features")]
    return ReproduceSettings(**{**SMALL, **manifests, "features": stores, "output": str(output), **more})


def written(output: Path, *names: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for name in names for path in output.rglob(name)}


def test_more_seeds_and_datasets_can_be_asked_for_and_what_is_done_stays(world: Path, tmp_path: Path) -> None:
    first = reproduce(asked(world, tmp_path, EMOTIFY, only=["table2"]))
    models = written(tmp_path, "projector.safetensors")
    tests = written(tmp_path, "metrics.json", "songs.parquet")
    assert len(models) == 1
    more = reproduce(asked(world, tmp_path, EMOTIFY, only=["table2"], seeds=2))
    assert {**written(tmp_path, "projector.safetensors"), **models} == written(tmp_path, "projector.safetensors")
    assert {**written(tmp_path, "metrics.json", "songs.parquet"), **tests} == written(
        tmp_path, "metrics.json", "songs.parquet"
    )
    before, after = (made.tables["table2"][1]["EMO"][2] for made in (first, more))
    assert after.seeds[0] == before.ours
    assert len(after.seeds) == 2
    assert after.deviation is not None
    both = reproduce(asked(world, tmp_path, only=["table2"]))
    assert both.tables["table2"][1]["EMO"][2] == before
    assert both.tables["table2"][1]["EMO"][1].ours is not None
    assert both.facts["songs scored"] == "cal500 4, emotify 3"


def test_figures_of_yesterdays_songs_never_come_back_after_extraction_went_on(world: Path, tmp_path: Path) -> None:
    manifest = storage.read_table(str(world / "emotify.parquet"))
    part = manifest.filter(pc.not_equal(manifest["track_id"], manifest["track_id"][0]))
    simulate_store([part], str(tmp_path / "features"), dim=8, windows=1)
    settings = asked(world, tmp_path / "out", EMOTIFY, features=tmp_path / "features", only=["table2"])
    made = reproduce(settings)
    assert "1 of 40 have no features" in made.facts["songs with features"]
    simulate_store([manifest], str(tmp_path / "features"), dim=8, windows=1)
    with pytest.raises(
        InputError, match=r"emotify is '39 of 40 songs .*' there, '40 of 40 songs .*' asked; use another"
    ):
        reproduce(settings)


def test_songs_that_come_while_it_runs_are_noticed(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = storage.read_table(str(world / "emotify.parquet"))
    simulate_store([manifest.slice(0, 39)], str(tmp_path / "features"), dim=8, windows=1)

    def meanwhile(run: Callable[[Any], Any], tasks: Sequence[Any], at_once: int | None) -> Iterator[Any]:
        yield from map(run, tasks)
        simulate_store([manifest], str(tmp_path / "features"), dim=8, windows=1)

    monkeypatch.setattr(reproduction, "side_by_side", meanwhile)
    settings = asked(world, tmp_path / "out", EMOTIFY, features=tmp_path / "features", only=["table2"])
    with pytest.raises(InputError, match="songs of emotify got features while this ran"):
        reproduce(settings)
    assert not (tmp_path / "out" / "results.json").exists()


def test_another_model_is_tested_again(world: Path, tmp_path: Path) -> None:
    settings = asked(world, tmp_path, EMOTIFY, only=["table2"])
    reproduce(settings)
    note = next(tmp_path.rglob("made_of.json"))
    made_of = json.loads(note.read_text())
    note.write_text(json.dumps({**made_of, "digest": "of another"}))
    before = written(tmp_path, "songs.parquet")
    reproduce(settings)
    assert written(tmp_path, "songs.parquet") != before
    assert json.loads(note.read_text()) == made_of


def test_the_page_shows_lambda_by_validation_and_names_what_the_regularizer_measured(tmp_path: Path) -> None:
    test = Measured("CAL+EMO-clusters-negative-1", "jamendo", "song_vote", None, 0.25, 0.01, 0.2, 0.3, chance=0.1)
    choice = Choice("CAL+EMO", {0.0: 0.3, 1.0: 0.4}, {0.0: 0.01, 1.0: 0.02}, {0.0: 0.9, 1.0: 1.116}, 1.0, test)
    nothing = Choice("MTG+CAL", {}, {}, {}, None, None)
    made = Reproduction({}, [], [nothing, choice, nothing], {"CAL-labels": {"emotify": [0.2, 0.3]}}, {}, {})
    for form, name in REGULARIZATION.items():
        settings = asked(tmp_path, tmp_path, only=["sweep"], regularizer=form)
        sections = {section.heading: section.blocks for section in table_sections(settings, made)}
        assert [heading for heading in REGULARIZATION.values() if heading in sections] == [name]
        assert isinstance(grid := sections["λ, chosen on validation songs"][0], Grid)
        assert [row[2] for row in grid.rows] == ["0.300 ± 0.010", "not run", "0.400 ± 0.020 *", "not run", "not run"]
        assert isinstance(chosen := sections["Zero-shot at the chosen λ"][0], Grid)
        assert chosen.rows[1] == ["macro F1, songs", "not run", "0.250 ± 0.010 [0.200, 0.300]", "not run"]
    assert sections["Soft truth: listeners' ratings"][0] == Grid(["model", "EMO"], [["CAL-labels", "+0.250 ± 0.071"]])
    write_paper_report(settings, made)
    assert "The reference&#x27;s regularizer" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "sweep.png").exists()


def trial(settings: ReproduceSettings, *datasets: str, targets: Targets = "labels", weight: float = 0.0) -> Trial:
    return make_trial(settings, Training(datasets, targets, weight), 3, [CAL500, EMOTIFY], chooses=False)


def test_published_clusters_are_taken_pair_by_pair(tmp_path: Path) -> None:
    folder = tmp_path / "clusters" / "CAL500_emotify"
    folder.mkdir(parents=True)
    (folder / "label_map.json").write_text("{}")
    settings = asked(tmp_path, tmp_path, clusters=str(tmp_path / "clusters"))
    assert trial(settings, CAL500, EMOTIFY, targets="clusters").fit.clusters == str(folder / "label_map.json")
    assert trial(settings, CAL500, EMOTIFY).fit.clusters is None
    with pytest.raises(InputError, match=r"no .*mtg_CAL500/label_map.json there"):
        trial(settings, JAMENDO, CAL500, targets="clusters")


def test_the_references_three_kinds_of_runs_are_as_its_code_has_them(tmp_path: Path) -> None:
    flags = ("--preset", "reference", "--emotify", "e", "--cal500", "c", "--features", "f", "--output", str(tmp_path))
    settings = parse(ReproduceSettings, flags)
    runs = {
        "baseline1": trial(settings, CAL500, EMOTIFY).fit,
        "baseline2": trial(settings, CAL500, EMOTIFY, targets="clusters").fit,
        "regularized": trial(settings, CAL500, EMOTIFY, weight=2.5).fit,
    }
    assert {name: (fit.targets, fit.lambda_, fit.cycle) for name, fit in runs.items()} == {
        "baseline1": ("labels", 0.0, False),
        "baseline2": ("clusters", 0.0, False),
        "regularized": ("labels", 2.5, True),
    }
    for name, fit in runs.items():
        assert (fit.experiment, fit.activation, fit.keep, fit.lr, fit.seed) == (name, "relu", "loss", 1e-4, 3)
        assert fit.part("loss").negatives == 5
    assert paper_tables("labels")["table4"].rows["CAL+EMO"][0].training.targets == "labels"


def test_a_model_that_no_given_dataset_could_test_is_not_trained() -> None:
    tables = paper_tables("labels")
    assert len(tables["table5"].trainings()) == 9
    assert tables["table5"].trainings(("cal500", "emotify")) == [], "all are tested on the dataset they leave out"
    assert {one.name for one in tables["table2"].trainings(("emotify",))} == {
        one.name for one in tables["table2"].trainings() if one.datasets == ("emotify",)
    }
