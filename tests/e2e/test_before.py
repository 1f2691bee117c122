"""What version 0.1.0 left behind is gone on with: stores, models, a training and tags, half done or finished.

``tests/fixtures/before`` was written by the code at commit c8c1ed7 (``tests/fixtures/make_before.py``); its projectors
are eight wide. Numbers are compared as closely as another machine allows; on one machine they are equal bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from mer_ray.commandline import parse
from mer_ray.learning import training
from mer_ray.learning.settings import TrainSettings
from tests.conftest import Job, done
from tests.support import ROOT

Run = Callable[..., str]

BOTH = ["demo-gems.parquet", "demo-jamendo.parquet"]
PAPER = ["--preset", "paper", "--lambda", "2.5", "--bandwidth", "0.9", "--epochs", "8", "--batch-size", "4"]
PAPER += ["--lr", "0.003", "--plateau-patience", "1", "--plateau-cooldown", "0", "--checkpoint-seconds", "0"]

DONE = 2
"""Epochs of the training that was half done."""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: the jobs write there."""
    return Path(shutil.copytree(ROOT / "tests" / "fixtures" / "before", tmp_path_factory.mktemp("b") / "before"))


@pytest.fixture
def tag(before: Path, job: Job) -> Run:
    """Tag the finished store into one of its directories."""

    def run(output: str, model: str, labels: object, *flags: object) -> str:
        store = ("--features", before / "store-finished", "--no-keep-projections", "--model", before / model)
        return done(job("tag", *store, "--labels", labels, "--output", before / output, *flags))

    return run


def state_validation(manifest: Path) -> None:
    """Write into a manifest without validation songs those that were drawn then: by places and the seed."""
    table = pq.read_table(manifest)
    splits = table["split"].to_pylist()
    if "validation" in splits:
        return
    train = [at for at, split in enumerate(splits) if split == "train"]
    held_out = max(1, math.floor(len(train) / 10 + 0.5))
    names = ["train"] * (len(train) - held_out) + ["validation"] * held_out
    order = sorted(range(len(train)), key=lambda place: hashlib.sha256(f"0/{place}".encode()).digest())
    for place, name in zip(order, names, strict=True):
        splits[train[place]] = name
    pq.write_table(table.set_column(table.schema.get_field_index("split"), "split", pa.array(splits)), manifest)


def parts(folder: Path) -> dict[str, int]:
    return {part.name: part.stat().st_mtime_ns for part in folder.glob("part-*.parquet")}


def rows(folder: Path) -> pd.DataFrame:
    """All rows of a directory by track_id, without where the songs lay."""
    tables = [pq.ParquetFile(part).read().to_pandas() for part in folder.glob("part-*.parquet")]
    return pd.concat(tables).drop(columns="uri").set_index("track_id").sort_index()


def assert_alike(found: Any, wanted: Any) -> None:
    """Equal but for rounding, however deep."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        found, wanted = list(found.values()), list(wanted.values())
    if isinstance(wanted, (list, np.ndarray)):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_alike(one, other)
    elif isinstance(wanted, (float, np.floating)):
        assert found == pytest.approx(wanted, abs=5e-3, nan_ok=True)
    else:
        assert found == wanted


def test_a_store_that_was_half_made_is_finished_with_the_same_rows_and_names(before: Path, job: Job) -> None:
    store, kept = before / "store-half", parts(before / "store-half")
    asked = ("--catalog", before / "music", "--features", store, "--encoder", "tiny", "--songs-per-part", 1)
    assert "extract: 4 of 7 songs to do" in done(job("extract", *asked))
    assert kept.items() <= parts(store).items()
    assert parts(store).keys() == parts(before / "store-half-expected").keys()
    found, wanted = rows(store), rows(before / "store-half-expected")
    assert_alike(found.drop(columns="features").to_dict("list"), wanted.drop(columns="features").to_dict("list"))
    for name, windows in load_file(before / "store-half-features.safetensors").items():
        stacked = np.array([*found["features"][name]], np.float32).reshape(windows.shape)
        np.testing.assert_allclose(stacked, windows.astype(np.float32), atol=0.02)
    assert "all 14 checks hold" in done(job("validate", "--run", store))


def test_a_finished_store_has_nothing_to_do(before: Path, job: Job) -> None:
    store, kept = before / "store-finished", parts(before / "store-finished")
    asked = ("--catalog", before / "world.parquet", "--features", store, "--encoder", "tiny")
    assert "extract: 0 of 34 songs to do" in done(job("extract", *asked))
    assert parts(store) == kept
    assert "all 14 checks hold" in done(job("validate", "--run", store))


def test_tags_that_were_half_made_are_finished_against_the_yardstick_they_began_with(before: Path, tag: Run) -> None:
    kept = parts(before / "tags-half")
    asked = ("-k", 2, "--timeline", "--embedding", "--yardstick", "catalog")
    said = tag("tags-half", "model-best", before / "words.txt", *asked)
    assert "tag: 24 of 34 songs to do, 8 words, measured against the 32 songs of the first run" in said
    assert kept.items() <= parts(before / "tags-half").items()
    assert_alike(rows(before / "tags-half").to_dict("list"), rows(before / "tags-half-expected").to_dict("list"))


@pytest.mark.parametrize(
    ("name", "model", "flags"),
    [
        ("tags-finished", "model-best", ("words.txt", "-k", 3)),
        (
            "tags-percentile",
            "model-paper",
            ("gems", "--min-percentile", 0.6, "--ranking", "cosine", "--yardstick", "model"),
        ),
    ],
)
def test_finished_tags_have_nothing_to_do_and_come_out_the_same_anew(
    name: str, model: str, flags: tuple[str, ...], before: Path, tag: Run, job: Job
) -> None:
    kept = parts(before / name)
    words = before / flags[0] if flags[0] == "words.txt" else flags[0]
    assert "tag: 0 of 34 songs to do" in tag(name, model, words, *flags[1:])
    assert parts(before / name) == kept
    assert "all 14 checks hold" in done(job("validate", "--deep", "--run", before / name))
    # Today a word must earn its place, by the standardized score, unless it is told not to.
    free = () if "cosine" in flags else ("--threshold", -100)
    tag(f"{name}-anew", model, words, *flags[1:], *free)
    assert_alike(rows(before / f"{name}-anew").to_dict("list"), rows(before / name).to_dict("list"))


@pytest.mark.parametrize("name", ["paper", "best"])
def test_a_model_evaluates_as_before(name: str, before: Path, job: Job) -> None:
    tests = [flag for manifest in BOTH for flag in ("--test", before / manifest)]
    asked = ("--model", before / f"model-{name}", "--features", before / "store-finished", "--split", "all")
    done(job("evaluate", *asked, *tests, "--output", before / "evaluated" / name))
    found, wanted = (
        json.loads((before / at / name / "metrics.json").read_text()) for at in ("evaluated", "evaluation")
    )
    for dataset, levels in wanted.items():
        # A song's score is that of its mean vector, which by cosine alone is the mean over its windows.
        same = {level for level in levels if name == "paper" or level != "song_mean"}
        for level in same:
            kept = {metric for metric in levels[level] if (level, metric) != ("song_mean", "cluster_macro_f1")}
            assert_alike({key: found[dataset][level][key] for key in kept}, {key: levels[level][key] for key in kept})
    calibration = json.loads((before / "evaluated" / name / "calibration.json").read_text())
    trained_on = json.loads((before / f"model-{name}" / "config.json").read_text())["datasets"]
    seen = {dataset: one["seen"] for dataset, one in calibration["datasets"].items()}
    assert seen == {dataset: "songs it may have learned from" if dataset in trained_on else "" for dataset in seen}


def test_a_training_goes_on_from_its_checkpoint_and_a_finished_one_does_nothing(
    before: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mer_ray.cluster.train import train

    monkeypatch.setitem(training.EARLIER, "width", 8)
    for manifest in BOTH:
        state_validation(before / manifest)
    data = [flag for manifest in BOTH for flag in ("--train", str(before / manifest))]
    data += ["--features", str(before / "store-finished"), "--workers", "0", *PAPER]
    train(parse(TrainSettings, [*data, "--model", str(before / "model-paper")]))
    assert "is trained already; nothing to do" in capsys.readouterr().out
    begun = json.loads((before / "train-half" / "_run" / "progress.json").read_text())
    metrics = train(parse(TrainSettings, [*data, "--model", str(before / "train-half")]))
    assert begun["epoch"] == 1
    wanted = json.loads((before / "model-paper" / "metrics.json").read_text())
    # Draws that shared the true centre are no longer made, so later epochs are near those of then, not the same.
    assert len(metrics["history"]) == len(wanted["history"])
    assert_alike(metrics["history"][:DONE], wanted["history"][:DONE])
    for line, then in zip(metrics["history"], wanted["history"], strict=True):
        assert line["loss"] == pytest.approx(then["loss"], rel=0.1)
    for file in ("projector.safetensors", "background.safetensors"):
        found, wanted = (load_file(before / at / file) for at in ("train-half", "model-paper"))
        assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in wanted.items()}
        assert all(np.isfinite(value.astype(float)).all() for value in found.values())
