"""A few songs to listen to beside the figures: those whose words are told best, and those told worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mer_ray.features import Store
from mer_ray.pages import Player
from mer_ray.songs import read_columns
from mer_ray.tagging.links import links

EXAMPLES = 3
"""Songs that are told best, and as many that are told worst."""


@dataclass(frozen=True)
class Told:
    """S songs of known truth over L words: their ids, the words, scores and truth, [S, L] each."""

    ids: Sequence[str]
    words: Sequence[str]
    scores: NDArray[np.float32]
    truth: NDArray[np.bool_]

    def order(self) -> list[int]:
        """The songs that have a word, by how high their true words stand among all words, the best first."""
        rank_SL = np.argsort(np.argsort(-self.scores, axis=1), axis=1)
        true_S = self.truth.sum(1)
        mean_S = np.where(self.truth, rank_SL, 0).sum(1) / np.maximum(true_S, 1)
        return [int(at) for at in np.argsort(mean_S, kind="stable") if true_S[at]]


def example_songs(told: Told, stores: Sequence[Store], page: str) -> list[Player]:
    """The songs told best, then those told worst, each with its true words and as many that it is told to have."""
    order = told.order()
    chosen = order[:EXAMPLES] + order[EXAMPLES:][-EXAMPLES:]
    places = _places([told.ids[at] for at in chosen], stores)
    heard = links([places.get(told.ids[at]) for at in chosen], page, 0)
    players = []
    for at, ending in zip(chosen, heard.endings, strict=True):
        true = np.flatnonzero(told.truth[at])
        best = np.argsort(-told.scores[at], kind="stable")[: len(true)]
        said, known = (", ".join(told.words[word] for word in words) for words in (best, true))
        link = heard.roots[0] + ending if ending else None
        players.append(Player(told.ids[at], f"truly {known}; told {said}", link))
    return players


def _places(ids: Sequence[str], stores: Sequence[Store]) -> dict[str, str]:
    """The uri of each of these songs."""
    wanted, places = pa.array(ids, pa.string()), dict[str, str]()
    for store in stores:
        for _, table in read_columns(store.parts, ["track_id", "uri"]):
            found = table.filter(pc.is_in(table["track_id"], value_set=wanted))
            places |= dict(zip(found["track_id"].to_pylist(), found["uri"].to_pylist(), strict=True))
    return places
