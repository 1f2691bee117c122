"""The model directory: a trained projector with all it takes to read words its way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.features import Store
from mer_ray.fingerprints import encoder_differences, text_sha256, weights_sha256
from mer_ray.learning.projector import Projector, ProjectorShape, project
from mer_ray.learning.settings import Ranking
from mer_ray.models import located, names
from mer_ray.words.embedding import check_script, label_weights
from mer_ray.words.lists import Word
from mer_ray.words.wordspace import WordSpace

SPACE = "words.safetensors"
"""Centre and correction of the word space, where a model has them."""


@dataclass
class Model:
    """A projector, the label space it was trained in, and the songs it was trained on as a yardstick.

    Attributes:
        projector: f_theta, in evaluation mode.
        config: ``projector`` (shape), ``encoder``, ``label_model``, ``readings``, ``settings``.
        labels: ``words``, ``phrases``, ``clusters``, ``bandwidth``, ``datasets``, ``priors``.
        background: [songs, E] mean unit projection of each training song.
        space: how words become vectors; as they stand if not given.
    """

    projector: Projector
    config: dict[str, Any]
    labels: dict[str, Any]
    background: NDArray[np.float32]
    space: WordSpace = field(default_factory=WordSpace)

    @classmethod
    def load(cls, uri: str | PathLike[str]) -> Model:
        """Read a model directory, or a model that ships by its name.

        Raises:
            InputError: there is no finished model, or a file of it is damaged.
        """
        uri = located(str(uri))
        try:
            config, labels = (json.loads(_read(uri, name)) for name in ("config.json", "labels.json"))
            projector = Projector(ProjectorShape(**config["projector"]))
            projector.load_state_dict(load_tensors(_read(uri, "projector.safetensors")))
            songs = load_tensors(_read(uri, "background.safetensors"))["songs"].float().numpy()
            reading = labels.get("reading", {})
            tensors = load_tensors(_read(uri, SPACE)) if reading.get("tensors") else {}
            arrays = {key: tensor.float().numpy() for key, tensor in tensors.items()}
            space = WordSpace.restore(config["label_model"]["name"], reading, arrays)
        except FileNotFoundError as error:
            raise InputError(
                f"model {uri}: no finished model there; train one with jobs/train.py --model {uri}, or "
                f"give one that ships: {', '.join(names())}."
            ) from error
        except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError, NotADirectoryError) as error:
            raise InputError(
                f"model {uri}: damaged or not a model ({type(error).__name__}); train it again."
            ) from error
        return cls(projector.eval(), config, labels, songs, space)

    def save(self, uri: str) -> None:
        """Write the directory; ``config.json`` comes last, so a half-written model is not one."""
        songs = torch.from_numpy(self.background).half()
        space = {name: torch.from_numpy(array) for name, array in self.space.tensors().items()}
        files = {
            "projector.safetensors": save_tensors(self.projector.state_dict()),
            "background.safetensors": save_tensors({"songs": songs}),
            **({SPACE: save_tensors(space)} if space else {}),
            "labels.json": _json(self.labels),
            "config.json": _json(self.config),
        }
        for name, content in files.items():
            storage.write_bytes(storage.join(uri, name), content)

    @property
    def digest(self) -> str:
        """Identifies the model: its weights, labels, word space and configuration."""
        arrays = "".join(hashlib.sha256(array.tobytes()).hexdigest() for array in self.space.tensors().values())
        plain = json.dumps([self.config, self.labels], sort_keys=True)
        return text_sha256(weights_sha256(self.projector) + plain + arrays)

    def check_features(self, store: Store) -> None:
        """Raise InputError, naming what differs, unless the model was trained on this kind of features."""
        trained = {**self.config["encoder"], "dim": self.config["projector"]["input_dim"]}
        unlike = encoder_differences(trained, {**store.encoder, "dim": store.dim})
        if unlike:
            raise InputError(
                f"features {store.uri}: not what the model was trained on: {'; '.join(unlike)}; "
                "use the store it was trained on or train another model."
            )

    def embed(self, words: Sequence[Word]) -> NDArray[np.float32]:
        """Words, as :meth:`read` has them, to [n, E] unit vectors.

        Raises:
            InputError: another sentence encoder is installed, or it cannot read a word's script.
        """
        name = self.config["label_model"]["name"]
        here = label_weights(name)
        if here != self.config["label_model"]["weights_sha256"]:
            raise InputError(f"label model {name}: other weights than the model was trained with; install those.")
        read = [self.read(word) for word in words]
        check_script((phrase for word in read for phrase in word.phrases), name)
        return self.space.embed(read)

    def priors(self, words: Sequence[Word]) -> NDArray[np.float32]:
        """[n] share of the training songs that have each word, as far as their truth is known; nan for a word never
        seen, or read by other phrases than in training.
        """
        known = self.labels.get("priors", {})
        own = {label: tuple(phrases) for label, phrases in self.labels["phrases"].items()}
        seen = (word.phrases == own.get(word.label) for word in map(self.read, words))
        shares = [
            known.get(word.label, np.nan) if is_seen else np.nan for word, is_seen in zip(words, seen, strict=True)
        ]
        return np.array(shares, np.float32)

    @property
    def ranking(self) -> Ranking:
        """The score of its words: what its training chose the epoch by; before 0.3 the cosine for the paper's loss."""
        readings = self.config.get("readings", {})
        before: Ranking = "cosine" if readings.get("loss", "triplet") == "triplet" else "standardized"
        return readings.get("ranking", before)

    def read(self, word: Word) -> Word:
        """A word trained on with its phrases there unless others are given; the rest as the training read words."""
        known = self.labels["phrases"].get(word.label)
        if known and word.source == "the word itself" and word.label not in self.space.published:
            return Word(word.label, tuple(known), "training")
        return self.space.read(word)

    def project(
        self, features: NDArray[np.floating[Any]], counts: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Windows to unit vectors in the space of words, as :func:`mer_ray.learning.projector.project` does."""
        return project(self.projector, features, counts)


def _read(uri: str, name: str) -> bytes:
    return storage.read_bytes(storage.join(uri, name))


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()
