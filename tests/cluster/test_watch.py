"""What a run knows of its workers: which songs killed encoders, which encoders are no good, who is at work."""

import time
from types import SimpleNamespace

import pytest

from mer_ray.cluster import watch
from mer_ray.cluster.watch import ALONE, MOST_STARTS, TOGETHER, Watch


def died(seen: Watch, songs: list[str], times: int, encoder: str = "a", first: int = 0) -> None:
    """An encoder that is started anew each time and never ends these songs."""
    for at in range(first, first + times):
        assert seen.starts(encoder) == ""
        seen.begins(encoder, f"process {at}", songs)


def test_a_block_whose_encoders_die_is_suspected_and_then_its_songs_alone_until_one_is_given_up() -> None:
    seen = Watch({})
    died(seen, ["x", "y"], TOGETHER)
    assert seen.starts("a") == ""
    assert seen.begins("a", "next", ["x", "y"]) == {"x": [TOGETHER, 0], "y": [TOGETHER, 0]}
    seen.begins("a", "next", ["x"])  # the same process goes on to one of them: nobody died
    seen.ends("a")
    assert seen.begins("a", "next", ["y"]) == {"y": [TOGETHER, 0]}
    died(seen, ["y"], ALONE - 1, first=100)
    assert seen.begins("a", "last", ["y"]) == {"y": [TOGETHER, ALONE]}
    assert seen.starts("a") == "", "one song does not make an encoder unfit"
    seen.ends("a")
    assert seen.look().deaths == {"y": [TOGETHER, ALONE]}, "known until its row is committed"


def test_songs_that_were_encoded_after_all_are_suspected_no_more() -> None:
    seen = Watch({"x": [1, 0]})
    died(seen, ["x"], 1)
    seen.ends("a")
    assert seen.look().deaths == {}


def test_an_encoder_that_dies_again_and_again_with_nothing_encoded_is_unfit() -> None:
    seen = Watch({})
    for _ in range(MOST_STARTS):
        assert seen.starts("a") == ""
    seen.dies("a", "CUDA error: unknown error.")
    assert seen.starts("a") == f"it died {MOST_STARTS} times with no song encoded, the last time by: CUDA error: " + (
        "unknown error."
    )
    assert seen.starts("b") == ""


def test_when_all_are_ended_the_songs_of_those_that_lived_are_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(watch.time, "time", lambda: now)
    seen = Watch({})
    seen.begins("a", "alive", ["x"])
    seen.begins("b", "dead", ["y", "z"])
    now += watch.GONE_SECONDS + 1
    seen.tell("alive", "encode", "host", since=1.0, done=0)
    seen.begins("c", "begun", ["w"])
    seen.anew()
    assert seen.look().deaths == {"y": [1, 0], "z": [1, 0]}
    assert seen.begins("b", "another", ["z"]) == {"z": [1, 0]}


def test_workers_at_work_are_those_that_said_so_lately_and_what_they_did_is_counted(monkeypatch: object) -> None:
    seen = Watch({})
    seen.tell("one", "decode", "host", since=5.0, done=3)
    seen.tell("two", "encode", "host", since=5.0, done=4)
    seen.tell("one", "decode", "host", since=0.0, done=1)
    assert seen.look().done == 8
    assert [work.stage for work in seen.look().busy.values()] == ["encode"]
    seen.look().busy["two"].seen -= watch.GONE_SECONDS + 1
    assert seen.look().busy == {}


class Heard:
    """A watch that notes what it is told, as a worker's side calls it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float, int]] = []
        self.tell = SimpleNamespace(remote=lambda _, stage, node, since, done: self.told.append((stage, since, done)))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> tuple[watch.Told, Heard, list[float]]:
    """A worker's side, what is heard of it, and a clock."""
    clock = [1000.0]
    monkeypatch.setattr(watch.time, "time", lambda: clock[0])
    own = watch.Told(None, "decode")
    own._watch = heard = Heard()
    return own, heard, clock


def test_short_songs_are_told_together_and_a_long_one_while_it_lasts(
    told: tuple[watch.Told, Heard, list[float]],
) -> None:
    own, heard, clock = told
    for _ in range(48):
        with own.busy():
            clock[0] += 0.125
        own.step()
    assert heard.told == [("decode", 0.0, 40)], "once in five seconds, however many songs"
    with own.busy():
        clock[0] += 3
        own.beat()
        clock[0] += 1
    assert heard.told[1:] == [("decode", 1006.0, 8), ("decode", 0.0, 0)], "that it is over is told at once"
    own.beat()
    assert len(heard.told) == 3, "nothing is in hand"
