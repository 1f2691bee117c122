"""A model's card says first how to use it, how good it is and what it may not be used for."""

from __future__ import annotations

from typing import Any

from mer_ray.learning.card import card

CONFIG: dict[str, Any] = {
    "version": "0.3.0",
    "encoder": {"name": "tiny", "revision": None, "licence": "Apache-2.0 (untrained)", "dim": 192},
    "label_model": {"name": "auto", "weights_sha256": "a" * 64},
    "datasets": ["emotify"],
    "settings": {"select_on": "songs", "select_over": "mean", "keep": "f1"},
    "readings": {"encoder_revision": None, "lambda": 0.0},
}
LABELS = {"words": ["calm", "sad"], "clusters": [["calm", "sad"]], "bandwidth": None}
METRICS = {
    "best": {"macro_f1": 0.41, "epoch": 4.0},
    "epochs": 9,
    "songs": {"emotify train": 320},
    "absent": {"emotify train": {"failed: silent": 2}},
}


def test_a_card_begins_with_use_results_intended_use_limits_and_licence() -> None:
    text = card(CONFIG, LABELS, METRICS)
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[:5] == ["## Use", "## Results", "## Intended use", "## Limits", "## Licence"]
    assert "mer-ray tag --catalog" in text
    assert "Tagger.load" in text
    assert "0.410 in epoch 5 of 9" in text
    assert "untrained" in text.split("## Use")[0]
    assert "**Apache-2.0 (untrained)**" in text
    assert "knows English alone" in text
    assert "2 songs without features" in text


def test_a_card_shows_no_internals() -> None:
    text = card(CONFIG, LABELS, METRICS)
    assert "None" not in text
    assert "a" * 12 not in text
    assert "bandwidth 0" not in text
