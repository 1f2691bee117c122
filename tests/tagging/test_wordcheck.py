"""A list of words is explained before a night is spent on it."""

from __future__ import annotations

import pytest

from mer_ray.learning.model import Model
from mer_ray.tagging.wordcheck import FAR, check_words, describe_words
from mer_ray.words.lists import Word
from mer_ray.words.thesaurus import load_thesaurus
from mer_ray.words.wordspace import WordSpace
from tests.learning.test_model import small_model


@pytest.fixture(scope="module")
def model() -> Model:
    """A model that reads words by the thesaurus, trained on two words."""
    one, lexicon = small_model(), load_thesaurus()
    one.space = WordSpace(thesaurus=lexicon).measured(lexicon, center=True, affect=0.5)
    one.labels["phrases"] = {word: one.space.read(Word.of(word)).phrases for word in ("calm", "sad")}
    return one


def test_each_word_is_said_with_its_phrases_and_the_nearest_trained_words(model: Model) -> None:
    words = [*map(Word.of, ("calm", "gloomy", "late night drive")), Word.of("x", "merry", "gay")]
    reports = {one.word.label: one for one in check_words(model, words)}
    assert [one.word.source for one in reports.values()] == ["training", "thesaurus", "templates", "yours"]
    assert reports["gloomy"].nearest[0][0] == "sad"
    assert reports["calm"].nearest[0] == ("calm", pytest.approx(1.0, abs=1e-4))
    text = describe_words(list(reports.values()))
    assert "late night drive music" in text
    assert "WARNING late night drive: far from every word trained on (nearest sad, 0.1" in text
    assert "WARNING calm" not in text
    assert "WARNING gloomy" not in text


def test_words_that_are_read_alike_and_words_that_are_no_mood_are_warned_of(model: Model) -> None:
    words = [Word.of(word) for word in ("glad", "happy", "tax return")]
    reports = {one.word.label: one for one in check_words(model, words)}
    assert [word for word, *_ in reports["glad"].collides] == ["happy"]
    assert reports["tax return"].familiarity < FAR < reports["glad"].familiarity
    text = describe_words(list(reports.values()))
    assert text.count("read nearly alike") == 1
    assert "WARNING tax return: far from every mood word" in text
    assert "glad and happy: read nearly alike" in text


def test_opposites_that_an_uncorrected_model_cannot_tell_apart_are_named() -> None:
    words = [Word.of("fast", "fast", "slow tempo"), Word.of("slow", "slow tempo", "fast")]
    assert "opposites, yet read nearly alike" in describe_words(check_words(small_model(), words))
