"""MTG-Jamendo mood/theme: ``autotagging_moodtheme-{train,validation,test}.tsv`` of the official split-0."""

from __future__ import annotations

import csv
import io
import posixpath

from mer_ray import storage
from mer_ray.catalog.datasets import SPLITS, Song
from mer_ray.errors import InputError
from mer_ray.settings import Part

K = 2

_WORDS = """
    action adventure advertising background ballad calm children christmas commercial cool corporate dark deep
    documentary drama dramatic dream emotional energetic epic fast film fun funny game groovy happy heavy holiday
    hopeful inspiring love meditative melancholic melodic motivational movie nature party positive powerful relaxing
    retro romantic sad sexy slow soft soundscape space sport summer trailer travel upbeat uplifting
"""
VOCABULARIES = {"jamendo": tuple(_WORDS.split())}

_PREFIX = "mood/theme---"


def read(source: str, settings: Part) -> list[Song]:
    """Every track of the three files, which lie in one folder."""
    songs = []
    for split in SPLITS:
        uri = storage.join(source, f"autotagging_moodtheme-{split}.tsv")
        rows = csv.reader(io.StringIO(storage.read_text(uri)), delimiter="\t", quoting=csv.QUOTE_NONE)
        for line, fields in enumerate(rows, start=1):
            if line == 1 or not fields:
                continue
            number = fields[0].removeprefix("track_")
            labels = tuple(tag.removeprefix(_PREFIX) for tag in fields[5:] if tag.startswith(_PREFIX))
            if not labels or not number.isdigit():
                raise InputError(
                    f"{uri} line {line}: not a track with {_PREFIX} tags; fetch the official split-0 again."
                )
            songs.append(Song(f"jamendo/{int(number)}", fields[3], labels, split))
    return songs


def audio_key(path: str) -> str:
    """``48/948``, also from the low-bitrate ``48/948.low.mp3``."""
    return "/".join(posixpath.splitext(path)[0].removesuffix(".low").split("/")[-2:])
