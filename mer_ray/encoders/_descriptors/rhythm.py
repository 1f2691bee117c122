"""How a window moves: its dynamics, its onsets and their pulse, what of it is struck and what is held."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.ndimage import median_filter, uniform_filter1d

from mer_ray.encoders._descriptors.spectra import BANDS, FRAME_RATE, Array, Spectra, decibels
from mer_ray.encoders._descriptors.timbre import over_time

RANGES = {"all": (0, 64), "low": (0, 8), "middle": (8, 32), "high": (32, 64)}
"""Mel bands whose onsets are counted together: up to 300 Hz, up to 1.7 kHz, above."""
LAGS = np.geomspace(0.15, 2.4, 17)
"""Edges in seconds of the bands in which the onsets' autocorrelation is kept: four octaves of tempo."""
SLOWEST, FASTEST = 40.0, 240.0
"""Beats a minute."""


def describe(spectra: Spectra) -> dict[str, Array]:
    """All of the below by group."""
    return {**dynamics(spectra), **onsets(spectra), **percussion(spectra)}


def dynamics(spectra: Spectra) -> dict[str, Array]:
    """Level over time in dB beside its median: spread, quantiles, shape, trend, quiet shares; the crest factor."""
    level = decibels(spectra.power.mean(axis=1))
    level = level - np.median(level)
    spread = max(float(level.std()), 1e-3)
    standing = (level - level.mean()) / spread
    trend = np.polyfit(np.linspace(-1, 1, len(level)), level, 1)[0] if len(level) > 1 else 0.0
    peak = np.abs(spectra.samples).max()
    quiet = (level < -10).mean(), (level < -20).mean()
    moments = (standing**3).mean(), min(float((standing**4).mean()), 50.0)
    quantiles = np.quantile(level, (0.05, 0.1, 0.25, 0.75, 0.9, 0.95))
    return {"dynamics": np.array([spread, *quantiles, *moments, trend, *quiet, 20 * np.log10(peak + 1e-3)])}


def onsets(spectra: Spectra) -> dict[str, Array]:
    """Rises of level in four ranges of pitch: how strong, how many, how periodic, how fast, and their autocorrelation.

    The envelope is that of Böck et al. 2012 (differences of logarithmic bands), clarity of pulse Lartillot's of 2008.
    """
    found: dict[str, Array] = {}
    rises = np.maximum(np.diff(spectra.mel_db, axis=0, prepend=spectra.mel_db[:1]), 0)
    for name, (first, last) in RANGES.items():
        envelope = rises[:, first:last].mean(axis=1)
        correlation = autocorrelation(envelope)
        lag, clarity = _beat(correlation)
        sorted_ = np.sort(envelope)[::-1]
        strongest = sorted_[: max(1, len(sorted_) // 10)].sum() / max(float(sorted_.sum()), 1e-6)
        found[f"onsets_{name}"] = np.array(
            [
                *(envelope.mean(), envelope.std(), np.quantile(envelope, 0.9), strongest),
                *(onset_rate(envelope), clarity, np.log2(60 / lag / 120), _half_beat(correlation, lag)),
            ]
        )
        if name == "all":
            found["pulse"] = _by_lag(correlation)
    return found


def tempo(spectra: Spectra) -> float:
    """Beats a minute."""
    return 60 / _beat(autocorrelation(np.maximum(np.diff(spectra.mel_db, axis=0), 0).mean(axis=1)))[0]


def autocorrelation(envelope: Array) -> Array:
    """[lags] of an onset envelope less its mean of a second, 1 at lag 0; of as many lags as frames."""
    local = envelope - uniform_filter1d(envelope, round(FRAME_RATE), mode="nearest")
    local = local - local.mean()
    size = next_fast_len(2 * len(local), real=True)
    raw = irfft(np.abs(rfft(local, size)) ** 2, size)[: len(local)]
    # As many products are summed at each lag as there are; short of half of them they are too few to divide by.
    counts = np.maximum(np.arange(len(local), 0, -1), len(local) / 2) / len(local)
    return raw / counts / max(float(raw[0]), 1e-6)


def onset_rate(envelope: Array) -> float:
    """Onsets a second: peaks of 100 ms that stand out from the second around them (Böck et al. 2012)."""
    reach = 2
    padded = np.pad(envelope, reach, constant_values=-1)
    highest = np.max([padded[at : at + len(envelope)] for at in range(2 * reach + 1)], axis=0)
    around = uniform_filter1d(envelope, round(FRAME_RATE), mode="nearest")
    peaks = (envelope >= highest) & (envelope > 1.5 * around + 0.5)
    return float(peaks.sum() / len(envelope) * FRAME_RATE)


def percussion(spectra: Spectra) -> dict[str, Array]:
    """Struck beside held: medians along time and along pitch (Fitzgerald 2010), as shares of power in 8 bands."""
    power = spectra.mel_power[::2] + 1e-9
    held = median_filter(power, (9, 1), mode="nearest")
    struck = median_filter(power, (1, 9), mode="nearest")
    share = struck**2 / (struck**2 + held**2)
    groups = (len(power), 8, BANDS // 8)
    bands = (share * power).reshape(groups).sum(axis=(0, 2)) / power.reshape(groups).sum(axis=(0, 2))
    whole = (share * power).sum(axis=1) / power.sum(axis=1)
    beats = decibels((share * power).sum(axis=1)) - decibels(((1 - share) * power).sum(axis=1))
    return {"percussion_bands": bands, **over_time("percussion", whole), **over_time("percussion_level", beats)}


def _beat(correlation: Array) -> tuple[float, float]:
    """The strongest pulse's lag in seconds, by a hearing that favours 120 a minute (Ellis 2007), and its height."""
    first, last = int(60 / FASTEST * FRAME_RATE), int(60 / SLOWEST * FRAME_RATE) + 2
    some = correlation[first:last]
    if len(some) < 3 or some.max() < 1e-3:
        return 0.5, 0.0
    lags = np.arange(first, first + len(some))
    at = int(np.argmax(some * np.exp(-0.5 * (np.log2(lags / FRAME_RATE / 0.5) / 1.0) ** 2)))
    shift = 0.0
    if 0 < at < len(some) - 1:
        bend = some[at - 1] - 2 * some[at] + some[at + 1]
        shift = float(np.clip(0.5 * (some[at - 1] - some[at + 1]) / bend, -0.5, 0.5)) if bend < -1e-9 else 0.0
    return (first + at + shift) / FRAME_RATE, float(some[at])


def _half_beat(correlation: Array, lag: float) -> float:
    """How much of the pulse there is at half its lag: divided or plain."""
    at = round(lag / 2 * FRAME_RATE)
    return float(correlation[at - 1 : at + 2].max()) if len(correlation) > at + 1 else 0.0


def _by_lag(correlation: Array) -> Array:
    edges = np.round(LAGS * FRAME_RATE).astype(int)
    some = np.pad(correlation, (0, max(0, edges[-1] + 1 - len(correlation))))
    return np.array([some[low : max(high, low + 1)].max() for low, high in pairwise(edges)])
