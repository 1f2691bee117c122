"""A projector in closed form: it finds what is there to find, and a window that says little counts little."""

import numpy as np
import torch

from mer_ray.learning.linear import CLIP, linear_projector
from mer_ray.learning.projector import project

RNG = np.random.default_rng(0)
SONGS, D, L, E = 200, 30, 4, 48
WORDS = np.linalg.qr(RNG.normal(size=(E, L)))[0].T.astype(np.float32)
FEATURES = RNG.normal(3.0, 2.0, (SONGS, D)).astype(np.float32)
AMOUNTS = (FEATURES - 3) @ RNG.normal(size=(D, L)) * [1, 10, 0.1, 1]


def test_songs_come_to_lie_by_the_words_they_have_much_of() -> None:
    projector = linear_projector(FEATURES[:150], AMOUNTS[:150], WORDS)
    cosines_SL = project(projector, FEATURES[150:]) @ WORDS.T
    for at in range(L):
        assert np.corrcoef(cosines_SL[:, at], AMOUNTS[150:, at])[0, 1] > 0.9
    assert projector.shape.hidden_dim == L
    assert not projector.training


def test_words_that_are_nearly_the_same_share_what_they_have() -> None:
    twins = WORDS.copy()
    twins[1] = twins[0] + 0.01 * WORDS[1]
    twins /= np.linalg.norm(twins, axis=1, keepdims=True)
    vectors_SE = project(linear_projector(FEATURES, AMOUNTS, twins), FEATURES)
    assert np.corrcoef(vectors_SE @ twins[0], vectors_SE @ twins[1])[0, 1] > 0.99
    assert np.isfinite(vectors_SE).all()


def test_a_window_like_the_average_song_lies_in_the_middle_and_favours_no_word() -> None:
    projector = linear_projector(FEATURES, AMOUNTS, WORDS)
    middle_1E = project(projector, FEATURES.mean(axis=0)[None])
    np.testing.assert_allclose(middle_1E @ WORDS.T, 0, atol=1e-3)
    strong = FEATURES[np.abs(AMOUNTS[:, 0]).argmax()]
    weak = FEATURES.mean(axis=0) + 0.1 * (strong - FEATURES.mean(axis=0))
    vectors_2E = project(projector, np.stack([strong, weak]))
    assert np.abs(vectors_2E[0] @ WORDS[0]) > 5 * np.abs(vectors_2E[1] @ WORDS[0])


def test_a_feature_that_never_changes_and_one_far_off_do_no_harm() -> None:
    still = FEATURES.copy()
    still[:, 7] = 5.0
    projector = linear_projector(still, AMOUNTS, WORDS)
    far = still[:1].copy()
    far[0, 3] = 1e6
    at_clip = still[:1].copy()
    at_clip[0, 3] = still[:, 3].mean() + CLIP * still[:, 3].std()
    assert torch.isfinite(projector(torch.from_numpy(far))).all()
    np.testing.assert_allclose(project(projector, far), project(projector, at_clip), atol=1e-4)
