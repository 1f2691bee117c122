"""How a window sounds: levels of its bands, their cepstrum and modulation, the shape of its spectrum."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.fft import dct, rfft

from mer_ray.encoders._descriptors.spectra import BANDS, FRAME_RATE, HERTZ, Array, Spectra

CEPSTRUM = 20
GROUPS = 16
RATES = np.geomspace(0.2, 23.0, 8)
"""Edges in Hz of the modulation's bands: from swells of five seconds to the roughness of a growl."""
MODULATION_SIZE = 512
STATISTICS = ("mean", "deviation", "low", "high")
OCTAVES = (0.0, 200.0, 400.0, 800.0, 1600.0, 3200.0, 7500.0)


def describe(spectra: Spectra) -> dict[str, Array]:
    """All of the below by group."""
    return {**mel(spectra), **cepstrum(spectra), **modulation(spectra), **shape(spectra), **contrast(spectra)}


def mel(spectra: Spectra) -> dict[str, Array]:
    """Levels of the mel bands in dB, less their mean: mean, deviation and quantiles over time, and how they move."""
    level = spectra.mel_db - spectra.mel_db.mean()
    found = level.mean(axis=0), level.std(axis=0), *np.quantile(level, (0.1, 0.9), axis=0), _steps(level).std(axis=0)
    return {f"mel_{of}": values for of, values in zip((*STATISTICS, "motion"), found, strict=True)}


def cepstrum(spectra: Spectra) -> dict[str, Array]:
    """Mel-frequency cepstral coefficients 1 to 20 (Davis and Mermelstein 1980), without the 0th, which is loudness."""
    values = dct(spectra.mel_db, axis=1, norm="ortho")[:, 1 : CEPSTRUM + 1] / np.sqrt(BANDS)
    first = _steps(values)
    return {
        "mfcc_mean": values.mean(axis=0),
        "mfcc_deviation": values.std(axis=0),
        "mfcc_motion": first.std(axis=0),
        "mfcc_jerk": _steps(first).std(axis=0),
    }


def modulation(spectra: Spectra) -> dict[str, Array]:
    """How fast levels rise and fall: dB at 7 rates, 0.2 to 23 Hz, each in 16 bands (McKinney and Breebaart 2003)."""
    level = spectra.mel_db.reshape(-1, GROUPS, BANDS // GROUPS).mean(axis=2)
    level = (level - level.mean(axis=0)) * np.hanning(len(level) + 2)[1:-1, None]
    size = max(MODULATION_SIZE, len(level))
    density = np.abs(rfft(level, n=size, axis=0)) ** 2 / len(level)
    rates = np.arange(len(density)) * FRAME_RATE / size
    bands = [density[(rates >= low) & (rates < high)].mean(axis=0) for low, high in pairwise(RATES)]
    return {"modulation": 10 * np.log10(np.concatenate(bands) + 1e-2)}


def shape(spectra: Spectra) -> dict[str, Array]:
    """Moments and the like of the spectrum, in kHz and dB (Peeters 2004; flatness: ISO 15938-4).

    Of every second frame, as they overlap, among those that have sound in them.
    """
    power, magnitudes = spectra.power[spectra.active][::2], spectra.magnitudes[spectra.active][::2]
    kilohertz = HERTZ / 1000
    share = magnitudes / np.maximum(magnitudes.sum(axis=1, keepdims=True), 1e-9)
    centroid, squares, cubes = (share @ np.stack([kilohertz, kilohertz**2, kilohertz**3], axis=1)).T
    spread = np.sqrt(np.maximum(squares - centroid**2, 1e-6))
    skewness = (cubes - 3 * centroid * squares + 2 * centroid**3) / spread**3
    below = np.cumsum(power, axis=1)
    rolls = {
        f"rolloff_{percent}": kilohertz[(below[:, :-1] < percent / 100 * below[:, -1:]).sum(axis=1)]
        for percent in (25, 50, 75, 90)
    }
    curves = {
        "centroid": centroid,
        "spread": spread,
        "skewness": np.clip(skewness, -20, 20),
        **rolls,
        "flatness": flatness(power),
        "flux": _flux(magnitudes),
        "zero_crossings": _zero_crossings(spectra.samples),
    }
    return {name: value for curve in curves for name, value in over_time(curve, curves[curve]).items()}


def flatness(power: Array) -> Array:
    """[frames] dB of a spectrum's geometric beside its arithmetic mean from 60 Hz up: 0 if all is equal."""
    inside = power[:, HERTZ >= 60] + 1e-9
    return 10 * (np.log10(inside).mean(axis=1) - np.log10(inside.mean(axis=1)))


def contrast(spectra: Spectra) -> dict[str, Array]:
    """dB between the fifth of the strongest and of the weakest bins in 6 octaves (Jiang et al. 2002)."""
    power = spectra.power[::2]
    ratios = []
    for low, high in pairwise(OCTAVES):
        first, last = np.searchsorted(HERTZ, (low, high))
        band = np.sort(power[:, first:last], axis=1) + 1e-6
        few = max(1, band.shape[1] // 5)
        ratios.append(10 * np.log10(band[:, -few:].mean(axis=1) / band[:, :few].mean(axis=1)))
    table = np.stack(ratios)
    return {"contrast_mean": table.mean(axis=1), "contrast_deviation": table.std(axis=1)}


def over_time(name: str, values: Array) -> dict[str, Array]:
    """Mean, deviation and the 10 and 90 % quantiles of a curve."""
    found = values.mean(), values.std(), *np.quantile(values, (0.1, 0.9))
    return {f"{name}_{of}": np.array([value]) for of, value in zip(STATISTICS, found, strict=True)}


def _steps(values: Array) -> Array:
    """From frame to frame; a single frame does not move."""
    return np.diff(values, axis=0) if len(values) > 1 else np.zeros_like(values)


def _flux(magnitudes: Array) -> Array:
    """[frames] distance of neighbouring spectra of length one."""
    unit = magnitudes / np.maximum(np.linalg.norm(magnitudes, axis=1, keepdims=True), 1e-9)
    return np.linalg.norm(_steps(unit), axis=1)


def _zero_crossings(samples: Array) -> Array:
    """[frames] share of samples before which the sign changed, in pieces of 1024."""
    changes = np.signbit(samples[1:]) != np.signbit(samples[:-1])
    pieces = len(changes) // 1024
    return changes[: pieces * 1024].reshape(pieces, 1024).mean(axis=1) if pieces else changes.mean(keepdims=True)
