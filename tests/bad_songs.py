"""Songs as strangers upload them: cut short, damaged, lying, absurd, or no songs at all.

    for song in BAD_SONGS: uri = song.write(folder)

Each knows what may become of it: error classes, ``ok`` for a good row, ``flagged`` for a good row that says
that it was truncated or had bad packets.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from tests.test_audio import FFMPEG_FORMATS, FORMATS, SOUNDFILE_FORMATS, encode_ffmpeg, encode_soundfile, song

SECONDS = 12.0
CODECS = [*FORMATS, "asf wma", "wavpack", "caf", "au"]
SHARES = (0.0, 0.01, 0.05, 0.3, 0.7, 0.97)
"""Where a file is cut, as a share of its bytes; 0 leaves a single one."""

Writer = Callable[[Path], object]


@dataclass(frozen=True)
class BadSong:
    """One file of the table.

    Attributes:
        name: of the file below the folder it is written to.
        make: its bytes, or what puts something at its path.
        becomes: the outcomes that are right.
    """

    name: str
    make: bytes | Callable[[], bytes] | Writer
    becomes: frozenset[str]
    by_path: bool = False

    def write(self, folder: Path) -> str:
        """Put the song in place and return its uri."""
        path = folder / self.name
        if self.by_path:
            self.make(path)
        else:
            path.write_bytes(self.make if isinstance(self.make, bytes) else self.make())
        return str(path)


def good(codec: str) -> bytes:
    """A whole song of SECONDS in a codec."""
    if codec in SOUNDFILE_FORMATS:
        container, subtype, rate = SOUNDFILE_FORMATS[codec]
        return encode_soundfile(song(rate, SECONDS), rate, container, subtype)
    if codec in ("caf", "au"):
        return encode_soundfile(song(44_100, SECONDS), 44_100, codec.upper(), "PCM_16")
    others = {"asf wma": ("wmav2", "asf"), "wavpack": ("wavpack", "wv")}
    return encode_ffmpeg(song(44_100, SECONDS), 44_100, *(FFMPEG_FORMATS | others)[codec])
