"""Which of very many texts stand more than once, at eight bytes each: songs of one id, files of one content.

Hashes say which texts may; a second look at those alone says which do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mer_ray.errors import InputError

_TOGETHER = 1000
"""Hashes looked for at once: where many ids are doubled, the first are found without holding them all."""
_SHARES = 16
"""Hashes are sorted in so many shares, each beside all of them in memory."""


class Repeats:
    """Hashes of texts, and which of them came more than once; nulls do not count."""

    def __init__(self) -> None:
        self._hashes: list[NDArray[np.int64]] = []

    def add(self, texts: pa.ChunkedArray) -> None:
        """Take in some texts."""
        self._hashes.append(_hashes(texts.drop_null()))

    def hashes(self) -> NDArray[np.int64]:
        """The hashes that came more than once, sorted."""
        found = []
        for share in range(_SHARES):
            mine = [part[part & (_SHARES - 1) == share] for part in self._hashes]
            ordered = np.sort(np.concatenate([*mine, np.empty(0, np.int64)]))
            found.append(np.unique(ordered[1:][ordered[1:] == ordered[:-1]]))
        return np.sort(np.concatenate(found))


def among(texts: pa.ChunkedArray, hashes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which texts have one of these hashes; a null has none."""
    mask: NDArray[np.bool_] = np.isin(_hashes(texts), hashes) & texts.is_valid().to_numpy()
    return mask


def refuse_repeated(source: str, repeats: Repeats, ids: Callable[[], Iterable[pa.ChunkedArray]]) -> None:
    """Hold ids to being unique that went through ``repeats``; ``ids`` gives them again.

    Raises:
        InputError: an id stands more than once; ``source`` is named.
    """
    hashes = repeats.hashes()
    for at in range(0, len(hashes), _TOGETHER):
        seen = set()
        for track_id in _having(ids(), hashes[at : at + _TOGETHER]):
            if track_id in seen:
                raise repeated(source, track_id)
            seen.add(track_id)


def refuse_repeated_ids(ids: pa.ChunkedArray, source: str) -> None:
    """Hold ids that are all in memory to being unique. Raises as :func:`refuse_repeated`."""
    if pc.count_distinct(ids).as_py() < len(ids):
        counts = pc.value_counts(ids)
        raise repeated(source, counts.field("values").filter(pc.greater(counts.field("counts"), 1))[0].as_py())


def repeated(source: str, track_id: str) -> InputError:
    """What to say of an id that two songs have."""
    return InputError(f"{source}: track_id {track_id!r} stands more than once; give each song its own.")


def _having(parts: Iterable[pa.ChunkedArray], hashes: NDArray[np.int64]) -> Iterator[str]:
    for texts in parts:
        yield from texts.filter(pa.array(among(texts, hashes))).to_pylist()


def _hashes(texts: pa.ChunkedArray) -> NDArray[np.int64]:
    """Python's own, which nobody can foresee: no catalogue can be made to collide."""
    return np.fromiter(map(hash, texts.to_pylist()), np.int64, len(texts))
