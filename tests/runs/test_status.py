"""What stands in a run directory is told truly, while it is written too."""

import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pytest

from mer_ray import storage
from mer_ray.commandline import NOT_VALID
from mer_ray.errors import InputError
from mer_ray.runs.lock import RunLock
from mer_ray.runs.songs_directory import SongsDirectory, commit
from mer_ray.runs.status import Status, look
from mer_ray.runs.status_words import in_words
from mer_ray.storage import as_json
from tests.support.song_directories import (
    FINGERPRINT,
    SONGS,
    features,
    job,
    leave_lock,
    manifest,
    part_of,
    run,
    snapshot,
    validated,
)


def songs_status(folder: Path) -> Status:
    return look(str(folder))


def test_a_finished_run_is_told_in_numbers(store: Path) -> None:
    before = snapshot(store)
    found = songs_status(store)
    assert (found.job, found.state, found.asked, found.done, found.left) == ("extract", "finished", 6, 6, 0)
    assert (found.ok, found.failed, found.error_classes) == (4, 2, {"not_audio": 2})
    assert found.audio_hours == pytest.approx(4 / 60, abs=1e-4)
    assert (found.rate, found.rate_of, found.seconds_left) == (3000.0, "the last finished run", None)
    assert (found.lock, found.success, found.parts, len(found.started)) == (None, True, 3, 1)
    assert snapshot(store) == before


def test_a_run_at_work_shows_who_works_how_fast_and_how_long(tmp_path: Path) -> None:
    uri = str(tmp_path)
    run(uri, "extract", features("a"), finish=False)
    with SongsDirectory(uri, "extract") as output:
        output.begin(FINGERPRINT, {}, manifest(*SONGS))
        for past, name in ((7300.0, part_of(tmp_path, "a")), (3600.0, tmp_path / "_run" / "settings.json")):
            os.utime(name, (time.time() - past,) * 2)
        commit(uri, features("b", "c"))
        found = songs_status(tmp_path)
        text = in_words(found)
    assert (found.state, found.done, found.left, len(found.started)) == ("running", 3, 3, 2)
    assert found.rate == pytest.approx(2, rel=0.01), "the song of the first run must not count"
    assert found.rate_of == "this run"
    assert found.seconds_left == pytest.approx(3 * 1800, rel=0.01)
    assert found.lock is not None
    assert (found.lock["process"], found.lock["alive"]) == (os.getpid(), True)
    assert "extract, running" in text
    assert "6 asked, 3 done, 3 left" in text
    assert "2 songs per hour (this run)" in text
    assert f"held by the extract run with process {os.getpid()} on " in text
    assert "2 starts, the last " in text


def test_a_dead_run_is_interrupted_and_its_lock_expired(tmp_path: Path) -> None:
    run(str(tmp_path), "extract", features("a"), finish=False)
    leave_lock(tmp_path, heartbeat=time.time() - 3600)
    before = snapshot(tmp_path)
    found = songs_status(tmp_path)
    assert found.state == "interrupted"
    assert found.lock is not None
    assert not found.lock["alive"]
    assert found.lock["heartbeat_age_s"] == pytest.approx(3600, abs=5)
    assert "left by the extract run with process 4711 on far-away since 2027-" in in_words(found)
    assert snapshot(tmp_path) == before
    leave_lock(tmp_path)
    assert songs_status(tmp_path).state == "running", "another machine's heartbeat is fresh"


def test_torn_parts_doubled_and_unasked_songs_are_counted_apart(store: Path) -> None:
    torn = part_of(store, "a")
    torn.write_bytes(torn.read_bytes()[:-8])
    (store / "part-0.parquet").write_bytes(b"")
    commit(str(store), features("d", "new"))
    found = songs_status(store)
    assert (found.torn_parts, found.parts, found.done, found.left) == (2, 5, 4, 2)
    assert (found.doubled, found.unasked) == (1, 1)
    text = in_words(found)
    assert "2 torn" in text
    assert "1 songs in the parts that the manifest does not list" in text
    assert "1 rows too many" in text


def test_parts_that_go_while_they_are_read_are_passed_over(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, gone = storage.read_table, str(part_of(store, "a"))

    def vanishing(uri: str, columns: list[str] | None = None) -> pa.Table:
        if uri == gone:
            raise FileNotFoundError(uri)
        return read(uri, columns)

    monkeypatch.setattr(storage, "read_table", vanishing)
    assert (songs_status(store).done, songs_status(store).torn_parts) == (4, 0)


def test_a_run_that_only_just_began_can_be_looked_at(tmp_path: Path) -> None:
    lock = RunLock(str(tmp_path / "_run"), "tag")
    lock.acquire()
    found = songs_status(tmp_path)
    lock.release()
    assert (found.job, found.state, found.asked, found.left, found.rate) == ("tag", "running", None, None, None)
    assert "how many were asked is not known" in in_words(found)


@pytest.mark.parametrize("name", ["manifest.parquet", "settings.json", "summary.json"])
def test_half_written_files_of_a_power_cut_do_not_stop_the_look(store: Path, name: str) -> None:
    path = store / "_run" / name
    path.write_bytes(path.read_bytes()[:20])
    found = songs_status(store)
    assert (found.ok, found.failed) == (4, 2)
    assert found.asked == (None if name == "manifest.parquet" else 6)
    assert in_words(found)


def test_a_training_shows_its_epochs_and_its_best_score(tmp_path: Path) -> None:
    uri = str(tmp_path)
    line = {"epoch": 4.0, "loss": 0.3, "macro_f1": 0.4, "best": {"epoch": 2.0, "macro_f1": 0.5}}
    storage.write_bytes(f"{uri}/_run/settings.json", as_json({"fingerprint": {"epochs": 12}}))
    lock = RunLock(f"{uri}/_run", "train")
    lock.acquire()
    first = look(uri)
    storage.write_bytes(f"{uri}/_run/progress.json", as_json(line))
    found = look(uri)
    lock.release()
    assert (first.state, first.epochs_done, first.best_macro_f1) == ("running", 0, None)
    assert (found.epochs_done, found.epochs_asked, found.best_macro_f1, found.best_epoch) == (5, 12, 0.5, 3)
    assert "5 of 12 done" in in_words(found)
    assert "0.500 in epoch 3" in in_words(found)
    assert look(uri).state == "interrupted"
    storage.write_bytes(f"{uri}/config.json", b"{}")
    assert look(uri).state == "finished"
    with pytest.raises(InputError, match="a model directory"):
        validated(uri)


def test_what_is_no_run_directory_is_refused_by_both(tmp_path: Path) -> None:
    for either in (look, validated):
        for folder in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(InputError, match="not a run directory"):
                either(str(folder))


def test_the_jobs_print_and_exit_as_they_say(store: Path, tmp_path: Path) -> None:
    told = job("status", "--run", store)
    assert (told.returncode, told.stderr) == (0, "")
    labels = [line[:13] for line in told.stdout.splitlines()[1:]]
    assert all(label.startswith("  ") and label.endswith(" ") for label in labels), "aligned"
    as_data = job("status", "--run", store, "--json")
    assert json.loads(as_data.stdout)["error_classes"] == {"not_audio": 2}
    checked = job("validate", "--run", store)
    assert (checked.returncode, checked.stdout.splitlines()[-1]) == (0, "all 14 checks hold")
    part_of(store, "a").unlink()
    checked = job("validate", "--run", store)
    assert checked.returncode == NOT_VALID == 3
    assert "  FAILED  ids          2 missing (a, b)\n" in checked.stdout
    for name in ("status", "validate"):
        refused = job(name, "--run", tmp_path / "nowhere")
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
