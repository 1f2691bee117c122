"""What each song was given is kept so that every figure, and its interval, can be measured from it again."""

from pathlib import Path

import numpy as np
import pytest

from mer_ray.evaluation.metrics import RESAMPLES, evaluate_songs
from mer_ray.evaluation.predictions import prediction_rows, read_predictions, write_predictions
from mer_ray.learning.scoring import precision_recall_f1

LABELS = ("calm", "happy", "sad", "tense")
IDS = [f"song/{at}" for at in (3, 1, 4, 0, 2, 5, 7, 6)]
K = 2


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of windows, their songs, and the truth: songs of one to five windows."""
    rng = np.random.default_rng(seed)
    songs_N = np.repeat(np.arange(len(IDS)), rng.integers(1, 6, len(IDS)))
    return rng.normal(size=(len(songs_N), 4)), songs_N, rng.random((len(IDS), 4)) < 0.5


@pytest.mark.parametrize("level", ["window", "song_vote"])
def test_figures_and_intervals_can_be_measured_again_from_the_songs(tmp_path: Path, level: str) -> None:
    scores_NL, songs_N, truth_SL = drawn(0)
    levels = evaluate_songs(scores_NL, songs_N, truth_SL, LABELS, K, truth_SL.mean(0), track_ids=IDS)
    write_predictions(
        str(tmp_path),
        [
            prediction_rows("a", LABELS, IDS, scores_NL, songs_N, truth_SL, K),
            prediction_rows("b", LABELS[:3], IDS, scores_NL[:, :3], songs_N, truth_SL[:, :3], K),
        ],
    )
    found = read_predictions(str(tmp_path), "a", level)
    f1_L = precision_recall_f1(found.predicted_NL, found.truth_NL)[2]
    expected = levels[level].metrics
    assert f1_L.mean() == pytest.approx(expected["macro_f1"])
    low, high = np.percentile(found.resampled(RESAMPLES, 0), [2.5, 97.5])
    assert (low, high) == pytest.approx((expected["macro_f1_low"], expected["macro_f1_high"]))


def test_songs_can_be_left_out_and_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    scores_NL, songs_N, truth_SL = drawn(1)
    write_predictions(str(tmp_path), [prediction_rows("a", LABELS, IDS, scores_NL, songs_N, truth_SL, K)])
    found = read_predictions(str(tmp_path), "a", "window", only={"song/4", "song/1"})
    assert found.track_ids == ["song/1", "song/4"]
    assert len(found.songs_N) == (songs_N == 1).sum() + (songs_N == 2).sum()
    assert (found.truth_NL[0] == truth_SL[1]).all()
