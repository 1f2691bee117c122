"""A Ray that is not there, or cannot start, is a sentence and no wait of minutes."""

import os
from typing import NoReturn

import pytest

from mer_ray.cluster import session
from mer_ray.errors import InputError
from tests.support.s3 import free_ports


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has joined none; that of the other tests has."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:{port}", r"RAY_ADDRESS 127.0.0.1:\d+: does not answer \(.*refused\); start that Ray, or unset"),
        ("http://127.0.0.1:8265", "RAY_ADDRESS http://127.0.0.1:8265: not the HOST:PORT of a head; .*ray job submit"),
        ("ray://127.0.0.1:10001", "RAY_ADDRESS ray://127.0.0.1:10001: not the HOST:PORT"),
        ("head", "RAY_ADDRESS head: not the HOST:PORT"),
        ("127.0.0.1:99999999", "RAY_ADDRESS 127.0.0.1:99999999: does not answer"),
    ],
)
def test_a_cluster_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, address: str, said: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address.format(port=free_ports(1)[0]))
    with pytest.raises(InputError, match=said):
        session.connect()


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file or directory", "/nowhere"), RuntimeError("no room.\nmore of it")]
)
def test_a_ray_that_cannot_start_is_a_sentence(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails() -> NoReturn:
        raise error

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(session, "_begin", fails)
    with pytest.raises(InputError, match=r"^Ray: none could be joined or started here: .*(nowhere|no room)'?\. RAY_"):
        session.connect()


@pytest.mark.parametrize(("joined", "watched"), [(True, None), (False, "0")])
def test_a_training_looks_out_for_nodes_that_are_taken_back_on_a_cluster_alone(
    monkeypatch: pytest.MonkeyPatch, joined: bool, watched: str | None
) -> None:
    name = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
    monkeypatch.setenv(name, "")
    monkeypatch.delenv(name)
    monkeypatch.setattr(session.unpromised, "is_running", lambda: joined)
    monkeypatch.setattr(session.unpromised, "keep_to_loopback", lambda: None)
    monkeypatch.setattr("ray.init", lambda **_: None)
    session._begin()
    assert os.environ.get(name) == watched
