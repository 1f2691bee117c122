"""One file's vector, decoded and encoded here and now as the songs of a feature store were."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.learning.model import Model
from mer_ray.songs import Identity


def song_vector(uri: str, made_by: Identity, model: Model) -> NDArray[np.float32]:
    """[E] the mean unit projection of a song's windows.

    Raises:
        InputError: the file cannot be read as music, or the encoder cannot be had.
    """
    from mer_ray.audio import AudioError, decode_windows
    from mer_ray.encoders import as_made, load_encoder

    name, own = as_made(made_by)
    encoder = load_encoder(name, "cpu", own)
    windows: dict[str, Any] = {key: made_by[key] for key in ("window_seconds", "keep_tail") if key in made_by}
    try:
        with storage.readable(uri):
            track = decode_windows(storage.read_bytes(uri), sample_rate=encoder.sample_rate, **windows)
    except AudioError as error:
        raise InputError(f"{uri}: {error}") from error
    pieces = [*track.windows, *([] if track.tail is None else [track.tail])]
    features_ND = np.concatenate([encoder(piece[None]).numpy() for piece in pieces])
    return np.asarray(model.project(features_ND.astype(np.float16)).mean(axis=0), np.float32)
