"""The extract job, from settings to summary: songs become rows of a feature store.

    shards -> songs to do -> decode (CPU tasks) -> encode (GPU or CPU actors) -> commit -> receipts

A row is a song from end to end, so a commit is always whole songs. The driver sees receipts alone, and needs no torch:
what it must know of the encoder, a task of the cluster finds out while the manifest is read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mer_ray import storage
from mer_ray.audio.fetching import why_unreadable
from mer_ray.audio.process import Limits, room_for
from mer_ray.cluster import preflight, stages
from mer_ray.cluster.drive import Summary, drive
from mer_ray.cluster.encoding import EncodeSongs, Encoding
from mer_ray.cluster.nodes import answering, gathered, listed, wait_for
from mer_ray.cluster.plan import Plan, gpus_of, resolve_anew, resolve_plan
from mer_ray.cluster.session import connect
from mer_ray.cluster.settings import ExtractSettings, TagSettings
from mer_ray.cluster.stages import Decoding
from mer_ray.cluster.supervision import Planned, Watched
from mer_ray.cluster.unpromised import map_as_they_come
from mer_ray.cluster.work import FEATURE_BYTES, Opened, Work, from_shards
from mer_ray.encoders import Encoder, load_encoder
from mer_ray.errors import InputError
from mer_ray.features import store_table
from mer_ray.runs.asked import Spool
from mer_ray.runs.breaker import Breaker, Failure
from mer_ray.runs.directory import SETTINGS, run_file
from mer_ray.runs.open_shard import Lease
from mer_ray.runs.ranges import Range
from mer_ray.runs.shards import count_for
from mer_ray.runs.songs_directory import SongsDirectory
from mer_ray.runs.withheld import Withheld
from mer_ray.settings import Part
from mer_ray.songs import STATUS_COLUMNS, Identity

if TYPE_CHECKING:
    from ray.data import Dataset

COMMIT_CPUS = 0.2
READ_AGAIN_S = 300.0
"""A song that was read before must be read again by then; a fetch gives up sooner."""

NO_GPU = (
    "extract: WARNING no GPU in this Ray: encodes on CPUs, in their arithmetic. --require-gpus 1 would refuse that, "
    "--gpus 0 says that it is meant."
)


def extract(settings: ExtractSettings | TagSettings, read: Callable[[], Iterable[pa.Table]]) -> Summary:
    """Bring a feature store up to date with the manifest that ``read`` gives: every song of it gets its one row.

    The manifest comes some songs at a time; how many there are does not matter to this process's memory.

    Raises:
        InputError: settings that do not fit the cluster, the encoder or what the store holds.
    """
    encoding = _joined(settings)
    import ray

    # Asked while the manifest is read. (The process that answers serves tasks alone: Ray starts each encoder its own.)
    told = ray.remote(know).options(num_cpus=0.5).remote(encoding)
    manifest = Spool(read())
    with SongsDirectory(settings.features, "extract", wait=settings.wait, range=Range.given(settings.shards)) as output:
        encoder: Encoder | str = ray.get(told)
        if isinstance(encoder, str):
            raise InputError(encoder)
        decoding = _decoding(settings, encoder)
        fingerprint = {**encoder.fingerprint(), **decoding.fingerprint()}
        of = count_for(manifest.songs, settings.songs_per_shard)
        output.begin(fingerprint, settings.resolved(), manifest, of=of)
        part_bytes = 0 if settings.songs_per_part else FEATURE_BYTES
        work = Work(output, output.unfinished(retry_failed=settings.retry_failed), part_bytes)
        songs = work.begin(SongsToDo(output.lease, settings.retry_failed))
        made_by = f"{encoder.name} (D = {encoder.dim})"
        print(f"extract: {work.said} of {output.asked:,} songs to do{work.where} with {made_by}")
        identity = encoder.identity(encoding.window_seconds, encoding.keep_tail)
        breaker = Breaker(_read, all_may_fail=settings.max_failure_rate == 1)
        withheld = Withheld(partial(_write_failed, output, identity), breaker)
        watched = Watched(output)

        def planned(number: int) -> Planned:
            watch = watched.actor  # first: other runs count this one by it
            gpus = int(encoding.device == "cuda") if number else settings.require_gpus
            cluster = gathered(gpus, settings.wait_minutes, again=number > 0)
            if number == 0 and settings.preflight:
                preflight.check(settings.features, songs, work.songs, cluster, encoder.dim)
            resolve = resolve_anew if number else resolve_plan
            plan = resolve(settings, cluster, work.songs, decoding.limits.memory_mb)
            if encoding.device == "cuda" and not plan.gpus:
                raise InputError(
                    "extract: began on GPUs, and no node with one answers any more; add one and run again."
                )
            print(f"extract: {plan.describe(encoder.dtype, work.songs)}", flush=True)
            own = replace(encoding, batch_windows=plan.batch_windows, threads=plan.threads)
            opener = SongsToDo(output.lease, settings.retry_failed, withheld.ids())
            source = partial(from_shards, work.left, opener, number, len(cluster.nodes))
            # Named here: whoever puts another in its place does so in this process.
            decode = partial(stages.decode_songs, decoding=decoding)
            graph = partial(extraction, source, work.songs, decode, own, plan, watch, output.lease)
            return Planned(graph, cluster, plan)

        return drive(work, output.asked, planned, watched, withheld)


@dataclass(frozen=True)
class SongsToDo:
    """Opens the shards of an extract; ``withheld`` are songs that are done, though they stand in no part yet."""

    lease: Lease
    retry_failed: bool
    withheld: pa.Array | None = None

    def __call__(self, shard: int, number: int) -> Opened:
        found = self.lease.open(shard).pending_in(number, retry_failed=self.retry_failed, withheld=self.withheld)
        return Opened(found, len(found))


def extraction(
    source: Callable[[int], Dataset],
    songs: int,
    decode: Callable[[pa.Table], Iterator[pa.Table]],
    encoding: Encoding,
    plan: Plan,
    watch: Any,
    lease: Lease,
) -> Dataset:
    """The graph from shards to receipts. ``source`` opens them, so many songs for a task as it is asked for.

    A decode task hands its songs on as soon as they fill a block of Ray's (128 MB), so what waits between
    the stages is bounded in bytes, however many songs a task has and however long they are.
    """
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    size = plan.songs_per_block(songs)
    decoded = source(size).map_batches(
        stages.decode_work,
        batch_format="pyarrow",
        fn_kwargs={"decode": decode, "watch": watch},
        compute=TaskPoolStrategy(size=None if plan.decoders_grow else plan.decoders),
        num_cpus=plan.decoder_cpus,
        memory=plan.decoder_memory,
    )
    pool = {"min_size": 1, "max_size": plan.most_encoders, "initial_size": plan.encoders} if plan.gpus else {}
    encoded = map_as_they_come(
        decoded,
        EncodeSongs,
        size,
        fn_constructor_args=(encoding, watch),
        compute=ActorPoolStrategy(**pool or {"size": plan.encoders}),
        num_cpus=plan.encoder_cpus,
        num_gpus=plan.gpus_per_encoder if plan.gpus else None,
    )
    # Blocks seldom add up to a part: the rest of each bundle of blocks, a few songs, is a part of its own. Strict
    # repartition would even that out, but its task wants a whole CPU and holds up the commits on a small machine.
    return encoded.map_batches(
        stages.commit_features,
        batch_size=plan.songs_per_part(songs),
        batch_format="pyarrow",
        fn_args=(lease,),
        num_cpus=COMMIT_CPUS,
    )


def _write_failed(output: SongsDirectory, identity: Identity, failures: Sequence[Failure]) -> None:
    nothing = np.zeros((0, identity["dim"]))
    rows = [{name: failure[name] for name in STATUS_COLUMNS} for failure in failures]
    output.commit(store_table(rows, [nothing] * len(rows), identity))


def _read(uri: str) -> str | None:
    """Why a song cannot be read now, by some worker; None if it can."""
    import ray

    asked = ray.remote(why_unreadable).options(num_cpus=0).remote(uri)
    try:
        return ray.get(asked, timeout=READ_AGAIN_S)
    except ray.exceptions.GetTimeoutError:
        return f"no answer within {READ_AGAIN_S:g} s"


def know(encoding: Encoding) -> Encoder | str:
    """What an encoder says of itself, or the sentence why it cannot be loaded.

    Loaded on a CPU, whatever it will run on: only the arithmetic depends on that, and the settings say which it is.
    So the machine that happens to be asked needs no GPU.
    """
    try:
        return replace(load_encoder(encoding.name, "cpu", encoding.settings), encode=str)
    except InputError as error:
        return str(error)


def check(settings: ExtractSettings, read: Callable[[], Iterable[pa.Table]]) -> None:
    """Look at all that would spoil an extract, and print how it would spread; no song is done.

    Raises:
        InputError: something would.
    """
    encoding, songs, some = _joined(settings), 0, []
    for batch in read():
        songs += len(batch)
        some.append(batch.take(sorted({0, len(batch) // 2, len(batch) - 1})))
    encoder = know(encoding)
    if isinstance(encoder, str):
        raise InputError(encoder)
    cluster = answering()
    preflight.check(settings.features, pa.concat_tables(some), songs, cluster, encoder.dim)
    plan = resolve_plan(settings, cluster, songs, _decoding(settings, encoder).limits.memory_mb)
    shards = count_for(songs, settings.songs_per_shard)
    of = f" in {shards:,} shards" if shards > 1 else ""
    print(f"check: {songs:,} songs{of} with {encoder.name}: {plan.describe(encoder.dtype, songs)}")
    print(f"check: nothing is missing on {', '.join(sorted(node.host for node in cluster.nodes))}")


def _joined(settings: ExtractSettings | TagSettings) -> Encoding:
    """Join a Ray that has what was required; returns how its encoders will be loaded."""
    connect("mer_ray.catalog.sources")
    wait_for(settings.require_gpus, settings.wait_minutes)
    gpus = gpus_of(settings, listed())
    if not gpus and settings.gpus is None:
        print(NO_GPU, file=sys.stderr, flush=True)
    return _encoding(settings, "cuda" if gpus else "cpu")


def _encoding(settings: ExtractSettings | TagSettings, device: str) -> Encoding:
    local = storage.filesystem(settings.encoder)[1]
    return Encoding(
        name=local if storage.is_folder(settings.encoder) else settings.encoder,
        settings=_settled(settings.part("encoder"), device, settings.features),
        device=device,
        window_seconds=settings.window_seconds,
        keep_tail=settings.keep_tail,
    )


def _settled(part: Part, device: str, features: str) -> Part:
    """An encoder's settings with nothing left to the device; a store that was begun goes on in its own arithmetic."""
    begun = (storage.read_json(run_file(features, SETTINGS)) or {}).get("fingerprint", {}).get("dtype")
    if begun and getattr(part, "dtype", None) == "auto":
        return part.model_copy(update={"dtype": begun})
    settled: Part = part.on(device) if hasattr(part, "on") else part
    return settled


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
