"""The emotion thesaurus that ships with the package: words, their synonyms, where they lie in affect."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

Affect = tuple[float, float, float]
"""Valence, arousal and dominance, -1 to 1 each."""

TEMPLATES = ("{}", "{} music", "a {} song", "music that feels {}", "the mood is {}")
"""What stands for a word that no one has given phrases for."""

_LISTED = re.compile(r"\s*[,/;&]\s*")


@dataclass(frozen=True)
class Thesaurus:
    """Each word's phrases, the word itself first, and where some of the words lie."""

    entries: Mapping[str, tuple[str, ...]]
    affects: Mapping[str, Affect] = field(default_factory=dict)

    @cached_property
    def lexicon(self) -> tuple[str, ...]:
        """Every phrase once."""
        return _union(self.entries.values())

    @cached_property
    def phrase_affects(self) -> dict[str, NDArray[np.float64]]:
        """Each phrase's affect: the mean of those of the words it stands for."""
        found: dict[str, list[Affect]] = {}
        for word, affect in self.affects.items():
            for phrase in self.entries[word]:
                found.setdefault(phrase, []).append(affect)
        return {phrase: np.mean(affects, axis=0) for phrase, affects in found.items()}

    @cached_property
    def _words_of(self) -> dict[str, list[str]]:
        words: dict[str, list[str]] = {}
        for word, phrases in self.entries.items():
            for phrase in phrases:
                words.setdefault(phrase.lower(), []).append(word)
        return words

    def phrases(self, label: str) -> tuple[str, ...] | None:
        """What stands for a label, as an entry, as another's synonym, or as a list of such; None if nothing does."""
        word = " ".join(label.replace("_", " ").lower().split())
        if word in self.entries:
            return self.entries[word]
        if word in self._words_of:
            return _union([(word,), *(self.entries[entry] for entry in self._words_of[word])])
        parts = [self.phrases(part) for part in _LISTED.split(word)] if _LISTED.search(word) else []
        known = [part for part in parts if part is not None]
        return _union(known) if known and len(known) == len(parts) else None

    def without(self, words: Collection[str]) -> Thesaurus:
        """The same as if no one had ever thought of these words: no entry, and no synonym of another's."""
        gone = {word.replace("_", " ").lower() for word in words}
        entries = {
            word: tuple(phrase for phrase in phrases if phrase.lower() not in gone)
            for word, phrases in self.entries.items()
            if word not in gone
        }
        return Thesaurus(entries, {word: affect for word, affect in self.affects.items() if word in entries})


@lru_cache(maxsize=1)
def load_thesaurus() -> Thesaurus:
    """Read the packaged ``words/thesaurus.yaml``."""
    groups: list[dict[str, Any]] = yaml.safe_load(files("mer_ray").joinpath("words/thesaurus.yaml").read_text("utf-8"))
    entries: dict[str, tuple[str, ...]] = {}
    affects: dict[str, Affect] = {}
    for group in groups:
        for word, text in group["words"].items():
            entries[word] = _union([(word,), tuple(phrase.strip() for phrase in text.split(","))])
            if "affect" in group:
                affects[word] = tuple(group["affect"])
    return Thesaurus(entries, affects)


def template_phrases(label: str) -> tuple[str, ...]:
    """A word or phrase in a few plain sentences about music."""
    word = " ".join(label.replace("_", " ").split())
    return tuple(template.format(word) for template in TEMPLATES)


def _union(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(phrase for group in groups for phrase in group))
