"""Evaluation: against scikit-learn and plain counting, votes and means of songs, baselines, and edges."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sk

from mer_ray.evaluation import evaluate_scores, evaluate_songs, macro_f1, top_k_mask, vote_scores

LABELS = tuple("abcdefg")
Array = NDArray[np.float64]
Truth = NDArray[np.bool_]


def world(seed: int, rows: int = 60) -> tuple[Array, Truth]:
    """Scores that know something, with ties; no row has label f and all have label g."""
    generator = np.random.default_rng(seed)
    truth = generator.random((rows, len(LABELS))) < 0.3
    truth[:, 5], truth[:, 6] = False, True
    return np.round(generator.normal(size=truth.shape) + truth, 1), truth


def plain_top_k(scores: Array, k: int) -> Truth:
    mask = np.zeros(scores.shape, bool)
    for row, values in enumerate(scores):
        for at in sorted(range(len(values)), key=lambda at: (-values[at], at))[:k]:
            mask[row, at] = True
    return mask


def plain_roc(scores: Array, truth: Truth) -> float:
    """The share of pairs of a song that has the label and one that lacks it in which the first scores higher."""
    wins = [np.sign(yes - no) / 2 + 0.5 for yes in scores[truth] for no in scores[~truth]]
    return float(np.mean(wins))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 3, 7])
def test_macro_precision_recall_and_f1_are_scikit_learns(seed: int, k: int) -> None:
    scores, truth = world(seed)
    predicted = plain_top_k(scores, k)
    level = evaluate_scores(scores, truth, LABELS, k)
    for name, reference in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        expected = reference(truth, predicted, average=None, zero_division=0)
        assert level.metrics[f"macro_{name}"] == pytest.approx(expected.mean(), rel=1e-12)
        assert [level.per_label[label][name] for label in LABELS] == pytest.approx(expected, rel=1e-12)
    assert macro_f1(scores, truth, k) == level.metrics["macro_f1"]
    assert level.metrics["k"] == k
    assert [level.per_label[label]["support"] for label in LABELS] == truth.sum(0).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_the_areas_are_scikit_learns_over_the_labels_that_some_songs_have_and_some_lack(seed: int) -> None:
    scores, truth = world(seed)
    level = evaluate_scores(scores, truth, LABELS, 2)
    fit = slice(0, 5)
    roc = sk.roc_auc_score(truth[:, fit], scores[:, fit], average="macro")
    pr = sk.average_precision_score(truth[:, fit], scores[:, fit], average="macro")
    assert level.metrics["roc_auc"] == pytest.approx(roc, rel=1e-12)
    assert level.metrics["pr_auc"] == pytest.approx(pr, rel=1e-12)
    for at, label in enumerate("abcde"):
        assert level.per_label[label]["roc_auc"] == pytest.approx(plain_roc(scores[:, at], truth[:, at]), rel=1e-9)
    for label in "fg":
        assert np.isnan(level.per_label[label]["roc_auc"])
        assert np.isnan(level.per_label[label]["pr_auc"])


def test_areas_that_no_label_allows_are_nan_and_the_rest_still_stands() -> None:
    level = evaluate_scores(np.array([[0.2, 0.1]]), np.array([[True, False]]), ("a", "b"), 1)
    assert np.isnan(level.metrics["roc_auc"])
    assert np.isnan(level.metrics["pr_auc"])
    assert level.metrics["macro_f1"] == 0.5


def test_the_metrics_by_hand() -> None:
    # Top 1: song 1 gets a, song 2 gets a, song 3 gets b. a: 1 of 2 right, 1 of 1 found, F1 = 2/3;
    # b: 1 of 1 right, 1 of 2 found, F1 = 2/3; c: never given, never true, 0. Macro F1 = (2/3 + 2/3 + 0) / 3.
    scores = np.array([[0.9, 0.1, 0.0], [0.8, 0.7, 0.0], [0.1, 0.5, 0.4]])
    truth = np.array([[True, False, False], [False, True, False], [False, True, False]])
    metrics = evaluate_scores(scores, truth, ("a", "b", "c"), 1).metrics
    assert metrics["macro_f1"] == pytest.approx(4 / 9)
    assert metrics["macro_precision"] == pytest.approx((1 / 2 + 1) / 3)
    assert metrics["macro_recall"] == pytest.approx((1 + 1 / 2) / 3)
    # a: .9 beats .8 and .1: 1. b: .7 and .5 beat .1: 1.
    assert metrics["roc_auc"] == 1


def test_ties_go_to_the_earlier_label_and_k_labels_are_given_always() -> None:
    scores = np.array([[0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [-3.0, -1.0, -2.0, -1.0]])
    assert np.flatnonzero(top_k_mask(scores, 2)[0]).tolist() == [1, 2]
    assert np.flatnonzero(top_k_mask(scores, 2)[1]).tolist() == [0, 1]
    assert np.flatnonzero(top_k_mask(scores, 2)[2]).tolist() == [1, 3]
    for k in (1, 2, 3, 4):
        assert top_k_mask(scores, k).sum(1).tolist() == [k] * 3
    assert top_k_mask(scores, 9).all()


def test_songs_are_ordered_by_votes_first_and_by_mean_score_among_equal_votes() -> None:
    # Song 0, top 1 of each window: b, b, a. a's one window is so sure that a has the higher mean: b still wins;
    # c and d have no vote, and d the higher mean. Song 1 has one window, between the others in storage.
    windows = np.array(
        [[0.0, 0.3, 0.1, 0.2], [0.1, 0.2, 0.9, 0.3], [0.0, 0.3, 0.1, 0.2], [9.0, 0.3, 0.1, 0.2]],
    )
    votes = vote_scores(windows, np.array([0, 1, 0, 0]), 2, k=1)
    assert np.argsort(-votes[0]).tolist() == [1, 0, 3, 2]
    assert np.argsort(-votes[1]).tolist() == [2, 3, 1, 0]


@pytest.mark.parametrize("seed", range(3))
def test_votes_rank_as_a_plain_count_does(seed: int) -> None:
    generator = np.random.default_rng(seed)
    songs = generator.permutation(np.r_[np.arange(9), generator.integers(0, 9, 80)])
    windows = generator.normal(size=(len(songs), len(LABELS))) / 3
    votes = vote_scores(windows, songs, 9, k=3)
    for song in range(9):
        own = windows[songs == song]
        counted, mean = plain_top_k(own, 3).sum(0), own.mean(0)
        expected = sorted(range(len(LABELS)), key=lambda at: (-counted[at], -mean[at]))
        assert np.argsort(-votes[song]).tolist() == expected


def test_votes_of_songs_of_any_length_are_on_one_scale() -> None:
    windows = np.tile([[0.9, 0.1]], (101, 1))
    votes = vote_scores(windows, np.array([0] * 100 + [1]), 2, k=1)
    assert 0 <= votes.min() < votes.max() <= 1
    assert (votes[:, 0] > 0.5).all()
    assert (votes[:, 1] < 0.5).all()


def song_world(seed: int = 0) -> tuple[Array, NDArray[np.int64], Truth]:
    generator = np.random.default_rng(seed)
    truth = world(seed, rows=40)[1]
    songs = generator.permutation(np.r_[np.arange(40), generator.integers(0, 40, 120)])
    return generator.normal(size=(len(songs), len(LABELS))) + truth[songs], songs, truth


def test_each_level_scores_its_own_predictions() -> None:
    windows, songs, truth = song_world()
    levels = evaluate_songs(windows, songs, truth, LABELS, 2, truth.mean(0))
    mean = np.array([windows[songs == song].mean(0) for song in range(40)])
    expected = {
        "window": evaluate_scores(windows, truth[songs], LABELS, 2),
        "song_mean": evaluate_scores(mean, truth, LABELS, 2),
        "song_vote": evaluate_scores(vote_scores(windows, songs, 40, 2), truth, LABELS, 2),
    }
    for name, level in expected.items():
        got = dict(levels[name].metrics)
        assert got.pop("songs") == 40
        assert got == pytest.approx(level.metrics, rel=1e-12)
    assert len({levels[name].metrics["macro_f1"] for name in expected}) == 3
    assert set(levels) == {"window", "song_vote", "song_mean", "random", "frequent"}


def test_the_songs_a_window_belongs_to_decide_its_truth() -> None:
    truth = np.array([[True, False], [False, True]])
    songs = np.array([1, 0, 1])
    windows = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    levels = evaluate_songs(windows, songs, truth, ("a", "b"), 1, np.array([0.5, 0.5]))
    assert [levels[name].metrics["macro_f1"] for name in ("window", "song_vote", "song_mean")] == [1, 1, 1]
    wrong = evaluate_songs(windows, 1 - songs, truth, ("a", "b"), 1, np.array([0.5, 0.5]))
    assert [wrong[name].metrics["macro_f1"] for name in ("window", "song_vote", "song_mean")] == [0, 0, 0]


def test_the_frequent_baseline_gives_every_song_the_commonest_labels() -> None:
    # 10 songs, a on 6, b on 3, c on 1; told that a and b are the commonest, it always answers a and b.
    # F1 of a = 2 * 6 / (10 + 6), of b = 2 * 3 / (10 + 3), of c = 0; one score for all songs: ROC-AUC 1/2.
    truth = np.zeros((10, 3), bool)
    truth[:6, 0], truth[6:9, 1], truth[9, 2] = True, True, True
    levels = evaluate_songs(np.zeros((10, 3)), np.arange(10), truth, tuple("abc"), 2, np.array([60.0, 30.0, 10.0]))
    assert levels["frequent"].metrics["macro_f1"] == pytest.approx((12 / 16 + 6 / 13) / 3)
    assert levels["frequent"].metrics["roc_auc"] == 0.5
    # The share of songs that have a label is the precision of knowing nothing: (.6 + .3 + .1) / 3.
    assert levels["frequent"].metrics["pr_auc"] == pytest.approx(1 / 3)


def test_the_frequent_baseline_looks_where_it_is_told_not_at_the_answers() -> None:
    truth = np.array([[True, False]] * 4)
    levels = evaluate_songs(np.zeros((4, 2)), np.arange(4), truth, ("a", "b"), 1, np.array([1.0, 5.0]))
    assert levels["frequent"].metrics["macro_f1"] == 0


def test_the_random_baseline_scores_what_knowing_nothing_scores() -> None:
    # Given k of L labels at random, a label on a share p of songs: precision p, recall q = k / L, F1 2pq / (p + q).
    prevalence, k = np.array([0.1, 0.3, 0.5, 0.7, 0.9]), 2
    truth = np.random.default_rng(0).random((4000, 5)) < prevalence
    levels = evaluate_songs(np.zeros((4000, 5)), np.arange(4000), truth, LABELS[:5], k, truth.mean(0), seed=1)
    random, q = levels["random"].metrics, k / 5
    assert random["macro_f1"] == pytest.approx(np.mean(2 * prevalence * q / (prevalence + q)), abs=0.01)
    assert random["macro_precision"] == pytest.approx(prevalence.mean(), abs=0.01)
    assert random["macro_recall"] == pytest.approx(q, abs=0.01)
    assert random["roc_auc"] == pytest.approx(0.5, abs=0.01)
    assert random["k"] == k
    assert levels["random"].per_label["a"]["precision"] == pytest.approx(0.1, abs=0.02)


def test_the_random_baseline_depends_on_its_seed_and_not_on_the_scores() -> None:
    windows, songs, truth = song_world()

    def random(windows: Array, seed: int) -> float:
        return evaluate_songs(windows, songs, truth, LABELS, 2, truth.mean(0), seed)["random"].metrics["macro_f1"]

    assert random(windows, 1) == random(-windows, 1)
    assert random(windows, 1) != random(windows, 2)


def test_the_random_baseline_keeps_labels_without_area_out_of_its_areas() -> None:
    windows, songs, truth = song_world()
    level = evaluate_songs(windows, songs, truth, LABELS, 2, truth.mean(0))["random"]
    assert np.isnan(level.per_label["f"]["roc_auc"])
    assert np.isnan(level.per_label["g"]["pr_auc"])
    assert 0.3 < level.metrics["roc_auc"] < 0.7
