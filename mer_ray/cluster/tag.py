"""The tag job, from settings to summary: every song of a feature store gets its words.

store parts -> project, rank, commit (CPU actors) -> receipts
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.catalog.sources import catalog_songs
from mer_ray.cluster.drive import Summary, drive, report
from mer_ray.cluster.extract import extract
from mer_ray.cluster.measuring import YARDSTICK, calibrated, measured_tagger
from mer_ray.cluster.nodes import gathered
from mer_ray.cluster.session import connect, quiet_data
from mer_ray.cluster.settings import TagSettings
from mer_ray.cluster.store_songs import Sample, SongsToTag, by_part
from mer_ray.cluster.supervision import Planned, Watched
from mer_ray.cluster.watch import Told
from mer_ray.cluster.work import TAG_BYTES, Work, from_shards, told_by, work_of
from mer_ray.encoders import as_made
from mer_ray.features import Store
from mer_ray.fingerprints import text_sha256
from mer_ray.learning.model import Model
from mer_ray.learning.scoring import floor_of, measured_by_catalog
from mer_ray.runs.asked import Asked, Shards
from mer_ray.runs.directory import SETTINGS
from mer_ray.runs.open_shard import Lease
from mer_ray.runs.ranges import Range
from mer_ray.runs.receipts import committed
from mer_ray.runs.shards import by_shard, stated
from mer_ray.runs.songs_directory import SongsDirectory
from mer_ray.songs import Identity
from mer_ray.tagging.calibration import CALIBRATION, Calibration
from mer_ray.tagging.contract import WORDS, words_digest, words_file
from mer_ray.tagging.index import collect_kept
from mer_ray.tagging.projections import Projections, song_vectors
from mer_ray.tagging.ranking import Choice, SongTagger, TagOptions, measured_against
from mer_ray.words.lists import Word, read_labels

if TYPE_CHECKING:
    from ray.data import Dataset

Load = Callable[[], Projections]

PARTS_PER_TASK = 16
"""At most so many parts of a store are read by one task: a task costs as much as a part's tags."""

SONGS_PER_PROCESS = 200
"""A process takes some four seconds of a core to start, and tagging so many songs for the first time two of them."""


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
    if settings.catalog is not None:
        report(extract(as_trained(settings, model), partial(catalog_songs, settings.catalog)), settings.features)
    store = Store.open(settings.features)
    model.check_features(store)
    of = stated(store.uri)
    with SongsDirectory(settings.output, "tag", wait=settings.wait, range=Range.given(settings.shards)) as output:
        options = _options(settings, words, model, output)
        sample = Sample(store.uri, of, catalog=settings.catalog is not None)
        if options.calibration is not None and not storage.exists(output.file(YARDSTICK)):
            by_catalog = measured_by_catalog(settings.yardstick, len(sample.ids))
            options.calibration.check_yardstick(measured_against(by_catalog, settings.yardstick == "catalog"))
        output.begin(_fingerprint(settings, options, model), settings.resolved(), None, of=of)
        storage.write_bytes(output.file(WORDS), words_file(words))
        found = Shards.of(store.uri, output.lease.of, catalog=settings.catalog is not None)
        output.ask_as(Asked(found.songs, found.keys))
        work = Work(output, output.unfinished(retry_failed=settings.retry_failed, again=False), TAG_BYTES)
        opener = SongsToTag(output.lease, store.uri, settings.catalog is not None, settings.retry_failed)
        work.begin(opener)
        cpus = int(connect("ray.data").get("CPU", 1))
        load = partial(projections, store.uri, store.encoder, settings.model, settings.keep_projections)

        def vectors(ids: pa.Array) -> NDArray[np.float32]:
            parts = by_part(sample.rows, ids)
            return song_means(parts, load, processes(len(ids), len(parts), cpus))

        source, tagger = measured_tagger(output, settings, model, sample, vectors)
        to_do = f"{work.said} of {output.asked:,} songs to do{work.where}"
        print(f"tag: {to_do}, {len(words):,} words, measured against {source}")
        watched = Watched(output)
        scale = None
        if work.songs:
            import ray

            if options.calibration is not None:
                options = replace(options, calibration=calibrated(output, options.calibration, sample, vectors))
            # In the object store once, for all processes.
            scale = ray.put(tagger.scale(words, options.ranking))

        def planned(number: int) -> Planned:
            watch = watched.actor  # first: other runs count this one by it
            cluster = gathered(0, settings.wait_minutes, again=number > 0)
            parts = max(1, min(sum(found.parts[shard] for shard in work.left), work.songs))
            workers = settings.encoders or processes(work.songs, parts, int(cluster.own_cpus))
            each = max(1, min(PARTS_PER_TASK, parts // (8 * workers)))
            source = partial(from_shards, work.left, opener, number, len(cluster.nodes), each)
            stage = (TagSongs, load, options, scale, output.lease, watch)
            return Planned(partial(_over_parts, source, workers, *stage), cluster)

        summary = drive(work, output.asked, planned, watched)
        if settings.keep_projections:
            collect_kept(store.uri)
        return summary


class TagSongs:
    """A tagging process: rows of a source of WORK in, receipts of committed tag parts out."""

    def __init__(self, load: Load, options: TagOptions, scale: Any, lease: Lease, watch: Any = None) -> None:
        import ray

        self._told = Told(watch, "tag")
        with self._told.busy("load"):
            self._projections = load()
            self._tagger = SongTagger(ray.get(scale), options, self._projections.encoder, self._projections.model)
        self._windows, self._lease = options.timeline, lease
        self._ready = time.time()

    def __call__(self, work: pa.Table) -> Iterator[pa.Table]:
        with self._told.busy():
            for at in range(len(work)):
                row = work.slice(at, 1)
                if row["work"].null_count:
                    yield told_by(row).table()
                    continue
                for songs in _projected(self._projections, work_of(row), windows=self._windows):
                    self._told.step(len(songs))
                    for number, own in by_shard(songs, self._lease.of):
                        if len(own):
                            tagged = self._tagger.tag(own)
                            yield committed(self._lease.open(number), tagged, ready=self._ready).table()


class ProjectSongs:
    """A projecting process: parts of a feature store in, one mean vector a chosen song out."""

    def __init__(self, load: Load) -> None:
        self._projections = load()

    def __call__(self, work: pa.Table) -> Iterator[pa.Table]:
        for songs in _projected(self._projections, work):
            yield songs.select(["track_id", "vector"]).replace_schema_metadata(None)


def song_means(work: pa.Table, load: Load, workers: int) -> NDArray[np.float32]:
    """The mean unit vectors of the wanted songs of a store: [songs, E] in the order of their ids."""
    size = max(1, min(PARTS_PER_TASK, len(work) // (8 * workers)))
    pieces = [work.slice(start, size) for start in range(0, len(work), size)]
    graph = _over_parts(lambda: quiet_data().from_blocks(pieces), workers, ProjectSongs, load)
    tables = [batch for batch in graph.iter_batches(batch_size=None, batch_format="pyarrow") if len(batch)]
    return song_vectors(pa.concat_tables(tables).sort_by("track_id"))[0]


def processes(songs: int, parts: int, cpus: int) -> int:
    """How many processes are worth their start, for songs that stand in so many parts."""
    return max(1, min(parts, cpus, -(-songs // SONGS_PER_PROCESS)))


def _over_parts(source: Callable[[], Dataset], workers: int, stage: type, *arguments: Any) -> Dataset:
    """A graph of a pool of processes over a source of parts."""
    from ray.data import ActorPoolStrategy

    return source().map_batches(
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
