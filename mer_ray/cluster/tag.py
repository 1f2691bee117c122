"""The tag job, from settings to summary: every song of a feature store gets its words.

store parts -> project, rank, commit (CPU actors) -> receipts
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from mer_ray import storage
from mer_ray.catalog.sources import load_catalog
from mer_ray.cluster.drive import Summary, drive, report
from mer_ray.cluster.extract import extract
from mer_ray.cluster.nodes import gathered
from mer_ray.cluster.session import connect, quiet_data
from mer_ray.cluster.settings import TagSettings
from mer_ray.cluster.supervision import Planned, Watched
from mer_ray.cluster.watch import Told
from mer_ray.encoders import as_made
from mer_ray.errors import InputError
from mer_ray.features import Store
from mer_ray.fingerprints import text_sha256
from mer_ray.learning.model import Model
from mer_ray.learning.scoring import floor_of, lots, measured_by_catalog, yardstick_songs
from mer_ray.runs.again import with_audio
from mer_ray.runs.directory import SETTINGS
from mer_ray.runs.receipts import committed
from mer_ray.runs.songs_directory import SongsDirectory
from mer_ray.songs import Identity, read_columns
from mer_ray.tagging.calibration import CALIBRATION, Calibration
from mer_ray.tagging.contract import WORDS, words_digest, words_file
from mer_ray.tagging.index import collect_kept
from mer_ray.tagging.projections import Projections, song_vectors
from mer_ray.tagging.ranking import Choice, SongTagger, Tagger, TagOptions, measured_against
from mer_ray.words.lists import Word, read_labels

if TYPE_CHECKING:
    from ray.data import Dataset

YARDSTICK, STRANGE = "yardstick.safetensors", "calibration.json"
"""What a directory was measured by at its first run, and how far its songs were from the calibrated ones."""

Load = Callable[[], Projections]
Vectors = Callable[[pa.Array], NDArray[np.float32]]
"""The mean unit vectors of songs by their ids."""

PARTS_PER_TASK = 16
"""At most so many parts of a store are read by one task: a task costs as much as a part's tags."""

WORK = pa.schema([pa.field("part", pa.string()), pa.field("wanted", pa.list_(pa.string()))])
"""Parts of a store to read: their URIs, and the ids that are wanted of each; null for all."""


def projections(features: str, encoder: Identity, model: str, keep: bool) -> Projections:
    """Of a store by a model, both by their URIs: loaded for one core of a process of the cluster."""
    import torch

    torch.set_num_threads(1)
    return Projections(features, encoder, Model.load(model), keep)


def tag(settings: TagSettings) -> Summary:
    """Tag the songs of a store, or of a catalogue after extracting what the store lacks.

    Raises:
        InputError: no such store, model or words, or they do not fit each other.
    """
    words = tuple(read_labels(settings.labels))
    model = Model.load(settings.model)
    manifest = None
    if settings.catalog is not None:
        read = cache(lambda: load_catalog(str(settings.catalog)))
        report(extract(as_trained(settings, model), read), settings.features)
        manifest = read()
    store = Store.open(settings.features)
    model.check_features(store)
    rows = wanted = _store_rows(store)
    if manifest is not None:
        wanted = rows.filter(pc.is_in(rows["track_id"], value_set=manifest["track_id"].combine_chunks()))
    asked = with_audio(wanted.select(["track_id", "uri"]), store.uri)
    mended = wanted.filter(pc.equal(wanted["status"], "ok"))["track_id"].combine_chunks()
    with SongsDirectory(settings.output, "tag", wait=settings.wait) as output:
        options = _options(settings, words, model, output)
        readable = mended.to_pylist()
        if options.calibration is not None and not storage.exists(output.file(YARDSTICK)):
            by_catalog = measured_by_catalog(settings.yardstick, len(readable))
            options.calibration.check_yardstick(measured_against(by_catalog, settings.yardstick == "catalog"))
        asked = output.begin(_fingerprint(settings, options, model), settings.resolved(), asked)
        storage.write_bytes(output.file(WORDS), words_file(words))
        pending = output.pending(asked, retry_failed=settings.retry_failed, mended=mended)
        cpus = int(connect("ray.data").get("CPU", 1))
        load = partial(projections, store.uri, store.encoder, settings.model, settings.keep_projections)

        def vectors(ids: pa.Array) -> NDArray[np.float32]:
            work = by_part(rows, ids)
            return song_means(work, load, min(len(work), cpus))

        source, tagger = _tagger(output, settings, model, readable, vectors)
        print(f"tag: {len(pending):,} of {len(asked):,} songs to do, {len(words):,} words, measured against {source}")
        watched = Watched(output)
        scale = None
        if len(pending):
            import ray

            if options.calibration is not None:
                options = replace(options, calibration=_calibrated(output, options.calibration, readable, vectors))
            # In the object store once, for all processes.
            scale = ray.put(tagger.scale(words, options.ranking))

        def planned(songs: pa.Table) -> Planned:
            work = by_part(rows, songs["track_id"].combine_chunks())
            cluster = gathered(0, settings.wait_minutes, again=songs is not pending)
            workers = settings.encoders or max(1, min(len(work), int(cluster.cpus)))
            stage = (TagSongs, load, options, scale, output.uri, output.lock.token, watched.actor)
            return Planned(partial(_over_parts, work, workers, *stage), cluster)

        summary = drive(output, pending, len(asked), planned, watched)
        if settings.keep_projections:
            collect_kept(store.uri)
        return summary


class TagSongs:
    """A tagging process: parts of a feature store in, receipts of committed tag parts out."""

    def __init__(self, load: Load, options: TagOptions, scale: Any, output: str, token: str, watch: Any = None) -> None:
        import ray

        self._told = Told(watch, "tag")
        with self._told.busy("load"):
            self._projections = load()
            self._tagger = SongTagger(ray.get(scale), options, self._projections.encoder, self._projections.model)
        self._windows = options.timeline
        self._output, self._token = output, token
        self._ready = time.time()

    def __call__(self, work: pa.Table) -> Iterator[pa.Table]:
        with self._told.busy():
            for songs in _projected(self._projections, work, windows=self._windows):
                self._told.step(len(songs))
                if len(songs):
                    yield committed(self._output, self._tagger.tag(songs), self._token, ready=self._ready).table()


class ProjectSongs:
    """A projecting process: parts of a feature store in, one mean vector a chosen song out."""

    def __init__(self, load: Load) -> None:
        self._projections = load()

    def __call__(self, work: pa.Table) -> Iterator[pa.Table]:
        for songs in _projected(self._projections, work):
            yield songs.select(["track_id", "vector"]).replace_schema_metadata(None)


def song_means(work: pa.Table, load: Load, workers: int) -> NDArray[np.float32]:
    """The mean unit vectors of the wanted songs of a store: [songs, E] in the order of their ids."""
    graph = _over_parts(work, workers, ProjectSongs, load)
    tables = [batch for batch in graph.iter_batches(batch_size=None, batch_format="pyarrow") if len(batch)]
    return song_vectors(pa.concat_tables(tables).sort_by("track_id"))[0]


def by_part(rows: pa.Table, ids: pa.Array) -> pa.Table:
    """Where these songs stand among the rows of a store (``track_id``, ``part``), as WORK."""
    picked = rows.filter(pc.is_in(rows["track_id"], value_set=ids)).group_by("part").aggregate([("track_id", "list")])
    whole = rows.group_by("part").aggregate([("track_id", "count")])
    held = dict(zip(whole["part"].to_pylist(), whole["track_id_count"].to_pylist(), strict=True))
    counts = pc.list_value_length(picked["track_id_list"]).to_pylist()
    partial = pa.array([count < held[part] for part, count in zip(picked["part"].to_pylist(), counts, strict=True)])
    wanted = pc.if_else(partial, picked["track_id_list"], pa.scalar(None, pa.list_(pa.string())))
    return pa.table([picked["part"], wanted], schema=WORK)


def _over_parts(work: pa.Table, workers: int, stage: type, *arguments: Any) -> Dataset:
    """A graph of a pool of processes over a store's parts, some of them a task."""
    from ray.data import ActorPoolStrategy

    size = max(1, min(PARTS_PER_TASK, len(work) // (8 * workers)))
    pieces = [work.slice(start, size) for start in range(0, len(work), size)]
    blocks = quiet_data().from_blocks(pieces)
    return blocks.map_batches(
        stage,
        batch_size=None,
        batch_format="pyarrow",
        fn_constructor_args=arguments,
        compute=ActorPoolStrategy(size=workers),
        num_cpus=0.9,
    )


def _projected(projections: Projections, work: pa.Table, *, windows: bool = False) -> Iterator[pa.Table]:
    for part, wanted in zip(work["part"].to_pylist(), work["wanted"], strict=True):
        yield from projections.songs(part, wanted.values, windows=windows)


def as_trained(settings: TagSettings, model: Model) -> TagSettings:
    """The settings with the model's own encoder and windows, where none are given: others' features would not fit."""
    encoder, given = model.config["encoder"], settings.model_fields_set
    if "encoder" in given:
        return settings
    name, own = as_made(encoder)
    windows = {key: encoder[key] for key in ("window_seconds", "keep_tail") if key in encoder and key not in given}
    trained = settings.model_copy(update={"encoder": name, **windows})
    trained._parts["encoder"] = own
    print(f"tag: songs are encoded as the model's were, by {name}", flush=True)
    return trained


def _options(settings: TagSettings, words: tuple[Word, ...], model: Model, output: SongsDirectory) -> TagOptions:
    """What to write; what is left open is the model's ranking and its floor, or what the directory was begun with."""
    begun = (output.read_json(SETTINGS) or {}).get("fingerprint", {})
    ranking = begun.get("ranking", model.ranking) if settings.ranking == "auto" else settings.ranking
    least, calibration = settings.min_percentile, None
    if settings.calibration is not None:
        calibration = Calibration.read(settings.calibration, model.digest, ranking)
    if settings.min_precision is not None and calibration is not None:
        calibration.check_words(word.label for word in words)
        least = calibration.percentile_of(settings.min_precision)
        print(f"tag: precision {settings.min_precision:g} is expected from percentile {least:g} up")
    k = 3 if (settings.k, settings.threshold, least) == (None, None, None) else settings.k
    threshold = settings.threshold
    if threshold is None and least is None:
        # Before 0.3 a word did not have to earn its place: a directory begun so goes on so.
        threshold = begun.get("threshold", floor_of(ranking))
    choice = Choice(k, threshold, least)
    return TagOptions(words, choice, ranking, settings.timeline, settings.embedding, calibration)


def _fingerprint(settings: TagSettings, options: TagOptions, model: Model) -> dict[str, Any]:
    chosen = {name: getattr(options, name) for name in ("ranking", "timeline", "embedding")}
    chosen |= {"k": options.choice.k, "threshold": options.choice.threshold}
    if options.choice.min_percentile is not None:
        chosen["min_percentile"] = options.choice.min_percentile
    if settings.calibration is not None:
        found = storage.read_bytes(storage.join(settings.calibration, CALIBRATION))
        chosen["calibration"] = text_sha256(found.decode())[:16]
    if settings.yardstick != "auto":
        chosen["yardstick"] = settings.yardstick
    return {
        "model": model.digest[:16],
        "labels": f"{len(options.words)} words ({words_digest(options.words)})",
        **chosen,
    }


def _store_rows(store: Store) -> pa.Table:
    """track_id, uri, status and part of every song of a store."""
    return pa.concat_tables(
        table.replace_schema_metadata(None).append_column("part", pa.array([part] * len(table)))
        for part, table in read_columns(store.parts, ["track_id", "uri", "status"])
    )


def _calibrated(output: SongsDirectory, calibration: Calibration, ids: list[str], vectors: Vectors) -> Calibration:
    """A calibration for the songs of a directory, frozen there at its first run."""
    kept = output.read_json(STRANGE)
    if kept is None:
        kept = {"strange": calibration.of(vectors(_some(ids))).strange if ids else 1.0}
        output.write_json(STRANGE, kept)
    strange = float(kept["strange"])
    print(
        f"tag: {strange:.0%} of what parts these songs from the calibrated ones is more than chance; so far are the "
        "intervals of expected precision opened"
    )
    return replace(calibration, strange=strange)


def _some(ids: list[str]) -> pa.Array:
    """Those of these songs that measure."""
    return pa.array(ids, pa.string()).take(pa.array(yardstick_songs(lots(ids))))


def _tagger(
    output: SongsDirectory,
    settings: TagSettings,
    model: Model,
    ids: list[str],
    vectors: Vectors,
) -> tuple[str, Tagger]:
    """The songs that measure the words, for a reader, and a tagger measured by them.

    They are frozen in the output directory at its first run. ``ids`` are those of the songs that could be read.
    """
    frozen = output.file(YARDSTICK)
    if storage.exists(frozen):
        kept = load_arrays(storage.read_bytes(frozen))
        songs = kept["songs"].astype(np.float32)
        # Before 0.3 they measured alone.
        return f"the {len(songs):,} songs of the first run", Tagger(model, songs, alone="blended" not in kept)
    if settings.yardstick == "catalog" and not ids:
        raise InputError(f"--yardstick catalog: no song of {settings.features} could be read; use model.")
    songs, source, blended = model.background, f"the model's {len(model.background):,} training songs", True
    if measured_by_catalog(settings.yardstick, len(ids)):
        songs, blended = vectors(_some(ids)), settings.yardstick != "catalog"
        source = f"{len(songs):,} songs of the catalogue"
    songs = songs.astype(np.float16)
    kept = {"songs": songs, **({"blended": np.ones(1, np.int8)} if blended else {})}
    storage.write_bytes(frozen, save_arrays(kept))
    return source, Tagger(model, songs.astype(np.float32), alone=not blended)
