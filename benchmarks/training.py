"""Training: its feed against a Python loop over windows; two threads or workers against one; a Jamendo-sized store.

python -m benchmarks.training [--windows 210000] [--steps 20]

Features are drawn at random, [windows, 3072] float16, with MTG-Jamendo's 56 words, two a song. The loop is a
``torch.utils.data.Dataset`` that draws a window's negatives in Python and a collate function that stacks them, as
the published code does; both train the same projector with the same settings. Everything on one thread a worker,
but for the line that compares two threads with one.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import Line, as_table, take_turns
from benchmarks.stores import write_store
from mer_ray.catalog.datasets import vocabularies
from mer_ray.commandline import parse
from mer_ray.learning.learner import Learner, ValidationSet
from mer_ray.learning.losses.triplet import triplet_loss
from mer_ray.learning.projector import Projector, ProjectorShape
from mer_ray.learning.sampling import TrainingSet, draw_label, epoch_batches, negative_targets
from mer_ray.learning.settings import TrainSettings

COMMAND = "python -m benchmarks.training"
DIM, EMBEDDING, LR = 3072, 384, 2e-4
BATCH, LARGE_BATCH = 256, 2048
CURVE_EPOCHS, CURVE_WINDOWS, CURVE_DIM = 8, 2048, 128
NOTHING_MORE = ["--train=x", "--features=x", "--model=x", "--lambda=0"]


def main() -> None:
    """Print the lines as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=210_000, help="of the store (210000)")
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed (20)")
    parser.add_argument("--batch", type=int, default=BATCH, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        torch.set_num_threads(asked.threads)
        return _worker(int(asked.worker[0]), int(asked.worker[1]), asked.worker[2], asked.batch, asked.steps)
    print(as_table(measure(asked.windows, asked.steps)))
    return None


def measure(windows: int = 210_000, steps: int = 20) -> list[Line]:
    """All lines of this benchmark."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="mer-ray-training-") as folder:
        pairs = [
            _pair("on two threads, on one", (1, 1), (1, 2), BATCH, steps, Path(folder)),
            _pair("on two workers that exchange nothing, on one", (1, 1), (2, 1), BATCH, steps, None),
            *(
                _pair("on two workers, on one", (1, 1), (2, 1), batch, steps, Path(folder))
                for batch in (BATCH, LARGE_BATCH)
            ),
        ]
        return [*_feed(steps), _curves(), *pairs, *_start(windows, Path(folder))]


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


class WindowLoop(Dataset[dict[str, Tensor]]):
    """The baseline: a window at a time, its wrong words drawn in Python."""

    def __init__(self, one: TrainingSet, negatives: int) -> None:
        self._one, self._negatives = one, negatives
        self._labels = [set(row.nonzero()[:, 0].tolist()) for row in one.truth_SL]

    def __len__(self) -> int:
        return len(self._one.features_ND)

    def __getitem__(self, at: int) -> dict[str, Tensor]:
        one = self._one
        labels = self._labels[int(one.songs_N[at])]
        wrong: list[int] = []
        while len(wrong) < self._negatives:
            drawn = random.randint(0, len(one.targets_LE) - 1)
            if drawn not in labels:
                wrong.append(drawn)
        return {
            "source": one.features_ND[at],
            "positive": one.targets_LE[list(labels)].mean(0),
            "negative": one.targets_LE[wrong].mean(0),
            "cluster": one.clusters_L[random.choice(list(labels))],
        }


def stacked(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The baseline's collate function."""
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


def fed(one: TrainingSet) -> Iterator[dict[str, Tensor]]:
    """What the learner feeds itself in an epoch, batch by batch."""
    for step, (picked,) in enumerate(epoch_batches([len(one)], BATCH, 0, 0)):
        generator = torch.Generator().manual_seed(step)
        songs = one.songs_N[picked]
        truth = one.truth_SL[songs]
        yield {
            "source": one.features_of(picked),
            "positive": one.positive_means.index_select(0, songs),
            "negative": negative_targets(truth, one.targets_LE, generator=generator)[0],
            "cluster": one.clusters_L[draw_label(truth, generator)],
        }


def _feed(steps: int) -> list[Line]:
    one = simulated_set(20_000, DIM)
    loader = DataLoader(WindowLoop(one, 1), BATCH, shuffle=True, collate_fn=stacked)

    def by_window() -> None:
        for _ in loader:
            pass

    def ours() -> None:
        for _ in fed(one):
            pass

    pair = take_turns(by_window, ours)
    learner = _learner(one, DIM)
    batches = list(epoch_batches([len(one)], BATCH, 0, 0))[: steps // 2]
    started = time.process_time()
    for step, picked in enumerate(batches):
        learner.step(picked, torch.Generator().manual_seed(step))
    step_s = (time.process_time() - started) / len(batches)
    rates = [f"{len(one) / spent:,.0f} windows/s" for spent in (pair.baseline_s, pair.ours_s)]
    loop_share, share = (spent * BATCH / len(one) / step_s for spent in (pair.baseline_s, pair.ours_s))
    return [
        Line("feed, a Python loop over windows", rates[0], rates[1], pair.ratio, "≥ 10", COMMAND),
        Line(
            "feed's share of a step on a CPU (less is better)",
            f"{loop_share:.1%}",
            f"{share:.1%}",
            share,
            "≤ 0.10",
            COMMAND,
        ),
    ]


def _learner(one: TrainingSet, dim: int, epochs: int = 1) -> Learner:
    settings = parse(TrainSettings, [*NOTHING_MORE, "--preset=paper", "--targets=labels", f"--epochs={epochs}"])
    torch.manual_seed(0)
    rows = slice(0, 256)
    truth = one.truth_SL[one.songs_N[rows]].numpy()
    validation = ValidationSet(one.features_ND[rows].numpy(), truth, one.targets_LE.numpy(), 2)
    return Learner(Projector(ProjectorShape(dim, EMBEDDING)), [one], [validation], settings)


def _curves() -> Line:
    """The loss of both loops, epoch by epoch, from the same weights: only the draws differ."""
    one = simulated_set(CURVE_WINDOWS, CURVE_DIM)
    learner = _learner(one, CURVE_DIM, CURVE_EPOCHS)
    ours = [learner.run_epoch()["align"] for _ in range(CURVE_EPOCHS)]
    theirs = _curve_by_window(one)
    apart = max(abs(one - two) for one, two in zip(ours, theirs, strict=True))
    shown = [" ".join(f"{loss:.3f}" for loss in curve) for curve in (theirs, ours)]
    return Line(
        "loss by epoch, a Python loop (ratio: largest difference)", shown[0], shown[1], apart, "≤ 0.05", COMMAND
    )


def _curve_by_window(one: TrainingSet) -> list[float]:
    random.seed(0)
    projector = _learner(one, CURVE_DIM).projector.train()
    optimizer = torch.optim.AdamW(projector.parameters(), lr=LR)
    loader = DataLoader(WindowLoop(one, 1), BATCH, shuffle=True, collate_fn=stacked)
    curve = []
    for _ in range(CURVE_EPOCHS):
        seen = []
        for batch in loader:
            optimizer.zero_grad(set_to_none=True)
            usable = torch.ones(len(batch["source"]), dtype=torch.bool)
            loss = triplet_loss(projector(batch["source"]), batch["positive"], batch["negative"], usable)
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
        curve.append(float(np.mean(seen)))
    return curve


def _pair(what: str, one: tuple[int, int], other: tuple[int, int], batch: int, steps: int, folder: Path | None) -> Line:
    """Steps with two numbers of workers and of threads each, in turn.

    Several workers add up 67 MB of gradients in each step, whatever its batch. Those without a ``folder`` to meet in
    do their shares and no more, which no exchange can beat.
    """
    times: list[tuple[float, float]] = []
    for turn in range(3):
        meetings = [None if folder is None else folder / f"meet-{what}-{batch}-{turn}-{at}" for at in range(2)]
        seconds = [
            _step_seconds(*pair, batch, steps, meeting) for pair, meeting in zip((one, other), meetings, strict=True)
        ]
        times.append((seconds[0], seconds[1]))
    rates = [f"{batch / median(column):,.0f} windows/s" for column in zip(*times, strict=True)]
    ratio = median(baseline / ours for baseline, ours in times)
    goal = "≥ 1.6" if folder else "the bound"
    return Line(f"training {what}, batches of {batch}", rates[0], rates[1], ratio, goal, COMMAND)


def _step_seconds(size: int, threads: int, batch: int, steps: int, meeting: Path | None) -> float:
    """The first worker's median."""
    if meeting is None:
        batch //= size
    command = [sys.executable, "-m", "benchmarks.training", "--steps", str(steps), "--batch", str(batch)]
    command += ["--threads", str(threads), "--worker"]
    places = [(0, 1) if meeting is None else (rank, size) for rank in range(size)]
    workers = [
        subprocess.Popen([*command, *map(str, (*place, meeting))], stdout=subprocess.PIPE, text=True, env=_alone())
        for place in places
    ]
    outputs = [worker.communicate()[0] for worker in workers]
    return float(outputs[0])


def _alone() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _worker(rank: int, size: int, meeting: str, batch: int, steps: int) -> None:
    """A worker of `_pair`: prints the median seconds of a step."""
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    one = simulated_set(batch * steps, DIM)
    learner = _learner(one, DIM)
    seconds = []
    for step, picked in enumerate(islice(epoch_batches([len(one)], batch, 0, 0), steps)):
        started = time.perf_counter()
        learner.step(picked, torch.Generator().manual_seed(step))
        seconds.append(time.perf_counter() - started)
    if rank == 0:
        print(median(seconds[2:]))
    if size > 1:
        dist.destroy_process_group()


_LOAD = """
import sys, time
import numpy as np
from mer_ray.features import Store, read_windows
started = time.perf_counter()
store = Store.open(sys.argv[1])
import pyarrow.parquet as pq
ids = [i for part in store.parts for i in pq.read_table(part, columns=["track_id"])["track_id"].to_pylist()]
windows = read_windows([store], ids)
import torch
from mer_ray.learning.sampling import TrainingSet
one = TrainingSet("x", torch.from_numpy(windows.features), torch.from_numpy(windows.songs), None, None, None)
from mer_ray.learning.corpus import Corpus
Corpus(sets=[one]).feature_scale()
seconds = time.perf_counter() - started
from benchmarks.memory import high_water_mib
print(seconds, high_water_mib() / 2**10, len(windows.features))
"""


def _start(windows: int, folder: Path) -> list[Line]:
    """Seconds and memory until the first step: reading a simulated store and measuring its features' scale."""
    store = folder / "features"
    write_store(store, windows // 20, 20, DIM)
    plain = _run(_PLAIN_READ, store)
    ours = _run(_LOAD, store)
    size = windows * DIM * 2 / 2**30
    return [
        Line(
            f"start of training on {windows:,} windows, pyarrow's read alone",
            f"{plain[0]:.0f} s",
            f"{ours[0]:.0f} s",
            plain[0] / ours[0],
            "< 60 s",
            COMMAND,
        ),
        Line(
            "memory of a worker, the features alone (less is better)",
            f"{size:.2f} GiB",
            f"{ours[1]:.2f} GiB",
            ours[1] / size,
            "< 4 GB",
            COMMAND,
        ),
    ]


_PLAIN_READ = """
import sys, time
import pyarrow.dataset as ds
started = time.perf_counter()
for batch in ds.dataset(sys.argv[1], exclude_invalid_files=True).to_batches(): pass
print(time.perf_counter() - started)
"""


def _run(script: str, store: Path) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", script, str(store)], capture_output=True, text=True, check=True, env=_alone()
    )
    return [float(word) for word in done.stdout.split()]


if __name__ == "__main__":
    main()
