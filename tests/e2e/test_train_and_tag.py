"""Training, evaluation and tagging as a user runs them, from a feature store without audio."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from mer_ray.tagging.projections import FOLDER
from tests.conftest import Job, done, refused

WORDS = "calm\nhappy\nsad\nangry\ndreamy\nepic\nlate night drive\n"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words") / "words.txt"
    path.write_text(WORDS)
    return path


@pytest.fixture(scope="module")
def tags(store: Path, model: Path, words: Path, job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tags") / "tags"
    flags = ("--features", store / "features", "--model", model, "--labels", words, "--output", folder)
    done(job("tag", *flags, "--timeline", "--embedding", "-k", 2))
    return folder


def test_a_model_directory_is_whole_and_holds_no_pickle(model: Path) -> None:
    files = {path.name for path in model.iterdir()}
    assert {"projector.safetensors", "last.safetensors", "background.safetensors"} <= files
    assert {"config.json", "labels.json", "metrics.json", "README.md"} <= files
    assert not [path for path in model.rglob("*") if path.suffix in (".pt", ".bin", ".pkl", ".ckpt")]
    metrics = json.loads((model / "metrics.json").read_text())
    assert len(metrics["history"]) == 8
    assert metrics["best"]["macro_f1"] == max(epoch["macro_f1"] for epoch in metrics["history"])


def test_training_again_into_a_finished_model_does_nothing_and_other_settings_are_refused(
    store: Path, model: Path, job: Job
) -> None:
    flags = ("--train", store / "demo-gems.parquet", "--features", store / "features", "--model", model)
    before = (model / "projector.safetensors").read_bytes()
    assert "trained already" in done(job("train", *flags, "--epochs", 8))
    assert "epochs is 8 there, 9 asked" in refused(job("train", *flags, "--epochs", 9))
    assert (model / "projector.safetensors").read_bytes() == before


def test_evaluation_stands_beside_its_baselines(store: Path, model: Path, job: Job, tmp_path: Path) -> None:
    flags = ("--model", model, "--test", store / "demo-gems.parquet", "--features", store / "features")
    printed = done(job("evaluate", *flags, "--output", tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())["demo-gems"]
    assert set(metrics) == {"window", "song_vote", "song_mean", "song", "ridge", "random", "frequent"}
    wanted = {"macro_f1", "macro_precision", "macro_recall", "roc_auc", "pr_auc", "k", "songs"}
    assert all(wanted <= set(level) for level in metrics.values())
    assert metrics["song_mean"]["roc_auc"] > 0.6 > metrics["random"]["roc_auc"]
    assert f"{metrics['song_vote']['macro_f1']:.3f}" in printed
    assert (tmp_path / "per_label_demo-gems.png").read_bytes().startswith(b"\x89PNG")
    assert "regularizer = negative" in (tmp_path / "report.md").read_text()


def test_tags_are_read_by_pandas_and_duckdb_without_our_code(store: Path, tags: Path) -> None:
    rows = pd.read_parquet(tags)
    assert len(rows) == len(pd.read_parquet(store / "features")) == 30
    assert rows.tags.map(len).max() == 2
    best = next(found for found in rows.tags if len(found) == 2)
    assert best[0]["score"] >= best[1]["score"]
    counted = duckdb.sql(f"select count(*), count(distinct track_id) from '{tags}/*.parquet'").fetchall()[0]
    assert counted == (30, 30)
    used = duckdb.sql(f"select distinct unnest(tags).label from '{tags}/*.parquet'").fetchall()
    assert {label for (label,) in used} <= set(WORDS.split("\n"))
    assert len(rows.iloc[0].timeline) == len(
        pd.read_parquet(store / "features").set_index("track_id").features[rows.iloc[0].track_id]
    )
    np.testing.assert_allclose(np.linalg.norm(np.stack(rows.embedding.to_list()).astype(float), axis=1), 1, atol=1e-3)


def test_tags_say_what_made_them(tags: Path) -> None:
    part = next(tags.glob("part-*.parquet"))
    metadata = pq.read_schema(part).metadata
    assert json.loads(metadata[b"mer_ray.encoder"])["licence"]
    assert metadata[b"mer_ray.model"]
    assert json.loads(metadata[b"mer_ray.tags"])["words"] == len(WORDS.splitlines())
    assert [*json.loads((tags / "_run" / "words.json").read_text())["phrases"]] == WORDS.splitlines()


def test_a_store_is_tagged_with_any_words_long_after_its_audio_is_gone(
    world: Path, model: Path, job: Job, tmp_path: Path
) -> None:
    music, features = tmp_path / "music", tmp_path / "features"
    music.mkdir()
    for song in sorted((world / "demo-jamendo").iterdir())[:6]:
        shutil.copy(song, music)
    flags = ("--features", features, "--model", model, "--encoder", "descriptors")
    unkept = ("--labels", "gems", "--output", tmp_path / "first", "--no-keep-projections")
    done(job("tag", "--catalog", music, *flags, *unkept))
    shutil.rmtree(music)
    assert not (features / FOLDER).exists()
    done(job("tag", "--features", features, "--model", model, "--labels", "jamendo", "--output", tmp_path / "second"))
    assert len([*features.glob(f"{FOLDER}/*/*.arrow")]) == len([*features.glob("part-*.parquet")])
    done(job("validate", "--run", features))
    assert len(pd.read_parquet(tmp_path / "second")) == len(pd.read_parquet(tmp_path / "first")) == 6


def test_a_threshold_may_leave_a_song_without_tags(
    store: Path, model: Path, words: Path, job: Job, tmp_path: Path
) -> None:
    flags = ("--features", store / "features", "--model", model, "--labels", words, "--output", tmp_path / "tags")
    done(job("tag", *flags, "--threshold", 1.0))
    rows = pd.read_parquet(tmp_path / "tags")
    assert rows.tags.str.len().min() == 0
    assert all(tag["score"] >= 1.0 for tags in rows.tags for tag in tags)


@pytest.mark.parametrize(
    ("flag", "content", "said"),
    [("nowhere.txt", None, "no such file"), ("empty.txt", "\n# nothing\n", "no words in it")],
)
def test_word_lists_that_are_missing_or_empty_are_refused(
    store: Path, model: Path, job: Job, tmp_path: Path, flag: str, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / flag).write_text(content)
    flags = ("--features", store / "features", "--model", model, "--output", tmp_path / "tags")
    assert said in refused(job("tag", *flags, "--labels", tmp_path / flag))


@pytest.mark.slow
def test_two_workers_train_too(store: Path, job: Job, tmp_path: Path) -> None:
    flags = ("--train", store / "demo-gems.parquet", "--features", store / "features", "--model", tmp_path / "model")
    said = done(job("train", *flags, "--epochs", 2, "--workers", 2, "--lambda", 1.0))
    assert "2 workers" in said
    assert len(json.loads((tmp_path / "model" / "metrics.json").read_text())["history"]) == 2
