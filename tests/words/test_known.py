"""What the packaged file of vectors knows is not asked of the sentence encoder again, and is what it would say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer_ray.fingerprints import weights_sha256
from mer_ray.tagging.wordcheck import check_words
from mer_ray.words.embedding import embed_labels, label_model, label_weights, packaged_model
from mer_ray.words.known import WEIGHTS, known_vectors, known_weights
from mer_ray.words.lists import Word
from mer_ray.words.wordspace import lexicon_texts
from tests.learning.test_model import small_model


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that the sentence encoder is asked for."""
    texts: list[str] = []
    encode = label_model("auto").encode

    def noted(given: Sequence[str], **options: Any) -> Any:
        texts.extend(given)
        return encode(given, **options)

    monkeypatch.setattr(label_model("auto"), "encode", noted)
    return texts


def test_every_phrase_of_the_thesaurus_is_known() -> None:
    """Where this fails the thesaurus has changed: python -m mer_ray.words.remember."""
    known = known_vectors(label_weights())
    assert {text for group in lexicon_texts() for text in group} == known.keys()


def test_known_vectors_are_those_of_the_encoder() -> None:
    known = known_vectors(label_weights())
    some = list(known)[::40]
    fresh = label_model("auto").encode(some, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose([known[text] for text in some], fresh, atol=1e-5)


def test_another_encoders_vectors_are_not_known() -> None:
    assert known_vectors("0" * 64) == {}


def test_the_packaged_encoder_is_known_by_its_file_and_by_no_other(tmp_path: Path) -> None:
    """Where this fails the package or how its weights are digested has changed: python -m mer_ray.words.remember."""
    packaged = packaged_model("auto")
    assert packaged is not None
    assert known_weights(packaged) == weights_sha256(label_model("auto"))
    assert known_weights(tmp_path) is None
    (tmp_path / WEIGHTS).write_bytes((packaged / WEIGHTS).read_bytes()[:-4] + bytes(4))
    assert known_weights(tmp_path) is None


def test_words_that_are_known_are_embedded_without_the_sentence_encoder() -> None:
    code = "from mer_ray.words import embed_labels; embed_labels(['calm']); import sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "sentence_transformers"}.isdisjoint(run.stdout.split())


def test_checking_one_word_encodes_that_word_alone(asked: list[str]) -> None:
    check_words(small_model(), [Word.of("zesty")])
    assert set(asked) == {"zesty"}


def test_a_text_is_encoded_once_however_often_it_is_asked(asked: list[str]) -> None:
    vectors = embed_labels(["zesty", "calm", "zesty"])
    assert asked == ["zesty"]
    np.testing.assert_array_equal(vectors[0], vectors[2])
