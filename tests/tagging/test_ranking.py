"""Words are ranked for songs by scores that mean the same for every word."""

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from mer_ray.features import features_column, store_schema
from mer_ray.learning.scoring import FLOOR, MARGIN, LabelScale
from mer_ray.songs import STATUS_COLUMNS, STATUS_FIELDS
from mer_ray.tagging.calibration import BINS, Calibration, Reliability
from mer_ray.tagging.contract import tags_content, words_digest
from mer_ray.tagging.projections import Projections
from mer_ray.tagging.ranking import Choice, SongTagger, Tagger, TagOptions, tags_schema
from mer_ray.words.embedding import embed_labels, unit
from mer_ray.words.lists import Word
from tests.learning.test_model import DIM, ENCODER, small_model

WORDS = ("happy", "sad", "calm", "angry", "tender")
ANY = -100.0
"""A threshold that every word reaches."""
LABELS = tuple(Word.of(word) for word in WORDS)


def vectors(count: int, seed: int = 0, width: int = 384) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).normal(size=(count, width)))


def windows(count: int, seed: int) -> NDArray[np.float16]:
    return np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float16)


def songs_table(songs: dict[str, NDArray[np.float16]]) -> pa.Table:
    """Rows of a feature store; a song without windows has failed."""
    rows = [
        {"track_id": name, "uri": f"/m/{name}", "status": "ok", "duration_s": 10.0 * len(track), "truncated": False}
        if len(track)
        else {"track_id": name, "uri": f"/m/{name}", "status": "failed", "error_class": "silent", "error": "is silent"}
        for name, track in songs.items()
    ]
    status = pa.Table.from_pylist(rows, schema=pa.schema(STATUS_FIELDS))
    return pa.table([*status.columns, features_column(list(songs.values()), DIM)], schema=store_schema(ENCODER, DIM))


SONGS = {"a": windows(3, 0), "bad": windows(0, 0), "b": windows(1, 1), "c": windows(2, 2)}


def tag(
    songs: dict[str, NDArray[np.float16]], *, timeline: bool = False, embedding: bool = False, **limits: Any
) -> pa.Table:
    """Tag songs as projected for a store; three tags each unless limits are given."""
    model = small_model()
    projected = Projections("unused", ENCODER, model).project(songs_table(songs))
    options = TagOptions(LABELS, Choice(**(limits or {"k": 3})), timeline=timeline, embedding=embedding)
    return SongTagger(Tagger(model).scale(LABELS), options, ENCODER, model).tag(projected)


def test_standardized_scores_have_mean_zero_and_deviation_one_over_the_yardstick() -> None:
    yardstick = vectors(200) * np.linspace(0.3, 1, 200, dtype=np.float32)[:, None]
    scores = LabelScale(vectors(7, 1), yardstick, "standardized").scores(yardstick)
    np.testing.assert_allclose(scores.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(scores.std(0), 1, atol=1e-4)


def test_a_word_near_every_song_is_first_by_cosine_but_not_by_standardized_score() -> None:
    rng = np.random.default_rng(0)
    common, songs = np.eye(8)[0], rng.normal(size=(300, 8)) * 0.3
    yardstick = unit(songs + common)
    labels = unit(np.stack([common, np.eye(8)[1]]))
    song = unit((common + 0.9 * np.eye(8)[1])[None])
    by_cosine = LabelScale(labels, yardstick, "cosine").scores(song)[0]
    standardized = LabelScale(labels, yardstick, "standardized").scores(song)[0]
    assert by_cosine.argmax() == 0
    assert standardized.argmax() == 1


def test_what_all_songs_share_is_no_part_of_a_standardized_score() -> None:
    labels, songs, shared = vectors(5, 1), vectors(60, 2), vectors(1, 3)
    moved = songs + 3 * shared
    scores = [LabelScale(labels, place, "standardized").scores(place) for place in (songs, moved)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)


def test_cosine_scores_are_plain_cosines_whatever_the_yardstick() -> None:
    labels, songs = vectors(5, 1), vectors(9, 2)
    scores = LabelScale(labels, vectors(30, 3), "cosine").scores(songs)
    expected = [[float(np.dot(song, label)) for label in labels] for song in songs]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("ranking", ["cosine", "standardized"])
def test_a_percentile_is_the_share_of_the_yardstick_that_suits_no_better(ranking: Any) -> None:
    labels, yardstick, songs = vectors(3, 1, 16), vectors(40, 2, 16), vectors(6, 3, 16)
    found = LabelScale(labels, yardstick, ranking).percentiles(songs)
    if ranking == "standardized":
        middle = yardstick.mean(0)
        yardstick, songs = yardstick - middle, songs - middle
    places = unit(yardstick) @ labels.T
    expected = places[None] <= (unit(songs) @ labels.T)[:, None]
    np.testing.assert_allclose(found, expected.mean(axis=1), atol=1e-6)
    assert found.dtype == np.float32
    own = LabelScale(labels, yardstick, ranking).percentiles(yardstick)
    np.testing.assert_allclose(own.max(axis=0), 1)
    np.testing.assert_allclose(own.min(axis=0), 1 / 40, atol=1e-6)


def test_songs_of_the_training_kind_are_measured_by_it_and_strange_ones_by_themselves() -> None:
    labels, training = vectors(5, 1, 16), vectors(400, 2, 16)
    alike, strange = vectors(60, 3, 16), vectors(60, 3, 16) + 2
    by_training = LabelScale(labels, training, "standardized").scores
    for songs, other in ((alike, by_training), (strange, LabelScale(labels, strange, "standardized").scores)):
        found = LabelScale(labels, songs, "standardized", training_SE=training).scores(songs)
        np.testing.assert_allclose(found, other(songs), atol=0.25)
    apart = LabelScale(labels, alike, "standardized").scores(alike) - by_training(alike)
    assert np.abs(apart).max() > 0.3


def test_a_word_of_known_truth_keeps_how_common_it_is_and_one_never_seen_is_standardized() -> None:
    labels, songs = vectors(3, 1, 16), vectors(500, 2, 16)
    priors = np.array([0.6, 0.04, np.nan], np.float32)
    scale = LabelScale(labels, songs, "standardized", priors)
    scores = scale.scores(songs)
    plain = LabelScale(labels, songs, "standardized").scores(songs)
    np.testing.assert_allclose((scores >= FLOOR + MARGIN).mean(0)[:2], priors[:2], atol=0.005)
    np.testing.assert_allclose(scores[:, 2], plain[:, 2], atol=1e-5)
    np.testing.assert_allclose(np.ptp(scores - plain, axis=0), 0, atol=1e-4)
    np.testing.assert_array_equal(
        LabelScale(labels, songs, "cosine", priors).scores(songs), LabelScale(labels, songs, "cosine").scores(songs)
    )


@pytest.mark.parametrize("words", [["happy"], list(WORDS), [f"word {at}" for at in range(30)]])
def test_a_word_must_earn_its_place_so_that_k_caps_and_a_song_may_have_none(words: list[str]) -> None:
    model, songs = small_model(), [windows(2, seed) for seed in range(40)]
    tagger = Tagger(model, np.stack([model.project(song).mean(0) for song in songs]), alone=True)
    found = [tagger.rank(song, words, k=3) for song in songs]
    assert all(len(tags) <= 3 and all(tag.score >= FLOOR for tag in tags) for tags in found)
    assert len({len(tags) for tags in found}) > 1 or len(words) == 30
    if words == ["happy"]:
        assert [] in found
    every = tagger.rank(songs[0], words, k=3, ranking="cosine")
    assert len(every) == min(3, len(words))


def test_a_model_knows_how_common_the_words_are_that_it_was_trained_on_as_it_reads_them() -> None:
    model = small_model()
    model.labels["priors"] = {"calm": 0.3, "sad": 0.1}
    words = [Word.of("sad"), Word.of("never seen"), Word.of("calm", "other phrase"), Word.of("calm")]
    np.testing.assert_allclose(model.priors(words), [0.1, np.nan, np.nan, 0.3])
    model.labels.pop("priors")
    assert np.isnan(model.priors(words)).all()


def test_a_yardstick_of_one_song_gives_no_division_by_zero() -> None:
    assert np.isfinite(LabelScale(vectors(3), vectors(1, 1), "standardized").scores(vectors(4, 2))).all()


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"k": 2}, ["d", "b"]),
        ({"k": 9}, ["d", "b", "a", "c"]),
        ({"threshold": 0.5}, ["d", "b"]),
        ({"threshold": 9.0}, []),
        ({"k": 1, "threshold": 0.1}, ["d"]),
        ({"k": 3, "threshold": 0.5}, ["d", "b"]),
        ({}, ["d", "b", "a", "c"]),
    ],
)
def test_the_best_tags_are_the_first_k_or_those_that_reach_the_threshold(
    limits: dict[str, Any], expected: list[str]
) -> None:
    order, kept = Choice(**limits).best(np.array([[0.2, 0.5, -1.0, 2.0]], np.float32))
    assert ["abcd"[at] for at in order[kept]] == expected


def test_a_notebook_ranks_any_words_for_one_song(tmp_path: Path) -> None:
    small_model().save(str(tmp_path / "m"))
    tagger = Tagger.load(str(tmp_path / "m"))
    song = windows(4, 5)
    tags = tagger.rank(song, ["zesty", "gloomy", "happy"], k=2, ranking="cosine")
    mean = tagger.model.project(song).mean(axis=0)
    cosines = dict(zip(("zesty", "gloomy", "happy"), embed_labels(["zesty", "gloomy", "happy"]) @ mean, strict=True))
    best = sorted(cosines, key=lambda word: -cosines[word])
    assert [found.label for found in tags] == best[:2]
    assert tags[0].score == pytest.approx(cosines[best[0]], abs=1e-5)
    assert 0 <= tags[0].percentile <= 1
    phrased = tagger.rank(song, {"x": ["happy"], "y": ["gloomy", "sad"]}, ranking="cosine")
    assert {found.label for found in phrased} == {"x", "y"}
    assert next(found.score for found in phrased if found.label == "x") == pytest.approx(cosines["happy"], abs=1e-5)


def test_another_yardstick_changes_standardized_scores_and_percentiles_alone() -> None:
    tagger, song = Tagger(small_model()), windows(4, 5)
    other = Tagger(tagger.model, vectors(60, 9) * 0.5 + tagger.model.project(song).mean(0))
    pairs = [(by.rank(song, WORDS, 5, "cosine"), by.rank(song, WORDS, 5, threshold=ANY)) for by in (tagger, other)]
    assert [found[:2] for found in pairs[0][0]] == [found[:2] for found in pairs[1][0]]
    assert dict(found[:2] for found in pairs[0][1]) != dict(found[:2] for found in pairs[1][1])


def test_a_songs_cosine_is_the_mean_of_its_windows_cosines() -> None:
    tagger, song = Tagger(small_model()), windows(4, 5)
    whole = tagger.rank(song, ["happy"], ranking="cosine")[0]
    cosines = tagger.model.project(song) @ embed_labels(["happy"])[0]
    assert whole.score == pytest.approx(float(cosines.mean()), abs=1e-6)


def test_failed_songs_keep_their_status_and_get_no_tags() -> None:
    table = tag(SONGS, timeline=True, embedding=True, k=2)
    assert table["track_id"].to_pylist() == list(SONGS)
    bad = table.to_pylist()[1]
    assert (bad["status"], bad["error_class"], bad["error"]) == ("failed", "silent", "is silent")
    assert (bad["tags"], bad["timeline"], bad["embedding"]) == ([], [], None)
    assert [len(row["tags"]) for row in table.to_pylist()] == [2, 0, 2, 2]


def test_a_table_gets_the_tags_that_a_notebook_gets_song_by_song() -> None:
    tagger = Tagger(small_model())
    for row in tag(SONGS, k=5).to_pylist():
        if row["status"] == "ok":
            expected = tagger.rank(SONGS[row["track_id"]], WORDS, k=5, threshold=ANY)
            assert [found["label"] for found in row["tags"]] == [found.label for found in expected]
            assert [found["score"] for found in row["tags"]] == pytest.approx(
                [found.score for found in expected], abs=1e-3
            )
            scores = [found["score"] for found in row["tags"]]
            assert scores == sorted(scores, reverse=True)


def test_the_timeline_has_the_tags_of_each_window_at_its_start() -> None:
    rows = {row["track_id"]: row["timeline"] for row in tag(SONGS, timeline=True, k=2).to_pylist()}
    assert [moment["start_s"] for moment in rows["a"]] == [0.0, 10.0, 20.0]
    tagger = Tagger(small_model())
    for name in ("a", "b", "c"):
        for moment, window in zip(rows[name], SONGS[name], strict=True):
            best = tagger.rank(window[None], WORDS, k=2, threshold=ANY)
            assert moment["tags"] == [found.label for found in best]


def test_embeddings_are_unit_vectors_of_the_songs_place() -> None:
    rows = {row["track_id"]: row["embedding"] for row in tag(SONGS, embedding=True).to_pylist()}
    place = unit(small_model().project(SONGS["a"]).mean(axis=0))
    np.testing.assert_allclose(np.array(rows["a"], np.float32), place, atol=1e-3)
    for name in ("a", "b", "c"):
        assert np.linalg.norm(np.array(rows[name], np.float32)) == pytest.approx(1, abs=1e-2)


def test_a_threshold_may_leave_a_song_without_tags() -> None:
    assert tag(SONGS, threshold=99.0)["tags"].to_pylist() == [[], [], [], []]


def test_other_songs_in_the_table_do_not_change_a_songs_tags() -> None:
    alone = {row["track_id"]: row for row in tag({"a": SONGS["a"]}, timeline=True).to_pylist()}
    more = {**{f"x{n}": windows(n % 4, 50 + n) for n in range(40)}, **SONGS}
    among = {row["track_id"]: row for row in tag(more, timeline=True).to_pylist()}
    assert [found["label"] for found in among["a"]["tags"]] == [found["label"] for found in alone["a"]["tags"]]
    for found, expected in zip(among["a"]["tags"], alone["a"]["tags"], strict=True):
        assert found["score"] == pytest.approx(expected["score"], abs=1e-4)
        assert found["percentile"] == expected["percentile"]
    assert among["a"]["timeline"] == alone["a"]["timeline"]


def test_a_table_of_failed_songs_alone_is_tagged_with_nothing() -> None:
    table = tag({"bad": windows(0, 0)}, timeline=True, embedding=True)
    assert table["tags"].to_pylist() == [[]]
    assert table["embedding"].null_count == 1


def test_the_schema_holds_the_columns_asked_for_and_says_what_made_them() -> None:
    plain, full = tag(SONGS), tag(SONGS, timeline=True, embedding=True, k=2, threshold=0.5)
    assert plain.column_names == [*STATUS_COLUMNS, "tags"]
    assert full.column_names == [*STATUS_COLUMNS, "tags", "timeline", "embedding"]
    assert full.schema.field("embedding").type == pa.list_(pa.float16(), 384)
    stored = full.schema.metadata
    assert stored[b"mer_ray.model"].decode() == small_model().digest
    assert json.loads(stored[b"mer_ray.encoder"]) == ENCODER
    asked = {"k": 2, "threshold": 0.5, "min_percentile": None, "ranking": "standardized"}
    asked |= {"words": len(LABELS), "words_sha256": words_digest(LABELS)}
    assert json.loads(stored[b"mer_ray.tags"]) == asked


def test_a_part_does_not_grow_with_the_list_of_words() -> None:
    words = [tuple(Word.of(f"mood {at}") for at in range(count)) for count in (5, 5_000)]
    few, many = (tags_schema(TagOptions(each), ENCODER, small_model()).serialize().size for each in words)
    assert many - few < 10


def test_pandas_and_duckdb_read_tags_alone(tmp_path: Path) -> None:
    pq.write_table(tag(SONGS, timeline=True, embedding=True, k=1), tmp_path / "part-0.parquet")
    frame = pd.read_parquet(tmp_path)
    first = frame["tags"][0][0]
    assert set(first) == {"label", "score", "percentile"}
    query = f"select track_id, tags[1].label, tags[1].score from '{tmp_path}/*.parquet' where status = 'ok'"
    rows = duckdb.sql(query).fetchall()
    assert [row[0] for row in rows] == ["a", "b", "c"]
    assert rows[0][1:] == (first["label"], pytest.approx(first["score"]))


def test_a_calibration_adds_how_right_each_tag_is_expected_to_be() -> None:
    counts = Reliability(np.full(BINS, 10), np.arange(BINS) // 2)
    calibration = Calibration(
        counts, counts, 3, frozenset(WORDS[:4]), 100, np.zeros(384, np.float32), 1.0, frozenset(), 0.5
    )
    model = small_model()
    options = TagOptions(LABELS, Choice(k=3), calibration=calibration)
    projected = Projections("unused", ENCODER, model).project(songs_table(SONGS))
    table = SongTagger(Tagger(model).scale(LABELS), options, ENCODER, model).tag(projected)
    assert tags_content("unused").fits(table.schema.field("tags").type)
    tags = [found for row in table["tags"].to_pylist() for found in row]
    for found in tags:
        if found["label"] in WORDS[:4]:
            assert found["precision"] == pytest.approx(int(found["percentile"] * BINS - 1e-6) // 2 / 10, abs=0.11)
            assert found["precision_low"] <= found["precision"] <= found["precision_high"]
        else:
            assert np.isnan(found["precision"])
