"""Make a feature store and a manifest of arrays: those that the reference published, or any encoder's; no audio needed.

python jobs/import_features.py --source CAL500_source.npy --index CAL500_index.npy \
    --labels CAL500_metadata.json --dataset cal500 --features published/ --manifest cal500.parquet
python jobs/import_features.py --dataset jamendo --features published/ --manifest jamendo.parquet \
    --source mtg_train_source.npy --index mtg_train_index.npy --labels jamendo-train.json \
    --source mtg_val_source.npy --index mtg_val_index.npy --labels jamendo-validation.json \
    --source mtg_test_source.npy --index mtg_test_index.npy --labels jamendo-test.json
python jobs/import_features.py --encoder laion/clap-htsat --pooling mean --licence Apache-2.0 \
    --source clap/ --features clap-features/ --manifest clap.parquet

CAL500 and Emotify are split 80/10/10 by song, at random by seed or in storage order (--split ordered). The
reference cuts in storage order too, but by segment, so that a song can stand in two splits; ours never does.
"""

from mer_ray.commandline import ALL_DONE, run
from mer_ray.paper.settings import ImportSettings

ARRAYS_OF_ANY = ("pooling", "licence", "window_seconds")
"""What is told of an encoder; of the reference's it is known."""


def main(settings: ImportSettings) -> int:
    """Import, write the manifest and say what came of it."""
    from mer_ray import storage
    from mer_ray.catalog.datasets import SPLITS
    from mer_ray.errors import InputError
    from mer_ray.paper.any_arrays import ArrayEncoder, ArrayFiles, import_arrays
    from mer_ray.paper.published import PublishedFiles, import_published
    from mer_ray.runs.directory import FAILURES, run_file

    sources = len(settings.source)
    if len(settings.index) not in ({0, sources} if settings.encoder else {sources}):
        raise InputError("--source, --index: give one index a source.")
    if len(settings.labels) not in (0, sources):
        raise InputError("--source, --labels: give one label file a source, or none at all.")
    labels, index = settings.labels or (None,) * sources, settings.index or (None,) * sources
    asked = settings.model_dump(include={"dataset", "split", "seed"})
    told = {name: value for name in ARRAYS_OF_ANY if (value := getattr(settings, name)) is not None}
    each = list(zip(settings.source, index, labels, strict=True))
    if settings.encoder:
        told = {"pooling": "unknown", "licence": "unknown", "window_seconds": 10.0, **told}
        encoder = ArrayEncoder(settings.encoder, layers=settings.layers, **told)
        manifest, summary = import_arrays([ArrayFiles(*one) for one in each], settings.features, encoder, **asked)
    elif told:
        flag = next(iter(told)).replace("_", "-")
        raise InputError(f"--{flag}: of the reference's arrays it is known; name what made yours with --encoder.")
    else:
        files = [PublishedFiles(*one) for one in zip(settings.source, settings.index, labels, strict=True)]
        manifest, summary = import_published(files, settings.features, layers=settings.layers or (3, 6, 9, 12), **asked)
    storage.write_table(settings.manifest, manifest)
    done, hours = summary["this_run"]["songs_done"], summary["audio_seconds"] / 3600
    print(
        f"import: {done:,} of {len(manifest):,} songs added; {summary['ok']:,} ok, {summary['failed']:,} failed, "
        f"{hours:,.2f} h in {settings.features}"
    )
    if summary["failed"]:
        failures = run_file(settings.features, FAILURES)
        first = storage.read_table(failures, ["error"])["error"][0]
        print(f"import: first of the failed: {first}; all of them are in {failures}")
    splits = manifest["split"].to_pylist()
    parts = ", ".join(f"{splits.count(name):,} {name}" for name in SPLITS if name in splits)
    print(f"import: {parts} in {settings.manifest}")
    return ALL_DONE


if __name__ == "__main__":
    raise SystemExit(run(main, ImportSettings))
