"""Stand-ins for an extract's decoder and encoder, and the extract that they stand in.

An encoder by its word, ``--encoder benchmarks.stand_ins:asleep``: it waits as a worker waits for its GPU, and gives
zeros. A song that a manifest calls ``5x240000.noise`` is not read but has five windows of so many samples of noise, and
``0x0.noise`` is a song that fails.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.processes import Peaks, this_run
from mer_ray import storage
from mer_ray.catalog.manifest import make_manifest
from mer_ray.cluster import stages
from mer_ray.cluster.session import prepare_environment
from mer_ray.cluster.stages import Decoding, decode_songs, decoded_table
from mer_ray.encoders import Encoder
from mer_ray.settings import Part

DIM = 48
SECONDS_A_WINDOW = {"nothing": 0.0, "asleep": 0.03, "slow": 2 / 720}
"""``asleep`` is about as fast as one decoder; ``slow`` does not keep up with the stand-ins of songs of two hours."""
NOTHING, ASLEEP, SLOW = (f"{__package__}.stand_ins:{word}" for word in SECONDS_A_WINDOW)
STORE = 1_500_000_000
"""Bytes of Ray's object store: four songs of two hours."""


def load(word: str, settings: Part, device: str) -> Encoder:
    """The stand-in for an encoder, as any encoder is loaded."""
    waits = SECONDS_A_WINDOW[word]

    def encode(windows_BS: NDArray[np.float32]) -> NDArray[np.float32]:
        time.sleep(waits * len(windows_BS))
        return np.zeros((len(windows_BS), DIM), np.float32)

    return Encoder(encode, f"stand-in {word}", DIM, sample_rate=24_000, licence="none", digest=word)


def decode(songs: pa.Table, decoding: Decoding) -> Iterator[pa.Table]:
    """The stand-in for :func:`mer_ray.cluster.stages.decode_songs`, which reads what is a file after all."""
    for at, song in enumerate(songs.to_pylist()):
        if not song["uri"].endswith(".noise"):
            yield from decode_songs(songs.slice(at, 1), decoding)
            continue
        count, samples = song["uri"].rpartition("/")[2].removesuffix(".noise").split("x")
        noise = np.random.default_rng(0).integers(-9999, 9999, int(samples), np.int16).tobytes()
        windows = [bytearray(noise) for _ in range(int(count))]
        row: dict[str, Any] = {"status": "ok", "duration_s": 10.0 * len(windows), "windows": windows}
        row["scales"] = [1e-4] * len(windows)
        if not windows:
            row = {"status": "failed", "error_class": "not_found", "error": "a stand-in: not found (404)."}
        costs = {"decode_s": 0.0, "fetch_retries": 0, "fetch_retry_s": 0.0}
        yield decoded_table({**song, **costs, "truncated": False, "bad_packets": 0, **row})


def extracted(
    uris: Sequence[str],
    features: Path,
    encoder: str,
    peaks: Peaks | None = None,
    job: Sequence[str] = ("-m", "benchmarks.stand_ins"),
    flags: Sequence[object] = (),
) -> dict[str, Any]:
    """Extract songs or stand-ins to ``features``; see :func:`benchmarks.processes.this_run`."""
    ids = [f"{at:08}" for at in range(len(uris))]
    catalog = features.with_suffix(".parquet")
    storage.write_table(str(catalog), make_manifest({"track_id": ids, "uri": uris}, "stand-ins"))
    asked = ["--catalog", catalog, "--features", features, "--encoder", encoder, *flags]
    return this_run([*job, *asked], features, peaks)


def main() -> None:
    """An extract with the stand-ins, in a Ray of its own."""
    prepare_environment()
    import ray

    from mer_ray.catalog.sources import catalog_songs
    from mer_ray.cluster.extract import extract
    from mer_ray.cluster.settings import ExtractSettings
    from mer_ray.commandline import parse

    settings = parse(ExtractSettings, sys.argv[1:])
    ray.init("local", object_store_memory=STORE, include_dashboard=False, log_to_driver=False, logging_level="error")
    # By the name that the workers find it by: this module is no __main__ there.
    from benchmarks import stand_ins

    with patch.object(stages, "decode_songs", stand_ins.decode):
        extract(settings, lambda: catalog_songs(settings.catalog))


if __name__ == "__main__":
    main()
