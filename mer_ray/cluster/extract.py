"""The extract job, from settings to summary: songs become rows of a feature store.

    manifest -> decode (CPU tasks) -> encode (GPU or CPU actors) -> commit -> receipts

A row is a song from end to end, so a commit is always whole songs. The driver sees receipts alone, and needs no torch:
what it must know of the encoder, a task of the cluster finds out while the manifest is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from mer_ray import storage
from mer_ray.audio.fetching import why_unreadable
from mer_ray.audio.process import Limits, room_for
from mer_ray.cluster import stages
from mer_ray.cluster.drive import Summary, drive
from mer_ray.cluster.plan import Plan, resolve_plan
from mer_ray.cluster.session import connect, quiet_data
from mer_ray.cluster.settings import ExtractSettings, TagSettings
from mer_ray.cluster.stages import Decoding, Encoding
from mer_ray.cluster.unpromised import map_as_they_come
from mer_ray.encoders import Encoder, load_encoder
from mer_ray.errors import InputError
from mer_ray.features import store_table
from mer_ray.runs.breaker import Breaker, Failure
from mer_ray.runs.songs_directory import SongsDirectory, commit
from mer_ray.runs.withheld import Withheld
from mer_ray.songs import STATUS_COLUMNS, Identity

if TYPE_CHECKING:
    from ray.data import Dataset

COMMIT_CPUS = 0.2


def extract(settings: ExtractSettings | TagSettings, read: Callable[[], pa.Table]) -> Summary:
    """Bring a feature store up to date with the manifest that ``read`` gives: every song of it gets its one row.

    Raises:
        InputError: settings that do not fit the cluster, the encoder or what the store holds.
    """
    plan = resolve_plan(settings, connect("ray.data", "mer_ray.catalog.sources"))
    import ray

    encoding = _encoding(settings, plan)
    # Asked while the manifest is read. (The process that answers serves tasks alone: Ray starts each encoder its own.)
    told = ray.remote(know).options(num_cpus=0.5).remote(encoding)
    manifest = read()
    with SongsDirectory(settings.features, "extract") as output:
        encoder: Encoder | str = ray.get(told)
        if isinstance(encoder, str):
            raise InputError(encoder)
        decoding = _decoding(settings, encoder)
        fingerprint = {**encoder.fingerprint(), **decoding.fingerprint()}
        manifest = output.begin(fingerprint, settings.resolved(), manifest)
        pending = output.pending(manifest.drop_columns(["labels"]), retry_failed=settings.retry_failed)
        pending = pending.select(["track_id", "uri"])
        made_by = f"{encoder.name} (D = {encoder.dim})"
        print(f"extract: {len(pending):,} of {len(manifest):,} songs to do with {made_by}")
        graph = None
        if len(pending):
            print(f"extract: {plan.describe(encoder.dtype, len(pending))}", flush=True)
            output.write_pending(pending)
            graph = extraction(pending, output, plan, decoding, encoding)
        identity = encoder.identity(encoding.window_seconds, encoding.keep_tail)
        breaker = Breaker(_read, all_may_fail=settings.max_failure_rate == 1)
        withheld = Withheld(partial(_write_failed, output, identity), breaker)
        return drive(output, graph, len(manifest), len(pending), plan, withheld)


def extraction(songs: pa.Table, output: SongsDirectory, plan: Plan, decoding: Decoding, encoding: Encoding) -> Dataset:
    """The graph from pending songs (``track_id``, ``uri``) to receipts.

    A decode task hands its songs on as soon as they fill a block of Ray's (128 MB), so what waits between
    the stages is bounded in bytes, however many songs a task has and however long they are.
    """
    import ray
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    size = plan.songs_per_block(len(songs))
    # The songs lie in the object store once; a task gets two numbers. (from_arrow would start a task for each block,
    # to ask for its schema.)
    ranges = [pa.table({"start": [start], "stop": [start + size]}) for start in range(0, len(songs), size)]
    blocks = quiet_data().from_blocks(ranges)
    decoded = blocks.map_batches(
        stages.decode_ranges,
        batch_format="pyarrow",
        fn_kwargs={"songs": ray.put(songs), "decode": partial(stages.decode_songs, decoding=decoding)},
        compute=TaskPoolStrategy(size=None if plan.decoders_grow else plan.decoders),
        num_cpus=plan.decoder_cpus,
    )
    encoded = map_as_they_come(
        decoded,
        stages.EncodeSongs,
        size,
        fn_constructor_args=(encoding,),
        compute=ActorPoolStrategy(size=plan.encoders),
        num_cpus=plan.encoder_cpus,
        num_gpus=1 if plan.gpus else None,
    )
    # Blocks seldom add up to a part: the rest of each bundle of blocks, a few songs, is a part of its own. Strict
    # repartition would even that out, but its task wants a whole CPU and holds up the commits on a small machine.
    return encoded.map_batches(
        stages.commit_features,
        batch_size=plan.songs_per_part(len(songs)),
        batch_format="pyarrow",
        fn_args=(output.uri, output.lock.token),
        num_cpus=COMMIT_CPUS,
    )


def _write_failed(output: SongsDirectory, identity: Identity, failures: Sequence[Failure]) -> None:
    nothing = np.zeros((0, identity["dim"]))
    rows = [{name: failure[name] for name in STATUS_COLUMNS} for failure in failures]
    commit(output.uri, store_table(rows, [nothing] * len(rows), identity), output.lock.token)


def _read(uri: str) -> str | None:
    """Why a song cannot be read now, by some worker; None if it can."""
    import ray

    return ray.get(ray.remote(why_unreadable).options(num_cpus=0).remote(uri))


def know(encoding: Encoding) -> Encoder | str:
    """What an encoder says of itself, or the sentence why it cannot be loaded.

    Loaded on a CPU, whatever it will run on: only the arithmetic depends on that, and the settings say which it is.
    So the machine that happens to be asked needs no GPU.
    """
    try:
        return replace(load_encoder(encoding.name, "cpu", encoding.settings), encode=str)
    except InputError as error:
        return str(error)


def _encoding(settings: ExtractSettings | TagSettings, plan: Plan) -> Encoding:
    local, part = storage.filesystem(settings.encoder)[1], settings.part("encoder")
    return Encoding(
        name=local if storage.is_folder(settings.encoder) else settings.encoder,
        settings=part.on(plan.device) if hasattr(part, "on") else part,
        device=plan.device,
        window_seconds=settings.window_seconds,
        keep_tail=settings.keep_tail,
        batch_windows=plan.batch_windows,
        threads=plan.threads,
    )


def _decoding(settings: ExtractSettings | TagSettings, encoder: Encoder) -> Decoding:
    longest = settings.max_minutes * 60
    if min(settings.window_seconds, longest) < encoder.min_seconds:
        raise InputError(
            f"--window-seconds, --max-minutes: encoder {encoder.name} needs {encoder.min_seconds:g} s or more."
        )
    memory_mb = settings.decoder_memory_mb or room_for(longest, encoder.sample_rate)
    return Decoding(
        window_seconds=settings.window_seconds,
        keep_tail=settings.keep_tail,
        max_seconds=longest,
        sample_rate=encoder.sample_rate,
        min_seconds=encoder.min_seconds,
        limits=Limits(settings.song_timeout_s, memory_mb),
        patience_s=settings.patience_minutes * 60,
    )
