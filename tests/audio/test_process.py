"""A decoder that crashes, hangs or eats memory takes down its song, and the next song is decoded.

The functions before the tests are what the child runs in place of the real decoder.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO

import numpy as np
import pytest
from numpy.typing import NDArray

from mer_ray.audio import DecodedTrack, decode_windows
from mer_ray.audio import process as isolation
from mer_ray.audio.process import CRASH_RETRIES, Limits, SongDecoder, room_for
from mer_ray.audio.wire import Row
from mer_ray.cluster.settings import ExtractSettings
from mer_ray.commandline import parse
from mer_ray.errors import InputError
from tests.support import ROOT
from tests.support.bad_songs import long_wav, tones

LIMITS = Limits(seconds=30, memory_mb=500)
MakeDecoder = Callable[..., SongDecoder]


def misbehave(file: BinaryIO, **options: object) -> DecodedTrack:
    """Do what the song says, and say so on standard error: there is no file that a decoder could write to."""
    deed = file.read().decode()
    print(f"attempt at {deed}", file=sys.stderr, flush=True)
    return DEEDS[deed]()


def _fine() -> DecodedTrack:
    return DecodedTrack(np.full((2, 240_000), 0.5, np.float32), None, 20.0, False, 0)


def _segfault() -> DecodedTrack:
    ctypes.string_at(0)
    raise AssertionError("unreachable")


def _raise_signal(number: int) -> DecodedTrack:
    os.kill(os.getpid(), number)
    return _fine()


def _sleep() -> DecodedTrack:
    time.sleep(1_000)
    return _fine()


def _spin_in_c() -> DecodedTrack:
    """As a codec in an endless loop: Python never gets a turn, nor does a signal handler of its own."""
    ctypes.PyDLL(None).sleep(1_000)
    return _fine()


def _eat_memory() -> DecodedTrack:
    held = []
    while True:
        held.append(np.ones(1_000_000))


def _talk_nonsense() -> DecodedTrack:
    for descriptor in range(3, 64):  # standard error is not the parent's to read
        try:
            os.write(descriptor, b"\xff" * 100)
        except OSError:
            continue
    return _fine()


def _raise() -> DecodedTrack:
    raise RuntimeError("a surrogate \udcff in it")


def _list_modules() -> DecodedTrack:
    raise RuntimeError(" ".join(name for name in ("torch", "ray", "transformers") if name in sys.modules) or "none")


def _look_around() -> DecodedTrack:
    """Try what a codec that a song has taken over would try; says what worked."""
    tries: dict[str, Callable[[], object]] = {
        "a file of the user": lambda: os.listdir("/root" if os.path.isdir("/root") else "/home"),
        "a file of the machine": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "the parent's environment": lambda: os.open(f"/proc/{os.getppid()}/environ", os.O_RDONLY),
        "a new file": lambda: os.open("/tmp/left-by-a-decoder", os.O_WRONLY | os.O_CREAT),
        "a TCP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "a UDP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "another program": lambda: os.execv("/bin/true", ["true"]),
        "a look into the parent": lambda: _or_raise(ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0)),
    }
    worked = []
    for name, attempt in tries.items():
        with suppress(OSError):
            attempt()
            worked.append(name)
    raise RuntimeError(", ".join(worked) or "nothing")


def _or_raise(code: int) -> None:
    if code < 0:
        raise OSError


DEEDS: dict[str, Callable[[], DecodedTrack]] = {
    "fine": _fine,
    "segfault": _segfault,
    "abort": os.abort,
    "be killed": lambda: _raise_signal(signal.SIGKILL),
    "stop": lambda: _raise_signal(signal.SIGSTOP),
    "exit": lambda: os._exit(3),
    "sleep": _sleep,
    "spin": _spin_in_c,
    "eat": _eat_memory,
    "nonsense": _talk_nonsense,
    "raise": _raise,
    "modules": _list_modules,
    "look around": _look_around,
}


def fall_once(file: BinaryIO, **options: object) -> DecodedTrack:
    """Die at the first attempt at a song and decode it at the second, which gets the same open file with its flags."""
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    if not flags & os.O_NONBLOCK:
        fcntl.fcntl(file, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        os.kill(os.getpid(), signal.SIGKILL)
    return _fine()


class DeedDecoder(SongDecoder):
    """Takes a deed for a song, a file that says what is to be done."""

    def decode(self, uri: str, **options: Any) -> Row:
        if uri not in DEEDS:
            return super().decode(uri, **options)
        with NamedTemporaryFile("w") as file:
            file.write(uri)
            file.flush()
            return super().decode(file.name, **options)


@pytest.fixture
def decoder() -> Iterator[MakeDecoder]:
    made = []

    def make(limits: Limits = LIMITS, reader: str = "tests.audio.test_process:misbehave") -> SongDecoder:
        made.append(DeedDecoder(limits, reader))
        return made[-1]

    yield make
    for one in made:
        one.close()


def is_fine(row: Row) -> bool:
    return row["status"] == "ok" and len(row["windows"]) == 2


def attempts(deed: str, capfd: pytest.CaptureFixture[str]) -> int:
    return capfd.readouterr().err.count(f"attempt at {deed}\n")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("segfault", "SIGSEGV"),
        ("abort", "SIGABRT"),
        ("be killed", "SIGKILL, as when the machine runs out of memory"),
        ("exit", "exit code 3"),
        ("nonsense", "makes no sense"),
    ],
)
def test_a_song_that_kills_its_decoder_is_retried_then_crashed_and_the_next_is_decoded(
    deed: str,
    said: str,
    decoder: MakeDecoder,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isolation, "_REAP_SECONDS", 0.2)  # nonsense comes from a child that lives on
    one = decoder()
    row = one.decode(deed)
    assert (row["status"], row["error_class"]) == ("failed", "crashed")
    assert said in row["error"]
    assert f": {1 + CRASH_RETRIES} decoders died of it" in row["error"]
    assert attempts(deed, capfd) == 1 + CRASH_RETRIES
    assert is_fine(one.decode("fine"))


def test_a_song_whose_decoder_died_by_chance_is_retried_and_good(decoder: MakeDecoder) -> None:
    one = decoder(reader="tests.audio.test_process:fall_once")
    assert is_fine(one.decode("fine"))


@pytest.mark.parametrize("deed", ["sleep", "spin", "stop"])
def test_a_song_that_hangs_is_ended_in_time_and_not_retried(
    deed: str, decoder: MakeDecoder, capfd: pytest.CaptureFixture[str]
) -> None:
    one = decoder(Limits(seconds=1.0, memory_mb=500))
    assert is_fine(one.decode("fine"))
    started, pid = time.monotonic(), one.pid
    row = one.decode(deed)
    assert 1.0 <= time.monotonic() - started < 15.0
    assert row["error_class"] == "timeout"
    assert "not decoded within 1 s (--song-timeout-s)" in row["error"]
    assert attempts(deed, capfd) == 1
    assert not alive(pid or 0)
    assert is_fine(one.decode("fine"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the memory of a process")
def test_a_song_that_eats_memory_is_ended_at_the_limit_and_not_retried(
    decoder: MakeDecoder, capfd: pytest.CaptureFixture[str]
) -> None:
    one = decoder()
    row = one.decode("eat")
    assert row["error_class"] == "too_much_memory"
    assert "500 MB (--decoder-memory-mb)" in row["error"]
    assert attempts("eat", capfd) == 1
    assert is_fine(one.decode("fine"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the memory of a process")
def test_a_real_song_too_long_for_the_memory_says_so(decoder: MakeDecoder, tmp_path: Path) -> None:
    long_wav(tmp_path / "long.wav", hours=2.0)
    one = decoder(reader="mer_ray.audio.child:read_song")
    assert one.decode(str(tmp_path / "long.wav"))["error_class"] == "too_much_memory"


def test_three_hours_pass_under_the_default_limits(decoder: MakeDecoder, tmp_path: Path) -> None:
    long_wav(tmp_path / "long.wav", hours=3.0)
    one = decoder(Limits(memory_mb=room_for(3 * 3_600, 24_000)), "mer_ray.audio.child:read_song")
    row = one.decode(str(tmp_path / "long.wav"), max_seconds=4 * 3_600.0)
    assert (row["status"], row["duration_s"], row["truncated"]) == ("ok", 3 * 3_600, False)
    assert len(row["windows"]) == len(row["scales"]) == 1_080


def test_an_exception_that_nobody_foresaw_is_a_row_that_any_table_takes(decoder: MakeDecoder) -> None:
    row = decoder().decode("raise")
    assert row["error_class"] == "decoder_error"
    assert row["error"] == "RuntimeError: a surrogate ? in it"


def test_a_decoder_that_cannot_start_is_no_fault_of_the_song(
    decoder: MakeDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    row = decoder(reader="tests.audio.test_process:misspelt").decode("fine")
    assert row["error_class"] == "no_decoder"
    assert f"No decoder starts on {os.uname().nodename}: exit code 1" in row["error"]


def test_the_child_is_kept_between_songs_and_holds_neither_ray_nor_torch(decoder: MakeDecoder) -> None:
    one = decoder()
    assert one.pid is None, "started before its first song"
    assert one.decode("modules")["error"] == "RuntimeError: none"
    pid = one.pid
    assert is_fine(one.decode("fine"))
    assert one.pid == pid


def test_a_child_that_dies_between_songs_is_replaced_and_costs_no_attempt(
    decoder: MakeDecoder, capfd: pytest.CaptureFixture[str]
) -> None:
    one = decoder()
    one.decode("fine")
    os.kill(one.pid or 0, signal.SIGKILL)
    assert gone_within(one.pid or 0, 15.0)
    assert is_fine(one.decode("fine"))
    assert attempts("fine", capfd) == 2


def test_an_interrupted_song_leaves_no_half_answer_to_the_next(decoder: MakeDecoder) -> None:
    class InterruptionError(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise InterruptionError

    one = decoder()
    one.decode("fine")
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(InterruptionError):
            one.decode("sleep")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert is_fine(one.decode("fine"))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a busy child ends by its own alarm")
@pytest.mark.parametrize("deed", ["fine", "sleep", "spin"])
def test_the_child_dies_with_its_parent_busy_or_idle(deed: str) -> None:
    code = (
        "from mer_ray.audio.process import *; import sys, time\n"
        "from tests.audio.test_process import DeedDecoder\n"
        f"d = DeedDecoder(Limits({LIMITS.seconds}, {LIMITS.memory_mb}), 'tests.audio.test_process:misbehave')\n"
        f"d.decode('fine'); print(d.pid, flush=True); d.decode({deed!r}); time.sleep(1000)"
    )
    root = ROOT
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root) as parent:
        assert parent.stdout is not None
        try:
            child = int(parent.stdout.readline())
            time.sleep(0.3)
            assert alive(child)
        finally:
            parent.kill()
    assert gone_within(child, 15.0)


def test_a_song_comes_back_as_it_was_decoded_and_isolation_costs_little(decoder: MakeDecoder, tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(tones(44_100, 2, 60.0, "MP3", "MPEG_LAYER_III"))
    one = decoder(reader="mer_ray.audio.child:read_song")
    row = one.decode(str(path), keep_tail=True, window_seconds=8.0)
    track = decode_windows(path, keep_tail=True, window_seconds=8.0)
    assert track.tail is not None
    for piece, scale, window in zip([*track.windows, track.tail], row["scales"], row["windows"], strict=True):
        assert np.abs(np.frombuffer(window, np.int16) * scale - piece).max() <= scale / 2 + 1e-7
    assert row["duration_s"] == track.duration_s == pytest.approx(60.0)
    inside, apart = [], []
    for _ in range(7):  # in turn, so that both meet the same neighbours on the machine
        inside.append(_seconds(lambda: [_packed(window) for window in decode_windows(path).windows]))
        apart.append(_seconds(lambda: one.decode(str(path))))
    print(f"\n60 s of MP3: {min(inside) * 1e3:.1f} ms in process, {min(apart) * 1e3:.1f} ms isolated")
    assert min(apart) < 2 * min(inside), "isolation costs much more than the few percent it should"


def _packed(window: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.rint(window / (np.abs(window).max() / 32767)).astype(np.int16)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def test_the_memory_limit_fits_the_longest_song_unless_it_is_set() -> None:
    from mer_ray.cluster.extract import _decoding
    from mer_ray.encoders import Encoder

    def limits(settings: ExtractSettings, rate: int = 24_000) -> Limits:
        return _decoding(settings, Encoder(str, "tiny", 4, rate, "none", "none")).limits

    flags = ["--catalog", "/c", "--features", "/f"]
    assert limits(parse(ExtractSettings, flags)) == Limits(600.0, room_for(2 * 3_600, 24_000))
    short = parse(ExtractSettings, [*flags, "--max-minutes", "10"])
    assert limits(short) == Limits(600.0, room_for(600, 24_000))
    assert limits(short, 48_000).memory_mb > room_for(600, 24_000)
    chosen = [*flags, "--song-timeout-s", "30", "--decoder-memory-mb", "700"]
    assert limits(parse(ExtractSettings, chosen)) == Limits(30.0, 700)
    with pytest.raises(InputError, match="decoder-memory-mb"):
        parse(ExtractSettings, [*flags, "--decoder-memory-mb", "20"])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel offers no walls")
def test_a_decoder_has_no_secret_no_network_no_files_and_no_new_privileges(
    decoder: MakeDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "RAY_ADDRESS", "MER_SETTINGS", "HOME"):
        monkeypatch.setenv(name, "a secret")
    one = decoder()
    assert one.decode("look around")["error"] == "RuntimeError: nothing"
    here = Path(f"/proc/{one.pid}")
    environment = (here / "environ").read_text()
    names = {line.partition("=")[0] for line in environment.split("\0") if line}
    ours = {"PYTHONPATH", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"}
    assert names <= {*isolation.ENVIRONMENT, *ours}
    assert "a secret" not in environment
    links = [os.readlink(link) for link in (here / "fd").iterdir() if int(link.name) > 2]
    assert [link.partition(":")[0] for link in links] == ["socket"], "none but the one to its parent"
    status = dict(line.split(":\t", 1) for line in (here / "status").read_text().splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert {"landlock", "seccomp"} & {*one.walls}, "a kernel that closes nothing off"
    if "namespaces" in one.walls:
        devices = (here / "net" / "dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in devices] == ["lo"]


def test_nothing_of_the_parent_leaks_into_the_child(decoder: MakeDecoder) -> None:
    ours, theirs = socket.socketpair()
    one = decoder()
    one.decode("fine")
    theirs.close()
    ours.settimeout(5.0)
    assert ours.recv(1) == b"", "the child holds a socket of its parent open"
    ours.close()
