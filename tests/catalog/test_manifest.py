"""A manifest comes back as it was written, or is refused with the reason."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mer_ray import storage
from mer_ray.catalog.manifest import MANIFEST_SCHEMA, READINGS, make_manifest, read_manifest
from mer_ray.errors import InputError
from mer_ray.songs import stored_json


def test_a_manifest_comes_back_as_it_was_written_with_its_readings(tmp_path: Path) -> None:
    table = make_manifest({"track_id": ["a"], "uri": ["/a.mp3"]}, "here", {"split": "seeded:5"})
    uri = str(tmp_path / "out" / "manifest.parquet")
    storage.write_table(uri, table)
    assert read_manifest(uri).equals(table, check_metadata=True)
    assert stored_json(table.schema, READINGS) == {"split": "seeded:5"}
    assert table.schema.metadata.keys() == {b"mer_ray.catalog"}


def test_a_manifest_of_two_columns_gets_the_others_as_nulls(tmp_path: Path) -> None:
    columns = {"uri": ["deam/2.mp3"], "track_id": pa.array(["deam/2"], pa.large_string()), "extra": [1]}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    table = read_manifest(str(tmp_path / "m.parquet"))
    assert table.schema.equals(MANIFEST_SCHEMA)
    assert table["uri"].to_pylist() == ["deam/2.mp3"]
    assert table["labels"].null_count == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"track_id": ["a"]}, "no column 'uri'"),
        ({"uri": ["a"]}, "no column 'track_id'"),
        ({"track_id": ["a", "a"], "uri": ["x", "y"]}, "track_id 'a' stands more than once"),
        ({"track_id": ["a", None], "uri": ["x", "y"]}, "a row has no track_id"),
        ({"track_id": ["a"], "uri": ["x"], "split": ["dev"]}, "split 'dev' is none of"),
        ({"track_id": ["a"], "uri": ["x"], "labels": [[[1]]]}, "column labels is malformed"),
        ({"track_id": pa.array([], pa.string()), "uri": pa.array([], pa.string())}, "no songs found"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused_with_the_reason(
    tmp_path: Path, columns: dict[str, object], message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    with pytest.raises(InputError, match=message):
        read_manifest(str(tmp_path / "m.parquet"))
