"""What the bytes of a file say before any decoding: its format, whether its end is there, whether it states a length.

Names and extensions lie, so only the first bytes, and of some formats the last, are asked.
"""

from __future__ import annotations

import codecs
import os
from dataclasses import dataclass
from typing import Any, BinaryIO

TRUNCATED_BELOW = 0.98
"""A file that yields less than this part of what it states was cut short."""

NO_AUDIO = "The file has a header and no audio; replace it."
"""What is said of class ``zero_length``."""

_HEAD_BYTES = 4_096
_MAX_OGG_PAGE = 65_307
_UNKNOWN_CHUNK_SIZE = 0x7FFF_F000  # what writers to a pipe leave in a size field, or more

_MAGIC = {b"fLaC": "FLAC", b"\x1a\x45\xdf\xa3": "Matroska", b"\x30\x26\xb2\x75": "ASF", b"caff": "CAF"}
_MAGIC |= {b".snd": "AU", b"wvPk": "WavPack", b"MAC ": "APE", b"OggS": "Ogg"}

# Raw ADTS and MPEG streams state no length: libraries guess one from the bit rate, and guess wrong.
_STATE_A_LENGTH = {"MP3", "FLAC", "WAV", "AIFF", "AU", "CAF", "Ogg", "MP4", "Matroska", "ASF", "WavPack", "APE"}


class AudioError(Exception):
    """Why a song cannot be used.

    ``error_class`` is one of ``empty``, ``not_audio``, ``no_audio_stream``, ``zero_length``, ``too_short``,
    ``silent``, ``corrupt``, ``unsupported``, ``not_found``, ``forbidden`` and ``io_error``, the only one
    that may pass by itself. ``message`` is one sentence for a person.
    """

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(error_class, message)
        self.error_class, self.message = error_class, message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class FileFacts:
    """What the bytes of a file say before any decoding."""

    size: int
    kind: str | None
    """The format by its signature; None when there is no known one."""
    cut_short: bool
    """The container's own structure shows that its end is missing."""
    length_stated: bool
    """A duration reported by a library is stated in the file, not estimated."""


def recognize(file: BinaryIO) -> FileFacts:
    """Recognise a file by its content. Raises AudioError ``empty``, or ``not_audio`` for text."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise AudioError("empty", "The file holds no bytes; upload it again.")
    head = _read_at(file, 0, _HEAD_BYTES)
    start = 0
    if head.startswith(b"ID3") and len(head) >= 10:
        size_bytes = zip(head[6:10], (21, 14, 7, 0), strict=True)  # seven bits in each
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in size_bytes)
        head = _read_at(file, start, _HEAD_BYTES)
    kind = _signature(head) or ("MP3" if start else None)
    if kind is None:
        _refuse_text(head)
    cut_short = False
    stated = kind in _STATE_A_LENGTH
    if kind in ("WAV", "AIFF"):
        cut_short = _sound_chunk_cut(file, size, "big" if kind == "AIFF" else "little")
    elif kind == "AU":
        # The header states where the audio begins and how many bytes it has.
        begin, claimed = (int.from_bytes(head[at : at + 4], "big") for at in (4, 8))
        cut_short = claimed < _UNKNOWN_CHUNK_SIZE and size - begin < TRUNCATED_BELOW * claimed
    elif kind == "Ogg":
        cut_short = _ogg_cut(file, size)
    elif kind == "MP3":
        stated = _states_mp3_length(head)
    return FileFacts(size, kind, cut_short, stated)


def _read_at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _signature(head: bytes) -> str | None:
    """The format whose signature the bytes carry."""
    magic, within = head[:4], head[8:12]
    if magic in (b"RIFF", b"RF64") and within == b"WAVE":
        return "WAV"
    if magic == b"FORM" and within in (b"AIFF", b"AIFC"):
        return "AIFF"
    if head[4:8] == b"ftyp":
        return "MP4"
    if magic in _MAGIC:
        return _MAGIC[magic]
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        layer = head[1] >> 1 & 3
        if layer in (1, 2):
            return "MP3"
        if layer == 0 and head[1] & 0xF0 == 0xF0:
            return "AAC"
    return None


def _refuse_text(head: bytes) -> None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    try:
        text = codecs.utf_8_decode(start, "strict", False)[0]
    except UnicodeDecodeError:
        text = ""
    is_page = start[:5].lower().startswith((b"<!", b"<htm", b"<?xml"))
    if is_page or (text and all(c.isprintable() or c.isspace() for c in text)):
        # Of a page its beginning says which error it is. Other text may be a password file that a catalogue names.
        shown = f"a web page that begins {start[:40].decode('utf-8', 'replace')!a}" if is_page else "text"
        raise AudioError("not_audio", f"The file is {shown}, not audio; check its source.")


def _sound_chunk_cut(file: BinaryIO, size: int, order: Any) -> bool:
    """Whether the sound chunk of a RIFF or FORM file claims more bytes than follow it."""
    position = 12
    while len(header := _read_at(file, position, 8)) == 8:
        claimed = int.from_bytes(header[4:], order)
        if header[:4] in (b"data", b"SSND"):
            return claimed < _UNKNOWN_CHUNK_SIZE and size - position - 8 < TRUNCATED_BELOW * claimed
        position += 8 + claimed + claimed % 2
    return False


def _ogg_cut(file: BinaryIO, size: int) -> bool:
    """Whether an Ogg file ends before its end-of-stream page does.

    It states no duration to compare with: libraries take one from whatever page comes last.
    """
    tail = _read_at(file, max(0, size - 2 * _MAX_OGG_PAGE), 2 * _MAX_OGG_PAGE)
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return True
    whole = 27 + page[26] + sum(page[27 : 27 + page[26]])
    return len(page) < whole or not page[5] & 0x04


def _states_mp3_length(head: bytes) -> bool:
    """Whether an MP3 begins with a header that counts its frames: without one, a length is a guess."""
    for tag in (b"Xing", b"Info"):
        if tag in head:
            flags = head.partition(tag)[2][3:4]
            return bool(flags and flags[0] & 1)
    return b"VBRI" in head
