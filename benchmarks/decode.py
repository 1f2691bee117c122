"""From bytes to windows: ours against the plain chain, and against opening the file anew for each window.

python -m benchmarks.decode [--music DIR] [--songs 6] [--rounds 5]

The songs are repeated to 200 s (MTG-Jamendo's median) and coded anew as MP3 at 320 kbit/s and as FLAC, 44.1 kHz
stereo. CPU seconds of one core, medians of rounds that take turns. Beside ours: soundfile's whole file,
``mean(axis=1)`` and soxr HQ; a file opened, asked for its length, and opened and searched again for each 10 s window,
both channels resampled before they are mixed, as the published code does with what torchaudio was then: with a reader
that finds a place in a file (libsndfile), and with one that reads up to it (as sox does).
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from benchmarks.measure import Line, as_table, take_turns
from benchmarks.songs import songs_of
from mer_ray.audio.decoding import SAMPLE_RATE, WINDOW_SECONDS, decode_windows
from mer_ray.audio.process import Limits, SongDecoder

COMMAND = "python -m benchmarks.decode"
RATE = 44_100
WINDOW = round(SAMPLE_RATE * WINDOW_SECONDS)
SONG_SECONDS = 200
LENGTHS_MINUTES = (3, 30)
SCALING_SECONDS = 600
"""Of audio that each of the two decoders has to decode when scaling over cores is measured."""

Windows = NDArray[np.float32]


def main() -> None:
    """Print the lines as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--music", type=Path, help="folder of songs; composed if not given")
    parser.add_argument("--songs", type=int, default=6, help="at most this many songs (6)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (5)")
    asked = parser.parse_args()
    print(as_table(measure(asked.music, asked.songs, asked.rounds)))


def measure(music: Path | None, songs: int = 6, rounds: int = 5) -> list[Line]:
    """All lines of this benchmark."""
    with tempfile.TemporaryDirectory(prefix="mer-ray-decode-") as folder:
        audio = [_song(path) for path in songs_of(music, songs, Path(folder))]
        lines = []
        for name in ("MP3 320k", "FLAC"):
            files = [encoded(samples, rate, name) for samples, rate in audio]
            lines += _chains(name, files, rounds)
        lines.append(_two_cores(encoded(np.concatenate([samples for samples, _ in audio]), audio[0][1], "FLAC")))
        lines.append(_memory(*audio[0]))
        return lines


def _song(path: str) -> tuple[NDArray[np.float32], int]:
    """A song of SONG_SECONDS, [n, c] and its rate."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.concatenate([samples] * -(-SONG_SECONDS * rate // len(samples)))[: SONG_SECONDS * rate], rate


def plain(data: bytes) -> Windows:
    """Windows [w, n] by the plain chain."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return _windows(soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE, quality="HQ"))


def searched(data: bytes) -> Windows:
    """Windows [w, n]: the file opened anew for each, and searched."""
    pieces = []
    for at in range(_count(data)):
        rate = soundfile.info(io.BytesIO(data)).samplerate
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            sound.seek(round(at * WINDOW_SECONDS * rate))
            pieces.append(_one(sound.read(round(WINDOW_SECONDS * rate), dtype="float32", always_2d=True), rate))
    return np.stack(pieces)


def read_up_to(data: bytes) -> Windows:
    """Windows [w, n]: the file opened anew for each, and read from its start."""
    pieces = []
    for at in range(_count(data)):
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            frames = round(WINDOW_SECONDS * sound.samplerate)
            for _ in range(at):
                sound.read(frames, dtype="float32")
            pieces.append(_one(sound.read(frames, dtype="float32", always_2d=True), sound.samplerate))
    return np.stack(pieces)


def encoded(samples: NDArray[np.float32], rate: int, name: str) -> bytes:
    """Stereo at 44.1 kHz as MP3 with 320 kbit/s, or as FLAC."""
    stereo = np.repeat(samples, 2, axis=1) if samples.shape[1] == 1 else samples[:, :2]
    if rate != RATE:
        stereo = soxr.resample(stereo, rate, RATE, quality="HQ")
    target = io.BytesIO()
    # The lowest compression of a constant bit rate is MPEG-1's highest, 320 kbit/s.
    coding = (
        {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": 0.0} if "MP3" in name else {"format": "FLAC"}
    )
    soundfile.write(target, stereo, RATE, **coding)
    return target.getvalue()


def _chains(name: str, files: Sequence[bytes], rounds: int) -> list[Line]:
    for data in files:
        ours, theirs = decode_windows(data).windows, plain(data)
        worst = float(np.abs(ours[: len(theirs)] - theirs[: len(ours)]).max())
        assert len(ours) == len(theirs), f"{name}: not the same windows"
        assert worst < 2e-3, f"{name}: samples differ by {worst:.1e}"
    seconds = sum(len(decode_windows(data).windows) * WINDOW_SECONDS for data in files)
    lines = []
    for what, chain, goal in CHAINS:
        pair = take_turns(partial(_all, chain, files), partial(_all, decode_windows, files), rounds)
        lines.append(
            Line(
                f"decode {name}, {what}",
                _speed(seconds, pair.baseline_s),
                _speed(seconds, pair.ours_s),
                pair.ratio,
                goal,
                COMMAND,
            )
        )
    return lines


def _all(chain: Callable[[bytes], object], files: Sequence[bytes]) -> None:
    for data in files:
        chain(data)


def _speed(audio_s: float, spent_s: float) -> str:
    return f"{audio_s / spent_s:,.0f} × real time"


CHAINS = (
    ("plain chain", plain, "≥ 1.25"),
    ("opened and searched for each window", searched, "≥ 5"),
    ("opened and read up to each window", read_up_to, "≥ 5"),
)


def _two_cores(song: bytes) -> Line:
    """One decoder against two at once, each with all the work: twice the songs in the same time is 2."""
    with tempfile.NamedTemporaryFile(suffix=".flac") as file:
        file.write(song)
        file.flush()
        once = soundfile.info(file.name).duration
        turns = max(1, round(SCALING_SECONDS / once))
        decoders = [SongDecoder(Limits()) for _ in range(2)]

        def work(decoder: SongDecoder) -> None:
            for _ in range(turns):
                decoder.decode(file.name)

        def one_by_one() -> None:
            for decoder in decoders:
                work(decoder)

        def both() -> None:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(work, decoders))

        both()
        pair = take_turns(one_by_one, both, 5, time.perf_counter)
        for decoder in decoders:
            decoder.close()
    audio = 2 * turns * once
    speeds = _speed(audio, pair.baseline_s), _speed(audio, pair.ours_s)
    return Line("decode on two cores, one core", speeds[0], speeds[1], pair.ratio, "≥ 1.8", COMMAND)


_PEAK = """
import sys
from benchmarks.memory import high_water_mib
from mer_ray.audio.decoding import decode_windows
before = high_water_mib()
track = decode_windows(sys.argv[1])
print(high_water_mib() - before - track.windows.nbytes / 2**20)
"""


def _memory(samples: NDArray[np.float32], rate: int) -> Line:
    """What decoding takes beside the windows it hands over, for a short and a long song."""
    peaks = []
    for minutes in LENGTHS_MINUTES:
        turns = -(-minutes * 60 * rate // len(samples))
        with tempfile.NamedTemporaryFile(suffix=".mp3") as file:
            file.write(encoded(np.concatenate([samples] * turns)[: minutes * 60 * rate], rate, "MP3 320k"))
            file.flush()
            command = [sys.executable, "-c", _PEAK, file.name]
            peaks.append(
                float(subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ}).stdout)
            )
    what = (
        f"decode: memory beside the windows, {LENGTHS_MINUTES[0]} min, then {LENGTHS_MINUTES[1]} min (less is better)"
    )
    return Line(what, f"{peaks[0]:.0f} MiB", f"{peaks[1]:.0f} MiB", peaks[1] / max(peaks[0], 1), "flat", COMMAND)


def _count(data: bytes) -> int:
    info = soundfile.info(io.BytesIO(data))
    return int(info.frames / info.samplerate // WINDOW_SECONDS)


def _one(block: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    resampled: NDArray[np.float32] = soxr.resample(block, rate, SAMPLE_RATE, quality="HQ")[:WINDOW].mean(axis=1)
    return np.pad(resampled, (0, WINDOW - len(resampled)))


def _windows(samples: NDArray[np.float32]) -> Windows:
    count = len(samples) // WINDOW
    return samples[: count * WINDOW].reshape(count, WINDOW)


if __name__ == "__main__":
    main()
