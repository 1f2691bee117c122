"""A stranger's encoder, dataset and loss, in a folder of their own outside the package, through the jobs by name."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from tests.conftest import Job, done

ENCODER = '''
"""How loud each of some bands is: any function of windows."""
import numpy as np
from mer_ray.encoders import Encoder
from mer_ray.settings import Part

class Settings(Part):
    bands: int = 16
    """Bands of the spectrum."""

def load(word, settings, device):
    def encode(windows):
        spectrum = np.abs(np.fft.rfft(np.asarray(windows), axis=1))
        return np.log1p(np.stack([band.mean(1) for band in np.array_split(spectrum, settings.bands, axis=1)], axis=1))
    return Encoder(encode=encode, name=f"bands:{word}", dim=settings.bands, sample_rate=8_000, min_seconds=13.0,
                   licence="CC0-1.0", digest=f"{word} {settings.bands}")
'''
DATASET = '''
"""The composed table, read as a dataset of somebody's own."""
import csv
from mer_ray.catalog.datasets import Song

def read(source, settings):
    with open(source) as file:
        rows = list(csv.DictReader(file, delimiter="\\t"))
    return [Song(track_id=row["track_id"], path=row["uri"], labels=tuple(row["labels"].split(","))) for row in rows]
'''
LOSS = '''
"""Draw a window to its labels, and say how hard."""
from torch.nn.functional import normalize
from mer_ray.settings import Part

class Settings(Part):
    pull: float = 1.0
    """How hard."""

def loss(batch, settings):
    cosines_BL = normalize(batch.projected_BE) @ normalize(batch.targets_LE).T
    return -settings.pull * cosines_BL[batch.truth_BL].mean()
'''


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stranger's folder, from which the jobs are started."""
    folder = tmp_path_factory.mktemp("elsewhere")
    package = folder / "house_of_others"
    package.mkdir()
    for name, text in (("__init__", ""), ("bands", ENCODER), ("composed", DATASET), ("pull", LOSS)):
        (package / f"{name}.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def said(elsewhere: Path, world: Path, job: Job) -> dict[str, str]:
    """What each job printed."""

    source = ["--source", str(world / "demo-gems.tsv"), "--audio", str(world)]
    bands = ["--encoder", "house_of_others.bands:fine", "--bands", "24", "--window-seconds", "15"]
    pull = ["--loss", "house_of_others.pull", "--pull", "0.5", "--epochs", "2"]
    flags = {
        "catalog": ["--dataset", "house_of_others.composed", *source, "--output", "m.parquet"],
        "extract": ["--catalog", "m.parquet", "--features", "f", *bands],
        "train": ["--train", "m.parquet", "--features", "f", "--model", "model", *pull],
        "tag": ["--features", "f", "--model", "model", "--labels", "gems", "--output", "tags"],
    }
    return {name: done(job(name, *own, cwd=elsewhere)) for name, own in flags.items()}


def test_the_dataset_becomes_a_manifest_with_labels_and_splits(elsewhere: Path, said: dict[str, str]) -> None:
    rows = pq.read_table(elsewhere / "m.parquet").to_pylist()
    assert {row["dataset"] for row in rows} == {"composed"}
    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    assert all(row["labels"] and Path(row["uri"]).is_file() for row in rows)


def test_the_encoder_gets_its_rate_and_length_and_states_itself(elsewhere: Path, said: dict[str, str]) -> None:
    parts = sorted((elsewhere / "f").glob("part-*.parquet"))
    stated = json.loads(pq.read_schema(parts[0]).metadata[b"mer_ray.encoder"])
    assert (stated["name"], stated["sample_rate"], stated["dim"]) == ("bands:fine", 8_000, 24)
    assert (stated["licence"], stated["weights_sha256"]) == ("CC0-1.0", "fine 24")
    rows = duckdb.sql(
        f"select status, error_class, duration_s, len(features) n from '{elsewhere}/f/*.parquet'"
    ).fetchall()
    short = [row for row in rows if row[1] == "too_short"]
    assert short
    assert len(short) < len(rows)
    assert all(status == "ok" and seconds >= 13 and n >= 1 for status, wrong, seconds, n in rows if wrong is None)


def test_the_loss_trains_a_model_that_names_it(elsewhere: Path, said: dict[str, str]) -> None:
    config = json.loads((elsewhere / "model" / "config.json").read_text())
    assert config["settings"]["loss"] == "house_of_others.pull"
    assert config["settings"]["pull"] == 0.5
    assert "margin" not in config["settings"]
    history = json.loads((elsewhere / "model" / "metrics.json").read_text())["history"]
    assert history[1]["align"] < history[0]["align"]


def test_its_features_are_tagged_like_any_others(elsewhere: Path, said: dict[str, str]) -> None:
    tagged = duckdb.sql(f"select count(*) from '{elsewhere}/tags/*.parquet' where len(tags) between 1 and 3").fetchall()
    extracted = duckdb.sql(f"select count(*) from '{elsewhere}/f/*.parquet' where status = 'ok'").fetchall()
    assert tagged == extracted != [(0,)]
