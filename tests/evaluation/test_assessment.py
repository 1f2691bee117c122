"""An evaluation from manifests, a store and a model to metrics and report, without Ray."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mer_ray.errors import InputError
from mer_ray.evaluation.assessment import assess, known_clusters
from mer_ray.evaluation.settings import EvaluateSettings
from mer_ray.features import features_column, store_schema
from mer_ray.fingerprints import weights_sha256
from mer_ray.learning.model import Model
from mer_ray.learning.projector import Projector, ProjectorShape
from mer_ray.words.embedding import label_model, unit

DIM, SONGS = 6, 24
WORDS = ("calm", "happy", "joyful", "sad")
ENCODER: dict[str, Any] = {"name": "tiny", "layers": [3, 6], "pooling": "mean", "window_seconds": 10.0}
DESIGN_KEYS = {"macro_f1", "macro_precision", "macro_recall", "roc_auc", "pr_auc", "k", "songs"}
INTERVALS = {"macro_f1_low", "macro_f1_high", "roc_auc_low", "roc_auc_high"}


def write_world(folder: Path) -> None:
    """A model that knows WORDS, a store of 25 songs of which one failed, and manifests of those."""
    torch.manual_seed(0)
    shape = ProjectorShape(input_dim=DIM, hidden_dim=16, heads=2)
    config = {
        "projector": asdict(shape),
        "encoder": {**ENCODER, "dim": DIM},
        "label_model": {"name": "auto", "weights_sha256": weights_sha256(label_model())},
        "readings": {"targets": "clusters", "lambda": 2.5},
        "datasets": ["here"],
    }
    clusters = [["calm"], ["happy", "joyful", "never asked"], ["sad"]]
    labels = {"words": list(WORDS), "phrases": {}, "clusters": clusters, "datasets": {"here": list(WORDS)}}
    background = unit(np.random.default_rng(0).normal(size=(20, 384)))
    Model(Projector(shape).eval(), config, labels, background).save(str(folder / "model"))
    write_store(folder / "features")
    write_manifest(folder / "here.parquet", WORDS, "here")
    write_manifest(folder / "elsewhere.parquet", ("calm", "epic"), "elsewhere")


def write_store(folder: Path) -> None:
    generator = np.random.default_rng(1)
    windows = [generator.normal(size=(generator.integers(1, 5), DIM)) for _ in range(SONGS)] + [np.zeros((0, DIM))]
    schema = store_schema({**ENCODER, "dim": DIM}, DIM)
    rows = {name: pa.nulls(SONGS + 1, schema.field(name).type) for name in schema.names}
    rows["track_id"] = pa.array([f"song/{at:02d}" for at in range(SONGS + 1)])
    rows["status"] = pa.array(["ok"] * SONGS + ["failed"])
    rows["features"] = features_column(windows, DIM)
    folder.mkdir()
    pq.write_table(pa.table(rows, schema=schema), folder / "part-0.parquet")


def write_manifest(path: Path, words: tuple[str, ...], dataset: str, order: int | None = None) -> None:
    """Songs with one or two words each, in order of id or shuffled by a seed."""
    rows = [
        {
            "track_id": f"song/{at:02d}",
            "uri": f"{at}.mp3",
            "dataset": dataset,
            "split": "test",
            "labels": sorted({words[at % len(words)], words[at // 5 % len(words)]}),
        }
        for at in range(SONGS + 1)
    ]
    if order is not None:
        rows = [rows[at] for at in np.random.default_rng(order).permutation(len(rows))]
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


def settings(world: Path, output: Path, *tests: str, **more: Any) -> EvaluateSettings:
    return EvaluateSettings(
        model=str(world / "model"),
        test=[str(world / f"{name}.parquet") for name in tests],
        features=[str(world / "features")],
        output=str(output),
        **more,
    )


@pytest.fixture(scope="module")
def evaluation(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    assess(settings(world, folder, "here", "elsewhere"))
    return folder


def test_each_level_has_the_designs_keys_and_each_of_ours_its_interval(evaluation: Path) -> None:
    metrics = json.loads((evaluation / "metrics.json").read_text())
    for levels in metrics.values():
        assert set(levels) == {"window", "song_vote", "song_mean", "song", "random", "frequent"}
        for name, level in levels.items():
            own = set() if name in ("random", "frequent") else INTERVALS
            assert set(level) == DESIGN_KEYS | own | {"cluster_macro_f1"}
            assert level["songs"] == SONGS


def test_cluster_f1_is_null_where_the_model_was_not_trained_with_the_labels(evaluation: Path) -> None:
    metrics = json.loads((evaluation / "metrics.json").read_text())
    assert all(level["cluster_macro_f1"] is None for level in metrics["elsewhere"].values())
    assert all(level["cluster_macro_f1"] >= 0 for level in metrics["here"].values())
    facts = json.loads((evaluation / "settings.json").read_text())
    assert facts["clusters"] == "here: 4 labels in 3; elsewhere: not trained with all of its labels"


def test_the_report_tells_readings_absent_songs_and_intervals(evaluation: Path) -> None:
    report, page = (evaluation / "report.md").read_text(), (evaluation / "report.html").read_text()
    level = json.loads((evaluation / "metrics.json").read_text())["here"]["song_vote"]
    figures = f"{level['macro_f1']:.3f} [{level['macro_f1_low']:.3f}, {level['macro_f1_high']:.3f}]"
    for text in (report, page):
        assert figures in text
        assert "lambda = 2.5, targets = clusters" in text
        assert "here 1, elsewhere 1" in text
    for name in ("here", "elsewhere"):
        assert (evaluation / f"per_label_{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"](per_label_{name}.png)" in report


def test_the_order_of_the_manifest_changes_no_digit(world: Path, evaluation: Path, tmp_path: Path) -> None:
    write_manifest(world / "shuffled.parquet", WORDS, "here", order=7)
    assess(settings(world, tmp_path, "shuffled"))
    for name in ("metrics.json", "per_label.json"):
        expected = json.loads((evaluation / name).read_text())["here"]
        assert json.loads((tmp_path / name).read_text())["here"] == expected


def test_another_seed_draws_other_resamples_and_leaves_the_scores(
    world: Path, evaluation: Path, tmp_path: Path
) -> None:
    first = json.loads((evaluation / "metrics.json").read_text())["here"]["window"]
    other = assess(settings(world, tmp_path, "here", seed=1))["here"]["window"].metrics
    assert other["macro_f1"] == first["macro_f1"]
    assert other["macro_f1_low"] != first["macro_f1_low"]


def test_ratings_in_the_manifest_are_met_by_rank_and_other_datasets_are_as_they_were(
    world: Path, evaluation: Path, tmp_path: Path
) -> None:
    table = pq.read_table(world / "here.parquet")
    rng = np.random.default_rng(0)
    ratings = [[{"label": word, "rating": float(rng.random())} for word in WORDS] for _ in range(len(table))]
    kind = pa.list_(pa.struct([("label", pa.string()), ("rating", pa.float32())]))
    rated = tmp_path / "rated.parquet"
    pq.write_table(table.append_column("ratings", pa.array(ratings, kind)), rated)
    assess(settings(world, tmp_path / "out", str(rated.with_suffix(""))))
    found, plain = (
        json.loads((folder / "metrics.json").read_text())["here"]["song_mean"]
        for folder in (tmp_path / "out", evaluation)
    )
    assert found["rating_correlation_low"] < found["rating_correlation"] < found["rating_correlation_high"]
    assert {name: value for name, value in found.items() if not name.startswith("rating")} == plain
    assert "ρ with ratings" in (tmp_path / "out" / "report.md").read_text()
    assert "ρ with ratings" not in (evaluation / "report.md").read_text()


def test_two_manifests_of_one_dataset_are_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two manifests of dataset here; evaluate them one by one"):
        assess(settings(world, tmp_path, "here", "here"))


def test_clusters_are_cut_down_to_the_datasets_labels() -> None:
    clusters = [["a", "x"], ["y"], ["b", "c"]]
    assert known_clusters(clusters, ("a", "b", "c")) == [["a"], ["b", "c"]]
    assert known_clusters(clusters, ("a", "b")) == [["a"], ["b"]]
    assert known_clusters(clusters, ("a", "unknown")) == []
    assert known_clusters([], ("a",)) == []
