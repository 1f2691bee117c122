"""Tags go into spreadsheets and into the files' own tags, and out of these again."""

from __future__ import annotations

from pathlib import Path

import mutagen
import numpy as np
import pandas as pd
import pytest
import soundfile

from mer_ray.errors import InputError
from mer_ray.tagging.export import export
from mer_ray.tagging.moods import read_mood, set_mood
from mer_ray.tagging.settings import ExportSettings
from tests.support.tagged import MOODS, read_column, tagged_catalogue

SONGS = ["a.flac", "b.ogg", "c.mp3", "d.wav"]


@pytest.fixture
def tags(tmp_path: Path) -> Path:
    return tagged_catalogue(tmp_path, SONGS, failed=["bad.mp3"], words=[*MOODS, "uri"])


def run(tags: Path, **asked: object) -> list[str]:
    return [*export(ExportSettings.model_construct(tags=str(tags), **asked))]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_long_table_has_a_row_a_tag_and_a_wide_one_a_row_a_song(tags: Path, tmp_path: Path, kind: str) -> None:
    long, wide = tmp_path / f"long.{kind}", tmp_path / f"wide.{kind}"
    run(tags, long=str(long), wide=str(wide))
    read = pd.read_csv if kind == "csv" else pd.read_parquet
    rows, songs = read(long), read(wide).set_index("track_id")
    assert len(rows) == 2 * len(SONGS)
    assert list(rows["rank"]) == [1, 2] * len(SONGS)
    assert sorted(songs.index) == ["a.flac", "b.ogg", "bad.mp3", "c.mp3", "d.wav"]
    assert {*MOODS, "[uri]"} <= set(songs.columns)
    for row in rows.itertuples():
        column = "[uri]" if row.label == "uri" else row.label
        assert songs.loc[row.track_id, column] == pytest.approx(row.percentile)
    assert songs[[*MOODS, "[uri]"]].notna().sum().sum() == len(rows)
    assert songs.loc["bad.mp3", "error_class"] == "silent"


def test_names_of_songs_stand_in_the_tables(tags: Path, tmp_path: Path) -> None:
    (tmp_path / "songs.csv").write_text("track_id,uri,artist\na.flac,/m/a.flac,Ann\n")
    run(tags, wide=str(tmp_path / "wide.csv"), catalog=str(tmp_path / "songs.csv"))
    assert pd.read_csv(tmp_path / "wide.csv").set_index("track_id").loc["a.flac", "artist"] == "Ann"


def test_another_kind_of_table_is_refused(tags: Path) -> None:
    with pytest.raises(InputError, match=r"--wide /x\.xlsx: neither \.csv nor \.parquet"):
        run(tags, wide="/x.xlsx")


def write_music(folder: Path) -> None:
    for name in SONGS:
        (folder / "music").mkdir(exist_ok=True)
        soundfile.write(folder / "music" / name, np.sin(np.arange(8_000) * 0.1), 8_000)


def test_words_are_written_into_files_and_what_stood_there_is_put_back(tags: Path, tmp_path: Path) -> None:
    write_music(tmp_path)
    files = [tmp_path / "music" / name for name in SONGS]
    flac = mutagen.File(files[0])
    flac["title"], flac["mood"] = "Mine", ["old", "older"]
    flac.save()
    sound = [soundfile.read(file)[0] for file in files]
    first, *_ = run(tags, write_files=True)
    assert first == "words written into 4 files; --undo puts back what stood there"
    given = dict(zip(read_column(tags, "track_id").to_pylist(), read_column(tags, "tags").to_pylist(), strict=True))
    for file, samples in zip(files, sound, strict=True):
        assert read_mood(str(file)) == [tag["label"] for tag in given[file.name]]
        np.testing.assert_array_equal(soundfile.read(file)[0], samples)
    assert mutagen.File(files[0])["title"] == ["Mine"]
    assert run(tags, write_files=True)[0].startswith("words written into 0 files")
    set_mood(str(files[1]), ["by hand"])
    first, second = run(tags, undo=True)
    assert first == "3 files say again what they said before"
    assert "b.ogg: says something else by now" in second
    assert [read_mood(str(file)) for file in files] == [["old", "older"], ["by hand"], [], []]
    with pytest.raises(InputError, match="nothing to undo"):
        run(tags, undo=True)


def test_files_that_are_gone_or_no_music_are_left_and_named(tags: Path, tmp_path: Path) -> None:
    write_music(tmp_path)
    (tmp_path / "music" / "a.flac").unlink()
    (tmp_path / "music" / "b.ogg").write_bytes(b"words, not music")
    first, second = run(tags, write_files=True)
    assert first.startswith("words written into 2 files")
    assert second.startswith("2 files left as they are")
