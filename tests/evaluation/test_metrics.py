"""Evaluation: against scikit-learn and plain counting, songs, baselines, intervals, clusters, shards, and edges."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn import metrics as sk

from mer_ray.evaluation.metrics import (
    Level,
    evaluate_scores,
    evaluate_songs,
    resample,
    resampled_f1,
    resampled_roc_auc,
    vote_scores,
)
from mer_ray.learning.projector import Projector, ProjectorShape, project
from mer_ray.learning.scoring import macro_f1, top_k_mask

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
        got = levels[name].metrics
        assert got["songs"] == 40
        assert {metric: got[metric] for metric in level.metrics} == pytest.approx(level.metrics, rel=1e-12)
    assert len({levels[name].metrics["macro_f1"] for name in expected}) == 3
    assert set(levels) == {"window", "song_vote", "song_mean", "song", "random", "frequent"}


def test_the_tagged_level_ranks_the_songs_own_scores_and_leaves_out_what_does_not_reach_the_floor() -> None:
    windows, songs, truth = song_world()
    own, ridge = (np.random.default_rng(seed).normal(size=truth.shape) + truth for seed in (1, 2))
    asked = {"song_scores_SL": own, "floor": 0.8, "ridge_SL": ridge}
    names = [f"s{at:02d}" for at in np.random.default_rng(3).permutation(40)]
    for track_ids in (None, names):
        levels = evaluate_songs(windows, songs, truth, LABELS, 2, truth.mean(0), track_ids=track_ids, **asked)
        given = plain_top_k(own, 2) & (own >= 0.8)
        assert levels["song"].metrics["macro_f1"] == pytest.approx(sk.f1_score(truth, given, average="macro"))
        for name, scores in (("song_mean", own), ("ridge", ridge)):
            expected = evaluate_scores(scores, truth, LABELS, 2).metrics
            assert {key: levels[name].metrics[key] for key in expected} == pytest.approx(expected)
    assert given.sum(1).min() == 0
    assert levels["song"].metrics["roc_auc"] == levels["song_mean"].metrics["roc_auc"]
    low, high = (levels["song"].metrics[f"macro_f1_{end}"] for end in ("low", "high"))
    assert low < levels["song"].metrics["macro_f1"] < high


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


def repeated(songs: NDArray[np.int64], multiplicities: Array) -> list[int]:
    """The rows of one resample, written out: every row of a song as often as the song was drawn."""
    return [
        row
        for song, times in enumerate(multiplicities)
        for row in np.flatnonzero(songs == song)
        for _ in range(int(times))
    ]


def test_a_resample_draws_as_many_songs_as_there_are_and_each_as_often_as_chance_has_it() -> None:
    multiplicities = resample(50, 2000, seed=3)
    assert multiplicities.shape == (2000, 50)
    assert (multiplicities.sum(1) == 50).all()
    assert multiplicities.mean(0) == pytest.approx(np.ones(50), abs=0.12)
    # A song is missing from a resample with probability (1 - 1/50)^50.
    assert (multiplicities == 0).mean() == pytest.approx((1 - 1 / 50) ** 50, abs=0.01)
    assert (multiplicities == resample(50, 2000, seed=3)).all()
    assert (multiplicities != resample(50, 2000, seed=4)).any()


@pytest.mark.parametrize("seed", range(3))
def test_resampled_metrics_are_those_of_the_resamples_written_out(seed: int) -> None:
    windows, songs, truth = song_world(seed)
    windows = np.round(windows, 1)
    multiplicities = resample(40, 12, seed)
    predicted = top_k_mask(windows, 2)
    f1 = resampled_f1(predicted, truth[songs], songs, multiplicities)
    areas = resampled_roc_auc(windows, truth[songs], songs, multiplicities)
    for at, times in enumerate(multiplicities):
        rows = repeated(songs, times)
        own = truth[songs][rows]
        expected = sk.f1_score(own, predicted[rows], average=None, zero_division=0)
        whole = sk.f1_score(truth[songs], predicted, average=None, zero_division=0)
        assert f1[at] == pytest.approx(np.where(own.any(0), expected, whole), rel=1e-12)
        fit = [label for label in range(len(LABELS)) if 0 < own[:, label].sum() < len(own)]
        expected_area = np.mean([sk.roc_auc_score(own[:, label], windows[rows, label]) for label in fit])
        assert areas[at] == pytest.approx(expected_area, rel=1e-12)


def test_a_label_that_a_resample_loses_is_left_out_of_the_area_and_keeps_its_f1_of_the_whole() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    truth = np.array([[True, False], [False, True], [False, False]])
    never_the_first = np.array([[0.0, 2.0, 1.0]])
    assert resampled_roc_auc(scores, truth, np.arange(3), never_the_first).tolist() == [1.0]
    f1 = resampled_f1(top_k_mask(scores, 1), truth, np.arange(3), never_the_first)
    assert f1[0].tolist() == pytest.approx([1, 4 / 5])
    only_the_first = np.array([[3.0, 0.0, 0.0]])
    assert np.isnan(resampled_roc_auc(scores, truth, np.arange(3), only_the_first)).all()


def test_the_intervals_are_the_middle_95_percent_of_the_resamples() -> None:
    windows, songs, truth = song_world()
    levels = evaluate_songs(windows, songs, truth, LABELS, 2, truth.mean(0), seed=5)
    multiplicities = resample(40, 1000, 5)
    for name, scores, rows in (
        ("window", windows, songs),
        ("song_vote", vote_scores(windows, songs, 40, 2), np.arange(40)),
        ("song_mean", np.array([windows[songs == song].mean(0) for song in range(40)]), np.arange(40)),
    ):
        f1 = resampled_f1(top_k_mask(scores, 2), truth[rows], rows, multiplicities)
        areas = resampled_roc_auc(scores, truth[rows], rows, multiplicities[:200])
        got = levels[name].metrics
        assert [got["macro_f1_low"], got["macro_f1_high"]] == pytest.approx(np.percentile(f1.mean(1), [2.5, 97.5]))
        assert [got["roc_auc_low"], got["roc_auc_high"]] == pytest.approx(np.percentile(areas, [2.5, 97.5]))
        assert got["macro_f1_low"] < got["macro_f1"] < got["macro_f1_high"]
        assert got["roc_auc_low"] < got["roc_auc"] < got["roc_auc_high"]
        one = levels[name].per_label["b"]
        assert [one["f1_low"], one["f1_high"]] == pytest.approx(np.percentile(f1[:, 1], [2.5, 97.5]))
    for name in ("random", "frequent"):
        assert "macro_f1_low" not in levels[name].metrics


def test_windows_of_one_song_are_no_new_songs() -> None:
    # The same songs with each window nine times over: as many songs, so as wide an interval.
    windows, songs, truth = song_world()
    once = evaluate_songs(windows, songs, truth, LABELS, 2, truth.mean(0))["window"].metrics
    often = evaluate_songs(np.tile(windows, (9, 1)), np.tile(songs, 9), truth, LABELS, 2, truth.mean(0))[
        "window"
    ].metrics
    for name in ("macro_f1_low", "macro_f1_high", "roc_auc_low", "roc_auc_high"):
        assert often[name] == pytest.approx(once[name], rel=1e-12)


def test_more_songs_make_a_narrower_interval() -> None:
    def width(rows: int) -> float:
        scores, truth = world(1, rows)
        metrics = evaluate_songs(scores, np.arange(rows), truth, LABELS, 2, truth.mean(0))["song_mean"].metrics
        return metrics["macro_f1_high"] - metrics["macro_f1_low"]

    assert width(1600) == pytest.approx(width(100) / 4, rel=0.3)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    population_scores, population_truth = world(0, 20_000)
    expected = macro_f1(population_scores, population_truth, 2)
    held = 0
    for seed in range(1, 101):
        rows = np.random.default_rng(seed).integers(0, 20_000, 150)
        predicted, own = top_k_mask(population_scores[rows], 2), population_truth[rows]
        macro = resampled_f1(predicted, own, np.arange(150), resample(150, 400, seed)).mean(1)
        low, high = np.percentile(macro, [2.5, 97.5])
        held += bool(low <= expected <= high)
    assert 88 <= held <= 100


CLUSTERS = [["a", "c"], ["b"], ["d", "e", "f"], ["g"]]
COLUMNS = [[0, 2], [1], [3, 4, 5], [6]]


def test_clusters_score_what_their_best_label_scores_and_are_true_where_one_of_them_is() -> None:
    # Top 1. Song 0: c is best, so is its cluster {a, c}, and a is true: right among clusters, wrong among labels.
    # Song 1: b, right in both. {a, c}: 1 given, 1 right, true once: F1 1; {b}: likewise 1.
    scores = np.array([[0.5, 0.1, 0.9], [0.1, 0.8, 0.2]])
    truth = np.array([[True, False, False], [False, True, False]])
    levels = evaluate_songs(scores, np.arange(2), truth, tuple("abc"), 1, truth.mean(0), clusters=[["c", "a"], ["b"]])
    for name in ("window", "song_vote", "song_mean"):
        assert levels[name].metrics["cluster_macro_f1"] == 1
        assert levels[name].metrics["macro_f1"] == pytest.approx(1 / 3)
    # Frequencies .5, .5, 0: both clusters have a label at .5, the first is given: right once of two.
    assert levels["frequent"].metrics["cluster_macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


@pytest.mark.parametrize("k", [2, 7])
def test_cluster_f1_is_scikit_learns_over_the_cluster_columns(k: int) -> None:
    windows, songs, truth = song_world()
    levels = evaluate_songs(windows, songs, truth, LABELS, k, truth.mean(0), clusters=CLUSTERS)
    scores = np.stack([windows[:, columns].max(1) for columns in COLUMNS], axis=1)
    own = np.stack([truth[:, columns].any(1) for columns in COLUMNS], axis=1)
    song_scores = np.array([windows[songs == song].mean(0) for song in range(40)])
    mean = np.stack([song_scores[:, columns].max(1) for columns in COLUMNS], axis=1)
    votes = vote_scores(scores, songs, 40, k)
    for name, predictions, rows in (
        ("window", scores, own[songs]),
        ("song_mean", mean, own),
        ("song_vote", votes, own),
    ):
        expected = sk.f1_score(rows, plain_top_k(predictions, k), average="macro", zero_division=0)
        assert levels[name].metrics["cluster_macro_f1"] == pytest.approx(expected, rel=1e-12)
    assert 0 < levels["random"].metrics["cluster_macro_f1"] <= 1


def test_clusters_of_one_label_each_score_as_the_labels_do() -> None:
    windows, songs, truth = song_world()
    alone = [[label] for label in LABELS]
    for level in evaluate_songs(windows, songs, truth, LABELS, 2, truth.mean(0), clusters=alone).values():
        assert level.metrics["cluster_macro_f1"] == pytest.approx(level.metrics["macro_f1"], rel=1e-12)


def test_without_clusters_there_is_no_cluster_f1() -> None:
    windows, songs, truth = song_world()
    levels = evaluate_songs(windows, songs, truth, LABELS, 2, truth.mean(0))
    assert all(np.isnan(level.metrics["cluster_macro_f1"]) for level in levels.values())


def flat(levels: dict[str, Level]) -> dict[str, float]:
    """Every figure of an evaluation under one name each."""
    figures = {f"{name} {metric}": value for name, level in levels.items() for metric, value in level.metrics.items()}
    for name, level in levels.items():
        for label, values in level.per_label.items():
            figures |= {f"{name} {label} {metric}": value for metric, value in values.items()}
    return figures


def test_the_order_of_the_songs_changes_no_digit() -> None:
    windows, songs, truth = song_world()
    names = [f"song/{at:02d}" for at in range(40)]
    shuffled = np.random.default_rng(9).permutation(40)
    place = np.argsort(shuffled)
    rows = np.concatenate([np.flatnonzero(songs == song) for song in shuffled])
    arguments: tuple[Any, ...] = (LABELS, 2, truth.mean(0), 3)
    first = evaluate_songs(windows, songs, truth, *arguments, track_ids=names, clusters=CLUSTERS)
    other = evaluate_songs(
        windows[rows],
        place[songs[rows]],
        truth[shuffled],
        *arguments,
        track_ids=[names[at] for at in shuffled],
        clusters=CLUSTERS,
    )
    np.testing.assert_equal(flat(other), flat(first))


def project_shard(seed: int, features: Array, counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """The scores of one shard's windows; runs in a process of its own."""
    return project(shard_projector(seed), features, counts)


def shard_projector(seed: int) -> Projector:
    torch.manual_seed(seed)
    shape = ProjectorShape(input_dim=6, output_dim=len(LABELS), hidden_dim=16, heads=2, context="track")
    return Projector(shape).eval()


def test_songs_projected_in_three_processes_and_joined_score_as_those_of_one_process() -> None:
    generator = np.random.default_rng(2)
    counts = generator.integers(1, 6, 40)
    songs, truth = np.repeat(np.arange(40), counts), world(2, 40)[1]
    features = generator.normal(size=(len(songs), 6)) + truth[songs][:, :6]
    names = [f"song/{at:02d}" for at in range(40)]
    shards = np.array_split(generator.permutation(40), 3)
    rows = [np.concatenate([np.flatnonzero(songs == song) for song in shard]) for shard in shards]
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        pieces = list(
            pool.map(project_shard, [4] * 3, [features[own] for own in rows], [counts[own] for own in shards])
        )
    joined = np.concatenate(shards)
    arguments: tuple[Any, ...] = (LABELS, 2, truth.mean(0), 3)
    whole = evaluate_songs(
        project_shard(4, features, counts), songs, truth, *arguments, track_ids=names, clusters=CLUSTERS
    )
    split = evaluate_songs(
        np.concatenate(pieces),
        np.repeat(np.arange(40), counts[joined]),
        truth[joined],
        *arguments,
        track_ids=[names[at] for at in joined],
        clusters=CLUSTERS,
    )
    assert whole["window"].metrics["macro_f1_high"] > whole["window"].metrics["macro_f1_low"]
    assert flat(split) == pytest.approx(flat(whole), rel=1e-12, nan_ok=True)
