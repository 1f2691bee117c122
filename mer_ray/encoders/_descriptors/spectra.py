"""What all descriptors of a window are taken from: its spectrogram, mel bands, fine spectrum and the peaks there.

Gain means nothing here: a window is brought to unit power first. What lies 60 dB below a window's mean is a floor that
levels run into softly, so that neither digital silence nor a codec's holes are deeper than what anybody hears.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.fft import rfft

SAMPLE_RATE = 24_000
SIZE, HOP = 2048, 512
FINE_SIZE, FINE_HOP = 8192, 4096
"""Of the spectrum for pitch: 2.9 Hz a bin, half a semitone at 100 Hz."""
FRAME_RATE = SAMPLE_RATE / HOP
BANDS = 64
LOWEST, HIGHEST = 30.0, 7500.0
"""Hz that are looked at. What lies above is what files of few bits and low rates leave out."""
HERTZ = np.arange(int(HIGHEST * SIZE / SAMPLE_RATE) + 1, dtype=np.float32) * (SAMPLE_RATE / SIZE)
"""Of each bin of the spectrogram."""
FLOOR = 1e-6
"""Of power, beside a window's mean power: -60 dB."""
SILENCE = 1e-6
"""Root mean square of samples below which a window has no sound in it: -120 dB of full scale."""
PEAKS = 24
"""Of a frame's fine spectrum, the strongest."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Spectra:
    """One window [samples] of unit power, without its mean; all zeros if there is no sound in it."""

    samples: Array

    @classmethod
    def of(cls, window: Array) -> Spectra:
        """Of a window as it was decoded, at any gain."""
        centred = window.astype(np.float64)
        centred -= centred.mean()
        power = np.sqrt(np.mean(centred**2))
        scaled = centred / power if power > SILENCE else np.zeros_like(centred)
        return cls(scaled.astype(np.float32))

    @cached_property
    def magnitudes(self) -> Array:
        """[frames, bins] of 2048 samples every 512, up to the highest frequency that is looked at."""
        return _magnitudes(self.samples, SIZE, HOP)[:, : len(HERTZ)]

    @cached_property
    def power(self) -> Array:
        """[frames, bins]; white noise of unit power has 1 everywhere, on the average."""
        return self.magnitudes**2

    @cached_property
    def active(self) -> Array:
        """[frames] bool: which have sound in them, not 40 dB less than the window; all of a window without any."""
        level = self.power.mean(axis=1)
        found = level > 1e-4 * level.mean()
        return found if found.any() else np.ones(len(level), bool)

    @cached_property
    def mel_power(self) -> Array:
        """[frames, 64] mean power of the bins in each mel band."""
        return self.power @ _mel_weights()

    @cached_property
    def mel_db(self) -> Array:
        """[frames, 64] level of each mel band."""
        return decibels(self.mel_power)

    @cached_property
    def fine(self) -> Array:
        """[frames, bins] magnitudes of 8192 samples every 4096."""
        return _magnitudes(self.samples, FINE_SIZE, FINE_HOP)

    @cached_property
    def peaks(self) -> tuple[Array, Array]:
        """[frames, 24] Hz and magnitudes of the strongest partials; magnitude 0 where there are fewer."""
        return _peaks(self.fine)


def decibels(power: Array) -> Array:
    """Power to dB, softly no lower than the floor."""
    return 10 * np.log10(power + FLOOR)


def _magnitudes(samples: Array, size: int, hop: int) -> Array:
    if len(samples) < size:
        samples = np.pad(samples, (0, size - len(samples)))
    frames = sliding_window_view(samples, size)[::hop]
    window = _hann(size)
    return np.abs(rfft(frames * window, axis=1, workers=1))


@cache
def _hann(size: int) -> Array:
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)  # that of scipy.signal, which is slow to import
    return (window / np.sqrt((window**2).sum())).astype(np.float32)


@cache
def _mel_weights() -> Array:
    """[bins, 64] triangles that overlap by half on the mel scale (O'Shaughnessy 1987), each of sum one.

    A triangle narrower than a bin would be empty; none is narrower than two bins.
    """
    edges = 700 * (10 ** (np.linspace(_mel(LOWEST), _mel(HIGHEST), BANDS + 2) / 2595) - 1)
    step = SAMPLE_RATE / SIZE
    centre = edges[1:-1]
    low, high = np.minimum(edges[:-2], centre - step), np.maximum(edges[2:], centre + step)
    bins = HERTZ[:, None]
    weights = np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    return (weights / weights.sum(axis=0)).astype(np.float32)


def _mel(hertz: float) -> float:
    return 2595 * float(np.log10(1 + hertz / 700))


def _peaks(fine: Array) -> tuple[Array, Array]:
    """Local maxima between 40 Hz and 5 kHz, with a parabola through their logarithms (Smith and Serra 1987)."""
    first, last = round(40 * FINE_SIZE / SAMPLE_RATE), round(5000 * FINE_SIZE / SAMPLE_RATE)
    middle, left, right = fine[:, first:last], fine[:, first - 1 : last - 1], fine[:, first + 1 : last + 1]
    heights = np.where((middle > left) & (middle >= right) & (middle > 1e-3 * fine.max()), middle, 0)
    at = np.argpartition(heights, -PEAKS, axis=1)[:, -PEAKS:]
    found = np.take_along_axis(heights, at, axis=1)
    logs = [np.log(np.take_along_axis(side, at, axis=1) + 1e-9) for side in (left, middle, right)]
    bend = logs[0] - 2 * logs[1] + logs[2]
    shift = np.where(found > 0, 0.5 * (logs[0] - logs[2]) / np.where(bend < -1e-9, bend, -1), 0)
    return (at + first + np.clip(shift, -0.5, 0.5)) * (SAMPLE_RATE / FINE_SIZE), found
