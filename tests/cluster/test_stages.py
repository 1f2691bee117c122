"""What the stages of an extract hand on: windows as views, full rows for failed songs, receipts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mer_ray.audio.process import Limits
from mer_ray.cluster import stages
from mer_ray.cluster.encoding import EncodeSongs, Encoding, packed_windows
from mer_ray.cluster.stages import BESIDE, DECODED_SCHEMA, Decoding, commit_features, decode_songs
from mer_ray.encoders.tiny import Settings
from mer_ray.errors import StorageError
from mer_ray.features import window_arrays
from mer_ray.runs.lock import RunLock
from mer_ray.runs.open_shard import Lease
from mer_ray.songs import STATUS_COLUMNS

ENCODING = Encoding("tiny", Settings(), "cpu", 10.0, False, batch_windows=4, threads=1)
SAMPLES = 4_000


def decoded(*counts: int) -> pa.Table:
    """Decoded songs with so many windows each; 0 is a song that failed."""
    noise = np.random.default_rng(len(counts))
    rows: list[dict[str, Any]] = []
    for number, count in enumerate(counts):
        row = {
            "track_id": f"song{number}",
            "uri": f"/music/{number}",
            "decode_s": 1.0,
            "truncated": False,
            "node": "here",
        }
        if count:
            windows = [noise.integers(-30_000, 30_000, SAMPLES, np.int16).tobytes() for _ in range(count)]
            row |= {"status": "ok", "duration_s": 10.0, "windows": windows, "scales": [0.5**n for n in range(count)]}
        else:
            row |= {"status": "failed", "error_class": "empty", "error": "nothing"}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=DECODED_SCHEMA)


def committed(encoded: pa.Table, folder: Path) -> list[dict[str, Any]]:
    """The receipts of a commit, of songs that some node has decoded."""
    lock = RunLock(str(folder / "_run"), "extract")
    lock.acquire()
    lease = Lease(str(folder), 1, "extract", lock.token)
    try:
        return [row for receipt in commit_features(encoded, lease) for row in receipt.to_pylist()]
    finally:
        lock.release()


def test_packed_windows_are_the_decoders_samples_times_their_scale() -> None:
    songs = decoded(3, 0)
    windows = packed_windows(songs["windows"][0], songs["scales"][0])
    for window, raw, scale in zip(windows, songs["windows"][0].as_py(), songs["scales"][0].as_py(), strict=True):
        np.testing.assert_array_equal(window.samples, np.frombuffer(raw, np.int16))
        assert (len(window.samples), window.scale) == (SAMPLES, scale)
    assert packed_windows(songs["windows"][1], songs["scales"][1]) == []


def test_packed_windows_are_views_of_their_block() -> None:
    songs = decoded(2)
    before = pa.total_allocated_bytes()
    windows = packed_windows(songs["windows"][0], songs["scales"][0])
    assert len(windows) == 2
    assert pa.total_allocated_bytes() - before < SAMPLES


@pytest.mark.parametrize("together", [1, 2, 4])
def test_features_are_the_same_however_many_songs_come_together(together: int) -> None:
    songs = decoded(3, 0, 5, 1)
    stage = EncodeSongs(ENCODING)
    whole = stage(songs)
    pieces = pa.concat_tables([stage(songs.slice(start, together)) for start in range(0, len(songs), together)])
    assert pieces.select(STATUS_COLUMNS).equals(whole.select(STATUS_COLUMNS))
    (found, counts), (expected, _) = (window_arrays(table["features"]) for table in (pieces, whole))
    assert counts.tolist() == [3, 0, 5, 1]
    np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), atol=1e-3)


def test_a_song_whose_features_are_no_finite_numbers_fails_and_its_neighbours_do_not() -> None:
    songs, stage = decoded(2, 0, 1, 1), EncodeSongs(ENCODING)
    whole = stage(songs)
    encode = stage._encoder.encode
    broken = {2: float("nan"), 3: 1e5}  # the latter is beyond what float16 holds
    songs_of_windows = iter([0, 0, 2, 3])

    def spoilt(windows: torch.Tensor) -> torch.Tensor:
        values = torch.tensor([broken.get(next(songs_of_windows), 0.0) for _ in windows])
        return encode(windows) + values[:, None]

    stage._encoder.encode = spoilt
    found = stage(songs)
    assert found["status"].to_pylist() == ["ok", "failed", "failed", "failed"]
    assert found["error_class"].to_pylist() == [None, "empty", "not_finite", "not_finite"]
    assert "tiny gives no finite numbers" in found["error"][2].as_py()
    assert window_arrays(found["features"])[1].tolist() == [2, 0, 0, 0]
    assert found["features"][0] == whole["features"][0]


def test_a_commit_writes_the_rows_without_timings_and_its_receipt_holds_them(tmp_path: Path) -> None:
    encoded = EncodeSongs(ENCODING)(decoded(2, 0, 1))
    (receipt,) = committed(encoded, tmp_path)
    assert (receipt["songs"], receipt["audio_s"], receipt["decode_s"]) == (3, 20.0, 3.0)
    assert [(song["track_id"], song["error_class"]) for song in receipt["failures"]] == [("song1", "empty")]
    assert receipt["nodes"] == [{"node": "here", "songs": 3}]
    assert receipt["witness"] == "/music/0"
    assert receipt["encode_s"] > 0
    assert receipt["ready"] == encoded["ready"][0].as_py()
    part = pq.read_table(tmp_path / receipt["part"])
    assert part["track_id"].to_pylist() == ["song0", "song2"], "a failed song is for who began the run"
    assert not {*BESIDE} & {*part.column_names}


def test_very_long_songs_are_committed_in_several_parts_and_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = EncodeSongs(ENCODING)(decoded(3, 0, 5, 1, 2))
    a_window = 192 * 2
    monkeypatch.setattr(stages, "PART_BYTES", 4 * a_window)
    receipts = committed(encoded, tmp_path)
    parts = [pq.read_table(tmp_path / receipt["part"])["track_id"].to_pylist() for receipt in receipts]
    assert parts == [["song0"], ["song2", "song3", "song4"]]
    assert sum(receipt["songs"] for receipt in receipts) == 5


def test_a_storage_that_refuses_for_good_ends_the_run_and_commits_what_was_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_the_second(_: Decoding, uri: str, attempts: int) -> dict[str, object]:
        if uri == "two":
            raise StorageError("the credentials have expired.")
        return {"status": "ok", "duration_s": 10.0, "windows": [bytearray(2 * SAMPLES)], "scales": [1.0]}

    monkeypatch.setattr(Decoding, "decode", refuse_the_second)
    songs = pa.table({"track_id": ["one", "two", "three"], "uri": ["one", "two", "x"]})
    rows = pa.concat_tables(decode_songs(songs, Decoding(10.0, False, 60.0, 24_000, 0.1, Limits())))
    done, trouble = committed(EncodeSongs(ENCODING)(rows), tmp_path)
    assert pq.read_table(tmp_path / done["part"])["track_id"].to_pylist() == ["one"]
    assert (trouble["songs"], trouble["trouble"]) == (0, "the credentials have expired.")
