"""An operator can follow a run: figures for Prometheus, and a line for each of the first failures."""

from __future__ import annotations

import pytest

from mer_ray.runs.metrics import SHOWN, FailureLines, one_line


def failures(count: int) -> list[dict[str, str]]:
    return [{"track_id": f"song/{at}", "error_class": "empty", "error": "No bytes."} for at in range(count)]


def test_a_failure_is_a_line_with_its_song_its_class_and_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    FailureLines("s3://music/features").add(failures(2))
    printed = capsys.readouterr()
    assert printed.err.splitlines() == ["song/0: empty: No bytes.", "song/1: empty: No bytes."]
    assert printed.out == ""


def test_many_failures_end_in_one_line_that_says_where_all_of_them_are(capsys: pytest.CaptureFixture[str]) -> None:
    lines = FailureLines("s3://music/features")
    for part in (failures(SHOWN - 1), failures(5), failures(50)):
        lines.add(part)
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == SHOWN + 1
    assert printed[-2].startswith("song/0: ")
    assert "jobs/status.py --run s3://music/features" in printed[-1]


def test_exactly_as_many_failures_as_there_is_room_for_need_no_such_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = FailureLines("features")
    lines.add(failures(SHOWN))
    lines.add([])
    assert len(capsys.readouterr().err.splitlines()) == SHOWN


def test_a_name_cannot_forge_a_line_or_move_the_cursor() -> None:
    assert one_line("a\nerror: all is well\x1b[2J é") == "a\\nerror: all is well\\x1b[2J é"
