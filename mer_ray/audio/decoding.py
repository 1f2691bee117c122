"""A song's bytes → mono windows, or a named reason why not.

The file is decoded, mixed down and resampled block by block: memory follows what was decoded (96 kB a
second of audio at 24 kHz), never what a header claims.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
import soxr

from mer_ray.audio.formats import NO_AUDIO, TRUNCATED_BELOW, AudioError, FileFacts, recognize
from mer_ray.audio.libraries import SOUNDFILE_FIRST, CannotOpen, Opener, Samples, open_pyav, open_soundfile
from mer_ray.audio.opening import AudioSource, opened

SAMPLE_RATE = 24_000
"""Hz, where no encoder says otherwise: the rate MERT was trained at."""
MIN_RATE, MAX_RATE = 4_000, 768_000
"""Hz. A header that claims 1 Hz would have a small file resampled into all of the memory."""
WINDOW_SECONDS = 10.0
"""Length of a window (METHOD row 1)."""
MIN_SECONDS = 0.1
"""Shortest usable piece, likewise: below 400 samples MERT's convolutions yield no frame, and 0.1 s yields seven."""
SILENCE_PEAK = 1e-4
"""A song that never exceeds this (-80 dB of full scale, three steps of 16 bits: dither) is silent."""
_GROWTH_SECONDS = 60
_TRAILING_TAGS = 16_384  # bytes after the last frame that need no second look
_WORTH_CHANGING_SECONDS = 0.5  # the libraries differ by a frame or two where a file ends


@dataclass(frozen=True)
class DecodedTrack:
    """A song ready for the encoder."""

    windows: Samples
    """[w, window_samples] mono. A song shorter than one window is one unpadded window [1, n]."""
    tail: Samples | None
    """[n], n < window_samples: what follows the last full window; only when asked for and worth encoding."""
    duration_s: float
    """Seconds decoded, the dropped tail included."""
    truncated: bool
    """The file is cut short (under 0.98 of its stated duration, or its end is missing), or was capped."""
    bad_packets: int
    """Packets that could not be decoded and were left out; at least 1 when one library met damage."""
    capped: bool = False
    """The song goes on after ``max_seconds`` (class ``too_long``)."""


def decode_windows(
    source: AudioSource,
    *,
    window_seconds: float = WINDOW_SECONDS,
    keep_tail: bool = False,
    max_seconds: float | None = None,
    sample_rate: int = SAMPLE_RATE,
    min_seconds: float = MIN_SECONDS,
) -> DecodedTrack:
    """Decode a song into windows of mono audio at ``sample_rate`` Hz.

    The channels' mean is resampled with soxr HQ. A song must last ``min_seconds``. A trailing piece shorter than a
    window is dropped, or kept as ``tail`` when it is as long as that. Nothing after ``max_seconds`` is decoded. A
    file object must be binary, is read from its start and left open. Raises AudioError.
    """
    if window_seconds < min_seconds or (max_seconds is not None and max_seconds < min_seconds):
        raise ValueError(f"window_seconds and max_seconds must be at least {min_seconds}")
    with opened(source) as file:
        one = _decode(file, recognize(file), max_seconds, sample_rate)
    samples, seconds = one.samples, len(one.samples) / sample_rate
    if not len(samples):
        raise AudioError("zero_length", NO_AUDIO)
    if seconds < min_seconds:
        raise AudioError("too_short", f"The audio lasts {seconds:.3f} s, less than {min_seconds} s; leave it out.")
    if one.peak < SILENCE_PEAK:
        peak = f"peak {one.peak:.1e}"
        raise AudioError("silent", f"All {seconds:.1f} s are silent ({peak}); replace or leave it out.")
    window_samples = round(window_seconds * sample_rate)
    whole = len(samples) // window_samples * window_samples
    windows, rest = samples[:whole].reshape(-1, window_samples), samples[whole:]
    if not whole:
        windows, rest = samples[np.newaxis, :], samples[:0]
    keep_tail = keep_tail and len(rest) >= max(1, math.ceil(min_seconds * sample_rate))
    tail = rest.copy() if keep_tail else None
    return DecodedTrack(windows, tail, seconds, one.truncated, one.bad_packets, one.capped)


@dataclass(frozen=True)
class _Recording:
    """A whole decoded song: [n] mono samples and what was noticed on the way."""

    samples: Samples
    peak: float
    truncated: bool
    capped: bool
    bad_packets: int
    left_unread: bool
    """An MP3 goes on: the library guessed its length, took damage for its end, or was capped."""


def _decode(file: BinaryIO, facts: FileFacts, max_seconds: float | None, rate: int) -> _Recording:
    """Decode with the library that suits the format, then, if it fails or stops early, with the other one."""
    recordings: list[_Recording] = []
    verdicts: list[AudioError] = []
    reasons: list[str] = []
    openers = (open_soundfile, open_pyav) if facts.kind in SOUNDFILE_FIRST else (open_pyav, open_soundfile)
    for opener in openers:
        file.seek(0)
        try:
            recording = _record(opener, file, facts, max_seconds, rate)
        except CannotOpen as error:
            reasons.append(str(error))
        except AudioError as error:
            verdicts.append(error)
        else:
            recordings.append(recording)
            if recording.capped or facts.cut_short or not (recording.truncated or recording.left_unread):
                break
    if not recordings:
        if verdicts:
            raise verdicts[-1]
        said = "; ".join(reasons)
        if facts.kind is None:
            raise AudioError("not_audio", f"The bytes are no known audio format ({said}); check their source.")
        raise AudioError("corrupt", f"The file begins as {facts.kind} and cannot be opened ({said}); replace it.")
    first = recordings[0]
    if first.left_unread and verdicts and verdicts[-1].error_class == "unsupported":
        raise verdicts[-1]
    best = max(recordings, key=lambda recording: len(recording.samples))
    if len(best.samples) - len(first.samples) < _WORTH_CHANGING_SECONDS * rate:
        best = first
    stopped_early = first.truncated and best is not first
    damaged = stopped_early or any(verdict.error_class == "corrupt" for verdict in verdicts)
    rest_unknown = first.left_unread and len(recordings) == 1
    bad_packets = max(best.bad_packets, int(damaged))
    return replace(best, truncated=best.truncated or rest_unknown, bad_packets=bad_packets)


def _record(opener: Opener, file: BinaryIO, facts: FileFacts, max_seconds: float | None, rate: int) -> _Recording:
    with opener(file) as stream:
        if not MIN_RATE <= stream.rate <= MAX_RATE:
            raise AudioError("unsupported", f"The header claims a sample rate of {stream.rate} Hz; convert the file.")
        limit = sys.maxsize if max_seconds is None else math.ceil(max_seconds * stream.rate)
        resampled = _Resampled(stream.rate, rate)
        frames, capped = 0, False
        for block in stream.blocks:
            capped = frames + len(block) > limit
            kept = block[: limit - frames]
            resampled.add(kept)
            frames += len(kept)
            if capped:
                break
        samples = resampled.finish()
        declared_s = stream.declared_s if facts.length_stated else None
        short = declared_s is not None and frames < TRUNCATED_BELOW * declared_s * stream.rate
        truncated = capped or facts.cut_short or short
        left_unread = facts.kind == "MP3" and facts.size - file.tell() > _TRAILING_TAGS
        return _Recording(samples, resampled.peak, truncated, capped, stream.tally.bad, left_unread)


class _Resampled:
    """Mono blocks at one rate, collected at another in one array that grows with what is decoded."""

    def __init__(self, found: int, rate: int) -> None:
        self.peak = 0.0
        self._rate = rate
        self._length = 0
        self._samples: Samples = np.empty(0, np.float32)
        self._stream = None
        if found != rate:
            self._stream = soxr.ResampleStream(found, rate, 1, dtype="float32", quality="HQ")

    def add(self, block: Samples, last: bool = False) -> None:
        """Append a block. Raises AudioError ``corrupt`` when it holds NaN or infinity."""
        if self._stream is not None:
            block = self._stream.resample_chunk(block, last=last)
        if not len(block):
            return
        peak = max(float(block.max()), -float(block.min()))
        if not math.isfinite(peak):
            at = f"near second {self._length // self._rate}"
            raise AudioError("corrupt", f"The audio holds NaN or infinite samples {at}; export it again.")
        self.peak = max(self.peak, peak)
        end = self._length + len(block)
        if end > len(self._samples):
            # In place, so that a long song never stands in memory twice; no view of it exists yet.
            self._samples.resize(end + _GROWTH_SECONDS * self._rate, refcheck=False)
        self._samples[self._length : end] = block
        self._length = end

    def finish(self) -> Samples:
        """Flush the resampler and hand over the samples [n]."""
        if self._stream is not None:
            self.add(np.empty(0, np.float32), last=True)
        self._samples.resize(self._length, refcheck=False)
        return self._samples
