"""A loss that lives outside the package is trained with by name, and a module that is none is refused."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Job, done, refused

Train = Callable[..., "subprocess.CompletedProcess[str]"]

HINGE = '''
from typing import Annotated

from mer_ray.learning.losses import Batch, unit
from mer_ray.settings import READING, Part


class Settings(Part):
    gap: Annotated[float, READING] = 0.5
    """How far the nearest wrong word is to be."""


def loss(batch: Batch, settings):
    cosines_BL = unit(batch.projected_BE) @ unit(batch.targets_LE).T
    right_B = cosines_BL.masked_fill(~batch.truth_BL, -2).amax(1)
    wrong_B = cosines_BL.masked_fill(batch.truth_BL, -2).amax(1)
    return (wrong_B - right_B + settings.gap).relu().mean()
'''
MODULES = {
    "hinge": HINGE,
    "vector": "def loss(batch, settings):\n    return batch.projected_BE.sum(1)\n",
    "undefined": "def loss(batch, settings):\n    return batch.projected_BE.sum() * float('nan')\n",
    "empty": "",
}


@pytest.fixture
def train(store: Path, job: Job, tmp_path: Path) -> Train:
    """``python jobs/train.py`` as its user runs it, in a folder with modules of their own."""
    (tmp_path / "my_losses").mkdir()
    for name, text in MODULES.items():
        (tmp_path / "my_losses" / f"{name}.py").write_text(text)
    data = ["--train", store / "demo-gems.parquet", "--features", store / "features", "--epochs", 2]

    def run(*flags: object) -> subprocess.CompletedProcess[str]:
        return job("train", *data, *flags, cwd=tmp_path)

    return run


def test_a_loss_of_ones_own_trains_the_same_with_a_ray_worker_and_without(train: Train, tmp_path: Path) -> None:
    hinge = ("--loss", "my_losses.hinge", "--gap", 0.3)
    done(train(*hinge, "--model", "here", "--workers", 0))
    config = json.loads((tmp_path / "here" / "config.json").read_text())
    assert (config["readings"]["loss"], config["readings"]["gap"]) == ("my_losses.hinge", 0.3)
    assert "temperature" not in config["settings"]
    assert "gap is 0.3 there, 0.4 asked" in refused(train(*hinge[:3], 0.4, "--model", "here", "--workers", 0))
    done(train(*hinge, "--model", "there", "--workers", 1))
    histories = [json.loads((tmp_path / name / "metrics.json").read_text())["history"] for name in ("here", "there")]
    for one, other in zip(*histories, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("vector", r"--loss my_losses\.vector: gives a tensor of shape \[\d+\]"),
        ("undefined", r"--loss my_losses\.undefined: is nan in step 1 of epoch 1"),
        ("empty", "the module defines no 'loss', as"),
        ("missing", "no such loss; give one of contrastive, soft_triplet, triplet, or a module"),
    ],
)
def test_what_is_no_loss_ends_in_one_sentence(train: Train, name: str, named: str) -> None:
    sentence = refused(train("--loss", f"my_losses.{name}", "--model", "m", "--workers", 0))
    assert re.search(named, sentence), sentence
