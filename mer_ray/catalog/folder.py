"""A manifest that is a folder: Parquet files of many songs each, written as a stream of them goes.

    songs-00000.parquet, songs-00001.parquet, …
    _manifest.json            how many songs each file holds; written last

A folder is a manifest once ``_manifest.json`` stands in it. So neither a folder of music, nor what a listing left that
was killed, is taken for one.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator
from functools import partial
from operator import itemgetter

import pyarrow as pa

from mer_ray import storage
from mer_ray.catalog.repeats import Repeats, refuse_repeated
from mer_ray.errors import InputError

MARK = "_manifest.json"
ROWS_A_FILE = 1_000_000
_FORMAT = "mer_ray.manifest"
_OURS = re.compile(rf"{re.escape(MARK)}|songs-\d+\.parquet")


def songs_of_files(uri: str) -> list[int] | None:
    """How many songs each file holds of a manifest that is a folder; None if whatever stands there is none.

    Raises:
        InputError: it is one in a form not known here.
    """
    mark = storage.read_json(storage.join(uri, MARK))
    if mark is None or _FORMAT not in mark:
        return None
    rows = mark.get("rows")
    if mark[_FORMAT] != 1 or not isinstance(rows, list) or not all(isinstance(count, int) for count in rows):
        raise InputError(f"{uri}: a manifest in a form not known here; make it anew with jobs/catalog.py.")
    return rows


def folder_tables(uri: str, counts: list[int], rows: int, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The songs of a manifest whose files hold these ``counts`` of them, so many rows at a time.

    Raises:
        InputError: a file is missing, or is not the one that was written.
    """
    for number, expected in enumerate(counts):
        file, found = _file(uri, number), 0
        with storage.readable_parquet(file):
            for table in storage.iter_tables(file, rows=rows, columns=columns):
                found += len(table)
                yield table
        if found != expected:
            raise InputError(f"{file}: holds {found:,} songs, not {expected:,}; make {uri} anew with jobs/catalog.py.")


def write_folder(uri: str, tables: Iterable[pa.Table], source: str, rows_a_file: int = ROWS_A_FILE) -> list[int]:
    """Write a manifest as its songs come; what an earlier listing left there is deleted before the first file.

    Returns:
        How many songs each file holds.

    Raises:
        InputError: an id stands more than once, of which ``source`` is named, or the folder holds anything else.
    """
    if storage.absolute(source).rstrip("/") == storage.absolute(uri).rstrip("/"):
        raise InputError(f"{uri}: is the source as well; write to another folder.")
    tables = iter(tables)
    first = next(tables)  # before an earlier manifest is lost to a source that cannot be read
    _clear(uri)
    repeats, counts = Repeats(), list[int]()
    slices = _sliced(itertools.chain([first], tables), rows_a_file)
    for number, each in itertools.groupby(slices, key=itemgetter(0)):
        counts.append(0)
        storage.write_tables(_file(uri, number), first.schema, _counted(each, counts, repeats))
    again = partial(folder_tables, uri, counts, rows_a_file, ["track_id"])
    refuse_repeated(source, repeats, lambda: (table["track_id"] for table in again()))
    storage.write_bytes(storage.join(uri, MARK), storage.as_json({_FORMAT: 1, "songs": sum(counts), "rows": counts}))
    return counts


def _sliced(tables: Iterable[pa.Table], rows: int) -> Iterator[tuple[int, pa.Table]]:
    """Tables cut so that each slice lies in one file, with the number of that file."""
    done = 0
    for table in tables:
        while len(table):
            some = table.slice(0, rows - done % rows)
            yield done // rows, some
            done += len(some)
            table = table.slice(len(some))


def _counted(slices: Iterable[tuple[int, pa.Table]], counts: list[int], repeats: Repeats) -> Iterator[pa.Table]:
    for _, table in slices:
        counts[-1] += len(table)
        repeats.add(table["track_id"])
        yield table


def _clear(uri: str) -> None:
    """Delete what a listing has written there, the mark first."""
    ours = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in (file.path for files in storage.files_below(uri) for file in files):
            if not _OURS.fullmatch(path) and not storage.is_temporary(path):
                raise InputError(
                    f"{uri}: holds {path}, which is no part of a manifest; "
                    "choose an empty folder, or a file that ends in .parquet."
                )
            ours.append(path)
    for path in sorted(ours, key=lambda path: path != MARK):
        storage.remove(storage.join(uri, path))


def _file(uri: str, number: int) -> str:
    return storage.join(uri, f"songs-{number:05d}.parquet")
