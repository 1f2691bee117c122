"""The packaged thesaurus covers what people ask for and says where its words lie."""

from __future__ import annotations

import pytest

from mer_ray.catalog.datasets import vocabularies
from mer_ray.words.thesaurus import TEMPLATES, load_thesaurus, template_phrases


@pytest.mark.parametrize("name", sorted(vocabularies()))
def test_every_word_of_the_datasets_has_phrases(name: str) -> None:
    lacking = [word for word in vocabularies()[name] if load_thesaurus().phrases(word) is None]
    assert not lacking


def test_it_holds_hundreds_of_words_each_first_among_its_phrases_and_none_alone() -> None:
    thesaurus = load_thesaurus()
    assert len(thesaurus.entries) > 400
    assert all(phrases[0] == word and len(phrases) >= 3 for word, phrases in thesaurus.entries.items())
    assert all(len(affect) == 3 and max(map(abs, affect)) <= 1 for affect in thesaurus.affects.values())


@pytest.mark.parametrize(("low", "high", "axis"), [("gloomy", "cheerful", 0), ("sleepy", "energetic", 1)])
def test_opposites_lie_apart_in_affect(low: str, high: str, axis: int) -> None:
    affects = load_thesaurus().affects
    assert affects[high][axis] - affects[low][axis] > 1


def test_a_word_is_found_as_an_entry_a_synonym_a_list_or_not_at_all() -> None:
    thesaurus = load_thesaurus()
    assert thesaurus.phrases("Joyful_Activation") == thesaurus.entries["joyful activation"]
    synonym = thesaurus.phrases("drained")
    assert synonym is not None
    assert synonym[0] == "drained"
    assert set(thesaurus.entries["exhausted"]) <= set(synonym)
    listed = thesaurus.phrases("calm / sad")
    assert listed is not None
    assert {*thesaurus.entries["calm"], *thesaurus.entries["sad"]} == set(listed)
    assert thesaurus.phrases("late night drive") is None
    assert thesaurus.phrases("calm, quarterly report") is None


def test_without_some_words_nothing_of_them_is_left() -> None:
    less = load_thesaurus().without(["happy", "joyful_activation"])
    assert "happy" not in less.entries
    assert "happy" not in less.lexicon
    assert "happy" not in less.phrase_affects
    assert less.phrases("happy") is None
    assert "joyful activation" not in less.affects
    assert "happy" in load_thesaurus().lexicon


def test_a_free_phrase_stands_in_every_template() -> None:
    assert template_phrases("late_night drive")[0] == "late night drive"
    assert len(template_phrases("late night drive")) == len(TEMPLATES)
    assert all("late night drive" in sentence for sentence in template_phrases("late_night drive"))
