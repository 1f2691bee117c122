"""Songs as strangers upload them: cut short, damaged, lying, absurd, or no songs at all.

    for song in BAD_SONGS:
        song.write(folder / song.name)

Each knows what may become of it: error classes, ``ok`` for a good row, ``flagged`` for a good row that says
that it was truncated or had bad packets.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np

from tests.audio.test_decoding import FFMPEG_FORMATS, FORMATS, SOUNDFILE_FORMATS, encode_ffmpeg, encode_soundfile, song

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
        write: puts it at a path.
        becomes: the outcomes that are right.
    """

    name: str
    write: Writer
    becomes: frozenset[str]


@cache
def good(codec: str) -> bytes:
    """A whole song of SECONDS in a codec."""
    if codec in SOUNDFILE_FORMATS:
        container, subtype, rate = SOUNDFILE_FORMATS[codec]
        return encode_soundfile(song(rate, SECONDS), rate, container, subtype)
    if codec in ("caf", "au"):
        return encode_soundfile(song(44_100, SECONDS), 44_100, codec.upper(), "PCM_16")
    if codec == "asf wma":
        return _wma()
    others = {"wavpack": ("wavpack", "wv"), "mpegts": ("aac", "mpegts")}
    return encode_ffmpeg(song(44_100, SECONDS), 44_100, *(FFMPEG_FORMATS | others)[codec])


def cut(codec: str, share: float) -> bytes:
    """The first part of a song; not less than one byte."""
    data = good(codec)
    return data[: max(1, round(len(data) * share))]


def flipped(codec: str, first: float, last: float, count: int) -> bytes:
    """A song with some single bits turned over, between two shares of its bytes."""
    data = np.frombuffer(good(codec), np.uint8).copy()
    generator = np.random.default_rng(count)
    at = generator.integers(max(4, round(len(data) * first)), max(200, round(len(data) * last)), count)
    data[at] ^= (1 << generator.integers(0, 8, count)).astype(np.uint8)
    return data.tobytes()


def patched(codec: str, *patches: tuple[int, bytes]) -> bytes:
    """A song with these bytes written at these offsets."""
    data = bytearray(good(codec))
    for at, new in patches:
        data[at : at + len(new)] = new
    return bytes(data)


def patched_at(codec: str, mark: bytes, offset: int, new: bytes) -> bytes:
    """A song with these bytes written so far behind the first place where a mark stands."""
    return patched(codec, (good(codec).index(mark) + offset, new))


def tones(rate: int, channels: int, seconds: float, container: str = "WAV", subtype: str = "PCM_16") -> bytes:
    """A tone of its own in each channel."""
    t = np.arange(round(rate * seconds)) / rate
    samples = np.stack([0.5 * np.sin(2 * np.pi * (200 + 50 * c) * t) for c in range(channels)], axis=1)
    return encode_soundfile(samples, rate, container, subtype)


def plain(samples: np.ndarray) -> bytes:
    """Samples [n] as a float WAV at 24 kHz."""
    return encode_soundfile(samples.astype(np.float32), 24_000, "WAV", "FLOAT")


def rf64_of_2_63_bytes() -> bytes:
    """The 64-bit form of WAV, with the sizes that only it can state."""
    data = good("wav 16")
    sizes = struct.pack("<IQQQI", 28, 2**63, 2**63, 2**61, 0)
    return b"RF64" + b"\xff" * 4 + b"WAVEds64" + sizes + data[12:40] + b"\xff" * 4 + data[44:]


def _wma() -> bytes:
    """As encode_ffmpeg, which does not state the bit rate that this codec asks for."""
    samples, file = song(44_100, SECONDS), io.BytesIO()
    with av.open(file, "w", format="asf") as output:
        stream = output.add_stream("wmav2", rate=44_100, layout="stereo")
        stream.bit_rate = 128_000
        size = 2_048
        for start in range(0, len(samples) - size, size):
            block = np.ascontiguousarray(samples[start : start + size].T)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = 44_100, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def with_cover_in_mp3(size: int) -> bytes:
    """An MP3 behind an ID3 tag with a picture of ``size`` bytes."""
    picture = b"\0image/jpeg\0\3\0" + np.random.default_rng(0).bytes(size)
    frame = b"APIC" + struct.pack(">IH", len(picture), 0) + picture
    return b"ID3\3\0\0" + bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0)) + frame + good("mp3")


def with_cover_in_flac(size: int) -> bytes:
    """A FLAC with two pictures of half of ``size`` bytes: a block holds 16 MB at most."""
    data, half = good("flac"), size // 2
    head = struct.pack(">II", 3, 10) + b"image/jpeg" + struct.pack(">6I", 0, 1, 1, 24, 0, half - 42)
    picture = head + np.random.default_rng(0).bytes(half - 42)
    block = b"\x06" + len(picture).to_bytes(3, "big") + picture
    return data[:42] + block * 2 + data[42:]


def long_wav(path: Path, hours: float) -> None:
    """A WAV of hours that takes no room: a click a minute, and holes between."""
    frames = round(hours * 3600 * 24_000)
    head = (
        b"RIFF"
        + struct.pack("<I", 36 + 2 * frames)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, 24_000, 48_000, 2, 16)
    )
    with open(path, "wb") as file:
        file.write(head + b"data" + struct.pack("<I", 2 * frames))
        file.truncate(len(head) + 8 + 2 * frames)
        for minute in range(round(hours * 60)):
            file.seek(44 + minute * 60 * 48_000)
            file.write(b"\x40" * 200)


def long_mp3(hours: float) -> bytes:
    """An MP3 of hours, the same minute again and again: no count of frames in front, so that both libraries try."""
    minute = tones(24_000, 1, 60.0, "MP3", "MPEG_LAYER_III")
    return minute[minute.find(b"\xff\xf3", 400) :] * round(hours * 60)


UNUSABLE = "corrupt too_short zero_length not_audio unsupported no_audio_stream silent"
"""What a file may be whose head was damaged at random: anything that puts it down to the file."""


def _bad_songs() -> Iterator[BadSong]:
    for codec in CODECS:
        slug = codec.replace(" ", "-")
        for share in SHARES:
            yield _song(f"{slug} cut at {share:.0%}", lambda c=codec, s=share: cut(c, s), _after_cut(codec, share))
        yield _song(f"{slug} bits in body", lambda c=codec: flipped(c, 0.125, 1, 10), "ok flagged")
        yield _song(f"{slug} bits in head", lambda c=codec: flipped(c, 0, 0, 12), f"ok flagged {UNUSABLE}")
    yield _song("aac many bits.m4a", lambda: flipped("m4a aac", 0.02, 0.95, 98), "flagged")
    yield from _no_songs()
    yield from _odd_songs()
    yield from _liars()
    yield from _names()
    yield from _places()


def _after_cut(codec: str, share: float) -> str:
    if share == 0:
        return "not_audio"
    if codec.startswith("m4a"):
        return "corrupt"  # what says where the audio lies comes last
    if share <= 0.05:
        return "flagged corrupt too_short zero_length"
    return "flagged"


def _no_songs() -> Iterator[BadSong]:
    yield _song("no bytes.mp3", b"", "empty")
    yield _song("page.mp3", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not_audio")
    yield _song("json.flac", b'{"error": "rate limited"}', "not_audio")
    yield _song("playlist.m3u", b"#EXTM3U\nhttp://127.0.0.1:9/a.mp3\nfile:///etc/hostname\n", "not_audio")
    yield _song("random.wav", np.random.default_rng(0).bytes(300_000), "not_audio")
    yield _song("zeros.mp3", bytes(300_000), "not_audio")
    yield _song("ones.mp3", b"\xff" * 300_000, "not_audio corrupt")
    yield _song("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(500), "not_audio")
    yield _song("song.mp3.gz", lambda: gzip.compress(good("mp3")), "not_audio")
    yield _song("tag alone.mp3", b"ID3\3\0\0\0\0\x07\x76" + bytes(1_014), UNUSABLE)


def _odd_songs() -> Iterator[BadSong]:
    yield _song("mp3.flac", lambda: good("mp3"), "ok")
    yield _song("flac.mp3", lambda: good("flac"), "ok")
    yield _song("wav.ogg", lambda: good("wav 16"), "ok")
    yield _song("aac.txt", lambda: good("m4a aac"), "ok")
    yield _song("no seconds.wav", lambda: plain(np.zeros(0)), "zero_length")
    yield _song("header alone.flac", lambda: patched("flac", (4, b"\x80"))[:42], "zero_length corrupt")
    yield _song("0.05 s.wav", lambda: tones(44_100, 1, 0.05), "too_short")
    yield _song("0.2 s.wav", lambda: tones(44_100, 1, 0.2), "ok")
    yield _song("0.2 s.mp3", lambda: tones(44_100, 1, 0.2, "MP3", "MPEG_LAYER_III"), "ok")
    yield _song("silence.wav", lambda: plain(np.zeros(48_000)), "silent")
    yield _song("silence.mp3", lambda: encode_soundfile(np.zeros(96_000), 48_000, "MP3", "MPEG_LAYER_III"), "silent")
    for value in (np.nan, np.inf, -np.inf, 1e38):
        spoilt = np.sin(np.arange(48_000) / 10)
        spoilt[30_000] = value
        right = "corrupt" if not np.isfinite(value) else "ok"
        yield _song(f"sample {value}.wav", lambda s=spoilt: plain(s), right)
    for rate in (8_000, 11_025, 16_000, 22_050, 32_000, 88_200, 176_400, 192_000):
        yield _song(f"{rate} Hz.wav", lambda r=rate: tones(r, 1, 2.0), "ok")
    for channels in range(1, 9):
        yield _song(f"{channels} channels.wav", lambda c=channels: tones(44_100, c, 2.0), "ok")
        yield _song(f"{channels} channels.flac", lambda c=channels: tones(44_100, c, 2.0, "FLAC"), "ok")
    yield _song("cover of 20 MB.mp3", lambda: with_cover_in_mp3(20_000_000), "ok")
    yield _song("cover of 20 MB.flac", lambda: with_cover_in_flac(20_000_000), "ok")
    yield _song("zeros behind.mp3", lambda: good("mp3") + bytes(5_000_000), "ok")
    yield BadSong("3 hours.wav", lambda path: long_wav(path, 3.0), frozenset({"flagged"}))
    yield _song("3 hours.mp3", lambda: long_mp3(3.0), "flagged")


def _liars() -> Iterator[BadSong]:
    most = b"\xff" * 4
    yield _song("2^32 bytes.wav", lambda: patched("wav 16", (4, most), (40, most)), "ok")
    yield _song("2^31 bytes.wav", lambda: patched("wav 16", (40, b"\xfe\xff\xff\x7e")), "flagged")
    yield _song("format of 2^32 bytes.wav", lambda: patched("wav 16", (16, most)), "corrupt")
    for claim, at, value in (("0 Hz", 24, bytes(4)), ("2^32 Hz", 24, most), ("1 Hz", 24, b"\1\0\0\0")):
        yield _song(f"{claim}.wav", lambda a=at, v=value: patched("wav 16", (a, v)), "corrupt unsupported")
    yield _song("0 channels.wav", lambda: patched("wav 16", (22, bytes(2))), "corrupt")
    yield _song("65535 channels.wav", lambda: patched("wav 16", (22, most[:2])), "corrupt")
    yield _song("0 bits.wav", lambda: patched("wav 16", (34, bytes(2))), "unsupported corrupt")
    yield _song("2^63 bytes.rf64", rf64_of_2_63_bytes, "ok")
    yield _song("2^36 samples.flac", lambda: patched("flac", (22, most)), "flagged")
    yield _song("block of 2^24 bytes.flac", lambda: patched("flac", (43, most[:3])), "corrupt")
    yield _song("2^32 frames.aiff", lambda: patched_at("aiff", b"COMM", 10, most), "ok")
    yield _song("2^32 bytes.aiff", lambda: patched_at("aiff", b"SSND", 4, most), "ok")
    yield _song("2^32 frames.mp3", lambda: patched_at("mp3", b"Xing", 8, most), "flagged")
    yield _song("tag of 256 MB.mp3", lambda: b"ID3\3\0\0\x7f\x7f\x7f\x7f" + good("mp3"), "corrupt")
    yield _song("2^32 samples.m4a", lambda: patched_at("m4a aac", b"stsz", 12, most), "corrupt")
    yield _song("samples of 2 GB.m4a", lambda: patched_at("m4a aac", b"stsz", 8, b"\x7f" + most + most[:3]), UNUSABLE)
    yield _song("2^32 times.m4a", lambda: patched_at("m4a aac", b"stts", 8, most), "corrupt")
    yield _song("index of 2^32 bytes.m4a", lambda: patched_at("m4a aac", b"moov", -4, most), "ok")
    yield _song("2^32 bytes.au", lambda: patched("au", (8, most)), "ok")
    yield _song("2^63 bytes.caf", lambda: patched_at("caf", b"data", 4, b"\x7f" + most + most[:3]), "corrupt")
    yield _song("2^32 samples.wv", lambda: patched("wavpack", (12, b"\xfe\xff\xff\xff")), "ok flagged")


def _names() -> Iterator[BadSong]:
    for name in (
        "two words.flac",
        "two\nlines.flac",
        "100%.flac",
        "a%20b%2Fc.flac",
        "Μουσική – 音楽 – موسيقى.flac",
        "e\u0301 \U0001f3b5.flac",
        "-rf.flac",
        ".hidden.flac",
        "what?#now&then=[1].flac",
        "\"quoted\" 'twice' `thrice`.flac",
        "back\\slash.flac",
        "no extension",
        "n" * 250 + ".flac",
    ):
        yield _song(name, lambda: good("flac"), "ok")


def _places() -> Iterator[BadSong]:
    yield BadSong("folder.mp3", Path.mkdir, frozenset({"not_found"}))
    yield BadSong("missing.mp3", lambda path: None, frozenset({"not_found"}))
    yield BadSong("a link to nothing.mp3", lambda path: path.symlink_to("nothing"), frozenset({"not_found"}))
    yield BadSong("a link to itself.mp3", lambda path: path.symlink_to(path), frozenset({"not_found"}))
    yield BadSong("a pipe that nobody fills.mp3", os.mkfifo, frozenset({"not_found"}))
    yield BadSong("a device.mp3", lambda path: path.symlink_to("/dev/zero"), frozenset({"not_found"}))
    yield BadSong("long" * 100 + ".mp3", lambda path: None, frozenset({"not_found"}))
    yield BadSong("null\0byte.mp3", lambda path: None, frozenset({"not_found"}))
    yield BadSong("no permission.flac", _unreadable, frozenset({"forbidden"}))


def _unreadable(path: Path) -> None:
    path.write_bytes(good("flac"))
    path.chmod(0)


def _song(name: str, data: bytes | Callable[[], bytes], becomes: str) -> BadSong:
    def write(path: Path) -> None:
        path.write_bytes(data if isinstance(data, bytes) else data())

    return BadSong(name, write, frozenset(becomes.split()))


BAD_SONGS = list(_bad_songs())
