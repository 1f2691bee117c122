"""A ticker calls until it is stopped, and not once more."""

import time

from mer_ray.threads import Ticker


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
