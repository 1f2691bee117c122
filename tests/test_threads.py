"""A ticker calls until it is stopped, and not once more; a call aside comes back, or is left behind."""

import subprocess
import sys
import time

import pytest

from mer_ray.threads import Ticker, aside, still_called

INTERRUPTED = """
import atexit, sys, time
from mer_ray.commandline import run
from mer_ray.settings import JobSettings
from mer_ray.threads import aside
atexit.register(print, "shut down")
def job(settings):
    try:
        aside(lambda: time.sleep(3600), 0.1)
    except TimeoutError:
        raise KeyboardInterrupt from None
sys.argv = ["job"]
raise SystemExit(run(job, JobSettings))
"""


def test_it_calls_again_and_again_between_start_and_stop() -> None:
    ticks: list[float] = []
    ticker = Ticker("test", 0.01, lambda: ticks.append(time.monotonic()))
    time.sleep(0.05)
    assert not ticks
    ticker.start()
    deadline = time.monotonic() + 20
    while len(ticks) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    ticker.stop()
    counted = len(ticks)
    time.sleep(0.05)
    assert len(ticks) == counted >= 3


def test_one_that_never_began_can_be_stopped() -> None:
    Ticker("test", 1.0, lambda: None).stop()


def test_a_call_aside_answers_raises_or_is_left_behind() -> None:
    assert aside(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        aside(lambda: 1 // 0)
    with pytest.raises(TimeoutError):
        aside(lambda: time.sleep(0.5), 0.01)
    assert still_called()


def test_a_job_interrupted_while_a_call_hangs_ends_in_order_and_at_once() -> None:
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (130, "shut down\n"), ended.stderr
    assert ended.stderr.splitlines()[-1] == "interrupted; the same command goes on where this one stopped."
