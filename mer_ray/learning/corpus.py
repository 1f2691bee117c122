"""What a training reads: the windows of labelled songs, by split, and who was missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
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
from mer_ray.learning.presence import nothing_present
from mer_ray.learning.ridge import Ridge
from mer_ray.learning.sampling import TrainingSet
from mer_ray.learning.scratch import Scratch
from mer_ray.learning.seen import seen_songs
from mer_ray.learning.settings import TrainSettings
from mer_ray.words.labelspace import LabelSpace

_CHUNK = 1024  # windows, 25 MB in double precision

Read = Callable[[Sequence[Store], Collection[str]], Windows]


@dataclass
class Corpus:
    """Training and validation windows of one or several datasets.

    ``sets`` are the training ``windows`` ready for the learner; ``songs`` counts those with features by dataset and
    split, ``absent`` those without, and by reason; ``seen`` names each of ``songs``, ``truth`` holds of each
    dataset its name, its words, and which of them its training songs have, [S, l].
    """

    windows: list[Windows] = field(default_factory=list)
    sets: list[TrainingSet] = field(default_factory=list)
    validation: list[ValidationSet] = field(default_factory=list)
    songs: dict[str, int] = field(default_factory=dict)
    absent: dict[str, dict[str, int]] = field(default_factory=dict)
    seen: list[pa.Table] = field(default_factory=list)
    truth: list[tuple[str, tuple[str, ...], NDArray[np.bool_]]] = field(default_factory=list)

    @classmethod
    def load(
        cls,
        stores: Sequence[Store],
        datasets: Sequence[Annotations],
        space: LabelSpace,
        recipe: TrainSettings,
        scratch: Scratch | None = None,
    ) -> Corpus:
        """Read the features of all training and validation songs, into memory or onto a node's disk.

        Raises:
            InputError: a dataset has no training or no validation song with features.
        """
        corpus = cls()
        for split in (TRAIN, VALIDATION):
            for at, dataset in enumerate(datasets):
                read: Read = read_windows
                if scratch is not None:
                    read = lambda *asked, name=f"{at}-{split}": scratch.windows(name, *asked)  # noqa: E731
                windows, rows = labelled_windows(stores, dataset, dataset.where(split), split, read)
                corpus._count(f"{dataset.dataset} {split}", windows)
                corpus.seen.append(seen_songs(dataset, rows, split))
                labelled = _labelled(windows, dataset, rows, space, recipe)
                truth_Sl, words = dataset.truth[rows], dataset.vocabulary
                if split == TRAIN:
                    corpus.truth.append((dataset.dataset, words, truth_Sl))
                    corpus.windows.append(windows)
                    corpus.sets.append(labelled)
                else:
                    priors, labels_lE = corpus.priors(), space.targets("labels", words)
                    priors_l = np.array([priors[word] for word in words], np.float32)
                    corpus.validation.append(ValidationSet(labelled, truth_Sl, labels_lE, dataset.k, priors_l))
        return corpus

    def feature_scale(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each dimension over all training windows: [D] and [D], in bounded memory."""
        count = sum(len(one.features_ND) for one in self.sets)
        chunks = [chunk for one in self.sets for chunk in one.features_ND.split(_CHUNK)]  # views, not copies
        mean = torch.as_tensor(sum(chunk.double().sum(0) for chunk in chunks)) / count
        variance = torch.as_tensor(sum(((chunk.double() - mean) ** 2).sum(0) for chunk in chunks)) / count
        return mean.float(), variance.sqrt().float()

    def priors(self) -> dict[str, float]:
        """How common each word is: the share of the training songs of which it is known."""
        having, knowing = Counter[str](), Counter[str]()
        for _, words, truth_Sl in self.truth:
            having.update(dict(zip(words, truth_Sl.sum(0).tolist(), strict=True)))
            knowing.update(dict.fromkeys(words, len(truth_Sl)))
        return {word: having[word] / count for word, count in knowing.items()}

    def ridges(self) -> dict[str, Ridge]:
        """The plain yardstick of each dataset, fitted to its training songs."""
        return {
            name: Ridge.of_windows(windows, truth_Sl)
            for windows, (name, _, truth_Sl) in zip(self.windows, self.truth, strict=True)
        }

    def _count(self, name: str, windows: Windows) -> None:
        self.songs[name] = len(windows.track_ids)
        if windows.absent:
            self.absent[name] = dict(Counter(windows.absent.values()))


def labelled_windows(
    stores: Sequence[Store], dataset: Annotations, rows: NDArray[np.int64], what: str, read: Read = read_windows
) -> tuple[Windows, list[int]]:
    """Windows of some labelled songs, and the row in ``dataset`` of each song that has any.

    Raises:
        InputError: none has; ``what`` names the songs in the message.
    """
    at = {dataset.track_ids[row]: int(row) for row in rows}
    windows = read(stores, list(at))
    if not windows.track_ids:
        raise InputError(nothing_present(dataset, list(at), what, stores))
    return windows, [at[track_id] for track_id in windows.track_ids]


def _labelled(
    windows: Windows, dataset: Annotations, rows: Sequence[int], space: LabelSpace, recipe: TrainSettings
) -> TrainingSet:
    """Windows with the truth of their songs, and with what each label draws to and is told from."""
    own = dataset.vocabulary
    labels = own if recipe.contrast == "dataset" else tuple(word.label for word in space.words)
    truth_SL = np.zeros((len(rows), len(labels)), bool)
    truth_SL[:, [labels.index(label) for label in own]] = dataset.truth[rows]
    clusters_L = space.cluster_of(labels)
    alike_LL = clusters_L[:, None] == clusters_L[None, :]
    drawn_to_clusters = recipe.targets == "clusters"
    if not drawn_to_clusters:  # a word of its own dataset that it shares a cluster with is another target all the same
        alike_LL &= np.eye(len(labels), dtype=bool) | ~np.isin(labels, own)[None, :]
    first_L = np.isin(np.arange(len(labels)), np.unique(clusters_L, return_index=True)[1])
    return TrainingSet(
        dataset.dataset,
        torch.from_numpy(windows.features),
        torch.from_numpy(windows.songs),
        torch.from_numpy(truth_SL),
        torch.from_numpy(space.targets(recipe.targets, labels)),
        torch.from_numpy(clusters_L),
        torch.from_numpy(windows.counts) if recipe.context == "track" else None,
        torch.from_numpy(alike_LL),
        torch.from_numpy(first_L) if drawn_to_clusters else None,
        windows.track_ids,
    )
