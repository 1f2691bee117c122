"""Where songs come from: a folder or prefix, a table, or a dataset; and the manifest they become.

The manifest is one row a song (:data:`MANIFEST_SCHEMA`): ``track_id``, unique, and ``uri``; what is not
known of ``dataset``, ``split``, ``labels`` and ``size_bytes`` is null. The same source gives the same
bytes. Its schema metadata ``mer_ray.catalog.sources`` says which readings of the paper chose labels and splits.
"""

from __future__ import annotations

import csv
import io
import json
import os
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray import storage
from mer_ray.catalog.datasets import (
    SPLITS,
    Cal500Truth,
    Dataset,
    Song,
    SplitRule,
    audio_depth,
    audio_key,
    read_dataset,
    readable,
)
from mer_ray.errors import InputError, without_credentials

MANIFEST_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("uri", pa.string()),
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("size_bytes", pa.int64()),
    ]
)
# fmt: off
AUDIO_EXTENSIONS = frozenset((
    ".mp3", ".flac", ".wav", ".wave", ".ogg", ".oga", ".opus", ".m4a", ".mp4",
    ".aac", ".alac", ".aif", ".aiff", ".aifc", ".wma",
))
# fmt: on
TABLE_EXTENSIONS = (".csv", ".tsv", ".parquet")
_READINGS = b"mer_ray.catalog"


@dataclass(frozen=True)
class CatalogResult:
    """A manifest, and how many of its songs have no audio where they should."""

    table: pa.Table
    missing: int = 0


def build_manifest(
    source: str,
    dataset: str = "none",
    audio: str | None = None,
    *,
    split: SplitRule = "seeded",
    seed: int = 0,
    cal500_truth: Cal500Truth = "paper",
) -> CatalogResult:
    """The manifest of a source: of a dataset's label files, or for ``none`` of a table, folder or prefix.

    ``audio`` is where a dataset's audio lies, or what a table's relative uris start from; by default both
    lie beside the source. Raises :class:`InputError` for a source that is missing, malformed or empty.
    """
    if dataset != "none":
        return dataset_manifest(dataset, source, audio, split=split, seed=seed, cal500_truth=cal500_truth)
    if _is_table(source):
        return CatalogResult(read_catalog_table(source, audio))
    if audio is not None:
        raise InputError(f"{source}: a folder's songs are its own audio; leave out --audio {audio}.")
    return CatalogResult(scan_folder(source))


def load_catalog(uri: str) -> pa.Table:
    """A manifest from what ``--catalog`` names: a manifest or table (Parquet, CSV, TSV), folder or prefix."""
    return build_manifest(uri).table


def scan_folder(source: str) -> pa.Table:
    """Every audio file below a folder or ``s3://`` prefix, by extension; ids are the paths below it, sorted.

    Hidden names (``.x``) and ``_run`` folders are passed over; linked folders are followed.
    """
    sizes = list_audio(source)
    names = sorted(sizes)
    root = storage.absolute(source).rstrip("/")
    rows = {"uri": [f"{root}/{name}" for name in names], "size_bytes": [sizes[name] for name in names]}
    return _manifest({"track_id": names, **rows}, source)


def list_audio(source: str) -> dict[str, int | None]:
    """Path below ``source`` → bytes, for every audio file, in one listing. A broken link has no size."""
    with readable(source):
        found = _list_objects(source) if storage.is_s3(source) else _list_local(source)
    return {name: size for name, size in found if _is_audio(name)}


def _list_objects(source: str) -> list[tuple[str, int | None]]:
    fs, root = storage.filesystem(source)
    objects = fs.find(root, detail=True)
    return [(path[len(root) + 1 :], info.get("size")) for path, info in objects.items() if path != root]


def _list_local(source: str) -> list[tuple[str, int | None]]:
    """Walk a local folder; an unreadable folder is an error, since its songs would be left out unseen."""
    _, root = storage.filesystem(source)
    if os.path.isfile(root):
        raise NotADirectoryError("neither a folder nor a CSV, TSV or Parquet table")
    if not os.path.isdir(root):
        raise FileNotFoundError(root)
    found: list[tuple[str, int | None]] = []
    visited: set[str] = set()
    for folder, folders, names in os.walk(root, onerror=_raise, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in visited else sorted(name for name in folders if not _is_hidden(name))
        if real not in visited:
            paths = [os.path.join(folder, name) for name in names]
            found += [(os.path.relpath(path, root).replace(os.sep, "/"), _local_size(path)) for path in paths]
        visited.add(real)
    return found


def _raise(error: OSError) -> None:
    raise error


def _local_size(path: str) -> int | None:
    try:
        return os.path.getsize(path)
    except OSError:
        return None


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "_run"


def _is_audio(path: str) -> bool:
    extension = posixpath.splitext(path)[1].lower()
    return extension in AUDIO_EXTENSIONS and not any(_is_hidden(part) for part in path.split("/"))


def _is_table(source: str) -> bool:
    if not source.lower().endswith(TABLE_EXTENSIONS):
        return False
    fs, path = storage.filesystem(source)
    with readable(source):
        return not fs.isdir(path)


def read_catalog_table(source: str, audio: str | None = None) -> pa.Table:
    """A CSV, TSV or Parquet table of songs: ``uri``, optionally the manifest's other columns.

    A relative uri starts from ``audio``, by default the table's folder. Without ``track_id`` the id is
    the path below it, or the whole path of a uri elsewhere. Labels are a list in Parquet; in text they are
    separated by ``|`` if the cell has one, else by ``;`` if it has one, else by ``,``. So a label that
    holds a comma needs ``|``, if only at its end: ``calming, soothing|``.
    """
    columns = _columns(source)
    if "uri" not in columns:
        raise InputError(f"{source}: no column 'uri' among {', '.join(columns) or 'none'}; name one so.")
    base = storage.absolute(audio or posixpath.dirname(storage.absolute(source))).rstrip("/")
    uris = [_resolve(_cell(uri), base, f"{source} row {row}") for row, uri in enumerate(columns["uri"], 1)]
    given = columns.get("track_id", [None] * len(uris))
    ids = [_cell(name) or _default_id(uri, base) for name, uri in zip(given, uris, strict=True)]
    rows: dict[str, Sequence[Any]] = {"track_id": ids, "uri": uris}
    readers: dict[str, Callable[[Any], Any]] = {
        "dataset": _cell,
        "split": _cell,
        "labels": _labels,
        "size_bytes": _size,
    }
    for name in readers.keys() & columns.keys():
        rows[name] = [readers[name](value) for value in columns[name]]
    return _manifest(rows, source)


def _columns(source: str) -> dict[str, list[Any]]:
    with readable(source):
        if source.lower().endswith(".parquet"):
            columns: dict[str, list[Any]] = _read_parquet(source).to_pydict()
            return columns
        text = storage.read_bytes(source).decode("utf-8-sig", errors="replace")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if source.lower().endswith(".tsv") else ",")
    header, *lines = [row for row in rows if row] or [[]]
    for number, line in enumerate(lines, 1):
        if len(line) != len(header):
            raise InputError(
                f"{source} row {number}: {len(line)} cells under {len(header)} columns; "
                f"quote cells that hold the separator."
            )
    return {name.strip(): [line[place] for line in lines] for place, name in enumerate(header)}


def _read_parquet(uri: str) -> pa.Table:
    try:
        return storage.read_table(uri)
    except pa.ArrowException as error:
        raise InputError(f"{uri}: not a Parquet file; write it again.") from error


def _cell(value: Any) -> str | None:
    text = "" if value is None else str(value).strip()
    return text or None


def _size(value: Any) -> int | None:
    text = _cell(value)
    return int(text) if text is not None and text.isdigit() else None


def _labels(value: Any) -> list[str] | None:
    if isinstance(value, list):
        return [str(label) for label in value if label]
    text = _cell(value)
    if text is None:
        return None
    separator = next((mark for mark in "|;" if mark in text), ",")
    return [label.strip() for label in text.split(separator) if label.strip()]


def _resolve(uri: str | None, base: str, place: str) -> str:
    if uri is None:
        raise InputError(f"{place}: no uri; fill it in or drop the row.")
    without_credentials(uri)
    if "://" in uri and not uri.startswith(("s3://", "file://")):
        raise InputError(f"{place}: {uri} is neither a path nor s3://; copy the audio to one of these.")
    if uri.startswith(("s3://", "file://", "/", "~")):
        return storage.absolute(uri)
    scheme = "s3://" if storage.is_s3(base) else ""
    return scheme + posixpath.normpath(f"{base.removeprefix('s3://')}/{uri}")


def _default_id(uri: str, base: str) -> str:
    return uri.removeprefix(f"{base}/").removeprefix("s3://").lstrip("/")


def dataset_manifest(
    name: str,
    labels_source: str,
    audio_source: str | None = None,
    *,
    split: SplitRule = "seeded",
    seed: int = 0,
    cal500_truth: Cal500Truth = "paper",
) -> CatalogResult:
    """A dataset's songs, each with its audio; a song without keeps its row, the uri where it should be.

    Audio is found anywhere below ``audio_source`` (default: where the labels are) by what names the song.
    """
    dataset = read_dataset(name, labels_source, split=split, seed=seed, cal500_truth=cal500_truth)
    root = storage.absolute(audio_source or _folder(labels_source)).rstrip("/")
    sizes = list_audio(root)
    if audio_source is not None and not sizes and not storage.exists(root):
        raise InputError(f"{audio_source}: no such audio folder; check --audio.")
    paths = _audio_paths(dataset, root, sizes)
    columns = {
        "track_id": [song.track_id for song in dataset.songs],
        "uri": [f"{root}/{path}" for path in paths],
        "dataset": [name] * len(paths),
        "split": [song.split for song in dataset.songs],
        "labels": [list(song.labels) for song in dataset.songs],
        "size_bytes": [sizes.get(path) for path in paths],
    }
    table = _manifest(columns, labels_source, dataset.readings)
    return CatalogResult(table, sum(path not in sizes for path in paths))


def _folder(source: str) -> str:
    return posixpath.dirname(storage.absolute(source)) if source.endswith((".csv", ".json")) else source


def _audio_paths(dataset: Dataset, root: str, sizes: dict[str, int | None]) -> list[str]:
    """Each song's path below the root: where it was found, else beside those that were."""
    found: dict[str, str] = {}
    # The full file before the low-bitrate one, the published place before a copy deeper down.
    for path in sorted(sizes, key=lambda path: (path.count("/"), ".low." in path, path)):
        found.setdefault(audio_key(dataset.name, path), path)
    keys = [audio_key(dataset.name, song.path) for song in dataset.songs]
    depth = audio_depth(dataset.name)
    present = next((found[key] for key in keys if key in found), None)
    base = None if present is None else present.split("/")[:-depth]
    return [
        found.get(key) or _expected(song, base, depth, posixpath.basename(root))
        for key, song in zip(keys, dataset.songs, strict=True)
    ]


def _expected(song: Song, base: list[str] | None, depth: int, root_name: str) -> str:
    if base is None:
        return song.path.removeprefix(f"{root_name}/")
    return "/".join([*base, *song.path.split("/")[-depth:]])


def read_manifest(uri: str) -> pa.Table:
    """Read a manifest as it was written; absent optional columns are added as nulls, others dropped.

    Raises :class:`InputError` when it is missing, empty, no Parquet, or its ids are not unique.
    """
    with readable(uri):
        table = _read_parquet(uri)
    for name in ("track_id", "uri"):
        if name not in table.column_names:
            raise InputError(f"{uri}: no column {name!r}; make a manifest of it with jobs/catalog.py.")
    columns = {name: table[name] for name in MANIFEST_SCHEMA.names if name in table.column_names}
    readings = catalog_readings(table)
    return _manifest(columns, uri, readings)


def catalog_readings(manifest: pa.Table) -> dict[str, str]:
    """Which readings of the paper chose a manifest's labels and splits, as it states them."""
    stated = (manifest.schema.metadata or {}).get(_READINGS)
    return dict(json.loads(stated)) if stated else {}


def write_manifest(uri: str, table: pa.Table) -> None:
    """Write a manifest as Parquet to a local or ``s3://`` URI, whole or not at all."""
    storage.write_table(uri, table)


def _manifest(columns: dict[str, Any], source: str, readings: dict[str, str] | None = None) -> pa.Table:
    """Cast columns to the manifest's schema and hold them to its contract."""
    rows = len(columns["track_id"])
    if not rows:
        raise InputError(f"{source}: no songs found; check the path and the file extensions.")
    arrays = []
    try:
        for field in MANIFEST_SCHEMA:
            values = columns.get(field.name)
            if isinstance(values, pa.ChunkedArray):
                arrays.append(values.cast(field.type))
            else:
                arrays.append(pa.nulls(rows, field.type) if values is None else pa.array(values, field.type))
    except UnicodeEncodeError as error:
        raise InputError(f"{source}: the name {error.object!a} is not UTF-8; rename the file.") from error
    except pa.ArrowException as error:
        raise InputError(f"{source}: column {field.name} is malformed ({error}); mend it.") from error
    schema = MANIFEST_SCHEMA.with_metadata({_READINGS: json.dumps(readings)} if readings else None)
    table = pa.Table.from_arrays(arrays, schema=schema)
    _check(table, source)
    return table


def _check(table: pa.Table, source: str) -> None:
    for name in ("track_id", "uri"):
        if table[name].null_count:
            raise InputError(f"{source}: a row has no {name}; fill it in or drop the row.")
    uris, ids = table["uri"], table["track_id"]
    for uri in uris.filter(pc.match_substring(uris, "@")).to_pylist():
        without_credentials(uri)
    if pc.count_distinct(ids).as_py() < len(ids):
        counts = pc.value_counts(ids)
        repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))[0].as_py()
        raise InputError(f"{source}: track_id {repeated!r} stands more than once; give each song its own.")
    unknown = sorted(set(pc.unique(table["split"]).to_pylist()) - {None, *SPLITS})
    if unknown:
        raise InputError(f"{source}: split {unknown[0]!r} is none of {', '.join(SPLITS)}; rename it.")
