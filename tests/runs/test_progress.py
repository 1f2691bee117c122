"""Progress is one honest line every few seconds."""

import time

import pytest

from mer_ray.runs import progress
from mer_ray.runs.progress import EpochLines, Progress, clock


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3723, "1:02:03"), (90000, "25:00:00")]
)
def test_seconds_read_as_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_line_says_what_is_done_failed_fast_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    found = Progress("extract", 1200, done=200, _started=now)
    assert found.line() == "extract: 200 of 1,200 songs, 0 failed, 0:00:00 elapsed"
    now = 1100.0
    found.add(50)
    assert found.line() == "extract: 250 of 1,200 songs, 0 failed, 0:01:40 elapsed"
    now = 1150.0
    found.add(200, failed=3, audio_s=54_000)
    assert found.line() == (
        "extract: 450 of 1,200 songs, 3 failed, 360 audio hours per hour, about 0:03:08 left, 0:02:30 elapsed"
    )
    found.add(750)
    assert "left" not in found.line()


def test_a_line_is_printed_now_and_then_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.02)
    with Progress("tag", 10, done=4) as running:
        wait_for_watch(running)
        running.add(6, failed=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tag: 4 of 10 songs, 0 failed")
    assert lines[-1].startswith("tag: 10 of 10 songs, 1 failed")
    assert len(lines) >= 3


def test_what_the_watch_finds_is_kept_for_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.02)

    def lost() -> None:
        raise RuntimeError("taken over")

    with Progress("tag", 1, watch=lost) as running:
        deadline = time.monotonic() + 20
        while running.trouble is None and time.monotonic() < deadline:
            time.sleep(0.01)
    assert str(running.trouble) == "taken over"


def test_epochs_are_told_with_the_best_so_far_and_each_one_once(capsys: pytest.CaptureFixture[str]) -> None:
    best = {"epoch": 1, "macro_f1": 0.4}
    noted = {"epoch": 1, "loss": 0.51234, "macro_f1": 0.4, "best": best}
    state = [None, noted, noted, {**noted, "epoch": 3, "macro_f1": 0.3}, {**noted, "epoch": 9}]
    lines = EpochLines(10, lambda: state[0])
    with lines:
        for _ in range(4):
            state.pop(0)
            lines._print()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "train: epoch 2 of 10, loss 0.5123, validation macro F1 0.400 (best 0.400 in epoch 2)"
    assert [line.split(",")[0] for line in printed] == [f"train: epoch {at} of 10" for at in (2, 4, 10)]
    assert "left" in printed[1]
    assert "left" not in printed[2]


def wait_for_watch(running: Progress) -> None:
    """Wait until the line has been printed at least twice."""
    ticks: list[float] = []
    running.watch = lambda: ticks.append(time.monotonic())
    deadline = time.monotonic() + 20
    while len(ticks) < 2:
        assert time.monotonic() < deadline, "no line was printed"
        time.sleep(0.01)
