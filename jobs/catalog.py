"""List the songs of a folder, an s3:// prefix, a table or a dataset in a manifest.

python jobs/catalog.py --source ~/Music --output manifest.parquet
python jobs/catalog.py --source emotify/ --dataset emotify --output emotify.parquet
"""

from __future__ import annotations

from mer_ray.catalog.settings import CatalogSettings
from mer_ray.commandline import ALL_DONE, run


def main(settings: CatalogSettings) -> int:
    """Write the manifest and say what is in it."""
    from collections import Counter

    from mer_ray.catalog.sources import build_manifest, write_manifest

    result = build_manifest(
        settings.source,
        settings.dataset,
        settings.audio,
        split=settings.split,
        seed=settings.seed,
        cal500_truth=settings.cal500_truth,
    )
    write_manifest(settings.output, result.table)
    splits = Counter(split for split in result.table["split"].to_pylist() if split)
    labels = {label for row in result.table["labels"].to_pylist() for label in row or ()}
    facts = [f"{len(result.table):,} songs"]
    facts += [f"{splits[name]:,} {name}" for name in ("train", "validation", "test") if splits[name]]
    facts += [f"{len(labels)} labels"] if labels else []
    print(f"catalog: {', '.join(facts)} in {settings.output}")
    if result.missing:
        print(f"catalog: {result.missing:,} songs have no audio where they should; extract will name each not_found")
    return ALL_DONE


if __name__ == "__main__":
    raise SystemExit(run(main, CatalogSettings))
