"""The Ray Data graphs: songs to features, features to tags.

extract:  manifest -> decode (CPU tasks) -> encode (GPU or CPU actors) -> commit -> receipts
tag:      store parts -> project, rank, commit (CPU actors) -> receipts

A row is a song from end to end. The driver sees receipts alone: a line a committed part.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.audio import SAMPLE_RATE, AudioError, DecodedTrack, decode_windows, fetch
from mer_ray.errors import InputError
from mer_ray.features import STATUS_COLUMNS, STATUS_FIELDS, Identity, features_column, store_schema
from mer_ray.plan import Plan
from mer_ray.runs import commit
from mer_ray.settings import AudioSettings

DECODED_SCHEMA = pa.schema(
    [
        *STATUS_FIELDS,
        ("windows", pa.list_(pa.large_binary())),
        ("scales", pa.list_(pa.float32())),
        ("decode_s", pa.float32()),
    ]
)
"""A decoded song on its way to an encoder: int16 windows, each scaled to its own peak."""

RECEIPT_SCHEMA = pa.schema(
    [
        ("part", pa.string()),
        ("songs", pa.int64()),
        ("failed", pa.int64()),
        ("audio_s", pa.float64()),
        ("decode_s", pa.float64()),
        ("encode_s", pa.float64()),
    ]
)


def extraction(pending_uri: str, plan: Plan, audio: AudioSettings, identity: Identity, output: str) -> Iterator[Receipt]:
    """Run the graph over a manifest of pending songs and yield a receipt for each committed part."""
    import ray
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    options = {name: getattr(audio, name) for name in ("window_seconds", "keep_tail", "max_minutes")}
    encoder = {**audio.model_dump(include={"layers", "pooling", "window_seconds"}), "name": audio.encoder}
    songs = _read_manifest(pending_uri).repartition(target_num_rows_per_block=plan.songs_per_block)
    decoded = songs.map_batches(
        decode_songs,
        batch_size=1,
        batch_format="pyarrow",
        fn_kwargs=options,
        compute=TaskPoolStrategy(size=plan.decoders),
        num_cpus=plan.decoder_cpus,
    )
    return decoded
