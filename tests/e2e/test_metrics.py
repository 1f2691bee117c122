"""What Prometheus scrapes of a run, beside Ray's own."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path

import pytest

from mer_ray.catalog.sources import catalog_songs
from mer_ray.cluster.extract import extract
from mer_ray.cluster.settings import ExtractSettings

SAMPLE = re.compile(r"^ray_(mer_\w+?)(?:_total)?\{(.*?)\} (\S+)$", re.MULTILINE)


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
    settings = ExtractSettings(catalog=str(music), features=str(tmp_path / "features"), encoder="descriptors")
    summary = extract(settings, lambda: catalog_songs(str(music)))
    assert (summary["ok"], summary["failed"]) == (3, 2)
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("nothing.flac: empty: ") for line in lines)
    assert any(line.startswith("page.mp3: not_audio: ") for line in lines)
    deadline = time.monotonic() + 60  # every process reports each ten seconds
    found = scraped()
    while found.get(("mer_songs_left", "extract", "", "")) != 0 and time.monotonic() < deadline:
        time.sleep(1)
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
