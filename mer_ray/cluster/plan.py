"""How a run spreads over the cluster: resolved from its resources once, and printed before work starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mer_ray.cluster.settings import ExtractSettings, TagSettings
from mer_ray.errors import InputError


@dataclass(frozen=True)
class Plan:
    """Pool sizes of an extraction.

    Attributes:
        gpus: GPUs in the encoder pool, one an encoder; 0 encodes on CPUs.
        encoders: encoder processes, with ``encoder_cpus`` reserved for each.
        decoders: songs decoded at a time as the run begins, with ``decoder_cpus`` reserved for each.
        decoders_grow: whether nodes that join later decode too; so where GPUs encode, unless a number was asked
            for. CPU encoders are placed once, and more decoders would only wait for them.
        threads: torch threads of an encoder on the CPU, where its machine has as many cores.
        batch_windows: windows in one forward pass.
        part_songs: songs in a committed file, if that was asked for.
    """

    gpus: int
    encoders: int
    encoder_cpus: float
    decoders: int
    decoders_grow: bool
    decoder_cpus: float
    threads: int
    batch_windows: int
    part_songs: int | None

    @property
    def device(self) -> str:
        """Where an encoder computes."""
        return "cuda" if self.gpus else "cpu"

    def songs_per_part(self, songs: int) -> int:
        """Songs in a committed file, where so many are to be done."""
        return self.part_songs or min(256, max(8, songs // 64))

    def songs_per_block(self, songs: int) -> int:
        """Songs of a decode task: so few that the last ones keep none waiting, or a lost node loses minutes."""
        return min(128, max(1, songs // (32 * self.decoders)))

    def describe(self, dtype: str, songs: int) -> str:
        """One line for the console; ``dtype`` is the encoder's arithmetic."""
        where = f"{self.gpus} GPU{'s' * (self.gpus > 1)}" if self.gpus else f"CPU, {self.threads} threads each"
        return (
            f"{self.encoders} encoder{'s' * (self.encoders > 1)} ({where}, {dtype}, "
            f"{self.batch_windows} windows a batch), {self.decoders} decoder{'s' * (self.decoders > 1)}, "
            f"a part every {self.songs_per_part(songs)} songs"
        )


def resolve_plan(settings: ExtractSettings | TagSettings, resources: Mapping[str, float]) -> Plan:
    """Fit the pools to the cluster's resources, as Ray states them.

    Decoding and committing always keep a share of the CPUs, so that encoders never starve what feeds them.

    Raises:
        InputError: more GPUs or CPUs are asked for than the cluster has.
    """
    cpus, gpus_there = float(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    gpus = gpus_there if settings.gpus is None else settings.gpus
    if gpus > gpus_there:
        raise InputError(f"--gpus {gpus}: the cluster has {gpus_there}; add GPU nodes, or ask for --gpus {gpus_there}.")
    if cpus < 1:
        raise InputError("cluster: no CPU is free for work; add worker nodes.")
    if cpus < 2:
        # Ray Data's own tasks ask for a whole CPU: beside an encoder they would wait for ever.
        raise InputError("cluster: one CPU is too few to decode beside an encoder; give Ray two (--num-cpus 2).")
    spare = 0.5
    decoder_cpus = 1.0 if cpus >= 4 else 0.5
    if gpus:
        encoders, encoder_cpus = settings.encoders or gpus, min(1.0, cpus / (2 * gpus))
        decoders = settings.decoders or max(1, int((cpus - encoders * encoder_cpus - spare) / decoder_cpus))
    else:
        decoders = settings.decoders or max(1, int(cpus / 4 / decoder_cpus))
        room = cpus - spare - decoders * decoder_cpus
        encoders = settings.encoders or max(1, int(room))
        encoder_cpus = min(1.0, room / encoders)
    if encoder_cpus <= 0 or encoders * encoder_cpus + decoders * decoder_cpus + spare > cpus + 1e-9:
        raise InputError(f"--encoders/--decoders: do not fit the cluster's {cpus:g} CPUs; ask for fewer.")
    if gpus and encoders != gpus:
        raise InputError(f"--encoders {encoders}: with {gpus} GPUs there is one encoder a GPU; leave it out.")
    return Plan(
        gpus=gpus,
        encoders=encoders,
        encoder_cpus=round(encoder_cpus, 3),
        decoders=decoders,
        decoders_grow=bool(gpus) and settings.decoders is None,
        decoder_cpus=decoder_cpus,
        threads=max(1, round(cpus / encoders)),
        batch_windows=settings.batch_windows or (64 if gpus else 8),
        part_songs=settings.songs_per_part,
    )
