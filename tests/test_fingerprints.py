"""Fingerprints: what makes two results the same, and how their difference is said."""

from __future__ import annotations

import torch
from torch import nn

from mer_ray.fingerprints import differences, encoder_differences, weights_sha256

MERT = {"name": "m-a-p/MERT-v1-95M", "revision": "12af", "weights_sha256": "a" * 64, "layers": [3, 6], "dim": 1536}


def test_tuples_and_lists_are_the_same_setting() -> None:
    assert differences({"layers": (3, 6)}, {"layers": [3, 6]}) == []
    assert differences({"k": 3}, {}) == ["k is None there, 3 asked"]


def test_the_same_weights_are_the_same_encoder_under_any_name() -> None:
    assert encoder_differences({**MERT, "name": "/models/mert", "revision": None}, MERT) == []


def test_other_weights_are_another_encoder_named_shortly() -> None:
    tiny = {**MERT, "name": "tiny", "weights_sha256": "b" * 64}
    assert encoder_differences(MERT, tiny) == ["encoder is tiny there, m-a-p/MERT-v1-95M asked"]
    same_name = encoder_differences(MERT, {**MERT, "weights_sha256": "b" * 64})
    assert same_name[0].startswith("sha256 of the weights is bbbb")


def test_without_digests_name_and_revision_decide() -> None:
    published = {"name": "m-a-p/MERT-v1-95M", "revision": "12af", "dim": 1536}
    assert encoder_differences(published, MERT) == []
    assert encoder_differences({**published, "revision": "other"}, MERT) == ["revision is 12af there, other asked"]


def test_layers_and_width_are_held_against_each_other_only_where_both_state_them() -> None:
    assert encoder_differences({**MERT, "dim": 768}, MERT) == ["dim is 1536 there, 768 asked"]
    assert encoder_differences({**MERT, "pooling": "mean"}, MERT) == []


def test_a_digest_knows_values_shapes_and_names_but_not_the_arithmetic() -> None:
    one = nn.Linear(2, 3)
    other = nn.Linear(2, 3)
    other.load_state_dict(one.state_dict())
    assert weights_sha256(one) == weights_sha256(other)
    with torch.no_grad():
        other.weight[0, 0] += 1e-6
    assert weights_sha256(one) != weights_sha256(other)
