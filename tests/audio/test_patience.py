"""An outage costs time and no song; a song that cannot be read costs a moment and holds up no other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from mer_ray.audio.fetching import FETCH_ATTEMPTS
from mer_ray.audio.patience import STREAK, Patience
from mer_ray.audio.wire import Row, failed
from mer_ray.errors import StorageError

SONGS = [f"song{number}" for number in range(12)]
OK: Row = {"status": "ok"}
A_TRY_S = 30.0


class World:
    """A clock that only waits and tries move, and songs that can or cannot be read at a time."""

    def __init__(self, row: Callable[[str, float], Row], patience_s: float = 600.0) -> None:
        self.now, self.tries, self.attempts = 0.0, Counter[str](), list[int]()
        self._row = row
        self.patience = Patience(patience_s, self.wait, lambda: self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def decode(self, song: str, attempts: int) -> Row:
        self.tries[song] += 1
        self.attempts.append(attempts)
        self.now += A_TRY_S if attempts > 1 else 1.0
        return self._row(song, self.now)

    def read(self, *songs: str) -> dict[str, str]:
        rows = list(self.patience.read(songs, self.decode))
        assert [song for song, _ in rows] == list(songs), "each once, in their order"
        return {song: row.get("error_class", "ok") for song, row in rows}


def down(first: float, last: float) -> Callable[[str, float], Row]:
    """A world in which nothing can be fetched from one moment to another."""
    return lambda _, now: failed("io_error", "no route to host") if first <= now < last else OK


@pytest.mark.parametrize("minutes", [1, 2, 5, 9])
def test_an_outage_shorter_than_the_patience_fails_no_song(minutes: int) -> None:
    world = World(down(100, 100 + 60 * minutes))
    assert set(world.read(*SONGS).values()) == {"ok"}
    assert world.now < 100 + 60 * minutes + 60 + A_TRY_S * (len(SONGS) + STREAK + 1)


def test_an_outage_is_waited_for_by_a_process_that_gets_one_song_at_a_time() -> None:
    world = World(down(100, 400))
    found = Counter(next(iter(world.read(song).values())) for song in SONGS)
    assert found == {"ok": len(SONGS) - STREAK + 1, "io_error": STREAK - 1}


def test_a_song_that_alone_cannot_be_read_is_tried_once_more_and_holds_up_nothing() -> None:
    world = World(lambda song, _: failed("io_error", "cut short") if song in ("song3", "song7") else OK)
    found = world.read(*SONGS)
    assert {song for song, became in found.items() if became != "ok"} == {"song3", "song7"}
    assert world.tries["song3"] == 2
    assert world.now == A_TRY_S * (len(SONGS) + 2), "no waits"


def test_what_lasts_is_given_up_in_time_and_the_rest_is_tried_once_each() -> None:
    world = World(down(0, 1e9))
    assert set(world.read(*SONGS).values()) == {"io_error"}
    assert 600 <= world.now < 600 + 60 + A_TRY_S + len(SONGS)
    assert world.attempts[-1] == 1
    world.now = 2e9
    assert set(world.read("song0", "song1").values()) == {"ok"}
    assert world.attempts[-1] == FETCH_ATTEMPTS, "the world is back"


def test_songs_that_are_at_fault_themselves_are_no_sign_of_an_outage() -> None:
    world = World(lambda song, _: failed("not_found" if song < "song5" else "forbidden", "…"))
    assert "io_error" not in world.read(*SONGS).values()
    assert world.now == A_TRY_S * len(SONGS)


def test_credentials_that_are_renewed_in_time_cost_no_song_and_others_end_the_run() -> None:
    def expired(until: float) -> Callable[[str, float], Row]:
        def row(_: str, now: float) -> Row:
            if 100 <= now < until:
                raise StorageError("the credentials have expired.")
            return OK

        return row

    assert set(World(expired(500)).read(*SONGS).values()) == {"ok"}
    world = World(expired(1e9))
    with pytest.raises(StorageError, match="have expired"):
        world.read(*SONGS)
    assert 700 <= world.now < 700 + 2 * A_TRY_S
    with pytest.raises(StorageError):
        World(expired(1e9), patience_s=0).read(*SONGS)
