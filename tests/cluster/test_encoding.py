"""Encoders fail one by one: out of memory, by a song, or for good, and the rest of a night goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
import torch

from mer_ray.cluster.encoding import EncodeSongs, is_broken, is_out_of_memory
from mer_ray.cluster.watch import ALONE, TOGETHER
from tests.cluster.test_stages import ENCODING, decoded


def encoder(spoil: Callable[[torch.Tensor], None]) -> EncodeSongs:
    """A stage whose encoder does this first with each batch."""
    stage = EncodeSongs(ENCODING)
    encode = stage._encoder.encode

    def spoilt(windows: torch.Tensor) -> torch.Tensor:
        spoil(windows)
        return encode(windows)

    stage._encoder.encode = spoilt
    return stage


def test_out_of_memory_halves_the_batch_and_the_encoder_remembers_it() -> None:
    sizes: list[int] = []

    def little_memory(windows: torch.Tensor) -> None:
        sizes.append(len(windows))
        if len(windows) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    stage = encoder(little_memory)
    found = stage(decoded(3, 0, 5))
    assert found["status"].to_pylist() == ["ok", "failed", "ok"]
    assert [len(song) for song in found["features"].to_pylist()] == [3, 0, 5]
    assert sizes[:3] == [4, 2, 1]
    del sizes[:]
    stage(decoded(2))
    assert sizes == [1, 1]


def test_a_song_that_the_encoder_raises_on_is_a_failed_row_and_its_neighbours_are_encoded() -> None:
    songs = decoded(1, 2, 1)

    def dislike(windows: torch.Tensor) -> None:
        if len(windows) > 1:  # all three together, and the second song alone
            raise ValueError("no such\nspectrum")

    found = encoder(dislike)(songs)
    assert found["status"].to_pylist() == ["ok", "failed", "ok"]
    assert found["error_class"].to_pylist() == [None, "encoder_error", None]
    assert found["error"][1].as_py() == "Encoder tiny: ValueError: no such spectrum."
    assert [len(song) for song in found["features"].to_pylist()] == [1, 0, 1]


def test_an_encoder_that_breaks_its_promise_ends_the_run_with_its_sentence() -> None:
    stage = EncodeSongs(ENCODING)
    stage._encoder.encode = lambda windows: torch.zeros(len(windows), 3)
    found = stage(decoded(2, 1))
    assert "returns features [3, 3] where [3, 192] were promised" in found["trouble"][0].as_py()


def test_a_song_that_killed_its_encoders_alone_is_a_failed_row_without_being_tried_again() -> None:
    stage = encoder(lambda windows: os.kill(os.getpid(), signal.SIGKILL))
    found = stage._whole(decoded(2), {"song0": [TOGETHER, ALONE]})
    assert found["error_class"].to_pylist() == ["encoder_crashed"]
    assert "4 encoders died with it in hand, 2 of them with no other;" in found["error"][0].as_py()


@pytest.mark.parametrize(
    ("error", "memory", "broken"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True, False),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate"), True, False),
        (MemoryError(), True, False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False, True),
        (RuntimeError("shapes cannot be multiplied"), False, False),
    ],
)
def test_errors_of_memory_and_of_a_lost_gpu_are_told_apart(error: Exception, memory: bool, broken: bool) -> None:
    assert (is_out_of_memory(error), is_broken(error)) == (memory, broken)
