"""A song's bytes → 24 kHz mono windows, or a named reason why not.

    track = decode_windows("song.mp3")      # or bytes, or an open binary file
    track.windows                           # [w, 240000] float32

The file is decoded, mixed down and resampled block by block: memory follows what was decoded (96 kB a
second of audio), never what a header claims.
"""

from __future__ import annotations

import errno
import io
import math
import os
import random
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, cast

import numpy as np
import soxr

from mer_ray import storage
from mer_ray.audio.libraries import (
    TRUNCATED_BELOW,
    AudioError,
    CannotOpen,
    FileFacts,
    Opener,
    Samples,
    inspect,
    openers,
)

__all__ = ["SAMPLE_RATE", "WINDOW_SECONDS", "AudioError", "DecodedTrack", "Repeats", "decode_windows", "fetch"]

SAMPLE_RATE = 24_000
"""Hz, the rate MERT was trained at."""
WINDOW_SECONDS = 10.0
"""Length of a window (METHOD row 1)."""
MIN_SECONDS = 0.1
"""Shortest usable piece: below 400 samples MERT's convolutions yield no frame, and 0.1 s yields seven."""
SILENCE_PEAK = 1e-4
"""A song that never exceeds this (-80 dB of full scale, three steps of 16 bits: dither) is silent."""
FETCH_ATTEMPTS = 7
"""Tries of one fetch before an ``io_error`` is final; each is one request."""
FETCH_WAIT_S = 0.5
"""Wait before the first repeat, on average; each further one takes twice as long, half a minute in all."""

_GROWTH = 60 * SAMPLE_RATE
_TRAILING_TAGS = 16_384  # bytes after the last frame that need no second look
_WORTH_CHANGING = SAMPLE_RATE // 2  # the libraries differ by a frame or two where a file ends

AudioSource = bytes | str | os.PathLike[str] | BinaryIO


@dataclass
class Repeats:
    """How often fetches were tried again, and the seconds that failed tries and waits took."""

    count: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class DecodedTrack:
    """A song ready for the encoder."""

    windows: Samples
    """[w, window_samples] mono, 24 kHz. A song shorter than one window is one unpadded window [1, n]."""
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
) -> DecodedTrack:
    """Decode a song into windows of mono 24 kHz audio.

    The channels' mean is resampled with soxr HQ. A trailing piece shorter than a window is dropped, or kept
    as ``tail`` when it is at least ``MIN_SECONDS`` long. Nothing after ``max_seconds`` is decoded. A file
    object must be binary, is read from its start and left open.

    Raises AudioError.
    """
    window_samples = round(window_seconds * SAMPLE_RATE)
    if window_seconds < MIN_SECONDS or (max_seconds is not None and max_seconds < MIN_SECONDS):
        raise ValueError(f"window_seconds and max_seconds must be at least {MIN_SECONDS}")
    with _opened(source) as file:
        recording = _decode(file, inspect(file), max_seconds)
    _refuse_unusable(recording)
    return _cut(recording, window_samples, keep_tail)


def fetch(uri: str, repeats: Repeats | None = None) -> bytes | str:
    """A song ready for :func:`decode_windows`: an ``s3://`` object's bytes, or a local path to stream from.

    Args:
        uri: where it lies.
        repeats: counts the tries after the first.

    Raises:
        AudioError: ``not_found``, ``forbidden``, or ``io_error`` once it has been retried.
        StorageError: there are no credentials, or they have expired: no other song could be fetched either.
    """
    repeats = Repeats() if repeats is None else repeats
    for attempt in range(1, FETCH_ATTEMPTS + 1):
        started = time.monotonic()
        try:
            return _fetch_s3(uri) if storage.is_s3(uri) else _check_local(uri)
        except AudioError as error:
            if error.error_class != "io_error" or attempt == FETCH_ATTEMPTS:
                raise
        # Jitter keeps a thousand workers from coming back to a struggling server all at once.
        time.sleep(FETCH_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
        repeats.count += 1
        repeats.seconds += time.monotonic() - started
    raise AssertionError("unreachable: the last attempt returns or raises")


@dataclass(frozen=True)
class _Recording:
    """A whole decoded song: [n] mono samples at 24 kHz and what was noticed on the way."""

    samples: Samples
    peak: float
    truncated: bool
    capped: bool
    bad_packets: int
    left_unread: bool
    """An MP3 goes on: the library guessed its length, took damage for its end, or was capped."""


def _decode(file: BinaryIO, facts: FileFacts, max_seconds: float | None) -> _Recording:
    """Decode with the library that suits the format, then, if it fails or stops early, with the other one."""
    recordings: list[_Recording] = []
    verdicts: list[AudioError] = []
    reasons: list[str] = []
    for opener in openers(facts):
        file.seek(0)
        try:
            recording = _record(opener, file, facts, max_seconds)
        except CannotOpen as error:
            reasons.append(str(error))
        except AudioError as error:
            verdicts.append(error)
        else:
            recordings.append(recording)
            if recording.capped or facts.cut_short or not (recording.truncated or recording.left_unread):
                break
    if not recordings:
        raise verdicts[-1] if verdicts else _unreadable(facts, "; ".join(reasons))
    first = recordings[0]
    if first.left_unread and verdicts and verdicts[-1].error_class == "unsupported":
        raise verdicts[-1]
    best = max(recordings, key=lambda recording: len(recording.samples))
    if len(best.samples) - len(first.samples) < _WORTH_CHANGING:
        best = first
    stopped_early = first.truncated and best is not first
    damaged = stopped_early or any(verdict.error_class == "corrupt" for verdict in verdicts)
    rest_unknown = first.left_unread and len(recordings) == 1
    return replace(
        best,
        truncated=best.truncated or rest_unknown,
        bad_packets=max(best.bad_packets, int(damaged)),
    )


def _unreadable(facts: FileFacts, reasons: str) -> AudioError:
    if facts.kind is None:
        return AudioError("not_audio", f"The bytes are no known audio format ({reasons}); check their source.")
    return AudioError("corrupt", f"The file begins as {facts.kind} and cannot be opened ({reasons}); replace it.")


def _record(opener: Opener, file: BinaryIO, facts: FileFacts, max_seconds: float | None) -> _Recording:
    with opener(file) as stream:
        limit = sys.maxsize if max_seconds is None else math.ceil(max_seconds * stream.rate)
        resampled = _Resampled(stream.rate)
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
    """Mono blocks at one rate, collected at 24 kHz in one array that grows with what is decoded."""

    def __init__(self, rate: int) -> None:
        self.peak = 0.0
        self._length = 0
        self._samples: Samples = np.empty(0, np.float32)
        self._stream = None
        if rate != SAMPLE_RATE:
            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")

    def add(self, block: Samples, last: bool = False) -> None:
        """Append a block. Raises AudioError ``corrupt`` when it holds NaN or infinity."""
        if self._stream is not None:
            block = self._stream.resample_chunk(block, last=last)
        if not len(block):
            return
        peak = max(float(block.max()), -float(block.min()))
        if not math.isfinite(peak):
            second = self._length // SAMPLE_RATE
            raise AudioError(
                "corrupt", f"The audio holds NaN or infinite samples near second {second}; export it again."
            )
        self.peak = max(self.peak, peak)
        end = self._length + len(block)
        if end > len(self._samples):
            # In place, so that a long song never stands in memory twice; no view of it exists yet.
            self._samples.resize(end + _GROWTH, refcheck=False)
        self._samples[self._length : end] = block
        self._length = end

    def finish(self) -> Samples:
        """Flush the resampler and hand over the samples [n]."""
        if self._stream is not None:
            self.add(np.empty(0, np.float32), last=True)
        self._samples.resize(self._length, refcheck=False)
        return self._samples


def _refuse_unusable(recording: _Recording) -> None:
    seconds = len(recording.samples) / SAMPLE_RATE
    if not len(recording.samples):
        raise AudioError("zero_length", "The file has a header and no audio; replace it.")
    if seconds < MIN_SECONDS:
        raise AudioError("too_short", f"The audio lasts {seconds:.3f} s, less than {MIN_SECONDS} s; leave it out.")
    if recording.peak < SILENCE_PEAK:
        raise AudioError(
            "silent", f"All {seconds:.1f} s are silent (peak {recording.peak:.1e}); replace or leave it out."
        )


def _cut(recording: _Recording, window_samples: int, keep_tail: bool) -> DecodedTrack:
    samples = recording.samples
    count = len(samples) // window_samples
    tail = None
    if count == 0:
        windows = samples[np.newaxis, :]
    else:
        windows = samples[: count * window_samples].reshape(count, window_samples)
        rest = samples[count * window_samples :]
        if keep_tail and len(rest) >= MIN_SECONDS * SAMPLE_RATE:
            tail = rest.copy()
    return DecodedTrack(
        windows=windows,
        tail=tail,
        duration_s=len(samples) / SAMPLE_RATE,
        truncated=recording.truncated,
        bad_packets=recording.bad_packets,
        capped=recording.capped,
    )


class _Watched(io.RawIOBase):
    """A file that ends at a failed read and remembers it: libsndfile knows no other way to stop.

    It also has no name, by which both libraries would guess a format.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failure: OSError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # A damaged header sends the reader to a negative place: no fault of the disk.
            raise ValueError("a place outside the file") from error

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any, /) -> int:
        try:
            data = self._file.read(len(buffer))
        except OSError as error:
            self.failure = error
            return 0
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def _opened(source: AudioSource) -> Iterator[BinaryIO]:
    """The source as a seekable file. Raises AudioError when it cannot be opened or read."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        try:
            file = open(source, "rb")  # noqa: SIM115 - closed by the with below; only opening is guarded here
        except OSError as error:
            raise _from_os_error(os.fspath(source), error) from error
        with file, _watched(file) as watched:
            yield watched
    elif source.seekable():
        with _watched(source) as watched:
            yield watched
    else:
        yield io.BytesIO(source.read())


@contextmanager
def _watched(file: BinaryIO) -> Iterator[BinaryIO]:
    watched = _Watched(file)
    name = getattr(file, "name", "the file")
    try:
        yield cast(BinaryIO, watched)
    except OSError as error:
        raise _from_os_error(name, error) from error
    except AudioError:
        if watched.failure is None:
            raise
    if watched.failure is not None:
        raise _from_os_error(name, watched.failure) from watched.failure


def _check_local(uri: str) -> str:
    """The path of a local file, once it is known to be a regular one that can be read."""
    path = storage.filesystem(uri)[1]
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise AudioError("not_found", f"{path}: not a regular file. Check the catalogue.")
        with open(path, "rb"):
            return path
    except OSError as error:
        raise _from_os_error(path, error) from error
    except ValueError as error:
        raise AudioError("not_found", f"{path!r}: no possible path ({error}). Check the catalogue.") from error


def _fetch_s3(uri: str) -> bytes:
    """The whole object in one get: many small ranges are an order of magnitude slower."""
    try:
        return storage.read_once(uri)
    except storage.failures(uri) as error:
        if storage.credentials_gone(error):
            raise storage.refusal(uri, "read", error) from error
        if isinstance(error, OSError):
            raise _from_os_error(uri, error) from error
        raise _io_error(uri, error) from error


def _from_os_error(uri: object, error: OSError) -> AudioError:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return AudioError("not_found", f"{uri}: not found. Check the catalogue.")
    if isinstance(error, IsADirectoryError):
        return AudioError("not_found", f"{uri}: a folder, not a file. Check the catalogue.")
    if isinstance(error, PermissionError):
        return AudioError("forbidden", f"{uri}: access denied. Check the permissions or credentials.")
    if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
        return AudioError("not_found", f"{uri}: {error.strerror}. Check the catalogue.")
    return _io_error(uri, error)


def _io_error(uri: object, error: Exception) -> AudioError:
    reason = str(error).rstrip(".") or type(error).__name__
    return AudioError("io_error", f"{uri}: {reason}. Try again with --retry-failed.")
