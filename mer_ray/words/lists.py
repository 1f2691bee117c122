"""Lists of words as a user writes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import yaml

from mer_ray import storage
from mer_ray.catalog.datasets import vocabularies
from mer_ray.errors import InputError

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
        source: ``jamendo``, ``cal500`` or ``gems``; a text file with one word or phrase a line
            (``#`` starts a comment); or a YAML file of ``label: phrase, phrase`` entries.

    Raises:
        InputError: no such file, nothing in it, a label that stands there twice, or bad YAML.
    """
    known = vocabularies()
    if source in known:
        return [Word.of(word) for word in known[source]]
    if not storage.exists(source):
        builtin = ", ".join(sorted(known))
        raise InputError(f"labels {source}: no such file; give a text or YAML file, or one of: {builtin}.")
    try:
        text = storage.read_bytes(source).decode("utf-8-sig")
    except (UnicodeDecodeError, IsADirectoryError, FileNotFoundError) as error:
        raise InputError(f"labels {source}: not a UTF-8 text file; put one word a line.") from error
    if source.endswith((".yaml", ".yml")):
        words = _yaml_words(source, text)
    else:
        lines = (line.split("#", 1)[0].strip() for line in text.splitlines())
        words = [Word.of(line) for line in lines if line]
    if not words:
        raise InputError(f"labels {source}: no words in it; put one word a line.")
    names = [word.label for word in words]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"labels {source}: '{twice}' stands there twice; keep one.")
    return words


def _yaml_words(source: str, text: str) -> list[Word]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise InputError(f"labels {source}: not valid YAML; write lines like 'calm: calm, peaceful'.") from error
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
