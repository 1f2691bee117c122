"""Which stage of an extract binds, and what would relieve it: reckoned from busy seconds.

A stage's load is the share of its processes' time in which they worked on a song. Encoders count from
the moment the first of them is loaded, so that a slow start is no idleness; decoders from the run's start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mer_ray.cluster.plan import Plan

FULL = 0.5
"""A stage that works less than this share of its time does not bind."""


@dataclass(frozen=True)
class Stages:
    """What an extract had, and how long it was busy.

    Attributes:
        plan: its pools.
        work_seconds: of the graph, from its start to the last commit.
        startup_seconds: until the first encoder was loaded.
        decode_seconds: busy, summed over songs, fetching included.
        encode_seconds: busy, summed over songs.
    """

    plan: Plan
    work_seconds: float
    startup_seconds: float
    decode_seconds: float
    encode_seconds: float

    @property
    def decode_load(self) -> float:
        """0 to 1."""
        return _share(self.decode_seconds, self.plan.decoders * self.work_seconds)

    @property
    def encode_load(self) -> float:
        """0 to 1."""
        return _share(self.encode_seconds, self.plan.encoders * (self.work_seconds - self.startup_seconds))

    @property
    def binding(self) -> str:
        """``decode``, ``encode`` or ``neither``."""
        if max(self.decode_load, self.encode_load) < FULL:
            return "neither"
        return "decode" if self.decode_load > self.encode_load else "encode"

    def sentence(self) -> str:
        """What binds and what would change it."""
        loads = self.encode_load, self.decode_load
        idle_encoders, idle_decoders = (f"idle {1 - load:.0%} of the time" for load in loads)
        if self.binding == "decode":
            busy_cpus = self.plan.decoders * self.plan.decoder_cpus * self.decode_load
            more = busy_cpus * (1 / max(self.encode_load, 0.01) - 1)
            return (
                f"decode-bound: the encoders were {idle_encoders}; "
                f"{more:,.1f} CPUs more for decoding would keep them busy"
            )
        if self.binding == "encode":
            times = self.encode_load / max(self.decode_load, 0.01)
            return (
                f"encode-bound: the decoders were {idle_decoders}; {times:,.1f} times the encoders would keep them busy"
            )
        return (
            f"neither stage was full: decoders {idle_decoders}, encoders {idle_encoders}; "
            "the run was short, or waited for Ray, storage or commits"
        )

    def facts(self) -> dict[str, Any]:
        """For a summary."""
        return {
            "decoders_idle": round(1 - self.decode_load, 3),
            "encoders_idle": round(1 - self.encode_load, 3),
            "bound_by": self.binding,
            "bottleneck": self.sentence(),
        }


def _share(busy: float, of: float) -> float:
    return min(1.0, busy / of) if of > 0 else 0.0
