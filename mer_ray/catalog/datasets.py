"""The three datasets of the paper (§4.1): songs, labels and splits from their published label files.

MTG-Jamendo mood/theme (official split-0), CAL500 (raw annotations or the published processed list)
and Emotify. Nothing here looks at audio; :mod:`mer_ray.catalog.sources` joins the songs with what is there.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from mer_ray import storage
from mer_ray.errors import InputError, StorageError

SplitRule = Literal["seeded", "ordered"]
Cal500Truth = Literal["paper", "reference", "published"]

SPLITS = ("train", "validation", "test")

K = {"jamendo": 2, "cal500": 4, "emotify": 3}
"""Labels predicted per song (paper §3.5)."""

CAL500_WORDS = {
    "Angry_/_Agressive": "angry, aggressive",
    "Arousing_/_Awakening": "arousing, awakening",
    "Bizarre_/_Weird": "bizarre, weird",
    "Calming_/_Soothing": "calming, soothing",
    "Carefree_/_Lighthearted": "carefree, lighthearted",
    "Cheerful_/_Festive": "cheerful, festive",
    "Emotional_/_Passionate": "emotional, passionate",
    "Exciting_/_Thrilling": "exciting, thrilling",
    "Happy": "happy",
    "Laid-back_/_Mellow": None,
    "Light_/_Playful": "light, playful",
    "Loving_/_Romantic": "loving, romantic",
    "Pleasant_/_Comfortable": "pleasant, comfortable",
    "Positive_/_Optimistic": "positive, optimistic",
    "Powerful_/_Strong": "powerful, strong",
    "Sad": "sad",
    "Tender_/_Soft": "tender, soft",
    "Touching_/_Loving": "touching, loving",
}
"""Raw CAL500 emotion → published word ("Agressive" is the dataset's spelling); Laid-back/Mellow is unused."""

# fmt: off
VOCABULARIES: dict[str, tuple[str, ...]] = {
    "jamendo": (
        "action", "adventure", "advertising", "background", "ballad", "calm", "children", "christmas",
        "commercial", "cool", "corporate", "dark", "deep", "documentary", "drama", "dramatic", "dream",
        "emotional", "energetic", "epic", "fast", "film", "fun", "funny", "game", "groovy", "happy", "heavy",
        "holiday", "hopeful", "inspiring", "love", "meditative", "melancholic", "melodic", "motivational",
        "movie", "nature", "party", "positive", "powerful", "relaxing", "retro", "romantic", "sad", "sexy",
        "slow", "soft", "soundscape", "space", "sport", "summer", "trailer", "travel", "upbeat", "uplifting",
    ),
    "cal500": tuple(word for word in CAL500_WORDS.values() if word is not None),
    "gems": (
        "amazement", "solemnity", "tenderness", "nostalgia", "calmness", "power", "joyful_activation",
        "tension", "sadness",
    ),
}
# fmt: on
"""Built-in lists of emotion words, spelled as in the datasets; ``gems`` is Emotify's."""

_JAMENDO_PREFIX = "mood/theme---"
_EMOTIFY_OFFSET = {"classical": 0, "rock": 100, "electronic": 200, "pop": 300}
_ANNOTATION_FILE = re.compile(r"(?P<song>.+)_\d+\.txt")
_ANNOTATION_LINE = re.compile(r'Emotion-(?P<emotion>.+?)\s*=\s*"(?P<rating>\d+(?:\.\d+)?)"')


@dataclass(frozen=True)
class Song:
    """A labelled song; ``path`` is its published place below the audio folder."""

    track_id: str
    path: str
    labels: tuple[str, ...]
    split: str = "train"


@dataclass(frozen=True)
class Dataset:
    """The songs of a dataset in storage order, and the readings of the paper that chose labels and splits."""

    name: str
    songs: tuple[Song, ...]
    readings: dict[str, str]


def top_k(dataset: str | None, labels_per_song: Iterable[int]) -> int:
    """How many labels to predict (paper §3.5): the dataset's k, else its mean count of labels, rounded, ≥ 1.

    ``labels_per_song`` holds one count a song. Halves round up.
    """
    if dataset in K:
        return K[dataset]
    counts = list(labels_per_song)
    return max(1, math.floor(sum(counts) / len(counts) + 0.5)) if counts else 1


def split_songs(
    n: int, seed: int, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1), ordered: bool = False
) -> list[str]:
    """A split name for each of ``n`` songs; whole songs, so no song is cut across splits (paper §4.1).

    A wanted split gets at least one song, unless there are too few for all; then every song is ``train``.
    Seeded draws rank a hash of seed and position: the same on every machine and Python version.
    ``ordered`` takes the first songs for training, the next for validation, the last for test.
    """
    validation, test = (max(1, math.floor(n * part + 0.5)) if part > 0 else 0 for part in fractions[1:])
    train = n - validation - test
    if train < (1 if fractions[0] > 0 else 0):
        return ["train"] * n
    names = ["train"] * train + ["validation"] * validation + ["test"] * test
    if ordered:
        return names
    order = sorted(range(n), key=lambda index: hashlib.sha256(f"{seed}/{index}".encode()).digest())
    drawn = [""] * n
    for name, index in zip(names, order, strict=True):
        drawn[index] = name
    return drawn


def read_dataset(
    name: str, source: str, *, split: SplitRule = "seeded", seed: int = 0, cal500_truth: Cal500Truth = "paper"
) -> Dataset:
    """Read ``jamendo``, ``cal500`` or ``emotify`` from its label files at a local or ``s3://`` URI.

    MTG-Jamendo has official splits, whatever ``split`` says. The others are split 80/10/10 by song:
    ``seeded`` depends on the songs' ids and the seed alone, ``ordered`` on their order in the label files.
    Raises :class:`InputError` when the files are missing or not what they should be.
    """
    if name == "jamendo":
        return Dataset(name, tuple(read_jamendo(source)), {"split": "official"})
    readings = {"split": f"seeded:{seed}" if split == "seeded" else split}
    if name == "cal500":
        songs, readings["cal500_truth"] = read_cal500(source, cal500_truth)
    elif name == "emotify":
        songs = read_emotify(source)
    else:
        raise InputError(f"Unknown dataset {name!r} for {source}; choose jamendo, cal500, emotify or none.")
    return Dataset(name, tuple(_with_splits(songs, split, seed)), readings)


def audio_key(dataset: str, path: str) -> str:
    """What a dataset's audio file is recognised by, wherever it lies and however it is encoded.

    MTG-Jamendo ``48/948`` (also from ``48/948.low.mp3``), CAL500 ``<song>``, Emotify ``<genre>/<n>``.
    """
    stem = posixpath.splitext(path)[0]
    if dataset == "jamendo":
        stem = stem.removesuffix(".low")
    return "/".join(stem.split("/")[-audio_depth(dataset) :])


def audio_depth(dataset: str) -> int:
    """How many parts of an audio path tell one song of the dataset from another."""
    return 1 if dataset == "cal500" else 2


def read_jamendo(source: str) -> list[Song]:
    """MTG-Jamendo mood/theme: ``autotagging_moodtheme-{train,validation,test}.tsv`` of a split folder."""
    songs = []
    for split in SPLITS:
        uri = storage.join(source, f"autotagging_moodtheme-{split}.tsv")
        rows = csv.reader(io.StringIO(_text(uri)), delimiter="\t", quoting=csv.QUOTE_NONE)
        for number, fields in enumerate(rows, start=1):
            if number > 1 and fields:
                songs.append(_jamendo_song(fields, split, f"{uri} line {number}"))
    return songs


def _jamendo_song(fields: Sequence[str], split: str, place: str) -> Song:
    tags = fields[5:]
    labels = tuple(tag.removeprefix(_JAMENDO_PREFIX) for tag in tags if tag.startswith(_JAMENDO_PREFIX))
    number = fields[0].removeprefix("track_")
    if not labels or not number.isdigit():
        raise InputError(f"{place}: not a track with {_JAMENDO_PREFIX} tags; fetch the official split-0 again.")
    return Song(f"jamendo/{int(number)}", fields[3], labels, split)


def read_cal500(source: str, truth: Cal500Truth = "paper") -> tuple[list[Song], str]:
    """CAL500's songs and the truth they carry: a rule over raw annotations, or ``published``.

    ``source`` is a ``.json`` of the published form, or a folder with ``annotations/<song>_NN.txt``, with
    those files themselves, or with ``CAL500_metadata.json``. ``paper`` (§4.1): mean rating over 3 of 5,
    else the best one. ``reference`` (reference code): the 5 best when any mean is over 4, else the best
    one; its outcome is the published list. Without raw annotations the published list is taken.
    """
    if source.endswith(".json"):
        return _published_cal500(source), "published"
    folder, names = _annotations(source)
    if names and truth != "published":
        return _rated_cal500(folder, names, truth), truth
    published = storage.join(source, "CAL500_metadata.json")
    if not storage.exists(published):
        raise InputError(f"{source}: neither annotations/<song>_NN.txt nor CAL500_metadata.json found; check --source.")
    return _published_cal500(published), "published"


def _annotations(source: str) -> tuple[str, list[str]]:
    for folder in (storage.join(source, "annotations"), source):
        fs, path = storage.filesystem(folder)
        with readable(folder):
            names = [posixpath.basename(name) for name in fs.ls(path, detail=False)] if fs.isdir(path) else []
        found = sorted(name for name in names if _ANNOTATION_FILE.fullmatch(name))
        if found:
            return folder, found
    return source, []


def _rated_cal500(folder: str, names: list[str], truth: Cal500Truth) -> list[Song]:
    fs, root = storage.filesystem(folder)
    with readable(folder):
        # One call, so that an object store answers the small files concurrently.
        contents: dict[str, bytes] = fs.cat([f"{root}/{name}" for name in names])
    ratings: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path, content in sorted(contents.items()):
        match = _ANNOTATION_FILE.fullmatch(posixpath.basename(path))
        assert match is not None
        for emotion, rating in _annotation(content, path):
            ratings[match["song"]][emotion].append(rating)
    songs = []
    for song in sorted({_ANNOTATION_FILE.sub(r"\g<song>", name) for name in names}):
        means = {word: sum(values) / len(values) for word, values in ratings[song].items()}
        if not means:
            raise InputError(f"{folder}: {song} has no emotion ratings; fetch the annotations again.")
        songs.append(Song(f"cal500/{song}", f"{song}.mp3", _cal500_labels(means, truth)))
    return songs


def _annotation(content: bytes, path: str) -> Iterator[tuple[str, float]]:
    for line in content.decode("utf-8", errors="replace").splitlines():
        match = _ANNOTATION_LINE.match(line.strip())
        if match is None:
            continue
        if match["emotion"] not in CAL500_WORDS:
            raise InputError(f"{path}: unknown emotion {match['emotion']!r}; fetch the annotations again.")
        word = CAL500_WORDS[match["emotion"]]
        if word is not None:
            yield word, float(match["rating"])


def _cal500_labels(means: dict[str, float], truth: Cal500Truth) -> tuple[str, ...]:
    best_first = sorted(VOCABULARIES["cal500"], key=lambda word: -means.get(word, 0.0))
    if truth == "reference":
        return tuple(best_first[: 5 if max(means.values()) > 4 else 1])
    return tuple(word for word in best_first if means.get(word, 0.0) > 3) or tuple(best_first[:1])


def _published_cal500(uri: str) -> list[Song]:
    try:
        entries = json.loads(_text(uri)).values()
        rows = [(str(entry["path"]), tuple(map(str, entry["mood/theme"]))) for entry in entries]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f'{uri}: not CAL500\'s published JSON ({{"0": {{"path", "mood/theme"}}}}); check --source.'
        ) from error
    stems = ((posixpath.splitext(posixpath.basename(path))[0], labels) for path, labels in rows)
    return [Song(f"cal500/{stem}", f"{stem}.mp3", labels) for stem, labels in stems]


def read_emotify(source: str) -> list[Song]:
    """Emotify (Aljanaki et al. 2016): the 3 GEMS words with most votes; ties in column order (paper §4.1).

    ``source`` is ``data.csv`` or its folder; audio is ``emotifymusic/<genre>/<n>.mp3``, n = 1…100.
    """
    uri = source if source.endswith(".csv") else storage.join(source, "data.csv")
    reader = csv.DictReader(io.StringIO(_text(uri)))
    reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
    gems = VOCABULARIES["gems"]
    missing = [name for name in ("track id", "genre", *gems) if name not in reader.fieldnames]
    if missing:
        raise InputError(f"{uri}: no column {missing[0]!r}; fetch Emotify's data.csv again.")
    votes: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0] * len(gems))
    for row in reader:
        try:
            song = votes[int(row["track id"]), row["genre"].strip()]
            for column, word in enumerate(gems):
                song[column] += int(row[word])
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{uri} line {reader.line_num}: not a listener's votes; mend it.") from error
    return [_emotify_song(track, genre, votes[track, genre], uri) for track, genre in sorted(votes)]


def _emotify_song(track: int, genre: str, votes: Sequence[int], uri: str) -> Song:
    number = track - _EMOTIFY_OFFSET.get(genre, track)
    if not 1 <= number <= 100:
        raise InputError(f"{uri}: track {track} cannot be {genre!r}; fetch Emotify's data.csv again.")
    most_voted = sorted(zip(VOCABULARIES["gems"], votes, strict=True), key=lambda pair: -pair[1])
    labels = tuple(word for word, _ in most_voted[: K["emotify"]])
    return Song(f"emotify/{track}", f"emotifymusic/{genre}/{number}.mp3", labels)


def _with_splits(songs: list[Song], split: SplitRule, seed: int) -> list[Song]:
    """Give each song its split; a seeded one by its place among the sorted ids, whatever the file's order."""
    names = split_songs(len(songs), seed, ordered=split == "ordered")
    places: Iterable[int] = range(len(songs))
    if split == "seeded":
        rank = {track_id: place for place, track_id in enumerate(sorted(song.track_id for song in songs))}
        places = [rank[song.track_id] for song in songs]
    return [
        Song(song.track_id, song.path, song.labels, names[place]) for song, place in zip(songs, places, strict=True)
    ]


@contextmanager
def readable(uri: str) -> Iterator[None]:
    """Turn a failure to read ``uri`` into the user's error."""
    try:
        with storage.guarded(uri):
            yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{uri}: not found; check the path.") from error
    except OSError as error:
        raise InputError(f"{uri}: cannot be read ({error}); check the path and its permissions.") from error


def _text(uri: str) -> str:
    with readable(uri):
        return storage.read_bytes(uri).decode("utf-8-sig", errors="replace")
