"""What would spoil a night is said before it begins, a sentence a thing."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mer_ray.cluster import preflight
from mer_ray.cluster.nodes import Cluster, Node
from mer_ray.cluster.preflight import _look, misses_of
from mer_ray.errors import InputError

VERSIONS = {"python": "3.11.9", "mer_ray": "0.2.0", "ray": "2.60.0", "torch": "2.13.0"}


def facts(**changes: Any) -> dict[str, Any]:
    good = {"versions": VERSIONS, "sees": True, "refuses": "", "songs": {"a.mp3": ""}, "free": 9e9, "disk": "/tmp"}
    return {**good, **changes}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"versions": {**VERSIONS, "ray": "2.59.0"}}, "Node bad has ray 2.59.0, the driver 2.60.0; install the same."),
        ({"versions": {**VERSIONS, "mer_ray": "none"}}, "Node bad has mer_ray none, the driver 0.2.0"),
        ({"sees": False}, "Node bad does not see the output; give a place that all nodes share"),
        ({"refuses": "read-only"}, "Node bad cannot write the output (read-only)"),
        ({"songs": {"a.mp3": "forbidden (403)"}}, "Node bad cannot read a.mp3 (forbidden (403)), which others can"),
        ({"free": 1e9}, "Node bad has 1.0 GB free in /tmp; make room."),
    ],
)
def test_a_node_that_is_unlike_the_others_is_named_with_what_to_do(changes: dict[str, Any], said: str) -> None:
    (miss,) = misses_of({"good": facts(), "bad": facts(**changes)}, facts())
    assert miss.startswith(said)


def test_nodes_that_are_alike_miss_nothing_and_a_song_that_none_can_read_is_no_nodes_fault() -> None:
    gone = facts(songs={"a.mp3": "not found (404)"})
    assert [*misses_of({"one": gone, "two": gone}, gone)] == []


def test_a_node_looks_at_what_the_driver_wrote_and_leaves_nothing_behind(tmp_path: Path) -> None:
    song = tmp_path / "song.mp3"
    song.write_bytes(b"x")
    (tmp_path / "preflight").touch()
    look = _look(str(tmp_path / "preflight"), str(tmp_path), [str(song), str(tmp_path / "gone.mp3")])
    found = look()
    assert (found["sees"], found["refuses"], found["songs"][str(song)]) == (True, "", "")
    assert "gone.mp3" in found["songs"][str(tmp_path / "gone.mp3")]
    assert found["versions"].keys() == VERSIONS.keys()
    assert "none" not in found["versions"].values()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["preflight", "song.mp3"]
    assert not _look(str(tmp_path / "elsewhere"), str(tmp_path), [])()["sees"]


def test_a_disk_too_small_for_what_the_songs_come_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "on_each", lambda nodes, function: {"id": function()})
    monkeypatch.setattr(preflight, "_driver", lambda answers: answers["id"])
    songs = pa.table({"uri": [str(tmp_path / f"{at}.mp3") for at in range(5)]})
    cluster = Cluster((Node("id", "host"),))
    preflight.check(str(tmp_path), songs, len(songs), cluster, dim=768)
    with pytest.raises(InputError, match=r"5 songs will take some [\d,.]+; make room. --no-preflight would"):
        preflight.check(str(tmp_path), songs, len(songs), cluster, dim=10**12)
    assert not (tmp_path / "_run" / "preflight").exists()
