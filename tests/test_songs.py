"""Parts are read several at a time, in their order, and what cannot be read is told apart from what fails."""

import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mer_ray import storage
from mer_ray.errors import InputError, StorageError
from mer_ray.songs import Damage, damaged, lengths, part_uris, prefetched, read_columns, read_parts, songs_at


def test_parts_come_in_their_order_several_at_a_time_and_never_more() -> None:
    waiting, most = threading.Barrier(3), threading.Semaphore(3)

    def read(part: str) -> str:
        assert most.acquire(blocking=False), "more than three at a time"
        waiting.wait(timeout=20)  # passes only where three are under way
        most.release()
        return part * 2

    parts = list("abcdef")
    assert list(read_parts(parts, read, ahead=3)) == [(part, part * 2) for part in parts]


def test_what_comes_next_is_made_while_the_last_is_used_and_no_more_than_that() -> None:
    made: list[int] = []

    def make(item: int) -> int:
        made.append(item)
        return 10 * item

    taken = prefetched(make, range(6), 2)
    for at, result in enumerate(taken):
        assert result == 10 * at
        time.sleep(0.05)
        assert sorted(made) == [*range(min(at + 2, 6))]
    assert list(prefetched(make, [], 2)) == []


def test_a_torn_part_and_one_that_is_gone_are_told_apart_and_the_others_are_read(tmp_path: Path) -> None:
    for name in ("part-a", "part-c"):
        pq.write_table(pa.table({"track_id": [name]}), tmp_path / f"{name}.parquet")
    (tmp_path / "part-b.parquet").write_bytes(b"PAR1 and no more")
    parts = [*part_uris(str(tmp_path)), str(tmp_path / "part-d.parquet")]
    found = [table for _, table in read_parts(parts, lambda part: storage.read_table(part)["track_id"].to_pylist())]
    assert found == [["part-a"], Damage.TORN, ["part-c"], Damage.GONE]
    with pytest.raises(InputError, match=r"part-b\.parquet: not a readable Parquet file; run extract again"):
        list(read_columns(parts, ["track_id"]))


@pytest.mark.parametrize(
    ("error", "torn"),
    [
        (pa.ArrowInvalid("no footer"), True),
        (OSError("corrupt page"), True),
        (pa.ArrowMemoryError("no room"), False),
        (OSError(5, "the disk fails"), False),
        (StorageError("no answer"), False),
    ],
)
def test_only_what_a_file_is_to_blame_for_counts_as_damage(error: Exception, torn: bool) -> None:
    assert damaged(error) == torn

    def fail(_: str) -> None:
        raise error

    if torn:
        assert list(read_parts(["part"], fail)) == [("part", Damage.TORN)]
    else:
        with pytest.raises(type(error)):
            list(read_parts(["part"], fail))


def test_a_row_without_a_list_has_length_zero_and_ids_come_once() -> None:
    assert lengths(pa.array([[1, 2], [], None])).to_pylist() == [2, 0, 0]
    rows = pa.table({"track_id": ["a", "b", "c"]})
    assert songs_at(rows, pa.array([2, 0, 2]).to_numpy()).to_pylist() == ["a", "c"]
