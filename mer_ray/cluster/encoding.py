"""An encoder process, which fails by itself: out of memory, by one song, or for good.

too little memory    half the batch, from then on
an exception         the songs one by one; the one that raises it alone is a failed row
the process dies     Ray starts it anew with the same songs; after some deaths they come one by one, and a song that
                     went on killing encoders alone is a failed row (:mod:`mer_ray.cluster.watch` counts)
it cannot start      it says so and waits for the end of the run, holding what it has: a broken GPU, so that no other
                     encoder is put there
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mer_ray.cluster.stages import BESIDE
from mer_ray.cluster.watch import ALONE, TOGETHER, Told
from mer_ray.encoders import load_encoder
from mer_ray.errors import InputError
from mer_ray.features import features_column, store_schema
from mer_ray.settings import Part
from mer_ray.songs import STATUS_COLUMNS

if TYPE_CHECKING:
    from mer_ray.encoders._batching import Window

Features = list[NDArray[np.float32]]

BEYOND_FLOAT16 = 65_520
"""What is as large as this becomes infinite in a store."""


@dataclass(frozen=True)
class Encoding:
    """How windows become features: an encoder as a process loads it, and the windows that its store is made of."""

    name: str
    settings: Part
    device: str
    window_seconds: float
    keep_tail: bool
    batch_windows: int = 8
    threads: int = 1


def packed_windows(windows: pa.Scalar, scales: pa.Scalar) -> list[Window]:
    """The windows of one row of DECODED_SCHEMA, without a copy: views of its block."""
    from mer_ray.encoders._batching import Window

    if windows.values is None:
        return []
    pairs = zip(windows.values, scales.values.to_pylist(), strict=True)
    return [Window(np.frombuffer(window.as_buffer(), np.int16), scale) for window, scale in pairs]


class EncodeSongs:
    """An encoder process: decoded songs in, rows of the feature store out."""

    def __init__(self, encoding: Encoding, watch: Any = None) -> None:
        """``watch`` is the actor of a :class:`mer_ray.cluster.watch.Watch`, where there is one."""
        self._told = Told(watch, "encode")
        with self._told.busy("load"):
            why = self._told.ask("starts")
            try:
                if why:
                    raise InputError(why)
                self._load(encoding)
            except Exception as error:
                if watch is None:
                    raise
                why = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        if why:
            self._told.ask("is_unfit", f"encoder on {self._told.node}: {one_sentence(why)}")
            threading.Event().wait()
        self._ready = time.time()

    def _load(self, encoding: Encoding) -> None:
        self._encoder = load_encoder(encoding.name, encoding.device, encoding.settings)
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(min(encoding.threads, len(os.sched_getaffinity(0))))
        identity = self._encoder.identity(encoding.window_seconds, encoding.keep_tail)
        self._schema = store_schema(identity, self._encoder.dim)
        self._batch_windows = encoding.batch_windows

    def __call__(self, songs: pa.Table) -> pa.Table:
        with self._told.busy():
            ids = songs["track_id"].to_pylist()
            deaths = self._told.ask("begins", self._told.process, ids) or {}
            suspect = any(together >= TOGETHER or alone for together, alone in deaths.values())
            table = self._one_by_one(songs) if suspect and len(songs) > 1 else self._whole(songs, deaths)
            self._told.ask("ends")
            return table

    def _one_by_one(self, songs: pa.Table) -> pa.Table:
        tables = []
        for at, track_id in enumerate(songs["track_id"].to_pylist()):
            deaths = self._told.ask("begins", self._told.process, [track_id]) or {}
            tables.append(self._whole(songs.slice(at, 1), deaths))
            self._told.ask("ends")
        return pa.concat_tables(tables)

    def _whole(self, songs: pa.Table, deaths: dict[str, list[int]]) -> pa.Table:
        """Encode songs together; where that raises, each alone, and where that raises, the song has failed."""
        started = time.perf_counter()
        said: dict[int, tuple[str, str]] = {}
        trouble: str | None = None
        if len(songs) == 1 and any(alone >= ALONE for _, alone in deaths.values()):
            ((together, alone),) = deaths.values()
            message = f"{together + alone} encoders died with it in hand, {alone} of them with no other; leave it out."
            features, said[0] = [self._nothing()], ("encoder_crashed", message)
        else:
            try:
                features = self._encoded(songs)
            except InputError as error:  # what the encoder promised and does not keep, for any song: it ends the run
                features, trouble = [self._nothing()] * len(songs), str(error)
            except Exception as error:  # noqa: BLE001 - a song that cannot be encoded is data, never the end of a night
                if len(songs) > 1:
                    return self._one_by_one(songs)
                what = one_sentence(f"{type(error).__name__}: {error}")
                features, said[0] = [self._nothing()], ("encoder_error", f"Encoder {self._encoder.name}: {what}")
        message = f"Encoder {self._encoder.name} gives no finite numbers for this song; leave it out."
        for at, track in enumerate(features):
            if not (np.abs(track) < BEYOND_FLOAT16).all():
                features[at], said[at] = self._nothing(), ("not_finite", message)
        seconds = (time.perf_counter() - started) / max(1, len(songs))
        table = self._rows(songs, features, said, seconds)
        if trouble is None:
            return table
        at = table.schema.get_field_index("trouble")
        return table.set_column(at, "trouble", pa.array([trouble] * len(songs)))

    def _encoded(self, songs: pa.Table) -> Features:
        """Features by song, in batches that this encoder has the memory for."""
        from mer_ray.encoders._batching import encode_tracks

        tracks = [*map(packed_windows, songs["windows"], songs["scales"])]
        while True:
            try:
                return encode_tracks(self._encoder, tracks, self._batch_windows, self._told.step)
            except (RuntimeError, MemoryError) as error:
                if is_broken(error):
                    self._told.ask("dies", one_sentence(str(error)))
                    os.kill(os.getpid(), signal.SIGKILL)  # no call of a GPU's works in this process any more
                if not is_out_of_memory(error) or self._batch_windows == 1:
                    raise
                self._batch_windows //= 2
            _give_back_memory()

    def _rows(self, songs: pa.Table, features: Features, said: dict[int, tuple[str, str]], seconds: float) -> pa.Table:
        """The rows of a store and what goes beside them; ``said`` are songs that failed here: class and message."""
        columns = {name: songs[name].combine_chunks() for name in STATUS_COLUMNS}
        if said:
            failed = pa.array([at in said for at in range(len(songs))])
            for place, name in enumerate(("error_class", "error")):
                values = pa.array([said[at][place] if at in said else None for at in range(len(songs))], pa.string())
                columns[name] = pc.if_else(failed, values, columns[name])
            columns["status"] = pc.if_else(failed, "failed", columns["status"])
        table = pa.table([*columns.values(), features_column(features, self._encoder.dim)], schema=self._schema)
        own = {"encode_s": seconds, "ready": self._ready}
        for name in BESIDE:
            table = table.append_column(name, pa.array(np.full(len(songs), own[name])) if name in own else songs[name])
        return table

    def _nothing(self) -> NDArray[np.float32]:
        return np.empty((0, self._encoder.dim), np.float32)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or on the CPU."""
    import torch

    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in str(error)


def is_broken(error: BaseException) -> bool:
    """Whether a GPU's context is lost: CUDA says so of an illegal access, a failed assertion, a GPU that went."""
    return "CUDA error" in str(error) and not is_out_of_memory(error)


def one_sentence(text: str) -> str:
    """The beginning of a message on one line."""
    return " ".join(text.split())[:300].rstrip(".") + "."


def _give_back_memory() -> None:
    import gc

    gc.collect()
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.empty_cache()
