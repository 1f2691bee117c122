"""A song that is taken out is nowhere any more, what is left is whole, and no later run brings it back unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.runs.lock import RunLock
from mer_ray.runs.open_shard import OpenShard
from mer_ray.runs.songs_directory import SongsDirectory
from mer_ray.runs.status import look
from mer_ray.runs.takedown import forget, unforget
from mer_ray.songs import part_uris
from tests.support.song_directories import (
    FINGERPRINT,
    SONGS,
    broken,
    features,
    job,
    leave_lock,
    manifest,
    run,
    validated,
)


def ids(*songs: str) -> pa.Array:
    return pa.array(songs, pa.string())


def pending(folder: Path) -> list[str]:
    with SongsDirectory(str(folder), "extract") as output:
        output.begin(FINGERPRINT, {}, manifest(*SONGS))
        found: list[str] = output.pending(retry_failed=True)["track_id"].to_pylist()
        return found


def tables_that_name(folder: Path, song: str) -> set[str]:
    files = [path for path in folder.rglob("*.parquet") if song in pq.read_table(path)["track_id"].to_pylist()]
    return {path.name for path in files}


@pytest.mark.parametrize("song", ["a", "e"])
def test_a_song_is_taken_out_of_all_tables_and_the_rest_is_whole(store: Path, song: str) -> None:
    storage.write_bytes(f"{store}/_run/deaths.json", json.dumps({song: [1, 0], "b": [0, 1]}).encode())
    storage.write_bytes(f"{store}/_run/logs/node.txt", song.encode())
    assert forget(str(store), ids(song, "never there")) == (1, 2)
    assert tables_that_name(store, song) == {"forgotten.parquet"}
    assert json.loads((store / "_run" / "deaths.json").read_text()) == {"b": [0, 1]}
    assert not (store / "_run" / "logs").exists()
    assert broken(validated(str(store))) == {}
    found = look(str(store))
    assert (found.state, found.asked, found.done, found.forgotten) == ("finished", 5, 5, 2)
    assert forget(str(store), ids(song)) == (0, 2)


def test_a_later_run_leaves_it_out_until_it_may_come_back(store: Path) -> None:
    forget(str(store), ids("a"))
    assert pending(store) == ["e", "f"]
    assert "a" not in pq.read_table(store / "_run" / "manifest.parquet")["track_id"].to_pylist()
    assert unforget(str(store), ids("a")) == (0, 0)
    assert "a" in pending(store)


@pytest.mark.parametrize("step", ["_drop", "account"])
def test_a_takedown_that_was_cut_off_is_finished_by_the_same_command(
    store: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OpenShard if step == "_drop" else SongsDirectory, step, killed)
        with pytest.raises(KeyboardInterrupt):
            forget(str(store), ids("a"))
    forget(str(store), ids("a"))
    assert tables_that_name(store, "a") == {"forgotten.parquet"}
    assert broken(validated(str(store))).keys() == {"_SUCCESS"}, "the next run ends what is asked"


def test_an_interrupted_directory_stays_one(tmp_path: Path) -> None:
    run(str(tmp_path), "extract", features("a", "b"), finish=False)
    assert forget(str(tmp_path), ids("a")) == (1, 1)
    assert not (tmp_path / "_SUCCESS").exists()
    assert look(str(tmp_path)).state == "interrupted"


def test_a_directory_at_work_a_model_and_no_directory_are_refused(store: Path, tmp_path: Path) -> None:
    before = sorted(part_uris(str(store)))
    leave_lock(store)
    with pytest.raises(InputError, match="in use by the extract run"):
        forget(str(store), ids("a"))
    assert sorted(part_uris(str(store))) == before
    with pytest.raises(InputError, match="not a run directory"):
        forget(str(tmp_path / "nowhere"), ids("a"))
    lock = RunLock(str(tmp_path / "model" / "_run"), "train")
    lock.acquire()
    with pytest.raises(InputError, match="a model directory"):
        forget(str(tmp_path / "model"), ids("a"))
    lock.release()


def test_the_job_takes_ids_from_flags_and_a_file_and_projections_go_along(store: Path, tmp_path: Path) -> None:
    parts = {part.rpartition("/")[2].removesuffix(".parquet"): part for part in part_uris(str(store))}
    kept = store / "_projected" / "model"
    for name in parts:
        storage.write_bytes(f"{kept}/{name}-0123456789abcdef.arrow", b"windows")
    storage.write_bytes(f"{kept}/songs-0123456789abcdef.arrow", b"of parts that are no more")
    (tmp_path / "ids.txt").write_text("e\n\n f \n")
    told = job("forget", "--songs", "a", "--songs-from", tmp_path / "ids.txt", "--run", store)
    assert (told.returncode, told.stderr) == (0, "")
    assert "3 rows taken out for 3 ids; later runs leave 3 songs out" in told.stdout
    left = {part.rpartition("/")[2].removesuffix(".parquet") for part in part_uris(str(store))}
    assert {path.name.rpartition("-")[0] for path in kept.iterdir()} == left & parts.keys()
    back = job("forget", "--songs", "a", "--run", store, "--unforget")
    assert "1 songs may come back with the next run; 2 stay forgotten" in back.stdout
    nothing = job("forget", "--run", store)
    assert (nothing.returncode, nothing.stderr.count("\n")) == (2, 1)
    assert "--songs" in nothing.stderr
