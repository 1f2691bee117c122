"""Which stage of an extract binds, and what would relieve it: reckoned from busy seconds.

A stage's load is the share of its processes' time in which they worked on a song. Encoders count from
the moment the first of them is loaded, so that a slow start is no idleness; decoders from the run's start.
"""

from __future__ import annotations

from typing import Any

from mer_ray.cluster.plan import Plan

FULL = 0.5
"""A stage that works less than this share of its time does not bind."""


def bottleneck(plan: Plan, work_s: float, startup_s: float, decode_s: float, encode_s: float) -> dict[str, Any]:
    """What binds and what would change it, for a summary.

    Args:
        plan: the pools of the extract.
        work_s: from the start of the graph to its last commit.
        startup_s: until the first encoder was loaded.
        decode_s: busy, summed over songs, fetching included.
        encode_s: busy, summed over songs.
    """
    decode, encode = _share(decode_s, plan.decoders * work_s), _share(encode_s, plan.encoders * (work_s - startup_s))
    idle_decoders, idle_encoders = (f"idle {1 - load:.0%} of the time" for load in (decode, encode))
    if max(decode, encode) < FULL:
        binding = "neither"
        sentence = (
            f"neither stage was full: decoders {idle_decoders}, encoders {idle_encoders}; "
            "the run was short, or waited for Ray, storage or commits"
        )
    elif decode > encode:
        binding = "decode"
        more = plan.decoders * plan.decoder_cpus * decode * (1 / max(encode, 0.01) - 1)
        sentence = (
            f"decode-bound: the encoders were {idle_encoders}; {more:,.1f} CPUs more for decoding would keep them busy"
        )
    else:
        binding = "encode"
        times = encode / max(decode, 0.01)
        sentence = (
            f"encode-bound: the decoders were {idle_decoders}; {times:,.1f} times the encoders would keep them busy"
        )
    return {
        "decoders_idle": round(1 - decode, 3),
        "encoders_idle": round(1 - encode, 3),
        "bound_by": binding,
        "bottleneck": sentence,
    }


def _share(busy: float, of: float) -> float:
    return min(1.0, busy / of) if of > 0 else 0.0
