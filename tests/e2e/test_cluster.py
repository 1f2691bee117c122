"""A Ray of several nodes: work stands where its resources are, and a node lost for good loses no song."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mer_ray import storage
from mer_ray.catalog.sources import load_catalog
from tests.support import ROOT
from tests.support.chaos import assert_same, rows_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def night(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What was seen of an extraction that lost one of its two GPU nodes, and the feature store it left."""
    folder = tmp_path_factory.mktemp("several-nodes")
    storage.write_table(str(folder / "songs.parquet"), load_catalog(str(world / "demo-gems.tsv")))
    command = [sys.executable, str(ROOT / "tests" / "support" / "several_nodes.py"), str(folder / "songs.parquet")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    environment.pop("RAY_ADDRESS", None)
    run = subprocess.run(
        [*command, str(folder / "features")], env=environment, capture_output=True, text=True, timeout=290, cwd=ROOT
    )
    assert run.returncode == 0, run.stderr
    seen: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return seen, folder / "features"


def test_songs_are_decoded_where_cpus_are_and_encoded_where_gpus_are(night: tuple[dict[str, Any], Path]) -> None:
    ran = {name: set(kinds) for name, kinds in night[0]["ran"].items()}
    assert {"decode worker", "decoder"} <= ran["cpu"]
    assert "encoder" not in ran["cpu"]
    # The CPU of a GPU's node decodes as well, until its encoder takes it.
    assert "encoder" in ran["gpu"] & ran["lost gpu"]


def test_the_run_goes_on_without_a_node_that_is_lost_and_never_replaced(
    night: tuple[dict[str, Any], Path], store: Path
) -> None:
    seen, features = night
    assert seen["struck"], f"the node was not lost while songs were to do: {seen}"
    assert seen["code"] == 0, seen["printed"]
    assert "2 encoders (2 GPUs" in seen["printed"]
    undisturbed: pa.Table = rows_of(store / "features")
    assert_same(features, undisturbed)


@pytest.fixture(scope="module")
def shrunk(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What was seen of two extracts on a cluster that lost a node before the first and another during the second."""
    folder = tmp_path_factory.mktemp("shrinking")
    storage.write_table(str(folder / "songs.parquet"), load_catalog(str(world / "demo-gems.tsv")))
    command = [sys.executable, "-m", "tests.support.shrinking", str(folder / "songs.parquet"), str(folder)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment.pop("RAY_ADDRESS", None)
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1]), folder


@pytest.mark.timeout(600)
def test_a_node_that_is_lost_just_before_a_run_is_not_counted(shrunk: tuple[dict[str, Any], Path], store: Path) -> None:
    night, folder = shrunk[0]["before"], shrunk[1] / "before"
    assert night["code"] == 0, night["printed"]
    assert "2 encoders (CPU" in night["printed"], "planned for the four CPUs that were left"
    assert_same(folder, rows_of(store / "features"))


@pytest.mark.timeout(600)
def test_a_run_whose_encoders_would_hold_all_that_is_left_says_so_and_plans_anew(
    shrunk: tuple[dict[str, Any], Path], store: Path
) -> None:
    night, folder = shrunk[0]["during"], shrunk[1] / "during"
    assert night["code"] == 0, night["printed"]
    # Ray Data's own actors may have been on that node as well: then it is their loss that ends the pass.
    why = r"(1 node went, and the encoders hold what decoding needs|what the pass stood on is gone .*); plans anew"
    assert re.search(why, night["printed"]), night["printed"]
    assert_same(folder, rows_of(store / "features"))
