"""What of a store a run has to read."""

import pyarrow as pa

from mer_ray.cluster.tag import WORK, by_part

ROWS = pa.table({"track_id": list("abcdef"), "part": ["p", "p", "q", "q", "r", "r"]})


def test_only_parts_with_wanted_songs_are_read_and_ids_go_along_where_not_all_are_wanted() -> None:
    work = by_part(ROWS, pa.array(list("fabzc")))
    assert work.schema == WORK
    assert sorted(work.to_pylist(), key=lambda row: row["part"]) == [
        {"part": "p", "wanted": None},
        {"part": "q", "wanted": ["c"]},
        {"part": "r", "wanted": ["f"]},
    ]


def test_where_nothing_is_wanted_nothing_is_read() -> None:
    assert len(by_part(ROWS, pa.array([], pa.string()))) == 0
