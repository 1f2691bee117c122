"""What a percentile is worth is counted where truth is known, and thresholds keep the precision asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mer_ray.errors import InputError
from mer_ray.evaluation.figures import reliability_figure
from mer_ray.learning.scoring import LabelScale
from mer_ray.tagging.calibration import BINS, Reliability, as_plain, percentile_of


def songs(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles, and truth that is likelier the higher they are."""
    rng = np.random.default_rng(0)
    percentiles = ((np.argsort(np.argsort(rng.random((count, 3)), axis=0), axis=0) + 1) / count).astype(np.float32)
    return percentiles, rng.random((count, 3)) < percentiles**2


def test_percentiles_are_uniform_on_the_yardstick_for_every_word() -> None:
    rng = np.random.default_rng(1)
    labels, yardstick = (rng.normal(size=(count, 8)).astype(np.float32) for count in (5, 120))
    found = LabelScale(labels, yardstick, "standardized").percentiles(yardstick)
    for column in found.T:
        np.testing.assert_allclose(np.sort(column), np.arange(1, 121) / 120, atol=1e-6)


def test_uniform_percentiles_fill_every_bin_alike() -> None:
    percentiles, truth = songs()
    measured = Reliability.measure(percentiles, truth)
    assert measured.pairs.tolist() == [60] * BINS
    assert measured.right.sum() == truth.sum()
    assert measured.share[-1] > 0.8 > 0.2 > measured.share[0]
    assert measured.precision[0] == pytest.approx(truth.mean())


def test_a_threshold_keeps_the_precision_asked_for_and_none_that_cannot() -> None:
    percentiles, truth = songs()
    measured = Reliability.measure(percentiles, truth)
    least = measured.percentile_for(0.7)
    assert least is not None
    assert truth[percentiles > least].mean() >= 0.7 > truth.mean()
    assert measured.percentile_for(1.01) is None
    assert measured.percentile_for(0.0) == 0


def test_a_calibration_is_read_for_its_own_model_alone(tmp_path: Path) -> None:
    measured = Reliability.measure(*songs())
    (tmp_path / "calibration.json").write_text(json.dumps(as_plain("this", {"x": measured, "y": measured})))
    assert percentile_of(str(tmp_path), "this", 0.7) == measured.percentile_for(0.7)
    with pytest.raises(InputError, match="of another model"):
        percentile_of(str(tmp_path), "that", 0.7)
    with pytest.raises(InputError, match="ask for no more"):
        percentile_of(str(tmp_path), "this", 1.0)
    with pytest.raises(InputError, match=r"no calibration\.json"):
        percentile_of(str(tmp_path / "none"), "this", 0.7)


def test_the_figure_is_a_picture() -> None:
    assert reliability_figure(Reliability.measure(*songs())).startswith(b"\x89PNG")
