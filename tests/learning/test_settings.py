"""The settings of a training: each loss brings its own, a mark says what counts, and asking for help loads no torch."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from benchmarks.zero_shot import ROWS
from mer_ray.commandline import parse
from mer_ray.errors import InputError
from mer_ray.learning.losses import DOOR
from mer_ray.learning.losses.contrastive import Settings as Contrastive
from mer_ray.learning.losses.soft_triplet import Settings as SoftTriplet
from mer_ray.learning.losses.triplet import Settings as Triplet
from mer_ray.learning.settings import RecipeSettings, TrainSettings
from mer_ray.settings import OPERATIONAL, READING, marked

TRAIN = ["--train", "/a.parquet", "--features", "/f", "--model", "/m"]


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--preset", "paper"], Triplet()),
        (["--preset", "reference"], Triplet(negatives=5, negative="cluster")),
        (["--preset", "reference", "--negatives", "2"], Triplet(negatives=2, negative="cluster")),
        (["--preset", "best"], SoftTriplet()),
        (["--preset", "best", "--loss", "contrastive"], Contrastive(temperature=0.2)),
        (["--preset", "paper", "--loss", "contrastive"], Contrastive(temperature=0.1)),
        (["--preset", "best", "--loss", "triplet"], Triplet()),
    ],
)
def test_a_loss_brings_its_settings_and_what_a_preset_says_of_them(flags: list[str], part: object) -> None:
    found = parse(TrainSettings, [*TRAIN, *flags])
    assert found.part("loss") == part
    assert pickle.loads(pickle.dumps(found)).part("loss") == part
    assert found.training(lambda_=3.0).part("loss") == part
    assert found.training(lambda_=3.0).lambda_ == 3.0


def test_the_help_names_every_loss() -> None:
    text = RecipeSettings.model_fields["loss"].description or ""
    assert all(name in text for name in DOOR.names())


def test_where_the_work_is_done_does_not_count_and_how_the_paper_is_read_is_told() -> None:
    found = parse(TrainSettings, [*TRAIN, "--preset", "paper"])
    where = {"settings", "train", "features", "model", "workers", "gpus", "checkpoint_seconds"}
    where |= {"scratch", "tensorboard", "mlflow", "wait"}
    assert set(marked(found, OPERATIONAL)) == where
    assert {"preset", "loss", "margin", "targets", "lambda_"} <= set(marked(found, READING))
    assert not {"temperature", "epochs", "seed"} & set(marked(found, READING))


def test_settings_losses_and_lists_of_words_are_there_without_torch() -> None:
    modules = "mer_ray.learning.settings, mer_ray.words.lists, mer_ray.learning.losses.triplet"
    heavy = "{'torch', 'transformers', 'sentence_transformers', 'sklearn'}"
    code = f"import sys, mer_ray.learning.losses.contrastive, {modules}; print({heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_the_reference_preset_is_the_reference_for_each_of_the_papers_three_kinds_of_runs() -> None:
    def found(*flags: str) -> dict[str, object]:
        return parse(TrainSettings, [*TRAIN, "--preset", "reference", *flags]).resolved()

    shared = {
        **{"loss": "triplet", "margin": 1.0, "positive": "mean", "negatives": 5, "negative": "cluster"},
        **{"activation": "relu", "depth": 2, "heads": 8, "width": 768, "dropout": 0.1, "standardize": False},
        **{"lr": 1e-4, "epochs": 75, "batch_size": 256, "stop_patience": 0, "clip_norm": 0.0},
        **{"plateau_factor": 0.2, "plateau_patience": 10, "plateau_cooldown": 5, "keep": "loss"},
        **{"select_on": "windows", "select_over": "first", "ranking": "cosine", "regularizer": "reference"},
        **{"bandwidth": "reference", "label_text": "plain", "context": "segment"},
    }
    kinds = {
        "baseline1": {"targets": "labels", "lambda_": 0.0, "cycle": False},
        "baseline2": {"targets": "clusters", "lambda_": 0.0, "cycle": False},
        "regularized": {"targets": "labels", "lambda_": 2.5, "cycle": True},
    }
    for kind, own in kinds.items():
        wanted = {**shared, **own}
        assert {name: found("--experiment", kind)[name] for name in wanted} == wanted, kind
    assert {**found(), "experiment": 0} == {**found("--experiment", "regularized"), "experiment": 0}
    assert found("--experiment", "regularized", "--lambda", "1")["lambda_"] == 1, "a single setting still wins"


def test_an_experiment_of_the_paper_is_refused_with_a_preset_that_is_not() -> None:
    with pytest.raises(InputError, match="--experiment: one of the paper's; add --preset paper or --preset reference"):
        parse(TrainSettings, [*TRAIN, "--experiment", "baseline1"])


@pytest.mark.parametrize(("row", "preset"), [("best", "best"), ("paper", "paper")])
def test_the_bench_measures_what_ships(row: str, preset: str) -> None:
    measured = parse(TrainSettings, [*TRAIN, *(ROWS[row] or [])]).resolved()
    ships = parse(TrainSettings, [*TRAIN, "--preset", preset]).resolved()
    apart = {name for name in ships if measured.get(name) != ships[name]}
    assert apart <= {"targets"}, "the paper's clusters cannot be had of the bench's eight words"
