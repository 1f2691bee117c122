"""A projector in closed form: from features to how much a song has of each word, and from there to the words' vectors.

Ridge regression says how much of each word there is, B, and ``(E Eᵀ + αI)⁻¹ E`` is the smallest vector that has so much
of each in the space of words, however alike some of them are there. No epoch, no seed, one answer; a few kilobytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mer_ray.learning.projector import Projector, ProjectorShape

STRENGTH = 2.0
"""Ridge, a song trained on: 1 to 6 are alike to 0.005 ROC-AUC on Emotify's songs left out."""
ALIKE = 0.1
"""α: words more alike than this tells apart are not torn apart."""
SHARED = 2.0
"""Length of what all windows share, beside the average length of what is their own. A projection is scaled to length
one: with nothing shared, a window that says little would count as much as one that says a lot."""
CLIP = 5.0
"""Deviations beyond which a feature says nothing more."""


def linear_projector(
    songs_SD: NDArray[np.floating[Any]],
    amounts_SL: NDArray[np.floating[Any]],
    embeddings_LE: NDArray[np.floating[Any]],
) -> Projector:
    """Fit a projector without layers, of rank L.

    Args:
        songs_SD: mean features of each song.
        amounts_SL: how much it has of each of L words, on any scale of the word's own.
        embeddings_LE: the words as unit vectors, fewer than E.
    """
    songs, amounts, words = (np.asarray(values, np.float64) for values in (songs_SD, amounts_SL, embeddings_LE))
    shape = ProjectorShape(songs.shape[1], words.shape[1], hidden_dim=len(words), layers=0, heads=1, clip=CLIP)
    projector = Projector(shape)
    projector.set_feature_scale(_float(songs.mean(0)), _float(songs.std(0)))
    scaled_SD = (songs - projector.feature_mean.double().numpy()) / projector.feature_std.double().numpy()
    scaled_SD = np.clip(scaled_SD, -CLIP, CLIP)
    amounts = (amounts - amounts.mean(0)) / np.maximum(amounts.std(0), 1e-9)
    gram_SS = scaled_SD @ scaled_SD.T + STRENGTH * len(songs) * np.eye(len(songs))
    weights_DL = scaled_SD.T @ np.linalg.solve(gram_SS, amounts)
    out_LE = np.linalg.solve(words @ words.T + ALIKE * np.eye(len(words)), words)
    out_LE /= np.linalg.norm(scaled_SD @ weights_DL @ out_LE, axis=1).mean()
    state = {
        "feature_mean": projector.feature_mean,
        "feature_std": projector.feature_std,
        "input.weight": _float(weights_DL.T),
        "input.bias": torch.zeros(len(words)),
        "output.weight": _float(out_LE.T),
        "output.bias": _float(SHARED * _beside(words)),
    }
    projector.load_state_dict(state)
    return projector.eval()


def _beside(words_LE: NDArray[np.float64]) -> NDArray[np.float64]:
    """[E] a unit vector at right angles to all words, so that it favours none."""
    ones_E = np.ones(words_LE.shape[1])
    within_E = words_LE.T @ np.linalg.lstsq(words_LE.T, ones_E, rcond=None)[0]
    rest_E = ones_E - within_E
    beside: NDArray[np.float64] = rest_E / np.linalg.norm(rest_E)
    return beside


def _float(values: NDArray[np.floating[Any]]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
