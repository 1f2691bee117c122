"""How a pass spreads over the cluster: resolved from the nodes that answer, and printed before work starts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mer_ray.cluster.nodes import ENOUGH_CPUS, Cluster
from mer_ray.cluster.settings import ExtractSettings, TagSettings
from mer_ray.errors import InputError

SPARE_CPUS = 0.5
"""For commits and for what Ray does itself."""
SONGS_A_GPU, SONGS_A_CPU = 32, 2
"""With fewer songs for each, an encoder costs more to start than it saves."""
MOST_OF_A_NODE = 0.9
"""Of its memory, for one decoder where that is less than its limit."""


@dataclass(frozen=True)
class Plan:
    """Pool sizes of an extraction.

    Attributes:
        gpus: GPUs in the encoder pool as the pass begins; 0 encodes on CPUs.
        gpus_per_encoder: reserved for each.
        encoders: encoder processes as the pass begins, with ``encoder_cpus`` reserved for each.
        most_encoders: so many as nodes join: as the songs are worth, or as is this run's share beside others.
        worth: encoders that the songs are worth, or as many as was asked for.
        decoders: songs decoded at a time as the pass begins, with ``decoder_cpus`` and ``decoder_memory`` (bytes)
            reserved for each.
        decoders_grow: whether nodes that join later decode too; so where GPUs encode, unless a number was asked for.
            CPU encoders are placed once, and more decoders would only wait for them.
        threads: torch threads of an encoder on the CPU, where its machine has as many cores.
        batch_windows: windows in one forward pass.
        part_songs: songs in a committed file, if that was asked for.
        cpus: of the share that it was made for.
    """

    gpus: int
    gpus_per_encoder: float
    encoders: int
    most_encoders: int
    worth: int
    encoder_cpus: float
    decoders: int
    decoders_grow: bool
    decoder_cpus: float
    decoder_memory: int
    threads: int
    batch_windows: int
    part_songs: int | None
    cpus: float

    def songs_per_part(self, songs: int) -> int:
        """Songs in a committed file, where so many are to be done."""
        return self.part_songs or min(256, max(8, songs // 64))

    def songs_per_block(self, songs: int) -> int:
        """Songs of a decode task: so few that the last ones keep none waiting, or a lost node loses minutes."""
        return min(128, max(1, songs // (32 * self.decoders)))

    def fits(self, cluster: Cluster) -> bool:
        """Whether encoders that all come to life on these nodes leave room to decode and to commit."""
        encoders = min(self.encoders, int(cluster.gpus / self.gpus_per_encoder)) if self.gpus else self.encoders
        return self._needs(encoders) <= cluster.cpus + 1e-9

    def outgrown_by(self, cluster: Cluster) -> bool:
        """Whether its share has room for encoders that are worth a start; those on GPUs start as nodes join."""
        if self.gpus:
            return min(self.worth, int(cluster.own_gpus / self.gpus_per_encoder)) > self.most_encoders
        return self.encoders < self.most_encoders and cluster.own_cpus >= self.cpus + self.encoder_cpus

    def crowds(self, cluster: Cluster, was: Cluster) -> bool:
        """Whether it holds more than its share, which is less than it ``was``."""
        if self.gpus:
            return cluster.own_gpus < was.own_gpus and self.gpus > cluster.own_gpus
        return cluster.own_cpus < was.own_cpus and self._needs(self.encoders) > cluster.own_cpus + 1e-9

    def _needs(self, encoders: int) -> float:
        """CPUs of so many encoders, a decoder and the commits."""
        return encoders * self.encoder_cpus + self.decoder_cpus + SPARE_CPUS

    def describe(self, dtype: str, songs: int) -> str:
        """One line for the console; ``dtype`` is the encoder's arithmetic."""
        where = f"{self.gpus} GPU{'s' * (self.gpus > 1)}" if self.gpus else f"CPU, {self.threads} threads each"
        return (
            f"{self.encoders} encoder{'s' * (self.encoders > 1)} ({where}, {dtype}, "
            f"{self.batch_windows} windows a batch), {self.decoders} decoder{'s' * (self.decoders > 1)} "
            f"({self.decoder_memory / 1e9:.1f} GB each), a part every {self.songs_per_part(songs)} songs"
        )


def gpus_of(settings: ExtractSettings | TagSettings, cluster: Cluster) -> int:
    """GPUs that encode: this run's share of those the cluster has, or as many as were asked for.

    Raises:
        InputError: more are asked for than it has.
    """
    there = int(cluster.gpus)
    if settings.gpus is not None and settings.gpus > there:
        raise InputError(
            f"--gpus {settings.gpus}: the cluster has {there}; add GPU nodes and wait for them with --require-gpus, "
            f"or ask for --gpus {there}."
        )
    return cluster.own_gpus if settings.gpus is None else settings.gpus


def resolve_plan(settings: ExtractSettings | TagSettings, cluster: Cluster, songs: int, memory_mb: int) -> Plan:
    """Fit the pools to the nodes, or this run's share of them where it is asked for no numbers, and to what is to do.

    Decoding and committing always keep a share of the CPUs, so that encoders never starve what feeds them, and a
    decoder's ``memory_mb`` is reserved, so that no node is packed with more than it holds.

    Raises:
        InputError: more GPUs or CPUs are asked for than the cluster has.
    """
    cpus = cluster.cpus if settings.encoders or settings.decoders else cluster.own_cpus
    gpus = gpus_of(settings, cluster)
    if cpus < 1:
        raise InputError("cluster: no CPU is free for work; add worker nodes, or wait for them with --wait-minutes.")
    if cpus < ENOUGH_CPUS:
        raise InputError("cluster: one CPU is too few to decode beside an encoder; give Ray two (--num-cpus 2).")
    share = settings.gpus_per_encoder
    worth = max(1, songs // (SONGS_A_GPU if gpus else SONGS_A_CPU))
    decoder_cpus = 1.0 if cpus >= 4 else 0.5
    memory, decoders_hold = _memory(cluster, memory_mb * 1_000_000)
    if gpus:
        slots = int(gpus / share + 1e-9)
        worth = settings.encoders or (worth if settings.gpus is None else min(worth, slots))
        most = min(worth, slots) if cluster.others else worth
        encoders = settings.encoders or min(worth, slots)
        encoder_cpus = min(1.0, cpus / (2 * slots))
        decoders = settings.decoders or max(1, int((cpus - encoders * encoder_cpus - SPARE_CPUS) / decoder_cpus))
        if encoders > slots:
            raise InputError(
                f"--encoders {encoders}: with {gpus} GPUs there are {slots}; "
                "share a GPU among several with --gpus-per-encoder."
            )
    else:
        decoders = settings.decoders or max(1, int(cpus / 4 / decoder_cpus))
        room = cpus - SPARE_CPUS - decoders * decoder_cpus
        encoders = settings.encoders or max(1, min(worth, int(room)))
        most = worth = settings.encoders or worth
        encoder_cpus = min(1.0, room / encoders)
    if encoder_cpus <= 0 or encoders * encoder_cpus + decoders * decoder_cpus + SPARE_CPUS > cpus + 1e-9:
        raise InputError(f"--encoders/--decoders: do not fit the cluster's {cpus:g} CPUs; ask for fewer.")
    return Plan(
        gpus=math.ceil(encoders * share - 1e-9) if gpus else 0,
        gpus_per_encoder=share,
        encoders=encoders,
        most_encoders=most,
        worth=worth,
        encoder_cpus=round(encoder_cpus, 3),
        decoders=min(decoders, decoders_hold),
        decoders_grow=bool(gpus) and settings.decoders is None,
        decoder_cpus=decoder_cpus,
        decoder_memory=memory,
        threads=max(1, round(cpus / encoders)),
        batch_windows=settings.batch_windows or (64 if gpus else 8),
        part_songs=settings.songs_per_part,
        cpus=cpus,
    )


def resolve_anew(settings: ExtractSettings | TagSettings, cluster: Cluster, songs: int, memory_mb: int) -> Plan:
    """The plan of a later pass: where nodes went, what was asked for at the start is the most that it takes.

    Raises:
        InputError: what is left could not do the work whatever had been asked for.
    """
    try:
        return resolve_plan(settings, cluster, songs, memory_mb)
    except InputError:
        gpus = None if settings.gpus is None else min(settings.gpus, int(cluster.gpus))
        unasked = settings.model_copy(update={"gpus": gpus, "encoders": None, "decoders": None})
        plan = resolve_plan(unasked, cluster, songs, memory_mb)
        most = settings.encoders or plan.most_encoders
        return replace(plan, encoders=min(plan.encoders, most), most_encoders=min(plan.most_encoders, most))


def _memory(cluster: Cluster, limit: int) -> tuple[int, int]:
    """Bytes to reserve for a decoder, and how many the nodes hold with them."""
    largest = max(node.memory for node in cluster.nodes)
    reserved = int(min(limit, MOST_OF_A_NODE * largest))
    return reserved, max(1, sum(int(node.memory // max(1, reserved)) for node in cluster.nodes))
