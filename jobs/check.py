"""Look, in seconds, at all that would spoil an extract: versions, access, room, GPUs on every node; no song is done.

python jobs/check.py --catalog s3://music/2026/ --features s3://music/features --require-gpus 4 --wait-minutes 15
"""

from mer_ray.cluster.settings import CheckSettings
from mer_ray.commandline import ALL_DONE, run


def main(settings: CheckSettings) -> int:
    """Look, and say how the extract would spread."""
    from mer_ray.catalog.sources import catalog_songs
    from mer_ray.cluster.extract import check

    check(settings, lambda: catalog_songs(settings.catalog))
    return ALL_DONE


if __name__ == "__main__":
    raise SystemExit(run(main, CheckSettings))
