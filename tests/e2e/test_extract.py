"""Extraction as a user runs it: every song one row, broken ones with a reason, and going on where it stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import Job, done, refused
from tests.support import ROOT


@pytest.fixture(scope="module")
def twenty_songs(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seventeen good songs and three broken ones."""
    folder = tmp_path_factory.mktemp("twenty")
    for song in sorted((world / "demo-jamendo").iterdir())[:17]:
        shutil.copy(song, folder)
    (folder / "page.mp3").write_text("<html><body>502 Bad Gateway</body></html>")
    (folder / "nothing.flac").touch()
    (folder / "noise.wav").write_bytes(os.urandom(50_000))
    return folder


@pytest.fixture(scope="module")
def extracted(twenty_songs: Path, job: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The store of the twenty songs, more of which failed than was allowed, and what the job printed."""
    features = tmp_path_factory.mktemp("extracted") / "features"
    flags = ("--catalog", twenty_songs, "--features", features, "--encoder", "tiny", "--max-failure-rate", 0.1)
    return features, done(job("extract", *flags), code=3)


def test_too_many_failures_exit_with_three_and_are_still_accounted_for(extracted: tuple[Path, str]) -> None:
    assert len(pd.read_parquet(extracted[0])) == 20


def test_broken_songs_are_rows_with_reasons(extracted: tuple[Path, str]) -> None:
    features, printed = extracted
    rows = pd.read_parquet(features).set_index("track_id")
    assert len(rows) == 20
    assert (rows.status == "ok").sum() == 17
    failed = rows[rows.status == "failed"]
    assert failed.error_class.to_dict() == {"page.mp3": "not_audio", "nothing.flac": "empty", "noise.wav": "not_audio"}
    assert failed.error.str.len().min() > 10
    assert "17 ok, 3 failed" in printed


def test_the_run_directory_says_what_was_done(extracted: tuple[Path, str]) -> None:
    features, _ = extracted
    summary = json.loads((features / "_run" / "summary.json").read_text())
    assert (summary["songs"], summary["ok"], summary["failed"]) == (20, 17, 3)
    assert summary["error_classes"] == {"not_audio": 2, "empty": 1}
    assert len(pd.read_parquet(features / "_run" / "failures.parquet")) == 3
    assert (features / "_SUCCESS").exists()
    assert not (features / "_run" / "lock").exists()
    lengths = sorted(len(pd.read_parquet(part)) for part in features.glob("part-*"))
    assert (sum(lengths), max(lengths)) == (20, 8)
    failed = pd.read_parquet(features).query("status == 'failed'").track_id
    assert any(set(pd.read_parquet(part).track_id) == set(failed) for part in features.glob("part-*")), "apart"


def test_the_last_line_says_which_stage_binds_and_the_summary_how_busy_both_were(extracted: tuple[Path, str]) -> None:
    features, printed = extracted
    run = json.loads((features / "_run" / "summary.json").read_text())["this_run"]
    assert printed.splitlines()[-1] == f"extract: {run['bottleneck']}"
    assert run["bound_by"] in ("decode", "encode", "neither")
    assert 0 < run["startup_s"] < run["work_seconds"] < run["seconds"]
    assert run["decode_s"] > 0
    assert run["encode_s"] > 0
    assert 0 <= run["encoders_idle"] <= 1


def test_the_plan_is_printed_before_the_work(extracted: tuple[Path, str]) -> None:
    opening, asked, plan = extracted[1].splitlines()[:3]
    assert opening.endswith("encoder tiny")
    assert "20 of 20 songs to do with tiny (D = 192)" in asked
    assert "1 encoder (CPU" in plan
    assert "1 decoder" in plan


def test_a_second_run_does_new_songs_only_and_retries_failed_ones_when_asked(
    twenty_songs: Path, extracted: tuple[Path, str], world: Path, job: Job, tmp_path: Path
) -> None:
    features, music = tmp_path / "features", tmp_path / "music"
    shutil.copytree(extracted[0], features)
    shutil.copytree(twenty_songs, music)
    before = pd.read_parquet(features).set_index("track_id")
    good = sorted((world / "demo-jamendo").iterdir())[18]
    shutil.copy(good, music / "new.song.mp3")
    shutil.copy(good, music / "page.mp3")
    flags = ("--catalog", music, "--features", features, "--encoder", "tiny")
    printed = done(job("extract", *flags))
    assert "2 of 21 songs to do" in printed, "the new one, and one that has other bytes now"
    assert "1 songs are done again because their audio has changed" in printed
    assert "2 of 21 songs to do" in done(job("extract", *flags, "--retry-failed"), 3), "both fail again"
    after = pd.read_parquet(features).set_index("track_id")
    assert len(after) == 21
    assert after.index.is_unique
    assert after.status["page.mp3"] == "ok"
    assert after.status["noise.wav"] == "failed"
    unchanged = before[before.status == "ok"].index
    for track_id in unchanged:
        np.testing.assert_array_equal(np.stack(after.features[track_id]), np.stack(before.features[track_id]))


def test_other_settings_in_the_same_store_are_refused_by_name(
    twenty_songs: Path, extracted: tuple[Path, str], job: Job
) -> None:
    flags = ("--catalog", twenty_songs, "--features", extracted[0], "--encoder", "tiny", "--keep-tail")
    assert "keep_tail is False there, True asked" in refused(job("extract", *flags))


def test_gpus_that_are_not_there_are_refused_at_once(twenty_songs: Path, job: Job, tmp_path: Path) -> None:
    flags = ("--catalog", twenty_songs, "--features", tmp_path / "f", "--encoder", "tiny", "--gpus", 2)
    assert "--gpus 2: the cluster has 0" in refused(job("extract", *flags))


def test_a_catalogue_without_songs_is_refused(job: Job, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no music")
    flags = ("--catalog", tmp_path / "empty", "--features", tmp_path / "f", "--encoder", "tiny")
    assert str(tmp_path / "empty") in refused(job("extract", *flags))


def test_an_unknown_setting_is_refused_with_the_nearest(job: Job) -> None:
    assert "did you mean 'features'" in refused(job("extract", "--feature", "x"))


@pytest.mark.slow
def test_a_killed_run_is_finished_by_the_same_command(
    twenty_songs: Path, extracted: tuple[Path, str], job: Job, job_environment: dict[str, str], tmp_path: Path
) -> None:
    features = tmp_path / "features"
    flags = ["--catalog", str(twenty_songs), "--features", str(features), "--encoder", "tiny", "--songs-per-part", "2"]
    command = [sys.executable, str(ROOT / "jobs" / "extract.py"), *flags]
    with subprocess.Popen(command, env=job_environment, cwd=ROOT, stdout=subprocess.DEVNULL) as run:
        deadline = time.monotonic() + 120
        while len(list(features.glob("part-*.parquet"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
    partial = len(pd.read_parquet(sorted(features.glob("part-*.parquet"))[0].parent))
    assert 0 < partial < 20, "the kill came too early or too late to show anything"
    assert not (features / "_SUCCESS").exists()
    done(job("extract", *flags))
    rows = pd.read_parquet(features).set_index("track_id").sort_index()
    whole = pd.read_parquet(extracted[0]).set_index("track_id").sort_index()
    assert rows.index.is_unique
    pd.testing.assert_frame_equal(rows.drop(columns=["features"]), whole.drop(columns=["features"]))
    for one, other in zip(rows.features, whole.features, strict=True):
        assert np.shape(one) == np.shape(other)
        if len(one):
            np.testing.assert_allclose(np.stack(one), np.stack(other), atol=1e-3)
