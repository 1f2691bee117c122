"""The plain yardstick is a ridge regression on standardized features and truth, for words trained on alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.metrics import roc_auc_score

from mer_ray.features import Windows
from mer_ray.learning import ridge
from mer_ray.learning.ridge import RIDGE, Ridge, read_ridge, ridge_file


def songs(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Songs whose two words each lie along a feature, at other scales and offsets."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(count, 6))
    truth = hidden[:, :2] + 0.5 * rng.normal(size=(count, 2)) > (0.0, 1.0)
    return (hidden * [1, 100, 1, 1, 1, 0.01] + 7).astype(np.float32), truth


def test_scores_are_scikit_learns_on_standardized_songs(monkeypatch: pytest.MonkeyPatch) -> None:
    features, truth = songs(80)
    monkeypatch.setattr(ridge, "PENALTIES", np.array([3.0]))
    inputs = (features - features.mean(0)) / features.std(0)
    targets = (truth - truth.mean(0)) / truth.std(0)
    expected = SklearnRidge(alpha=3.0).fit(inputs, targets).predict(inputs)
    np.testing.assert_allclose(Ridge.fit(features, truth).scores(features), expected, atol=1e-3)


def test_it_tells_other_songs_apart_and_noise_is_held_down() -> None:
    (features, truth), (other, its_truth) = songs(300), songs(200, 1)
    scores = Ridge.fit(features, truth).scores(other)
    assert min(roc_auc_score(its_truth[:, word], scores[:, word]) for word in (0, 1)) > 0.85
    noise = np.random.default_rng(2).normal(size=(300, 200)).astype(np.float32)
    assert np.abs(Ridge.fit(noise, truth).scores(noise)).mean() < 0.2


def test_it_is_fitted_to_songs_mean_features_and_read_back_for_words_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, truth = songs(40)
    windows = Windows(np.repeat(features, 3, axis=0).astype(np.float16), np.repeat(np.arange(40), 3), ["s"] * 40, {})
    fitted = Ridge.of_windows(windows, truth)
    np.testing.assert_allclose(fitted.scores(features), Ridge.fit(features, truth).scores(features), atol=0.05)
    monkeypatch.setattr(ridge, "SONGS", 10)
    assert not np.allclose(Ridge.of_windows(windows, truth).weights, fitted.weights)
    known = {"other": ["b", "z"], "x": ["a", "b"]}
    assert read_ridge(str(tmp_path), known, ["a"]) is None
    (tmp_path / RIDGE).write_bytes(ridge_file({"x": fitted}))
    found = read_ridge(str(tmp_path), known, ["b", "a"])
    assert found is not None
    np.testing.assert_array_equal(found.weights, fitted.weights[:, ::-1])
    assert read_ridge(str(tmp_path), known, ["a", "never seen"]) is None
