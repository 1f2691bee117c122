"""An evaluation from settings to report: a model, songs with known labels, and what a stranger may trust."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.catalog.annotations import Annotations
from mer_ray.errors import InputError
from mer_ray.evaluation.figures import per_label_figure, reliability_figure
from mer_ray.evaluation.metrics import Level, evaluate_songs
from mer_ray.evaluation.report import evaluation_page, evaluation_report
from mer_ray.evaluation.settings import EvaluateSettings
from mer_ray.features import Store, open_stores
from mer_ray.learning.corpus import labelled_windows
from mer_ray.learning.model import Model
from mer_ray.storage import as_json
from mer_ray.tagging.calibration import Reliability, as_plain, measured_by_catalog
from mer_ray.tagging.ranking import LabelScale, Ranking
from mer_ray.words.lists import Word, read_labels

Results = dict[str, dict[str, Level]]


def assess(settings: EvaluateSettings) -> Results:
    """Evaluate a model on one or several datasets and write metrics, report and figures.

    ``metrics.json`` and ``per_label.json`` are for programs; ``report.html`` holds all that a person
    reads, ``report.md`` the same beside its ``per_label_*.png``.

    Raises:
        InputError: manifests, features or model that do not fit.
    """
    model = Model.load(settings.model)
    stores = open_stores(settings.features)
    for store in stores:
        model.check_features(store)
    drawn = int(model.config.get("settings", {}).get("seed", 0))
    datasets = [Annotations.read(uri, drawn) for uri in settings.test]
    given = {word.label: word for word in read_labels(settings.label_text)} if settings.label_text else {}
    results: Results = {}
    measured: dict[str, Reliability] = {}
    left_out: dict[str, int] = {}
    for dataset in datasets:
        if dataset.dataset in results:
            raise InputError(f"--test: two manifests of dataset {dataset.dataset}; evaluate them one by one.")
        name = dataset.dataset
        results[name], measured[name], left_out[name] = _assess_one(settings, model, stores, dataset, given)
    _write(settings, model, results, measured, left_out)
    return results


def _assess_one(
    settings: EvaluateSettings, model: Model, stores: Sequence[Store], dataset: Annotations, given: dict[str, Word]
) -> tuple[dict[str, Level], Reliability, int]:
    windows, scored = labelled_windows(stores, dataset, songs_to_score(settings.split, model, dataset), settings.split)
    words = [given.get(label, Word.of(label)) for label in dataset.vocabulary]
    projected_NE = model.project(windows.features, windows.counts)
    songs_SE = windows.song_means(projected_NE)
    yardstick = songs_SE if measured_by_catalog(settings.yardstick, len(songs_SE)) else model.background
    scale = LabelScale(model.embed(words), yardstick, resolve_ranking(settings.ranking, model))
    levels = evaluate_songs(
        scale.scores(projected_NE),
        windows.songs,
        dataset.truth[scored],
        dataset.vocabulary,
        settings.k or dataset.k,
        _frequencies(dataset, scored),
        settings.seed,
        track_ids=windows.track_ids,
        clusters=known_clusters(model.labels.get("clusters", []), dataset.vocabulary),
    )
    return levels, Reliability.measure(scale.percentiles(songs_SE), dataset.truth[scored]), len(windows.absent)


def resolve_ranking(asked: str, model: Model) -> Ranking:
    """What ``auto`` stands for: cosine for a model of the paper's loss, standardized for another."""
    if asked == "auto":
        return "cosine" if model.config.get("readings", {}).get("loss", "triplet") == "triplet" else "standardized"
    return "cosine" if asked == "cosine" else "standardized"


def songs_to_score(split: str, model: Model, dataset: Annotations) -> NDArray[np.int64]:
    """Rows of the songs to score: those of the split.

    A manifest that states no splits is scored whole if the model never saw the dataset; if it was
    trained on it, the split drawn then holds.
    """
    seen = dataset.dataset in model.config.get("datasets", [])
    if not dataset.splits_stated and not seen:
        return dataset.where("all")
    rows = dataset.where(split)
    return rows if len(rows) or seen else dataset.where("all")


def known_clusters(clusters: Sequence[Sequence[str]], vocabulary: Sequence[str]) -> list[list[str]]:
    """The model's clusters cut down to a dataset's labels; none unless it was trained with each of them."""
    own = [[word for word in cluster if word in vocabulary] for cluster in clusters]
    return [cluster for cluster in own if cluster] if sum(map(len, own)) == len(vocabulary) else []


def _describe_clusters(model: Model, vocabulary: list[str]) -> str:
    clusters = known_clusters(model.labels.get("clusters", []), vocabulary)
    return f"{len(vocabulary)} labels in {len(clusters)}" if clusters else "not trained with all of its labels"


def _frequencies(dataset: Annotations, scored: list[int]) -> NDArray[np.float64]:
    """How often each label occurs among the songs that are not scored, or among all if there are no others."""
    others = np.setdiff1d(np.arange(len(dataset.truth)), scored)
    frequencies: NDArray[np.float64] = dataset.truth[others if len(others) else scored].mean(0)
    return frequencies


def _write(
    settings: EvaluateSettings,
    model: Model,
    results: Results,
    measured: dict[str, Reliability],
    left_out: dict[str, int],
) -> None:
    metrics = {
        dataset: {name: _plain(level.metrics) for name, level in levels.items()} for dataset, levels in results.items()
    }
    labels = {
        dataset: {
            name: {label: _plain(values) for label, values in level.per_label.items()} for name, level in levels.items()
        }
        for dataset, levels in results.items()
    }
    facts = _facts(settings, model, results, left_out)
    write = storage.write_bytes
    write(storage.join(settings.output, "metrics.json"), as_json(metrics))
    write(storage.join(settings.output, "per_label.json"), as_json(labels))
    write(storage.join(settings.output, "settings.json"), as_json({**settings.model_dump(), **facts}))
    write(storage.join(settings.output, "calibration.json"), as_json(as_plain(model.digest, measured)))
    figures = {
        dataset: {"per_label": per_label_figure(dataset, levels), "reliability": reliability_figure(measured[dataset])}
        for dataset, levels in results.items()
    }
    for dataset, images in figures.items():
        for name, image in images.items():
            write(storage.join(settings.output, f"{name}_{dataset}.png"), image)
    write(storage.join(settings.output, "report.md"), evaluation_report(results, facts).encode())
    write(storage.join(settings.output, "report.html"), evaluation_page(results, facts, figures).encode())


def _facts(settings: EvaluateSettings, model: Model, results: Results, left_out: dict[str, int]) -> dict[str, str]:
    """What made the figures, for their reader."""
    return {
        "model": f"{settings.model} (trained on {', '.join(model.config['datasets'])})",
        "encoder": f"{model.config['encoder'].get('name')}, D = {model.config['encoder']['dim']}, "
        f"licence {model.config['encoder'].get('licence')}",
        "readings": ", ".join(f"{name} = {value}" for name, value in sorted(model.config["readings"].items())),
        "ranking": f"{resolve_ranking(settings.ranking, model)}; yardstick: "
        + ", ".join(f"{name} {_yardstick_of(settings, levels)}" for name, levels in results.items()),
        "clusters": "; ".join(
            f"{name}: {_describe_clusters(model, list(levels['window'].per_label))}" for name, levels in results.items()
        ),
        "songs without features": ", ".join(f"{name} {count:,}" for name, count in left_out.items()),
    }


def _yardstick_of(settings: EvaluateSettings, levels: dict[str, Level]) -> str:
    songs = int(levels["song_vote"].metrics["songs"])
    return "the scored songs" if measured_by_catalog(settings.yardstick, songs) else "the model's training songs"


def _plain(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no nan: a metric that is not defined is null."""
    return {name: None if value != value else value for name, value in values.items()}
