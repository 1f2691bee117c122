"""Audio bytes as a stream of mono blocks at the file's own sample rate.

Neither library reads everything, so two stand behind one interface: libsndfile (soundfile), the faster one
where it reads a format well, and FFmpeg (PyAV), which knows more formats and reads past damage packet by
packet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt
import soundfile
from av import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from mer_ray.audio.formats import NO_AUDIO, AudioError

Samples = npt.NDArray[np.float32]

BLOCK_SAMPLES = 131_072
"""Samples of one block over all channels: Python costs nothing beside them, and a cache holds them."""
MAX_BAD_FRACTION = 0.5
"""A file with more undecodable packets than this is noise rather than damaged music."""
MAX_STRAYS = 8
"""Frames of another format in a row (a fifth of a second) that are damage rather than a change of format."""
# Names of FFmpeg's demuxers. The others read playlists and subtitles, which make it open further files.
_DEMUXERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,eac3,flac,flv,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,ogg,tta,w64,wav,wv"
)

SOUNDFILE_FIRST = frozenset({"MP3", "FLAC", "WAV", "AIFF", "AU", "CAF"})


class CannotOpen(Exception):  # noqa: N818 - a step on the way to an AudioError, never seen by a caller
    """A library does not recognise the bytes; the other one may."""


@dataclass
class Tally:
    """Packets that could not be decoded, counted while a stream is read."""

    bad: int = 0


@dataclass
class MonoStream:
    """Blocks of float32 mono samples [n] at ``rate`` Hz, the mean of the channels."""

    rate: int
    blocks: Iterator[Samples]
    declared_s: float | None
    tally: Tally = field(default_factory=Tally)


Opener = Callable[[BinaryIO], AbstractContextManager[MonoStream]]


@contextmanager
def open_soundfile(file: BinaryIO) -> Iterator[MonoStream]:
    """Read with libsndfile.

    Raises CannotOpen, or AudioError ``corrupt`` or ``zero_length``.
    """
    try:
        sound = _Sequential(file)
    except soundfile.LibsndfileError as error:
        raise CannotOpen("libsndfile does not read it") from error
    with sound:
        if sound.frames == 0:
            raise AudioError("zero_length", NO_AUDIO)
        try:
            yield MonoStream(sound.samplerate, _soundfile_blocks(sound), sound.frames / sound.samplerate)
        except soundfile.LibsndfileError as error:
            raise AudioError(
                "corrupt", f"The audio is damaged (libsndfile: {error.error_string}); replace the file."
            ) from error


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]
    """Reads on without the seek that soundfile does after every block.

    A seek within an MP3 loses the bits that a frame borrows from earlier ones: blocks would begin damaged.
    """

    def seekable(self) -> bool:
        return False


def _soundfile_blocks(sound: Any) -> Iterator[Samples]:
    channels = sound.channels
    buffer = np.empty((max(1, BLOCK_SAMPLES // channels), channels), np.float32)
    weights = np.full(channels, 1 / channels, np.float32)
    while len(block := sound.read(out=buffer)):
        yield block @ weights


@contextmanager
def open_pyav(file: BinaryIO) -> Iterator[MonoStream]:
    """Read with FFmpeg, packet by packet: a bad one is counted and left out.

    Raises CannotOpen, or AudioError ``no_audio_stream``, ``unsupported``, ``zero_length`` or ``corrupt``.
    """
    try:
        # Tags in an old encoding must not fail a song, and nothing but music is to be opened.
        container = av.open(file, mode="r", metadata_errors="ignore", options={"format_whitelist": _DEMUXERS})
    except (av.FFmpegError, ValueError) as error:
        reason = error.strerror if isinstance(error, av.FFmpegError) else "its header points outside the file"
        raise CannotOpen(f"FFmpeg: {reason}") from error
    with container:
        if not container.streams.audio:
            raise AudioError("no_audio_stream", "The file has no audio stream; leave it out or replace it.")
        stream = container.streams.audio[0]
        tally = Tally()
        frames = _pyav_frames(container, stream, tally)
        first = next(frames, None)
        if first is None:
            if tally.bad:
                raise AudioError("corrupt", "None of the audio can be decoded; replace the file.")
            raise AudioError("zero_length", NO_AUDIO)
        blocks = _pyav_blocks(chain([first], frames), tally)
        yield MonoStream(first.sample_rate, blocks, _pyav_duration(container, stream), tally)


def _pyav_frames(container: InputContainer, stream: AudioStream, tally: Tally) -> Iterator[AudioFrame]:
    if stream.codec_context is None:
        raise AudioError("unsupported", "No decoder for the audio in this file; convert it to FLAC or MP3.")
    packets = container.demux(stream)
    count = 0
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, ValueError):  # ValueError: sent to a place outside the file
            tally.bad += 1  # the container itself is damaged here: nothing after it can be found
            break
        if packet is None:
            break
        count += 1
        tally.bad += packet.is_corrupt
        try:
            frames = packet.decode()
        except av.FFmpegError:
            tally.bad += not packet.is_corrupt
            continue
        yield from frames
    if tally.bad > MAX_BAD_FRACTION * count:
        raise AudioError("corrupt", f"{tally.bad} of {count} packets cannot be decoded; replace the file.")


def _pyav_blocks(frames: Iterator[AudioFrame], tally: Tally) -> Iterator[Samples]:
    """Frames of some thousand samples gathered into blocks, then mixed down.

    A damaged packet may come out as a frame of another rate or layout: a few such are left out and counted.
    """
    pending: list[npt.NDArray[Any]] = []
    held = strays = 0
    layout: tuple[int, int, str] | None = None
    for frame in frames:
        found = (frame.sample_rate, frame.layout.nb_channels, frame.format.name)
        layout = layout or found
        if found != layout:
            strays += 1
            tally.bad += 1
            if strays > MAX_STRAYS:
                raise AudioError(
                    "unsupported",
                    f"The audio changes from {layout[0]} Hz and {layout[1]} channels to {found[0]} Hz"
                    f" and {found[1]} channels on the way; convert it to one format.",
                )
            continue
        strays = 0
        pending.append(frame.to_ndarray())
        held += frame.samples * layout[1]
        if held >= BLOCK_SAMPLES:
            yield _mix(pending, layout[1])
            pending, held = [], 0
    if pending and layout is not None:
        yield _mix(pending, layout[1])


def _mix(frames: list[npt.NDArray[Any]], channels: int) -> Samples:
    """Planar [c, n] or packed [1, n * c] frames of any sample type → float32 mono [n] in [-1, 1]."""
    block = np.concatenate(frames, axis=1)
    scale, offset = 1.0, 0.0
    if block.dtype == np.uint8:
        scale, offset = 1 / 128, 1.0
    elif np.issubdtype(block.dtype, np.signedinteger):
        scale = 1.0 / -float(np.iinfo(block.dtype).min)
    weights = np.full(channels, scale / channels, np.float32)
    samples = block.astype(np.float32, copy=False)
    mono = weights @ samples if len(samples) == channels else samples.reshape(-1, channels) @ weights
    return np.asarray(mono - np.float32(offset) if offset else mono, np.float32)


def _pyav_duration(container: InputContainer, stream: AudioStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # Beside a video the container's duration is the longer one's, which need not be the audio's.
    if container.duration and len(container.streams) == 1:
        return container.duration / 1_000_000
    return None
