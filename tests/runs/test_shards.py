"""A directory of several shards ends as one of one does, and what changes in it touches the shards it is in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.runs.lock import LockLostError
from mer_ray.runs.open_shard import LackingError
from mer_ray.runs.ranges import Range
from mer_ray.runs.shards import Shard, by_shard, count_for, numbers_of
from mer_ray.runs.songs_directory import SongsDirectory
from mer_ray.runs.status import look
from mer_ray.runs.status_words import in_words
from mer_ray.runs.takedown import forget, unforget
from tests.support.song_directories import FINGERPRINT, broken, features, manifest, validated

SONGS = [f"song{number}" for number in range(40)]
OF = 5


def run(
    folder: Path,
    asked: pa.Table,
    *failed: str,
    finish: bool = True,
    retry_failed: bool = False,
    error: str = "not_audio",
) -> dict[int, list[str]]:
    """A run in this process; returns what it had to do, by shard."""
    done = {}
    with SongsDirectory(str(folder), "extract") as output:
        output.begin(FINGERPRINT, {}, asked, of=OF)
        for number in output.unfinished(retry_failed=retry_failed):
            ids = output.shards[number].pending_in(0, retry_failed=retry_failed)["track_id"].to_pylist()
            done[number] = sorted(ids)
            for rows in (
                features(*(i for i in ids if i not in failed)),
                features(*(set(ids) & {*failed}), failed=error),
            ):
                if len(rows):
                    output.commit(rows)
        if finish:
            output.finish(songs=sum(map(len, done.values())), work_seconds=1.0)
    return done


def shard_of(song: str) -> int:
    return int(numbers_of(pa.array([song]), OF)[0])


def written(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def touched(folder: Path, before: dict[str, int]) -> set[int]:
    """The shards of which some file is another than before."""
    after = written(folder)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    parts = {int(name.split("-")[1]) for name in changed if name.startswith("part-")}
    return parts | {int(name.split("/")[2]) for name in changed if name.startswith("_run/shards/")}


def test_a_small_catalogue_has_one_shard_and_a_large_one_about_as_many_songs_in_each_as_asked() -> None:
    assert [count_for(songs, 20_000) for songs in (0, 80, 29_000, 31_000, 10_000_000)] == [1, 1, 1, 2, 500]
    sizes = [len(songs) for _, songs in by_shard(manifest(*map(str, range(20_000))), 20)]
    assert sum(sizes) == 20_000
    assert 850 < min(sizes) <= max(sizes) < 1_150
    assert not list(by_shard(manifest(), 20)), "no song is no shard's"


def test_each_song_stands_in_its_shard_once_and_the_sums_are_those_of_one_shard(tmp_path: Path) -> None:
    assert sorted(song for ids in run(tmp_path, manifest(*SONGS), "song3").values() for song in ids) == sorted(SONGS)
    for number in range(OF):
        shard = Shard(str(tmp_path), number, OF)
        held = {i for part in shard.parts() for i in pq.read_table(part.uri)["track_id"].to_pylist()}
        assert held == {song for song in SONGS if shard_of(song) == number}
        assert storage.read_table(shard.file("manifest.parquet"))["track_id"].to_pylist() == sorted(held)
    summary = storage.read_json(str(tmp_path / "_run" / "summary.json"))
    assert summary is not None
    assert (summary["songs"], summary["ok"], summary["asked"]["failed"]) == (40, 39, 1)
    assert summary["error_classes"] == {"not_audio": 1}
    assert summary["audio_seconds"] == 39 * 60
    assert not broken(validated(str(tmp_path)))
    status = look(str(tmp_path))
    assert (status.asked, status.done, status.ok, status.failed, status.shards_done) == (40, 40, 39, 1, OF)
    assert "5, 5 of them finished" in in_words(status)


def test_a_run_with_nothing_to_do_opens_no_shard(tmp_path: Path) -> None:
    run(tmp_path, manifest(*SONGS), "song3")
    before = written(tmp_path)
    assert run(tmp_path, manifest(*reversed(SONGS))) == {}, "whatever order they come in"
    assert touched(tmp_path, before) == set()


def test_growth_a_change_and_a_retry_touch_their_shards_alone(tmp_path: Path) -> None:
    run(tmp_path, manifest(*SONGS), "song3")
    before = written(tmp_path)
    assert run(tmp_path, manifest(*SONGS, "new")) == {shard_of("new"): ["new"]}
    assert touched(tmp_path, before) == {shard_of("new")}
    before = written(tmp_path)
    assert run(tmp_path, manifest(*SONGS, "new"), retry_failed=True) == {shard_of("song3"): ["song3"]}
    assert touched(tmp_path, before) == {shard_of("song3")}
    assert not broken(validated(str(tmp_path)))


def test_what_may_have_failed_for_the_worlds_sake_opens_its_shard_again_some_times(tmp_path: Path) -> None:
    again = {shard_of("song3"): ["song3"]}
    run(tmp_path, manifest(*SONGS), "song3", error="timeout")
    assert [run(tmp_path, manifest(*SONGS), "song3", error="timeout") for _ in range(4)] == [again, again, again, {}]


def test_a_run_that_was_cut_off_goes_on_with_the_shards_that_are_not_finished(tmp_path: Path) -> None:
    with SongsDirectory(str(tmp_path), "extract") as output:
        output.begin(FINGERPRINT, {}, manifest(*SONGS), of=OF)
        own = output.shards[2].pending_in(0)["track_id"].to_pylist()
        output.commit(features(*own))
        output.shards[2].account(output.keys[2])
        with pytest.raises(LackingError, match="songs missing"):
            output.finish()
    status = look(str(tmp_path))
    assert (status.done, status.left, status.shards_done, status.success) == (len(own), 40 - len(own), 1, False)
    assert run(tmp_path, manifest(*SONGS)).keys() == {0, 1, 3, 4}
    assert not broken(validated(str(tmp_path)))


def again(part: Path) -> None:
    """One song of a part in a part of its own too, as a worker leaves it that was late."""
    one = pq.read_table(part).slice(0, 1)
    pq.write_table(one, part.with_name(Shard(str(part.parent), 2, OF).part_name(one)))


DAMAGES: list[Any] = [
    lambda part: part.unlink(),
    lambda part: part.write_bytes(part.read_bytes()[:100]),
    again,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=["deleted", "torn", "doubled"])
def test_what_befalls_a_finished_shard_is_seen_by_the_next_run(tmp_path: Path, damage: Any) -> None:
    run(tmp_path, manifest(*SONGS))
    part = next(tmp_path.glob("part-00002-*"))
    damage(part)
    assert look(str(tmp_path)).shards_done == OF - 1
    assert run(tmp_path, manifest(*SONGS)).keys() == {2}
    assert not broken(validated(str(tmp_path)))


def test_a_copy_of_a_directory_is_as_finished_as_it_was(tmp_path: Path) -> None:
    run(tmp_path / "a", manifest(*SONGS))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert run(tmp_path / "b", manifest(*SONGS)) == {}


def test_a_part_that_is_no_shards_is_found_by_validation(tmp_path: Path) -> None:
    run(tmp_path, manifest(*SONGS))
    part = next(tmp_path.glob("part-*"))
    shutil.copy(part, tmp_path / "part-0123456789abcdef0123.parquet")
    assert "1 of no shard (part-0123456789abcdef0123.parquet)" in broken(validated(str(tmp_path)))["names"]
    assert look(str(tmp_path)).shards_done == OF


def test_a_song_is_taken_out_of_its_shard_and_comes_back(tmp_path: Path) -> None:
    run(tmp_path, manifest(*SONGS))
    before = written(tmp_path)
    assert forget(str(tmp_path), pa.array(["song7", "nowhere"])).rows == 1
    assert touched(tmp_path, before) <= {shard_of("song7"), shard_of("nowhere")}
    assert not broken(validated(str(tmp_path)))
    assert look(str(tmp_path)).asked == 39
    assert "song7" not in [song for ids in run(tmp_path, manifest(*SONGS)).values() for song in ids]
    unforget(str(tmp_path), pa.array(["song7"]))
    assert run(tmp_path, manifest(*SONGS)) == {shard_of("song7"): ["song7"]}


def test_an_id_that_stands_twice_is_refused_whatever_piece_of_the_catalogue_it_comes_in(tmp_path: Path) -> None:
    with (
        SongsDirectory(str(tmp_path), "extract") as output,
        pytest.raises(InputError, match="'song1' stands more than"),
    ):
        output.begin(FINGERPRINT, {}, iter([manifest(*SONGS), manifest("song1")]), of=OF)


def test_the_number_of_shards_stays_that_of_the_first_run(tmp_path: Path) -> None:
    run(tmp_path, manifest(*SONGS))
    with SongsDirectory(str(tmp_path), "extract") as output:
        output.begin(FINGERPRINT, {}, manifest(*SONGS), of=9)
        assert len(output.shards) == OF
    assert json.loads((tmp_path / "_run" / "settings.json").read_text())["shards"] == OF


CORRUPTIONS: list[tuple[Any, str, str]] = [
    (lambda at, name: (at / name).rename(at / f"part-{(int(name[5:10]) + 1) % OF:05d}{name[10:]}"), "names", "another"),
    (lambda at, name: (at / name).unlink(), "ids", "missing"),
    (lambda at, name: (at / f"_run/shards/{name[5:10]}/failures.parquet").unlink(), "failures", "shards/"),
]


@pytest.mark.parametrize(("corrupt", "check", "problem"), CORRUPTIONS)
def test_validation_finds_what_is_wrong_with_one_shard(tmp_path: Path, corrupt: Any, check: str, problem: str) -> None:
    run(tmp_path, manifest(*SONGS))
    corrupt(tmp_path, next(tmp_path.glob("part-*")).name)
    assert problem in broken(validated(str(tmp_path)))[check]


def ranged(folder: Path, first: int, end: int) -> SongsDirectory:
    return SongsDirectory(str(folder), "extract", range=Range(first, end))


def do(output: SongsDirectory, finish: bool = True, asked: pa.Table | None = None) -> list[int]:
    """All that is to do of a run's shards; returns which these were."""
    output.begin(FINGERPRINT, {}, manifest(*SONGS) if asked is None else asked, of=OF)
    numbers = [*output.unfinished()]
    for number in numbers:
        output.commit(features(*output.shards[number].pending_in(0)["track_id"].to_pylist()))
    if finish:
        output.finish()
    return numbers


def test_runs_side_by_side_do_their_own_shards_and_the_last_one_ends_the_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ranged(tmp_path, 0, 2) as first, ranged(tmp_path, 2, 5) as second:
        assert do(second) == [2, 3, 4]
        status = look(str(tmp_path))
        assert (status.state, [*status.ranges]) == ("running", ["0:2", "2:5"])
        assert "lock       shards 0:2 held by the extract run with process" in in_words(status)
        assert "2 other shards are not finished" in capsys.readouterr().out
        assert not (tmp_path / "_SUCCESS").exists()
        assert do(first) == [0, 1]
    assert (tmp_path / "_SUCCESS").exists()
    assert not broken(validated(str(tmp_path)))
    assert run(tmp_path, manifest(*SONGS)) == {}


def test_a_run_that_knew_more_of_a_manifest_does_not_hide_songs_from_one_that_knew_less(tmp_path: Path) -> None:
    """The second writes down what is asked of all; of the first's shards the manifests are still without it."""
    old, new = manifest(*SONGS), manifest(*SONGS, "new")
    of_new = shard_of("new")
    first, second = ((0, of_new + 1), (of_new + 1, OF)) if of_new + 1 < OF else ((of_new, OF), (0, of_new))
    with ranged(tmp_path, *first) as output:
        do(output, asked=old)
    with ranged(tmp_path, *second) as output:
        do(output, asked=new)
    assert not (tmp_path / "_SUCCESS").exists()
    with ranged(tmp_path, *first) as output:
        assert do(output, asked=new) == [of_new]
    assert (tmp_path / "_SUCCESS").exists()
    assert not broken(validated(str(tmp_path)))
    assert look(str(tmp_path)).asked == 41


def test_killed_once_manifests_are_written_an_older_catalogue_finds_what_it_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, manifest(*SONGS))
    with SongsDirectory(str(tmp_path), "extract") as output, monkeypatch.context() as patch:
        patch.setattr(SongsDirectory, "ask_as", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            output.begin(FINGERPRINT, {}, manifest(*SONGS, "new"), of=OF)
    assert run(tmp_path, manifest(*SONGS)) == {shard_of("new"): []}
    assert not broken(validated(str(tmp_path)))
    assert look(str(tmp_path)).asked == 40


def test_of_runs_that_begin_at_once_one_says_how_many_shards_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ranged(tmp_path, 0, 2) as first, ranged(tmp_path, 2, 5) as second:
        earlier, asked = SongsDirectory._earlier, []

        def at_once(self: SongsDirectory, fingerprint: Any) -> Any:
            asked.append(self)
            found = earlier(self, fingerprint)
            if len(asked) == 1:
                second.begin(FINGERPRINT, {}, manifest(*SONGS), of=OF)
            return found

        monkeypatch.setattr(SongsDirectory, "_earlier", at_once)
        first.begin(FINGERPRINT, {}, manifest(*SONGS), of=9)
    assert len(first.shards) == len(second.shards) == OF


def test_a_directory_that_has_outgrown_its_shards_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, manifest(*SONGS))
    assert "songs a shard" not in capsys.readouterr().err
    monkeypatch.setattr("mer_ray.runs.songs_directory.SONGS", 0.5)
    run(tmp_path, manifest(*SONGS))
    assert "8 songs a shard; it has 5 since its first run" in capsys.readouterr().err


def test_what_a_directory_keeps_from_its_first_run_on_is_one_for_all_ranges(tmp_path: Path) -> None:
    with ranged(tmp_path, 0, 2) as first, ranged(tmp_path, 2, 5) as second:
        assert first.once("yardstick", b"first") == second.once("yardstick", b"second") == b"first"


def test_what_a_range_alone_knows_lies_beside_its_lock(tmp_path: Path) -> None:
    with ranged(tmp_path, 0, 2) as first, ranged(tmp_path, 2, 5) as second:
        for output, songs in ((first, 3), (second, 4)):
            do(output)
            own = (storage.read_json(output.file(output.own("summary.json"))) or {}).get("songs")
            assert own == (output.asked if output is first else None), "the last one's is of the whole"
            output.write_json(output.own("nodes.json"), {"here": {"songs": songs, "failed": {"timeout": 1}}})
        assert look(str(tmp_path)).failed_on == {"here": {"songs": 7, "failed": {"timeout": 2}}}
    run(tmp_path, manifest(*SONGS))
    assert not (tmp_path / "_run/ranges").exists()


@pytest.mark.parametrize("held", [(0, 2), (1, 3), (0, 5), None])
def test_a_run_whose_shards_another_has_is_refused_and_leaves_no_lock(
    tmp_path: Path, held: tuple[int, int] | None
) -> None:
    other = SongsDirectory(str(tmp_path), "extract") if held is None else ranged(tmp_path, *held)
    with other as output:
        do(output, finish=False)
        with pytest.raises(InputError, match="in use"), ranged(tmp_path, 1, 2):
            pass
        if held is not None:
            with pytest.raises(InputError, match=r"in use, shards \d:\d by the extract run"):
                SongsDirectory(str(tmp_path), "extract").__enter__()
    with ranged(tmp_path, 1, 2):
        pass


def test_a_worker_of_a_range_that_lost_its_lock_writes_nothing(tmp_path: Path) -> None:
    with ranged(tmp_path, 0, 2) as first:
        do(first, finish=False)
        (tmp_path / "_run/ranges/00000-00002/lock").unlink()
        with pytest.raises(LockLostError):
            first.shards[0].commit(features("x"))
        first.lock._lost = True


@pytest.mark.parametrize("text", ["3:3", "4:2", "1", "a:b"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a range of shards"):
        Range.given(text)


def test_a_range_beyond_the_directorys_shards_is_refused(tmp_path: Path) -> None:
    with ranged(tmp_path, 3, 9) as output, pytest.raises(InputError, match="has 5 shards; stay within 0:5"):
        do(output)


def test_small_parts_are_put_together_by_kind_and_nothing_is_lost(tmp_path: Path) -> None:
    with SongsDirectory(str(tmp_path), "extract") as output:
        output.begin(FINGERPRINT, {}, manifest(*SONGS))
        for song in SONGS[:30]:
            output.commit(features(song))
        for song in SONGS[30:]:
            output.commit(features(song, failed="not_audio"))
        sizes = [part.size for part in output.shards[0].shard.parts()]
        output.shards[0].pack(10 * max(sizes))
        output.finish()
    parts = [pq.read_table(path) for path in sorted(tmp_path.glob("part-*"))]
    assert len(parts) < 8
    assert all(len(set(part["status"].to_pylist())) == 1 for part in parts), "a retry touches failed songs alone"
    assert sorted(song for part in parts for song in part["track_id"].to_pylist()) == sorted(SONGS)
    assert not broken(validated(str(tmp_path)))
    with SongsDirectory(str(tmp_path), "extract") as output:
        output.begin(FINGERPRINT, {}, manifest(*SONGS, "new"))
        output.commit(features("new"))
        before = written(tmp_path)
        output.shards[0].pack(10**6)
        assert written(tmp_path) == before, "a song a night rewrites no part a night"


def test_killed_while_parts_are_put_together_no_song_is_lost_or_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SongsDirectory(str(tmp_path), "extract") as output:
        output.begin(FINGERPRINT, {}, manifest(*SONGS))
        for song in SONGS:
            output.commit(features(song))
        with monkeypatch.context() as patch:
            patch.setattr("mer_ray.storage.discard", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                output.shards[0].pack(10**6)
        assert not len(output.pending())
        output.finish()
    assert not broken(validated(str(tmp_path)))
