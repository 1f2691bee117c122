"""Stream songs through decoders and encoders into a feature store; goes on where it stopped.

python jobs/extract.py --catalog manifest.parquet --features features/
python jobs/extract.py --catalog s3://music/2026/ --features s3://music/features --gpus 4
"""

from mer_ray.cluster.settings import ExtractSettings
from mer_ray.commandline import run


def main(settings: ExtractSettings) -> int:
    """Extract, print what came of it, and judge the share of failures."""
    from mer_ray.catalog.sources import catalog_songs
    from mer_ray.cluster.drive import exit_code, report
    from mer_ray.cluster.extract import extract

    summary = extract(settings, lambda: catalog_songs(settings.catalog))
    report(summary, settings.features)
    return exit_code(summary, settings)


if __name__ == "__main__":
    raise SystemExit(run(main, ExtractSettings))
