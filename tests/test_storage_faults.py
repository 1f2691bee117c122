"""What object storage does at night, and what becomes of the song or the write it does it to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pyarrow as pa
import pytest

from mer_ray import storage
from mer_ray.audio import AudioError, fetch
from mer_ray.audio import fetching as audio
from mer_ray.audio.fetching import Repeats
from mer_ray.audio.process import Limits, SongDecoder
from mer_ray.errors import InputError, StorageError
from mer_ray.runs import lock as run_lock
from mer_ray.runs.lock import RunLock
from mer_ray.storage import access, conditional, objects
from tests.support.faults import Fault, FaultyProxy
from tests.support.s3 import S3Server, forget_servers

SONG = b"a song of sorts" * 20_000
PASSING = ["500", "503", "503 page", "hang up", "reset", "truncated", "stalled"]
"""Kinds of fault that may not be there the next time."""


@pytest.fixture
def root(s3: S3Server, faults: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A place in the bucket with a song in it, and short waits."""
    monkeypatch.setattr(audio, "FETCH_WAIT_S", 0.01)
    monkeypatch.setattr(access, "READ_TIMEOUT_S", 1.0)
    monkeypatch.setattr(access, "CONNECT_TIMEOUT_S", 1.0)
    forget_servers()
    root = f"s3://{s3.bucket}/faults-{time.monotonic_ns()}"
    storage.write_bytes(f"{root}/song.mp3", SONG)
    yield root
    forget_servers()


@pytest.mark.parametrize("kind", PASSING)
def test_a_fetch_that_fails_twice_is_repeated_counted_and_whole(root: str, faults: FaultyProxy, kind: str) -> None:
    faults.inject(Fault(kind, times=2))
    repeats = Repeats()
    assert fetch(f"{root}/song.mp3", repeats) == SONG
    assert faults.injected == {kind: 2}
    # Where a server hangs up on a connection that was kept, aiohttp asks once more before anyone hears of it.
    assert repeats.count == 2 or (kind == "hang up" and repeats.count == 1)
    assert repeats.seconds > 0


@pytest.mark.parametrize("kind", ["500", "truncated"])
def test_a_fetch_that_always_fails_ends_as_an_io_error_after_all_its_tries(
    root: str, faults: FaultyProxy, kind: str
) -> None:
    faults.inject(Fault(kind))
    repeats = Repeats()
    with pytest.raises(AudioError, match=f"{root}/song.mp3: .* The next run tries it again") as caught:
        fetch(f"{root}/song.mp3", repeats)
    assert caught.value.error_class == "io_error"
    assert faults.injected == {kind: audio.FETCH_ATTEMPTS}
    assert repeats.count == audio.FETCH_ATTEMPTS - 1


def test_a_server_that_is_not_there_is_an_io_error(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    forget_servers()
    repeats = Repeats()
    with pytest.raises(AudioError) as caught:
        fetch(f"{root}/song.mp3", repeats)
    assert (caught.value.error_class, repeats.count) == ("io_error", audio.FETCH_ATTEMPTS - 1)
    monkeypatch.setattr(access, "CLIENT_ATTEMPTS", 1)
    with pytest.raises(OSError, match="cannot be read"):  # an OSError is what a lock's heartbeat lives through
        storage.read_bytes(f"{root}/song.mp3")


def test_an_overrun_storage_is_asked_again_also_where_its_answer_has_no_body(root: str, faults: FaultyProxy) -> None:
    storage.write_bytes(f"{root}/staged", b"a part")
    faults.inject(Fault("503", method="HEAD", path="/staged", times=6))
    storage.move(f"{root}/staged", f"{root}/part")
    assert faults.injected["503"] == 6
    assert storage.read_bytes(f"{root}/part") == b"a part"


def test_what_a_storage_does_not_know_is_not_asked_again(root: str, faults: FaultyProxy) -> None:
    faults.inject(Fault("501", method="PUT"))
    with pytest.raises(StorageError):
        storage.swap(f"{root}/lock", b"mine", None)
    assert faults.requests["PUT"] == 2, "on a condition, then without"


def test_an_object_larger_than_the_memory_is_not_fetched(root: str) -> None:
    with pytest.raises(AudioError, match="--decoder-memory-mb") as caught:
        fetch(f"{root}/song.mp3", most=len(SONG) - 1)
    assert caught.value.error_class == "too_much_memory"
    assert fetch(f"{root}/song.mp3", most=len(SONG)) == SONG


@pytest.mark.parametrize(("kind", "error_class"), [("404", "not_found"), ("403", "forbidden")])
def test_what_will_not_pass_is_asked_for_once(root: str, faults: FaultyProxy, kind: str, error_class: str) -> None:
    faults.inject(Fault(kind, method=".*"))
    repeats = Repeats()
    with pytest.raises(AudioError) as caught:
        fetch(f"{root}/song.mp3", repeats)
    assert caught.value.error_class == error_class
    assert faults.injected == {kind: 1}
    assert repeats.count == 0


@pytest.mark.parametrize("kind", ["expired", "unknown key", "wrong key"])
def test_credentials_that_are_refused_are_no_fault_of_a_song(root: str, faults: FaultyProxy, kind: str) -> None:
    faults.inject(Fault(kind, method=".*"))
    with pytest.raises(StorageError, match=r"have expired.* run the same command again with new credentials"):
        fetch(f"{root}/song.mp3")
    assert faults.injected == {kind: 1}
    decoder = SongDecoder(Limits(seconds=60, memory_mb=1_000))
    with pytest.raises(StorageError, match=f"{root}/song.mp3: .* have expired"):
        decoder.decode(f"{root}/song.mp3")
    decoder.close()


def test_a_slow_answer_is_waited_for(root: str, faults: FaultyProxy) -> None:
    faults.inject(Fault("slow", seconds=0.5))
    repeats = Repeats()
    assert fetch(f"{root}/song.mp3", repeats) == SONG
    assert (repeats.count, faults.injected["slow"]) == (0, 1)


def test_a_song_of_any_size_is_one_request(root: str, faults: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsspec.get_filesystem_class("s3"), "default_block_size", len(SONG) // 3)
    faults.inject(Fault("slow", method=".*", seconds=0))
    assert fetch(f"{root}/song.mp3") == SONG
    assert storage.read_bytes(f"{root}/song.mp3") == SONG
    assert faults.injected.total() == 2


def test_a_decoder_tells_what_its_songs_fetches_cost_failed_ones_too(root: str, faults: FaultyProxy) -> None:
    decoder = SongDecoder(Limits(seconds=60, memory_mb=1_000))
    faults.inject(Fault("503", times=1))
    row = decoder.decode(f"{root}/song.mp3")
    decoder.close()
    assert (row["error_class"], row["fetch_retries"]) == ("not_audio", 1)
    assert row["fetch_retry_s"] > 0


@pytest.mark.parametrize("kind", PASSING)
def test_whatever_a_run_reads_or_writes_survives_a_fault(root: str, faults: FaultyProxy, kind: str) -> None:
    table = pa.table({"track_id": ["a", "b"]})
    storage.write_table(f"{root}/table.parquet", table)
    storage.write_bytes(f"{root}/old", b"")
    deeds: list[Callable[[], object]] = [
        lambda: storage.read_bytes(f"{root}/song.mp3") == SONG,
        lambda: storage.read_table(f"{root}/table.parquet").equals(table),
        lambda: storage.names(root)[-2:] == ["song.mp3", "table.parquet"],
        lambda: storage.exists(f"{root}/song.mp3"),
        lambda: storage.write_bytes(f"{root}/new", b"new") is None,
        lambda: storage.swap(f"{root}/created", b"created", None) != "",
        lambda: storage.remove(f"{root}/old") is None,
    ]
    if kind == "stalled":
        del deeds[4:6]  # writes are not given up so soon; the next test is theirs
    faults.inject(Fault(kind, method=".*", times=1))
    with ThreadPoolExecutor(len(deeds)) as pool:
        assert all(pool.map(lambda deed: deed(), deeds))
    assert faults.injected[kind] >= len(deeds) - 1  # table and names may be one path, its listing another
    faults.inject()
    if kind != "stalled":
        assert storage.read_bytes(f"{root}/new") == b"new"
        assert storage.read_bytes(f"{root}/created") == b"created"
    assert not storage.exists(f"{root}/old")


def test_a_put_that_nobody_answers_is_given_up_and_repeated(
    root: str, faults: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PUT_TIMEOUT_S", 1.0)
    faults.inject(Fault("stalled", method="PUT", times=1))
    storage.write_bytes(f"{root}/part", b"rows")
    assert faults.injected == {"stalled": 1}
    assert storage.read_bytes(f"{root}/part") == b"rows"
    faults.inject(Fault("stalled", method="PUT"))
    with pytest.raises(StorageError, match=f"{root}/part: cannot be written"):
        storage.write_bytes(f"{root}/part", b"other")
    assert faults.injected == {"stalled": objects.PUT_ATTEMPTS}


def test_a_refusal_names_the_place_and_what_to_do_and_absence_stays_absence(root: str, faults: FaultyProxy) -> None:
    faults.inject(Fault("403", method="PUT"), Fault("404", path="absent"))
    with pytest.raises(InputError, match=rf"^{root}/x: cannot be written \(.+\); run the same command again .+\.$"):
        storage.write_bytes(f"{root}/x", b"")
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(f"{root}/absent")


def test_a_lock_is_taken_though_the_answer_to_its_put_was_lost(root: str, faults: FaultyProxy) -> None:
    faults.inject(Fault("reset", method="PUT", times=1))
    lock = RunLock(f"{root}/_run", "extract")
    lock.acquire()
    assert faults.injected["reset"] == 1
    lock.check()
    lock.release()
    assert not storage.exists(f"{root}/_run/lock")


@pytest.mark.parametrize("kind", ["reset", "500", "503", "truncated", "hang up"])
def test_a_lock_lives_through_what_happens_to_its_heartbeats(
    root: str, faults: FaultyProxy, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(run_lock, "HEARTBEAT_SECONDS", 3_600)
    mine = RunLock(f"{root}/_run", "extract")
    mine.acquire()
    faults.inject(Fault(kind, method=".*", path="_run/lock", times=2))
    for _ in range(4):
        mine._beat()
    assert faults.injected[kind] > 0
    faults.inject()
    mine.check()
    with pytest.raises(InputError, match="in use by the extract run"):
        RunLock(f"{root}/_run", "tag").acquire()
    mine.release()


def test_where_a_storage_passes_over_conditions_the_last_to_write_has_the_lock(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditional, "put", lambda uri, data, **_: objects.put(uri, data))
    first, second = RunLock(f"{root}/_run", "extract"), RunLock(f"{root}/_run", "tag")
    first.acquire()
    with pytest.raises(InputError, match="in use by the extract run"):
        second.acquire()
    monkeypatch.setattr(run_lock, "EXPIRES_SECONDS", -1.0)
    second.acquire()
    monkeypatch.undo()
    first._beat()
    assert first._lost
    second.check()
    second.release()


def test_a_late_part_finds_nothing_to_move(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = RunLock(f"{root}/_run", "extract"), RunLock(f"{root}/_run", "extract")
    first.acquire()
    look = run_lock.check_held

    def stalled(run: str, token: str) -> None:
        look(run, token)
        monkeypatch.setattr(run_lock, "check_held", look)
        monkeypatch.setattr(run_lock, "EXPIRES_SECONDS", -1.0)
        second.acquire()

    monkeypatch.setattr(run_lock, "check_held", stalled)
    with pytest.raises(run_lock.LockLostError):
        run_lock.publish(root, "part-x.parquet", b"late", first.token)
    assert not storage.exists(f"{root}/part-x.parquet")
    run_lock.publish(root, "part-x.parquet", b"in time", second.token)
    assert storage.read_bytes(f"{root}/part-x.parquet") == b"in time"
    second.release()
    first.release()


def test_a_part_is_written_through_faults(root: str, faults: FaultyProxy) -> None:
    mine = RunLock(f"{root}/_run", "extract")
    mine.acquire()
    faults.inject(*(Fault(kind, method=".*", share=0.2, times=1) for kind in ("503", "500", "reset", "hang up")))
    for number in range(6):
        run_lock.publish(root, f"part-{number}.parquet", b"songs", mine.token)
    assert faults.injected.total() > 3
    faults.inject()
    assert [one.name for one in storage.entries(root) if "part-" in one.name] == [f"part-{n}.parquet" for n in range(6)]
    assert storage.entries(f"{root}/_run/staged") == []
    mine.release()


def test_a_bucket_that_may_not_be_written_or_is_not_there_is_told_apart(root: str, faults: FaultyProxy) -> None:
    faults.inject(Fault("403", method="PUT"))
    with pytest.raises(StorageError, match=r"cannot be written \(.*\); .* again with credentials that may"):
        RunLock(f"{root}/_run", "extract").acquire()
    faults.inject(Fault("404", method="PUT"))
    with pytest.raises(StorageError, match="check the name of the bucket"):
        storage.write_bytes(f"{root}/x", b"x")


def test_a_listing_that_is_forbidden_is_no_empty_folder(root: str, faults: FaultyProxy) -> None:
    faults.inject(Fault("403", path="list-type"))
    for listing in (storage.names, storage.entries):
        with pytest.raises(StorageError, match="cannot be read"):
            listing(root)
