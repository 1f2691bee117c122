"""Songs become windows, or say why not. Every file here is encoded on the fly and really decoded."""

from __future__ import annotations

import io
import os
import pickle
import tracemalloc
from functools import cache

import av
import numpy as np
import pytest
import soundfile

from mer_ray.audio import AudioError, DecodedTrack, decode_windows, fetch
from mer_ray.audio.decoding import SAMPLE_RATE
from mer_ray.audio.formats import recognize
from mer_ray.audio.libraries import CannotOpen, open_pyav, open_soundfile

SECONDS = 25.0
SOUNDFILE_FORMATS = {
    "mp3": ("MP3", "MPEG_LAYER_III", 44_100),
    "flac": ("FLAC", "PCM_16", 44_100),
    "wav 16": ("WAV", "PCM_16", 44_100),
    "wav 24": ("WAV", "PCM_24", 44_100),
    "wav float": ("WAV", "FLOAT", 44_100),
    "ogg vorbis": ("OGG", "VORBIS", 44_100),
    "ogg opus": ("OGG", "OPUS", 48_000),
    "aiff": ("AIFF", "PCM_16", 44_100),
}
FFMPEG_FORMATS = {"m4a aac": ("aac", "ipod"), "m4a alac": ("alac", "ipod"), "adts aac": ("aac", "adts")}
FFMPEG_FORMATS |= {"mka alac": ("alac", "matroska")}
FORMATS = [*SOUNDFILE_FORMATS, *FFMPEG_FORMATS]
LOSSLESS = ["flac", "wav 16", "wav 24", "wav float", "aiff", "m4a alac", "mka alac"]


def song(rate: int, seconds: float = SECONDS) -> np.ndarray:
    """[n, 2]: 440 Hz left, 1,000 Hz right, swelling so that a shift in time would show."""
    t = np.arange(round(rate * seconds)) / rate
    swell = 0.5 + 0.4 * np.sin(2 * np.pi * 0.9 * t)
    tones = [0.5 * np.sin(2 * np.pi * f * t) * swell for f in (440, 1_000)]
    return np.stack(tones, axis=1).astype(np.float32)


def encode_soundfile(samples: np.ndarray, rate: int, container: str, subtype: str) -> bytes:
    file = io.BytesIO()
    channels = samples.shape[1] if samples.ndim == 2 else 1
    with soundfile.SoundFile(file, "w", rate, channels, subtype, format=container) as sound:
        for start in range(0, len(samples), 65_536):  # libsndfile's Opus writer overflows on long writes
            sound.write(samples[start : start + 65_536])
    return file.getvalue()


def encode_ffmpeg(samples: np.ndarray, rate: int, codec: str, container: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = rate, 0
        context = stream.codec_context
        resampler = av.AudioResampler(context.format, "stereo", rate, context.frame_size or 4_096)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            output.mux(stream.encode(piece))
    return file.getvalue()


@cache
def encoded(name: str, seconds: float = SECONDS) -> bytes:
    if name in SOUNDFILE_FORMATS:
        container, subtype, rate = SOUNDFILE_FORMATS[name]
        return encode_soundfile(song(rate, seconds), rate, container, subtype)
    return encode_ffmpeg(song(44_100, seconds), 44_100, *FFMPEG_FORMATS[name])


def wav(samples: np.ndarray, rate: int = SAMPLE_RATE) -> bytes:
    return encode_soundfile(samples.astype(np.float32), rate, "WAV", "FLOAT")


def tone(frequency: float, rate: int, seconds: float, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def level_at(samples: np.ndarray, frequency: float) -> float:
    """Amplitude of one frequency, through a window whose side lobes are below -90 dB."""
    window = np.blackman(len(samples))
    phase = np.exp(-2j * np.pi * frequency * np.arange(len(samples)) / SAMPLE_RATE)
    return float(abs(np.sum(samples * window * phase)) * 2 / window.sum())


def failure(source: object, **options: object) -> AudioError:
    with pytest.raises(AudioError) as caught:
        decode_windows(source, **options)
    return caught.value


def samples_of(track: DecodedTrack) -> np.ndarray:
    return track.windows.ravel()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_two_windows(name):
    track = decode_windows(encoded(name))
    assert track.windows.shape == (2, 240_000)
    assert track.windows.dtype == np.float32
    assert track.duration_s == pytest.approx(SECONDS, abs=0.08)
    assert (track.tail, track.truncated, track.bad_packets, track.capped) == (None, False, 0, False)
    expected = song(SAMPLE_RATE).mean(axis=1)[: 2 * 240_000]
    if name in LOSSLESS:
        assert np.abs(samples_of(track) - expected)[100:-100].max() < 1e-3
        assert track.duration_s == SECONDS
    elif name != "adts aac":  # a raw stream does not say how much its encoder put in front
        assert np.corrcoef(samples_of(track), expected)[0, 1] > 0.999
    steady = song(SAMPLE_RATE, 10.0).mean(axis=1)
    for frequency in (440, 1_000):
        assert level_at(track.windows[0], frequency) == pytest.approx(level_at(steady, frequency), rel=0.05)
    assert level_at(track.windows[0], 700) < 0.001


@pytest.mark.parametrize("name", ["mp3", "flac", "wav 16", "wav 24", "wav float", "ogg vorbis", "aiff"])
def test_both_libraries_agree_on_the_samples(name):
    blocks = []
    for opener in (open_soundfile, open_pyav):
        with opener(io.BytesIO(encoded(name))) as stream:
            assert stream.rate == 44_100
            blocks.append(np.concatenate(list(stream.blocks)))
    assert len(blocks[0]) == len(blocks[1]) == 44_100 * SECONDS
    np.testing.assert_allclose(blocks[0], blocks[1], atol=2e-4)


def test_eight_bit_samples_are_centred_by_both_libraries():
    data = encode_soundfile(song(44_100, 2.0), 44_100, "WAV", "PCM_U8")
    for opener in (open_soundfile, open_pyav):
        with opener(io.BytesIO(data)) as stream:
            mono = np.concatenate(list(stream.blocks))
        assert np.abs(mono - song(44_100, 2.0).mean(axis=1)).max() < 0.02


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100, 48_000, 96_000])
def test_every_rate_becomes_24_khz(rate):
    track = decode_windows(wav(tone(440, rate, 3.0), rate))
    assert track.windows.shape == (1, 72_000)
    middle = slice(1_000, -1_000)
    np.testing.assert_allclose(samples_of(track)[middle], tone(440, SAMPLE_RATE, 3.0)[middle], atol=1e-3)


def test_what_lies_above_12_khz_vanishes_instead_of_folding_back():
    track = decode_windows(wav(tone(1_000, 44_100, 4.0, 0.1) + tone(15_000, 44_100, 4.0, 0.8), 44_100))
    middle = samples_of(track)[2_000:-2_000]
    assert level_at(middle, 1_000) == pytest.approx(0.1, rel=0.01)
    assert level_at(middle, SAMPLE_RATE - 15_000) < 0.8e-4


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_surround_becomes_the_plain_mean_of_its_six_channels(container):
    channels = np.stack([tone(200 * (c + 1), SAMPLE_RATE, 2.0, 0.1 * (c + 1)) for c in range(6)], axis=1)
    track = decode_windows(encode_soundfile(channels, SAMPLE_RATE, container, "PCM_24"))
    np.testing.assert_allclose(samples_of(track), channels.mean(axis=1), atol=1e-5)


def test_the_tail_is_kept_only_when_asked_for():
    samples = song(SAMPLE_RATE).mean(axis=1)
    assert decode_windows(wav(samples)).tail is None
    track = decode_windows(wav(samples), keep_tail=True)
    np.testing.assert_array_equal(track.windows, samples[:480_000].reshape(2, 240_000))
    np.testing.assert_array_equal(track.tail, samples[480_000:])


def test_a_tail_too_short_to_encode_is_dropped():
    assert decode_windows(wav(tone(440, SAMPLE_RATE, 10.05)), keep_tail=True).tail is None


def test_a_song_shorter_than_one_window_is_one_unpadded_window():
    track = decode_windows(wav(tone(440, SAMPLE_RATE, 4.0)), keep_tail=True)
    assert track.windows.shape == (1, 96_000)
    assert track.tail is None
    assert track.duration_s == 4.0


def test_exactly_one_window_leaves_no_tail():
    track = decode_windows(wav(tone(440, SAMPLE_RATE, 10.0)), keep_tail=True)
    assert track.windows.shape == (1, 240_000)
    assert track.tail is None


def test_the_window_length_is_a_parameter():
    track = decode_windows(wav(tone(440, SAMPLE_RATE, 10.0)), window_seconds=3.0, keep_tail=True)
    assert track.windows.shape == (3, 72_000)
    assert track.tail.shape == (24_000,)


@pytest.mark.parametrize("options", [{"window_seconds": 0.01}, {"max_seconds": 0.0}])
def test_a_length_below_what_the_encoder_takes_is_refused(options):
    with pytest.raises(ValueError, match="at least"):
        decode_windows(encoded("flac"), **options)


@pytest.mark.parametrize("name", ["mp3", "flac", "ogg opus", "m4a aac"])
def test_a_song_over_the_cap_is_cut_there_and_flagged(name):
    track = decode_windows(encoded(name), max_seconds=12.5, keep_tail=True)
    assert track.windows.shape == (1, 240_000)
    assert track.tail.shape == (60_000,)
    assert (track.duration_s, track.capped, track.truncated) == (12.5, True, True)


def test_a_song_as_long_as_the_cap_is_not_flagged():
    track = decode_windows(encoded("flac"), max_seconds=SECONDS)
    assert (track.duration_s, track.capped, track.truncated) == (SECONDS, False, False)


def test_a_path_an_open_file_and_a_pipe_give_what_bytes_give(tmp_path):
    data = encoded("ogg vorbis")
    path = tmp_path / "song.ogg"
    path.write_bytes(data)
    expected = samples_of(decode_windows(data))
    np.testing.assert_array_equal(samples_of(decode_windows(path)), expected)
    np.testing.assert_array_equal(samples_of(decode_windows(str(path))), expected)
    with open(path, "rb") as file:
        file.seek(1_000)
        np.testing.assert_array_equal(samples_of(decode_windows(file)), expected)
        assert not file.closed

    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    np.testing.assert_array_equal(samples_of(decode_windows(Pipe(data))), expected)


@pytest.mark.parametrize("extension", ["wav", "raw", "txt", "m4a"])
def test_a_wrong_extension_changes_nothing(tmp_path, extension):
    path = tmp_path / f"song.{extension}"
    path.write_bytes(encoded("mp3"))
    with open(path, "rb") as file:
        assert decode_windows(file).windows.shape == (2, 240_000)
    assert decode_windows(path).windows.shape == (2, 240_000)


@pytest.mark.parametrize("name", ["mp3", "flac", "wav 16", "wav float", "ogg vorbis", "ogg opus", "aiff"])
def test_a_file_cut_short_keeps_what_is_there_and_is_flagged(name):
    data = encoded(name)
    track = decode_windows(data[: len(data) * 6 // 10])
    assert track.truncated
    assert not track.capped
    assert track.duration_s == pytest.approx(0.6 * SECONDS, abs=1.5)
    assert level_at(track.windows[0], 440) > 0.05


def test_an_mp4_without_its_index_is_corrupt():
    data = encoded("m4a aac")
    error = failure(data[: len(data) // 2])
    assert error.error_class == "corrupt"
    assert "MP4" in error.message


@pytest.mark.parametrize("name", ["mp3", "flac", "m4a aac"])
def test_damage_in_the_middle_costs_only_the_damaged_part(name):
    data = bytearray(encoded(name))
    middle = len(data) // 2
    data[middle : middle + 3_000] = np.random.default_rng(0).bytes(3_000)
    track = decode_windows(bytes(data), keep_tail=True)
    assert track.bad_packets >= 1
    assert SECONDS - 1 < track.duration_s <= SECONDS + 0.1
    assert level_at(track.tail, 440) > 0.05, "the music after the damage is lost"


def test_an_mp3_that_states_no_length_is_decoded_to_its_end():
    data = encoded("mp3")
    headless = data[data.find(b"\xff\xfb", 4) :]
    with open_soundfile(io.BytesIO(headless)) as stream:
        guessed = sum(len(block) for block in stream.blocks) / stream.rate
    assert guessed < SECONDS / 2, "libsndfile no longer guesses: this case needs another file"
    track = decode_windows(headless)
    assert track.duration_s == pytest.approx(SECONDS, abs=0.1)
    assert (track.truncated, track.bad_packets) == (False, 0)


@pytest.mark.parametrize("padding", [bytes(100_000), b"APETAGEX" + b"\x07" * 100_000], ids=["zeros", "tag"])
def test_what_is_appended_to_an_mp3_is_no_damage(padding):
    track = decode_windows(encoded("mp3") + padding)
    assert (track.duration_s, track.truncated, track.bad_packets) == (SECONDS, False, 0)


@pytest.mark.parametrize("name", ["mp3", "ogg vorbis"])
def test_files_joined_end_to_end_are_decoded_to_the_last(name):
    container, subtype, rate = SOUNDFILE_FORMATS[name]
    second = encode_soundfile(song(rate, 12.0), rate, container, subtype)
    track = decode_windows(encoded(name) + second)
    assert track.duration_s == pytest.approx(SECONDS + 12, abs=0.2)
    assert not track.truncated


def test_a_rate_that_changes_on_the_way_is_unsupported():
    other = encode_soundfile(song(48_000, 12.0), 48_000, "MP3", "MPEG_LAYER_III")
    error = failure(encoded("mp3") + other)
    assert error.error_class == "unsupported"
    assert "44100" in error.message
    assert "48000" in error.message


def test_a_header_that_claims_four_gigabytes_costs_no_memory():
    data = bytearray(encoded("wav 16"))
    data[4:8] = data[40:44] = b"\xff" * 4
    tracemalloc.start()
    try:
        track = decode_windows(bytes(data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert track.windows.shape == (2, 240_000)
    assert not track.truncated, "0xFFFFFFFF is what a writer to a pipe leaves, not a length"
    assert peak < 50e6


def test_a_header_that_claims_an_absurd_rate_is_unsupported():
    data = bytearray(encoded("wav 16"))
    data[24:28] = (1).to_bytes(4, "little")
    assert failure(bytes(data)).error_class == "unsupported"


def test_an_mp3_behind_a_large_cover_picture_is_found():
    size = 100_000
    syncsafe = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    data = b"ID3\x04\x00\x00" + syncsafe + bytes(size) + encoded("mp3")
    facts = recognize(io.BytesIO(data))
    assert (facts.kind, facts.length_stated) == ("MP3", True)
    assert decode_windows(data).duration_s == SECONDS
    assert decode_windows(data[: len(data) * 6 // 10]).truncated


@pytest.mark.parametrize(
    ("data", "error_class", "said"),
    [
        (b"", "empty", "no bytes"),
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not_audio", "web page"),
        (b"<html>caf\xe9</html>" * 100, "not_audio", "web page"),
        (b'{"error": "rate limited"}', "not_audio", "text"),
        (b"#EXTM3U\nfile:///etc/hostname\n", "not_audio", "text"),
        (np.random.default_rng(0).bytes(300_000), "not_audio", "no known audio format"),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), "not_audio", "no known audio format"),
        (b"fLaC" + bytes(2_000), "corrupt", "FLAC"),
    ],
    ids=["no bytes", "page", "latin-1 page", "json", "playlist", "random", "picture", "flac header alone"],
)
def test_bytes_that_are_no_song_say_what_they_are(data, error_class, said):
    error = failure(data)
    assert error.error_class == error_class
    assert said in error.message


def test_a_film_without_sound_has_no_audio_stream():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for piece in [av.VideoFrame(32, 32, "yuv420p"), None]:
            output.mux(stream.encode(piece))
    assert failure(file.getvalue()).error_class == "no_audio_stream"


def test_a_header_without_audio_has_zero_length():
    assert failure(wav(np.zeros(0))).error_class == "zero_length"


def test_a_song_under_a_tenth_of_a_second_is_too_short():
    assert failure(wav(tone(440, SAMPLE_RATE, 0.09))).error_class == "too_short"
    assert decode_windows(wav(tone(440, SAMPLE_RATE, 0.11))).windows.shape == (1, 2_640)


def test_another_encoder_hears_its_own_rate_and_needs_its_own_length():
    song = wav(tone(440, SAMPLE_RATE, 21.5))
    track = decode_windows(song, sample_rate=48_000, keep_tail=True)
    assert track.windows.shape == (2, 480_000)
    assert track.tail.shape == (72_000,)
    assert track.duration_s == pytest.approx(21.5)
    assert abs(level_at(track.windows[1], 440 / 2) - 0.5) < 1e-3, "half the pitch at twice the rate"
    assert decode_windows(song, min_seconds=2.0, keep_tail=True).tail is None
    assert failure(wav(tone(440, SAMPLE_RATE, 1.9)), min_seconds=2.0).error_class == "too_short"
    assert decode_windows(wav(tone(440, SAMPLE_RATE, 2.1)), min_seconds=2.0).windows.shape == (1, 50_400)
    with pytest.raises(ValueError, match="at least 12"):
        decode_windows(song, min_seconds=12)


def test_silence_is_named_and_a_quiet_song_is_not_silence():
    assert failure(wav(tone(440, SAMPLE_RATE, 3.0, level=5e-5))).error_class == "silent"
    assert decode_windows(wav(tone(440, SAMPLE_RATE, 3.0, level=2e-4))).windows.shape == (1, 72_000)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [SAMPLE_RATE, 44_100])
def test_one_sample_that_is_not_a_number_is_corrupt(value, rate):
    samples = tone(440, rate, 4.0)
    samples[len(samples) // 2] = value
    error = failure(wav(samples, rate))
    assert error.error_class == "corrupt"
    assert "NaN" in error.message


def test_a_missing_path_and_a_folder_are_not_found(tmp_path):
    (tmp_path / "folder.mp3").mkdir()
    for path in (tmp_path / "missing.mp3", tmp_path / "folder.mp3"):
        assert failure(path).error_class == "not_found"
        with pytest.raises(AudioError, match=path.name) as caught:
            fetch(str(path))
        assert caught.value.error_class == "not_found"


def test_a_file_that_may_not_be_read_is_forbidden(tmp_path):
    path = tmp_path / "song.wav"
    path.write_bytes(encoded("wav 16"))
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)  # root may read anything
    try:
        assert failure(path).error_class == "forbidden"
        with pytest.raises(AudioError) as caught:
            fetch(str(path))
        assert caught.value.error_class == "forbidden"
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("name", ["wav 16", "mp3", "m4a alac"])
def test_a_disk_that_fails_in_the_middle_is_an_io_error_and_not_a_short_song(name):
    class FailingFile(io.BytesIO):
        def read(self, count=-1, /):
            if self.tell() > len(self.getvalue()) // 2:
                raise OSError(5, "Input/output error")
            return super().read(count)

    error = failure(FailingFile(encoded(name)))
    assert error.error_class == "io_error"
    assert "Input/output error" in error.message


def test_fetch_of_a_local_file_is_a_path_to_stream_from(tmp_path, monkeypatch):
    path = tmp_path / "song.flac"
    path.write_bytes(encoded("flac"))
    monkeypatch.chdir(tmp_path)
    assert fetch("song.flac") == str(path)
    assert decode_windows(fetch(f"file://{path}")).windows.shape == (2, 240_000)


def test_an_error_survives_the_way_to_another_process():
    error = pickle.loads(pickle.dumps(failure(b"")))
    assert isinstance(error, AudioError)
    assert (error.error_class, error.message) == ("empty", str(error))
    assert str(error) == "The file holds no bytes; upload it again."


def test_a_library_that_does_not_know_a_format_leaves_the_verdict_open():
    with pytest.raises(CannotOpen), open_soundfile(io.BytesIO(encoded("m4a aac"))):
        pass
