"""How far the shards of a run are, by what its receipts say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from mer_ray.cluster import work as work_module
from mer_ray.cluster.work import Opened, Work, source_rows, told_by, work_of
from mer_ray.errors import InputError
from mer_ray.runs.receipts import Receipt

NONE = pa.array([], pa.string())


class Counted(Work):
    """Work whose shards are finished elsewhere; which, it notes."""

    def __init__(self, estimates: dict[int, int]) -> None:
        output: Any = SimpleNamespace(shards=[None] * 3, sizes=[0, 0, 0], keys=["", "", ""])
        super().__init__(output, estimates)
        self.finished: list[int] = []

    def _finish(self, numbers: list[int]) -> None:
        self.finished += numbers


def opened(shard: int, songs: int) -> Receipt:
    return Receipt(shard=shard, opened=songs, asked=10)


def test_songs_are_at_most_what_is_thought_until_all_shards_were_opened() -> None:
    work = Counted({0: 10, 2: 10})
    assert (work.said, work.left) == ("at most 20", [0, 2])
    work.add(opened(0, 4))
    assert work.said == "at most 14"
    work.add(opened(2, 7))
    work.add(Receipt(shard=2, songs=5))
    assert (work.said, work.found) == ("6", 11)
    assert work.output.sizes == [10, 0, 10]


def test_a_shard_is_finished_once_when_all_of_it_is_committed_and_nothing_is_held_back() -> None:
    work = Counted({0: 10, 1: 10, 2: 10})
    for receipt in (Receipt(shard=1, songs=3), opened(1, 3), opened(0, 2), Receipt(shard=0, songs=1)):
        work.add(receipt)
    in_shard_1 = pa.array([next(str(n) for n in range(99) if work_module.numbers_of(pa.array([str(n)]), 3)[0] == 1)])
    work.finish_ready(in_shard_1)
    assert work.finished == [], "its last song stands in no part yet"
    work.finish_ready(NONE)
    work.finish_ready(NONE)
    assert work.finished == [1], "told of songs before it was told of how many"
    work.add(Receipt(shard=0, songs=1))
    work.finish_ready(NONE)
    work.add(opened(0, 2))
    work.finish_ready(NONE)
    assert work.finished == [1, 0], "also where it is told again what is to do, or songs come twice"


def test_a_later_pass_finds_out_anew_what_is_left() -> None:
    work = Counted({0: 10, 1: 10})
    for receipt in (opened(0, 6), Receipt(shard=0, songs=4)):
        work.add(receipt)
    work.anew()
    assert work.said == "at most 12"
    assert work.found == 4, "what was done by now"
    work.add(opened(0, 1))
    work.add(opened(1, 10))
    assert (work.songs, work.found) == (11, 15)


def test_shards_are_opened_until_one_has_something_to_do() -> None:
    work, songs = Counted({0: 5, 1: 5, 2: 5}), pa.table({"track_id": ["a", "b"]})
    found = {0: Opened(songs.slice(0, 0), 0), 1: Opened(songs, 2)}
    assert work.begin(lambda shard, number: found[shard]) is songs
    assert work.said == "at most 7"


def test_a_source_tells_of_each_shard_and_then_gives_its_work_in_pieces() -> None:
    songs = pa.table({"track_id": list("abcde"), "uri": list("vwxyz")})

    def opener(shard: int, number: int) -> Opened:
        if shard == 7:
            raise InputError("no such folder")
        return Opened(songs, 5)

    rows = [*source_rows(pa.table({"shard": [3, 7]}), opener, 0, 2)]
    assert (told_by(rows[0]).shard, told_by(rows[0]).opened) == (3, 5)
    assert pa.concat_tables(map(work_of, rows[1:4])).equals(songs)
    assert [len(work_of(row)) for row in rows[1:4]] == [2, 2, 1]
    assert told_by(rows[4]).trouble == "no such folder"


def test_what_keeps_a_shard_from_being_finished_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def account(self, key: str) -> None:
            raise work_module.StorageError("the disk is full")

    assert work_module._account(Full(), "", 0) == ("", "the disk is full")  # type: ignore[arg-type]
