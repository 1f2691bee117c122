"""List the songs of a folder, an s3:// prefix, a table or a dataset in a manifest.

python jobs/catalog.py --source ~/Music --output manifest.parquet
python jobs/catalog.py --source emotify/ --dataset emotify --output emotify.parquet
"""

from mer_ray.catalog.settings import CatalogSettings
from mer_ray.commandline import ALL_DONE, run


def main(settings: CatalogSettings) -> int:
    """Write the manifest and say what is in it."""
    from mer_ray import storage
    from mer_ray.catalog.datasets import SPLITS
    from mer_ray.catalog.names import with_names
    from mer_ray.catalog.sources import build_manifest, is_folder, passed_over, same_audio

    dataset, own = settings.dataset, settings.part("dataset")
    table = build_manifest(
        settings.source, dataset, settings.audio, settings=own, split=settings.split, seed=settings.seed
    )
    table = with_names(table) if settings.names else table
    storage.write_table(settings.output, table)
    splits = table["split"].to_pylist()
    labels = {label for row in table["labels"].to_pylist() for label in row or ()}
    facts = [f"{len(table):,} songs"]
    facts += [f"{splits.count(name):,} {name}" for name in SPLITS if name in splits]
    facts += [f"{len(labels)} labels"] if labels else []
    print(f"catalog: {', '.join(facts)} in {settings.output}")
    if dataset == "none" and is_folder(settings.source) and (others := passed_over(settings.source)):
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in [*others.items()][:5])
        print(f"catalog: passed over {sum(others.values()):,} files that are no songs by their names ({kinds})")
    if twins := same_audio(table):
        print(f"catalog: {sum(map(len, twins)):,} songs share {len(twins):,} files' worth of audio, byte for byte:")
        for ids in twins[:5]:
            print(f"catalog:   {' = '.join(ids[:5])}")
    if dataset != "none" and (missing := table["size_bytes"].null_count):
        print(f"catalog: {missing:,} songs have no audio where they should; extract will name each not_found")
    return ALL_DONE


if __name__ == "__main__":
    raise SystemExit(run(main, CatalogSettings))
