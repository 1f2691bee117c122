"""An output directory ends with every song in it exactly once, whatever happened on the way."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mer_ray.errors import InputError
from mer_ray.runs.songs_directory import SongsDirectory, commit
from mer_ray.songs import STATUS_FIELDS, part_name, part_uris
from mer_ray.storage import read_json

FINGERPRINT: dict[str, Any] = {"encoder": "tiny", "layers": (3, 6), "window_seconds": 10.0}


def manifest(*songs: str) -> pa.Table:
    return pa.table({"track_id": list(songs), "uri": [f"/music/{song}" for song in songs]})


def rows(*songs: str, failed: bool = False) -> pa.Table:
    """Committed rows; a song's uri says which commit it came from."""
    row = {"status": "failed", "error_class": "not_audio"} if failed else {"status": "ok", "duration_s": 60.0}
    listed = [{"track_id": song, "uri": "/".join(songs), "truncated": False, **row} for song in songs]
    return pa.Table.from_pylist(listed, schema=pa.schema(STATUS_FIELDS))


def held(folder: Path) -> list[str]:
    """Every id in the parts, sorted, duplicates included."""
    return sorted(id_ for part in part_uris(str(folder)) for id_ in pq.read_table(part)["track_id"].to_pylist())


def pending(folder: Path, asked: pa.Table, *, retry_failed: bool = False, **changes: Any) -> list[str]:
    """Begin a run and return the ids that it has to do."""
    with SongsDirectory(str(folder), "extract") as output:
        output.begin({**FINGERPRINT, **changes}, {"k": 3}, asked)
        ids: list[str] = output.pending(retry_failed=retry_failed)["track_id"].to_pylist()
        return ids


def finish(folder: Path, asked: pa.Table) -> dict[str, Any]:
    with SongsDirectory(str(folder), "extract") as output:
        output.begin(FINGERPRINT, {}, asked)
        return output.finish(rate=7)


def test_a_run_goes_on_with_the_songs_that_no_part_holds(tmp_path: Path) -> None:
    asked = manifest("a", "b", "c", "d")
    assert pending(tmp_path, asked) == ["a", "b", "c", "d"]
    commit(str(tmp_path), rows("c", "a"))
    assert pending(tmp_path, asked) == ["b", "d"]
    commit(str(tmp_path), rows("b", failed=True))
    assert pending(tmp_path, asked) == ["d"]
    commit(str(tmp_path), rows("d"))
    assert pending(tmp_path, asked) == []
    assert held(tmp_path) == ["a", "b", "c", "d"]


def test_songs_new_in_the_manifest_are_picked_up(tmp_path: Path) -> None:
    assert pending(tmp_path, manifest("a")) == ["a"]
    commit(str(tmp_path), rows("a"))
    assert finish(tmp_path, manifest("a"))["songs"] == 1
    assert pending(tmp_path, manifest("a", "new")) == ["new"]
    assert not (tmp_path / "_SUCCESS").exists(), "a grown catalogue is not done"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"encoder": "random"}, "encoder is 'tiny' there, 'random' asked"),
        ({"layers": (3, 9)}, r"layers is \[3, 6\] there, \[3, 9\] asked"),
        ({"keep_tail": True}, "keep_tail is None there, True asked"),
    ],
)
def test_other_settings_are_refused_by_name_and_touch_nothing(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    pending(tmp_path, manifest("a"))
    commit(str(tmp_path), rows("a"))
    finish(tmp_path, manifest("a"))
    before = (tmp_path / "_run" / "settings.json").read_bytes()
    with pytest.raises(InputError, match=named):
        pending(tmp_path, manifest("a", "b"), **change)
    assert (tmp_path / "_SUCCESS").exists()
    assert (tmp_path / "_run" / "settings.json").read_bytes() == before
    assert not (tmp_path / "_run" / "lock").exists()


def test_the_same_settings_go_on_and_each_start_is_written_down(tmp_path: Path) -> None:
    for _ in range(3):
        pending(tmp_path, manifest("a"), layers=[3, 6])
    settings = json.loads((tmp_path / "_run" / "settings.json").read_text())
    assert len(settings["started"]) == 3
    assert settings["fingerprint"]["layers"] == [3, 6]
    assert settings["settings"] == {"k": 3}
    assert settings["version"]


def test_parts_of_unknown_origin_are_refused(tmp_path: Path) -> None:
    commit(str(tmp_path), rows("a"))
    with pytest.raises(InputError, match="parts of unknown origin"):
        pending(tmp_path, manifest("a"))
    assert held(tmp_path) == ["a"]


def test_retrying_failed_songs_leaves_each_id_once(tmp_path: Path) -> None:
    asked = manifest("a", "b", "c", "d")
    pending(tmp_path, asked)
    for table in (pa.concat_tables([rows("a"), rows("b", failed=True)]), rows("c", failed=True), rows("d")):
        commit(str(tmp_path), table)
    assert pending(tmp_path, asked) == []
    assert pending(tmp_path, asked, retry_failed=True) == ["b", "c"]
    assert held(tmp_path) == ["a", "d"]
    commit(str(tmp_path), rows("b", "c"))
    assert held(tmp_path) == ["a", "b", "c", "d"]
    assert finish(tmp_path, asked)["ok"] == 4


def test_songs_that_stand_in_two_parts_are_mended(tmp_path: Path) -> None:
    asked = manifest("a", "b", "c", "d")
    pending(tmp_path, asked)
    for songs in (("a", "b"), ("b", "c"), ("c", "d", "a")):
        commit(str(tmp_path), rows(*songs))
    assert pending(tmp_path, asked) == []
    assert held(tmp_path) == ["a", "b", "c", "d"]
    for part in part_uris(str(tmp_path)):
        assert part.endswith(part_name(pq.read_table(part)["track_id"]))


def test_songs_doubled_within_one_part_are_mended(tmp_path: Path) -> None:
    pending(tmp_path, manifest("a", "b"))
    commit(str(tmp_path), rows("a", "b", "a"))
    assert pending(tmp_path, manifest("a", "b")) == []
    assert held(tmp_path) == ["a", "b"]


def test_mending_loses_no_song_when_what_is_left_of_a_part_takes_anothers_name(tmp_path: Path) -> None:
    songs = [f"song{number}" for number in range(40)]
    clashes = 0
    for left in songs:
        for first in songs:
            names = [part_name(pa.array(ids)) for ids in ((first,), (first, left), (left,))]
            if first == left or names != sorted(names):
                continue
            clashes += 1
            folder = tmp_path / f"{first}-{left}"
            pending(folder, manifest(first, left))
            for ids in ((first,), (first, left), (left,)):
                commit(str(folder), rows(*ids))
            assert pending(folder, manifest(first, left)) == []
            assert held(folder) == sorted([first, left])
            if clashes == 5:
                return
    pytest.fail("no ids whose parts have names in the order that matters")


def test_a_torn_part_is_removed_and_its_songs_are_done_again(tmp_path: Path) -> None:
    asked = manifest("a", "b", "c")
    pending(tmp_path, asked)
    commit(str(tmp_path), rows("a"))
    torn = tmp_path / commit(str(tmp_path), rows("b", "c"))
    torn.write_bytes(torn.read_bytes()[:-8])
    (tmp_path / "part-empty.parquet").write_bytes(b"")
    assert pending(tmp_path, asked) == ["b", "c"]
    assert not torn.exists()
    assert held(tmp_path) == ["a"]


def test_a_part_with_rotten_pages_is_done_again_too(tmp_path: Path) -> None:
    pending(tmp_path, manifest("a"))
    rotten = tmp_path / commit(str(tmp_path), rows("a"))
    content = bytearray(rotten.read_bytes())
    content[4:200] = bytes(196)
    rotten.write_bytes(content)
    assert pending(tmp_path, manifest("a")) == ["a"]
    assert not rotten.exists()


def test_temporaries_of_killed_writers_are_removed(tmp_path: Path) -> None:
    pending(tmp_path, manifest("a"))
    (tmp_path / ".part-1.parquet.77.tmp").write_bytes(b"half")
    pending(tmp_path, manifest("a"))
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


@pytest.mark.parametrize("left", ["part-1.parquet.0a1b", ".part-1.parquet.0a1b.77-88.tmp"])
def test_what_a_killed_worker_of_a_run_put_down_is_gone_when_the_run_ends(tmp_path: Path, left: str) -> None:
    with SongsDirectory(str(tmp_path), "extract") as output:
        output.begin({}, {}, manifest("a"))
        commit(str(tmp_path), rows("a"), output.lock.token)
        (tmp_path / "_run" / "staged").mkdir(exist_ok=True)
        (tmp_path / "_run" / "staged" / left).write_bytes(b"half")
        output.finish()
    assert list((tmp_path / "_run" / "staged").glob("*")) == []
    assert not list(tmp_path.rglob(".*.tmp"))


def test_finishing_writes_the_summary_the_failures_and_success(tmp_path: Path) -> None:
    asked = manifest("a", "b", "c")
    pending(tmp_path, asked)
    commit(str(tmp_path), rows("a", "b"))
    commit(str(tmp_path), rows("c", failed=True))
    summary = finish(tmp_path, asked)
    assert read_json(str(tmp_path / "_run" / "summary.json")) == summary
    assert (summary["songs"], summary["ok"], summary["failed"]) == (3, 2, 1)
    assert summary["error_classes"] == {"not_audio": 1}
    assert summary["audio_seconds"] == 120.0
    assert summary["this_run"]["rate"] == 7
    failures = pq.read_table(tmp_path / "_run" / "failures.parquet").to_pylist()
    assert [(row["track_id"], row["error_class"]) for row in failures] == [("c", "not_audio")]
    assert (tmp_path / "_SUCCESS").exists()
    assert pq.read_table(tmp_path / "_run" / "manifest.parquet").equals(asked)
    assert not (tmp_path / "_run" / "lock").exists()


def test_an_empty_manifest_finishes_with_nothing(tmp_path: Path) -> None:
    empty = manifest("a").slice(0, 0)
    assert pending(tmp_path, empty) == []
    assert finish(tmp_path, empty)["songs"] == 0


def test_finishing_raises_when_a_song_is_lost(tmp_path: Path) -> None:
    pending(tmp_path, manifest("a", "b"))
    commit(str(tmp_path), rows("a"))
    with pytest.raises(RuntimeError, match="1 songs missing"):
        finish(tmp_path, manifest("a", "b"))
    assert not (tmp_path / "_SUCCESS").exists()


def test_a_part_that_a_dead_runs_worker_wrote_late_is_mended_before_accounting(tmp_path: Path) -> None:
    asked = manifest("a", "b", "c")
    with SongsDirectory(str(tmp_path), "extract") as output:
        output.begin(FINGERPRINT, {}, asked)
        assert len(output.pending()) == 3
        for late_or_not in (rows("a", "b"), rows("b", "c"), rows("c", "a", failed=True)):
            commit(str(tmp_path), late_or_not)
        summary = output.finish()
    assert (summary["songs"], summary["ok"]) == (3, 3), "a song that was read once stays read"
    assert held(tmp_path) == ["a", "b", "c"]
    assert (tmp_path / "_SUCCESS").exists()


def test_workers_of_a_run_that_lost_the_lock_commit_nothing(tmp_path: Path) -> None:
    with SongsDirectory(str(tmp_path), "extract") as first:
        commit(str(tmp_path), rows("a"), first.lock.token)
        (tmp_path / "_run" / "lock").unlink()
        with pytest.raises(RuntimeError, match="writes nothing more"):
            commit(str(tmp_path), rows("b"), first.lock.token)
        with SongsDirectory(str(tmp_path), "extract") as second:
            with pytest.raises(RuntimeError, match="writes nothing more"):
                commit(str(tmp_path), rows("c"), first.lock.token)
            commit(str(tmp_path), rows("d"), second.lock.token)
    assert held(tmp_path) == ["a", "d"]


def test_a_run_that_lost_the_lock_writes_no_success(tmp_path: Path) -> None:
    asked = manifest("a")
    with SongsDirectory(str(tmp_path), "extract") as output:
        output.begin(FINGERPRINT, {}, asked)
        commit(str(tmp_path), rows("a"))
        (tmp_path / "_run" / "lock").unlink()
        with pytest.raises(RuntimeError, match="taken over by another run"):
            output.finish()
    assert not (tmp_path / "_SUCCESS").exists()


@pytest.mark.parametrize("step", ["commit", "remove"])
def test_a_kill_amid_mending_neither_loses_a_song_nor_its_work(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = manifest("a", "b", "c")
    pending(tmp_path, asked)
    commit(str(tmp_path), pa.concat_tables([rows("a", "b"), rows("c", failed=True)]))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        deed = {"commit": "mer_ray.runs.open_shard.OpenShard.commit", "remove": "mer_ray.storage.discard"}[step]
        patch.setattr(deed, killed)
        patch.setattr("mer_ray.runs.lock.RunLock.release", lambda _: None)
        patch.setattr(SongsDirectory, "begin", lambda output, *_: output.go_on())
        with pytest.raises(KeyboardInterrupt):
            pending(tmp_path, asked, retry_failed=True)
    (tmp_path / "_run" / "lock").unlink()
    assert pending(tmp_path, asked, retry_failed=True) == ["c"]
    assert held(tmp_path) == ["a", "b"]


def test_a_second_run_in_the_directory_is_refused_until_the_first_is_over(tmp_path: Path) -> None:
    with SongsDirectory(str(tmp_path), "extract") as output:
        with pytest.raises(InputError, match="in use by the extract run"), SongsDirectory(str(tmp_path), "extract"):
            pass
        output.lock.check()
    with SongsDirectory(str(tmp_path), "extract"):
        pass


def test_an_error_inside_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wrong"), SongsDirectory(str(tmp_path), "extract"):
        raise ValueError("wrong")
    assert not (tmp_path / "_run" / "lock").exists()


def test_a_part_is_named_by_its_ids_alone_in_any_order(tmp_path: Path) -> None:
    assert part_name(pa.array(["a", "b"])) == part_name(pa.array(["b", "a"]))
    assert part_name(pa.array(["a", "b"])) != part_name(pa.array(["a", "c"]))
    assert part_name(pa.array(["ab", "c"])) != part_name(pa.array(["a", "bc"]))
    name = commit(str(tmp_path), rows("a"))
    assert commit(str(tmp_path), rows("a", failed=True)) == name
    assert pq.read_table(tmp_path / name)["status"].to_pylist() == ["failed"]
    assert name.startswith("part-")


def test_who_asks_again_in_a_pass_is_told_the_same_whatever_was_committed_since(tmp_path: Path) -> None:
    with SongsDirectory(str(tmp_path), "extract") as output:
        output.begin(FINGERPRINT, {}, manifest("a", "b", "c"))
        (shard,) = output.shards
        commit(str(tmp_path), rows("c", failed=True))
        first = shard.pending_in(0, retry_failed=True)
        assert first["track_id"].to_pylist() == ["a", "b", "c"]
        commit(str(tmp_path), pa.concat_tables([rows("a"), rows("c", failed=True)]))
        assert shard.pending_in(0, retry_failed=True).equals(first), "Ray does again what it lost"
        later = shard.pending_in(1, retry_failed=True, withheld=pa.array(["b"]))
        assert later["track_id"].to_pylist() == [], "done, failed in this run, held back"
    with SongsDirectory(str(tmp_path), "extract") as output:
        output.begin(FINGERPRINT, {}, manifest("a", "b", "c"))
        again = output.shards[0].pending_in(0, retry_failed=True)
        assert again["track_id"].to_pylist() == ["b", "c"], "another run asks anew"
