"""A training goes on in its own directory, those begun by older code among them, and in no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mer_ray.cluster import train as training_run
from mer_ray.cluster.train import _begin, train
from mer_ray.commandline import parse
from mer_ray.errors import InputError
from mer_ray.features import features_column, store_schema
from mer_ray.learning.ridge import read_ridge
from mer_ray.learning.seen import read_seen
from mer_ray.learning.settings import TrainSettings
from mer_ray.runs.directory import RunDirectory

OF_EVERY_LOSS = {"temperature": 0.1, "margin": 1.0, "positive": "mean", "negatives": 1}
TRIPLET = {"loss": "triplet", "epochs": 8, "margin": 1.0, "positive": "mean", "negatives": 1}
CONTRASTIVE = {"loss": "contrastive", "epochs": 8, "temperature": 0.1}


def begun(folder: Path, fingerprint: dict[str, Any]) -> RunDirectory:
    """A directory of an unfinished training."""
    (folder / "_run").mkdir()
    (folder / "_run" / "settings.json").write_text(json.dumps({"fingerprint": fingerprint}))
    return RunDirectory(str(folder), "train", "model")


@pytest.mark.parametrize("asked", [TRIPLET, CONTRASTIVE])
def test_a_directory_that_states_the_settings_of_every_loss_goes_on(tmp_path: Path, asked: dict[str, Any]) -> None:
    older = {**OF_EVERY_LOSS, "negatives": 1 if asked is TRIPLET else 5, **asked}
    with begun(tmp_path, older) as model:
        assert _begin(model, asked) is None
    assert json.loads((tmp_path / "_run" / "settings.json").read_text()) == {"fingerprint": older}


def test_another_setting_of_the_loss_that_was_chosen_is_refused_by_name(tmp_path: Path) -> None:
    model = begun(tmp_path, {**OF_EVERY_LOSS, **TRIPLET})
    with pytest.raises(InputError, match=r"margin is 1\.0 there, 0\.5 asked; use another directory"):
        _begin(model, {**TRIPLET, "margin": 0.5})
    with pytest.raises(InputError, match="loss is 'triplet' there, 'contrastive' asked"):
        _begin(model, CONTRASTIVE)
    with pytest.raises(InputError, match=r"gap is None there, 0\.3 asked"):
        _begin(model, {**TRIPLET, "gap": 0.3})


SPLITS = ("train", "train", "train", "validation", "test")
SMALL = ["--preset", "paper", "--targets", "labels", "--epochs", "1", "--width", "16", "--heads", "2"]


def write_store(folder: Path, songs: range, *, prefix: str = "", status: str = "ok", pooling: str = "mean") -> None:
    """A part of a store with some songs of three windows each, D = 4."""
    identity = {"name": "tiny", "weights_sha256": "a" * 64, "pooling": pooling, "layers": [3], "dim": 4}
    schema = store_schema(identity, 4)
    windows = [np.random.default_rng(song).normal(size=(3 if status == "ok" else 0, 4)) for song in songs]
    rows = {name: pa.nulls(len(songs), schema.field(name).type) for name in schema.names}
    rows |= {"track_id": pa.array([f"{prefix}x/{song}" for song in songs]), "status": pa.array([status] * len(songs))}
    rows["features"] = features_column(windows, 4)
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(rows, schema=schema), folder / f"part-{songs.start}.parquet")


def asked(folder: Path, *flags: str, splits: tuple[str | None, ...] = SPLITS) -> TrainSettings:
    """A training on 20 songs of a manifest, in this process unless flags say otherwise."""
    rows = [
        {"track_id": f"x/{at}", "uri": f"/{at}.mp3", "dataset": "x", "split": splits[at % len(splits)], "labels": label}
        for at, label in enumerate([["calm"], ["happy"], ["sad"], ["calm", "sad"]] * 5)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "m.parquet")
    places = {"train": folder / "m.parquet", "features": folder / "features", "model": folder / "model"}
    data = [f"--{name}={place}" for name, place in places.items()]
    return parse(TrainSettings, [*data, "--workers", "0", *SMALL, *flags])


def test_a_model_keeps_what_it_has_seen_how_common_its_words_are_and_a_plain_yardstick(tmp_path: Path) -> None:
    write_store(tmp_path / "features", range(2, 20))
    train(asked(tmp_path))
    seen = read_seen(str(tmp_path / "model"))
    assert seen is not None
    expected = {(SPLITS[at % 5], "x", f"x/{at}", f"/{at}.mp3") for at in range(2, 20) if SPLITS[at % 5] != "test"}
    assert {tuple(row.values()) for row in seen.to_pylist()} == expected
    labels = json.loads((tmp_path / "model" / "labels.json").read_text())
    trained = [at for at in range(2, 20) if SPLITS[at % 5] == "train"]
    common = {"calm": (0, 3), "happy": (1,), "sad": (2, 3)}
    shares = {word: sum(at % 4 in having for at in trained) / len(trained) for word, having in common.items()}
    assert labels["priors"] == pytest.approx(shares)
    assert read_ridge(str(tmp_path / "model"), labels["datasets"], ["sad", "calm"]) is not None


def test_a_finished_model_is_not_taken_for_one_of_other_songs_or_features(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_store(tmp_path / "features", range(15))
    train(asked(tmp_path))
    train(asked(tmp_path))
    assert "trained already; nothing to do" in capsys.readouterr().out
    write_store(tmp_path / "features", range(15, 20))
    with pytest.raises(InputError, match=r"songs is '12 of 16 \(.*\)' there, '16 of 16 \(.*\)' asked; use another"):
        train(asked(tmp_path))
    (tmp_path / "features" / "part-15.parquet").unlink()
    write_store(tmp_path / "features", range(15), pooling="first")
    with pytest.raises(InputError, match="encoder pooling is 'mean' there, 'first' asked"):
        train(asked(tmp_path))


def test_a_directory_of_before_does_not_say_its_songs_and_goes_on(tmp_path: Path) -> None:
    with begun(tmp_path, TRIPLET) as model:
        assert _begin(model, {**TRIPLET, "songs": "3 of 3 (x)", "encoder pooling": "mean"}) is None


@pytest.mark.parametrize("workers", ["0", "1"])
def test_ids_that_the_store_does_not_know_are_refused_before_a_worker_starts(
    workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_run, "connect", lambda: pytest.fail("a worker starts"))
    write_store(tmp_path / "features", range(20), prefix="other/")
    with pytest.raises(InputError, match=r"none of its 12 train .* like 'x/0', the store's like 'other/x/0'"):
        train(asked(tmp_path, "--workers", workers))
    assert not (tmp_path / "model").exists()


def test_songs_that_all_failed_or_are_of_no_split_are_refused_for_what_they_are(tmp_path: Path) -> None:
    write_store(tmp_path / "features", range(20), status="failed")
    with pytest.raises(InputError, match=r"its 12 train songs failed in .*look at them with jobs/status"):
        train(asked(tmp_path))
    with pytest.raises(InputError, match="none of its 20 songs is a train song; state a split for each"):
        train(asked(tmp_path, splits=("validation", "test")))
