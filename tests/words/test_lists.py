"""Lists of words are read as a user writes them."""

from pathlib import Path

import pytest

from mer_ray.errors import InputError
from mer_ray.words.lists import Word, read_labels


@pytest.mark.parametrize(("name", "count"), [("jamendo", 56), ("cal500", 17), ("gems", 9)])
def test_built_in_vocabularies_are_read_by_name(name: str, count: int) -> None:
    labels = read_labels(name)
    assert len(labels) == count
    assert all(word == Word(word.label, (word.label,), "the word itself") for word in labels)


def test_a_text_file_may_have_comments_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffcalm\r\n\r\n# not this\r\n  sad and slow  # nor this\r\nsüß\r\n".encode())
    assert read_labels(str(path)) == [Word.of("calm"), Word.of("sad and slow"), Word.of("süß")]


def test_a_yaml_file_gives_phrases_as_text_or_lists_or_none_at_all(tmp_path: Path) -> None:
    text = (
        "calm: peaceful, serene music ,\nsad: [gloomy, 'blue, deeply']\nhappy:\ntender: ~\nno: yes\n1980: 80s\nq: []\n"
    )
    assert read(tmp_path, text) == [
        Word("calm", ("peaceful", "serene music"), "yours"),
        Word("sad", ("gloomy", "blue, deeply"), "yours"),
        Word("happy", ("happy",), "the word itself"),
        Word("tender", ("tender",), "the word itself"),
        Word("no", ("yes",), "yours"),
        Word("1980", ("80s",), "yours"),
        Word("q", ("q",), "the word itself"),
    ]


def test_a_word_whose_one_phrase_is_its_own_name_has_been_given_none(tmp_path: Path) -> None:
    assert read(tmp_path, "calm: calm\n") == [Word.of("calm")] == [Word.of("calm", "calm")]
    assert Word.of("calm", "calm", "still").source == "yours"


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("w.txt", "", "no words in it"),
        ("w.txt", "# only this\n\n", "no words in it"),
        ("w.txt", "calm\nsad\ncalm\nsad\nx\n", "more than once: 'calm', 'sad'; keep one of each"),
        ("w.yaml", "", "no words in it"),
        ("w.yaml", "calm: a\nsad: b\ncalm: c\n", "more than once: 'calm'"),
        ("w.yaml", "calm: [a", "not valid YAML"),
        ("w.yaml", "calm: a\nsad:\n\t- b\n", "line 3 is not valid YAML; use spaces where it has a tab"),
        ("w.yaml", "calm: a\nsad: 'b\n", "is not valid YAML; write lines like"),
        ("w.yml", "- calm\n- sad\n", "expected 'label: phrase, phrase' entries"),
        ("w.yaml", "calm\n", "expected 'label: phrase, phrase' entries"),
        ("w.yaml", "sad: x\ncalm: {a: b}\n", "line 2 is not"),
        ("w.yaml", "[calm]: b\n", "line 1 is not"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused_with_its_name(tmp_path: Path, name: str, text: str, named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        read(tmp_path, text, name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_that_is_missing_binary_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file; .*cal500, gems, jamendo"):
        read_labels(str(tmp_path / "none.txt"))
    with pytest.raises(InputError, match="not a text file"):
        read_labels(str(tmp_path))
    (tmp_path / "w.txt").write_bytes("calm\nsüß\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"line 2 is not UTF-8 \(Latin-1\?\); save the file as UTF-8"):
        read_labels(str(tmp_path / "w.txt"))


def test_words_may_be_given_with_commas_between_them(tmp_path: Path) -> None:
    assert read_labels("happy, sad") == [Word.of("happy"), Word.of("sad")]
    assert read_labels("late night drive,") == [Word.of("late night drive")]
    with pytest.raises(InputError, match="'happy,' for one"):
        read_labels("happy")
    lines = 'sad, tense\n"calming, soothing", \'epic\'\n"dreamy"\n'
    assert [word.label for word in read(tmp_path, lines, "w.txt")] == [
        "sad",
        "tense",
        "calming, soothing",
        "epic",
        "dreamy",
    ]


def read(folder: Path, text: str, name: str = "w.yaml") -> list[Word]:
    (folder / name).write_text(text)
    return read_labels(str(folder / name))
