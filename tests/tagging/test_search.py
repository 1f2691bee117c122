"""The songs nearest to a phrase are found from the store alone."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from mer_ray.errors import InputError
from mer_ray.tagging.ranking import Tagger
from mer_ray.tagging.search import check_output, search, write_found
from mer_ray.tagging.settings import SearchSettings
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
    return SearchSettings.model_construct(query=QUERY, k=5, **values)


def test_the_best_songs_have_the_scores_that_tagging_gives_them(asked: SearchSettings) -> None:
    table, against = search(asked)
    assert against == "the model's 50 training songs"
    tagger = Tagger.load(asked.model)
    scores = {name: tagger.rank(song, [QUERY], k=1)[0] for name, song in SONGS.items() if len(song)}
    best = sorted(scores, key=lambda name: -scores[name].score)[:5]
    assert table["track_id"].to_pylist() == best
    assert table["score"].to_pylist() == pytest.approx([scores[name].score for name in best], abs=1e-3)
    assert table["percentile"].to_pylist() == pytest.approx([scores[name].percentile for name in best], abs=0.021)


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


def test_another_kind_of_file_is_refused_before_the_work() -> None:
    check_output(None)
    with pytest.raises(InputError, match=r"neither \.parquet nor \.csv"):
        check_output("/tmp/found.txt")
