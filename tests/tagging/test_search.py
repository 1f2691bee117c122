"""The songs nearest to a phrase are found from the store alone."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from mer_ray.errors import InputError
from mer_ray.fingerprints import text_sha256
from mer_ray.learning import scoring
from mer_ray.learning.scoring import LabelScale
from mer_ray.tagging import index
from mer_ray.tagging.playlists import playlist
from mer_ray.tagging.ranking import Tagger
from mer_ray.tagging.search import _best, check_output, search, write_found, write_playlists
from mer_ray.tagging.settings import SearchSettings
from mer_ray.words.embedding import unit
from mer_ray.words.lists import Word
from tests.learning.test_model import small_model
from tests.tagging.test_ranking import songs_table, windows

SONGS = {f"s{at}": windows(at % 4, at) for at in range(1, 12)}
QUERY = "tender but tense"


@pytest.fixture
def asked(tmp_path: Path) -> SearchSettings:
    small_model().save(str(tmp_path / "model"))
    (tmp_path / "features").mkdir()
    pq.write_table(songs_table(SONGS), tmp_path / "features" / "part-0.parquet", row_group_size=4)
    values = {"features": str(tmp_path / "features"), "model": str(tmp_path / "model")}
    return SearchSettings.model_construct(query=(QUERY,), k=5, **values)


def test_the_best_songs_have_the_scores_that_tagging_gives_them(asked: SearchSettings) -> None:
    table, against = search(asked)
    assert against == "the model's 50 training songs"
    tagger = Tagger.load(asked.model)
    scale = tagger.scale([Word.of(QUERY)], "standardized")
    vectors = {name: tagger.model.project(song).mean(0)[None] for name, song in SONGS.items() if len(song)}
    scores = {name: float(scale.scores(vector)[0, 0]) for name, vector in vectors.items()}
    best = sorted(scores, key=lambda name: -scores[name])[:5]
    assert table["track_id"].to_pylist() == best
    assert table["score"].to_pylist() == pytest.approx([scores[name] for name in best], abs=1e-3)
    percentiles = [float(scale.percentiles(vectors[name])[0, 0]) for name in best]
    assert table["percentile"].to_pylist() == pytest.approx(percentiles, abs=0.021)


@pytest.fixture
def many(asked: SearchSettings) -> tuple[SearchSettings, dict[str, NDArray[np.float32]]]:
    """A search of 300 songs in three parts, and their vectors as the model projects them."""
    songs = {f"m{at}": windows(1 + at % 2, 1000 + at) for at in range(300)}
    names = list(songs)
    for part in range(3):
        some = {name: songs[name] for name in names[part::3]}
        pq.write_table(songs_table(some), Path(asked.features) / f"part-{part}.parquet")
    model = Tagger.load(asked.model).model
    return asked, {name: model.project(song).mean(0) for name, song in songs.items()}


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("measure", [300, 40])
def test_answers_are_those_of_all_scores_sorted(
    many: tuple[SearchSettings, dict[str, NDArray[np.float32]]],
    monkeypatch: pytest.MonkeyPatch,
    keep: bool,
    measure: int,
) -> None:
    settings, vectors = many
    monkeypatch.setattr(index, "BATCH", 64)
    monkeypatch.setattr(scoring, "YARDSTICK_SONGS", measure)
    measuring = sorted(vectors, key=text_sha256)[:measure]
    scale = LabelScale(
        Tagger.load(settings.model).model.embed([Word.of(QUERY), Word.of("sad")]),
        np.stack([vectors[name] for name in measuring]),
        "standardized",
    )
    every = np.stack(list(vectors.values()))
    scores, percentiles = scale.scores(every), scale.percentiles(every)[:, 0]
    scores = scores[:, 0] - np.maximum(scores[:, 1], 0)
    expected = {name: (score, share) for name, score, share in zip(vectors, scores, percentiles, strict=True)}
    updates = {"not_": ("sad",), "k": 25, "keep_projections": keep}
    table, against = search(settings.model_copy(update=updates))
    assert against == ("the store's 300 songs" if measure == 300 else "40 of the store's 300 songs")
    assert table["score"].to_pylist() == pytest.approx(sorted(scores)[::-1][:25], abs=5e-3)
    found = zip(*(table[name].to_pylist() for name in ("track_id", "score", "percentile")), strict=True)
    for name, score, share in found:
        assert score == pytest.approx(expected[name][0], abs=5e-3)
        assert share == pytest.approx(expected[name][1], abs=1.5 / measure)


def test_a_catalogue_is_measured_by_its_own_songs(
    many: tuple[SearchSettings, dict[str, NDArray[np.float32]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings, vectors = many
    monkeypatch.setattr(scoring, "YARDSTICK_SONGS", 50)
    mine = list(vectors)[:120]
    (tmp_path / "mine.csv").write_text("track_id,uri\n" + "".join(f"{name},/m/{name}\n" for name in mine))
    table, against = search(settings.model_copy(update={"catalog": str(tmp_path / "mine.csv"), "k": 300}))
    assert against == "50 of the catalogue's 120 songs"
    assert sorted(table["track_id"].to_pylist()) == sorted(mine)
    measuring = set(sorted(mine, key=text_sha256)[:50])
    scores = [
        score
        for name, score in zip(table["track_id"].to_pylist(), table["score"].to_pylist(), strict=True)
        if name in measuring
    ]
    assert np.mean(scores) == pytest.approx(0, abs=1e-4)
    assert np.std(scores) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("k", [1, 4, 7, 100])
def test_the_best_are_the_first_of_all_sorted_also_among_equals(k: int) -> None:
    scores = np.random.default_rng(k).integers(0, 5, 60).astype(np.float32)
    scores[::7] = -np.inf
    every = [at for at in np.argsort(-scores, kind="stable") if scores[at] > -np.inf]
    assert _best(scores, k).tolist() == every[:k]
    assert _best(np.full(9, -np.inf, np.float32), k).tolist() == []


def test_measured_against_the_store_the_best_song_is_its_hundredth_percentile(asked: SearchSettings) -> None:
    table, against = search(asked.model_copy(update={"yardstick": "catalog", "k": 99}))
    readable = sum(1 for song in SONGS.values() if len(song))
    assert against == f"the store's {readable} songs"
    np.testing.assert_allclose(table["percentile"].to_pylist(), np.arange(readable, 0, -1) / readable, atol=1e-6)
    assert np.mean(table["score"].to_pylist()) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", ["found.csv", "found.parquet"])
def test_the_table_is_read_by_others(asked: SearchSettings, tmp_path: Path, name: str) -> None:
    table, _ = search(asked)
    write_found(str(tmp_path / name), table)
    rows = duckdb.sql(f"select track_id, score from '{tmp_path / name}'").fetchall()
    assert [row[0] for row in rows] == table["track_id"].to_pylist()


def test_another_kind_of_file_is_refused_before_the_work(asked: SearchSettings) -> None:
    check_output(asked)
    with pytest.raises(InputError, match=r"none of \.parquet, \.csv and \.m3u8"):
        check_output(asked.model_copy(update={"output": "/tmp/found.txt"}))
    with pytest.raises(InputError, match="one playlist of 2 answers; give --playlists"):
        check_output(asked.model_copy(update={"output": "/tmp/found.m3u8", "query": ("a", "b")}))


def test_several_queries_are_answered_in_one_call_each_as_if_alone(asked: SearchSettings) -> None:
    both, _ = search(asked.model_copy(update={"query": (QUERY, "gloomy, grey")}))
    alone, _ = search(asked)
    assert both["query"].to_pylist() == [QUERY] * 5 + ["gloomy, grey"] * 5
    assert both.slice(0, 5)["track_id"].equals(alone["track_id"])
    assert both["rank"].to_pylist() == [1, 2, 3, 4, 5] * 2


def test_a_song_is_searched_by_its_id_and_is_not_its_own_answer(asked: SearchSettings) -> None:
    table, _ = search(asked.model_copy(update={"query": (), "like": ("s1",), "k": 99}))
    assert set(table["track_id"].to_pylist()) == {name for name, song in SONGS.items() if len(song)} - {"s1"}
    model = Tagger.load(asked.model).model
    center = model.background.mean(0)
    places = {name: unit(model.project(song).mean(0)[None] - center)[0] for name, song in SONGS.items() if len(song)}
    nearest = max(places.keys() - {"s1"}, key=lambda name: places[name] @ places["s1"])
    assert table["track_id"][0].as_py() == nearest


def test_a_song_to_find_others_like_must_be_there(asked: SearchSettings) -> None:
    with pytest.raises(InputError, match=r"--like nowhere\.mp3: neither a song of .* nor a file"):
        search(asked.model_copy(update={"query": (), "like": ("nowhere.mp3",)}))


def test_what_is_not_wanted_is_pushed_down_by_how_well_it_suits(asked: SearchSettings) -> None:
    everything = asked.model_copy(update={"k": 99})
    plain, _ = search(everything)
    sad, _ = search(everything.model_copy(update={"query": ("sad",)}))
    without, _ = search(everything.model_copy(update={"not_": ("sad",)}))
    scores = [
        dict(zip(*(table[name].to_pylist() for name in ("track_id", "score")), strict=True))
        for table in (plain, sad, without)
    ]
    for name, score in scores[0].items():
        assert scores[2][name] == pytest.approx(score - max(0.0, scores[1][name]), abs=1e-4)


def test_a_search_stays_within_a_catalogue_and_says_what_its_songs_are_called(
    asked: SearchSettings, tmp_path: Path
) -> None:
    songs = "track_id,uri,title,artist,isrc\ns1,/m/s1,One,Ann,X1\ns2,/m/s2,Two,,\nelse,/m/else,,,\n"
    (tmp_path / "mine.csv").write_text(songs)
    table, _ = search(asked.model_copy(update={"catalog": str(tmp_path / "mine.csv"), "k": 99}))
    assert sorted(zip(*(table[name].to_pylist() for name in ("track_id", "title", "artist")), strict=True)) == [
        ("s1", "One", "Ann"),
        ("s2", "Two", None),
    ]


def test_playlists_name_songs_from_where_they_lie(asked: SearchSettings, tmp_path: Path) -> None:
    table, _ = search(asked.model_copy(update={"query": ("calm", "a/b: c?", "Calm"), "k": 2}))
    names = write_playlists(str(tmp_path / "lists"), table)
    assert names == ["calm.m3u8", "b_ c.m3u8", "Calm 2.m3u8"]
    lines = (tmp_path / "lists" / "calm.m3u8").read_text().splitlines()
    assert lines[0] == "#EXTM3U"
    assert len(lines) == 5
    first = table.to_pylist()[0]
    assert lines[1] == f"#EXTINF:{round(first['duration_s'])},{first['track_id']}"
    assert (tmp_path / "lists" / lines[2]).resolve() == Path(first["uri"])


def test_a_name_cannot_write_lines_of_its_own_into_a_playlist() -> None:
    song = {"uri": "/m/a\n#EXTINF:1,x.mp3", "duration_s": None, "title": "two\nlines", "artist": None, "track_id": "a"}
    assert playlist([song], "/m/list.m3u8").decode().splitlines() == [
        "#EXTM3U",
        "#EXTINF:-1,two lines",
        "file:///m/a%0A%23EXTINF%3A1%2Cx.mp3",
    ]
