"""A ridge regression straight from features to words: the plain yardstick of a training, for words trained on.

It knows nothing of what words mean, so it has no score for a word never seen; on the words it was fitted to, what a
projector adds should not be below it (METHOD.md §6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from mer_ray import storage
from mer_ray.features import Windows

PENALTIES = 10.0 ** np.arange(-2, 6)
"""Of standardized features; the best by generalized cross validation is taken."""
SONGS = 4_000
"""At most so many songs of a dataset, evenly thinned, are fitted to."""
RIDGE = "ridge.safetensors"
"""Its file in a model directory: ``<dataset>.weights`` and ``<dataset>.bias``, the words as in ``labels.json``."""


@dataclass(frozen=True)
class Ridge:
    """Scores of L words from a song's mean features: ``weights`` [D, L] and ``bias`` [L]."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    @classmethod
    def of_windows(cls, windows: Windows, truth_SL: NDArray[np.bool_]) -> Self:
        """Fit to the mean features of songs, some thousand at most."""
        songs = np.unique(np.linspace(0, len(truth_SL) - 1, SONGS).astype(int))
        ends = np.cumsum(windows.counts)
        places = [slice(ends[song] - windows.counts[song], ends[song]) for song in songs]
        means = [windows.features[place].mean(0, dtype=np.float32) for place in places]
        return cls.fit(np.stack(means), truth_SL[songs])

    @classmethod
    def fit(cls, songs_SD: NDArray[np.floating[Any]], truth_SL: NDArray[np.bool_]) -> Self:
        """Fit to songs, features and truth both standardized; the words share one penalty."""
        inputs_SD, targets_SL = songs_SD.astype(np.float64), truth_SL.astype(np.float64)
        mean_D, prior_L = inputs_SD.mean(0), targets_SL.mean(0)
        scale_D, spread_L = (np.maximum(values.std(0), 1e-6) for values in (inputs_SD, targets_SL))
        left_SR, singular_R, right_RD = np.linalg.svd((inputs_SD - mean_D) / scale_D, full_matrices=False)
        wanted_SL = (targets_SL - prior_L) / spread_L
        along_RL = left_SR.T @ wanted_SL
        penalty = min(PENALTIES, key=lambda one: _cross_validated(singular_R, along_RL, wanted_SL, one))
        shrunk_RL = (singular_R / (singular_R**2 + penalty))[:, None] * along_RL
        weights_DL = right_RD.T @ shrunk_RL / scale_D[:, None]
        return cls(weights_DL.astype(np.float32), (-mean_D @ weights_DL).astype(np.float32))

    def scores(self, songs_SD: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """[S, L]: deviations of each word's truth above its mean, so that words compare."""
        scores: NDArray[np.float32] = songs_SD.astype(np.float32) @ self.weights + self.bias
        return scores


def ridge_file(ridges: Mapping[str, Ridge]) -> bytes:
    """What :data:`RIDGE` holds."""
    named = {f"{name}.{key}": getattr(one, key) for name, one in ridges.items() for key in ("weights", "bias")}
    return save({name: np.ascontiguousarray(array) for name, array in named.items()})


def read_ridge(model: str, vocabularies: Mapping[str, Sequence[str]], words: Sequence[str]) -> Ridge | None:
    """The yardstick for these words: that of a dataset which the model of a directory learned all of them from.

    None if there is no such dataset, or the model was made before 0.3 and has no :data:`RIDGE`.
    """
    uri = storage.join(model, RIDGE)
    name = next((name for name, known in vocabularies.items() if set(words) <= set(known)), None)
    if name is None or not storage.exists(uri):
        return None
    arrays, known = load(storage.read_bytes(uri)), list(vocabularies[name])
    columns = [known.index(word) for word in words]
    return Ridge(arrays[f"{name}.weights"][:, columns], arrays[f"{name}.bias"][columns])


def _cross_validated(
    singular_R: NDArray[np.float64], along_RL: NDArray[np.float64], wanted_SL: NDArray[np.float64], penalty: float
) -> float:
    """The generalized cross validation error (Golub, Heath and Wahba 1979)."""
    kept_R = singular_R**2 / (singular_R**2 + penalty)
    missed = (wanted_SL**2).sum() - ((2 * kept_R - kept_R**2)[:, None] * along_RL**2).sum()
    songs = len(wanted_SL)
    return float(missed / max(songs - 1 - kept_R.sum(), 1e-9) ** 2)
