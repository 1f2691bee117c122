"""What may have failed for the world's sake is tried again by itself, some times; what has other audio now, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mer_ray.runs.again import TRIES, with_audio
from mer_ray.runs.open_shard import OpenShard
from mer_ray.runs.shards import Shard
from mer_ray.runs.songs_directory import SongsDirectory, commit
from mer_ray.songs import STATUS_FIELDS, WORLDLY, part_uris
from tests.support.song_directories import FINGERPRINT


def rows(**became: str) -> pa.Table:
    """Rows of songs that are ok or failed by a class."""
    listed = [
        {"track_id": song, "uri": f"/music/{song}"}
        | ({"status": "ok"} if what == "ok" else {"status": "failed", "error_class": what, "error": "why"})
        for song, what in became.items()
    ]
    return pa.Table.from_pylist(listed, schema=pa.schema(STATUS_FIELDS))


def songs(text: str, **known: list[Any]) -> pa.Table:
    return pa.table({"track_id": list(text), "uri": [f"/music/{song}" for song in text], **known})


def pending(folder: Path, asked: pa.Table, *, retry_failed: bool = False, **options: Any) -> str:
    """Begin a run; the ids that it has to do, as one word."""
    with SongsDirectory(str(folder), "extract") as output:
        output.begin(FINGERPRINT, {}, asked)
        return "".join(output.pending(retry_failed=retry_failed, **options)["track_id"].to_pylist())


def held(folder: Path) -> str:
    return "".join(
        sorted(id_ for part in part_uris(str(folder)) for id_ in pq.read_table(part)["track_id"].to_pylist())
    )


@pytest.mark.parametrize("error_class", sorted(WORLDLY))
def test_a_song_that_the_world_may_have_failed_is_tried_by_some_runs_more_and_then_left(
    error_class: str, tmp_path: Path
) -> None:
    assert pending(tmp_path, songs("abc")) == "abc"
    commit(str(tmp_path), rows(a="ok", b="not_audio"))
    for _ in range(TRIES):
        commit(str(tmp_path), rows(c=error_class))
        assert held(tmp_path) == "abc"
        assert pending(tmp_path, songs("abc")) == "c"
        assert held(tmp_path) == "ab"
    commit(str(tmp_path), rows(c=error_class))
    assert pending(tmp_path, songs("abc")) == ""
    assert pending(tmp_path, songs("abc"), retry_failed=True) == "bc"
    assert held(tmp_path) == "a"


def test_each_song_has_tries_of_its_own_and_a_killed_run_takes_none_away(tmp_path: Path) -> None:
    pending(tmp_path, songs("ab"))
    commit(str(tmp_path), rows(a="io_error", b="ok"))
    assert [pending(tmp_path, songs("ab")) for _ in range(5)] == ["a"] * 5, "killed before it was done again"
    commit(str(tmp_path), rows(a="io_error"))
    assert pending(tmp_path, songs("abc")) == "ac"
    commit(str(tmp_path), rows(a="io_error", c="timeout"))
    assert [pending(tmp_path, songs("abc")), pending(tmp_path, songs("abc"))] == ["ac", "ac"]
    commit(str(tmp_path), rows(a="io_error", c="timeout"))
    assert pending(tmp_path, songs("abc")) == "c"


def test_only_songs_that_are_asked_are_done_again(tmp_path: Path) -> None:
    """Two catalogues in one store: the rows of the other are no business of this run."""
    pending(tmp_path, songs("ab"))
    commit(str(tmp_path), rows(a="io_error", b="silent"))
    assert pending(tmp_path, songs("c")) == "c"
    assert pending(tmp_path, songs("c"), retry_failed=True) == "c"
    assert held(tmp_path) == "ab"


def test_tags_are_made_again_of_songs_that_can_be_read_by_now(tmp_path: Path) -> None:
    pending(tmp_path, songs("abc"))
    commit(str(tmp_path), rows(a="ok", b="io_error", c="not_audio"))
    assert pending(tmp_path, songs("abc"), mended=pa.array(["a"])) == ""
    assert pending(tmp_path, songs("abc"), mended=pa.array(["a", "c"])) == "c"


@pytest.mark.parametrize(
    ("before", "now", "redone"),
    [
        ({"size_bytes": [1, 2]}, {"size_bytes": [1, 3]}, "b"),
        ({"etag": ["x", "y"]}, {"etag": ["z", "y"]}, "a"),
        ({"size_bytes": [1, 2], "etag": ["x", "y"]}, {"size_bytes": [1, 2], "etag": ["x", "y"]}, ""),
        ({"size_bytes": [1, None]}, {"size_bytes": [1, 2]}, ""),
        ({"size_bytes": [1, 2]}, {"size_bytes": [1, None]}, ""),
        ({}, {"size_bytes": [1, 2]}, ""),
        ({"etag": ["x", "y"]}, {"etag": ["p", "q"], "uri": ["/elsewhere/a", "/elsewhere/b"]}, ""),
        ({"size_bytes": [1, 2]}, {"size_bytes": [1, 3], "uri": ["/elsewhere/a", "/elsewhere/b"]}, "b"),
    ],
)
def test_a_song_whose_audio_has_changed_is_done_again_and_once(
    before: dict[str, Any], now: dict[str, Any], redone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pending(tmp_path, songs("ab", **before))
    commit(str(tmp_path), rows(a="ok", b="ok"))
    new = songs("ab") if "uri" not in now else pa.table({"track_id": ["a", "b"], "uri": now["uri"]})
    for name in ("size_bytes", "etag"):
        if name in now:
            new = new.append_column(name, pa.array(now[name]))
    assert pending(tmp_path, new) == redone
    said = capsys.readouterr().out
    assert ("audio has changed" in said) == bool(redone)
    commit(str(tmp_path), rows(**dict.fromkeys(redone, "ok"))) if redone else None
    assert pending(tmp_path, new) == ""


def test_a_change_is_noticed_after_another_catalogue_was_asked_and_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending(tmp_path, songs("ab", size_bytes=[1, 2]))
    commit(str(tmp_path), rows(a="ok", b="ok"))
    assert pending(tmp_path, songs("c", size_bytes=[9])) == "c"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OpenShard, "_drop", killed)
        with pytest.raises(KeyboardInterrupt):
            pending(tmp_path, songs("ab", size_bytes=[1, 3]))
    assert pending(tmp_path, songs("ab", size_bytes=[1, 3])) == "b"


def test_a_directory_of_an_older_version_knows_the_audio_by_its_manifest(tmp_path: Path) -> None:
    pending(tmp_path, songs("ab", size_bytes=[1, 2]))
    commit(str(tmp_path), rows(a="ok", b="ok"))
    (tmp_path / "_run" / "audio.parquet").unlink()
    assert pending(tmp_path, songs("ab", size_bytes=[7, 2])) == "a"


def test_what_rows_of_a_store_are_made_of_goes_on_to_its_tags_in_order(tmp_path: Path) -> None:
    asked = songs("cab")
    assert with_audio(asked, [Shard(str(tmp_path))]) is asked
    pending(tmp_path, songs("ab", size_bytes=[1, 2], etag=["x", None]))
    found = with_audio(asked, [Shard(str(tmp_path))])
    assert found["track_id"].to_pylist() == ["c", "a", "b"]
    assert found["size_bytes"].to_pylist() == [None, 1, 2]
    assert found["etag"].to_pylist() == [None, "x", None]
