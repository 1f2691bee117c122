"""From bytes to windows: ours against the plain chain, and against opening the file anew for each window.

python -m benchmarks.decode [--music DIR] [--songs 6] [--rounds 5]

The songs are repeated to 200 s (MTG-Jamendo's median) and coded anew as MP3 at 320 kbit/s and as FLAC, 44.1 kHz
stereo. CPU seconds of one core, medians of rounds that take turns. Beside ours: soundfile's whole file,
``mean(axis=1)`` and soxr HQ; a file opened, asked for its length, and opened and searched again for each 10 s window,
both channels resampled before they are mixed, as the published code does with what torchaudio was then: with a reader
that finds a place in a file (libsndfile), and with one that reads up to it (as sox does).
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from benchmarks.data import songs_of
from benchmarks.measure import Line, as_table, flags, take_turns
from mer_ray.audio.decoding import SAMPLE_RATE, WINDOW_SECONDS, decode_windows
from mer_ray.audio.process import Limits, SongDecoder

RATE = 44_100
WINDOW = round(SAMPLE_RATE * WINDOW_SECONDS)
SONG_SECONDS = 200
SCALING_SECONDS = 600
"""Of audio that each of the two decoders has to decode when scaling over cores is measured."""
# The lowest compression of a constant bit rate is MPEG-1's highest, 320 kbit/s.
CODINGS: dict[str, dict[str, Any]] = {
    "MP3 320k": {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": 0.0},
    "FLAC": {"format": "FLAC"},
}

Samples = NDArray[np.float32]


def main() -> None:
    """Print the lines as a table."""
    asked = flags(__doc__, music=None, songs=6, rounds=5)
    print(as_table({"decode": measure(asked.music, asked.songs, asked.rounds)}))


def measure(music: Path | None, songs: int = 6, rounds: int = 5) -> list[Line]:
    """All lines of this benchmark."""
    with TemporaryDirectory(prefix="mer-ray-decode-") as name:
        folder = Path(name)
        audio = [_song(path) for path in songs_of(music, songs, folder)]
        lines = []
        for coding in CODINGS:
            lines += _chains(coding, [encoded(samples, coding) for samples in audio], rounds)
        return [*lines, _two_cores(np.concatenate(audio), folder / "song.flac")]


def plain(data: bytes) -> Samples:
    """Windows [w, n] by the plain chain."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    resampled = soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE, quality="HQ")
    count = len(resampled) // WINDOW
    windows: Samples = resampled[: count * WINDOW].reshape(count, WINDOW)
    return windows


def anew(data: bytes, search: bool) -> Samples:
    """Windows [w, n]: the file opened anew for each, and searched, or read from its start."""
    pieces = []
    for at in range(int(soundfile.info(io.BytesIO(data)).duration // WINDOW_SECONDS)):
        if search:
            soundfile.info(io.BytesIO(data))
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            frames = round(WINDOW_SECONDS * sound.samplerate)
            if search:
                sound.seek(at * frames)
            for _ in range(0 if search else at):
                sound.read(frames, dtype="float32")
            block = sound.read(frames, dtype="float32", always_2d=True)
        resampled = soxr.resample(block, sound.samplerate, SAMPLE_RATE, quality="HQ")[:WINDOW].mean(axis=1)
        pieces.append(np.pad(resampled, (0, WINDOW - len(resampled))))
    return np.stack(pieces)


CHAINS: Sequence[tuple[str, Callable[[bytes], object], str]] = (
    ("plain chain", plain, "≥ 1.25"),
    ("opened and searched for each window", partial(anew, search=True), "≥ 5"),
    ("opened and read up to each window", partial(anew, search=False), "≥ 5"),
)


def encoded(stereo: Samples, coding: str) -> bytes:
    """Samples [n, 2] at RATE as a file."""
    target = io.BytesIO()
    soundfile.write(target, stereo, RATE, **CODINGS[coding])
    return target.getvalue()


def _song(path: str) -> Samples:
    """SONG_SECONDS of a song, [n, 2] at RATE."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if rate != RATE:
        samples = soxr.resample(samples, rate, RATE, quality="HQ")
    stereo = samples[:, [0, -1]] if samples.shape[1] == 1 else samples[:, :2]
    return np.resize(stereo, (SONG_SECONDS * RATE, 2))


def _chains(coding: str, files: Sequence[bytes], rounds: int) -> list[Line]:
    for data in files:
        ours, theirs = decode_windows(data).windows, plain(data)
        worst = float(np.abs(ours[: len(theirs)] - theirs[: len(ours)]).max())
        assert len(ours) == len(theirs), f"{coding}: not the same windows"
        assert worst < 2e-3, f"{coding}: samples differ by {worst:.1e}"
    seconds = sum(len(plain(data)) * WINDOW_SECONDS for data in files)
    lines = []
    for what, chain, goal in CHAINS:
        pair = take_turns(lambda chain=chain: [*map(chain, files)], lambda: [*map(decode_windows, files)], rounds)  # type: ignore[misc]
        lines.append(pair.line(f"decode {coding}, {what}", seconds, "× real time", goal))
    return lines


def _two_cores(song: Samples, path: Path) -> Line:
    """One decoder against two at once, each with all the work: twice the songs in the same time is 2."""
    path.write_bytes(encoded(song, "FLAC"))
    turns = max(1, round(SCALING_SECONDS * RATE / len(song)))
    decoders = [SongDecoder(Limits()) for _ in range(2)]

    def work(decoder: SongDecoder) -> None:
        for _ in range(turns):
            decoder.decode(str(path))

    with ThreadPoolExecutor(2) as pool:

        def both() -> None:
            list(pool.map(work, decoders))

        both()
        pair = take_turns(lambda: [*map(work, decoders)], both, 5, time.perf_counter)
    for decoder in decoders:
        decoder.close()
    return pair.line("decode on two cores, one core", 2 * turns * len(song) / RATE, "× real time", "≥ 1.8")


if __name__ == "__main__":
    main()
