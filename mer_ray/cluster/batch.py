"""A run of extract or tag, from settings to summary."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from mer_ray import storage
from mer_ray.audio.process import Limits, room_for
from mer_ray.catalog import sources as catalog
from mer_ray.cluster import pipelines
from mer_ray.cluster.bottleneck import Stages
from mer_ray.cluster.plan import Plan, resolve_plan
from mer_ray.cluster.settings import ExtractSettings, RunSettings, TagSettings
from mer_ray.commandline import ALL_DONE, TOO_MANY_FAILURES
from mer_ray.encoders import load_encoder
from mer_ray.errors import InputError
from mer_ray.features import Store, read_columns
from mer_ray.fingerprints import text_sha256
from mer_ray.learning.model import Model
from mer_ray.runs.directory import OutputDirectory, as_json, connect, instruments
from mer_ray.runs.metrics import FailureLines, RunMetrics
from mer_ray.runs.progress import Progress
from mer_ray.tagging.calibration import measured_by_catalog, percentile_of
from mer_ray.tagging.ranking import Choice, Tagger, TagOptions
from mer_ray.words.labels import Phrases, read_labels

Summary = dict[str, Any]

YARDSTICK_SONGS = 10_000
"""At most this many songs measure the words; their mean and deviation are known to one percent."""


def extract(settings: ExtractSettings | TagSettings, manifest: pa.Table) -> Summary:
    """Bring a feature store up to date with a manifest: every song of it gets its one row.

    Raises:
        InputError: settings that do not fit the cluster, the encoder or what the store holds.
    """
    resources = connect()
    plan = resolve_plan(settings, resources, len(manifest))
    asked = _encoder_arguments(settings, plan.device)
    encoder = load_encoder(**asked, device="cpu")
    cut = {"window_seconds": settings.window_seconds, "keep_tail": settings.keep_tail}
    decoding = {**cut, "max_seconds": settings.max_minutes * 60}
    if min(settings.window_seconds, decoding["max_seconds"]) < encoder.min_seconds:
        raise InputError(
            f"--window-seconds, --max-minutes: encoder {encoder.name} needs {encoder.min_seconds:g} s or more."
        )
    with OutputDirectory(settings.features, "extract") as output:
        output.begin({**encoder.fingerprint(), **decoding}, settings.resolved(), manifest)
        pending = output.pending(manifest.select(["track_id", "uri"]), retry_failed=settings.retry_failed)
        made_by = f"{encoder.name} (D = {encoder.dim})"
        print(f"extract: {len(pending):,} of {len(manifest):,} songs to do with {made_by}")
        # Cut for what is left. Which songs these are hung on the encoder's dtype, hence on a plan for the whole.
        plan = resolve_plan(settings, resources, len(pending))
        graph = None
        if len(pending):
            print(f"extract: {plan.describe(encoder.dtype)}", flush=True)
            output.write_pending(pending)
            decoding |= {"sample_rate": encoder.sample_rate, "min_seconds": encoder.min_seconds}
            limits = _limits(settings, encoder.sample_rate)
            graph = pipelines.extraction(
                pending, settings.features, output.token, plan, {**decoding, "limits": limits}, asked, cut
            )
        del encoder  # of its weights the driver has no more use
        return _drive(output, graph, len(manifest), len(pending), plan)


def tag(settings: TagSettings) -> Summary:
    """Tag the songs of a store, or of a catalogue after extracting what the store lacks.

    Raises:
        InputError: no such store, model or words, or they do not fit each other.
    """
    labels = read_labels(settings.labels)
    model = Model.load(settings.model)
    manifest = None
    if settings.catalog is not None:
        manifest = catalog.load_catalog(settings.catalog)
        report(extract(settings, manifest), settings.features)
    store = Store.open(settings.features)
    model.check_features(store)
    return _tag_store(settings, store, model, labels, manifest)


def report(summary: Summary, uri: str) -> None:
    """Print what came of a run."""
    classes = ", ".join(f"{count:,} {name}" for name, count in summary["error_classes"].items())
    run = summary["this_run"]
    repeated = f", {run['fetch_retries']:,} fetches repeated ({run['fetch_retry_s']:,.1f} s)"
    print(
        f"{summary['job']}: {summary['ok']:,} ok, {summary['failed']:,} failed{f' ({classes})' if classes else ''}, "
        f"{summary['audio_seconds'] / 3600:,.2f} h of audio in {uri}; "
        f"this run {run['seconds']:,.1f} s{repeated if run['fetch_retries'] else ''}",
        flush=True,
    )
    if "bottleneck" in run:
        print(f"{summary['job']}: {run['bottleneck']}", flush=True)


def exit_code(summary: Summary, settings: RunSettings) -> int:
    """0, or 3 when more songs failed than the settings allow."""
    too_many = summary["failed"] > settings.max_failure_rate * max(1, summary["songs"])
    return TOO_MANY_FAILURES if too_many else ALL_DONE


def _tag_store(
    settings: TagSettings, store: Store, model: Model, labels: Phrases, manifest: pa.Table | None
) -> Summary:
    options = _tag_options(settings, labels, model)
    rows = _store_rows(store)
    wanted = rows if manifest is None else _restrict(rows, manifest)
    with OutputDirectory(settings.output, "tag") as output:
        asked = wanted.select(["track_id", "uri"])
        output.begin(_tag_fingerprint(settings, options, model), settings.resolved(), asked)
        pending = output.pending(asked, retry_failed=settings.retry_failed)
        cpus = int(connect().get("CPU", 1))
        reading = {
            "features": store.uri,
            "encoder": store.encoder,
            "model": settings.model,
            "keep": settings.keep_projections,
        }

        def places(ids: pa.Array) -> NDArray[np.float32]:
            work = _by_part(rows, ids)
            return pipelines.song_places(work, reading, min(len(work), cpus))

        source, yardstick = _yardstick(output, settings, model, wanted, places)
        print(f"tag: {len(pending):,} of {len(asked):,} songs to do, {len(labels):,} words, measured against {source}")
        graph = None
        if len(pending):
            work = _by_part(rows, pending["track_id"].combine_chunks())
            workers = settings.encoders or min(len(work), cpus)
            scale = Tagger(model, yardstick).scale(labels, options.ranking)
            task = {"reading": reading, "options": options, "scale": scale}
            graph = pipelines.tagging(work, settings.output, output.token, workers, task)
        return _drive(output, graph, len(asked), len(pending))


def _drive(output: OutputDirectory, graph: Any, total: int, pending: int, plan: Plan | None = None) -> Summary:
    """Run a graph to its end, printing progress, and account for every song."""
    costs = dict.fromkeys(pipelines.COSTS, 0.0)
    begun, ready = time.time(), math.inf
    metrics, lines = RunMetrics(output.job, pending, *instruments()), FailureLines(output.uri)
    with Progress(output.job, total, done=total - pending, watch=output.check_lock) as progress:
        for receipt in pipelines.receipts(graph) if graph is not None else ():
            progress.add(receipt["songs"], len(receipt["failures"]), receipt["audio_s"])
            metrics.add(receipt)
            if output.job == "extract":  # tag only repeats what the store says of a failed song
                lines.add(receipt["failures"])
            for name in costs:
                costs[name] += receipt[name]
            ready = min(ready, receipt["ready"])
            if progress.trouble is not None:
                raise progress.trouble
    startup = min(max(0.0, ready - begun), progress.seconds) if graph is not None else 0.0
    rate = progress.audio_s / max(progress.seconds, 1e-9)
    retries = int(costs.pop("fetch_retries"))
    return output.finish(
        songs=pending,
        failed=progress.failed,
        work_seconds=round(progress.seconds, 2),
        audio_hours_per_hour=round(rate, 1),
        fetch_retries=retries,
        **{name: round(seconds, 2) for name, seconds in costs.items()},
        startup_s=round(startup, 2),
        **(_stages(plan, progress.seconds, startup, costs).facts() if plan and graph else {}),
    )


def _stages(plan: Plan, seconds: float, startup: float, busy: dict[str, float]) -> Stages:
    decoding = plan.decoders, plan.decoder_cpus, busy["decode_s"]
    return Stages(seconds, startup, *decoding, plan.encoders, busy["encode_s"])


def _encoder_arguments(settings: ExtractSettings | TagSettings, device: str) -> dict[str, Any]:
    """The encoder's name and settings as they are on this device, for :func:`mer_ray.encoders.load_encoder`."""
    local = storage.filesystem(settings.encoder)[1]
    part = settings.part("encoder")
    return {
        "name": local if storage.is_folder(settings.encoder) else settings.encoder,
        "settings": part.on(device) if hasattr(part, "on") else part,
    }


def _limits(settings: ExtractSettings | TagSettings, sample_rate: int) -> Limits:
    memory_mb = settings.decoder_memory_mb or room_for(settings.max_minutes * 60, sample_rate)
    return Limits(settings.song_timeout_s, memory_mb)


def _tag_options(settings: TagSettings, labels: Phrases, model: Model) -> TagOptions:
    least = settings.min_percentile
    if settings.min_precision is not None and settings.calibration is not None:
        least = percentile_of(settings.calibration, model.digest, settings.min_precision)
        print(f"tag: precision {settings.min_precision:g} is expected from percentile {least:g} up")
    k = 3 if (settings.k, settings.threshold, least) == (None, None, None) else settings.k
    choice = Choice(k, settings.threshold, least)
    return TagOptions(labels, choice, settings.ranking, settings.timeline, settings.embedding)


def _tag_fingerprint(settings: TagSettings, options: TagOptions, model: Model) -> dict[str, Any]:
    words = text_sha256(as_json({"labels": list(options.labels.items())}).decode())[:16]
    chosen = {name: getattr(options, name) for name in ("ranking", "timeline", "embedding")}
    chosen |= {"k": options.choice.k, "threshold": options.choice.threshold}
    if options.choice.min_percentile is not None:
        chosen["min_percentile"] = options.choice.min_percentile
    if settings.yardstick != "auto":
        chosen["yardstick"] = settings.yardstick
    return {"model": model.digest[:16], "labels": f"{len(options.labels)} words ({words})", **chosen}


def _store_rows(store: Store) -> pa.Table:
    """track_id, uri, status and part of every song of a store."""
    tables = []
    for part, table in read_columns(store.parts, ["track_id", "uri", "status"]):
        if table is None:
            raise InputError(f"features {part}: not a readable Parquet file; run extract again, it mends the store.")
        tables.append(table.replace_schema_metadata(None).append_column("part", pa.array([part] * len(table))))
    return pa.concat_tables(tables)


def _by_part(rows: pa.Table, ids: pa.Array) -> pa.Table:
    """Where these songs stand among the rows of a store, as work of :func:`mer_ray.cluster.pipelines.tagging`."""
    picked = rows.filter(pc.is_in(rows["track_id"], value_set=ids)).group_by("part").aggregate([("track_id", "list")])
    whole = rows.group_by("part").aggregate([("track_id", "count")])
    held = dict(zip(whole["part"].to_pylist(), whole["track_id_count"].to_pylist(), strict=True))
    counts = pc.list_value_length(picked["track_id_list"]).to_pylist()
    partial = pa.array([count < held[part] for part, count in zip(picked["part"].to_pylist(), counts, strict=True)])
    wanted = pc.if_else(partial, picked["track_id_list"], pa.scalar(None, pa.list_(pa.string())))
    return pa.table([picked["part"], wanted], schema=pipelines.WORK_SCHEMA)


def _restrict(rows: pa.Table, manifest: pa.Table) -> pa.Table:
    return rows.filter(pc.is_in(rows["track_id"], value_set=manifest["track_id"].combine_chunks()))


def _yardstick(
    output: OutputDirectory,
    settings: TagSettings,
    model: Model,
    rows: pa.Table,
    places: Callable[[pa.Array], NDArray[np.float32]],
) -> tuple[str, NDArray[np.float32]]:
    """The songs that measure the words: frozen in the output directory at its first run.

    ``places`` projects songs by their ids.
    """
    frozen = output.read_file("yardstick.safetensors")
    if frozen is not None:
        songs = load_arrays(frozen)["songs"].astype(np.float32)
        return f"the {len(songs):,} songs of the first run", songs
    ids = rows.filter(pc.equal(rows["status"], "ok"))["track_id"].to_pylist()
    source, songs = f"the model's {len(model.background):,} training songs", model.background
    if settings.yardstick == "catalog" and not ids:
        raise InputError(f"--yardstick catalog: no song of {settings.features} could be read; use model.")
    if measured_by_catalog(settings.yardstick, len(ids)):
        songs = places(pa.array(sorted(ids, key=_by_hash)[:YARDSTICK_SONGS]))
        source = f"{len(songs):,} songs of the catalogue"
    output.write_file("yardstick.safetensors", save_arrays({"songs": songs.astype(np.float16)}))
    return source, songs.astype(np.float16).astype(np.float32)


def _by_hash(track_id: str) -> bytes:
    """An order that has nothing to do with how a catalogue is sorted, and is the same everywhere."""
    return hashlib.sha256(track_id.encode()).digest()
