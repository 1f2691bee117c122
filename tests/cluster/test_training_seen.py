"""A training as its user sees it, in this process: what it writes and says, and what it refuses before it begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from mer_ray.catalog.datasets import vocabularies
from mer_ray.catalog.manifest import make_manifest
from mer_ray.cluster.train import train
from mer_ray.commandline import parse
from mer_ray.errors import InputError
from mer_ray.learning import training
from mer_ray.learning.learner import Learner
from mer_ray.learning.model import Model
from mer_ray.learning.settings import TrainSettings
from mer_ray.learning.tracking import Tracker
from mer_ray.words.lists import Word
from tests.test_features import DIM, songs_table, write_store

WORDS = vocabularies()["gems"]
SONGS = [f"s/{at}" for at in range(40)]
LENGTHS = {"train": 30, "validation": 6, "test": 4}


def windows(song: int) -> NDArray[np.float16]:
    """Two windows that show the song's word."""
    noise = np.random.default_rng(song).normal(size=(2, DIM))
    return (noise + 4 * np.eye(DIM)[song % DIM]).astype(np.float16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty songs of Emotify's nine words, and a store of them."""
    folder = tmp_path_factory.mktemp("data")
    write_store(folder / "features", songs_table({name: windows(at) for at, name in enumerate(SONGS)}))
    columns = {
        **{"track_id": SONGS, "uri": [f"/music/{name}" for name in SONGS], "dataset": ["gems"] * len(SONGS)},
        "split": [split for split, count in LENGTHS.items() for _ in range(count)],
        "labels": [[WORDS[at % DIM % len(WORDS)]] if at % 5 else [WORDS[at % len(WORDS)]] for at in range(len(SONGS))],
    }
    pq.write_table(make_manifest(columns, "test"), folder / "gems.parquet")
    return folder


def settings(data: Path, model: Path, *flags: str) -> TrainSettings:
    small = ["--width", "16", "--heads", "2", "--epochs", "3", "--workers", "0"]
    where = ["--train", str(data / "gems.parquet"), "--features", str(data / "features"), "--model", str(model)]
    return parse(TrainSettings, [*small, *where, *flags])


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    model = tmp_path_factory.mktemp("model") / "model"
    return model, train(settings(data, model))


def test_the_model_directory_holds_a_line_an_epoch_and_the_curve_its_card_shows(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    model, metrics = trained
    lines = [json.loads(line) for line in (model / "history.jsonl").read_text().splitlines()]
    assert lines == metrics["history"]
    assert {"epoch", "loss", "align", "regularization", "validation_loss", "macro_f1", "lr"} == lines[0].keys()
    assert "(history.png)" in (model / "README.md").read_text()
    assert (model / "history.png").read_bytes().startswith(b"\x89PNG")


def test_the_default_regularizes_words_that_no_bandwidth_groups_each_as_its_own_cluster_and_says_so(
    trained: tuple[Path, dict[str, Any]], data: Path
) -> None:
    model, metrics = trained
    config = json.loads((model / "config.json").read_text())
    assert (config["settings"]["loss"], config["settings"]["lambda"]) == ("soft_triplet", 1.0)
    assert len(json.loads((model / "labels.json").read_text())["clusters"]) > 1
    assert all(line["regularization"] != 0 for line in metrics["history"])
    assert "each word its own: none were asked for, or found" in (model / "README.md").read_text()


HISTORY = [{"epoch": float(at), "loss": 1.0 / (at + 1)} for at in range(3)]
POINTS = [(1, pytest.approx(1.0)), (2, pytest.approx(1 / 2)), (3, pytest.approx(1 / 3))]


def tracked(asked: TrainSettings) -> None:
    """Follow a history that grows, as the driver sees it."""
    with Tracker(asked) as tracker:
        tracker.begin({"version": "1", "settings": {"lambda": 1.0}})
        tracker.follow(HISTORY[:2])
        tracker.follow(HISTORY)


def test_tensorboard_has_each_epoch_once(data: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tracked(settings(data, tmp_path / "model", "--tensorboard", str(tmp_path / "events")))
    events = accumulator.EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == POINTS


def test_mlflow_has_the_settings_and_each_epoch_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"file://{tmp_path}/runs"
    tracked(settings(data, tmp_path / "model", "--mlflow", uri))
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("mer_ray").experiment_id])
    assert run.data.params == {"lambda": "1.0"}
    assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")] == POINTS


@pytest.mark.parametrize("tool", ["tensorboard", "mlflow"])
def test_a_tool_that_is_not_installed_is_refused_before_anything_begins(
    tool: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mer_ray.learning.tracking.find_spec", lambda name: None)
    with pytest.raises(InputError, match=f"--{tool} .*: {tool} is not installed; pip install {tool}, or leave it out"):
        train(settings(data, tmp_path / "model", f"--{tool}", str(tmp_path / "there")))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_no_model_is_made_of_features_that_are_no_finite_numbers(value: float, data: Path, tmp_path: Path) -> None:
    songs = {name: windows(at) for at, name in enumerate(SONGS)}
    songs["s/3"][1, 0] = value
    write_store(tmp_path / "features", songs_table(songs))
    (tmp_path / "gems.parquet").write_bytes((data / "gems.parquet").read_bytes())
    with pytest.raises(InputError, match="song s/3, window 2: holds a value that is no finite number"):
        train(settings(tmp_path, tmp_path / "model"))
    assert not (tmp_path / "model" / "config.json").exists()


def test_a_training_whose_directory_another_run_has_taken_ends_after_its_epoch(data: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"

    def steal(self: Learner) -> dict[str, float]:
        (model / "_run" / "lock").write_text(json.dumps({"token": "another's"}))
        return run_epoch(self)

    run_epoch = Learner.run_epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "run_epoch", steal)
        with pytest.raises((RuntimeError, InputError), match=r"lost its lock|taken over"):
            train(settings(data, model))
    assert not (model / "config.json").exists()


PUBLISHED = np.linalg.qr(np.random.default_rng(0).normal(size=(384, len(WORDS))))[0].T.astype(np.float32)


@pytest.fixture
def published(tmp_path: Path) -> list[str]:
    np.savez(tmp_path / "label_expanded_gems.npz", labels=np.array(WORDS), text_features=PUBLISHED)
    (tmp_path / "label_map.json").write_text(json.dumps({word: at // 3 for at, word in enumerate(WORDS)}))
    files = ["--label-embeddings", f"{tmp_path}/label_expanded_gems.npz", "--clusters", f"{tmp_path}/label_map.json"]
    return ["--preset", "reference", "--epochs", "2", *files]


def test_published_embeddings_and_clusters_are_taken_as_they_are_and_kept_with_the_model(
    data: Path, tmp_path: Path, published: list[str]
) -> None:
    train(settings(data, tmp_path / "model", *published))
    model = Model.load(str(tmp_path / "model"))
    known, unknown = [model.read(Word.of(word)) for word in WORDS], model.read(Word.of("seasick"))
    np.testing.assert_allclose(model.embed(known), PUBLISHED, atol=1e-3)
    assert not np.allclose(model.embed([unknown]), model.embed([known[0]]))
    labels = model.labels["clusters"]
    assert [set(group) for group in labels] == [set(WORDS[at : at + 3]) for at in (0, 3, 6)]
    assert "Grouped by: as published." in (tmp_path / "model" / "README.md").read_text()
    readings = json.loads((tmp_path / "model" / "config.json").read_text())["readings"]
    assert (readings["clusters"], readings["label_embeddings"]) == ("published", "published")


def test_other_published_files_are_other_settings(data: Path, tmp_path: Path, published: list[str]) -> None:
    train(settings(data, tmp_path / "model", *published))
    (tmp_path / "label_map.json").write_text(json.dumps({word: at // 2 for at, word in enumerate(WORDS)}))
    with pytest.raises(InputError, match="begun with other settings: groups is"):
        train(settings(data, tmp_path / "model", *published))


def test_a_trained_word_that_the_published_embeddings_lack_is_named(
    data: Path, tmp_path: Path, published: list[str]
) -> None:
    np.savez(tmp_path / "label_expanded_gems.npz", labels=np.array(WORDS[1:]), text_features=PUBLISHED[1:])
    with pytest.raises(InputError, match=f"none of the files has '{WORDS[0]}' of gems; give the file of that dataset"):
        train(settings(data, tmp_path / "model", *published))


def test_what_was_no_setting_stays_as_it_was_in_a_training_begun_before(data: Path, tmp_path: Path) -> None:
    asked = settings(data, tmp_path, "--preset", "paper", "--keep", "loss")
    begun = training.as_begun(asked, {"lr": 1e-3, "depth": 1})
    assert (begun.select_over, begun.ranking, begun.stop_patience, begun.clip_norm) == ("first", "cosine", 0, 0.0)
    assert (begun.keep, begun.depth, begun.width) == ("loss", 2, 16), "what is said, there or here, is not changed"
    assert training.as_begun(asked, {}) == asked
