"""Labels as others published them: their embeddings, and which of them share a cluster.

The reference (AMAAI-Lab/cross-dataset-emotion-alignment) keeps both beside its code:

- ``resources/label_expanded_<dataset>.npz`` and ``label_features*.npz``: ``labels``, text [n], and
  ``text_features``, floats [n, E].
- ``clusters/<pair>/label_map.json``: ``{label: the number of its cluster}``. ``cluster_centers.npz`` in the
  same folder holds the clusters' numbers as ``labels``, [k], and their centres as ``text_features``, [k, E].
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.arrays import read_arrays
from mer_ray.errors import InputError, did_you_mean
from mer_ray.words.embedding import unit

CENTERS = "cluster_centers.npz"


def read_label_embeddings(uris: Sequence[str], width: int) -> dict[str, NDArray[np.float32]]:
    """Each label's unit vector, [E], by label.

    A label that stands in several files with other vectors (``happy`` and ``sad`` of MTG-Jamendo and CAL500) gets
    their mean, scaled to length one: here a word is one point, whichever dataset it comes from.

    Args:
        uris: ``.npz`` files of ``labels`` and ``text_features``.
        width: E, which they must have.

    Raises:
        InputError: a file that is missing, of another form or of another width.
    """
    found: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    for uri in uris:
        labels, vectors_NE = _labelled(uri, "US", "its labels as text")
        if vectors_NE.shape[1] != width:
            raise InputError(
                f"{uri}: vectors of {vectors_NE.shape[1]} numbers where the label model gives {width}; "
                "give the embeddings that go with --label-model."
            )
        for label, vector_E in zip(labels, unit(vectors_NE), strict=True):
            found[str(label)].append(vector_E)
    return {label: unit(np.mean(vectors, axis=0)) for label, vectors in found.items()}


def read_label_clusters(
    uri: str, labels: Sequence[str], embeddings_LE: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The clusters of L labels as published: [L] of 0 to C - 1, and the C centres as unit vectors, [C, E].

    The centres are those of ``cluster_centers.npz`` beside the map; without that file, the means of the labels'
    embeddings.

    Raises:
        InputError: no such map, or a label or a centre that it lacks.
    """
    numbers = _label_map(uri)
    for label in labels:
        if label not in numbers:
            raise InputError(
                f"{uri}: no cluster for the label '{label}'{did_you_mean(label, numbers)}; "
                "give the map of the datasets that are trained on."
            )
    kept, assignments_L = np.unique([numbers[label] for label in labels], return_inverse=True)
    centers_uri = storage.join(uri.rpartition("/")[0] or ".", CENTERS)
    if not storage.exists(centers_uri):
        members = [embeddings_LE[assignments_L == at] for at in range(len(kept))]
        return assignments_L.astype(np.int64), unit(np.stack([own.mean(0) for own in members]))
    known, centers_KE = _labelled(centers_uri, "iu", "the clusters' numbers")
    row = {int(number): at for at, number in enumerate(known)}
    lacking = next((int(number) for number in kept if int(number) not in row), None)
    if lacking is not None or centers_KE.shape[1] != embeddings_LE.shape[1]:
        wrong = f"vectors of {centers_KE.shape[1]} numbers" if lacking is None else f"no centre of cluster {lacking}"
        raise InputError(f"{centers_uri}: {wrong}; give the folder of {uri} as it was published.")
    return assignments_L.astype(np.int64), unit(centers_KE[[row[int(number)] for number in kept]])


def _label_map(uri: str) -> dict[str, int]:
    try:
        with storage.readable(uri):
            numbers: dict[str, int] = json.loads(storage.read_text(uri))
        if any(type(number) is not int for number in numbers.values()):
            raise TypeError
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f'{uri}: not a map of labels to clusters ({{"calm": 1, …}}, JSON); fetch it again.') from error
    return numbers


def _labelled(uri: str, kinds: str, what: str) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """``labels``, of one of the numpy ``kinds``, and ``text_features``: [n] and finite [n, E]."""
    arrays = read_arrays(uri)
    labels, vectors = arrays.get("labels"), arrays.get("text_features")
    if labels is None or vectors is None or labels.dtype.kind not in kinds or vectors.dtype.kind != "f":
        raise InputError(f"{uri}: expected 'labels' ({what}) and 'text_features' (floats); fetch it again.")
    if labels.ndim != 1 or vectors.ndim != 2 or len(labels) != len(vectors) or not vectors.size:
        raise InputError(
            f"{uri}: {list(labels.shape)} labels for {list(vectors.shape)} numbers; expected [n] and [n, E]."
        )
    if not np.isfinite(vectors).all():
        at = int(np.argmin(np.isfinite(vectors).all(axis=1)))
        raise InputError(f"{uri}: the vector of {str(labels[at])!r} is not finite; fetch it again.")
    return labels, np.asarray(vectors, np.float64)
