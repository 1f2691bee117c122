"""A run says which of its stages binds, and what would relieve it."""

from dataclasses import replace
from typing import Any

import pytest

from mer_ray.cluster.drive import bottleneck
from mer_ray.cluster.nodes import Cluster, Node
from mer_ray.cluster.plan import resolve_plan
from mer_ray.cluster.settings import ExtractSettings
from mer_ray.commandline import parse


def stages(decoder_cpus: float = 1.0, **changes: float) -> dict[str, Any]:
    """100 s of work after 20 s of start-up, on 4 decoders and 2 encoders."""
    flags = ["--catalog", "c", "--features", "f", "--decoders", "4", "--encoders", "2"]
    cluster = Cluster((Node("0", "here", cpus=8.0, memory=64e9),))
    plan = resolve_plan(parse(ExtractSettings, flags), cluster, songs=1_000, memory_mb=1_000)
    facts = {"work_s": 120.0, "startup_s": 20.0, "decode_s": 0.0, "encode_s": 0.0}
    return bottleneck(replace(plan, decoder_cpus=decoder_cpus), **{**facts, **changes})


def test_encoders_that_wait_for_songs_are_said_to_be_idle_and_how_many_cpus_would_feed_them() -> None:
    found = stages(decode_s=480.0, encode_s=80.0)
    assert found["bound_by"] == "decode"
    assert found["bottleneck"] == (
        "decode-bound: the encoders were idle 60% of the time; 6.0 CPUs more for decoding would keep them busy"
    )


def test_half_a_cpu_a_decoder_counts_half() -> None:
    assert "3.0 CPUs more" in stages(decode_s=480.0, encode_s=80.0, decoder_cpus=0.5)["bottleneck"]


def test_decoders_that_wait_for_encoders_are_said_to_be_idle_and_how_many_encoders_would_take_more() -> None:
    found = stages(decode_s=240.0, encode_s=200.0)
    assert found["bound_by"] == "encode"
    assert found["bottleneck"] == (
        "encode-bound: the decoders were idle 50% of the time; encoding 2.0 times as fast (a GPU, more cores) would "
        "keep them busy"
    )


def test_a_slow_start_is_no_idleness_of_the_encoders() -> None:
    found = stages(startup_s=100.0, decode_s=10.0, encode_s=40.0)
    assert found["encoders_idle"] == 0.0


def test_where_neither_stage_works_half_its_time_neither_is_blamed() -> None:
    found = stages(decode_s=100.0, encode_s=20.0)
    assert found["bound_by"] == "neither"
    assert "decoders idle 79% of the time, encoders idle 90% of the time" in found["bottleneck"]


@pytest.mark.parametrize("startup", [120.0, 0.0])
def test_a_run_that_did_nothing_divides_by_nothing(startup: float) -> None:
    facts = stages(startup_s=startup, work_s=startup)
    assert (facts["bound_by"], facts["encoders_idle"], facts["decoders_idle"]) == ("neither", 1.0, 1.0)


def test_songs_that_failed_at_once_leave_the_encoders_idle_and_the_sentence_finite() -> None:
    assert "idle 100%" in stages(decode_s=480.0)["bottleneck"]
