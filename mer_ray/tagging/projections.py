"""Projected windows, kept beside a feature store so that a new list of words needs no projector.

    features/_projected/<model>/part-<songs>-<content>.arrow      one for each part of the store

The name holds the content of the store's part as its storage identifies it, so what is there is right, and a part
that was written anew is projected anew; what is there for parts that are gone, the next run that tags deletes. The
folder can be deleted at any time: what is missing is made again.
Arrow's own file format, because it is read without decoding: Parquet takes 60 times as long for lists of float16.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.features import song_means, window_arrays
from mer_ray.fingerprints import text_sha256
from mer_ray.songs import SCHEMA_VERSION, STATUS_COLUMNS, STATUS_FIELDS, Identity, metadata, part_uris

if TYPE_CHECKING:  # who only cleans up needs no torch
    from mer_ray.learning.model import Model

FOLDER = "_projected"

ROWS = 512
"""Songs in memory at a time."""


@dataclass(frozen=True)
class Projections:
    """A model's projections of the feature store at a URI; what is kept is also read."""

    features: str
    encoder: Identity
    model: Model
    keep: bool = True

    def songs(self, part: str, wanted: pa.Array | None = None, *, windows: bool = False) -> Iterator[pa.Table]:
        """Rows of :func:`projected_schema` of one part of the store, some hundred at a time.

        Only the ``wanted`` ids if they are given, without the column ``windows`` unless it is asked for.
        """
        columns = [*STATUS_COLUMNS, "vector", *(["windows"] if windows else [])]
        kept = storage.iter_arrow(self._kept(part), columns) if self.keep else storage.iter_tables(part, rows=ROWS)
        for songs in kept:
            picked = songs if wanted is None else songs.filter(pc.is_in(songs["track_id"], value_set=wanted))
            yield picked if self.keep else self.project(picked).select(columns)

    def project(self, songs: pa.Table) -> pa.Table:
        """Rows of a feature store to rows of :func:`projected_schema`."""
        features_ND, counts_S = window_arrays(songs["features"])
        windows_NE = self.model.project(features_ND, counts_S)
        offsets = pa.array(np.cumsum([0, *counts_S]), pa.int32())
        columns = [
            *(songs[name].combine_chunks() for name in STATUS_COLUMNS),
            vector_column(song_means(windows_NE, counts_S), counts_S > 0),
            pa.ListArray.from_arrays(offsets, vector_column(windows_NE.astype(np.float16))),
        ]
        return pa.table(columns, schema=self._schema)

    @cached_property
    def folder(self) -> str:
        """Where what is kept lies."""
        return storage.join(self.features, FOLDER, self.model.digest[:16])

    @cached_property
    def _schema(self) -> pa.Schema:
        return projected_schema(self.model, self.encoder)

    def _kept(self, part: str) -> str:
        """The URI of a part's projections, which are made now if they are not there."""
        kept = storage.join(self.folder, _name(part))
        if not storage.is_arrow(kept):
            storage.write_arrow(kept, self._schema, map(self.project, storage.iter_tables(part, rows=ROWS)))
        return kept


def collect(features: str) -> int:
    """Delete what is kept for parts that the store no longer has, or has written anew; returns how many files."""
    contents = {_stem(part): part for part in part_uris(features)}
    stale = []
    for model in storage.names(storage.join(features, FOLDER)):
        folder = storage.join(features, FOLDER, model)
        names = [name for name in storage.names(folder) if name.startswith("part-") and name.endswith(".arrow")]
        several = Counter(name.rpartition("-")[0] for name in names)
        for name in names:
            part = contents.get(stem := name.rpartition("-")[0])
            if part is None or (several[stem] > 1 and name != _name(part)):
                stale.append(storage.join(folder, name))
    for uri in stale:
        storage.remove(uri)
    return len(stale)


def _stem(part: str) -> str:
    return part.rsplit("/", 1)[-1].removesuffix(".parquet")


def _name(part: str) -> str:
    """Of the file that is kept for a part: its songs, and its content as its storage identifies it."""
    return f"{_stem(part)}-{text_sha256(SCHEMA_VERSION + storage.content_key(part))[:16]}.arrow"


def projected_schema(model: Model, encoder: Identity) -> pa.Schema:
    """The status columns; ``vector``, [E] float32, the mean of a song's unit window vectors, null for a failed song;
    and ``windows``, these vectors, a list of [E] float16."""
    width = model.projector.shape.output_dim
    fields = [
        *STATUS_FIELDS,
        pa.field("vector", pa.list_(pa.float32(), width)),
        pa.field("windows", pa.list_(pa.list_(pa.float16(), width))),
    ]
    return pa.schema(fields, metadata=metadata(encoder, **{"mer_ray.model": model.digest}))


def vector_column(vectors_SE: NDArray[np.floating], there_S: NDArray[np.bool_] | None = None) -> pa.Array:
    """[songs, E] as a column of vectors, null where there is none."""
    mask = None if there_S is None else pa.array(~there_S)
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors_SE.reshape(-1)), vectors_SE.shape[1], mask=mask)


def song_vectors(songs: pa.Table) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The column ``vector`` as [songs, E], zero for a song without; and [songs] whether there is one."""
    column = songs["vector"].combine_chunks()
    there_S = column.is_valid().to_numpy(zero_copy_only=False)
    vectors_SE = np.zeros((len(column), column.type.list_size), np.float32)
    vectors_SE[there_S] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
    return vectors_SE, there_S
