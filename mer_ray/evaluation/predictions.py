"""What each scored song was given, beside its truth: ``songs.parquet`` of an evaluation, one row a song.

From it a figure is measured again on any resample of the songs, and two models are compared song by song.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.evaluation.metrics import resample, resampled_f1, vote_scores
from mer_ray.learning.scoring import Scores, Truth, top_k_mask
from mer_ray.songs import stored_json

PREDICTIONS = "songs.parquet"
_VOCABULARIES = "mer_ray.vocabularies"
_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("track_id", pa.string()),
        ("windows", pa.int32()),
        ("truth", pa.list_(pa.string())),
        ("votes", pa.list_(pa.struct([("label", pa.string()), ("windows", pa.int32())]))),
        ("song_vote", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class Predicted:
    """n rows of one dataset and level, windows or songs: what each was given of L labels, its truth and its song."""

    track_ids: list[str]
    predicted_NL: Truth
    truth_NL: Truth
    songs_N: NDArray[np.int64]

    def resampled(self, times: int, seed: int) -> Scores:
        """[times]: macro F1 in bootstrap resamples of the songs; the same songs and seed give the same resamples."""
        multiplicities_RS = resample(len(self.track_ids), times, seed)
        return resampled_f1(self.predicted_NL, self.truth_NL, self.songs_N, multiplicities_RS).mean(1)


def prediction_rows(
    dataset: str,
    labels: Sequence[str],
    track_ids: Sequence[str],
    window_scores_NL: Scores,
    songs_N: NDArray[np.int64],
    truth_SL: Truth,
    k: int,
) -> pa.Table:
    """One dataset's rows: for how many of a song's windows each label was among the k best, and the song's vote."""
    given_NL = top_k_mask(window_scores_NL, k)
    counts_S = np.bincount(songs_N, minlength=len(track_ids))
    votes_SL = np.zeros(truth_SL.shape, np.int32)
    np.add.at(votes_SL, songs_N, given_NL)
    voted_SL = top_k_mask(vote_scores(window_scores_NL, songs_N, len(track_ids), k), k)
    names = np.array(labels)
    rows = [
        {
            "dataset": dataset,
            "track_id": track_id,
            "windows": int(windows),
            "truth": names[truth_L].tolist(),
            "votes": [{"label": str(names[at]), "windows": int(votes_L[at])} for at in np.flatnonzero(votes_L)],
            "song_vote": names[voted_L].tolist(),
        }
        for track_id, windows, truth_L, votes_L, voted_L in zip(
            track_ids, counts_S, truth_SL, votes_SL, voted_SL, strict=True
        )
    ]
    vocabularies = {_VOCABULARIES: json.dumps({dataset: list(labels)})}
    return pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata(vocabularies))


def write_predictions(folder: str, tables: Sequence[pa.Table]) -> None:
    """Write the rows of all datasets of an evaluation."""
    vocabularies = {name: own for one in tables for name, own in stored_json(one.schema, _VOCABULARIES).items()}
    metadata = {_VOCABULARIES: json.dumps(vocabularies)}
    storage.write_table(storage.join(folder, PREDICTIONS), pa.concat_tables(tables).replace_schema_metadata(metadata))


def read_predictions(folder: str, dataset: str, level: str, only: Collection[str] | None = None) -> Predicted:
    """What the songs of a dataset were given at the level ``window`` or ``song_vote``; the songs by their ids.

    A song's windows come back with the votes they gave together, not each with its own: no F1 tells the two apart.
    ``only`` leaves out other songs.
    """
    table = storage.read_table(storage.join(folder, PREDICTIONS))
    labels: list[str] = stored_json(table.schema, _VOCABULARIES)[dataset]
    table = table.filter(pc.equal(table["dataset"], dataset)).sort_by("track_id")
    if only is not None:
        table = table.filter(pc.is_in(table["track_id"], value_set=pa.array(sorted(only), pa.string())))
    truth_SL, voted_SL = (_mask(table[name].to_pylist(), labels) for name in ("truth", "song_vote"))
    track_ids, songs_S = table["track_id"].to_pylist(), np.arange(len(table))
    if level == "song_vote":
        return Predicted(track_ids, voted_SL, truth_SL, songs_S)
    counts_S = table["windows"].to_numpy()
    songs_N = np.repeat(songs_S, counts_S)
    nth_N = np.arange(len(songs_N)) - np.repeat(np.cumsum(counts_S) - counts_S, counts_S)
    return Predicted(track_ids, nth_N[:, None] < _votes(table, labels)[songs_N], truth_SL[songs_N], songs_N)


def _mask(rows: list[list[str]], labels: Sequence[str]) -> Truth:
    column = {label: at for at, label in enumerate(labels)}
    mask_SL = np.zeros((len(rows), len(labels)), bool)
    for mask_L, row in zip(mask_SL, rows, strict=True):
        mask_L[[column[label] for label in row]] = True
    return mask_SL


def _votes(table: pa.Table, labels: Sequence[str]) -> NDArray[np.int64]:
    column = {label: at for at, label in enumerate(labels)}
    votes_SL = np.zeros((len(table), len(labels)), np.int64)
    for votes_L, row in zip(votes_SL, table["votes"].to_pylist(), strict=True):
        for vote in row:
            votes_L[column[vote["label"]]] = vote["windows"]
    return votes_SL
