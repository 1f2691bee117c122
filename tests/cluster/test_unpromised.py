"""What Ray does not promise is there in the version in use, and each use has its way where it is not."""

import os
import re
import sys
from typing import Any

import pytest

from mer_ray.cluster import unpromised
from tests.support import ROOT


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A Ray whose private modules are somewhere else."""
    for name in ("services", "ray_constants", "node", "parameter"):
        monkeypatch.setitem(sys.modules, f"ray._private.{name}", None)
    monkeypatch.setitem(sys.modules, "ray.train.v2.api.config", None)
    return monkeypatch


def test_this_version_of_ray_has_what_it_is_said_to_have() -> None:
    import ray
    from ray._private import ray_constants
    from ray._private.node import Node
    from ray._private.parameter import RayParams
    from ray.data import Dataset

    assert ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR == unpromised.CLUSTERS_VARIABLE
    assert isinstance(ray_constants.ENABLE_RAY_CLUSTER, bool)
    assert all(hasattr(Node, name) for name in unpromised.NOT_ASKED)
    assert RayParams(dashboard_agent_listen_port=0).dashboard_agent_listen_port == 0
    newest = tuple(map(int, ray.__version__.split(".")[:2])) >= (2, 60)
    assert hasattr(Dataset, "map_batches_internal") == newest
    if newest:
        assert unpromised.quiet_training()["logging_config"].log_level == "ERROR"


def test_a_node_is_bare_only_while_it_starts() -> None:
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    def found() -> list[Any]:
        return [*(getattr(Node, name) for name in unpromised.NOT_ASKED), RayParams.__init__]

    before = found()
    with unpromised.bare_node():
        assert not {*found()} & {*before}
        assert Node.start_monitor(object()) is None
        assert RayParams().dashboard_agent_listen_port == 0
    assert found() == before


def test_without_rays_word_a_running_ray_is_the_one_that_the_environment_names(gone: pytest.MonkeyPatch) -> None:
    gone.delenv("RAY_ADDRESS", raising=False)
    assert not unpromised.is_running()
    gone.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert unpromised.is_running()


def test_without_the_private_modules_a_node_starts_whole_and_a_training_says_what_it_likes(
    gone: pytest.MonkeyPatch,
) -> None:
    gone.setenv(unpromised.CLUSTERS_VARIABLE, "1")
    unpromised.keep_to_loopback()
    assert os.environ[unpromised.CLUSTERS_VARIABLE] == "0"
    with unpromised.bare_node():
        pass
    assert unpromised.quiet_training() == {}


def test_without_the_inner_map_a_stage_on_gpus_gets_a_number_of_songs_at_a_time() -> None:
    class Public:
        def map_batches(self, stage: type, **options: Any) -> tuple[type, dict[str, Any]]:
            return stage, options

    class Inner(Public):
        def map_batches_internal(self, stage: type, **options: Any) -> tuple[type, dict[str, Any]]:
            return stage, options

    for blocks, gpus, size in ((Public(), 1, 7), (Public(), None, None), (Inner(), 1, None)):
        made: Any = unpromised.map_as_they_come(blocks, int, 7, num_gpus=gpus)  # type: ignore[arg-type]
        assert made == (int, {"batch_size": size, "batch_format": "pyarrow", "num_gpus": gpus})


def test_nothing_else_leans_on_it() -> None:
    files = [path for path in (ROOT / "mer_ray").rglob("*.py") if path.name != "unpromised.py"]
    assert len(files) > 50
    leaning = re.compile(r"\bray\._|\bray\.train\.v2|\bray\.\w+\.internal|_internal\(")
    assert [str(path) for path in files if leaning.search(path.read_text())] == []


def test_the_cores_greeting_is_left_out_and_what_else_is_said_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    with unpromised.without_greeting():
        os.write(2, b"[2026 I 1 1] logging.cc:303: Set ray log level from environment variable\nan error\n")
    assert capfd.readouterr().err == "an error\n"
