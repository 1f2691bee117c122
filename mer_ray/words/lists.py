"""Lists of words as a user writes them."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import yaml

from mer_ray import storage
from mer_ray.catalog.datasets import vocabularies
from mer_ray.errors import InputError

MOODS = (
    *("happy", "playful", "energetic", "exciting", "powerful", "angry", "tense", "sad"),
    *("wistful", "nostalgic", "sentimental", "tender", "calm", "relaxing", "spiritual"),
)
"""Everyday words, each of which the nine words of GEMS span by nearly half or more."""
Source = Literal["yours", "training", "thesaurus", "templates", "the word itself", "published"]


@dataclass(frozen=True)
class Word:
    """A word, the phrases that are embedded in its place and averaged, and where those come from."""

    label: str
    phrases: tuple[str, ...]
    source: Source

    @classmethod
    def of(cls, label: str, *phrases: str) -> Word:
        """A word as somebody asks for it, with phrases or without; its own name as its one phrase says no more."""
        own = phrases not in ((), (label,))
        return cls(label, phrases if own else (label,), "yours" if own else "the word itself")


def read_labels(source: str) -> list[Word]:
    """A list of words to tag with.

    Args:
        source: ``moods``, ``jamendo``, ``cal500`` or ``gems``; words with commas between them (``happy,sad``; one word
            alone ends in one); a text file with a word or phrase a line, or several with commas between them (``#``
            starts a comment, a phrase with a comma in it stands in double quotes); or a YAML file of ``label: phrase,
            phrase``.

    Raises:
        InputError: no such file, nothing in it, labels that stand there twice, bad YAML, or bytes that are no UTF-8.
    """
    known = {**vocabularies(), "moods": MOODS}
    if source in known:
        return [Word.of(word) for word in known[source]]
    if storage.exists(source):
        text = _text(source)
        words = _yaml_words(source, text) if source.endswith((".yaml", ".yml")) else _plain_words(text)
    elif "," in source and "/" not in source:
        words = _plain_words(source)
    else:
        builtin = ", ".join(sorted(known))
        raise InputError(
            f"labels {source}: no such file; give a text or YAML file, words with commas between them "
            f"('{source},' for one), or one of: {builtin}."
        )
    if not words:
        raise InputError(f"labels {source}: no words in it; put one word a line.")
    counted = Counter(word.label for word in words)
    twice = [f"'{name}'" for name, times in counted.items() if times > 1]
    if twice:
        raise InputError(f"labels {source}: more than once: {', '.join(twice)}; keep one of each.")
    return words


def _text(source: str) -> str:
    data = b""
    try:
        data = storage.read_bytes(source)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"labels {source}: line {line} is not UTF-8 (Latin-1?); save the file as UTF-8.") from error
    except (IsADirectoryError, FileNotFoundError) as error:
        raise InputError(f"labels {source}: not a text file; put one word a line.") from error


def _plain_words(text: str) -> list[Word]:
    lines = (line.split("#", 1)[0].strip() for line in text.splitlines())
    cells = (
        cell.strip().strip("'\"") for line in lines for cell in next(csv.reader([line], skipinitialspace=True), ())
    )
    return [Word.of(cell) for cell in cells if cell]


def _yaml_words(source: str, text: str) -> list[Word]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark, lines = getattr(error, "problem_mark", None), text.splitlines()
        where = "not valid YAML" if mark is None else f"line {mark.line + 1} is not valid YAML"
        tab = mark is not None and mark.line < len(lines) and "\t" in lines[mark.line]
        hint = "use spaces where it has a tab" if tab else "write lines like 'calm: calm, peaceful'"
        raise InputError(f"labels {source}: {where}; {hint}.") from error
    if root and not isinstance(root, yaml.MappingNode):
        raise InputError(f"labels {source}: expected 'label: phrase, phrase' entries, found something else.")
    words = []
    for key, value in root.value if root else ():  # a dictionary would lose repeated labels and read 'no' as false
        nodes = value.value if isinstance(value, yaml.SequenceNode) else [value]
        if not all(isinstance(node, yaml.ScalarNode) for node in (key, *nodes)):
            raise InputError(f"labels {source}: line {key.start_mark.line + 1} is not a 'label: phrase, phrase' entry.")
        stated = [node.value for node in nodes if node.tag != "tag:yaml.org,2002:null"]
        split = stated if isinstance(value, yaml.SequenceNode) else ",".join(stated).split(",")
        words.append(Word.of(key.value, *(phrase.strip() for phrase in split if phrase.strip())))
    return words
