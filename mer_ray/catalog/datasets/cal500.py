"""CAL500: raw annotations of 500 songs, or the list of labels that the paper's authors published.

``source`` is a ``.json`` of the published form, or a folder with ``annotations/<song>_NN.txt``, with those
files themselves, or with ``CAL500_metadata.json``, which is taken where there are no annotations. Ratings are the
means of the raw annotations, 1 to 5; the published list has none.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections import defaultdict
from typing import Annotated, ClassVar, Literal

from mer_ray import storage
from mer_ray.catalog.datasets import Song
from mer_ray.errors import InputError
from mer_ray.settings import READING, Part, Presets

K = 4

_EMOTIONS = """
    Angry_/_Agressive Arousing_/_Awakening Bizarre_/_Weird Calming_/_Soothing Carefree_/_Lighthearted
    Cheerful_/_Festive Emotional_/_Passionate Exciting_/_Thrilling Happy Light_/_Playful Loving_/_Romantic
    Pleasant_/_Comfortable Positive_/_Optimistic Powerful_/_Strong Sad Tender_/_Soft Touching_/_Loving
"""
WORDS = {raw: raw.lower().replace("_/_", ", ").replace("agressive", "aggressive") for raw in _EMOTIONS.split()}
"""Raw emotion → published word, such as ``angry, aggressive`` ("Agressive" is the dataset's spelling)."""
VOCABULARIES = {"cal500": tuple(WORDS.values())}

_UNUSED = "Laid-back_/_Mellow"
_FILE = re.compile(r"(?P<song>.+)_\d+\.txt")
_LINE = re.compile(r'Emotion-(?P<emotion>.+?)\s*=\s*"(?P<rating>\d+(?:\.\d+)?)"')


class Settings(Part):
    """How the truth is read."""

    presets: ClassVar[Presets] = {"reference": {"cal500_truth": "reference"}}

    cal500_truth: Annotated[Literal["paper", "reference", "published"], READING] = "paper"
    """CAL500's labels from raw annotations: mean rating above 3, else the best (paper); above 4, then the
    top 5 (reference). Its published list of labels is taken as it is."""


def read(source: str, settings: Settings) -> list[Song]:
    """The songs with the truth asked for.

    ``paper`` (§4.1): mean rating over 3 of 5, else the best one. ``reference`` (reference code): the 5 best
    when any mean is over 4, else the best one; its outcome is the published list.
    """
    folder, names = _annotations(source, settings)
    if names:
        return _rated(folder, names, settings.cal500_truth)
    published = source if source.endswith(".json") else storage.join(source, "CAL500_metadata.json")
    if published != source and not storage.exists(published):
        raise InputError(f"{source}: neither annotations/<song>_NN.txt nor CAL500_metadata.json found; check --source.")
    return _published(published)


def readings(source: str, settings: Settings) -> dict[str, str]:
    """The truth that the songs carry: the one asked for, if there are raw annotations."""
    return {"cal500_truth": settings.cal500_truth if _annotations(source, settings)[1] else "published"}


def audio_key(path: str) -> str:
    """The file's name without its extension."""
    return posixpath.splitext(posixpath.basename(path))[0]


def _annotations(source: str, settings: Settings) -> tuple[str, list[str]]:
    """Where the raw annotations lie, and their names; none if there are none or nobody asks for them."""
    if not source.endswith(".json") and settings.cal500_truth != "published":
        for folder in (storage.join(source, "annotations"), source):
            fs, path = storage.filesystem(folder)
            with storage.readable(folder):
                names = [name for name in storage.names(folder) if _FILE.fullmatch(name)] if fs.isdir(path) else []
            if names:
                return folder, names
    return source, []


def _rated(folder: str, names: list[str], truth: str) -> list[Song]:
    fs, root = storage.filesystem(folder)
    with storage.readable(folder):
        # One call, so that an object store answers the small files concurrently.
        contents: dict[str, bytes] = fs.cat([f"{root}/{name}" for name in names])
    ratings: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path, content in sorted(contents.items()):
        song = _FILE.sub(r"\g<song>", posixpath.basename(path))
        lines = content.decode("utf-8", errors="replace").splitlines()
        for match in filter(None, (_LINE.match(line.strip()) for line in lines)):
            emotion = match["emotion"]
            if emotion in WORDS:
                ratings[song][WORDS[emotion]].append(float(match["rating"]))
            elif emotion != _UNUSED:
                raise InputError(f"{path}: unknown emotion {emotion!r}; fetch the annotations again.")
    songs = []
    for song in sorted({_FILE.sub(r"\g<song>", name) for name in names}):
        means = {word: sum(values) / len(values) for word, values in ratings[song].items()}
        if not means:
            raise InputError(f"{folder}: {song} has no emotion ratings; fetch the annotations again.")
        songs.append(Song(f"cal500/{song}", f"{song}.mp3", _labels(means, truth), ratings=means))
    return songs


def _labels(means: dict[str, float], truth: str) -> tuple[str, ...]:
    best_first = sorted(VOCABULARIES["cal500"], key=lambda word: -means.get(word, 0.0))
    if truth == "reference":
        return tuple(best_first[: 5 if max(means.values()) > 4 else 1])
    return tuple(word for word in best_first if means.get(word, 0.0) > 3) or tuple(best_first[:1])


def _published(uri: str) -> list[Song]:
    try:
        entries = json.loads(storage.read_text(uri)).values()
        rows = [(audio_key(str(entry["path"])), tuple(map(str, entry["mood/theme"]))) for entry in entries]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f'{uri}: not CAL500\'s published JSON ({{"0": {{"path", "mood/theme"}}}}); check --source.'
        ) from error
    return [Song(f"cal500/{name}", f"{name}.mp3", labels) for name, labels in rows]
