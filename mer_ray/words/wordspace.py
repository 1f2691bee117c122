"""How words become vectors: their phrases, a fixed centre, and axes of affect that tell antonyms apart.

A sentence encoder puts words near each other that are used alike, so that ``cheerful`` lies beside
``gloomy``. Three things mend it: several phrases a word, averaged; the centre of an emotion lexicon taken
away, since what all such words share tells none from another; and a step along the directions that carry
valence, arousal and dominance, found by ridge regression on the thesaurus's phrases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mer_ray.words.embedding import embed_labels, unit
from mer_ray.words.lists import Word
from mer_ray.words.thesaurus import Thesaurus, load_thesaurus, template_phrases

PUBLISHED: Literal["published"] = "published"
"""The source of a word whose vector was given as it is."""
RIDGE = 3.0
"""Best of 0.3 to 30 at telling the affect of words of left-out groups of the thesaurus."""


@dataclass(frozen=True)
class WordSpace:
    """How words become vectors, fixed at training and saved with the model.

    Attributes:
        model: the sentence encoder, as in :func:`embed_labels`.
        given: the user's phrases for some words.
        thesaurus: where other words' phrases come from; None reads each word as it stands (the paper).
        center: [E] taken from every embedding; None takes nothing.
        template_center: [E] the same for words that stand in templates, which share more with each other.
        correction: [E, E] applied to centred unit vectors, renormalised after; None is the identity.
        published: [E] unit vectors of some words, taken as they are instead.
    """

    model: str = "auto"
    given: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    thesaurus: Thesaurus | None = None
    center: NDArray[np.float32] | None = None
    template_center: NDArray[np.float32] | None = None
    correction: NDArray[np.float32] | None = None
    published: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def measured(self, lexicon: Thesaurus, *, center: bool = False, affect: float = 0.0) -> WordSpace:
        """The same with a lexicon's centre taken away, and words moved so far along its axes of affect."""
        if not (center or affect):
            return self
        known, templates_E = lexicon_vectors(self.model)
        mean_E = np.mean([known[phrase] for phrase in lexicon.lexicon], axis=0)
        correction = None
        if affect:
            placed_QE = np.stack([known[phrase] for phrase in lexicon.phrase_affects])
            affects_Q3 = np.array(list(lexicon.phrase_affects.values()))
            correction = affect_correction(unit(placed_QE - mean_E if center else placed_QE), affects_Q3, affect)
        if not center:
            return replace(self, correction=correction)
        return replace(self, center=mean_E, template_center=templates_E, correction=correction)

    def read(self, word: Word) -> Word:
        """A word with what this space lets stand for it, unless phrases were given with the word."""
        if word.source != "the word itself":
            return word
        if word.label in self.published:
            return Word(word.label, word.phrases, PUBLISHED)
        if word.label in self.given:
            return Word(word.label, self.given[word.label], "yours")
        if self.thesaurus is None:
            return word
        found = self.thesaurus.phrases(word.label)
        return Word(word.label, found or template_phrases(word.label), "thesaurus" if found else "templates")

    def embed(self, words: Sequence[Word]) -> NDArray[np.float32]:
        """Words with their phrases to [n, E] unit vectors; words read as :data:`PUBLISHED` have theirs."""
        vectors_NE = self._embed(words)
        for vector_E, word in zip(vectors_NE, words, strict=True):
            if word.source == PUBLISHED:
                vector_E[:] = self.published[word.label]
        return vectors_NE

    def _embed(self, words: Sequence[Word]) -> NDArray[np.float32]:
        labels, phrases = [word.label for word in words], {word.label: word.phrases for word in words}
        if self.center is None and self.correction is None:
            return embed_labels(labels, model=self.model, phrases=phrases)
        vectors_NE = embed_labels(labels, model=self.model, phrases=phrases, normalize=False)
        if self.center is not None:
            templated_N1 = np.array([[word.phrases == template_phrases(word.label)] for word in words])
            other_E = self.center if self.template_center is None else self.template_center
            vectors_NE = vectors_NE - np.where(templated_N1, other_E, self.center)
        return self._corrected(vectors_NE)

    def affect_axes(self) -> NDArray[np.float32]:
        """The directions of valence, arousal and dominance among the vectors of :meth:`embed`, [E, 3] of length one.

        Each is the ridge regression of one of the three on the phrases of the packaged thesaurus, as this space has
        them.
        """
        lexicon = load_thesaurus()
        known, _ = lexicon_vectors(self.model)
        placed_QE = np.stack([known[phrase] for phrase in lexicon.phrase_affects])
        placed_QE = self._corrected(placed_QE if self.center is None else placed_QE - self.center)
        weights_E3 = _ridge(placed_QE, np.array(list(lexicon.phrase_affects.values())))
        return unit(weights_E3.T).T

    def _corrected(self, vectors_NE: NDArray[np.float32]) -> NDArray[np.float32]:
        return unit(vectors_NE) if self.correction is None else unit(unit(vectors_NE) @ self.correction)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The arrays to save, by name."""
        named = {name: getattr(self, name) for name in ("center", "template_center", "correction")}
        if self.published:
            named["published"] = np.stack(list(self.published.values()))
        return {name: array for name, array in named.items() if array is not None}

    def describe(self) -> dict[str, Any]:
        """The rest as plain values."""
        entries = None if self.thesaurus is None else {word: list(own) for word, own in self.thesaurus.entries.items()}
        given = {word: list(own) for word, own in self.given.items()}
        published = {"published": list(self.published)} if self.published else {}
        return {"given": given, "thesaurus": entries, "tensors": sorted(self.tensors()), **published}

    @classmethod
    def restore(cls, model: str, plain: dict[str, Any], tensors: dict[str, NDArray[np.float32]]) -> WordSpace:
        """What :meth:`describe` and :meth:`tensors` wrote; a model that has neither reads words as they stand."""
        entries = plain.get("thesaurus")
        thesaurus = None if entries is None else Thesaurus({word: tuple(own) for word, own in entries.items()})
        given = {word: tuple(own) for word, own in plain.get("given", {}).items()}
        arrays = dict(tensors)
        published = dict(zip(plain.get("published", ()), arrays.pop("published", ()), strict=True))
        return cls(model, given, thesaurus, **arrays, published=published)


@lru_cache(maxsize=2)
def lexicon_vectors(model: str) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
    """Each phrase of the packaged thesaurus as a unit vector, and the mean of its words in templates."""
    phrases, sentences = lexicon_texts()
    vectors = dict(zip(phrases, embed_labels(phrases, model=model), strict=True))
    mean: NDArray[np.float32] = embed_labels(sentences, model=model).mean(0)
    return vectors, mean


def lexicon_texts() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The phrases of the packaged thesaurus, and every eighth of its words in templates.

    These say what templates share, which takes no more of them.
    """
    lexicon = load_thesaurus()
    return lexicon.lexicon, tuple(text for word in list(lexicon.entries)[::8] for text in template_phrases(word))


def affect_correction(
    placed_QE: NDArray[np.float32], affects_Q3: NDArray[np.float64], weight: float
) -> NDArray[np.float32]:
    """The matrix that moves words along the directions of affect, as far as a word's own text tells its affect.

    It is learned from centred unit vectors of phrases whose affect is known, [phrases, E] and [phrases, 3]. With
    weight 1 the deviation of what it adds to them is 0.35 a direction. [E, E], the identity plus a matrix of rank 3.
    """
    weights_E3 = _ridge(placed_QE, affects_Q3)
    axes_E3, _ = np.linalg.qr(weights_E3)
    spread = (placed_QE @ weights_E3).std(0).mean()
    return np.asarray(np.eye(len(weights_E3)) + 0.35 * weight / spread * weights_E3 @ axes_E3.T, np.float32)


def _ridge(placed_QE: NDArray[np.float32], affects_Q3: NDArray[np.float64]) -> NDArray[np.float64]:
    """[E, 3] of the ridge regression of affects on unit vectors."""
    inputs_QE = placed_QE.astype(np.float64)
    gram_EE = inputs_QE.T @ inputs_QE + RIDGE * np.eye(inputs_QE.shape[1])
    return np.linalg.solve(gram_EE, inputs_QE.T @ (affects_Q3 - affects_Q3.mean(0)))
