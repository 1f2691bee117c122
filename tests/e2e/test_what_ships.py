"""A stranger's songs, tagged with nothing but what ships: descriptors, the model gems, the list of moods."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mer_ray.encoders import load_encoder
from mer_ray.features import Store
from mer_ray.words.lists import MOODS
from tests.conftest import Job, done, refused
from tests.support import ROOT

OF_TINY = ROOT / "tests" / "fixtures" / "before" / "store-finished"


def test_songs_are_tagged_with_what_ships(store: Path, job: Job, tmp_path: Path) -> None:
    features = ("--features", store / "features")
    described, encoder = Store.open(str(store / "features")), load_encoder("descriptors")
    assert described.dim == encoder.dim
    assert described.encoder["columns"] == [list(group) for group in encoder.columns]
    said = done(job("tag", *features, "--model", "gems", "--labels", "moods", "--output", tmp_path / "tags", "-k", 2))
    assert f"{len(MOODS)} words" in said
    rows = pd.read_parquet(tmp_path / "tags")
    words = {tag["label"] for tags in rows.tags for tag in tags}
    assert set(rows.status) == {"ok"}
    assert len(words) > 3
    assert words <= set(MOODS)


def test_features_of_another_encoder_are_refused_by_name(job: Job, tmp_path: Path) -> None:
    flags = ("--model", "gems", "--labels", "moods", "--output", tmp_path / "tags")
    assert "encoder is tiny there, descriptors asked" in refused(job("tag", "--features", OF_TINY, *flags))
