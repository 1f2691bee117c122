"""The windows of several songs in batches of equal length, and their features back by song."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mer_ray.encoders._encoder import Encoder
from mer_ray.songs import prefetched


class Window(NamedTuple):
    """One window of a song: ``samples`` [n] times ``scale``, int16 as a decoder packs them or floats."""

    samples: NDArray[Any]
    scale: float = 1.0


def encode_tracks(
    encoder: Encoder,
    tracks: Sequence[Sequence[Window]],
    batch_windows: int,
    step: Callable[[int], None] = lambda windows: None,
) -> list[NDArray[np.float32]]:
    """Encode the windows of several tracks in shared batches: per track [w, D] float32, in the order of its windows.

    Lengths may differ (short songs, tails); only windows of equal length share a forward pass, ``batch_windows`` at
    most. While one batch is encoded, the next is put together; a GPU gets it before the last one's features are
    fetched. ``step`` is told how many windows have been encoded, as they are.
    """
    features = [np.empty((len(windows), encoder.dim), np.float32) for windows in tracks]
    by_length: dict[int, list[tuple[int, int]]] = {}
    for track, windows in enumerate(tracks):
        for position, window in enumerate(windows):
            by_length.setdefault(len(window.samples), []).append((track, position))
    batches = [
        places[start : start + batch_windows]
        for places in by_length.values()
        for start in range(0, len(places), batch_windows)
    ]

    def packed(batch: list[tuple[int, int]]) -> tuple[Any, Any]:
        windows = [tracks[track][position] for track, position in batch]
        arrays = np.stack([one.samples for one in windows]), np.array([one.scale for one in windows], np.float32)
        return arrays if encoder.device is None else _tensors(*arrays, pinned=encoder.device != "cpu")

    def hand_back(batch: list[tuple[int, int]], encoded: Any) -> None:
        vectors = encoded if encoder.device is None else encoded.cpu().numpy()
        for (track, position), vector in zip(batch, vectors, strict=True):
            features[track][position] = vector
        step(len(batch))

    launched: list[tuple[list[tuple[int, int]], Any]] = []
    for batch, (samples, scales) in zip(batches, prefetched(packed, batches, 2), strict=True):
        launched.append((batch, encoder.launch(samples, scales)))
        if len(launched) > 1:
            hand_back(*launched.pop(0))
    for batch, encoded in launched:
        hand_back(batch, encoded)
    return features


def _tensors(*arrays: NDArray[Any], pinned: bool) -> Any:
    import torch

    tensors = map(torch.from_numpy, arrays)
    return tuple(one.pin_memory() if pinned else one for one in tensors)
