"""A list of words as a model will read it: phrases, nearest trained words, collisions, words it cannot know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from mer_ray.learning.model import Model
from mer_ray.words.embedding import LABEL_MODEL, embed_labels
from mer_ray.words.lists import Source, Word
from mer_ray.words.thesaurus import load_thesaurus

NEAREST = 3
COLLISION = 0.8
"""From this cosine on two words are given to nearly the same songs."""
FAR = 0.45
"""Below this cosine to every word trained on and every emotion word known, a word is no matter of mood."""
NEAR = 0.2
"""Below this cosine to every word trained on, what the model does with a word was hardly shown to it."""
OPPOSITE = 0.9
"""Two words whose valence or arousal differ by this are opposites, as far as the thesaurus knows."""


@dataclass(frozen=True)
class WordReport:
    """How a model reads one word.

    Attributes:
        word: the word with what stands for it.
        nearest: the nearest words trained on, with their cosines, nearest first.
        collides: words of the list with nearly the same vector, with their cosines and whether they are opposites.
        familiarity: cosine of the word as written to the nearest word or phrase of mood that is known.
    """

    word: Word
    nearest: tuple[tuple[str, float], ...]
    collides: tuple[tuple[str, float, bool], ...]
    familiarity: float


def check_words(model: Model, words: Sequence[Word]) -> list[WordReport]:
    """Say how a model reads each word of a list."""
    names, trained = [word.label for word in words], list(model.labels["words"])
    vectors_LE = model.embed(words)
    near_LT = vectors_LE @ model.embed([Word.of(word) for word in trained]).T
    between_LL = vectors_LE @ vectors_LE.T
    familiar_L = _familiarity(model, words)
    reports = []
    for at, word in enumerate(words):
        nearest = np.argsort(-near_LT[at], kind="stable")[:NEAREST]
        others = [other for other in np.argsort(-between_LL[at]) if other != at and between_LL[at, other] >= COLLISION]
        collides = [(names[o], float(between_LL[at, o]), _are_opposites(word.label, names[o])) for o in others]
        near = tuple((trained[one], float(near_LT[at, one])) for one in nearest)
        reports.append(WordReport(model.read(word), near, tuple(collides), float(familiar_L[at])))
    return reports


def describe_words(reports: list[WordReport], label_model: str = "auto") -> str:
    """The reports for a person, first who reads the words, the warnings last and together."""
    english = f"{LABEL_MODEL}, which knows English alone" if label_model in ("auto", LABEL_MODEL) else label_model
    lines = [f"Words are read by {english}.", ""]
    for one in reports:
        lines += [one.word.label, f"  read as   {', '.join(one.word.phrases)}  ({_SOURCES[one.word.source]})"]
        lines.append(f"  nearest   {', '.join(f'{word} {cosine:.2f}' for word, cosine in one.nearest)}  (trained on)")
        if one.collides:
            lines.append(f"  collides  {', '.join(f'{word} {cosine:.2f}' for word, cosine, _ in one.collides)}")
    warnings = _warnings(reports)
    lines += ["", *(warnings or ["No word is far from what the model knows, and no two collide."])]
    return "\n".join(lines) + "\n"


def _warnings(reports: list[WordReport]) -> list[str]:
    lines = []
    for one in reports:
        if one.familiarity < FAR:
            lines.append(
                f"WARNING {one.word.label}: far from every mood word the model has heard of ({one.familiarity:.2f} to "
                "the nearest); its tags will mean little. Give it phrases about mood in a YAML file."
            )
        elif one.nearest[0][1] < NEAR:
            lines.append(
                f"WARNING {one.word.label}: far from every word trained on (nearest {one.nearest[0][0]}, "
                f"{one.nearest[0][1]:.2f}); look at some of its songs with jobs/search.py before you trust its tags."
            )
    for at, one in enumerate(reports):
        later = {other.word.label for other in reports[at + 1 :]}
        for word, cosine, opposite in one.collides:
            if word in later:
                kind = "opposites, yet read nearly alike" if opposite else "read nearly alike"
                lines.append(
                    f"WARNING {one.word.label} and {word}: {kind} ({cosine:.2f}); they will be given to the same "
                    "songs. Keep one, or give them phrases that tell them apart."
                )
    return lines


_SOURCES: dict[Source, str] = {
    "yours": "your phrases",
    "training": "as in its training",
    "thesaurus": "thesaurus",
    "templates": "not in the thesaurus: templates",
    "the word itself": "the word as it stands",
}


def _familiarity(model: Model, words: Sequence[Word]) -> np.ndarray:
    """[L] cosine of each label's own text to the nearest phrase of the training and of the thesaurus."""
    name = model.config["label_model"]["name"]
    known = dict.fromkeys([*chain(*model.labels["phrases"].values()), *load_thesaurus().lexicon])
    own = [", ".join(word.phrases) for word in words]
    return (embed_labels(own, model=name) @ embed_labels(list(known), model=name).T).max(1)


def _are_opposites(left: str, right: str) -> bool:
    affects = load_thesaurus().affects
    one, other = affects.get(left.replace("_", " ")), affects.get(right.replace("_", " "))
    return bool(one and other and max(abs(one[axis] - other[axis]) for axis in (0, 1)) >= OPPOSITE)
