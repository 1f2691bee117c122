"""Where songs come from: a folder or prefix, a table, or a dataset with its audio; each becomes a manifest."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import posixpath
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from mer_ray import storage
from mer_ray.catalog.datasets import DOOR, Song, SplitRule, draw_splits
from mer_ray.catalog.manifest import NAMES, make_manifest, read_parquet
from mer_ray.errors import InputError
from mer_ray.settings import READING, Part, marked, part_of
from mer_ray.uris import without_credentials

_AUDIO = ".mp3 .flac .wav .wave .ogg .oga .opus .m4a .mp4 .aac .alac .aif .aiff .aifc .wma"
AUDIO_EXTENSIONS = frozenset(_AUDIO.split())
TABLE_EXTENSIONS = (".csv", ".tsv", ".parquet")
_RATING = "rating:"


def build_manifest(
    source: str,
    dataset: str = "none",
    audio: str | None = None,
    *,
    settings: Part | None = None,
    split: SplitRule = "seeded",
    seed: int = 0,
) -> pa.Table:
    """The manifest of a dataset's label files, or for ``none`` of a table, folder or prefix.

    ``audio`` is where a dataset's audio lies, or what a table's relative uris start from, else beside the source. A
    dataset's audio is found anywhere below by what names the song; a song without has no size, and the uri where it
    should be.

    Raises:
        InputError: the source is missing, malformed or empty.
    """
    if dataset == DOOR.nothing and source.lower().endswith(TABLE_EXTENSIONS) and not is_folder(source):
        return read_catalog_table(source, audio)
    if dataset == DOOR.nothing:
        if audio is not None:
            raise InputError(f"{source}: a folder's songs are its own audio; leave out --audio {audio}.")
        return scan_folder(source)
    songs, readings, audio_key = _read_dataset(dataset, source, settings or part_of(DOOR, dataset)())
    splits: Sequence[str | None] = [song.split for song in songs]
    reading = "official"
    if not any(splits):
        splits, reading = draw_splits([song.track_id for song in songs], split, seed)
    beside = source if audio or is_folder(source) else posixpath.dirname(storage.absolute(source))
    root = storage.absolute(audio or beside).rstrip("/")
    listed = list_audio(root)
    if audio is not None and not listed and not storage.exists(root):
        raise InputError(f"{audio}: no such audio folder; check --audio.")
    paths = _audio_paths(songs, audio_key, posixpath.basename(root), listed)
    columns = {
        "track_id": [song.track_id for song in songs],
        "uri": [f"{root}/{path}" for path in paths],
        "dataset": [dataset.rpartition(".")[2]] * len(songs),
        "split": splits,
        "labels": [list(song.labels) for song in songs],
        "ratings": [_as_ratings(song.ratings) for song in songs],
        **_known([listed.get(path, Listed()) for path in paths]),
    }
    return make_manifest(columns, source, {"split": reading, **readings})


def load_catalog(uri: str) -> pa.Table:
    """A manifest from what ``--catalog`` names: a manifest or table (Parquet, CSV, TSV), folder or prefix."""
    return build_manifest(uri)


def scan_folder(source: str) -> pa.Table:
    """Every audio file below a folder or ``s3://`` prefix, by extension; ids are the paths below it, sorted.

    Hidden names (``.x``) and ``_run`` folders are passed over; linked folders are followed.
    """
    listed = list_audio(source)
    names = sorted(listed)
    root = storage.absolute(source).rstrip("/")
    rows = {"uri": [f"{root}/{name}" for name in names], **_known([listed[name] for name in names])}
    return make_manifest({"track_id": names, **rows}, source)


class Listed(NamedTuple):
    """What a listing says of a file: bytes, and the storage's name for its content; None where it does not."""

    size: int | None = None
    etag: str | None = None


def _known(files: Sequence[Listed]) -> dict[str, list[Any]]:
    return {"size_bytes": [file.size for file in files], "etag": [file.etag for file in files]}


def list_audio(source: str) -> dict[str, Listed]:
    """Path below ``source`` → what is known of it, for every audio file, in one listing. A broken link has no size."""
    return {name: listed for name, listed in _list_files(source) if _is_audio(name)}


def passed_over(source: str) -> dict[str, int]:
    """How many files of a folder or prefix are not songs by their names, by extension; hidden ones are not counted."""
    names = (name for name, _ in _list_files(source) if not any(_is_hidden(part) for part in name.split("/")))
    others = Counter(posixpath.splitext(name)[1].lower() or "no extension" for name in names if not _is_audio(name))
    return dict(others.most_common())


def same_audio(manifest: pa.Table) -> list[list[str]]:
    """The ids of songs whose files are the same byte for byte, in groups.

    Of local files those of one size are read; on S3 size and ETag say it, but for files put there in other pieces.
    """
    sizes: dict[int, list[tuple[str, str]]] = defaultdict(list)
    groups: dict[object, list[str]] = defaultdict(list)
    for song in manifest.select(["track_id", "uri", "size_bytes", "etag"]).to_pylist():
        if storage.is_s3(song["uri"]):
            if song["etag"] and song["size_bytes"]:
                groups[song["etag"], song["size_bytes"]].append(song["track_id"])
        elif song["size_bytes"]:
            sizes[song["size_bytes"]].append((song["track_id"], song["uri"]))
    for alike in sizes.values():
        for track_id, path in alike if len(alike) > 1 else ():
            with storage.readable(path), open(path, "rb") as file:
                groups[hashlib.file_digest(file, "sha256").hexdigest()].append(track_id)
    return [ids for ids in groups.values() if len(ids) > 1]


def _list_files(source: str) -> Iterator[tuple[str, Listed]]:
    with storage.readable(source):
        fs, root = storage.filesystem(source)
        if not storage.is_s3(source):
            yield from ((name, Listed(size)) for name, size in _list_local(root))
            return
        for path, info in fs.find(root, detail=True).items():
            yield path[len(root) + 1 :], Listed(info.get("size"), _etag(info))


def _etag(info: dict[str, Any]) -> str | None:
    return str(info["ETag"]).strip('"') if info.get("ETag") else None


def _list_local(root: str) -> Iterator[tuple[str, int | None]]:
    """Walk a local folder; an unreadable folder is an error, since its songs would be left out unseen."""
    if os.path.isfile(root):
        raise NotADirectoryError("neither a folder nor a CSV, TSV or Parquet table")

    def fail(error: OSError) -> None:
        raise error

    visited: set[str] = set()
    for folder, folders, names in os.walk(root, onerror=fail, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        for name in names:
            path = os.path.join(folder, name)
            size = os.path.getsize(path) if os.path.exists(path) else None
            yield os.path.relpath(path, root).replace(os.sep, "/"), size


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "_run"


def _is_audio(path: str) -> bool:
    extension = posixpath.splitext(path)[1].lower()
    return extension in AUDIO_EXTENSIONS and not any(_is_hidden(part) for part in path.split("/"))


def is_folder(source: str) -> bool:
    """Whether a source is a folder or prefix, whose files are its songs."""
    fs, path = storage.filesystem(source)
    with storage.readable(source):
        return bool(fs.isdir(path))


def read_catalog_table(source: str, audio: str | None = None) -> pa.Table:
    """A CSV, TSV or Parquet table of songs: ``uri``, optionally the manifest's other columns.

    A relative uri starts from ``audio``, by default the table's folder. Without ``track_id`` the id is
    the path below it, or the whole path of a uri elsewhere. Labels are a list in Parquet; in text they are
    separated by ``|`` if the cell has one, else by ``;`` if it has one, else by ``,``. So a label that
    holds a comma needs ``|``, if only at its end: ``calming, soothing|``. A column ``rating:calm`` holds how strongly
    listeners heard that label, a number or nothing; in Parquet ``ratings`` holds all of a song's as {label, rating}.
    """
    columns = _columns(source)
    if "uri" not in columns:
        raise InputError(f"{source}: no column 'uri' among {', '.join(columns) or 'none'}; name one so.")
    base = storage.absolute(audio or posixpath.dirname(storage.absolute(source))).rstrip("/")
    uris = [_resolve(_cell(uri), base, f"{source} row {row}") for row, uri in enumerate(columns["uri"], 1)]
    given = columns.get("track_id", [None] * len(uris))
    below = [uri.removeprefix(f"{base}/").removeprefix("s3://").lstrip("/") for uri in uris]
    ids = [_cell(name) or default for name, default in zip(given, below, strict=True)]
    rows: dict[str, list[Any]] = {"track_id": ids, "uri": uris}
    texts = dict.fromkeys(("dataset", "split", "etag", *NAMES), _cell)
    readers = {"labels": _labels, "size_bytes": _size, **texts}
    rows |= {name: [read(value) for value in columns[name]] for name, read in readers.items() if name in columns}
    rated = {name.removeprefix(_RATING): columns[name] for name in columns if name.startswith(_RATING)}
    if rated:
        each = [dict(zip(rated, values, strict=True)) for values in zip(*rated.values(), strict=True)]
        rows["ratings"] = [_as_ratings(_ratings(one, f"{source} row {row}")) for row, one in enumerate(each, 1)]
    elif "ratings" in columns:
        rows["ratings"] = columns["ratings"]
    return make_manifest(rows, source)


def _columns(source: str) -> dict[str, list[Any]]:
    if source.lower().endswith(".parquet"):
        columns: dict[str, list[Any]] = read_parquet(source).to_pydict()
        return columns
    text = io.StringIO(storage.read_text(source), newline="")
    rows = csv.reader(text, delimiter="\t" if source.lower().endswith(".tsv") else ",")
    header, *lines = [row for row in rows if row] or [[]]
    for number, line in enumerate(lines, 1):
        if len(line) != len(header):
            raise InputError(
                f"{source} row {number}: {len(line)} cells under {len(header)} columns; "
                f"quote cells that hold the separator."
            )
    return {name.strip(): [line[at] for line in lines] for at, name in enumerate(header)}


def _cell(value: Any) -> str | None:
    text = "" if value is None else str(value).strip()
    return text or None


def _size(value: Any) -> int | None:
    text = _cell(value) or ""
    return int(text) if text.isdigit() else None


def _ratings(cells: Mapping[str, Any], row: str) -> dict[str, float]:
    found = {label: text for label, cell in cells.items() if (text := _cell(cell)) is not None}
    try:
        return {label: float(text) for label, text in found.items()}
    except ValueError as error:
        raise InputError(f"{row}: a rating is no number ({error}); leave it empty where it is not known.") from error


def _as_ratings(ratings: Mapping[str, float] | None) -> list[dict[str, Any]] | None:
    """A song's ratings as the manifest holds them; None where there are none."""
    return [{"label": label, "rating": rating} for label, rating in ratings.items()] if ratings else None


def _labels(value: Any) -> list[str] | None:
    if isinstance(value, list):
        return [str(label) for label in value if label]
    text = _cell(value) or ""
    separator = next((mark for mark in "|;" if mark in text), ",")
    return [label.strip() for label in text.split(separator) if label.strip()] if text else None


def _resolve(uri: str | None, base: str, row: str) -> str:
    if uri is None:
        raise InputError(f"{row}: no uri; fill it in or drop the row.")
    without_credentials(uri)
    if "://" in uri and not uri.startswith(("s3://", "file://")):
        raise InputError(f"{row}: {uri} is neither a path nor s3://; copy the audio to one of these.")
    if uri.startswith(("s3://", "file://", "/", "~")):
        return storage.absolute(uri)
    scheme = "s3://" if storage.is_s3(base) else ""
    return scheme + posixpath.normpath(f"{base.removeprefix('s3://')}/{uri}")


def _read_dataset(value: str, source: str, settings: Part) -> tuple[list[Song], dict[str, str], Callable[[str], str]]:
    """What the module of a dataset knows: its songs, the readings that chose their labels, and its ``audio_key``."""
    module, word = DOOR.find(value)
    if word:
        raise InputError(f"--dataset {value}: a dataset takes no word behind a colon; leave out ':{word}'.")
    with storage.readable(source):
        songs = module.read(source, settings)
        stated = {name: str(getattr(settings, name)) for name in marked(settings, READING)}
        readings = module.readings(source, settings) if hasattr(module, "readings") else stated
    for song in songs if isinstance(songs, list) else [songs]:
        match song:
            case Song(str(), str(), list() | tuple()) if all(isinstance(label, str) for label in song.labels):
                continue
        told = " ".join(repr(song).split())
        raise InputError(f"--dataset {value}: read gave {told:.100}; give a list of Song(track_id, path, labels).")
    if module.__name__ == value and hasattr(module, "K"):  # the manifest's short name does not lead to it
        readings["k"] = f"{module.K:d}"
    return songs, readings, getattr(module, "audio_key", lambda path: posixpath.splitext(path)[0])


def _audio_paths(
    songs: Sequence[Song], audio_key: Callable[[str], str], root: str, listed: Collection[str]
) -> list[str]:
    """Each song's path below the root: where it was found, else beside those that were."""
    found: dict[str, str] = {}
    # The published place before a copy deeper down, the full file before Jamendo's longer-named low-bitrate one.
    for path in sorted(listed, key=lambda path: (path.count("/"), path.rfind(".") - path.rfind("/"), path)):
        found.setdefault(audio_key(path), path)
    keys = [audio_key(song.path) for song in songs]
    depths = [key.count("/") + 1 for key in keys]  # how many parts of a path tell one song from another
    base = next((found[key].split("/")[:-depth] for key, depth in zip(keys, depths, strict=True) if key in found), None)
    paths = []
    for song, key, depth in zip(songs, keys, depths, strict=True):
        beside = song.path.removeprefix(f"{root}/") if base is None else "/".join(base + song.path.split("/")[-depth:])
        paths.append(found.get(key, beside))
    return paths
