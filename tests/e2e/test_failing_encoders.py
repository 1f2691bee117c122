"""Encoders that run out of memory, die of a song, or cannot start cost a night those songs and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from tests.conftest import Job, done
from tests.support import moody

pytestmark = pytest.mark.slow


def songs_with_a_deadly_one(folder: Path, count: int = 9) -> Path:
    """Songs of two windows and a tail, and one that marks itself by its length."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    for at in range(count):
        soundfile.write(folder / f"song{at}.flac", noise.normal(0, 0.1, 22 * moody.RATE), moody.RATE)
    soundfile.write(folder / "deadly.flac", noise.normal(0, 0.1, moody.DEADLY_SECONDS * moody.RATE), moody.RATE)
    return folder


def test_a_night_of_failing_encoders_loses_the_guilty_song_alone(job: Job, tmp_path: Path) -> None:
    music, features = songs_with_a_deadly_one(tmp_path / "music"), tmp_path / "features"
    flags = ["--catalog", music, "--features", features, "--encoder", "tests.support.moody:poor+deadly+lame"]
    night = job("extract", *flags, "--encoders", 2, "--songs-per-part", 4)
    printed = done(night)
    rows = pd.read_parquet(features, columns=["track_id", "status", "error_class", "error"]).set_index("track_id")
    assert rows.index.is_unique
    assert len(rows) == 10
    assert rows.index[rows.status == "failed"].tolist() == ["deadly.flac"]
    assert rows.error_class["deadly.flac"] == "encoder_crashed"
    assert "of them with no other; leave it out" in rows.error["deadly.flac"]
    left_out = [line for line in night.stderr.splitlines() if "left out" in line]
    assert len(left_out) == 1
    assert "no CUDA-capable device is detected" in left_out[0]
    assert "2 encoders (CPU" in printed
    again = job("extract", *flags)
    assert "1 of 10 songs to do" in again.stdout, "what may have been the world's fault is tried again, by itself"
    assert "9 ok, 1 failed (1 encoder_crashed)" in again.stdout
    assert again.returncode == 3, "all songs of that run failed"


def test_where_most_encoders_cannot_start_the_run_ends_with_a_sentence(job: Job, tmp_path: Path) -> None:
    music = songs_with_a_deadly_one(tmp_path / "music", 3)
    flags = ["--catalog", music, "--features", tmp_path / "f", "--encoder", "tests.support.moody:hopeless"]
    night = job("extract", *flags, "--encoders", 1)
    assert night.returncode == 2
    assert "error: extract: 1 of 1 encoders cannot work: encoder on" in night.stderr
