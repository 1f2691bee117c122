"""The label files of the three datasets, in miniature, and what is read from them."""

import json
from pathlib import Path

import pytest

from mer_ray.catalog.datasets import (
    CAL500_WORDS,
    VOCABULARIES,
    Cal500Truth,
    Song,
    audio_key,
    read_cal500,
    read_dataset,
    read_emotify,
    read_jamendo,
    split_songs,
    top_k,
)
from mer_ray.errors import InputError

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


def votes(track: int, genre: str, *counts: int) -> str:
    return f"{track},{genre}," + ",".join(map(str, counts)) + ",3\n"


def test_jamendo_songs_carry_their_number_their_official_split_and_every_mood_tag(tmp_path: Path) -> None:
    line = "track_0000948\ta\tb\t48/948.mp3\t212.7\tmood/theme---dark\tmood/theme---epic\tgenre---rock\n"
    songs = read_jamendo(str(write_jamendo(tmp_path, line)))
    assert songs[0] == Song("jamendo/948", "48/948.mp3", ("dark", "epic"), "train")
    assert [(song.track_id, song.split) for song in songs[1:]] == [
        ("jamendo/501", "validation"),
        ("jamendo/602", "test"),
    ]


def test_a_jamendo_line_without_a_mood_is_refused_by_line_number(tmp_path: Path) -> None:
    folder = write_jamendo(tmp_path, "track_0000948\ta\tb\t48/948.mp3\t212.7\tgenre---rock\n")
    with pytest.raises(InputError, match=r"moodtheme-train\.tsv line 2"):
        read_jamendo(str(folder))


def test_missing_label_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"autotagging_moodtheme-train\.tsv: not found"):
        read_dataset("jamendo", str(tmp_path))
    with pytest.raises(InputError, match=r"data\.csv: not found"):
        read_dataset("emotify", str(tmp_path))
    with pytest.raises(InputError, match=r"neither annotations/<song>_NN\.txt nor CAL500_metadata\.json"):
        read_dataset("cal500", str(tmp_path))


def test_an_unknown_dataset_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose jamendo, cal500, emotify or none"):
        read_dataset("gtzan", str(tmp_path))


@pytest.mark.parametrize(
    ("truth", "labels"),
    [
        ("paper", ("happy", "calming, soothing", "sad")),
        ("reference", ("happy", "calming, soothing", "sad", "tender, soft", "angry, aggressive")),
    ],
)
def test_cal500_truth_follows_the_rule_asked_for_over_the_mean_of_all_annotators(
    tmp_path: Path, truth: Cal500Truth, labels: tuple[str, ...]
) -> None:
    first = {"Happy": 5, "Calming_/_Soothing": 4, "Sad": 5, "Laid-back_/_Mellow": 5, "Tender_/_Soft": 3}
    second = {"Happy": 5, "Calming_/_Soothing": 4, "Sad": 2, "Laid-back_/_Mellow": 5, "Tender_/_Soft": 3}
    low = {"Angry_/_Agressive": 2, "Bizarre_/_Weird": 1}
    write_annotation(tmp_path / "annotations", "nina_simone-four_women_01", first | low)
    write_annotation(tmp_path / "annotations", "nina_simone-four_women_02", second | low)
    songs, used = read_cal500(str(tmp_path), truth)
    assert songs == [Song("cal500/nina_simone-four_women", "nina_simone-four_women.mp3", labels)]
    assert used == truth


@pytest.mark.parametrize("truth", ["paper", "reference"])
def test_a_cal500_song_that_nobody_rated_high_keeps_its_best_word(tmp_path: Path, truth: Cal500Truth) -> None:
    write_annotation(tmp_path, "air-all_i_need_01", {"Sad": 2, "Happy": 3, "Tender_/_Soft": 1})
    songs, _ = read_cal500(str(tmp_path), truth)
    assert songs[0].labels == ("happy",)


def test_an_emotion_that_cal500_does_not_have_is_refused(tmp_path: Path) -> None:
    write_annotation(tmp_path, "air-all_i_need_01", {"Hungry": 5})
    with pytest.raises(InputError, match="unknown emotion 'Hungry'"):
        read_cal500(str(tmp_path))


def test_the_published_cal500_list_is_taken_as_it_is(tmp_path: Path) -> None:
    words = ["calming, soothing", "happy"]
    entries = {"0": {"path": "CAL500_32kps_wav/mr._bungle-quote_unquote.wav", "mood/theme": words}}
    (tmp_path / "CAL500_metadata.json").write_text(json.dumps(entries))
    expected = [Song("cal500/mr._bungle-quote_unquote", "mr._bungle-quote_unquote.mp3", ("calming, soothing", "happy"))]
    assert read_cal500(str(tmp_path)) == (expected, "published")
    assert read_cal500(str(tmp_path / "CAL500_metadata.json")) == (expected, "published")


def test_raw_annotations_win_over_the_published_list_unless_it_is_asked_for(tmp_path: Path) -> None:
    write_annotation(tmp_path / "annotations", "a-b_01", {"Sad": 5})
    entries = {"0": {"path": "x/a-b.wav", "mood/theme": ["happy"]}}
    (tmp_path / "CAL500_metadata.json").write_text(json.dumps(entries))
    assert read_cal500(str(tmp_path))[0][0].labels == ("sad",)
    assert read_cal500(str(tmp_path), "published")[0][0].labels == ("happy",)


def test_a_json_of_another_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('["happy"]')
    with pytest.raises(InputError, match="not CAL500's published JSON"):
        read_cal500(str(tmp_path / "labels.json"))


def test_emotify_takes_the_three_most_voted_words_and_breaks_ties_in_column_order(tmp_path: Path) -> None:
    body = votes(101, "rock", 0, 1, 0, 1, 0, 0, 0, 0, 1) + votes(101, "rock", 0, 0, 0, 1, 0, 0, 1, 0, 1)
    (tmp_path / "data.csv").write_text(CSV_HEADER + body)
    assert read_emotify(str(tmp_path)) == [
        Song("emotify/101", "emotifymusic/rock/1.mp3", ("nostalgia", "sadness", "solemnity"))
    ]


@pytest.mark.parametrize(
    ("track", "genre", "path"),
    [(100, "classical", "classical/100"), (201, "electronic", "electronic/1"), (400, "pop", "pop/100")],
)
def test_emotify_files_are_numbered_within_their_genre(tmp_path: Path, track: int, genre: str, path: str) -> None:
    (tmp_path / "data.csv").write_text(CSV_HEADER + votes(track, genre, *[1] * 9))
    assert read_emotify(str(tmp_path))[0].path == f"emotifymusic/{path}.mp3"


@pytest.mark.parametrize(("track", "genre"), [(100, "rock"), (101, "classical"), (7, "jazz")])
def test_an_emotify_track_of_another_genre_is_refused(tmp_path: Path, track: int, genre: str) -> None:
    (tmp_path / "data.csv").write_text(CSV_HEADER + votes(track, genre, *[1] * 9))
    with pytest.raises(InputError, match=f"track {track} cannot be '{genre}'"):
        read_emotify(str(tmp_path))


def test_emotify_without_a_gems_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("track id, genre, amazement\n1,rock,1\n")
    with pytest.raises(InputError, match="no column 'solemnity'"):
        read_emotify(str(tmp_path))


@pytest.mark.parametrize(("n", "counts"), [(500, (400, 50, 50)), (400, (320, 40, 40)), (4, (2, 1, 1))])
def test_songs_are_split_80_10_10(n: int, counts: tuple[int, int, int]) -> None:
    names = split_songs(n, seed=0)
    assert tuple(names.count(split) for split in ("train", "validation", "test")) == counts


def test_a_seed_always_draws_the_same_split_and_another_seed_another() -> None:
    assert split_songs(10, seed=7) == split_songs(10, seed=7)
    assert split_songs(400, seed=0) != split_songs(400, seed=1)
    # Written down, so that an upgrade cannot move songs between the splits of published results.
    assert "".join(name[1] for name in split_songs(10, seed=0)) == "rrrerrrrar"


def test_the_ordered_split_is_the_first_80_10_10_percent() -> None:
    assert split_songs(10, seed=3, ordered=True) == ["train"] * 8 + ["validation", "test"]


def test_two_songs_are_too_few_to_split_and_an_unwanted_split_stays_empty() -> None:
    assert split_songs(2, seed=0) == ["train", "train"]
    assert sorted(split_songs(10, seed=0, fractions=(0.9, 0.1, 0.0))) == ["train"] * 9 + ["validation"]


def test_a_seeded_split_follows_the_song_not_its_place_in_the_file(tmp_path: Path) -> None:
    def splits(names: list[str]) -> dict[str, str]:
        entries = {str(n): {"path": f"x/{name}.wav", "mood/theme": ["sad"]} for n, name in enumerate(names)}
        (tmp_path / "c.json").write_text(json.dumps(entries))
        return {song.track_id: song.split for song in read_dataset("cal500", str(tmp_path / "c.json")).songs}

    names = [f"song{n:02d}" for n in range(40)]
    assert splits(names) == splits(names[::-1])


def test_a_dataset_says_which_readings_chose_its_labels_and_splits(tmp_path: Path) -> None:
    write_annotation(tmp_path, "a-b_01", {"Sad": 5})
    readings = read_dataset("cal500", str(tmp_path), seed=3, cal500_truth="reference").readings
    assert readings == {"split": "seeded:3", "cal500_truth": "reference"}
    assert read_dataset("cal500", str(tmp_path), split="ordered").readings["split"] == "ordered"


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
    assert audio_key(dataset, path) == key


def test_k_is_the_papers_for_its_datasets_and_the_mean_count_of_labels_for_others() -> None:
    assert [top_k(name, [1]) for name in ("jamendo", "cal500", "emotify")] == [2, 4, 3]
    assert top_k("mine", [2, 3]) == 3
    assert top_k(None, [1, 1, 2]) == 1
    assert top_k(None, [0, 0]) == top_k(None, []) == 1


def test_the_vocabularies_have_the_papers_sizes_and_no_word_twice() -> None:
    assert {name: len(set(words)) for name, words in VOCABULARIES.items()} == {
        "jamendo": 56,
        "cal500": 17,
        "gems": 9,
    }
    assert all(len(set(words)) == len(words) for words in VOCABULARIES.values())
    assert len(CAL500_WORDS) == 18
