"""The label files of the datasets, in miniature, and what is read from them; datasets of others by their module."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mer_ray.catalog.annotations import Annotations
from mer_ray.catalog.datasets import DOOR, Song, cal500, draw_splits, emotify, jamendo, top_k, vocabularies
from mer_ray.catalog.manifest import READINGS
from mer_ray.catalog.settings import CatalogSettings
from mer_ray.catalog.sources import build_manifest
from mer_ray.commandline import parse
from mer_ray.errors import InputError
from mer_ray.settings import Part
from mer_ray.songs import stored_json
from tests.support import ROOT

Truth = Literal["paper", "reference", "published"]
TSV_HEADER = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\n"
CSV_HEADER = (
    "track id, genre, amazement, solemnity, tenderness, nostalgia, calmness, power,"
    " joyful_activation, tension, sadness, mood\n"
)


def write_jamendo(folder: Path, train: str) -> Path:
    folder.mkdir(exist_ok=True)
    row = "track_0000{n}\tartist_1\talbum_1\t0{d}/{n}.mp3\t200.0\tmood/theme---calm\n"
    bodies = {"train": train, "validation": row.format(n=501, d=1), "test": row.format(n=602, d=2)}
    for split, body in bodies.items():
        (folder / f"autotagging_moodtheme-{split}.tsv").write_text(TSV_HEADER + body)
    return folder


def write_annotation(folder: Path, name: str, ratings: dict[str, int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f'Emotion-{emotion} = "{rating}"\n' for emotion, rating in ratings.items()]
    (folder / f"{name}.txt").write_text('Genre-Rock = "1"\n' + "".join(lines) + 'Vocals-Gravelly = "0"\n')


def read_cal500(source: Path, truth: Truth = "paper") -> tuple[list[Song], str]:
    settings = cal500.Settings(cal500_truth=truth)
    return cal500.read(str(source), settings), cal500.readings(str(source), settings)["cal500_truth"]


def votes(track: int, genre: str, *counts: int) -> str:
    return f"{track},{genre}," + ",".join(map(str, counts)) + ",3\n"


def test_jamendo_songs_carry_their_number_their_official_split_and_every_mood_tag(tmp_path: Path) -> None:
    line = "track_0000948\ta\tb\t48/948.mp3\t212.7\tmood/theme---dark\tmood/theme---epic\tgenre---rock\n"
    songs = jamendo.read(str(write_jamendo(tmp_path, line)), Part())
    assert songs[0] == Song("jamendo/948", "48/948.mp3", ("dark", "epic"), "train")
    assert [(song.track_id, song.split) for song in songs[1:]] == [
        ("jamendo/501", "validation"),
        ("jamendo/602", "test"),
    ]


def test_a_jamendo_line_without_a_mood_is_refused_by_line_number(tmp_path: Path) -> None:
    folder = write_jamendo(tmp_path, "track_0000948\ta\tb\t48/948.mp3\t212.7\tgenre---rock\n")
    with pytest.raises(InputError, match=r"moodtheme-train\.tsv line 2"):
        jamendo.read(str(folder), Part())


def test_missing_label_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"autotagging_moodtheme-train\.tsv: not found"):
        build_manifest(str(tmp_path), "jamendo")
    with pytest.raises(InputError, match=r"data\.csv: not found"):
        build_manifest(str(tmp_path), "emotify")
    with pytest.raises(InputError, match=r"neither annotations/<song>_NN\.txt nor CAL500_metadata\.json"):
        build_manifest(str(tmp_path), "cal500")


def test_an_unknown_dataset_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such dataset.*give one of cal500, emotify, jamendo"):
        build_manifest(str(tmp_path), "gtzan")


@pytest.mark.parametrize(
    ("truth", "labels"),
    [
        ("paper", ("happy", "calming, soothing", "sad")),
        ("reference", ("happy", "calming, soothing", "sad", "tender, soft", "angry, aggressive")),
    ],
)
def test_cal500_truth_follows_the_rule_asked_for_over_the_mean_of_all_annotators(
    tmp_path: Path, truth: Truth, labels: tuple[str, ...]
) -> None:
    first = {"Happy": 5, "Calming_/_Soothing": 4, "Sad": 5, "Laid-back_/_Mellow": 5, "Tender_/_Soft": 3}
    second = {"Happy": 5, "Calming_/_Soothing": 4, "Sad": 2, "Laid-back_/_Mellow": 5, "Tender_/_Soft": 3}
    low = {"Angry_/_Agressive": 2, "Bizarre_/_Weird": 1}
    write_annotation(tmp_path / "annotations", "nina_simone-four_women_01", first | low)
    write_annotation(tmp_path / "annotations", "nina_simone-four_women_02", second | low)
    songs, used = read_cal500(tmp_path, truth)
    means = {"happy": 5.0, "calming, soothing": 4.0, "sad": 3.5, "tender, soft": 3.0}
    means |= {"angry, aggressive": 2.0, "bizarre, weird": 1.0}
    assert songs == [Song("cal500/nina_simone-four_women", "nina_simone-four_women.mp3", labels, ratings=means)]
    assert used == truth


@pytest.mark.parametrize("truth", ["paper", "reference"])
def test_a_cal500_song_that_nobody_rated_high_keeps_its_best_word(tmp_path: Path, truth: Truth) -> None:
    write_annotation(tmp_path, "air-all_i_need_01", {"Sad": 2, "Happy": 3, "Tender_/_Soft": 1})
    songs, _ = read_cal500(tmp_path, truth)
    assert songs[0].labels == ("happy",)


def test_an_emotion_that_cal500_does_not_have_is_refused(tmp_path: Path) -> None:
    write_annotation(tmp_path, "air-all_i_need_01", {"Hungry": 5})
    with pytest.raises(InputError, match="unknown emotion 'Hungry'"):
        read_cal500(tmp_path)


def test_the_published_cal500_list_is_taken_as_it_is(tmp_path: Path) -> None:
    words = ["calming, soothing", "happy"]
    entries = {"0": {"path": "CAL500_32kps_wav/mr._bungle-quote_unquote.wav", "mood/theme": words}}
    (tmp_path / "CAL500_metadata.json").write_text(json.dumps(entries))
    expected = [Song("cal500/mr._bungle-quote_unquote", "mr._bungle-quote_unquote.mp3", ("calming, soothing", "happy"))]
    assert read_cal500(tmp_path) == (expected, "published")
    assert read_cal500(tmp_path / "CAL500_metadata.json") == (expected, "published")


def test_raw_annotations_win_over_the_published_list_unless_it_is_asked_for(tmp_path: Path) -> None:
    write_annotation(tmp_path / "annotations", "a-b_01", {"Sad": 5})
    entries = {"0": {"path": "x/a-b.wav", "mood/theme": ["happy"]}}
    (tmp_path / "CAL500_metadata.json").write_text(json.dumps(entries))
    assert read_cal500(tmp_path)[0][0].labels == ("sad",)
    assert read_cal500(tmp_path, "published")[0][0].labels == ("happy",)


def test_a_json_of_another_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('["happy"]')
    with pytest.raises(InputError, match="not CAL500's published JSON"):
        read_cal500(tmp_path / "labels.json")


def test_emotify_takes_the_three_most_voted_words_and_breaks_ties_in_column_order(tmp_path: Path) -> None:
    body = votes(101, "rock", 0, 1, 0, 1, 0, 0, 0, 0, 1) + votes(101, "rock", 0, 0, 0, 1, 0, 0, 1, 0, 1)
    (tmp_path / "data.csv").write_text(CSV_HEADER + body)
    song = emotify.read(str(tmp_path), Part())[0]
    assert (song.track_id, song.path) == ("emotify/101", "emotifymusic/rock/1.mp3")
    assert song.labels == ("nostalgia", "sadness", "solemnity")


def test_soft_truth_is_the_share_of_listeners_who_chose_a_word_and_stands_in_the_manifest(tmp_path: Path) -> None:
    body = votes(101, "rock", 0, 1, 0, 1, 0, 0, 0, 0, 1) + votes(101, "rock", 0, 0, 0, 1, 0, 0, 1, 0, 1)
    (tmp_path / "data.csv").write_text(CSV_HEADER + body)
    table = build_manifest(str(tmp_path), "emotify")
    stored = {one["label"]: one["rating"] for one in table["ratings"][0].as_py()}
    assert stored == dict.fromkeys(emotify.VOCABULARIES["gems"], 0.0) | {
        "solemnity": 0.5,
        "nostalgia": 1.0,
        "joyful_activation": 0.5,
        "sadness": 1.0,
    }
    found = Annotations.from_manifest(table, "m", 0)
    assert found.ratings is not None
    assert dict(zip(found.vocabulary, found.ratings[0].tolist(), strict=True)) == {
        "nostalgia": 1.0,
        "sadness": 1.0,
        "solemnity": 0.5,
    }


def test_a_table_may_rate_labels_in_columns_and_leave_cells_empty(tmp_path: Path) -> None:
    (tmp_path / "songs.csv").write_text(
        "uri,labels,rating:calm,rating:sad\na.mp3,calm,4.5,\nb.mp3,sad,1,5\nc.mp3,calm,,\n"
    )
    found = Annotations.from_manifest(build_manifest(str(tmp_path / "songs.csv")), "m", 0)
    assert found.ratings is not None
    assert np.array_equal(found.ratings, [[4.5, np.nan], [1, 5], [np.nan, np.nan]], equal_nan=True)
    (tmp_path / "bad.csv").write_text("uri,rating:calm\na.mp3,much\n")
    with pytest.raises(InputError, match=r"bad.csv row 1: a rating is no number"):
        build_manifest(str(tmp_path / "bad.csv"))
    (tmp_path / "bad.csv").write_text("uri,rating:calm\na.mp3,inf\n")
    with pytest.raises(InputError, match="a rating is no finite number"):
        build_manifest(str(tmp_path / "bad.csv"))


def test_a_manifest_from_before_ratings_is_read(tmp_path: Path) -> None:
    row = {"track_id": "a", "uri": "a.mp3", "dataset": "d", "split": "train", "labels": ["calm"]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "m.parquet")
    assert Annotations.read(str(tmp_path / "m.parquet"), 0).ratings is None


@pytest.mark.parametrize(
    ("track", "genre", "path"),
    [(100, "classical", "classical/100"), (201, "electronic", "electronic/1"), (400, "pop", "pop/100")],
)
def test_emotify_files_are_numbered_within_their_genre(tmp_path: Path, track: int, genre: str, path: str) -> None:
    (tmp_path / "data.csv").write_text(CSV_HEADER + votes(track, genre, *[1] * 9))
    assert emotify.read(str(tmp_path), Part())[0].path == f"emotifymusic/{path}.mp3"


@pytest.mark.parametrize(("track", "genre"), [(100, "rock"), (101, "classical"), (7, "jazz")])
def test_an_emotify_track_of_another_genre_is_refused(tmp_path: Path, track: int, genre: str) -> None:
    (tmp_path / "data.csv").write_text(CSV_HEADER + votes(track, genre, *[1] * 9))
    with pytest.raises(InputError, match=f"track {track} cannot be '{genre}'"):
        emotify.read(str(tmp_path), Part())


def test_emotify_without_a_gems_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("track id, genre, amazement\n1,rock,1\n")
    with pytest.raises(InputError, match="no column 'solemnity'"):
        emotify.read(str(tmp_path), Part())


IDS = [f"song/{at}" for at in range(10_000)]


def test_songs_are_split_80_10_10() -> None:
    splits, _ = draw_splits(IDS, "seeded", 0)
    shares = {split: splits.count(split) / len(splits) for split in ("train", "validation", "test")}
    assert shares == pytest.approx({"train": 0.8, "validation": 0.1, "test": 0.1}, abs=0.01)


def test_a_seed_always_draws_the_same_split_and_another_seed_another() -> None:
    assert draw_splits(IDS[:400], "seeded", 0) != draw_splits(IDS[:400], "seeded", 1)
    # Written down, so that an upgrade cannot move songs between the splits of published results.
    assert "".join(split[1] for split in draw_splits(IDS[:20], "seeded", 0)[0]) == "arrrrarerrrrerrarree"


def test_the_ordered_split_is_the_first_80_10_10_percent() -> None:
    for count, expected in ((10, (8, 1, 1)), (400, (320, 40, 40)), (4, (2, 1, 1)), (2, (2, 0, 0))):
        wanted = [name for name, n in zip(("train", "validation", "test"), expected, strict=True) for _ in range(n)]
        assert draw_splits(IDS[:count], "ordered", 3) == (wanted, "ordered")


def test_a_seeded_split_follows_the_song_not_its_place_in_the_file(tmp_path: Path) -> None:
    def splits(names: list[str]) -> dict[str, str]:
        entries = {str(n): {"path": f"x/{name}.wav", "mood/theme": ["sad"]} for n, name in enumerate(names)}
        (tmp_path / "c.json").write_text(json.dumps(entries))
        table = build_manifest(str(tmp_path / "c.json"), "cal500")
        return dict(zip(table["track_id"].to_pylist(), table["split"].to_pylist(), strict=True))

    names = [f"song{n:02d}" for n in range(40)]
    whole = splits(names)
    assert splits(names[::-1]) == whole
    assert splits([*names, "one more"]).items() > whole.items()


def test_a_dataset_says_which_readings_chose_its_labels_and_splits(tmp_path: Path) -> None:
    write_annotation(tmp_path, "a-b_01", {"Sad": 5})
    settings = cal500.Settings(cal500_truth="reference")
    table = build_manifest(str(tmp_path), "cal500", seed=3, settings=settings)
    assert stored_json(table.schema, READINGS) == {"split": "hashed:3", "cal500_truth": "reference"}
    assert stored_json(build_manifest(str(tmp_path), "cal500", split="ordered").schema, READINGS)["split"] == "ordered"


@pytest.mark.parametrize(
    ("dataset", "path", "key"),
    [
        ("jamendo", "audio/48/948.low.mp3", "48/948"),
        ("jamendo", "48/948.mp3", "48/948"),
        ("cal500", "CAL500_32kps_wav/mr._bungle-x.wav", "mr._bungle-x"),
        ("emotify", "emotifymusic/pop/3.mp3", "pop/3"),
    ],
)
def test_an_audio_file_is_recognised_by_its_song_wherever_it_lies(dataset: str, path: str, key: str) -> None:
    assert DOOR.find(dataset)[0].audio_key(path) == key


def test_k_is_the_papers_for_its_datasets_and_the_mean_count_of_labels_for_others() -> None:
    assert [top_k(name, [1]) for name in ("jamendo", "cal500", "emotify")] == [2, 4, 3]
    assert top_k("mine", [2, 3]) == 3
    assert top_k(None, [1, 1, 2]) == 1
    assert top_k(None, [0, 0]) == top_k(None, []) == 1


def test_the_vocabularies_have_the_papers_sizes_and_no_word_twice() -> None:
    assert {name: len(set(words)) for name, words in vocabularies().items()} == {
        "jamendo": 56,
        "cal500": 17,
        "gems": 9,
    }
    assert all(len(set(words)) == len(words) for words in vocabularies().values())


def test_the_reference_preset_reaches_the_settings_of_a_dataset() -> None:
    flags = ["--source", "/c", "--output", "/m", "--preset", "reference"]
    found = parse(CatalogSettings, [*flags, "--dataset", "cal500"])
    assert (found.split, found.part("dataset").cal500_truth) == ("ordered", "reference")
    assert parse(CatalogSettings, [*flags, "--dataset", "cal500", "--cal500-truth", "paper"]).part("dataset") == (
        cal500.Settings()
    )
    with pytest.raises(InputError, match="--cal500-truth: a setting of --dataset cal500"):
        parse(CatalogSettings, [*flags, "--dataset", "emotify", "--cal500-truth", "paper"])
    assert parse(CatalogSettings, flags).part("dataset") == Part()


OWN = """
from typing import Annotated
from mer_ray.catalog.datasets import Song
from mer_ray.settings import READING, Part

class Settings(Part):
    mood_words: Annotated[str, READING] = "dark"
    "What every song is."

def read(source, settings):
    labels = (settings.mood_words, "slow", "grey")
    return [Song(f"deam/{n}", f"clips/{n}.mp3", labels, SPLIT) for n in range(20)]
"""


def run_catalog(folder: Path, module: str, *flags: str) -> subprocess.CompletedProcess[str]:
    (folder / "own").mkdir(exist_ok=True)
    (folder / "own" / "__init__.py").touch()
    (folder / "own" / "deam.py").write_text(module)
    command = [sys.executable, str(ROOT / "jobs" / "catalog.py"), "--source", ".", "--output", "m.parquet", *flags]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_dataset_outside_the_package_is_read_by_the_name_of_its_module(tmp_path: Path) -> None:
    (tmp_path / "deep" / "clips").mkdir(parents=True)
    (tmp_path / "deep" / "clips" / "3.wav").write_bytes(b"xx")
    module = OWN.replace("SPLIT", "None") + "\nK = 1\ndef audio_key(path):\n    return path.rpartition('/')[2][:-4]\n"
    done = run_catalog(tmp_path, module, "--dataset", "own.deam", "--mood-words", "bleak", "--seed", "2")
    assert done.returncode == 0, done.stderr
    assert "20 songs, 13 train, 3 validation, 4 test, 3 labels" in done.stdout
    assert "19 songs have no audio" in done.stdout
    found = Annotations.read(str(tmp_path / "m.parquet"), 0)
    assert (found.dataset, found.k, found.vocabulary) == ("deam", 1, ("bleak", "grey", "slow"))
    assert found.readings == {"split": "hashed:2", "mood_words": "bleak", "k": "1"}
    row = pq.read_table(tmp_path / "m.parquet").to_pylist()[3]
    assert (row["uri"], row["size_bytes"]) == (f"{tmp_path}/deep/clips/3.wav", 2)


def test_what_a_dataset_outside_the_package_leaves_out_is_as_for_any_table(tmp_path: Path) -> None:
    touched = tmp_path / "clips" / "4.ogg"
    touched.parent.mkdir()
    touched.write_bytes(b"xxx")
    done = run_catalog(tmp_path, OWN.replace("SPLIT", "'test' if n else 'train'"), "--dataset", "own.deam")
    assert "20 songs, 1 train, 19 test" in done.stdout, done.stderr
    found = Annotations.read(str(tmp_path / "m.parquet"), 0)
    assert (found.k, found.readings) == (3, {"split": "official", "mood_words": "dark"})
    assert pq.read_table(tmp_path / "m.parquet")["uri"].to_pylist()[4] == str(touched)


@pytest.mark.parametrize(
    ("module", "value", "told"),
    [
        ("", "own.absent", "--dataset own.absent: no such dataset"),
        ("", "own.deam", "the module defines no 'read'"),
        ("import nowhere", "own.deam", "cannot be imported"),
        ("def read(source, settings): return []", "own.deam", "no songs found"),
        ("def read(source, settings): return None", "own.deam", "read gave None; give a list of Song"),
        ("def read(source, settings): return ['a']", "own.deam", "read gave 'a'; give a list of Song"),
        ("def read(source, settings): return [Song(7, 'a.mp3', ())]", "own.deam", "read gave Song.track_id=7"),
        ("def read(source, settings): return [Song('a', 'a.mp3', 'happy')]", "own.deam", "labels='happy'"),
        ("def read(source, settings): return [Song('a', 'a.mp3', [], 'dev')]", "own.deam", "split 'dev' is none of"),
        ("def read(source, settings): return [Song('a', 'a.mp3', [])] * 2", "own.deam", "'a' stands more than once"),
        ("def read(source, settings): open(source + '/labels.csv')", "own.deam", "not found; check the path"),
        ("def read(source, settings): return []", "own.deam:word", "takes no word behind a colon"),
    ],
)
def test_a_dataset_that_keeps_no_contract_is_refused_in_a_sentence(
    tmp_path: Path, module: str, value: str, told: str
) -> None:
    done = run_catalog(tmp_path, f"from mer_ray.catalog.datasets import Song\n{module}", "--dataset", value)
    assert done.returncode == 2, done.stderr
    assert re.search(told, done.stderr)
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
