"""Folders, tables and datasets become manifests."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mer_ray import storage
from mer_ray.catalog.listing import Listing
from mer_ray.catalog.manifest import MANIFEST_SCHEMA, NAMES, read_manifest
from mer_ray.catalog.sources import build_manifest, load_catalog, same_audio, scan_folder
from mer_ray.errors import InputError
from tests.support.s3 import S3Server


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * len(name))
    return root


def write_emotify(folder: Path) -> Path:
    header = "track id, genre, amazement, solemnity, tenderness, nostalgia, calmness, power,"
    rows = [f"{track},{genre},3,2,1,0,0,0,0,0,0" for track, genre in ((1, "classical"), (102, "rock"))]
    folder.mkdir(parents=True, exist_ok=True)
    columns = header + " joyful_activation, tension, sadness"
    (folder / "data.csv").write_text("\n".join([columns, *rows]) + "\n")
    return folder


def write_jamendo(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, split in ((948, "train"), (949, "validation"), (950, "test")):
        path = f"{number % 100}/{number}.mp3"
        row = f"track_0000{number}\ta\tb\t{path}\t200.0\tmood/theme---calm\n"
        (folder / f"autotagging_moodtheme-{split}.tsv").write_text("TRACK_ID\tARTIST_ID\n" + row)
    return folder


def column(table: pa.Table, name: str) -> list[object]:
    values: list[object] = table[name].to_pylist()
    return values


def test_every_audio_file_below_a_folder_is_a_song_named_by_its_path(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.FLAC", "a.mp3", "a.flac", "b/c/3.m4a", "cover.jpg", "b/notes.txt")
    table = scan_folder(f"{tmp_path}/")
    assert table.schema.equals(MANIFEST_SCHEMA)
    assert column(table, "track_id") == ["a.flac", "a.mp3", "b/2.FLAC", "b/c/3.m4a"]
    assert column(table, "uri") == [f"{tmp_path}/{name}" for name in column(table, "track_id")]
    assert column(table, "size_bytes") == [6, 5, 8, 9]
    assert table["split"].null_count == table["labels"].null_count == 4


def test_hidden_files_and_the_notes_of_a_run_are_no_songs(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp3", "._a.mp3", ".cache/b.mp3", "_run/c.mp3", "out/_run/d.mp3")
    assert column(scan_folder(str(tmp_path)), "track_id") == ["a.mp3"]


def test_linked_folders_are_followed_once_even_in_a_circle(tmp_path: Path) -> None:
    touch(tmp_path, "music/a.mp3", "elsewhere/b.mp3")
    (tmp_path / "music" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "music")
    assert column(scan_folder(str(tmp_path / "music")), "track_id") == ["a.mp3", "more/b.mp3"]


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    touch(tmp_path / "music", *(f"{n}.mp3" for n in range(20)))
    for name in ("one.parquet", "two.parquet"):
        storage.write_table(str(tmp_path / name), build_manifest(str(tmp_path / "music")))
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_a_folder_without_songs_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "cover.jpg")
    with pytest.raises(InputError, match="no songs found"):
        build_manifest(str(tmp_path))
    with pytest.raises(InputError, match="nowhere: not found"):
        build_manifest(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"cover\.jpg: cannot be read \(neither a folder nor a CSV"):
        build_manifest(str(tmp_path / "cover.jpg"))


def test_a_file_name_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    try:
        (tmp_path / "caf\udce9.mp3").write_bytes(b"x")
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(InputError, match=r"caf\\udce9\.mp3' is not UTF-8"):
        scan_folder(str(tmp_path))


def test_a_table_may_say_everything_about_its_songs(tmp_path: Path) -> None:
    text = "\ufefftrack_id, uri,split,labels,dataset,artist\nx,s3://m/a.mp3,train,happy;sad,mine,Air\ny,b.mp3,,,,\n"
    (tmp_path / "songs.csv").write_text(text, encoding="utf-8")
    assert load_catalog(str(tmp_path / "songs.csv")).to_pylist() == [
        {
            "track_id": "x",
            "uri": "s3://m/a.mp3",
            "dataset": "mine",
            "split": "train",
            "labels": ["happy", "sad"],
            "ratings": None,
            "size_bytes": None,
            "etag": None,
            **dict.fromkeys(NAMES),
            "artist": "Air",
        },
        {
            "track_id": "y",
            "uri": f"{tmp_path}/b.mp3",
            "dataset": None,
            "split": None,
            "labels": None,
            "ratings": None,
            "size_bytes": None,
            "etag": None,
            **dict.fromkeys(NAMES),
        },
    ]


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("happy", ["happy"]),
        ("happy, sad", ["happy", "sad"]),
        ("calming, soothing; happy", ["calming, soothing", "happy"]),
        ("light; playful|sad, blue", ["light; playful", "sad, blue"]),
        ("calming, soothing|", ["calming, soothing"]),
    ],
)
def test_labels_in_text_are_separated_by_bar_else_semicolon_else_comma(
    tmp_path: Path, cell: str, labels: list[str]
) -> None:
    (tmp_path / "songs.tsv").write_text(f"uri\tlabels\na.mp3\t{cell}\n")
    assert column(load_catalog(str(tmp_path / "songs.tsv")), "labels") == [labels]


def test_a_parquet_table_keeps_its_lists_and_sizes(tmp_path: Path) -> None:
    rows = {"uri": ["a.mp3"], "labels": [["calming, soothing"]], "size_bytes": [7], "track_id": [12]}
    pq.write_table(pa.table(rows), tmp_path / "songs.parquet")
    (row,) = load_catalog(str(tmp_path / "songs.parquet")).to_pylist()
    assert (row["track_id"], row["labels"], row["size_bytes"]) == ("12", ["calming, soothing"], 7)


def test_relative_uris_start_from_the_tables_folder_and_default_ids_are_below_it(tmp_path: Path) -> None:
    touch(tmp_path, "lists/songs.csv").joinpath("lists/songs.csv").write_text(
        "uri\n./rock/a.mp3\n../b.mp3\ns3://music/c.mp3\n"
    )
    table = load_catalog(str(tmp_path / "lists" / "songs.csv"))
    assert column(table, "uri") == [f"{tmp_path}/lists/rock/a.mp3", f"{tmp_path}/b.mp3", "s3://music/c.mp3"]
    assert column(table, "track_id") == ["rock/a.mp3", f"{tmp_path}/b.mp3".lstrip("/"), "music/c.mp3"]


def test_relative_uris_of_a_table_may_start_from_another_audio_root(tmp_path: Path) -> None:
    (tmp_path / "songs.csv").write_text("uri\n../a.mp3\n")
    table = build_manifest(str(tmp_path / "songs.csv"), audio="s3://music/deep")
    assert column(table, "uri") == ["s3://music/a.mp3"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,title\na.mp3,x\n", "no column 'uri' among path, title"),
        ("", "no column 'uri' among none"),
        ("uri\n", "no songs found"),
        ("uri,track_id\na.mp3,x\nb.mp3,y\nc.mp3,y\n", "track_id 'y' stands more than once"),
        ("uri\na.mp3\na.mp3\n", "track_id 'a.mp3' stands more than once"),
        ("uri,split\na.mp3,valid\n", "split 'valid' is none of train, validation, test"),
        ("uri,title\na.mp3,x\n,y\n", "row 2: no uri"),
        ("uri\nhttps://host/a.mp3\n", "row 1: https://host/a.mp3 is neither a path nor s3://"),
        ("uri,labels\na.mp3,happy,sad\n", "row 1: 3 cells under 2 columns"),
    ],
)
def test_a_table_that_cannot_be_a_catalogue_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "songs.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        build_manifest(str(tmp_path / "songs.csv"))


def test_a_missing_or_broken_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    for read in (load_catalog, read_manifest):
        with pytest.raises(InputError, match="not a Parquet file"):
            read(str(tmp_path / "broken.parquet"))
        with pytest.raises(InputError, match="not found"):
            read(str(tmp_path / "absent.parquet"))


def test_a_dataset_finds_its_audio_below_its_labels_and_counts_what_is_missing(tmp_path: Path) -> None:
    touch(write_emotify(tmp_path), "emotifymusic/rock/2.mp3")
    table = build_manifest(str(tmp_path), "emotify")
    assert table["size_bytes"].null_count == 1
    assert column(table, "uri") == [
        f"{tmp_path}/emotifymusic/classical/1.mp3",
        f"{tmp_path}/emotifymusic/rock/2.mp3",
    ]
    assert column(table, "size_bytes") == [None, len("emotifymusic/rock/2.mp3")]
    assert column(table, "labels")[0] == ["amazement", "solemnity", "tenderness"]
    assert column(table, "dataset") == ["emotify", "emotify"]


@pytest.mark.parametrize("present", [["rock/2.mp3"], []])
def test_the_audio_folder_may_be_the_one_that_holds_the_genres(tmp_path: Path, present: list[str]) -> None:
    write_emotify(tmp_path / "labels")
    audio = touch(tmp_path / "emotifymusic", *present)
    audio.mkdir(exist_ok=True)
    table = build_manifest(str(tmp_path / "labels" / "data.csv"), "emotify", str(audio))
    assert table["size_bytes"].null_count == 2 - len(present)
    assert column(table, "uri") == [f"{audio}/classical/1.mp3", f"{audio}/rock/2.mp3"]


def test_jamendo_takes_the_full_file_else_the_low_bitrate_one(tmp_path: Path) -> None:
    touch(write_jamendo(tmp_path), "48/948.low.mp3", "49/949.mp3", "49/949.low.mp3")
    table = build_manifest(str(tmp_path), "jamendo")
    assert table["size_bytes"].null_count == 1
    assert column(table, "uri") == [f"{tmp_path}/{name}" for name in ("48/948.low.mp3", "49/949.mp3", "50/950.mp3")]
    assert column(table, "split") == ["train", "validation", "test"]


def test_cal500_audio_may_have_any_extension_and_folder(tmp_path: Path) -> None:
    entries = {"0": {"path": "CAL500_32kps_wav/mr._bungle-x.wav", "mood/theme": ["sad"]}}
    (tmp_path / "CAL500_metadata.json").write_text(json.dumps(entries))
    touch(tmp_path, "audio/mr._bungle-x.ogg")
    table = build_manifest(str(tmp_path), "cal500")
    assert column(table, "uri") == [f"{tmp_path}/audio/mr._bungle-x.ogg"]
    assert table["size_bytes"].null_count == 0


def test_a_dataset_without_any_audio_still_gives_its_labels(tmp_path: Path) -> None:
    table = build_manifest(str(write_jamendo(tmp_path)), "jamendo")
    assert table["size_bytes"].null_count == 3
    assert column(table, "labels") == [["calm"]] * 3


def test_an_audio_folder_that_is_named_but_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: not found"):
        build_manifest(str(write_jamendo(tmp_path)), "jamendo", str(tmp_path / "absent"))


def test_audio_beside_a_plain_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave out --audio"):
        build_manifest(str(touch(tmp_path, "a.mp3")), audio=str(tmp_path))


def test_files_that_are_no_songs_are_counted_by_kind(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp3", "cover.jpg", "b/cover.JPG", "b/notes.txt", "README", ".hidden.txt", "_run/x.json")
    listing = Listing()
    build_manifest(str(tmp_path), listing=listing)
    assert listing.others == {".jpg": 2, ".txt": 1, "no extension": 1}


def test_the_same_audio_under_two_names_is_found_and_the_same_size_is_not_enough(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp3", "b/other name.mp3", "c.mp3", "d.mp3")
    (tmp_path / "c.mp3").write_bytes(b"other")
    (tmp_path / "d.mp3").write_bytes(b"x" * 5)
    assert same_audio(lambda: [scan_folder(str(tmp_path))]) == [["a.mp3", "d.mp3"]]


def test_the_same_audio_on_s3_is_found_by_what_the_listing_says(s3: S3Server) -> None:
    for name, audio in {"a": b"one", "b": b"two", "c/a": b"one", "empty": b"", "nothing": b""}.items():
        storage.write_bytes(f"s3://{s3.bucket}/twins/{name}.mp3", audio)
    assert same_audio(lambda: [scan_folder(f"s3://{s3.bucket}/twins")]) == [["a.mp3", "c/a.mp3"]]
