"""The songs a model has seen: those it learned from and those its epoch was chosen on, kept beside its weights.

Whatever becomes of a manifest afterwards, none of them is ever counted as a song that the model does not know.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.catalog.annotations import Annotations
from mer_ray.catalog.datasets import TRAIN, VALIDATION
from mer_ray.errors import InputError
from mer_ray.models import located

SEEN = "songs.parquet"
"""Its file in a model directory."""
UNSEEN = ""

_SCHEMA = pa.schema([(name, pa.string()) for name in ("split", "dataset", "track_id", "uri")])


def seen_songs(dataset: Annotations, rows: Sequence[int], split: str) -> pa.Table:
    """Some songs of a dataset that a model has seen as ``train`` or ``validation``, as :data:`SEEN` holds them."""
    ids, uris = ([values[row] for row in rows] for values in (dataset.track_ids, dataset.uris))
    columns = [[split] * len(ids), [dataset.dataset] * len(ids), ids, uris]
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=_SCHEMA)


def read_seen(model: str) -> pa.Table | None:
    """The songs that a model, by its directory or name, has seen; None for one of before 0.3, which does not say.

    Raises:
        InputError: the file is damaged.
    """
    uri = storage.join(located(model), SEEN)
    if not storage.exists(uri):
        return None
    try:
        table: pa.Table = storage.read_table(uri).select(_SCHEMA.names).cast(_SCHEMA)
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise InputError(f"{uri}: not the songs of a model ({type(error).__name__}); train it again.") from error
    return table


def how_seen(seen: pa.Table, dataset: Annotations) -> NDArray[np.str_]:
    """[S] ``train``, ``validation`` or :data:`UNSEEN` for each song of a dataset: by its id, or by where its audio is.

    One of the two is enough: a renamed manifest, dataset or prefix leaves the other.
    """
    found = np.full(len(dataset.track_ids), UNSEEN, "<U10")
    for split in (VALIDATION, TRAIN):
        songs = seen.filter(pc.equal(seen["split"], split))
        for name, values in (("track_id", dataset.track_ids), ("uri", dataset.uris)):
            known = pc.is_in(pa.array(values, pa.string()), value_set=songs[name].drop_null().combine_chunks())
            found[known.to_numpy(zero_copy_only=False)] = split
    return found
