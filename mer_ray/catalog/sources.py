"""Where songs come from: a folder or prefix, a table, an inventory, or a dataset with its audio; a manifest of each."""

from __future__ import annotations

import hashlib
import posixpath
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray import storage
from mer_ray.catalog.datasets import DOOR, Song, SplitRule, draw_splits
from mer_ray.catalog.folder import MARK, songs_of_files
from mer_ray.catalog.inventory import Inventory
from mer_ray.catalog.listing import Listing, known_of, list_audio, listed_batches
from mer_ray.catalog.manifest import ROWS, folder_batches, make_manifest, no_songs, whole
from mer_ray.catalog.repeats import Repeats, among
from mer_ray.catalog.tables import TABLE_EXTENSIONS, as_ratings, table_batches
from mer_ray.errors import InputError
from mer_ray.settings import READING, Part, marked, part_of
from mer_ray.storage import Found


def manifest_batches(
    source: str, audio: str | None = None, *, rows: int = ROWS, listing: Listing | None = None
) -> Iterator[pa.Table]:
    """The songs of anything that ``--catalog`` takes, so many rows of a manifest at a time, in bounded memory.

    A CSV, TSV or Parquet table; the ``manifest.json`` of an S3 Inventory; a manifest that is a folder; any other folder
    or ``s3://`` prefix is listed. ``listing`` is told how far it is. All is checked but whether an id stands in two
    batches (:mod:`mer_ray.catalog.repeats`); what a folder holds of a manifest was, as it was written.

    Raises:
        InputError: the source is missing, malformed or empty.
    """
    listing = listing or Listing()
    listing.place = source
    for batch in _batches(source, audio, rows, listing):
        listing.add(len(batch), source)
        yield batch
    if listing.others[".parquet"] and not listing.songs:
        raise InputError(
            f"{source}: no songs found, but Parquet files without {MARK}; "
            "if they are a manifest, have jobs/catalog.py write it to its end."
        )
    if not listing.songs:
        raise no_songs(source)


def _batches(source: str, audio: str | None, rows: int, listing: Listing) -> Iterator[pa.Table]:
    if is_table(source):
        return table_batches(source, audio, rows)
    if audio is not None:
        raise InputError(f"{source}: a folder's songs are its own audio; leave out --audio {audio}.")
    if source.lower().endswith(".json") and not storage.is_below(source):
        return Inventory.read(source).batches(rows, listing)
    if (counts := songs_of_files(source)) is not None:
        return folder_batches(source, counts, rows)
    return listed_batches(source, rows, listing)


def is_table(source: str) -> bool:
    """Whether a source is a table of songs, and not a folder whose files are its songs."""
    return source.lower().endswith(TABLE_EXTENSIONS) and not storage.is_below(source)


def build_manifest(
    source: str,
    dataset: str = "none",
    audio: str | None = None,
    *,
    settings: Part | None = None,
    split: SplitRule = "seeded",
    seed: int = 0,
    listing: Listing | None = None,
) -> pa.Table:
    """The manifest of a dataset's label files, or for ``none`` of whatever :func:`manifest_batches` takes.

    ``audio`` is where a dataset's audio lies, or what a table's relative uris start from, else beside the source. A
    dataset's audio is found anywhere below by what names the song; a song without has no size, and the uri where it
    should be.

    Raises:
        InputError: the source is missing, malformed or empty.
    """
    if dataset == DOOR.nothing:
        listing = listing or Listing()
        table = whole(manifest_batches(source, audio, listing=listing), source)
        return _by_path(table) if listing.walks else table
    songs, readings, audio_key = _read_dataset(dataset, source, settings or part_of(DOOR, dataset)())
    splits: Sequence[str | None] = [song.split for song in songs]
    reading = "official"
    if not any(splits):
        splits, reading = draw_splits([song.track_id for song in songs], split, seed)
    beside = source if audio or storage.is_below(source) else posixpath.dirname(storage.absolute(source))
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
        "ratings": [as_ratings(song.ratings) for song in songs],
        **known_of([listed.get(path, Found(path)) for path in paths]),
    }
    return make_manifest(columns, source, {"split": reading, **readings})


def load_catalog(uri: str) -> pa.Table:
    """A manifest from what ``--catalog`` names (:func:`manifest_batches`); a listing that takes long says how far."""
    with Listing() as listing:
        return build_manifest(uri, listing=listing)


def catalog_songs(uri: str) -> Iterator[pa.Table]:
    """The songs of what ``--catalog`` names in a stream; a listing that takes long says how far."""
    with Listing() as listing:
        for batch in manifest_batches(uri, listing=listing):
            yield _by_path(batch) if listing.walks else batch


def scan_folder(source: str) -> pa.Table:
    """Every audio file below a folder or ``s3://`` prefix, by extension; ids are the paths below it, sorted.

    Hidden names (``.x``) and ``_run`` folders are passed over; linked folders are followed.
    """
    return _by_path(whole(listed_batches(source, ROWS, Listing()), source))


def _by_path(table: pa.Table) -> pa.Table:
    """A manifest in the order of its ids, which not every storage lists in."""
    ids = table["track_id"]
    in_order = pc.all(pc.less(ids[:-1], ids[1:]), min_count=0).as_py()
    return table if in_order else table.take(pc.sort_indices(ids))


def same_audio(tables: Callable[[], Iterable[pa.Table]]) -> list[list[str]]:
    """The ids of songs whose files are the same byte for byte, in groups; ``tables`` gives a manifest each time.

    Of local files those of one size are read; on S3 size and ETag say it, but for files put there in other pieces.
    """
    sizes: dict[int, list[tuple[str, str]]] = defaultdict(list)
    groups: dict[object, list[str]] = defaultdict(list)
    for song in maybe_same(tables).select(["track_id", "uri", "size_bytes", "etag"]).to_pylist():
        if storage.is_s3(song["uri"]):
            groups[song["etag"], song["size_bytes"]].append(song["track_id"])
        else:
            sizes[song["size_bytes"]].append((song["track_id"], song["uri"]))
    for alike in sizes.values():
        for track_id, path in alike if len(alike) > 1 else ():
            with storage.readable(path), open(path, "rb") as file:
                groups[hashlib.file_digest(file, "sha256").hexdigest()].append(track_id)
    return [ids for ids in groups.values() if len(ids) > 1]


def maybe_same(tables: Callable[[], Iterable[pa.Table]]) -> pa.Table:
    """The songs that another may be the same as, by what their listing says; ``tables`` gives a manifest each time."""
    repeats = Repeats()
    for table in tables():
        repeats.add(_looks(table))
    hashes = repeats.hashes()
    return pa.concat_tables(table.filter(pa.array(among(_looks(table), hashes))) for table in tables())


def _looks(table: pa.Table) -> pa.ChunkedArray:
    """What the same files have in common: on S3 ETag and size, else the size; null where that is not known, or zero."""
    size = pc.cast(table["size_bytes"], pa.string())
    both = pc.binary_join_element_wise(table["etag"], size, " ")
    looks = pc.if_else(pc.starts_with(table["uri"], "s3://"), both, size)
    return pc.if_else(pc.greater(table["size_bytes"], 0), looks, pa.scalar(None, pa.string()))


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
