"""What stands in a run directory is told truly, while it is written too, and every damage is found."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mer_ray import storage
from mer_ray.commandline import NOT_VALID
from mer_ray.errors import InputError
from mer_ray.features import FEATURES, features_column, store_schema
from mer_ray.runs.lock import RunLock
from mer_ray.runs.songs_directory import SongsDirectory, commit
from mer_ray.runs.status import SongsStatus, TrainingStatus, look
from mer_ray.runs.status_text import in_words
from mer_ray.runs.validation import Report, validate
from mer_ray.songs import STATUS_FIELDS, metadata, part_uris, stored_metadata
from mer_ray.storage import as_json
from mer_ray.tagging.contract import TAGS, TAGS_TYPE
from tests.support import ROOT
from tests.support.s3 import S3Server

DIM = 4
ENCODER = {"name": "tiny", "weights_sha256": "ab" * 32, "layers": [1], "window_seconds": 10.0, "dim": DIM}
FINGERPRINT = {"encoder": "tiny", "dim": DIM}
EMBEDDING = pa.list_(pa.float16(), 2)
SONGS = ["a", "b", "c", "d", "e", "f"]


def manifest(*songs: str) -> pa.Table:
    return pa.table({"track_id": list(songs), "uri": [f"/music/{song}" for song in songs]})


def status_columns(songs: tuple[str, ...], failed: str | None) -> list[pa.Array]:
    ok = {"status": "ok", "duration_s": 60.0, "truncated": False}
    bad = {"status": "failed", "error_class": failed, "error": "it is no audio file"}
    listed = [{"track_id": song, "uri": f"/music/{song}", **(bad if failed else ok)} for song in songs]
    table = pa.Table.from_pylist(listed, schema=pa.schema(STATUS_FIELDS))
    return [column.combine_chunks() for column in table.columns]


def features(*songs: str, failed: str | None = None) -> pa.Table:
    windows = [np.ones((0 if failed else 3, DIM)) for _ in songs]
    columns = [*status_columns(songs, failed), features_column(windows, DIM)]
    return pa.table(columns, schema=store_schema(ENCODER, DIM))


def tags(*songs: str, failed: str | None = None, **choice: Any) -> pa.Table:
    ranked = [{"label": "calm", "score": 1.5, "percentile": 0.9}, {"label": "sad", "score": -0.5, "percentile": 0.0}]
    asked = json.dumps(
        {"labels": ["sad", "calm", "angry"], "k": 2, "threshold": None, "ranking": "standardized", **choice}
    )
    schema = pa.schema(
        [*STATUS_FIELDS, pa.field("tags", TAGS_TYPE), pa.field("embedding", EMBEDDING)],
        metadata=metadata(ENCODER, **{"mer_ray.model": "cd" * 32, "mer_ray.tags": asked}),
    )
    columns = [*status_columns(songs, failed), pa.array([[] if failed else ranked for _ in songs], TAGS_TYPE)]
    vectors = pa.array([None if failed else np.ones(2, np.float16) for _ in songs], EMBEDDING)
    return pa.table([*columns, vectors], schema=schema)


def run(uri: str, job: str, *tables: pa.Table, asked: tuple[str, ...] = tuple(SONGS), finish: bool = True) -> None:
    """One run on a directory, through the front door."""
    with SongsDirectory(uri, job) as output:
        output.begin(FINGERPRINT, {}, manifest(*asked))
        output.pending(manifest(*asked), retry_failed=False)
        for table in tables:
            commit(uri, table)
        if finish:
            output.finish(songs=len(asked), work_seconds=7.2)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A finished feature store: four songs in two parts, two that failed."""
    parts = [features("a", "b"), features("c", "d"), features("e", "f", failed="not_audio")]
    run(str(tmp_path / "store"), "extract", *parts)
    return tmp_path / "store"


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    """A finished tags directory of the same songs."""
    run(str(tmp_path / "tags"), "tag", tags("a", "b"), tags("c", "d"), tags("e", "f", failed="not_audio"))
    return tmp_path / "tags"


def songs_status(folder: Path) -> SongsStatus:
    found = look(str(folder))
    assert isinstance(found, SongsStatus)
    return found


def part_of(folder: Path, song: str) -> Path:
    return next(Path(part) for part in part_uris(str(folder)) if song in pq.read_table(part)["track_id"].to_pylist())


def change(folder: Path, song: str, **columns: Any) -> None:
    """Write a part anew with other values in one song's row, under the same name."""
    part = part_of(folder, song)
    table = pq.read_table(part)
    at = table["track_id"].to_pylist().index(song)
    for name, value in columns.items():
        index, values = table.column_names.index(name), table[name].to_pylist()
        values[at] = value
        table = table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type))
    pq.write_table(table, part)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with its size and time of change."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def leave_lock(folder: Path, **facts: Any) -> None:
    """What a run that died on another machine left behind."""
    found = {"token": "t", "job": "extract", "host": "far-away", "pid": 4711, "since": 1.8e9, "heartbeat": time.time()}
    (folder / "_run" / "lock").write_text(json.dumps({**found, **facts}))


def broken(report: Report) -> dict[str, str]:
    return {check.name: check.problem for check in report.checks if check.problem}


def validated(uri: str) -> Report:
    return validate(uri, [FEATURES, TAGS])


def job(name: str, *flags: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


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
    assert (found.lock.process, found.lock.alive) == (os.getpid(), True)
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
    assert not found.lock.alive
    assert found.lock.heartbeat_age_s == pytest.approx(3600, abs=5)
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
    assert isinstance(first, TrainingStatus)
    assert isinstance(found, TrainingStatus)
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


def test_whole_directories_are_valid_and_left_as_they_are(store: Path, tagged: Path) -> None:
    for folder in (store, tagged):
        before = snapshot(folder)
        assert broken(validated(str(folder))) == {}
        assert snapshot(folder) == before


def test_a_directory_on_s3_is_told_and_checked_alike(s3: S3Server) -> None:
    uri = f"s3://{s3.bucket}/inspection/store"
    run(uri, "extract", features("a", "b"), asked=("a", "b", "c"), finish=False)
    found = look(uri)
    assert isinstance(found, SongsStatus)
    assert (found.state, found.done, found.left, found.parts) == ("interrupted", 2, 1, 1)
    assert broken(validated(uri)) == {"ids": "1 missing (c)"}
    run(uri, "extract", features("c"), asked=("a", "b", "c"))
    assert broken(validated(uri)) == {}
    with pytest.raises(InputError, match="not a run directory"):
        look(f"s3://{s3.bucket}/inspection/nowhere")


def tear(folder: Path) -> None:
    part = part_of(folder, "a")
    part.write_bytes(part.read_bytes()[:-8])


def rot(folder: Path) -> None:
    """Data pages that no longer are what the footer says."""
    part = part_of(folder, "a")
    content = bytearray(part.read_bytes())
    content[4:200] = bytes(196)
    part.write_bytes(content)


def relabel(folder: Path, **changes: str) -> None:
    part = part_of(folder, "c")
    table = pq.read_table(part)
    pq.write_table(table.replace_schema_metadata({**stored_metadata(table.schema), **changes}), part)


def widen(folder: Path) -> None:
    """Parts twice as wide as encoder and settings say."""
    for part in part_uris(str(folder)):
        table = pq.read_table(part)
        wide = [np.ones((len(song), 2 * DIM)) for song in table["features"].to_pylist()]
        columns = [column.combine_chunks() for column in table.columns[:-1]]
        pq.write_table(
            pa.table([*columns, features_column(wide, 2 * DIM)], schema=store_schema(ENCODER, 2 * DIM)), part
        )


def edit_summary(folder: Path, **changes: Any) -> None:
    path = folder / "_run" / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_failures(folder: Path, edit: Callable[[pa.Table], pa.Table]) -> None:
    path = folder / "_run" / "failures.parquet"
    pq.write_table(edit(pq.read_table(path)), path)


def reclassed(table: pa.Table) -> pa.Table:
    other = pa.array(["timeout"] * len(table), pa.string())
    return table.set_column(table.column_names.index("error_class"), "error_class", other)


WINDOW = [1.0] * DIM
STORE_DAMAGE: list[tuple[Callable[[Path], Any], str, str]] = [
    (tear, "parts", "1 not readable Parquet (part-"),
    (rot, "parts", "1 not readable Parquet (part-"),
    (tear, "_SUCCESS", "there, although"),
    (lambda at: part_of(at, "a").unlink(), "ids", "2 missing (a, b)"),
    (lambda at: commit(str(at), features("a")), "ids", "1 doubled (a)"),
    (lambda at: relabel(at, **{"mer_ray.schema": "9"}), "schema", "1 of schema 9, not 1"),
    (lambda at: relabel(at, **{"mer_ray.more": "x"}), "schema", "with other mer_ray.more"),
    (lambda at: relabel(at, **{"mer_ray.encoder": "{torn"}), "schema", "without mer_ray.encoder in the metadata"),
    (
        lambda at: relabel(at, **{"mer_ray.encoder": json.dumps({**ENCODER, "weights_sha256": "ef"})}),
        "schema",
        "with other mer_ray.encoder",
    ),
    (lambda at: commit(str(at), features("x").drop_columns("error")), "schema", "without error of the right type"),
    (lambda at: commit(str(at), tags("x")), "schema", "without features of the right type"),
    (widen, "width", "3 of D = 8 where 4 is stated"),
    (lambda at: part_of(at, "a").rename(at / "part-mine.parquet"), "names", "1 not named by the songs in them"),
    (lambda at: change(at, "b", status="done"), "status", "1 songs neither ok nor failed (b)"),
    (lambda at: change(at, "e", error_class=None), "failed rows", "1 failed songs without error_class (e)"),
    (lambda at: change(at, "e", error=""), "failed rows", "1 failed songs without error (e)"),
    (lambda at: change(at, "f", features=[WINDOW]), "failed rows", "1 failed songs with features (f)"),
    (lambda at: change(at, "b", features=[]), "ok rows", "1 songs without a window (b)"),
    (lambda at: change(at, "b", features=None), "ok rows", "1 songs without a window (b)"),
    (
        lambda at: change(at, "b", features=[WINDOW, [1.0, 1.0, 1.0, np.nan]]),
        "ok rows",
        "1 songs with features that are no finite numbers (b)",
    ),
    (
        lambda at: change(at, "b", features=[None, WINDOW]),
        "ok rows",
        "1 songs with features that are no finite numbers (b)",
    ),
    (lambda at: change(at, "b", duration_s=float("inf")), "ok rows", "1 songs whose duration is no finite number (b)"),
    (lambda at: edit_summary(at, ok=5), "summary", "ok is 5, the parts say 4"),
    (lambda at: edit_summary(at, error_classes={}), "summary", "error_classes is {}, the parts say {'not_audio': 2}"),
    (lambda at: edit_summary(at, audio_seconds=9.0), "summary", "audio_seconds is 9.0, the parts say 240.0"),
    (lambda at: (at / "_run" / "summary.json").write_text("{"), "summary", "no readable _run/summary.json"),
    (lambda at: edit_failures(at, lambda table: table[:1]), "failures", "1 failed songs not listed (f)"),
    (lambda at: edit_failures(at, reclassed), "failures", "not the same rows"),
    (lambda at: (at / "_run" / "failures.parquet").unlink(), "failures", "no readable _run/failures.parquet"),
    (lambda at: (at / "_SUCCESS").unlink(), "_SUCCESS", "not there, although every song is in the parts"),
    (lambda at: (at / ".part-1.parquet.7.tmp").write_text("half"), "temporaries", "1 left by killed writers"),
    (lambda at: (at / "_run" / ".summary.json.7.tmp").write_text(""), "temporaries", "(.summary.json.7.tmp)"),
    (lambda at: (at / "_run" / "manifest.parquet").write_bytes(b"PAR1"), "manifest", "no readable _run/manifest"),
    (lambda at: pq.write_table(manifest("a", *SONGS), at / "_run/manifest.parquet"), "manifest", "more than once (a)"),
    (lambda at: (at / "_run" / "settings.json").write_text(""), "settings", "no readable _run/settings.json"),
]


@pytest.mark.parametrize(("damage", "check", "named"), STORE_DAMAGE)
def test_every_damage_to_a_store_is_found(store: Path, damage: Callable[[Path], Any], check: str, named: str) -> None:
    damage(store)
    report = validated(str(store))
    assert named in broken(report).get(check, "nothing found")
    assert f"FAILED  {check}" in str(report)


def ranked(*tags: tuple[str, float, float]) -> list[dict[str, Any]]:
    return [dict(zip(("label", "score", "percentile"), tag, strict=True)) for tag in tags]


TAGS_DAMAGE: list[tuple[dict[str, Any], str, str]] = [
    ({"tags": ranked(("sad", 1, 0.5), ("calm", 2, 0.5))}, "tags", "1 songs whose tags are not best first (b)"),
    (
        {"tags": ranked(("sad", 3, 1), ("calm", 2, 1), ("angry", 1, 1))},
        "tags",
        "1 songs with more than 2 tags (b)",
    ),
    ({"tags": ranked(("sad", 3, 1))}, "tags", "1 songs with fewer than 2 tags (b)"),
    ({"tags": []}, "tags", "1 songs with fewer than 2 tags (b)"),
    ({"tags": ranked(("sad", 3, 1.01), ("calm", 2, 1))}, "tags", "1 songs with percentiles outside 0 to 1 (b)"),
    ({"tags": ranked(("sad", 3, 1), ("calm", 2, -0.1))}, "tags", "1 songs with percentiles outside 0 to 1 (b)"),
    ({"tags": ranked(("sad", 3, 1), ("loud", 2, 1))}, "tags", "1 songs with words that were not asked for (b)"),
    ({"tags": ranked(("sad", np.nan, 1), ("calm", 2, 1))}, "ok rows", "1 songs with scores that are no finite"),
    ({"embedding": None}, "ok rows", "1 songs whose embedding is missing or no finite numbers (b)"),
    ({"embedding": [np.nan, 1.0]}, "ok rows", "1 songs whose embedding is missing or no finite numbers (b)"),
]


@pytest.mark.parametrize(("changes", "check", "named"), TAGS_DAMAGE)
def test_every_damage_to_tags_is_found(tagged: Path, changes: dict[str, Any], check: str, named: str) -> None:
    change(tagged, "b", **changes)
    assert named in broken(validated(str(tagged))).get(check, "nothing found")


def test_songs_of_which_few_words_reach_the_least_percentile_are_fine(tmp_path: Path) -> None:
    run(str(tmp_path), "tag", tags(*SONGS, k=3, min_percentile=0.5))
    assert broken(validated(str(tmp_path))) == {}


def test_a_failed_song_must_have_no_tags_and_no_embedding(tagged: Path) -> None:
    change(tagged, "e", tags=ranked(("sad", 3, 1), ("calm", 2, 1)), embedding=[1.0, 1.0])
    assert broken(validated(str(tagged))) == {
        "failed rows": "1 failed songs with tags (e); 1 failed songs with embedding (e)"
    }


def test_an_interrupted_directory_lacks_songs_and_nothing_else(tmp_path: Path) -> None:
    run(str(tmp_path), "extract", features("a"), finish=False)
    report = validated(str(tmp_path))
    assert broken(report) == {"ids": "5 missing (b, c, d, e, f)"}
    assert not report.valid
    run(str(tmp_path), "extract", asked=tuple("abcdefgh"), finish=False)
    assert broken(validated(str(tmp_path))) == {"ids": "7 missing (b, c, d, e, f, ...)"}


def test_songs_that_nobody_asked_for_are_a_remark(store: Path) -> None:
    run(str(store), "extract", asked=("a", "b", "c", "d"))
    report = validated(str(store))
    assert broken(report) == {}
    assert report.notes == ["2 songs in the parts that the manifest does not list (e, f)"]
    assert "note    2 songs in the parts" in str(report)


def test_a_store_continued_by_a_newer_version_or_a_moved_encoder_is_valid(store: Path) -> None:
    relabel(store, **{"mer_ray.version": "9.9", "mer_ray.encoder": json.dumps({**ENCODER, "name": "/models/tiny"})})
    report = validated(str(store))
    assert broken(report) == {}
    assert "parts were written by versions" in report.notes[0]


def test_a_run_at_work_is_named_and_its_temporaries_are_its_own(store: Path) -> None:
    (store / ".part-1.parquet.7.tmp").write_text("half")
    leave_lock(store)
    report = validated(str(store))
    assert broken(report) == {}
    assert report.notes == ["the extract run with process 4711 on far-away is at work here"]


def test_parts_are_read_a_few_songs_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    songs = tuple(f"song{number:03}" for number in range(150))
    run(str(tmp_path), "extract", features(*songs), asked=songs)
    change(tmp_path, "song149", features=[])
    sizes: list[int] = []
    filled = pc.list_value_length

    def noting(column: Any) -> Any:
        sizes.append(len(column))
        return filled(column)

    monkeypatch.setattr(pc, "list_value_length", noting)
    assert broken(validated(str(tmp_path))) == {"ok rows": "1 songs without a window (song149)"}
    assert max(sizes) == 64


def test_ids_that_break_lines_are_shown_on_one(tmp_path: Path) -> None:
    run(str(tmp_path), "extract", asked=("a\nb",), finish=False)
    assert broken(validated(str(tmp_path))) == {"ids": "1 missing ('a\\nb')"}
