"""The demo keeps its promise on a machine that has just been set up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Job, done, refused


@pytest.mark.slow
def test_the_demo_beats_chance_on_known_and_on_unseen_words(job: Job, tmp_path: Path) -> None:
    printed = done(job("demo", "--output", tmp_path / "demo"))
    metrics = json.loads((tmp_path / "demo" / "evaluation" / "metrics.json").read_text())
    known, unseen = metrics["demo-gems"], metrics["demo-jamendo"]
    assert known["song_mean"]["macro_f1"] >= 1.5 * known["random"]["macro_f1"]
    assert unseen["song_mean"]["roc_auc"] > max(0.5, unseen["random"]["roc_auc"])
    assert printed.rstrip().splitlines()[-1] == f"Open this in a browser: {tmp_path / 'demo' / 'page.html'}"
    assert "Composed music by mood" in (tmp_path / "demo" / "page.html").read_text()


def test_a_folder_without_music_is_refused_before_anything_is_made(job: Job, tmp_path: Path) -> None:
    said = refused(job("demo", "--music", tmp_path / "nowhere", "--output", tmp_path / "demo"))
    assert f"{tmp_path / 'nowhere'}: not found" in said or "no songs found" in said
    assert not (tmp_path / "demo").exists()
