"""An evaluation from settings to report: a model, songs with known labels, and what a stranger may trust."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from mer_ray import storage
from mer_ray.catalog.annotations import Annotations
from mer_ray.errors import InputError
from mer_ray.evaluation.examples import Told, example_songs
from mer_ray.evaluation.figures import per_label_figure, reliability_figure
from mer_ray.evaluation.metrics import Level, evaluate_songs
from mer_ray.evaluation.predictions import prediction_rows, write_predictions
from mer_ray.evaluation.ratings import add_rank_correlations
from mer_ray.evaluation.report import report_sections, report_title, write_report
from mer_ray.evaluation.settings import EvaluateSettings
from mer_ray.evaluation.unseen import Scored, describe_scored, songs_to_score
from mer_ray.features import Store, open_stores
from mer_ray.learning.corpus import labelled_windows
from mer_ray.learning.model import Model
from mer_ray.learning.ridge import read_ridge
from mer_ray.learning.scoring import top_k_mask
from mer_ray.learning.seen import read_seen
from mer_ray.learning.settings import Ranking
from mer_ray.pages import Picture, Player
from mer_ray.storage import as_json
from mer_ray.tagging.calibration import Calibration, Reliability, as_plain, calibration_file, expected_and_found
from mer_ray.tagging.ranking import Tagger
from mer_ray.words.lists import Word, read_labels

Levels = dict[str, Level]


class Assessed(NamedTuple):
    """What came of one dataset.

    ``scored`` are its songs, ``absent`` those without features, ``calibration`` is its part of ``calibration.json``,
    ``expected`` says how right the tags were expected to be by another calibration, and how right they were;
    ``predictions`` is a row a song.
    """

    levels: Levels
    reliability: Reliability
    scored: Scored
    absent: int
    yardstick: str
    calibration: dict[str, Any]
    expected: str
    predictions: pa.Table
    examples: list[Player]


def assess(settings: EvaluateSettings) -> dict[str, Levels]:
    """Evaluate a model on one or several datasets and write metrics, report and figures.

    ``metrics.json``, ``per_label.json`` and ``songs.parquet`` are for programs; ``report.html`` holds all that a
    person reads, ``report.md`` the same beside its pictures.

    Raises:
        InputError: manifests, features or model that do not fit, or a dataset of which the model has seen every song.
    """
    model, seen = Model.load(settings.model), read_seen(settings.model)
    stores = open_stores(settings.features)
    for store in stores:
        model.check_features(store)
    drawn = int(model.config.get("settings", {}).get("seed", 0))
    given = {word.label: word for word in read_labels(settings.label_text)} if settings.label_text else {}
    found: dict[str, Assessed] = {}
    for dataset in [Annotations.read(uri, drawn) for uri in settings.test]:
        if dataset.dataset in found:
            raise InputError(f"--test: two manifests of dataset {dataset.dataset}; evaluate them one by one.")
        scored = songs_to_score(settings.split, model, seen, dataset)
        print(f"evaluate: {dataset.dataset}: songs {describe_scored(settings.split, scored)}", flush=True)
        found[dataset.dataset] = _assess_one(settings, model, stores, dataset, scored, given)
    _write(settings, model, found)
    return {name: one.levels for name, one in found.items()}


def _assess_one(
    settings: EvaluateSettings,
    model: Model,
    stores: Sequence[Store],
    dataset: Annotations,
    chosen: Scored,
    given: dict[str, Word],
) -> Assessed:
    windows, rows = labelled_windows(stores, dataset, chosen.rows, settings.split)
    words = [given.get(label, Word.of(label)) for label in dataset.vocabulary]
    projected_NE = model.project(windows.features, windows.counts)
    songs_SE, truth_SL = windows.song_means(projected_NE), dataset.truth[rows]
    tagger = Tagger.against(model, settings.yardstick, songs_SE)
    ranking = _ranking(settings, model)
    scale = tagger.scale(words, ranking)
    ridge = read_ridge(settings.model, model.labels["datasets"], dataset.vocabulary)
    others = np.setdiff1d(np.arange(len(dataset.truth)), rows)
    scores_NL, scores_SL, k = scale.scores(projected_NE), scale.scores(songs_SE), settings.k or dataset.k
    levels = evaluate_songs(
        scores_NL,
        windows.songs,
        truth_SL,
        dataset.vocabulary,
        k,
        dataset.truth[others if len(others) else rows].mean(0),
        settings.seed,
        song_scores_SL=scores_SL,
        floor=scale.floor,
        ridge_SL=None if ridge is None else ridge.scores(windows.song_means(windows.features)),
        track_ids=windows.track_ids,
        clusters=known_clusters(model.labels.get("clusters", []), dataset.vocabulary),
    )
    if dataset.ratings is not None:
        add_rank_correlations(levels["song_mean"], scores_SL, dataset.ratings[rows], windows.track_ids, settings.seed)
    percentiles_SL, given_SL = scale.percentiles(songs_SE), top_k_mask(scores_SL, k, scale.floor)
    reliability = Reliability.measure(percentiles_SL, truth_SL)
    calibration = as_plain(
        reliability,
        Reliability.measure(percentiles_SL[given_SL], truth_SL[given_SL]),
        songs_SE,
        split=settings.split,
        seen=chosen.seen,
        yardstick=tagger.measured,
        words=dataset.vocabulary,
        k=k,
    )
    expected = ""
    if settings.calibration is not None:
        known = Calibration.read(settings.calibration, model.digest, ranking)
        known.check_yardstick(tagger.measured)
        promised = known.of(songs_SE).expected(dataset.vocabulary, percentiles_SL, k)
        expected = expected_and_found(promised, given_SL, truth_SL)
        print(f"evaluate: {dataset.dataset}: {expected}")
    told = Told(windows.track_ids, dataset.vocabulary, scores_SL, truth_SL)
    return Assessed(
        levels,
        reliability,
        chosen,
        len(windows.absent),
        tagger.measured,
        calibration,
        expected,
        prediction_rows(dataset.dataset, dataset.vocabulary, windows.track_ids, scores_NL, windows.songs, truth_SL, k),
        example_songs(told, stores, storage.join(settings.output, "report.html")),
    )


def _ranking(settings: EvaluateSettings, model: Model) -> Ranking:
    return model.ranking if settings.ranking == "auto" else settings.ranking


def known_clusters(clusters: Sequence[Sequence[str]], vocabulary: Sequence[str]) -> list[list[str]]:
    """The model's clusters cut down to a dataset's labels; none unless it was trained with each of them."""
    own = [[word for word in cluster if word in vocabulary] for cluster in clusters]
    return [cluster for cluster in own if cluster] if sum(map(len, own)) == len(vocabulary) else []


def _write(settings: EvaluateSettings, model: Model, found: dict[str, Assessed]) -> None:
    results = {name: one.levels for name, one in found.items()}
    facts = _facts(settings, model, found)
    files = {
        "metrics": {name: {at: one.metrics for at, one in levels.items()} for name, levels in results.items()},
        "per_label": {name: {at: one.per_label for at, one in levels.items()} for name, levels in results.items()},
        "settings": {**settings.model_dump(), **facts},
        "calibration": calibration_file(
            model.digest, _ranking(settings, model), {name: one.calibration for name, one in found.items()}
        ),
    }
    for file, content in files.items():
        storage.write_bytes(storage.join(settings.output, f"{file}.json"), as_json(_plain(content)))
    write_predictions(settings.output, [one.predictions for one in found.values()])
    figures = {name: _pictures(name, one) for name, one in found.items()}
    songs = {name: one.examples for name, one in found.items()}
    sections = report_sections(results, facts, figures, songs, model.config["encoder"])
    write_report(settings.output, report_title(settings.model, found), sections)


def _pictures(name: str, one: Assessed) -> list[Picture]:
    by_label, by_percentile = per_label_figure(name, one.levels), reliability_figure(name, one.reliability)
    return [
        Picture(f"per_label_{name}", f"{name}: F1 and ROC-AUC by label", by_label),
        Picture(f"reliability_{name}", f"{name}: how often a percentile is right", by_percentile),
    ]


def _facts(settings: EvaluateSettings, model: Model, found: dict[str, Assessed]) -> dict[str, str]:
    """What made the figures, for their reader."""
    encoder = model.config["encoder"]
    clusters = []
    for name, one in found.items():
        labels = list(one.levels["window"].per_label)
        known = known_clusters(model.labels.get("clusters", []), labels)
        trained = f"{len(labels)} labels in {len(known)}" if known else "not trained with all of its labels"
        clusters.append(f"{name}: {trained}")
    calibrated = {"expected precision": "; ".join(f"{name}: {one.expected}" for name, one in found.items())}
    return {
        "model": f"{settings.model} ({model.digest[:12]}, trained on {', '.join(model.config['datasets'])})",
        "encoder": f"{encoder.get('name')}, D = {encoder['dim']}, licence {encoder.get('licence')}",
        "readings": ", ".join(f"{name} = {value}" for name, value in sorted(model.config["readings"].items())),
        "ranking": f"{_ranking(settings, model)}; yardstick: "
        + ", ".join(f"{name} {one.yardstick}" for name, one in found.items()),
        "clusters": "; ".join(clusters),
        "songs": "; ".join(f"{name}: {describe_scored(settings.split, one.scored)}" for name, one in found.items()),
        "songs without features": ", ".join(f"{name} {one.absent:,}" for name, one in found.items()),
        **(calibrated if settings.calibration else {}),
    }


def _plain(value: Any) -> Any:
    """JSON has no nan: a metric that is not defined is null."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return None if value != value else value
