"""Training: its feed against a Python loop over windows; two threads or workers against one; a Jamendo-sized store.

python -m benchmarks.training [--windows 210000] [--dim 3072] [--steps 20]

Features are drawn at random, [windows, 3072] float16, with MTG-Jamendo's 56 words, two a song. The loop is a
``torch.utils.data.Dataset`` that draws a window's negatives in Python and a collate function that stacks them, as
the published code does. Everything on one thread a worker, but for the line that compares two threads with one.
``--steps 0`` measures the start and the memory alone.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.data import write_store
from benchmarks.measure import Line, Pair, as_table, flags, take_turns
from benchmarks.processes import alone, private_memory
from mer_ray.catalog.datasets import vocabularies
from mer_ray.commandline import parse
from mer_ray.features import Store, Windows
from mer_ray.learning.corpus import Corpus
from mer_ray.learning.learner import Learner, ValidationSet
from mer_ray.learning.losses import Batch
from mer_ray.learning.projector import Projector, ProjectorShape
from mer_ray.learning.sampling import TrainingSet, epoch_batches
from mer_ray.learning.scratch import Scratch
from mer_ray.learning.settings import TrainSettings

DIM, EMBEDDING = 3072, 384
BATCH, LARGE_BATCH = 256, 2048


def main() -> None:
    """Print the lines as a table."""
    asked = flags(__doc__, windows=210_000, dim=DIM, steps=20)
    print(as_table({"training": measure(asked.windows, asked.dim, asked.steps)}))


def measure(windows: int = 210_000, dim: int = DIM, steps: int = 20) -> list[Line]:
    """All lines of this benchmark; of the start and the memory alone where no steps are asked for."""
    torch.set_num_threads(1)
    one_thread = patch.dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    with TemporaryDirectory(prefix="mer-ray-training-") as name, one_thread:
        folder = Path(name)
        if not steps:
            return _start(windows, dim, folder / "features")
        return [
            *_feed(steps),
            _pair("two threads", BATCH, steps, folder, threads=2),
            _pair("two workers that exchange nothing", BATCH, steps, None, workers=2),
            _pair("two workers", BATCH, steps, folder, workers=2),
            _pair("two workers", LARGE_BATCH, steps, folder, workers=2),
            *_start(windows, dim, folder / "features"),
        ]


def simulated_set(windows: int, dim: int, seed: int = 0) -> TrainingSet:
    """Random features [windows, dim] that show the mean embedding of each song's words."""
    words = len(vocabularies()["jamendo"])
    generator = torch.Generator().manual_seed(seed)
    songs = max(1, windows // 20)
    truth = torch.zeros(songs, words, dtype=torch.bool)
    truth.scatter_(1, torch.rand(songs, words, generator=generator).topk(2, dim=1).indices, True)
    targets = torch.nn.functional.normalize(torch.randn(words, EMBEDDING, generator=generator), dim=1)
    songs_N = torch.arange(windows) % songs
    image = torch.randn(words, dim, generator=generator)
    features = truth.float()[songs_N] @ image + 0.5 * torch.randn(windows, dim, generator=generator)
    return TrainingSet("simulated", features.half(), songs_N, truth, targets, torch.arange(words))


class WindowLoop(Dataset[tuple[Tensor, ...]]):
    """The baseline: a window at a time, its wrong word drawn in Python."""

    def __init__(self, one: TrainingSet) -> None:
        self._one = one
        self._labels = [set(row.nonzero()[:, 0].tolist()) for row in one.truth_SL]

    def __len__(self) -> int:
        return len(self._one.features_ND)

    def __getitem__(self, at: int) -> tuple[Tensor, ...]:
        """Features, mean of the right words, a wrong word, and a cluster."""
        one = self._one
        labels = self._labels[int(one.songs_N[at])]
        wrong = random.choice([*labels])
        while wrong in labels:
            wrong = random.randint(0, len(one.targets_LE) - 1)
        right, cluster = one.targets_LE[list(labels)].mean(0), one.clusters_L[random.choice(list(labels))]
        return one.features_ND[at], right, one.targets_LE[wrong], cluster


def stacked(items: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """The baseline's collate function."""
    return [torch.stack(column) for column in zip(*items, strict=True)]


def by_window(one: TrainingSet) -> DataLoader[tuple[Tensor, ...]]:
    """The baseline's batches of an epoch."""
    return DataLoader(WindowLoop(one), BATCH, shuffle=True, collate_fn=stacked)


def fed(one: TrainingSet) -> Iterator[tuple[Tensor, ...]]:
    """What the learner feeds itself in an epoch, batch by batch."""
    for step, (picked,) in enumerate(epoch_batches([len(one)], BATCH, 0, 0)):
        features = one.features_of(picked)
        batch = Batch(features, one.songs_N[picked], one, torch.Generator().manual_seed(step))
        yield features, batch.mean_BE, batch.draw_wrong(1)[0], batch.draw_clusters()


def _feed(steps: int) -> list[Line]:
    one = simulated_set(20_000, DIM)
    loader = by_window(one)
    pair = take_turns(lambda: [None for _ in loader], lambda: [None for _ in fed(one)])
    seconds = list(_timed_steps(one, BATCH, steps // 2, time.process_time))
    batches = len(one) / BATCH
    loop, ours = (spent / batches / (sum(seconds) / len(seconds)) for spent in (pair.baseline_s, pair.ours_s))
    share = "feed's share of a step on a CPU (less is better)"
    return [
        pair.line("feed, a Python loop over windows", len(one), "windows/s", "≥ 10"),
        Line(share, [f"{loop:.1%}", f"{ours:.1%}"], ours, "≤ 0.10"),
    ]


def _timed_steps(one: TrainingSet, batch: int, steps: int, clock: Callable[[], float]) -> Iterator[float]:
    """Seconds of each of so many training steps."""
    learner = _learner(one, DIM)
    for step, picked in enumerate(islice(epoch_batches([len(one)], batch, 0, 0), steps)):
        started = clock()
        learner.step(picked, torch.Generator().manual_seed(step))
        yield clock() - started


def _learner(one: TrainingSet, dim: int, validation: TrainingSet | None = None) -> Learner:
    needed = ["--train=x", "--features=x", "--model=x", "--lambda=0", "--preset=paper", "--targets=labels"]
    torch.manual_seed(0)
    songs_N = torch.arange(256)
    few = validation or replace(one, features_ND=one.features_ND[:256], songs_N=songs_N, truth_SL=one.truth_SL[:256])
    held_out = ValidationSet(few, few.truth_SL.numpy(), one.targets_LE.numpy(), 2)
    return Learner(Projector(ProjectorShape(dim, EMBEDDING)), [one], [held_out], parse(TrainSettings, needed))


def _pair(what: str, batch: int, steps: int, folder: Path | None, workers: int = 1, threads: int = 1) -> Line:
    """Steps of one worker with one thread, and of several, in turn.

    Several workers add up 67 MB of gradients in each step, whatever its batch. Those without a ``folder`` to meet in
    do their shares and no more, which no exchange can beat.
    """
    times = []
    for turn in range(3):
        one = alone(_median_step, batch, steps, 1, "", 1)
        meeting = "" if folder is None else str(folder / f"meet-{what}-{batch}-{turn}")
        share = batch if folder else batch // workers
        times.append((one, alone(_median_step, share, steps, threads, meeting, workers, times=workers)))
    goal = "≥ 1.6" if folder else "the bound"
    return Pair.of(times).line(f"training on {what}, on one, batches of {batch}", batch, "windows/s", goal)


def _median_step(batch: int, steps: int, threads: int, meeting: str, workers: int, rank: int = 0) -> float:
    """Seconds of a step of one worker, without the first two."""
    torch.set_num_threads(threads)
    together = meeting and workers > 1
    if together:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers)
    seconds = list(_timed_steps(simulated_set(batch * steps, DIM), batch, steps, time.perf_counter))
    if together:
        dist.destroy_process_group()
    return median(seconds[2:])


def _start(windows: int, dim: int, store: Path) -> list[Line]:
    """Seconds until the first step, and memory: reading a simulated store and measuring its features' scale."""
    write_store(store, windows // 20, 20, dim)
    few = store.with_name("few")
    write_store(few, windows // 200, 20, dim)
    plain = alone(_read_plainly, str(store))
    _, least = alone(_begin, str(few))
    ours, most = alone(_begin, str(store))
    what = f"start of training on {windows:,} windows, pyarrow's read alone"
    memory = f"private memory of a worker, {windows // 10:,} windows, then {windows:,} (less is better)"
    return [
        Line(what, [f"{plain:.0f} s", f"{ours:.0f} s"], plain / ours, "< 60 s"),
        Line(memory, [f"{least:.0f} MiB", f"{most:.0f} MiB"], most / least, "flat"),
    ]


def _read_plainly(store: str) -> float:
    started = time.perf_counter()
    for _ in ds.dataset(store, exclude_invalid_files=True).to_batches():
        pass
    return time.perf_counter() - started


def _begin(uri: str) -> tuple[float, float]:
    """Of a worker that maps a store's features, measures their scale, takes some steps and validates on a tenth.

    Returns:
        Seconds until the first step, and MiB of private memory by then and after, beside what its imports take.
    """
    torch.set_num_threads(1)
    scratch = Scratch("benchmark", str(Path(uri).parent))
    with private_memory() as imports:
        time.sleep(0.1)
    started = time.perf_counter()
    with private_memory() as most:
        store = Store.open(uri)
        ids = [name for part in store.parts for name in pq.read_table(part, columns=["track_id"])[0].to_pylist()]
        asked = {"train": ids, "validation": ids[::10]}
        one, few = (_simulated_truth(scratch.windows(name, [store], each)) for name, each in asked.items())
        scale = Corpus(sets=[one]).feature_scale()
        seconds = time.perf_counter() - started
        learner = _learner(one, store.dim, few)
        learner.projector.set_feature_scale(*scale)
        for step, picked in enumerate(islice(epoch_batches([len(one)], BATCH, 0, 0), 20)):
            learner.step(picked, torch.Generator().manual_seed(step))
        learner.validate()
    scratch.remove()
    return seconds, most[0] - imports[0]


def _simulated_truth(windows: Windows) -> TrainingSet:
    """Windows with two of MTG-Jamendo's words a song."""
    one = simulated_set(20 * len(windows.track_ids), 1)
    return replace(one, features_ND=torch.from_numpy(windows.features), songs_N=torch.from_numpy(windows.songs))


if __name__ == "__main__":
    main()
