"""What a window's pitches are like: key and mode, how clear, how they move, how rough they sound together."""

from __future__ import annotations

import numpy as np

from mer_ray.encoders._descriptors.spectra import Array, Spectra
from mer_ray.encoders._descriptors.timbre import over_time

MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
"""How well each pitch class fits a key, from its tonic up (Krumhansl and Kessler 1982)."""
CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
C = 440 * 2 ** (-9 / 12)
CHORDS = {"major": (0, 4, 7), "minor": (0, 3, 7)}
_CIRCLES = ((1.0, 7 * np.pi / 6), (1.0, 3 * np.pi / 2), (0.5, 2 * np.pi / 3))
_TONNETZ = np.stack([radius * np.exp(1j * angle * np.arange(12)) for radius, angle in _CIRCLES])
"""Circles of fifths, minor and major thirds."""


def describe(spectra: Spectra) -> dict[str, Array]:
    """All of the below by group."""
    frames = chroma(spectra)
    return {**keys(frames), **harmony(frames), **pitches(spectra), **roughness(spectra)}


def chroma(spectra: Spectra, low: float = 55.0, high: float = 2200.0) -> Array:
    """[frames, 12] how strong each pitch class is, from C, by its partials' square-rooted magnitudes (Gómez 2006).

    The window's own tuning is found first. Each frame sums to one; one without partials is flat.
    """
    hertz, heights = spectra.peaks
    weights = np.sqrt(heights) * ((hertz >= low) & (hertz <= high))
    steps = 12 * np.log2(hertz / C)
    turn = (weights * np.exp(2j * np.pi * steps)).sum()
    steps = steps - (np.angle(turn) / (2 * np.pi) if np.abs(turn) > 1e-9 else 0)
    nearest = np.rint(steps)
    weights = weights * np.cos(np.pi / 2 * np.abs(steps - nearest) / 0.5) ** 2
    at = nearest.astype(int) % 12 + 12 * np.arange(len(steps))[:, None]
    table = np.bincount(at.ravel(), weights.ravel(), 12 * len(steps)).reshape(-1, 12)
    total = table.sum(axis=1, keepdims=True)
    return np.where(total > 1e-6, table / np.maximum(total, 1e-6), 1 / 12)


def keys(frames: Array) -> dict[str, Array]:
    """Strength of the best major and minor key, which of both, how clear, and the pitch classes from the tonic."""
    mean = frames.mean(axis=0)
    strengths = key_strengths(mean[None])[0]
    ordered = np.sort(strengths.ravel())
    pieces = key_strengths(_smooth(frames, 11)).reshape(-1, 24)
    best = pieces.argmax(axis=1)
    entropy = -(mean * np.log2(mean + 1e-9)).sum()
    major, minor = strengths.max(axis=1)
    return {
        "key": np.array([major, minor, major - minor, ordered[-1] - ordered[-2], ordered[-1] - np.median(ordered)]),
        "key_over_time": np.array([(best < 12).mean(), (np.diff(best) != 0).mean() if len(best) > 1 else 0.0]),
        "pitch_class_entropy": np.array([entropy]),
        "from_tonic": np.roll(mean, -int(strengths.ravel().argmax()) % 12),
        "intervals": np.array([(mean * np.roll(mean, step)).sum() * 12 for step in range(1, 7)]),
    }


def key_strengths(mean: Array) -> Array:
    """[n, 2, 12] correlation of pitch classes [n, 12] with each major and each minor key, from C (Krumhansl 1990)."""
    profiles = np.stack([[np.roll(profile, tonic) for tonic in range(12)] for profile in (MAJOR, MINOR)])
    profiles = profiles - profiles.mean(axis=2, keepdims=True)
    centred = mean - mean.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1)[:, None, None] * np.linalg.norm(profiles, axis=2)
    return np.einsum("nc,mtc->nmt", centred, profiles) / np.maximum(lengths, 1e-6)


def key_of(spectra: Spectra) -> str:
    """The best key by name, such as ``A minor``."""
    best = int(key_strengths(chroma(spectra).mean(axis=0)[None])[0].ravel().argmax())
    return f"{CLASSES[best % 12]} {('major', 'minor')[best // 12]}"


def harmony(frames: Array) -> dict[str, Array]:
    """Chords and where they lead: motion in the tonnetz (Harte et al. 2006), triads and how often they change."""
    smooth = _smooth(frames, 3)
    places = smooth @ _TONNETZ.T
    moves = np.abs(np.diff(places, axis=0)) if len(places) > 1 else np.zeros((1, 3))
    triads = np.stack([np.roll(np.isin(np.arange(12), tones), root) for tones in CHORDS.values() for root in range(12)])
    fits = smooth @ triads.T / 3
    chords, fit = fits.argmax(axis=1), fits.max(axis=1)
    changes = (np.diff(chords) != 0).mean() if len(chords) > 1 else 0.0
    strongest = np.sort(smooth, axis=1)[:, ::-1]
    brighter = fits[:, :12].max(axis=1).mean() - fits[:, 12:].max(axis=1).mean()
    return {
        "tonnetz": np.concatenate([np.abs(places.mean(axis=0)), np.abs(places).mean(axis=0), moves.mean(axis=0)]),
        "chords": np.array([fit.mean(), fit.std(), (chords < 12).mean(), brighter, changes]),
        "three_strongest": strongest[:, :3].sum(axis=1).mean(keepdims=True),
    }


def pitches(spectra: Spectra) -> dict[str, Array]:
    """Partials: their share of the power, how high they lie in octaves above 55 Hz, and how many it takes."""
    hertz, heights = spectra.peaks
    total = np.maximum((spectra.fine**2).sum(axis=1), 1e-6)
    share = np.minimum(3 * (heights**2).sum(axis=1) / total, 1.5)
    sums = heights.sum(axis=1, keepdims=True)
    weights = heights / np.maximum(sums, 1e-6)
    octaves = np.log2(hertz / 55)
    height = (weights * octaves).sum(axis=1)
    width = np.sqrt(np.maximum((weights * octaves**2).sum(axis=1) - height**2, 0))
    even = (weights**2).sum(axis=1)
    return {
        **over_time("partials", share),
        **over_time("pitch_height", height),
        **over_time("pitch_width", width),
        **over_time("partials_even", even),
    }


def roughness(spectra: Spectra) -> dict[str, Array]:
    """Beating of partials within a critical band (Plomp and Levelt 1965, in the form of Sethares 1993), gain apart."""
    hertz, heights = spectra.peaks
    heights = heights / np.maximum(np.linalg.norm(heights, axis=1, keepdims=True), 1e-6)
    first, second = np.triu_indices(hertz.shape[1], 1)
    apart = np.abs(hertz[:, first] - hertz[:, second])
    scaled = apart * 0.24 / (0.0207 * np.minimum(hertz[:, first], hertz[:, second]) + 18.96)
    rough = (heights[:, first] * heights[:, second] * (np.exp(-3.51 * scaled) - np.exp(-5.75 * scaled))).sum(axis=1)
    return over_time("roughness", rough)


def _smooth(frames: Array, count: int) -> Array:
    """Means of so many neighbouring frames, fewer where there are not so many."""
    count = min(count, len(frames))
    sums = np.cumsum(np.pad(frames, ((1, 0), (0, 0))), axis=0)
    return (sums[count:] - sums[:-count]) / count
