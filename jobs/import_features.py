"""Make a feature store and a manifest of the preprocessed arrays that the reference published; no audio needed.

python jobs/import_features.py --source CAL500_source.npy --index CAL500_index.npy \
    --labels CAL500_metadata.json --dataset cal500 --features published/ --manifest cal500.parquet
python jobs/import_features.py --dataset jamendo --features published/ --manifest jamendo.parquet \
    --source mtg_train_source.npy --index mtg_train_index.npy --labels jamendo-train.json \
    --source mtg_val_source.npy --index mtg_val_index.npy --labels jamendo-validation.json \
    --source mtg_test_source.npy --index mtg_test_index.npy --labels jamendo-test.json

CAL500 and Emotify are split 80/10/10 by song, at random by seed or in storage order (--split ordered). The
reference cuts in storage order too, but by segment, so that a song can stand in two splits; ours never does.
"""

from mer_ray.commandline import ALL_DONE, run
from mer_ray.paper.settings import ImportSettings


def main(settings: ImportSettings) -> int:
    """Import, write the manifest and say what came of it."""
    from mer_ray import storage
    from mer_ray.catalog.datasets import SPLITS
    from mer_ray.errors import InputError
    from mer_ray.paper.published import PublishedFiles, import_published

    counts = {len(settings.source), len(settings.index), len(settings.labels) or len(settings.source)}
    if len(counts) > 1:
        raise InputError("--source, --index, --labels: give one index, and one label file or none at all, a source.")
    labels = settings.labels or (None,) * len(settings.source)
    files = [PublishedFiles(*each) for each in zip(settings.source, settings.index, labels, strict=True)]
    asked = settings.model_dump(include={"dataset", "layers", "split", "seed"})
    manifest, summary = import_published(files, settings.features, **asked)
    storage.write_table(settings.manifest, manifest)
    done, hours = summary["this_run"]["songs_done"], summary["audio_seconds"] / 3600
    print(
        f"import: {done:,} of {len(manifest):,} songs added; {summary['ok']:,} ok, {summary['failed']:,} failed, "
        f"{hours:,.2f} h in {settings.features}"
    )
    splits = manifest["split"].to_pylist()
    parts = ", ".join(f"{splits.count(name):,} {name}" for name in SPLITS if name in splits)
    print(f"import: {parts} in {settings.manifest}")
    return ALL_DONE


if __name__ == "__main__":
    raise SystemExit(run(main, ImportSettings))
