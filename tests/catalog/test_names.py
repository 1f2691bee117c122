"""What songs are called is read from the files themselves, and a table that says so has the last word."""

from __future__ import annotations

from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile
from mutagen.id3 import TIT2, TPE1, TSRC
from mutagen.wave import WAVE

from mer_ray.catalog.names import names_of, with_names
from mer_ray.catalog.sources import load_catalog, scan_folder

SAID = {"title": "Rain – «Zwei»", "artist": "Ann", "album": "Weather", "isrc": "DEA123456789"}


def write_song(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.sin(np.arange(8_000) * 0.1), 8_000)
    return path


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3"])
def test_tags_are_read_from_every_kind_of_file(tmp_path: Path, name: str) -> None:
    tags = mutagen.File(write_song(tmp_path / name), easy=True)
    if tags.tags is None:
        tags.add_tags()
    for key, value in SAID.items():
        tags[key] = value
    tags.save()
    assert with_names(scan_folder(str(tmp_path))).select([*SAID]).to_pylist() == [SAID]


def test_tags_in_a_wav_are_read(tmp_path: Path) -> None:
    tags = WAVE(write_song(tmp_path / "a.wav"))
    tags.add_tags()
    for frame in (TIT2(text="Rain"), TPE1(text="Ann"), TSRC(text="X1")):
        tags.tags.add(frame)
    tags.save()
    found = with_names(scan_folder(str(tmp_path))).select([*SAID]).to_pylist()
    assert found == [{"title": "Rain", "artist": "Ann", "album": None, "isrc": "X1"}]


def test_files_that_say_nothing_are_broken_or_gone_have_no_names(tmp_path: Path) -> None:
    write_song(tmp_path / "a.wav")
    (tmp_path / "b.mp3").write_bytes(b"no audio")
    manifest = scan_folder(str(tmp_path))
    (tmp_path / "a.wav").unlink()
    assert with_names(manifest).select([*SAID]).to_pylist() == [dict.fromkeys(SAID)] * 2


def test_a_table_has_the_last_word_and_names_are_found_by_id(tmp_path: Path) -> None:
    song = mutagen.File(write_song(tmp_path / "a.flac"))
    song["title"], song["artist"] = "From the file", "Ann"
    song.save()
    (tmp_path / "songs.csv").write_text("uri,title\na.flac,From the table\nb.flac,\n")
    table = with_names(load_catalog(str(tmp_path / "songs.csv")))
    assert table["title"].to_pylist() == ["From the table", None]
    assert table["artist"].to_pylist() == ["Ann", None]
    ids = table["track_id"].take([1, 0])
    assert names_of(ids, str(tmp_path / "songs.csv"))["title"].to_pylist() == [None, "From the table"]
    assert names_of(ids, str(tmp_path))["title"].to_pylist() == [None, None]
