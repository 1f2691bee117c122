"""Soft truth is met by the order of the scores, label by label, over the songs that listeners rated."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from mer_ray.evaluation.metrics import Level
from mer_ray.evaluation.ratings import CORRELATION, add_rank_correlations, rank_correlations

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(60, 3))
RATINGS = np.round(SCORES + RNG.normal(size=(60, 3)), 1)
IDS = [f"song/{at:02}" for at in range(60)]


def level() -> Level:
    return Level({}, {label: {} for label in ("calm", "happy", "sad")})


def test_a_label_has_spearmans_correlation_ties_and_all() -> None:
    expected = [spearmanr(SCORES[:, at], RATINGS[:, at]).statistic for at in range(3)]
    assert rank_correlations(SCORES, RATINGS) == pytest.approx(expected)


def test_songs_without_a_rating_of_a_label_do_not_count_for_it() -> None:
    ratings = RATINGS.copy()
    ratings[:20, 0] = np.nan
    ratings[:58, 1] = np.nan
    found = rank_correlations(SCORES, ratings)
    assert found[0] == pytest.approx(spearmanr(SCORES[20:, 0], RATINGS[20:, 0]).statistic)
    assert np.isnan(found[1])
    assert found[2] == pytest.approx(spearmanr(SCORES[:, 2], RATINGS[:, 2]).statistic)


def test_scores_that_are_all_the_same_have_no_correlation() -> None:
    assert np.isnan(rank_correlations(np.zeros((60, 3)), RATINGS)).all()


def test_a_level_gets_the_mean_with_an_interval_that_no_order_of_songs_changes() -> None:
    found, other = level(), level()
    add_rank_correlations(found, SCORES, RATINGS, IDS, 0)
    turned = np.random.default_rng(1).permutation(60)
    add_rank_correlations(other, SCORES[turned], RATINGS[turned], [IDS[at] for at in turned], 0)
    assert found == other
    own = [values[CORRELATION] for values in found.per_label.values()]
    assert found.metrics[CORRELATION] == pytest.approx(np.mean(own))
    assert found.metrics[f"{CORRELATION}_low"] < found.metrics[CORRELATION] < found.metrics[f"{CORRELATION}_high"]


def test_chance_is_zero_within_its_interval() -> None:
    found = level()
    add_rank_correlations(found, np.random.default_rng(5).normal(size=(60, 3)), RATINGS, IDS, 0)
    assert found.metrics[f"{CORRELATION}_low"] < 0 < found.metrics[f"{CORRELATION}_high"]
