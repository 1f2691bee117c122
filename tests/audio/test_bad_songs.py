"""Whatever a file holds, it becomes one row with the right class, in bounded time and memory.

python -m pytest tests/test_bad_songs.py -s      # prints the table of files
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mer_ray.audio.process import Limits, room_for, shared_decoder
from mer_ray.cluster.stages import DECODED_SCHEMA, Decoding, decode_songs
from tests.support.bad_songs import BAD_SONGS, BadSong

CAP_SECONDS = 7_200.0
LIMITS = Limits(seconds=120, memory_mb=room_for(CAP_SECONDS, 24_000))
DECODING = Decoding(10.0, False, CAP_SECONDS, 24_000, 0.1, LIMITS)
LIBRARIES_MB = 220
SECOND_MB = 0.192
BYTES_TWICE = 2.0
"""Bound of the child's resident memory: the libraries' part; this for each second of the song (two hours at most):
its samples twice, because a damaged song is decoded by both libraries; and the file's bytes twice, for what a
library copies of them, such as a cover."""
ROW_SECONDS = 60.0


@dataclass(frozen=True)
class Outcome:
    """What became of a file."""

    row: dict[str, Any]
    seconds: float
    peak_mb: float | None
    file_mb: float
    child: int | None

    @property
    def label(self) -> str:
        if self.row["status"] == "failed":
            return str(self.row["error_class"])
        return "flagged" if self.row["truncated"] or self.row["bad_packets"] else "ok"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """Every bad song, decoded one after another as a worker of a run does it."""
    folder = tmp_path_factory.mktemp("bad")
    folder.chmod(0o755)
    found = {song.name: _decoded(song, folder / song.name) for song in BAD_SONGS if not _cannot_test(song)}
    print(f"\n{'file':44} {'outcome':16} {'s':>5} {'MB':>6}  sentence")
    for name, outcome in found.items():
        peak = "" if outcome.peak_mb is None else f"{outcome.peak_mb:.0f}"
        sentence = str(outcome.row["error"] or "").replace(f"{folder}/", "")[:110]
        print(
            f"{ascii(name)[1:-1][:44]:44} {outcome.label:16} {outcome.seconds:5.2f} {peak:>6}  {ascii(sentence)[1:-1]}"
        )
    yield found
    shared_decoder(LIMITS).close()


def _cannot_test(song: BadSong) -> bool:
    return "forbidden" in song.becomes and os.geteuid() == 0


def _decoded(song: BadSong, path: Path) -> Outcome:
    song.write(path)
    file_mb = os.path.getsize(path) / 1e6 if os.path.isfile(path) else 0.0
    _forget_peak()
    started = time.perf_counter()
    songs = pa.table({"track_id": [song.name], "uri": [str(path)]})
    tables = list(decode_songs(songs, DECODING))
    seconds = time.perf_counter() - started
    if song.name.startswith(("3 hours", "cover")):
        path.unlink()
    assert [table.schema for table in tables] == [DECODED_SCHEMA]
    assert len(tables[0]) == 1
    row = tables[0].drop_columns(["windows"]).to_pylist()[0]
    return Outcome(row, seconds, _peak_mb(), file_mb, shared_decoder(LIMITS).pid)


def _forget_peak() -> None:
    """ru_maxrss would do for all songs together, but a child inherits its parent's at birth, and keeps it."""
    pid = shared_decoder(LIMITS).pid
    if sys.platform == "linux" and pid:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _peak_mb() -> float | None:
    pid = shared_decoder(LIMITS).pid
    if sys.platform != "linux" or not pid:
        return None
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


@pytest.mark.parametrize("song", BAD_SONGS, ids=lambda song: ascii(song.name).strip("'")[:60])
def test_a_bad_song_is_a_row_with_the_right_class(song: BadSong, outcomes: dict[str, Outcome]) -> None:
    if _cannot_test(song):
        pytest.skip("root may read anything; tests/audio/test_decoding.py covers it as another user")
    outcome = outcomes[song.name]
    assert outcome.label in song.becomes, outcome.row["error"]
    assert outcome.seconds < ROW_SECONDS
    if outcome.row["status"] == "failed":
        assert len(outcome.row["error"]) > 20
        assert outcome.row["error"].endswith(".")
    else:
        assert outcome.row["error"] is None
        assert outcome.row["duration_s"] >= 0.1
        assert len(outcome.row["scales"]) == max(1, int(outcome.row["duration_s"] / 10))


def test_no_file_needs_more_memory_than_its_length_allows(outcomes: dict[str, Outcome]) -> None:
    for name, outcome in outcomes.items():
        seconds = outcome.row["duration_s"] or 0.0
        bound = LIBRARIES_MB + SECOND_MB * seconds + BYTES_TWICE * outcome.file_mb
        assert (outcome.peak_mb or 0.0) < bound, name


def test_none_of_them_killed_the_decoder(outcomes: dict[str, Outcome]) -> None:
    assert len({outcome.child for outcome in outcomes.values()}) == 1


def test_there_are_enough_of_them() -> None:
    assert len({song.name for song in BAD_SONGS}) == len(BAD_SONGS) >= 60
