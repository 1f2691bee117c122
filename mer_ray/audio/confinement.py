"""Walls around a process that reads what strangers wrote: bounds, and what the kernel can close off of the world.

Each wall stands by itself, so that where one is not to be had (an older kernel, a container's own rules) the others
hold: ``namespaces`` leave no network and no power over other processes; ``landlock`` leaves no file but the libraries
to read, and none to write; ``seccomp`` refuses new sockets, programs and a look into other processes. What was open
before, such as the socket to the parent, stays usable.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import platform
import resource
import signal
import struct
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x1000_0000, 0x4000_0000
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_READ = 1 << 2 | 1 << 3  # files, folders
_LANDLOCK_FS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""By version of the kernel's interface: how many kinds of access to files it knows."""
_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/dev/urandom")

_REFUSED_CALLS = {
    # socket, connect, bind, listen, accept, accept4, execve, execveat, ptrace, process_vm_readv, process_vm_writev,
    # io_uring_setup, unshare, setns, mount, keyctl, add_key, request_key, bpf, perf_event_open, userfaultfd,
    # pidfd_getfd
    "x86_64": (
        0xC000_003E,
        (41, 42, 49, 50, 43, 288, 59, 322, 101, 310, 311, 425, 272, 308, 165, 250, 248, 249, 321, 298, 323, 438),
    ),
    "aarch64": (
        0xC000_00B7,
        (198, 203, 200, 201, 202, 242, 221, 281, 117, 270, 271, 425, 97, 268, 40, 219, 217, 218, 280, 241, 282, 438),
    ),
}
"""By machine: its name in the kernel, and the numbers of what is refused."""


def bound(parent: int, memory_mb: int) -> None:
    """Bound the memory of this process, and tie its life to the parent's.

    RLIMIT_DATA counts what is private and writable, which is what a song makes grow. RLIMIT_AS would also
    count mapped libraries and reserved addresses, hundreds of MB that differ from machine to machine.
    Without Linux the kernel enforces neither, and time limit and crashes are all that is guarded.
    """
    faulthandler.enable()  # a crash leaves the line that called the codec in the worker's log
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    hard, limit = resource.getrlimit(resource.RLIMIT_DATA)[1], memory_mb * 1_000_000
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a night of bad songs must not fill the disk with dumps
    if sys.platform == "linux":
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # where memory runs out, rather this process than Ray's
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def wall_off() -> list[str]:
    """Close off what the kernel lets this process close off, for good; the names of the walls that stand.

    Called with all that is needed imported, before any thread is started.
    """
    if sys.platform != "linux" or _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return []
    walls = {"namespaces": _namespaces, "landlock": _landlock, "seccomp": _seccomp}
    return [name for name, build in walls.items() if build()]


def _namespaces() -> bool:
    done = _LIBC.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # new credentials take it away
    return done


def _landlock() -> bool:
    """Nothing can be read below any folder but those of Python and of the system's libraries."""
    version = _LIBC.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return False
    kinds = (1 << _LANDLOCK_FS.get(version, 16)) - 1
    # Of newer kernels also TCP (bind, connect), and abstract sockets and signals beyond this process's own.
    fields = [kinds, *([3] if version >= 4 else []), *([3] if version >= 6 else [])]
    asked = struct.pack(f"={len(fields)}Q", *fields)
    rules = _LIBC.syscall(_LANDLOCK_CREATE, asked, len(asked), 0)
    if rules < 0:
        return False
    try:
        python = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
        for place in {*python, str(Path(__file__).parents[1]), *_SYSTEM_LIBRARIES}:
            with suppress(FileNotFoundError):
                _may_be_read(rules, place)
        return _LIBC.syscall(_LANDLOCK_RESTRICT, rules, 0) == 0
    finally:
        os.close(rules)


def _may_be_read(rules: int, place: str) -> None:
    descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        access = _LANDLOCK_READ if os.path.isdir(place) else 1 << 2
        _LIBC.syscall(_LANDLOCK_ADD, rules, 1, struct.pack("=Qi", access, descriptor), 0)
    finally:
        os.close(descriptor)


def _seccomp() -> bool:
    """A filter in the kernel's own little language (BPF): 8 bytes a step, which compares a number or ends."""
    if platform.machine() not in _REFUSED_CALLS:
        return False
    machine, calls = _REFUSED_CALLS[platform.machine()]
    load, equal, reaches, end = 0x20, 0x15, 0x35, 0x06
    allowed, refused = 0x7FFF_0000, 0x0005_0001  # the latter: fails with EPERM
    steps = [(load, 0, 0, 4), (equal, 0, len(calls) + 3, machine), (load, 0, 0, 0)]
    steps.append((reaches, len(calls) + 1, 0, 0x4000_0000))  # the calls of a second kind that x86 has
    steps += [(equal, len(calls) - at, 0, call) for at, call in enumerate(calls)]
    steps += [(end, 0, 0, allowed), (end, 0, 0, refused)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(code)))
    return _LIBC.prctl(_PR_SET_SECCOMP, 2, program, 0, 0) == 0
