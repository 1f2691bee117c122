"""No song that a model has seen counts as one it does not know, whatever became of the manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mer_ray.catalog.annotations import Annotations
from mer_ray.errors import InputError
from mer_ray.evaluation.unseen import Scored, describe_scored, songs_to_score
from mer_ray.learning.seen import SEEN, read_seen, seen_songs
from tests.learning.test_model import small_model

Rows = list[dict[str, object]]


def songs(count: int = 500, split: str | None = None) -> Rows:
    """Songs of a manifest that states no splits, or one split."""
    return [
        {"track_id": f"x/{at}", "uri": f"/music/{at}.mp3", "dataset": "x", "split": split, "labels": ["calm"]}
        for at in range(count)
    ]


def dataset(rows: Rows, name: str = "m.parquet") -> Annotations:
    return Annotations.from_manifest(pa.Table.from_pylist(rows), name, seed=0)


TRAINED = dataset(songs())
SEEN_SONGS = pa.concat_tables(
    [seen_songs(TRAINED, TRAINED.where(split).tolist(), split) for split in ("train", "validation")]
)
TEST = {TRAINED.track_ids[row] for row in TRAINED.where("test")}
MODEL = small_model()


def scored(rows: Rows, split: str = "test") -> Scored:
    return songs_to_score(split, MODEL, SEEN_SONGS, dataset(rows))


def renamed(rows: Rows) -> Rows:
    return [{**row, "dataset": None} for row in rows]


def grown(rows: Rows) -> Rows:
    return [*rows, *songs(560)[500:]]


def reordered(rows: Rows) -> Rows:
    return [rows[at] for at in np.random.default_rng(0).permutation(len(rows))]


def cut(rows: Rows) -> Rows:
    return rows[77:301]


def of_another_dataset(rows: Rows) -> Rows:
    return [{**row, "dataset": "y"} for row in rows]


def under_another_prefix(rows: Rows) -> Rows:
    return [{**row, "track_id": f"other/{row['track_id']}"} for row in rows]


def moved(rows: Rows) -> Rows:
    return [{**row, "uri": f"s3://elsewhere/{row['uri']}"} for row in rows]


def split_anew(rows: Rows) -> Rows:
    return [{**row, "split": ("test", "train", "validation")[at % 3]} for at, row in enumerate(rows)]


@pytest.mark.parametrize(
    "change", [renamed, grown, reordered, cut, of_another_dataset, under_another_prefix, moved, split_anew]
)
@pytest.mark.parametrize("split", ["test", "all"])
def test_no_song_learned_from_or_selected_on_is_scored(change: Callable[[Rows], Rows], split: str) -> None:
    rows = change(songs())
    found = scored(rows, split)
    allowed = TEST | {row["track_id"] for row in songs(560)[500:]}
    ids = {str(rows[at]["track_id"]).removeprefix("other/") for at in found.rows}
    assert ids
    assert ids <= allowed
    assert found.seen == ""
    asked = [row for row in rows if row["split"] in (None, split) or split == "all"]
    assert found.left_out == len(asked) - len(found.rows) > 0
    assert f"{found.left_out} more are left out because it has" in describe_scored(split, found)


def test_a_dataset_that_the_model_never_saw_is_scored_whole() -> None:
    rows = [{**row, "track_id": f"y{at}", "uri": f"/y/{at}.mp3"} for at, row in enumerate(songs(40))]
    assert len(scored(rows).rows) == 40
    stated = [{**row, "split": "train"} for row in rows]
    assert len(scored(stated).rows) == 40


def test_where_no_song_is_left_the_refusal_says_why() -> None:
    known = [row for row in songs() if row["track_id"] not in TEST]
    with pytest.raises(InputError, match=r"no test song to score, the model has seen all .*, by track_id or audio"):
        scored(known)
    with pytest.raises(InputError, match="no train song to score, the model has seen none of it as such"):
        scored([{**row, "track_id": "y", "uri": "/y"} for row in songs(1)], "train")


def test_songs_it_learned_from_can_be_asked_for_and_are_named() -> None:
    learned = scored(songs(), "train")
    assert {TRAINED.track_ids[at] for at in learned.rows} == {TRAINED.track_ids[at] for at in TRAINED.where("train")}
    assert "SEEN, songs it learned from" in describe_scored("train", learned)
    chosen = scored(songs(), "validation")
    assert {TRAINED.track_ids[at] for at in chosen.rows} == {
        TRAINED.track_ids[at] for at in TRAINED.where("validation")
    }
    assert chosen.seen == "songs its epoch was chosen by"


def test_a_song_moved_from_training_to_validation_is_none_that_only_chose_the_epoch() -> None:
    as_validation = [{**row, "split": "validation"} for row in songs()]
    found = scored(as_validation, "validation")
    assert not {TRAINED.track_ids[at] for at in found.rows} & {TRAINED.track_ids[at] for at in TRAINED.where("train")}


def test_a_model_of_before_says_that_it_does_not_know_what_it_has_seen() -> None:
    model = small_model()
    model.config["datasets"] = ["x"]
    with pytest.raises(InputError, match=r"states no splits, and a model made before 0\.3 does not say which songs"):
        songs_to_score("test", model, None, dataset(songs()))
    stated = dataset([{**row, "split": "test" if at < 9 else "train"} for at, row in enumerate(songs())])
    trusted = songs_to_score("test", model, None, stated)
    assert (len(trusted.rows), trusted.seen, trusted.known) == (9, "", False)
    assert "does not say which songs it has seen" in describe_scored("test", trusted)
    assert songs_to_score("all", model, None, stated).seen == "songs it may have learned from"
    elsewhere = replace(dataset(songs()), dataset="y")
    assert len(songs_to_score("test", model, None, elsewhere).rows) == 500


def test_the_songs_of_a_model_are_read_back_and_a_damaged_file_is_refused(tmp_path: Path) -> None:
    assert read_seen(str(tmp_path)) is None
    pq.write_table(SEEN_SONGS, tmp_path / SEEN)
    assert read_seen(str(tmp_path)) == SEEN_SONGS
    (tmp_path / SEEN).write_bytes(b"PAR1")
    with pytest.raises(InputError, match="not the songs of a model"):
        read_seen(str(tmp_path))
