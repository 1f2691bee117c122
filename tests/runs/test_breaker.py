"""A run in which (nearly) nothing can be read any more stops, says why, and writes none of it as failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mer_ray.errors import InputError, StorageError
from mer_ray.runs.breaker import LEAST, RECENT, Breaker
from mer_ray.runs.receipts import Receipt
from mer_ray.runs.withheld import ROWS, Withheld

DENIED = "access denied. Check the permissions or credentials."


def failures(count: int, error_class: str = "forbidden", node: str = "one", folder: str = "a") -> list[dict[str, Any]]:
    uris = [f"s3://music/{folder}/{number}.mp3" for number in range(count)]
    return [{"uri": uri, "error_class": error_class, "node": node, "error": f"{uri}: {DENIED}"} for uri in uris]


class Run:
    """A run that gets receipts, and what it has written."""

    def __init__(self, witness_fails: str | None = None, *, all_may_fail: bool = False) -> None:
        self.written: list[Any] = []
        self.asked: list[str] = []
        self._reason = witness_fails
        breaker = Breaker(self._read, all_may_fail=all_may_fail)
        self.withheld = Withheld(self._write, breaker)

    def _read(self, uri: str) -> str | None:
        self.asked.append(uri)
        return self._reason

    def _write(self, rows: Sequence[Any]) -> None:
        self.written += rows

    def gets(self, failed: Sequence[dict[str, Any]] = (), ok: int = 0, node: str = "one", at_once: int = 8) -> None:
        """Receipts of so many songs each: the ok ones first."""
        songs: list[dict[str, Any] | None] = [*[None] * ok, *failed]
        for start in range(0, len(songs), at_once):
            part = songs[start : start + at_once]
            bad = [song for song in part if song is not None]
            witness = "s3://music/good.mp3" if len(bad) < len(part) else None
            nodes = [{"node": node, "songs": len(part)}]
            self.withheld.add(Receipt(songs=len(part), failures=bad, witness=witness, nodes=nodes))


@pytest.mark.parametrize("error_class", ["not_found", "forbidden", "io_error", "not_audio"])
def test_a_run_that_reads_no_song_stops_after_the_first_ones_and_writes_none(error_class: str) -> None:
    run = Run()
    with pytest.raises(InputError, match=f"56 of the last 56 .* all {error_class}, below s3://music/a/") as caught:
        run.gets(failures(1_000, error_class))
    assert isinstance(caught.value, StorageError) == (error_class in ("forbidden", "io_error"))
    assert "named *.mp3" in str(caught.value)
    assert f"s3://music/a/0.mp3: {DENIED.rstrip('.')}" in str(caught.value)
    assert (run.written, run.asked) == ([], [])


def test_a_run_of_few_songs_is_left_to_its_exit_code() -> None:
    run = Run()
    run.gets(failures(LEAST - 1))
    run.withheld.close()
    assert len(run.written) == LEAST - 1


def test_permissions_lost_amid_a_night_stop_it_and_no_song_of_that_is_written() -> None:
    run = Run(witness_fails="s3://music/good.mp3: access denied.")
    run.gets(failures(3, "silent"), ok=5_000)
    with pytest.raises(StorageError, match=r"and s3://music/good\.mp3, which could be before, no longer can"):
        run.gets(failures(1_000))
    assert {row["error_class"] for row in run.written} <= {"silent"}


def test_a_folder_of_bad_songs_amid_a_night_is_no_reason_to_stop() -> None:
    run = Run()
    run.gets(ok=500)
    run.gets(failures(5_000, "not_audio"))
    run.gets(ok=500)
    run.withheld.close()
    assert len(run.written) == 5_000
    assert 0 < len(run.asked) <= 5_000 / LEAST


def test_some_failures_among_many_songs_are_written_in_parts_of_their_own_and_not_all_kept_in_memory() -> None:
    run = Run()
    for _ in range(40):
        run.gets(failures(40, "corrupt"), ok=60)
        assert len(run.withheld._rows) < ROWS + RECENT
    run.withheld.close()
    assert len(run.written) == 1_600
    assert run.asked == []


def test_where_all_may_fail_only_the_world_stops_a_run() -> None:
    run = Run(all_may_fail=True)
    run.gets(failures(1_000, "not_audio"))
    run.withheld.close()
    assert len(run.written) == 1_000
    with pytest.raises(StorageError):
        Run(all_may_fail=True).gets(failures(1_000, "io_error"))


def test_the_sentence_names_the_node_that_all_failures_have_in_common_and_the_places_that_they_have_not() -> None:
    run = Run(witness_fails="no route to host")
    run.gets(ok=200, node="two")
    with pytest.raises(StorageError, match=r"all io_error, below s3://music/a/.* on node one of 2"):
        run.gets(failures(1_000, "io_error"))
    mixed = failures(500, "io_error", folder="x") + failures(500, "forbidden", folder="y")
    with pytest.raises(StorageError, match=r"io_error, .* forbidden, below s3://music/, named"):
        Run().gets(sorted(mixed, key=lambda one: one["uri"].rpartition("/")[2]))


def test_failures_are_counted_by_node() -> None:
    run = Run()
    run.gets(failures(2, "corrupt") + failures(1, "silent"), ok=7)
    run.gets(failures(4, "no_decoder", node="two"), node="two")
    assert run.withheld.nodes() == {
        "one": {"songs": 10, "failed": {"corrupt": 2, "silent": 1}},
        "two": {"songs": 4, "failed": {"no_decoder": 4}},
    }
