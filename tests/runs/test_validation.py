"""Whole directories are valid, and every damage is found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.features import features_column, store_schema
from mer_ray.runs.songs_directory import commit
from mer_ray.runs.status import look
from mer_ray.songs import part_uris, stored_metadata
from mer_ray.tagging.contract import WORDS, words_file
from mer_ray.words.lists import Word
from tests.support.s3 import S3Server
from tests.support.song_directories import (
    DIM,
    ENCODER,
    SONGS,
    broken,
    change,
    features,
    leave_lock,
    manifest,
    part_of,
    run,
    snapshot,
    tags,
    validated,
)


def test_whole_directories_are_valid_and_left_as_they_are(store: Path, tagged: Path) -> None:
    for folder in (store, tagged):
        before = snapshot(folder)
        assert broken(validated(str(folder))) == {}
        assert snapshot(folder) == before


def test_a_directory_on_s3_is_told_and_checked_alike(s3: S3Server) -> None:
    uri = f"s3://{s3.bucket}/inspection/store"
    run(uri, "extract", features("a", "b"), asked=("a", "b", "c"), finish=False)
    found = look(uri)
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


@pytest.mark.parametrize("least", [{"min_percentile": 0.5}, {"threshold": 0.75}])
def test_songs_of_which_few_words_earn_their_place_are_fine_and_words_that_do_not_are_found(
    least: dict[str, float], tmp_path: Path
) -> None:
    for folder, count in (("fine", 1), ("damaged", 2)):
        run(str(tmp_path / folder), "tag", tags(*SONGS, k=3, count=count, **least))
    assert broken(validated(str(tmp_path / "fine"))) == {}
    assert "songs with tags below" in broken(validated(str(tmp_path / "damaged")))["tags"]


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


def test_parts_of_an_older_version_beside_newer_ones_are_valid_and_strange_words_are_not(tmp_path: Path) -> None:
    uri = str(tmp_path)
    newer = tags("b", "c", "d", "e", "f")
    asked = {"words": 3, "words_sha256": "0" * 16, "k": 2, "threshold": None, "ranking": "standardized"}
    newer = newer.replace_schema_metadata({**newer.schema.metadata, b"mer_ray.tags": json.dumps(asked).encode()})
    run(uri, "tag", tags("a"), newer)
    words = [Word.of(word) for word in ("sad", "calm", "angry")]
    storage.write_bytes(f"{uri}/_run/{WORDS}", words_file(words))
    assert broken(validated(uri)) == {}
    storage.write_bytes(f"{uri}/_run/{WORDS}", words_file(words[1:]))
    assert "words that were not asked for" in broken(validated(uri))["tags"]
