"""Figures over seeds and songs, differences between models, and a λ that test songs had no say in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer_ray.evaluation.metrics import evaluate_songs
from mer_ray.evaluation.predictions import prediction_rows, write_predictions
from mer_ray.paper.measures import choose, compare, measure, soft_truth
from mer_ray.paper.tables import CAL500, EMOTIFY, JAMENDO, Cell, Comparison, Training, sweep
from mer_ray.paper.trials import Outcome

LABELS = tuple("abcde")
TRUTH = np.random.default_rng(0).random((80, 5)) < 0.4
IDS = [f"cal500/{at}" for at in range(80)]
GOOD, POOR = Training((CAL500,), "clusters", 1.0), Training((CAL500,), "labels")


def outcome(
    folder: Path, training: Training, seed: int, noise: float, songs: int = 80, validated: dict[str, Any] | None = None
) -> Outcome:
    """A trial whose scores are the truth and so much noise."""
    truth_SL, songs_N = TRUTH[:songs], np.arange(songs)
    scores_NL = truth_SL + noise * np.random.default_rng(seed).normal(size=truth_SL.shape)
    place = folder / training.name / str(seed)
    levels = evaluate_songs(scores_NL, songs_N, truth_SL, LABELS, 2, truth_SL.mean(0), track_ids=IDS[:songs])
    write_predictions(str(place), [prediction_rows(CAL500, LABELS, IDS[:songs], scores_NL, songs_N, truth_SL, 2)])
    tested = {CAL500: {name: one.metrics for name, one in levels.items()}}
    return Outcome(training.name, seed, str(place), tested, validated, 0.1)


def cell(training: Training, paper: float | None = 0.5) -> Cell:
    return Cell(training, CAL500, "song_vote", paper)


def test_one_seed_has_the_evaluations_own_figure_and_interval(tmp_path: Path) -> None:
    one = outcome(tmp_path, GOOD, 0, 0.5)
    found, own = measure(cell(GOOD), {GOOD.name: [one]}), one.tested[CAL500]["song_vote"]
    assert (found.ours, found.low, found.high) == pytest.approx(
        (own["macro_f1"], own["macro_f1_low"], own["macro_f1_high"])
    )
    assert (found.deviation, found.songs, found.paper) == (None, 80, 0.5)


def test_several_seeds_have_their_mean_and_deviation_beside_the_interval(tmp_path: Path) -> None:
    runs = [outcome(tmp_path, GOOD, seed, 0.5) for seed in range(3)]
    found = measure(cell(GOOD), {GOOD.name: runs})
    each = [one.tested[CAL500]["song_vote"]["macro_f1"] for one in runs]
    assert list(found.seeds) == each
    assert found.ours == pytest.approx(np.mean(each))
    assert found.deviation == pytest.approx(np.std(each, ddof=1))
    assert found.low is not None
    assert found.high is not None
    assert found.low < np.mean(each) < found.high


def test_what_was_not_run_has_no_figure() -> None:
    assert measure(cell(GOOD), {}).ours is None
    assert compare(Comparison(cell(GOOD), cell(POOR)), {}).verdict == "not run"


def test_a_better_model_is_higher_and_its_mirror_lower(tmp_path: Path) -> None:
    found = {
        GOOD.name: [outcome(tmp_path, GOOD, seed, 0.3) for seed in range(3)],
        POOR.name: [outcome(tmp_path, POOR, seed + 10, 1.5)._replace(seed=seed) for seed in range(3)],
    }
    there = compare(Comparison(cell(GOOD, 0.5), cell(POOR, 0.4)), found)
    back = compare(Comparison(cell(POOR), cell(GOOD)), found)
    assert there.verdict == "higher"
    assert back.verdict == "lower"
    assert there.paper == pytest.approx(0.1)
    assert (there.ours, there.low, there.high) == pytest.approx(
        (-(back.ours or 0), -(back.high or 0), -(back.low or 0))
    )
    alone = compare(Comparison(cell(GOOD), cell(POOR)), {name: own[:1] for name, own in found.items()})
    assert (alone.verdict, alone.deviation) == ("one seed", None)


def test_a_difference_is_sharper_than_the_two_figures_it_is_of(tmp_path: Path) -> None:
    """On the same songs what makes a song easy falls out; two intervals that overlap say nothing of that."""
    found = {
        GOOD.name: [outcome(tmp_path, GOOD, seed, 0.9) for seed in range(2)],
        POOR.name: [outcome(tmp_path, POOR, seed, 1.0) for seed in range(2)],
    }
    apart = compare(Comparison(cell(GOOD), cell(POOR)), found)
    figures = [measure(cell(one), found) for one in (GOOD, POOR)]
    assert (apart.high or 0) - (apart.low or 0) < min((one.high or 0) - (one.low or 0) for one in figures)


def test_models_are_compared_on_the_songs_both_were_scored_on(tmp_path: Path) -> None:
    found = {
        GOOD.name: [outcome(tmp_path, GOOD, seed, 0.5, songs=50) for seed in range(2)],
        POOR.name: [outcome(tmp_path, POOR, seed, 0.5) for seed in range(2)],
    }
    assert compare(Comparison(cell(GOOD), cell(POOR)), found).songs == 50


def test_soft_truth_is_kept_for_each_seed_of_a_rated_dataset_alone(tmp_path: Path) -> None:
    runs = [outcome(tmp_path, GOOD, seed, 0.5) for seed in range(2)]
    assert soft_truth({GOOD.name: runs}) == {}
    for seed, one in enumerate(runs):
        one.tested[CAL500]["song_mean"]["rating_correlation"] = 0.1 * seed
    assert soft_truth({GOOD.name: runs}) == {GOOD.name: {CAL500: [0.0, 0.1]}}


def test_lambda_is_chosen_by_validation_songs_whatever_the_test_songs_say(tmp_path: Path) -> None:
    pair = (EMOTIFY, JAMENDO)
    models = sweep()[pair]
    noise = {0.0: 0.1, 0.5: 0.3, 1.0: 2.0, 2.5: 0.5, 5.0: 0.7}  # on test songs λ = 0 is the best and 1 the worst
    figures = {0.0: 0.3, 0.5: 0.4, 1.0: 0.6, 2.5: 0.6, 5.0: 0.2}
    found = {}
    for weight, model in models.items():
        own = {JAMENDO: figures[weight] + 0.1, EMOTIFY: figures[weight] - 0.1}
        validated = {name: {"song_vote": {"macro_f1": figure}} for name, figure in own.items()}
        found[model.name] = [outcome(tmp_path, model, 0, noise[weight], validated=validated)]
    choice = choose(pair, models, found)
    assert choice.chosen == 1.0
    assert choice.validation == pytest.approx(figures)
    assert choice.test == measure(Cell(models[1.0], CAL500, "song_vote", None), found)
    assert choose(pair, models, {}).chosen is None
