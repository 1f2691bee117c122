"""A page reaches its songs: by paths from its folder, by their old place, by links to S3 that need no credentials."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from mer_ray import storage
from mer_ray.tagging.links import links
from tests.support.s3 import S3Server

SONG = b"the bytes of a song"


def test_a_song_on_s3_is_heard_by_a_link_without_credentials_and_only_for_so_long(s3: S3Server) -> None:
    uri = f"s3://{s3.bucket}/links/a song, 100 % ä.mp3"
    storage.write_bytes(uri, SONG)
    found = links([uri, None], "page.html", 3600)
    link, none = found.endings
    assert (found.roots, none) == ([], None)
    assert link is not None
    with urllib.request.urlopen(link) as answer:
        assert answer.read() == SONG
    assert s3.environment["AWS_SECRET_ACCESS_KEY"] not in link
    assert {"X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Expires=3600"} <= {*link.partition("?")[2].split("&")}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(link.replace("Expires=3600", "Expires=7200"))
    assert refused.value.code == 403


def test_without_hours_songs_on_s3_have_no_link(s3: S3Server) -> None:
    assert links([f"s3://{s3.bucket}/links/a.mp3"], "page.html", 0).endings == [None]


def test_local_songs_are_looked_for_from_the_page_and_where_they_were(tmp_path: Path) -> None:
    songs = [str(tmp_path / "music" / "a b" / "1.mp3"), str(tmp_path / "music" / "c" / "2#.mp3")]
    found = links(songs, str(tmp_path / "page.html"), 3600)
    assert found.roots == ["music/", f"file://{tmp_path}/music/"]
    assert found.endings == ["a%20b/1.mp3", "c/2%23.mp3"]
