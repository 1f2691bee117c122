"""A setting's value finds its file: of the folder, or a module from elsewhere; what is none is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from mer_ray.doors import Door
from mer_ray.errors import InputError

STRICT = Door("rooms", "room", needs="enter")
OPEN = Door("rooms", "room", needs="enter", otherwise="hall")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with two rooms and something that is none, and modules beside it."""
    files = {
        "rooms/__init__.py": "",
        "rooms/hall.py": "enter = 'hall'",
        "rooms/tower.py": "enter = 'tower'",
        "rooms/_stairs.py": "",
        "elsewhere/__init__.py": "",
        "elsewhere/barn.py": "enter = 'barn'",
        "elsewhere/wall.py": "",
        "elsewhere/ruin.py": "import nothing_of_the_kind",
        "notes/nothing.txt": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))


def entered(door: Door, value: str) -> tuple[str, str]:
    module, word = door.find(value)
    return module.enter, word


def test_the_choices_are_the_files_that_are_not_hidden() -> None:
    assert STRICT.names() == ["hall", "tower"]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("tower", ("tower", "")),
        ("tower:top floor", ("tower", "top floor")),
        ("elsewhere.barn", ("barn", "")),
        ("elsewhere.barn:hay:old", ("barn", "hay:old")),
    ],
)
def test_a_file_or_a_module_is_found_with_the_word_behind_it(value: str, found: tuple[str, str]) -> None:
    assert entered(STRICT, value) == entered(OPEN, value) == found


@pytest.mark.parametrize("value", ["m-a-p/MERT-v1-95M", "/some/folder", "./here", "notes", "s3://bucket/x", "towers"])
def test_what_names_no_module_goes_to_the_file_that_takes_the_rest(value: str) -> None:
    assert entered(OPEN, value) == ("hall", value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("towr", "no such room .did you mean 'tower'"),
        ("_stairs", "give one of hall, tower"),
        ("elsewhere.attic", "no such room"),
        ("elsewhere.wall", "defines no 'enter', as rooms/hall.py does"),
        ("elsewhere.ruin", "nothing_of_the_kind"),
        ("", "no such room"),
    ],
)
def test_what_is_no_room_is_refused_by_name(value: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        STRICT.find(value)
    assert f"--room {value}" in str(refused.value)


def test_a_module_that_is_asked_for_with_a_word_is_never_taken_for_something_else() -> None:
    with pytest.raises(InputError, match=r"elsewhere\.attic:small: no such room"):
        OPEN.find("elsewhere.attic:small")
