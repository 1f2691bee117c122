"""A tags directory as its reader finds it: what was asked, by what, its rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.runs.directory import SETTINGS, run_file
from mer_ray.songs import Identity, part_uris, read_columns, stored_json, stored_metadata
from mer_ray.tagging.contract import asked_words
from mer_ray.words.lists import Word


@dataclass(frozen=True)
class Tagged:
    """A tags directory.

    Attributes:
        asked: what the metadata says of the tags: ``ranking``, ``k``, thresholds.
        settings: of the run that made it, {} where they are gone.
    """

    uri: str
    parts: list[str]
    schema: pa.Schema
    words: list[Word]
    asked: dict[str, Any]
    settings: dict[str, Any]

    @classmethod
    def open(cls, uri: str) -> Tagged:
        """Look at a tags directory.

        Raises:
            InputError: there is none.
        """
        parts = part_uris(uri)
        if not parts:
            raise InputError(f"tags {uri}: no part-*.parquet there; make them with jobs/tag.py --output {uri}.")
        with storage.readable(parts[0]):
            schema = storage.read_schema(parts[0])
        asked = stored_json(schema, "mer_ray.tags")
        if "tags" not in schema.names or not asked:
            raise InputError(f"tags {uri}: not tags (no column 'tags'); point to what jobs/tag.py wrote.")
        run = storage.read_json(run_file(uri, SETTINGS)) or {}
        return cls(uri, parts, schema, asked_words(uri, schema), asked, run.get("settings", {}))

    @property
    def encoder(self) -> Identity:
        """Of the features that the tags were made from."""
        return stored_json(self.schema, "mer_ray.encoder")

    @property
    def model_digest(self) -> str:
        """Of the model that made the tags."""
        return stored_metadata(self.schema).get("mer_ray.model", "")

    @property
    def version(self) -> str:
        """Of the code that made the tags."""
        return stored_metadata(self.schema).get("mer_ray.version", "unknown")

    def read(self, columns: list[str]) -> Iterator[pa.Table]:
        """Some columns of each part."""
        for _, table in read_columns(self.parts, columns):
            yield table.replace_schema_metadata(None)
