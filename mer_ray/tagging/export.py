"""Tags taken elsewhere: what the settings ask for, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.runs.directory import run_file
from mer_ray.tagging.moods import JOURNAL, Written, undo_moods, write_moods
from mer_ray.tagging.settings import ExportSettings
from mer_ray.tagging.tables import SONG, check_table, long_table, wide_table, write_rows
from mer_ray.tagging.tagged import Tagged

NAMED = 3
"""Files named of those that were left alone."""


def export(settings: ExportSettings) -> Iterator[str]:
    """Do what is asked for; yields a line for a person after each.

    Raises:
        InputError: there are no tags, a table is of no known kind, or there is nothing to undo.
    """
    check_table("--long", settings.long)
    check_table("--wide", settings.wide)
    tagged = Tagged.open(settings.tags)
    labels = [word.label for word in tagged.words]
    catalog = settings.catalog or tagged.settings.get("catalog")
    columns = [*SONG, "tags"]
    if settings.long:
        rows = write_rows(settings.long, (long_table(songs, catalog) for songs in tagged.read(columns)))
        yield f"{rows:,} tags in {settings.long}"
    if settings.wide:
        rows = write_rows(settings.wide, (wide_table(songs, labels, catalog) for songs in tagged.read(columns)))
        yield f"{rows:,} songs and {len(labels):,} words in {settings.wide}"
    if settings.write_files:
        done = write_moods(_moods(tagged), _journal(settings))
        yield f"words written into {done.files:,} files; --undo puts back what stood there"
        yield from _left(done)
    if settings.undo:
        done = undo_moods(_journal(settings))
        yield f"{done.files:,} files say again what they said before"
        yield from _left(done)


def _moods(tagged: Tagged) -> Iterator[tuple[str, list[str]]]:
    for table in tagged.read(["uri", "status", "tags"]):
        for song in table.to_pylist():
            if song["status"] == "ok" and song["tags"]:
                yield song["uri"], [tag["label"] for tag in song["tags"]]


def _journal(settings: ExportSettings) -> Path:
    if storage.is_s3(settings.tags):
        raise InputError(f"tags {settings.tags}: what files said is noted beside the tags, on this machine; copy them.")
    return Path(run_file(settings.tags, JOURNAL))


def _left(done: Written) -> Iterator[str]:
    if done.left:
        named = "; ".join(f"{path}: {why}" for path, why in done.left[:NAMED])
        yield f"{len(done.left):,} files left as they are ({named})"
