"""Words and their phrases become unit vectors."""

from pathlib import Path

import numpy as np
import pytest

from mer_ray.errors import InputError
from mer_ray.words.embedding import MULTILINGUAL, check_script, embed_labels, label_model, unit


def test_embeddings_are_unit_vectors_of_the_real_sentence_encoder() -> None:
    vectors = embed_labels(["happy", "joyful", "tax return"])
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.6 > 0.4 > vectors[0] @ vectors[2]
    np.testing.assert_allclose(vectors[0], label_model().encode("happy", normalize_embeddings=True), atol=1e-6)


def test_underscores_are_read_as_spaces() -> None:
    vectors = embed_labels(["joyful_activation", "joyful activation", "joyfulactivation"])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-2


def test_a_labels_phrases_are_averaged_and_scaled_to_length_one() -> None:
    phrases = {"calm": ("calm", "peaceful", "serene_music")}
    calm, sad = embed_labels(["calm", "sad"], phrases=phrases)
    mean = embed_labels(["calm", "peaceful", "serene music"]).mean(axis=0)
    np.testing.assert_allclose(calm, mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_allclose(sad, embed_labels(["sad"])[0], atol=1e-5)
    assert np.abs(calm - embed_labels(["calm"])[0]).max() > 1e-2


def test_scaling_leaves_a_zero_row_at_zero() -> None:
    np.testing.assert_allclose(unit(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]])


def test_a_sentence_encoder_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"label model .*: not on disk"):
        embed_labels(["calm"], model=str(tmp_path / "none"))


def test_a_word_in_another_script_is_refused_by_an_english_model_and_its_english_phrases_are_not() -> None:
    with pytest.raises(InputError, match=r"'悲しい': not in Latin letters .* knows English alone; .*multilingual"):
        check_script(["calm", "悲しい"], "auto")
    check_script(["süß", "café del mar", "80s / 90s", "♥"], "auto")
    check_script(["悲しい"], MULTILINGUAL)
