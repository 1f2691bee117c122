"""One run at a time, and no dead run blocks the next."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mer_ray import storage
from mer_ray.errors import InputError, StorageError
from mer_ray.runs import lock
from mer_ray.runs.lock import LockLostError, RunLock
from mer_ray.runs.songs_directory import SongsDirectory


def folder(tmp_path: Path) -> str:
    return str(tmp_path / "out" / "_run")


def holder(tmp_path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((tmp_path / "out" / "_run" / "lock").read_text())
    return content


def leave_lock(tmp_path: Path, **facts: Any) -> None:
    """What another run left in the directory."""
    path = tmp_path / "out" / "_run" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"token": "other", "job": "tag", "host": "far-away", "pid": 4711, "heartbeat": time.time()}
    path.write_text(json.dumps({**found, **facts}))
    os.utime(path, ({**found, **facts}["heartbeat"],) * 2)


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def taken(tmp_path: Path) -> bool:
    """Whether the lock can be had now."""
    mine = RunLock(folder(tmp_path), "extract")
    try:
        mine.acquire()
    except InputError:
        return False
    assert holder(tmp_path)["pid"] == os.getpid()
    mine.release()
    return True


def test_a_second_run_is_refused_naming_job_process_and_host(tmp_path: Path) -> None:
    first = RunLock(folder(tmp_path), "extract")
    first.acquire()
    with pytest.raises(InputError) as caught:
        RunLock(folder(tmp_path), "tag").acquire()
    message = str(caught.value)
    assert message.startswith(f"output {tmp_path}/out: in use by the extract run")
    assert f"process {os.getpid()} on {socket.gethostname()}" in message
    first.check()
    first.release()


def test_a_released_lock_leaves_nothing_and_can_be_taken(tmp_path: Path) -> None:
    first = RunLock(folder(tmp_path), "extract")
    first.acquire()
    first.release()
    assert os.listdir(folder(tmp_path)) == []
    assert taken(tmp_path)


def test_a_dead_process_of_this_machine_is_taken_over_at_once(tmp_path: Path) -> None:
    leave_lock(tmp_path, machine=lock._machine(), pid=dead_process())
    assert taken(tmp_path)


def test_a_dead_process_that_nobody_waited_for_is_taken_over_at_once(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        leave_lock(tmp_path, machine=lock._machine(), pid=process.pid)
        wait_until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
        assert taken(tmp_path)


@pytest.mark.parametrize("stale", [False, True])
def test_of_runs_that_start_at_one_moment_one_has_the_lock_and_the_others_are_refused(
    tmp_path: Path, stale: bool
) -> None:
    for attempt in range(3 if stale else 20):
        place = tmp_path / str(attempt)
        if stale:
            leave_lock(place, heartbeat=0)
        together = threading.Barrier(6)

        def start(at: Path = place, together: threading.Barrier = together) -> RunLock | None:
            mine = RunLock(folder(at), "extract")
            together.wait()
            try:
                mine.acquire()
            except InputError:
                return None
            return mine

        with ThreadPoolExecutor(6) as pool:
            holders = [one for one in pool.map(lambda _: start(), range(6)) if one is not None]
        assert len(holders) == 1
        holders[0].check()
        holders[0].release()


def test_a_living_process_of_this_machine_is_not(tmp_path: Path) -> None:
    leave_lock(tmp_path, **lock._this_process())
    assert not taken(tmp_path)


def test_another_machines_lock_holds_until_its_heartbeat_expires(tmp_path: Path) -> None:
    leave_lock(tmp_path, pid=dead_process(), heartbeat=time.time() - lock.EXPIRES_SECONDS + 15)
    assert not taken(tmp_path)
    leave_lock(tmp_path, heartbeat=time.time() - lock.EXPIRES_SECONDS - 1)
    assert taken(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{torn", b"[]"])
def test_a_torn_lock_blocks_nobody(tmp_path: Path, content: bytes) -> None:
    leave_lock(tmp_path)
    (tmp_path / "out" / "_run" / "lock").write_bytes(content)
    assert taken(tmp_path)


def test_the_heartbeat_keeps_the_lock_fresh_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.02)
    mine = RunLock(folder(tmp_path), "extract")
    mine.acquire()
    first = holder(tmp_path)["heartbeat"]
    wait_until(lambda: holder(tmp_path)["heartbeat"] > first)
    mine.check()
    mine.release()
    time.sleep(0.1)
    assert os.listdir(folder(tmp_path)) == []


def test_a_run_that_lost_its_lock_finds_out_and_leaves_the_new_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.02)
    mine = RunLock(folder(tmp_path), "extract")
    mine.acquire()
    mine.check()
    leave_lock(tmp_path)
    with pytest.raises(RuntimeError, match="taken over by another run"):
        mine.check()
    wait_until(lambda: mine._lost is not None)
    assert holder(tmp_path)["token"] == "other", "the heartbeat must not write over the new holder"
    (tmp_path / "out" / "_run" / "lock").unlink()
    with pytest.raises(RuntimeError, match="taken over by another run"):
        mine.check()
    leave_lock(tmp_path)
    mine.release()
    assert holder(tmp_path)["token"] == "other"


def test_a_lock_that_vanished_counts_as_lost(tmp_path: Path) -> None:
    mine = RunLock(folder(tmp_path), "extract")
    mine.acquire()
    (tmp_path / "out" / "_run" / "lock").unlink()
    with pytest.raises(RuntimeError, match="taken over by another run"):
        mine.check()
    mine.release()


@pytest.mark.parametrize("elsewhere", ["another machine", "another boot", "another container"])
def test_a_shared_hostname_does_not_make_one_machine_of_two(tmp_path: Path, elsewhere: str) -> None:
    leave_lock(tmp_path, **{**lock._this_process(), "machine": elsewhere, "pid": dead_process()})
    assert not taken(tmp_path)


def test_a_process_that_has_a_dead_ones_number_is_another(tmp_path: Path) -> None:
    leave_lock(tmp_path, **{**lock._this_process(), "process_started": "1"})
    assert taken(tmp_path)


@pytest.mark.parametrize("skew_s", [-86_400, -300, 300, 86_400])
def test_a_host_whose_clock_is_wrong_neither_robs_nor_is_robbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew_s: float
) -> None:
    right = time.time
    first = RunLock(folder(tmp_path), "extract")
    first._holder["machine"] = "another"
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time", lambda: right() + skew_s)
        first.acquire()
    assert not taken(tmp_path)
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time", lambda: right() + skew_s)
        assert not taken(tmp_path)
    first.check()
    first._heartbeat.stop()
    old = right() - lock.EXPIRES_SECONDS - 1
    os.utime(tmp_path / "out" / "_run" / "lock", (old, old))
    assert taken(tmp_path), "dead, whatever its own clock said"


def test_a_run_that_waits_says_for_whom_and_begins_when_they_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.02)
    first, second = RunLock(folder(tmp_path), "extract"), RunLock(folder(tmp_path), "tag")
    first.acquire()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(second.acquire, wait=True)
        time.sleep(0.3)
        assert not waiting.done()
        first.release()
        waiting.result(timeout=20)
    second.check()
    second.release()
    line = f"tag: waiting for the extract run with process {os.getpid()} on {socket.gethostname()}\n"
    assert capsys.readouterr().out == line


def test_a_writer_that_wakes_up_after_its_look_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However late: what it put down has been deleted by who took over."""
    first, look = RunLock(folder(tmp_path), "extract"), lock.check_held
    first.acquire()

    def stalled(run: str, token: str) -> None:
        look(run, token)
        monkeypatch.setattr(lock, "check_held", look)
        first._heartbeat.stop()
        old = time.time() - lock.EXPIRES_SECONDS - 1
        os.utime(tmp_path / "out" / "_run" / "lock", (old, old))
        second.acquire()

    second = RunLock(folder(tmp_path), "extract")
    monkeypatch.setattr(lock, "check_held", stalled)
    with pytest.raises(LockLostError, match="lost its lock; it writes nothing more"):
        lock.publish(str(tmp_path / "out"), "part-x.parquet", b"late", first.token)
    assert os.listdir(tmp_path / "out") == ["_run"]
    lock.publish(str(tmp_path / "out"), "part-x.parquet", b"in time", second.token)
    assert (tmp_path / "out" / "part-x.parquet").read_bytes() == b"in time"
    second.release()


def test_a_lock_is_looked_at_when_the_bytes_are_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, write = RunLock(folder(tmp_path), "extract"), storage.write_bytes
    mine.acquire()

    def slow(uri: str, data: bytes) -> None:
        write(uri, data)
        leave_lock(tmp_path)

    monkeypatch.setattr(storage, "write_bytes", slow)
    with pytest.raises(LockLostError):
        lock.publish(str(tmp_path / "out"), "part-x.parquet", b"late", mine.token)
    assert os.listdir(tmp_path / "out") == ["_run"]
    assert os.listdir(tmp_path / "out" / "_run" / "staged") == []
    mine.release()


def test_what_was_put_down_and_is_gone_while_the_lock_is_held_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, write = RunLock(folder(tmp_path), "extract"), storage.write_bytes
    mine.acquire()

    def cleaned(uri: str, data: bytes) -> None:
        write(uri, data)
        os.unlink(uri)

    monkeypatch.setattr(storage, "write_bytes", cleaned)
    with pytest.raises(StorageError, match=r"_run/staged/part-x.parquet.*: cannot be moved"):
        lock.publish(str(tmp_path / "out"), "part-x.parquet", b"x", mine.token)
    mine.release()


def test_the_heartbeats_own_file_is_no_leftover_of_a_killed_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.0005)
    manifest = pa.table({"track_id": pa.array([], pa.string()), "uri": pa.array([], pa.string())})
    with SongsDirectory(str(tmp_path / "out"), "extract") as output:
        output.begin({}, {}, manifest)
        for _ in range(20):
            output.finish()
        output.lock.check()
    assert not [name for name in os.listdir(folder(tmp_path)) if name.endswith(".tmp")]


def wait_until(true: Any) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
