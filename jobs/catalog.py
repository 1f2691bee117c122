"""List the songs of a folder, an s3:// prefix, a table, an inventory or a dataset in a manifest.

python jobs/catalog.py --source ~/Music --output manifest.parquet
python jobs/catalog.py --source emotify/ --dataset emotify --output emotify.parquet
python jobs/catalog.py --source s3://music/ --output s3://lists/music/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mer_ray.catalog.settings import CatalogSettings
from mer_ray.commandline import ALL_DONE, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa

    from mer_ray.catalog.listing import Listing

ONE_FILE_UP_TO = 10_000_000
TWINS_UP_TO = 1_000_000


def main(settings: CatalogSettings) -> int:
    """Write the manifest and say what is in it."""
    from mer_ray.catalog.listing import Listing
    from mer_ray.catalog.sources import same_audio
    from mer_ray.catalog.tally import Tally

    tally = Tally()
    with Listing() as listing:
        written = write(settings, tally.counted(songs(settings, listing)))
    print(f"catalog: {tally.facts()} in {settings.output}")
    if others := listing.others:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in others.most_common(5))
        print(f"catalog: passed over {others.total():,} files that are no songs by their names ({kinds})")
    if tally.songs > TWINS_UP_TO:
        print(f"catalog: songs that are the same byte for byte are not looked for among more than {TWINS_UP_TO:,}")
    elif twins := same_audio(written):
        print(f"catalog: {sum(map(len, twins)):,} songs share {len(twins):,} files' worth of audio, byte for byte:")
        for ids in twins[:5]:
            print(f"catalog:   {' = '.join(ids[:5])}")
    if settings.dataset != "none" and tally.sizeless:
        print(f"catalog: {tally.sizeless:,} songs have no audio where they should; extract will name each not_found")
    return ALL_DONE


def songs(settings: CatalogSettings, listing: Listing) -> Iterator[pa.Table]:
    """What is asked for: in one table for a file, or of a dataset; in a stream for a folder."""
    from mer_ray.catalog.names import with_names
    from mer_ray.catalog.sources import build_manifest, manifest_batches

    if is_file(settings.output) or settings.dataset != "none":
        listing.most = ONE_FILE_UP_TO
        table = build_manifest(
            settings.source,
            settings.dataset,
            settings.audio,
            settings=settings.part("dataset"),
            split=settings.split,
            seed=settings.seed,
            listing=listing,
        )
        tables = iter([table])
    else:
        tables = manifest_batches(settings.source, settings.audio, listing=listing)
    return map(with_names, tables) if settings.names else tables


def is_file(output: str) -> bool:
    """Whether a manifest of this name is one file, and not a folder of them."""
    return output.lower().endswith(".parquet")


def write(settings: CatalogSettings, tables: Iterable[pa.Table]) -> Callable[[], Iterable[pa.Table]]:
    """Write a manifest; what is returned reads it again."""
    from mer_ray import storage
    from mer_ray.catalog.folder import write_folder
    from mer_ray.catalog.manifest import folder_batches

    if is_file(settings.output):
        (table,) = tables
        storage.write_table(settings.output, table)
        return lambda: [table]
    counts = write_folder(settings.output, tables, settings.source)
    return lambda: folder_batches(settings.output, counts)


if __name__ == "__main__":
    raise SystemExit(run(main, CatalogSettings))
