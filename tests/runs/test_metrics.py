"""An operator can follow a run: figures for Prometheus, and a line for each of the first failures."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path

import pytest

from mer_ray.catalog.sources import load_catalog
from mer_ray.cluster.extract import extract
from mer_ray.cluster.settings import ExtractSettings
from mer_ray.runs.metrics import SHOWN, FailureLines, one_line

SAMPLE = re.compile(r"^ray_(mer_\w+?)(?:_total)?\{(.*?)\} (\S+)$", re.MULTILINE)


def failures(count: int) -> list[dict[str, str]]:
    return [{"track_id": f"song/{at}", "error_class": "empty", "error": "No bytes."} for at in range(count)]


def scraped() -> dict[tuple[str, str, str, str], float]:
    """Our metrics at the metrics port of this node, by name, job, status and error class; this driver's alone."""
    import ray

    node = ray.nodes()[0]
    assert node["NodeManagerAddress"] == "127.0.0.1"
    with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    driver = ray.get_runtime_context().get_worker_id()
    found = {}
    for name, tags, value in SAMPLE.findall(text):
        given = dict(re.findall(r'(\w+)="(.*?)"', tags))
        if given["WorkerId"] == driver:
            found[name, given["job"], given.get("status", ""), given.get("error_class", "")] = float(value)
    return found


def test_prometheus_finds_the_songs_the_seconds_and_what_is_left(
    ray_address: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    music = tmp_path / "music"
    music.mkdir()
    for song in sorted((world / "demo-gems").iterdir())[:3]:
        (music / song.name).write_bytes(song.read_bytes())
    (music / "nothing.flac").touch()
    (music / "page.mp3").write_text("<html>502 Bad Gateway</html>")
    settings = ExtractSettings(catalog=str(music), features=str(tmp_path / "features"), encoder="tiny")
    summary = extract(settings, lambda: load_catalog(str(music)))
    assert (summary["ok"], summary["failed"]) == (3, 2)
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("nothing.flac: empty: ") for line in lines)
    assert any(line.startswith("page.mp3: not_audio: ") for line in lines)
    deadline = time.monotonic() + 30
    found = scraped()
    while found.get(("mer_songs_left", "extract", "", "")) != 0 and time.monotonic() < deadline:
        time.sleep(0.2)
        found = scraped()
    assert found["mer_songs_left", "extract", "", ""] == 0
    assert found["mer_songs", "extract", "ok", ""] == 3
    assert found["mer_songs", "extract", "failed", "empty"] == 1
    assert found["mer_songs", "extract", "failed", "not_audio"] == 1
    assert found["mer_audio_seconds", "extract", "", ""] == pytest.approx(summary["audio_seconds"], abs=0.1)
    for stage in ("decode", "encode"):
        assert found[f"mer_{stage}_seconds", "extract", "", ""] == pytest.approx(
            summary["this_run"][f"{stage}_s"], abs=0.02
        )


def test_a_failure_is_a_line_with_its_song_its_class_and_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    FailureLines("s3://music/features").add(failures(2))
    printed = capsys.readouterr()
    assert printed.err.splitlines() == ["song/0: empty: No bytes.", "song/1: empty: No bytes."]
    assert printed.out == ""


def test_many_failures_end_in_one_line_that_says_where_all_of_them_are(capsys: pytest.CaptureFixture[str]) -> None:
    lines = FailureLines("s3://music/features")
    for part in (failures(SHOWN - 1), failures(5), failures(50)):
        lines.add(part)
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == SHOWN + 1
    assert printed[-2].startswith("song/0: ")
    assert "jobs/status.py --run s3://music/features" in printed[-1]


def test_exactly_as_many_failures_as_there_is_room_for_need_no_such_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = FailureLines("features")
    lines.add(failures(SHOWN))
    lines.add([])
    assert len(capsys.readouterr().err.splitlines()) == SHOWN


def test_a_name_cannot_forge_a_line_or_move_the_cursor() -> None:
    assert one_line("a\nerror: all is well\x1b[2J é") == "a\\nerror: all is well\\x1b[2J é"
