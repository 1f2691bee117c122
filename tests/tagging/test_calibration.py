"""What a percentile is worth is counted where truth is known, and thresholds keep the precision asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mer_ray.errors import InputError
from mer_ray.evaluation.figures import reliability_figure
from mer_ray.learning.scoring import LabelScale
from mer_ray.tagging.calibration import (
    BINS,
    CALIBRATION,
    Calibration,
    Reliability,
    as_plain,
    calibration_file,
    expected_and_found,
)
from mer_ray.tagging.ranking import Choice
from mer_ray.words.embedding import unit


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


def test_a_bin_holds_its_lower_edge_as_a_threshold_there_does() -> None:
    edges = Reliability.edges.astype(np.float32)
    np.testing.assert_array_equal(Reliability.bins_of(edges), np.arange(BINS))
    assert Reliability.bins_of(np.array([0.0, 1.0], np.float32)).tolist() == [0, BINS - 1]
    percentiles, truth = songs()
    measured = Reliability.measure(percentiles, truth)
    for edge, precision in zip(edges, measured.precision, strict=True):
        _, kept = Choice(min_percentile=float(edge)).best(percentiles, percentiles)
        assert truth[percentiles >= edge].mean() == pytest.approx(precision)
        assert kept.sum() == (percentiles >= edge).sum()


def test_uniform_percentiles_fill_every_bin_alike() -> None:
    percentiles, truth = songs()
    measured = Reliability.measure(percentiles, truth)
    assert measured.pairs.tolist() == [57, *[60] * (BINS - 2), 63]
    assert measured.right.sum() == truth.sum()
    assert measured.share[-1] > 0.8 > 0.2 > measured.share[0]
    assert measured.precision[0] == pytest.approx(truth.mean()) == measured.chance


def test_a_threshold_keeps_the_precision_asked_for_and_none_that_cannot() -> None:
    percentiles, truth = songs()
    measured = Reliability.measure(percentiles, truth)
    least = measured.percentile_for(0.7)
    assert least is not None
    assert truth[percentiles >= least].mean() >= 0.7 > truth.mean()
    assert measured.percentile_for(1.01) is None
    assert measured.percentile_for(0.0) == 0


def test_an_interval_is_wilsons() -> None:
    low, high = Reliability(np.array([10] * BINS), np.array([9] * BINS)).interval
    assert (low[0], high[0]) == pytest.approx((0.596, 0.982), abs=1e-3)
    low, high = Reliability(np.zeros(BINS, int), np.zeros(BINS, int)).interval
    assert (low[0], high[0]) == pytest.approx((0, 1), abs=1e-3)


WORDS = ("calm", "happy", "sad")
VECTORS = unit(np.random.default_rng(3).normal(size=(400, 8)) + 1)
AGAINST = "the songs themselves"


def write(folder: Path, *, seen: str = "", model: str = "this") -> None:
    measured = Reliability.measure(*songs())
    percentiles, truth = songs()
    best = percentiles > 0.8
    given = Reliability.measure(percentiles[best], truth[best])
    part = as_plain(measured, given, VECTORS, split="test", seen=seen, yardstick=AGAINST, words=list(WORDS), k=2)
    plain = calibration_file(model, "standardized", {"x": part, "y": part})
    (folder / CALIBRATION).write_text(json.dumps(plain))


def test_a_calibration_is_read_for_what_it_fits_alone(tmp_path: Path) -> None:
    write(tmp_path)
    found = Calibration.read(str(tmp_path), "this", "standardized")
    assert found.percentile_of(0.7) == Reliability.measure(*songs()).percentile_for(0.7)
    found.check_words(["sad", "calm"])
    found.check_yardstick(AGAINST)
    with pytest.raises(InputError, match="of another model"):
        Calibration.read(str(tmp_path), "that", "standardized")
    with pytest.raises(InputError, match="of the ranking standardized, tags are ranked cosine"):
        Calibration.read(str(tmp_path), "this", "cosine")
    with pytest.raises(InputError, match="did not measure dreamy, epic; leave these words out"):
        found.check_words(["sad", "epic", "dreamy"])
    with pytest.raises(InputError, match="give evaluate and tag the same --yardstick"):
        found.check_yardstick("the model's training songs")
    with pytest.raises(InputError, match="ask for no more"):
        found.percentile_of(1.0)
    with pytest.raises(InputError, match=r"no calibration\.json"):
        Calibration.read(str(tmp_path / "none"), "this", "standardized")


def test_a_calibration_of_songs_that_the_model_knows_is_refused_and_holds_no_counts(tmp_path: Path) -> None:
    write(tmp_path, seen="songs it learned from")
    assert "pairs" not in (tmp_path / CALIBRATION).read_text()
    with pytest.raises(InputError, match="x is of songs it learned from, which promise nothing of others"):
        Calibration.read(str(tmp_path), "this", "standardized")


def test_a_calibration_made_before_it_said_of_what_is_refused(tmp_path: Path) -> None:
    before = {"model": "this", "datasets": {"x": {"pairs": [1] * BINS, "right": [1] * BINS}}}
    (tmp_path / CALIBRATION).write_text(json.dumps(before))
    with pytest.raises(InputError, match=r"made before 0\.3, says neither its songs nor its ranking"):
        Calibration.read(str(tmp_path), "this", "standardized")


def test_tags_of_the_calibrated_k_are_expected_to_be_as_right_as_the_tags_were(tmp_path: Path) -> None:
    write(tmp_path)
    percentiles, truth = songs()
    calibration = Calibration.read(str(tmp_path), "this", "standardized")
    given = percentiles > 0.8
    expected = calibration.expected(WORDS, percentiles, k=2)
    assert expected.share[given].mean() == pytest.approx(truth[given].mean())
    assert (expected.low[given] <= expected.share[given]).all()
    assert not np.array_equal(expected.share, calibration.expected(WORDS, percentiles, k=1).share)


def test_expected_precision_holds_on_other_songs_of_the_kind_and_opens_for_strange_ones(tmp_path: Path) -> None:
    write(tmp_path)
    rng = np.random.default_rng(5)
    percentiles = rng.random((300, 3)).astype(np.float32)
    truth = rng.random((300, 3)) < percentiles**2
    calibration = Calibration.read(str(tmp_path), "this", "standardized").of(VECTORS[::2])
    assert calibration.strange == 0
    like = calibration.expected([*WORDS[:2], "never measured"], percentiles, k=3)
    assert np.isnan(like.share[:, 2]).all()
    kept = percentiles[:, :2] > 0.6
    assert like.low[:, :2][kept].mean() < truth[:, :2][kept].mean() < like.high[:, :2][kept].mean()
    assert like.share[:, :2][kept].mean() == pytest.approx(truth[:, :2][kept].mean(), abs=0.05)
    said = expected_and_found(like, percentiles > 0.6, truth)
    assert said.startswith(f"of {kept.sum():,} tags 0.")
    far = calibration.of(VECTORS - 3)
    assert far.strange > 0.98
    strange = far.expected(WORDS, percentiles, k=3)
    top = percentiles > 0.95
    assert strange.low[top].min() == pytest.approx(calibration.reliability.chance, abs=0.02)
    assert strange.high[top].min() > 0.98
    np.testing.assert_array_equal(strange.share[:, :2], like.share[:, :2])


def test_the_figure_is_a_picture() -> None:
    assert reliability_figure("gems", Reliability.measure(*songs())).startswith(b"\x89PNG")
