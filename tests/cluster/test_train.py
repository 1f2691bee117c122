"""A training goes on in its own directory, those begun by older code among them, and in no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mer_ray.cluster.train import _begin
from mer_ray.errors import InputError
from mer_ray.runs.directory import RunDirectory

OF_EVERY_LOSS = {"temperature": 0.1, "margin": 1.0, "positive": "mean", "negatives": 1}
TRIPLET = {"loss": "triplet", "epochs": 8, "margin": 1.0, "positive": "mean", "negatives": 1}
CONTRASTIVE = {"loss": "contrastive", "epochs": 8, "temperature": 0.1}


def begun(folder: Path, fingerprint: dict[str, Any]) -> RunDirectory:
    """A directory of an unfinished training."""
    (folder / "_run").mkdir()
    (folder / "_run" / "settings.json").write_text(json.dumps({"fingerprint": fingerprint}))
    return RunDirectory(str(folder), "train", "model")


@pytest.mark.parametrize("asked", [TRIPLET, CONTRASTIVE])
def test_a_directory_that_states_the_settings_of_every_loss_goes_on(tmp_path: Path, asked: dict[str, Any]) -> None:
    older = {**OF_EVERY_LOSS, "negatives": 1 if asked is TRIPLET else 5, **asked}
    model = begun(tmp_path, older)
    assert _begin(model, asked) is None
    assert json.loads((tmp_path / "_run" / "settings.json").read_text()) == {"fingerprint": older}


def test_another_setting_of_the_loss_that_was_chosen_is_refused_by_name(tmp_path: Path) -> None:
    model = begun(tmp_path, {**OF_EVERY_LOSS, **TRIPLET})
    with pytest.raises(InputError, match=r"margin is 1\.0 there, 0\.5 asked; use another directory"):
        _begin(model, {**TRIPLET, "margin": 0.5})
    with pytest.raises(InputError, match="loss is 'triplet' there, 'contrastive' asked"):
        _begin(model, CONTRASTIVE)
    with pytest.raises(InputError, match=r"gap is None there, 0\.3 asked"):
        _begin(model, {**TRIPLET, "gap": 0.3})
