"""Classical descriptors on signals whose answer is known, and on what no descriptor should stumble over."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from mer_ray.audio import decode_windows
from mer_ray.encoders import load_encoder
from mer_ray.encoders._descriptors import rhythm, timbre, tonal
from mer_ray.encoders._descriptors.spectra import SAMPLE_RATE, Spectra
from mer_ray.encoders.descriptors import describe, load
from mer_ray.settings import Part

Signal = NDArray[np.float64]
ENCODER = load("", Part(), "cpu")
RNG = np.random.default_rng(0)
TIME = np.arange(10 * SAMPLE_RATE) / SAMPLE_RATE
NOISE = RNG.normal(0, 0.1, len(TIME))


def sine(hertz: float, seconds: Signal = TIME) -> Signal:
    return np.sin(2 * np.pi * hertz * seconds)


def chord(*semitones: int, above: float = 261.63) -> Signal:
    """Tones of four partials each, so many semitones above middle C."""
    roots = [above * 2 ** (step / 12) for step in semitones]
    return sum(sine(root * partial) / partial for root in roots for partial in (1, 2, 3, 4))  # type: ignore[return-value]


def clicks(a_minute: float) -> Signal:
    signal = np.zeros(len(TIME))
    for beat in np.arange(0.1, 9.9, 60 / a_minute):
        at = round(beat * SAMPLE_RATE)
        signal[at : at + 240] = RNG.normal(0, 1, 240)
    return signal


def value(signal: Signal, name: str) -> float:
    """One feature of a window by its name."""
    features = ENCODER(signal[None].astype(np.float32))[0].tolist()
    return dict(zip(ENCODER.names, features, strict=True))[name]


def test_every_feature_has_a_name_of_its_own_in_the_order_of_the_columns() -> None:
    names, groups = ENCODER.names, describe(NOISE)
    assert len(set(names)) == len(names) == ENCODER.dim
    assert [group for group, _ in ENCODER.columns] == list(groups)
    first = names.index("mfcc_mean_0")
    np.testing.assert_allclose(
        ENCODER(NOISE[None].astype(np.float32))[0][first : first + 20], groups["mfcc_mean"], atol=1e-4
    )


def test_a_store_says_what_its_columns_are_and_they_make_no_other_kind_of_features() -> None:
    identity = ENCODER.identity()
    assert ["mel_mean", 64] in identity["columns"]
    assert sum(width for _, width in identity["columns"]) == identity["dim"]
    assert "columns" not in ENCODER.fingerprint()


@pytest.mark.parametrize("hertz", [300.0, 1000.0, 4000.0])
def test_a_sine_lies_where_it_is(hertz: float) -> None:
    for name in ("centroid_mean", "rolloff_50_mean", "rolloff_90_mean"):
        assert value(sine(hertz), name) == pytest.approx(hertz / 1000, abs=0.03)
    assert value(sine(hertz), "zero_crossings_mean") == pytest.approx(2 * hertz / SAMPLE_RATE, rel=0.02)
    assert value(sine(hertz), "pitch_height_mean") == pytest.approx(np.log2(hertz / 55), abs=0.02)


def test_white_noise_is_flat_and_a_sine_is_not() -> None:
    # The periodogram of noise is exponentially distributed: its geometric mean is exp(-0.577) of the arithmetic one.
    assert value(NOISE, "flatness_mean") == pytest.approx(-10 * 0.5772 / np.log(10), abs=0.2)
    assert value(sine(1000.0), "flatness_mean") < -40
    assert value(NOISE, "centroid_mean") == pytest.approx(7.5 / 2, abs=0.1)
    assert value(NOISE, "partials_mean") < 0.5 < value(sine(440.0), "partials_mean")


@pytest.mark.parametrize("a_minute", [75.0, 100.0, 120.0, 150.0])
def test_a_click_train_has_its_tempo(a_minute: float) -> None:
    assert rhythm.tempo(Spectra.of(clicks(a_minute))) == pytest.approx(a_minute, rel=0.02)
    assert 120 * 2 ** value(clicks(a_minute), "onsets_all_6") == pytest.approx(a_minute, rel=0.02)
    assert value(clicks(a_minute), "onsets_all_4") == pytest.approx(a_minute / 60, rel=0.1)
    assert value(clicks(a_minute), "onsets_all_5") > 0.7 > 0.3 > value(NOISE, "onsets_all_5")


@pytest.mark.parametrize(("root", "name"), [(0, "C"), (2, "D"), (9, "A")])
@pytest.mark.parametrize("cents", [0, 35])
def test_a_chord_has_its_key_and_mode_in_any_tuning(root: int, name: str, cents: int) -> None:
    above = 261.63 * 2 ** (cents / 1200)
    major = chord(*(root + step for step in (0, 4, 7)), above=above)
    minor = chord(*(root + step for step in (0, 3, 7)), above=above)
    assert tonal.key_of(Spectra.of(major)) == f"{name} major"
    assert tonal.key_of(Spectra.of(minor)) == f"{name} minor"
    assert value(major, "key_2") > 0 > value(minor, "key_2")


def test_a_transposed_chord_is_described_the_same_by_what_knows_no_key() -> None:
    groups = [{**tonal.keys(tonal.chroma(Spectra.of(chord(0 + up, 4 + up, 7 + up))))} for up in (0, 3)]
    for name in ("key", "from_tonic", "intervals", "pitch_class_entropy"):
        np.testing.assert_allclose(groups[0][name], groups[1][name], atol=0.05)


def test_a_semitone_is_rough_and_a_fifth_is_not() -> None:
    assert value(chord(0, 1), "roughness_mean") > 3 * value(chord(0, 7), "roughness_mean")


def test_clicks_are_struck_and_a_chord_is_held() -> None:
    assert value(clicks(120), "percussion_level_mean") > 6 > -3 > value(chord(0, 4, 7), "percussion_level_mean")


def test_a_tremolo_shows_at_its_rate() -> None:
    swinging = NOISE * (1 + 0.9 * sine(4.0))
    by_rate = timbre.modulation(Spectra.of(swinging))["modulation"].reshape(7, 16).mean(axis=1)
    edges = timbre.RATES
    assert edges[by_rate.argmax()] <= 4.0 < edges[by_rate.argmax() + 1]


def test_a_fade_in_rises() -> None:
    assert value(NOISE * np.linspace(0.01, 1, len(TIME)), "dynamics_9") > 5


@pytest.mark.parametrize("gain", [8.0, 1 / 8, 1e-4])
@pytest.mark.parametrize("signal", [NOISE, chord(0, 4, 7) * 0.05, clicks(100)], ids=["noise", "chord", "clicks"])
def test_gain_changes_nothing(signal: Signal, gain: float) -> None:
    plain, louder = (ENCODER(one[None].astype(np.float32)) for one in (signal, signal * gain))
    np.testing.assert_allclose(louder, plain, atol=5e-3)


def test_an_offset_changes_nothing() -> None:
    plain, moved = (ENCODER(one[None].astype(np.float32)) for one in (NOISE, NOISE + 0.5))
    np.testing.assert_allclose(moved, plain, atol=5e-3)


ODD = {
    "silence": np.zeros(len(TIME)),
    "an offset alone": np.full(len(TIME), 0.5),
    "one click": np.eye(1, len(TIME), 1000)[0],
    "full scale": np.sign(sine(100.0)),
    "clipped noise": np.clip(NOISE * 100, -1, 1),
    "the last bit": np.round(NOISE * 4) / 32768,
    "half silent": np.where(TIME < 5, 0, NOISE),
    "the highest frequency": np.cos(np.pi * np.arange(len(TIME))),
    "0.1 s": NOISE[: SAMPLE_RATE // 10],
    "0.1 s of silence": np.zeros(SAMPLE_RATE // 10),
    "a minute": np.tile(NOISE, 6),
    "denormal": np.full(len(TIME), 1e-40),
}


@pytest.mark.parametrize("signal", ODD.values(), ids=ODD)
def test_whatever_there_is_to_hear_has_features_that_a_store_can_hold(signal: Signal) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = ENCODER(signal[None].astype(np.float32)).numpy()
    assert features.shape == (1, ENCODER.dim)
    assert np.isfinite(features.astype(np.float16)).all()


def test_a_window_that_is_no_sound_has_no_features_and_its_neighbours_keep_theirs() -> None:
    windows = np.stack([NOISE, NOISE, NOISE]).astype(np.float32)
    windows[1, 7] = np.nan
    features = ENCODER(windows).numpy()
    assert np.isnan(features[1]).all()
    np.testing.assert_array_equal(features[0], features[2])
    np.testing.assert_array_equal(features[0], ENCODER(windows[:1])[0])


def test_a_stereo_song_of_a_tenth_of_a_second_is_encoded(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", RNG.normal(0, 0.1, (4500, 2)), 44_100)
    windows = decode_windows(tmp_path / "short.wav").windows
    assert load_encoder("descriptors")(windows).isfinite().all()
