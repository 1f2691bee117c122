"""Words become vectors by phrases, a centre and axes of affect, and a saved space comes back the same."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from mer_ray.words.embedding import embed_labels
from mer_ray.words.lists import Word
from mer_ray.words.thesaurus import load_thesaurus
from mer_ray.words.wordspace import WordSpace

OPPOSITES = (
    ("cheerful", "gloomy"),
    ("energetic", "sleepy"),
    ("fast", "slow"),
    ("happy", "sad"),
    ("exciting", "boring"),
)


def built(**options: object) -> WordSpace:
    lexicon = load_thesaurus()
    return WordSpace(thesaurus=lexicon).measured(lexicon, **options)  # type: ignore[arg-type]


def cosines(space: WordSpace, pairs: tuple[tuple[str, str], ...]) -> list[float]:
    vectors = {word: space.embed([space.read(Word.of(word))])[0] for pair in pairs for word in pair}
    return [float(vectors[left] @ vectors[right]) for left, right in pairs]


def test_words_as_they_stand_are_the_sentence_encoders_bit_for_bit() -> None:
    words = ["calm", "joyful_activation"]
    np.testing.assert_array_equal(WordSpace().embed([Word.of(word) for word in words]), embed_labels(words))


def test_phrases_come_from_the_user_then_the_thesaurus_then_templates() -> None:
    space = WordSpace(given={"zesty": ("lively", "sharp")}, thesaurus=load_thesaurus())
    assert space.read(Word.of("zesty")) == Word("zesty", ("lively", "sharp"), "yours")
    assert space.read(Word.of("calm", "still")) == Word("calm", ("still",), "yours")
    assert space.read(Word.of("calm")).source == "thesaurus"
    assert space.read(Word.of("late night drive")).source == "templates"
    assert WordSpace().read(Word.of("late night drive")) == Word.of("late night drive")


def test_each_mending_parts_the_opposites_further() -> None:
    spaces = (WordSpace(thesaurus=load_thesaurus()), built(center=True), built(center=True, affect=0.5))
    for worse, better in pairwise(np.mean(cosines(space, OPPOSITES)) for space in spaces):
        assert better < worse - 0.2


def test_words_never_placed_part_too() -> None:
    words = [word for pair in OPPOSITES for word in pair]
    lexicon = load_thesaurus().without(words)
    held_out = [WordSpace(thesaurus=lexicon).measured(lexicon, center=True, affect=weight) for weight in (0.0, 0.5)]
    without, moved = (np.mean(cosines(space, OPPOSITES)) for space in held_out)
    assert moved < without - 0.1


def test_synonyms_stay_together() -> None:
    near = cosines(built(center=True, affect=0.5), (("cheerful", "merry"), ("sleepy", "tired"), ("angry", "furious")))
    assert min(near) > 0.6


@pytest.mark.parametrize("options", [{}, {"center": True}, {"center": True, "affect": 0.5}, {"affect": 0.5}])
def test_a_saved_space_comes_back_the_same(options: dict[str, object]) -> None:
    space = built(**options)
    again = WordSpace.restore("auto", space.describe(), space.tensors())
    words = [space.read(Word.of(label)) for label in ("calm", "tense", "late night drive")]
    assert words == [again.read(Word.of(word.label)) for word in words]
    np.testing.assert_array_equal(space.embed(words), again.embed(words))
    np.testing.assert_allclose(np.linalg.norm(space.embed(words), axis=1), 1, atol=1e-5)
