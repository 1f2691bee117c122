"""What a training reads: the windows of labelled songs, by split, and who was missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from mer_ray.catalog.annotations import Annotations
from mer_ray.catalog.datasets import TRAIN, VALIDATION
from mer_ray.errors import InputError
from mer_ray.features import Store, Windows, read_windows
from mer_ray.learning.learner import ValidationSet
from mer_ray.learning.sampling import TrainingSet
from mer_ray.learning.seen import seen_songs
from mer_ray.learning.settings import TrainSettings
from mer_ray.words.labelspace import LabelSpace

_CHUNK = 1024  # windows, 25 MB in double precision


@dataclass
class Corpus:
    """Training and validation windows of one or several datasets.

    ``sets`` are the training ``windows`` ready for the learner; ``songs`` counts those with features by dataset and
    split, ``absent`` those without, and by reason; ``seen`` names each of ``songs``, ``vocabularies`` the words of each
    set.
    """

    windows: list[Windows] = field(default_factory=list)
    sets: list[TrainingSet] = field(default_factory=list)
    validation: list[ValidationSet] = field(default_factory=list)
    songs: dict[str, int] = field(default_factory=dict)
    absent: dict[str, dict[str, int]] = field(default_factory=dict)
    seen: list[pa.Table] = field(default_factory=list)
    vocabularies: list[tuple[str, ...]] = field(default_factory=list)

    @classmethod
    def load(
        cls, stores: Sequence[Store], datasets: Sequence[Annotations], space: LabelSpace, recipe: TrainSettings
    ) -> Corpus:
        """Read the features of all training and validation songs.

        Raises:
            InputError: a dataset has no training or no validation song with features.
        """
        corpus = cls()
        for dataset in datasets:
            words = dataset.vocabulary
            windows, truth = corpus._split(stores, dataset, TRAIN)
            corpus.windows.append(windows)
            corpus.vocabularies.append(words)
            corpus.sets.append(
                TrainingSet(
                    dataset.dataset,
                    torch.from_numpy(windows.features),
                    torch.from_numpy(windows.songs),
                    torch.from_numpy(truth),
                    torch.from_numpy(space.targets(recipe.targets, words)),
                    torch.from_numpy(space.cluster_of(words)),
                    torch.from_numpy(windows.counts) if recipe.context == "track" else None,
                )
            )
            windows, truth = corpus._split(stores, dataset, VALIDATION)
            labels_LE = space.targets("labels", words)
            corpus.validation.append(
                ValidationSet(windows.features, truth[windows.songs], labels_LE, dataset.k, windows.counts)
            )
        return corpus

    def feature_scale(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each dimension over all training windows: [D] and [D], in bounded memory."""
        count = sum(len(one.features_ND) for one in self.sets)
        chunks = [chunk for one in self.sets for chunk in one.features_ND.split(_CHUNK)]  # views, not copies
        mean = torch.as_tensor(sum(chunk.double().sum(0) for chunk in chunks)) / count
        variance = torch.as_tensor(sum(((chunk.double() - mean) ** 2).sum(0) for chunk in chunks)) / count
        return mean.float(), variance.sqrt().float()

    def priors(self) -> dict[str, float]:
        """The share of training songs that have each word, over the datasets that know it."""
        having, knowing = Counter[str](), Counter[str]()
        for words, one in zip(self.vocabularies, self.sets, strict=True):
            having.update(dict(zip(words, one.truth_SL.sum(0).tolist(), strict=True)))
            knowing.update(dict.fromkeys(words, len(one.truth_SL)))
        return {word: having[word] / knowing[word] for word in sorted(knowing)}

    def _split(self, stores: Sequence[Store], dataset: Annotations, split: str) -> tuple[Windows, NDArray[np.bool_]]:
        """A split's windows, and the truth of the songs that have any."""
        windows, rows = labelled_windows(stores, dataset, dataset.where(split), split)
        name = f"{dataset.dataset} {split}"
        self.songs[name] = len(windows.track_ids)
        self.seen.append(seen_songs(dataset, rows, split))
        if windows.absent:
            self.absent[name] = dict(Counter(windows.absent.values()))
        return windows, dataset.truth[rows]


def labelled_windows(
    stores: Sequence[Store], dataset: Annotations, rows: NDArray[np.int64], what: str
) -> tuple[Windows, list[int]]:
    """Windows of some labelled songs, and the row in ``dataset`` of each song that has any.

    Raises:
        InputError: none has; ``what`` names the songs in the message.
    """
    at = {dataset.track_ids[row]: int(row) for row in rows}
    windows = read_windows(stores, list(at))
    if not windows.track_ids:
        raise InputError(
            f"manifest of {dataset.dataset}: none of its {len(rows)} {what} songs has features in "
            f"{', '.join(store.uri for store in stores)}; extract them first."
        )
    return windows, [at[track_id] for track_id in windows.track_ids]
