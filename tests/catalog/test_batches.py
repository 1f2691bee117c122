"""What a stream of a catalogue gives is what the whole gives, in batches; and the catalog job writes it as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.listing import Bucket, listed
from jobs import catalog
from mer_ray import storage
from mer_ray.catalog import listing as listings
from mer_ray.catalog.listing import Listing, list_songs, listed_batches
from mer_ray.catalog.manifest import whole
from mer_ray.catalog.settings import CatalogSettings
from mer_ray.catalog.sources import build_manifest, load_catalog, manifest_batches
from mer_ray.commandline import ALL_DONE
from mer_ray.errors import InputError
from tests.support.s3 import S3Server


def folder(root: Path) -> str:
    for n in range(23):
        (root / str(n % 3)).mkdir(exist_ok=True)
        (root / str(n % 3) / f"{n}.mp3").write_bytes(b"x" * n)
        (root / f"{n}.jpg").touch()
    return str(root)


def text(root: Path) -> str:
    rows = [f'{n},"/m/{n}.mp3","a, ""{n}"" | b",{"train" if n % 2 else ""},{n / 7}' for n in range(23)]
    (root / "songs.csv").write_text("\ufefftrack_id,uri,labels,split,rating:calm\n\n" + "\n".join(rows) + "\n")
    return str(root / "songs.csv")


def parquet(root: Path) -> str:
    rows = {"uri": [f"{n}.mp3" for n in range(23)], "other": range(23), "size_bytes": range(23), "labels": [["a"]] * 23}
    pq.write_table(pa.table(rows), root / "songs.parquet", row_group_size=4)
    return str(root / "songs.parquet")


@pytest.mark.parametrize("make", [folder, text, parquet])
@pytest.mark.parametrize("rows", [1, 5, 23, 100])
def test_a_stream_gives_what_the_whole_gives(tmp_path: Path, make: Callable[[Path], str], rows: int) -> None:
    source = make(tmp_path)
    batches, whole = list(manifest_batches(source, rows=rows)), load_catalog(source)
    assert pa.concat_tables(batches).equals(whole)
    assert max(map(len, batches)) <= rows
    assert len(whole) == 23


def test_a_row_is_named_by_its_number_in_the_whole_table(tmp_path: Path) -> None:
    (tmp_path / "songs.csv").write_text("uri,title\n" + "a.mp3,x\n" * 7 + ",y\n")
    with pytest.raises(InputError, match="row 8: no uri"):
        list(manifest_batches(str(tmp_path / "songs.csv"), rows=1))
    (tmp_path / "songs.csv").write_text("uri,title\n" + "".join(f"{n}.mp3,x\n" for n in range(7)) + "b.mp3\n")
    with pytest.raises(InputError, match="row 8: 1 cells under 2 columns"):
        list(manifest_batches(str(tmp_path / "songs.csv"), rows=2))
    (tmp_path / "songs.csv").write_text("uri\n" + "x" * 200_000 + "\n")
    with pytest.raises(InputError, match=r"not a table \(field larger"):
        list(manifest_batches(str(tmp_path / "songs.csv")))


def test_an_id_in_two_batches_is_refused_by_the_whole(tmp_path: Path) -> None:
    (tmp_path / "songs.csv").write_text("track_id,uri\na,1\nb,2\na,3\n")
    batches = list(manifest_batches(str(tmp_path / "songs.csv"), rows=2))
    assert [len(batch) for batch in batches] == [2, 1]
    with pytest.raises(InputError, match="track_id 'a' stands more than once"):
        whole(batches, "here")


def test_a_listing_holds_no_more_than_it_was_asked_for(tmp_path: Path) -> None:
    for name in ("a/1.mp3", "b/2.mp3", "c/3.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="more than 1 songs, too many for one file; give --output a folder's name"):
        build_manifest(str(tmp_path), listing=Listing(most=1))


def test_a_listing_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(listings, "EVERY_SECONDS", 0.01)
    keys, said, deadline = [f"m/{n // 100}/{n:04d}.mp3" for n in range(500)], "", time.monotonic() + 60
    with listed(Bucket(keys.__getitem__, 500)), Listing() as listing:
        for batch in listed_batches("s3://bucket/m", 100, listing):
            listing.add(len(batch), "s3://bucket/m")
        while "500 songs" not in said and time.monotonic() < deadline:
            said += capsys.readouterr().err
    assert "catalog: 500 songs listed, in s3://bucket/m/4/\n" in said


def test_songs_of_a_stand_in_bucket_are_counted_beside_what_is_none() -> None:
    keys = sorted([*(f"m/{n:04d}.mp3" for n in range(50)), "m/cover.jpg", "m/_run/x.mp3", "m/.x/y.mp3"])
    listing = Listing()
    with listed(Bucket(keys.__getitem__, len(keys))):
        assert sum(map(len, list_songs("s3://bucket/m", listing))) == 50
    assert listing.others == {".jpg": 1}


def run(source: str, output: str, **more: object) -> int:
    return catalog.main(CatalogSettings(source=source, output=output, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [folder, text, parquet])
def test_the_job_writes_the_same_songs_to_a_file_and_to_a_folder(
    make: Callable[[Path], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source").mkdir()
    source, said = make(tmp_path / "source"), []
    for output in ("songs.parquet", "songs"):
        assert run(source, str(tmp_path / output)) == ALL_DONE
        said.append(capsys.readouterr().out.replace(str(tmp_path / output), "there"))
    assert load_catalog(str(tmp_path / "songs")).equals(load_catalog(str(tmp_path / "songs.parquet")))
    assert said[0] == said[1]
    assert "catalog: 23 songs" in said[0]
    assert ("passed over 23 files that are no songs by their names (23 .jpg)" in said[0]) == (make is folder)


def test_twins_are_named_up_to_a_number_of_songs_and_beyond_it_a_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m").mkdir()
    for name, audio in {"a": b"one", "b": b"two", "c": b"one"}.items():
        (tmp_path / "m" / f"{name}.mp3").write_bytes(audio)
    for output in ("songs.parquet", "songs"):
        run(str(tmp_path / "m"), str(tmp_path / output))
        assert "catalog:   a.mp3 = c.mp3\n" in capsys.readouterr().out
    monkeypatch.setattr(catalog, "TWINS_UP_TO", 2)
    run(str(tmp_path / "m"), str(tmp_path / "songs"))
    assert "byte for byte are not looked for among more than 2\n" in capsys.readouterr().out
    monkeypatch.setattr(catalog, "ONE_FILE_UP_TO", 2)
    with pytest.raises(InputError, match="more than 2 songs, too many for one file"):
        run(str(tmp_path / "m"), str(tmp_path / "songs.parquet"))


def test_a_dataset_may_become_a_folder_too(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    header = "track id, genre, amazement, solemnity, tenderness, nostalgia, calmness, power, joyful_activation, tension"
    (tmp_path / "data" / "data.csv").write_text(f"{header}, sadness\n1,classical,3,2,1,0,0,0,0,0,0\n")
    run(str(tmp_path / "data"), str(tmp_path / "songs"), dataset="emotify")
    assert load_catalog(str(tmp_path / "songs"))["labels"].to_pylist() == [["amazement", "solemnity", "tenderness"]]


def test_a_bucket_becomes_a_folder_in_a_bucket(s3: S3Server) -> None:
    music, output = f"s3://{s3.bucket}/streamed", f"s3://{s3.bucket}/manifests/streamed"
    for n in range(5):
        storage.write_bytes(f"{music}/{n % 2}/{n}.mp3", bytes(n + 1))
    for _ in range(2):
        assert run(music, output) == ALL_DONE
    assert load_catalog(output).equals(load_catalog(music))
    assert load_catalog(output)["track_id"].to_pylist() == ["0/0.mp3", "0/2.mp3", "0/4.mp3", "1/1.mp3", "1/3.mp3"]
