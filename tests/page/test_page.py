"""A page is made of whatever there is: one song, none that could be read, no store any more, more songs than fit."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mer_ray.errors import InputError
from mer_ray.page.composing import WORDS, make_page, page_of_run, render
from mer_ray.page.settings import PageSettings
from tests.support.tagged import MOODS, tagged_catalogue


def made(tags: Path, **asked: Any) -> dict[str, Any]:
    return make_page(PageSettings.model_construct(tags=str(tags), output=str(tags.parent / "page.html"), **asked))


def test_every_song_is_there_with_its_tags_as_they_were_written(tmp_path: Path) -> None:
    tags = tagged_catalogue(tmp_path, [f"{at}.mp3" for at in range(9)], failed=["bad.mp3"])
    page = made(tags)
    table = pq.read_table(next(tags.glob("part-*.parquet"))).to_pylist()
    labels = [word["label"] for word in page["words"]]
    for song in table:
        if song["status"] == "ok":
            at = page["songs"]["ids"].index(song["track_id"])
            shown = [[labels[word], percentile] for word, percentile in page["songs"]["tags"][at]]
            assert shown == [[tag["label"], pytest.approx(tag["percentile"], abs=5e-4)] for tag in song["tags"]]
    assert "bad.mp3" not in page["songs"]["ids"]
    assert page["failures"][0]["examples"] == [("bad.mp3", "is silent")]
    given = {label: sum(tag["label"] == label for song in table for tag in song["tags"]) for label in labels}
    assert {word["label"]: word["given"] for word in page["words"]} == given


def test_a_words_best_songs_are_those_of_the_highest_percentile(tmp_path: Path) -> None:
    page = made(tagged_catalogue(tmp_path, [f"{at:02d}.mp3" for at in range(30)]))
    for word in page["words"]:
        best, worst = ([percentile for _, percentile in word[name]] for name in ("best", "worst"))
        assert best == sorted(best, reverse=True)
        assert worst == sorted(worst)
        assert len(best) == len(worst) == 10
        assert best[-1] >= worst[-1]


def test_pleasant_and_excited_words_lie_to_the_right_and_on_top(tmp_path: Path) -> None:
    page = made(tagged_catalogue(tmp_path, ["a.mp3", "b.mp3"]))
    place = {word["label"]: (word["x"], word["y"]) for word in page["words"]}
    assert place["happy"][0] > 0 > place["sad"][0]
    assert place["angry"][1] > 0 > place["calm"][1]


def test_the_vectors_in_the_tags_give_the_same_map_as_the_store(tmp_path: Path) -> None:
    songs = [f"{at}.mp3" for at in range(12)]
    ours = made(tagged_catalogue(tmp_path / "a", songs))
    tags = tagged_catalogue(tmp_path / "b", songs, embedding=True)
    shutil.rmtree(tmp_path / "b" / "features")
    theirs = made(tags)
    np.testing.assert_allclose(ours["songs"]["x"], theirs["songs"]["x"], atol=0.02)
    assert "--vector embedding" in theirs["made"][1][1]


def test_one_song_is_a_page(tmp_path: Path) -> None:
    page = made(tagged_catalogue(tmp_path, ["only.mp3"], timeline=False))
    assert page["map"]
    assert dict(page["facts"])["Trained on"].startswith("x, whose terms bind")
    assert page["songs"]["ids"] == ["only.mp3"]
    assert page["songs"]["lines"] == [[]]


def test_a_catalogue_that_failed_whole_says_what_failed(tmp_path: Path) -> None:
    page = made(tagged_catalogue(tmp_path, [], failed=[f"{at}.mp3" for at in range(7)]))
    assert not page["map"]
    assert page["failures"][0]["songs"] == 7
    assert page["failures"][0]["mend"].startswith("2 more in")
    assert (tmp_path / "page.html").stat().st_size < 100_000


def test_without_its_store_a_page_has_no_map_and_says_why(tmp_path: Path) -> None:
    tags = tagged_catalogue(tmp_path, ["a.mp3", "b.mp3"])
    shutil.move(tmp_path / "features", tmp_path / "moved")
    page = made(tags)
    assert not page["map"]
    assert "no part-*.parquet there" in page["mapnote"]
    assert made(tags, features=str(tmp_path / "moved"))["map"]


def test_of_more_songs_a_fair_sample_is_shown_and_all_are_counted(tmp_path: Path) -> None:
    tags = tagged_catalogue(tmp_path, [f"{at:03d}.mp3" for at in range(200)])
    page = made(tags, songs=40)
    assert len(page["songs"]["ids"]) == 40
    assert sum(word["given"] for word in page["words"]) == 400
    assert "40 of them here" in page["summary"]
    assert made(tags, songs=40)["songs"]["ids"] == page["songs"]["ids"]
    assert 5 < sum(name < "100" for name in page["songs"]["ids"]) < 35


def test_of_hundreds_of_words_the_commonest_are_shown(tmp_path: Path) -> None:
    page = made(tagged_catalogue(tmp_path, ["a.mp3", "b.mp3"], words=[f"mood {at}" for at in range(WORDS + 5)]))
    assert len(page["words"]) == WORDS
    assert [bool(word["given"]) for word in page["words"]] == sorted(
        (bool(w["given"]) for w in page["words"]), reverse=True
    )
    assert "305 words" in page["summary"]


def test_songs_are_found_from_the_page_first_and_then_where_they_were(tmp_path: Path) -> None:
    page = made(tagged_catalogue(tmp_path, ["x/a b#1.mp3", "y/c.mp3"], music=tmp_path / "my music"))
    assert page["roots"] == ["my%20music/", f"file://{tmp_path}/my%20music/"]
    assert page["songs"]["links"] == ["x/a%20b%231.mp3", "y/c.mp3"]


def test_no_name_ends_the_script_that_holds_it(tmp_path: Path) -> None:
    made(tagged_catalogue(tmp_path, ["</script><script>alert(1)</script>.mp3"], words=[*MOODS, "</script>"]))
    text = (tmp_path / "page.html").read_text()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    assert "alert(1)" in json.loads(data.group(1))["songs"]["ids"][0]


def test_the_same_tags_give_the_same_page(tmp_path: Path) -> None:
    tags = tagged_catalogue(tmp_path, ["a.mp3", "b.mp3"])
    assert render(made(tags)) == render(made(tags))


def test_what_is_no_page_or_no_tags_is_refused(tmp_path: Path) -> None:
    tags = tagged_catalogue(tmp_path, ["a.mp3"])
    with pytest.raises(InputError, match=r"end its name with \.html"):
        make_page(PageSettings.model_construct(tags=str(tags), output="/tmp/page.pdf"))
    with pytest.raises(InputError, match="make them with jobs/tag"):
        made(tmp_path / "nothing")
    with pytest.raises(InputError, match="not tags"):
        made(tmp_path / "features")


def test_a_run_leaves_a_page_beside_its_tags_or_says_why_not(tmp_path: Path) -> None:
    tags = tagged_catalogue(tmp_path, ["a.mp3"])
    assert page_of_run(str(tags)).endswith(f"{tags}/_run/page.html")
    assert "Songs on s3:// are not linked here" in (tags / "_run" / "page.html").read_text(), "others may read it there"
    assert page_of_run(str(tmp_path / "nothing")).startswith("no page: tags ")
