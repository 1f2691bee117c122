"""``context = track``: the windows of a song attend to each other, and to nobody else's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mer_ray.learning.corpus import Corpus
from mer_ray.learning.learner import Learner, ValidationSet
from mer_ray.learning.projector import Projector, ProjectorShape, project
from mer_ray.learning.sampling import TrainingSet
from tests.learning.test_learner import OPTIONS, label_embeddings, recipe_of, songs

TRACK = ProjectorShape(input_dim=12, output_dim=8, hidden_dim=32, layers=2, heads=4, dropout=0.0, context="track")
COUNTS = np.array([3, 1, 5, 2])


@pytest.fixture(scope="module")
def windows() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(COUNTS.sum(), TRACK.input_dim)).astype(np.float32)


def projector(shape: ProjectorShape = TRACK) -> Projector:
    torch.manual_seed(1)
    return Projector(shape).eval()


def test_a_song_is_projected_alike_alone_and_padded_among_longer_songs(windows: NDArray[np.float32]) -> None:
    together = project(projector(), windows, COUNTS)
    ends = np.cumsum(COUNTS)
    for end, count in zip(ends, COUNTS, strict=True):
        alone = project(projector(), windows[end - count : end])
        np.testing.assert_allclose(together[end - count : end], alone, atol=1e-6)


def test_padding_has_no_part_in_the_gradient_either(windows: NDArray[np.float32]) -> None:
    model = projector().train()
    features = torch.from_numpy(windows).requires_grad_()
    model(features, torch.from_numpy(COUNTS))[:3].sum().backward()
    assert features.grad is not None
    assert features.grad[:3].abs().sum() > 0
    assert features.grad[3:].abs().max() == 0


def test_the_windows_of_a_song_do_attend_to_each_other(windows: NDArray[np.float32]) -> None:
    changed = windows.copy()
    changed[1] += 1
    before, after = project(projector(), windows, COUNTS), project(projector(), changed, COUNTS)
    assert np.abs(before[0] - after[0]).max() > 1e-4
    np.testing.assert_allclose(before[3:], after[3:], atol=1e-6)


def test_a_song_is_a_set_unless_its_windows_know_their_positions(windows: NDArray[np.float32]) -> None:
    order = np.array([2, 0, 1])
    as_set, in_order = projector(), projector(replace(TRACK, positions=True))
    song = windows[:3]
    np.testing.assert_allclose(project(as_set, song[order]), project(as_set, song)[order], atol=1e-6)
    assert np.abs(project(in_order, song[order]) - project(in_order, song)[order]).max() > 1e-3


def test_long_catalogues_are_projected_song_by_song_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.array([4, 0, 3, 6, 1, 2])
    features = np.random.default_rng(1).normal(size=(counts.sum(), TRACK.input_dim)).astype(np.float32)
    whole = project(projector(), features, counts)
    for size in (1, 5, 7):
        monkeypatch.setattr("mer_ray.learning.projector._BATCH", size)
        np.testing.assert_allclose(project(projector(), features, counts), whole, atol=1e-6)


def test_an_epoch_draws_whole_songs_and_every_window_once() -> None:
    one = training_set(np.array([2, 3, 1, 4]))
    assert len(one) == 4
    assert one.windows_of(np.array([3, 0])).tolist() == [6, 7, 8, 9, 0, 1]
    assert sorted(one.windows_of(np.random.default_rng(0).permutation(4))) == list(range(10))
    assert one.draws_of(5) == 2


def test_features_are_scaled_alike_whether_songs_or_windows_are_drawn() -> None:
    whole_songs = training_set(np.array([2, 3, 1, 4]))
    windows = replace(whole_songs, counts_S=None)
    for one, other in zip(*(Corpus(sets=[each]).feature_scale() for each in (whole_songs, windows)), strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(one, windows.features_ND.float().std(0, correction=0))


def test_songs_can_be_learned_from_their_windows_together() -> None:
    counts = np.full(60, 3)
    features, truth = songs(60, 99, noise=0.3)
    noisy = features.repeat_interleave(3, 0).float() + 0.8 * torch.randn(
        180, 12, generator=torch.Generator().manual_seed(0)
    )
    windows = replace(
        training_set(counts),
        features_ND=noisy.half(),
        truth_SL=truth,
    )
    validation = ValidationSet(windows, truth.numpy(), label_embeddings().numpy(), 2)
    torch.manual_seed(0)
    options = recipe_of(OPTIONS, batch_size=48, plateau_patience=5)
    learner = Learner(Projector(TRACK), [training_set(np.full(120, 3))], [validation], options)
    before, _ = learner.validate()
    for _ in range(20):
        learner.run_epoch()
    assert learner.best["macro_f1"] > before + 0.15


def training_set(counts: NDArray[np.int64]) -> TrainingSet:
    """Songs of several windows each, that show their labels with noise."""
    features, truth = songs(len(counts), 5, noise=0.3)
    repeats = torch.from_numpy(counts)
    noise = torch.randn(int(counts.sum()), 12, generator=torch.Generator().manual_seed(6))
    return TrainingSet(
        "songs",
        (features.repeat_interleave(repeats, 0).float() + 0.8 * noise).half(),
        torch.arange(len(counts)).repeat_interleave(repeats),
        truth,
        label_embeddings(),
        torch.tensor([0, 0, 1, 2, 2, 3]),
        repeats,
    )
