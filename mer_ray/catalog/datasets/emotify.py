"""Emotify (Aljanaki et al. 2016): the 3 GEMS words with most votes; ties in column order (paper §4.1).

Ratings are the shares of a song's listeners who chose a word. The label file is ``data.csv``; audio is
``emotifymusic/<genre>/<n>.mp3``, n = 1…100.
"""

from __future__ import annotations

import csv
import io
import posixpath
from collections import Counter, defaultdict
from collections.abc import Sequence

from mer_ray import storage
from mer_ray.catalog.datasets import Song
from mer_ray.errors import InputError
from mer_ray.settings import Part

K = 3

_WORDS = "amazement solemnity tenderness nostalgia calmness power joyful_activation tension sadness"
_GEMS = tuple(_WORDS.split())
VOCABULARIES = {"gems": _GEMS}

_FIRST_OF_GENRE = {"classical": 0, "rock": 100, "electronic": 200, "pop": 300}
"""Number in the label file less the number of the audio file."""


def read(source: str, settings: Part) -> list[Song]:
    """The songs of ``data.csv``, or of the folder that holds it, by number."""
    uri = source if source.endswith(".csv") else storage.join(source, "data.csv")
    reader = csv.DictReader(io.StringIO(storage.read_text(uri)))
    reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
    missing = [name for name in ("track id", "genre", *_GEMS) if name not in reader.fieldnames]
    if missing:
        raise InputError(f"{uri}: no column {missing[0]!r}; fetch Emotify's data.csv again.")
    votes: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0] * len(_GEMS))
    listeners: Counter[tuple[int, str]] = Counter()
    for row in reader:
        try:
            key = int(row["track id"]), row["genre"].strip()
            listeners[key] += 1
            for column, word in enumerate(_GEMS):
                votes[key][column] += int(row[word])
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{uri} line {reader.line_num}: not a listener's votes; mend it.") from error
    return [_song(*key, votes[key], listeners[key], uri) for key in sorted(votes)]


def _song(track: int, genre: str, votes: Sequence[int], listeners: int, uri: str) -> Song:
    number = track - _FIRST_OF_GENRE.get(genre, track)
    if not 1 <= number <= 100:
        raise InputError(f"{uri}: track {track} cannot be {genre!r}; fetch Emotify's data.csv again.")
    most_voted = sorted(zip(_GEMS, votes, strict=True), key=lambda pair: -pair[1])
    labels = tuple(word for word, _ in most_voted[:K])
    ratings = {word: count / listeners for word, count in zip(_GEMS, votes, strict=True)}
    return Song(f"emotify/{track}", f"emotifymusic/{genre}/{number}.mp3", labels, ratings=ratings)


def audio_key(path: str) -> str:
    """``<genre>/<n>``."""
    return "/".join(posixpath.splitext(path)[0].split("/")[-2:])
