"""Sampling: what an epoch holds, on any number of workers, and what its order depends on."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mer_ray.learning.sampling import Workers, epoch_batches, stream_seed

Batches = list[list[NDArray[np.int64]]]


def batches(sizes: list[int], batch_size: int = 16, seed: int = 5, epoch: int = 0) -> Batches:
    return list(epoch_batches(sizes, batch_size, seed, epoch))


def order(of: Batches, at: int = 0) -> list[int]:
    return [int(index) for step in of for index in step[at]]


def worker(rank: int, size: int) -> Workers:
    one = Workers()
    one.rank, one.size = rank, size
    return one


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("sizes", "batch_size"), [([100, 23], 16), ([23, 100], 16), ([96, 5], 8), ([41], 40), ([3], 9)]
)
def test_an_epoch_visits_every_window_of_the_larger_set_once_whatever_the_worker_count(
    sizes: list[int], batch_size: int, workers: int
) -> None:
    larger = sizes.index(max(sizes))
    seen: list[int] = []
    for step in batches(sizes, batch_size):
        for rank in range(workers):
            seen += worker(rank, workers).shares(step[larger])[rank].tolist()
    assert sorted(seen) == list(range(max(sizes)))


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_the_workers_shares_are_the_batch_in_its_order_and_differ_by_one_row_at_most(workers: int) -> None:
    for step in batches([100, 23], 17):
        for batch in step:
            shares = [worker(rank, workers).shares(batch)[rank] for rank in range(workers)]
            assert np.concatenate(shares).tolist() == batch.tolist()
            lengths = [len(share) for share in shares]
            assert max(lengths) - min(lengths) <= 1


def test_two_sets_of_one_size_are_both_visited_once_in_orders_of_their_own() -> None:
    epoch = batches([50, 50])
    assert sorted(order(epoch, 0)) == sorted(order(epoch, 1)) == list(range(50))
    assert order(epoch, 0) != order(epoch, 1)


@pytest.mark.parametrize("smaller", [1, 7, 23, 99])
def test_the_smaller_set_fills_every_batch_and_begins_again_only_when_all_of_it_was_seen(smaller: int) -> None:
    epoch = batches([100, smaller])
    assert [len(step[1]) for step in epoch] == [16] * 7
    stream = order(epoch, 1)
    for start in range(0, len(stream), smaller):
        one_pass = stream[start : start + smaller]
        assert len(set(one_pass)) == len(one_pass)
        assert set(one_pass) <= set(range(smaller))
    assert len(set(stream)) == min(smaller, len(stream))


def test_each_pass_over_the_smaller_set_is_shuffled_anew() -> None:
    stream = order(batches([100, 20]), 1)
    assert stream[:20] != stream[20:40] != stream[40:60]


@pytest.mark.parametrize(("size", "batch_size", "steps"), [(100, 16, 7), (96, 16, 6), (1, 16, 1), (17, 16, 2)])
def test_an_epoch_has_the_steps_it_takes_to_see_the_larger_set(size: int, batch_size: int, steps: int) -> None:
    assert len(batches([1, size], batch_size)) == steps


def test_windows_come_shuffled_and_in_full_batches_until_the_last() -> None:
    epoch = batches([100])
    assert [len(step[0]) for step in epoch] == [16] * 6 + [4]
    assert order(epoch) != list(range(100))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first = batches([100, 23], epoch=3)
    np.random.seed(1)
    torch.manual_seed(1)
    again = batches([100, 23], epoch=3)
    for at in (0, 1):
        assert order(first, at) == order(again, at)
        for other in (batches([100, 23], epoch=4), batches([100, 23], seed=6, epoch=3)):
            assert order(first, at) != order(other, at)
    assert order(batches([100, 23], batch_size=7, epoch=3)) == order(first), "the batch size cuts the order, no more"


def test_streams_of_other_parts_have_other_seeds_that_torch_accepts() -> None:
    parts = [(seed, stream, epoch, step) for seed in (0, 1) for stream in (0, 1) for epoch in (0, 1) for step in (0, 9)]
    seeds = [stream_seed(*part) for part in parts]
    assert len(set(seeds)) == len(parts)
    assert seeds == [stream_seed(*part) for part in parts]
    for seed in seeds:
        torch.Generator().manual_seed(seed)
        assert 0 <= seed < 2**63
