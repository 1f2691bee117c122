"""Take songs out of feature stores and tags, with all that is kept of them there; later runs leave them out too.

python jobs/forget.py --songs gems/0001 --run features/ --run tags/
python jobs/forget.py --songs-from takedown.txt --run s3://music/features --run s3://music/tags
python jobs/forget.py --songs gems/0001 --run features/ --unforget
"""

from mer_ray.commandline import ALL_DONE, run
from mer_ray.runs.settings import ForgetSettings


def main(settings: ForgetSettings) -> int:
    """Take the songs out of each directory, and say what that found."""
    import pyarrow as pa

    from mer_ray.errors import InputError
    from mer_ray.runs.takedown import forget, unforget
    from mer_ray.storage import read_text
    from mer_ray.tagging.index import collect_kept

    listed = read_text(settings.songs_from).splitlines() if settings.songs_from else []
    ids = pa.array(dict.fromkeys([*settings.songs, *(line.strip() for line in listed if line.strip())]), pa.string())
    if not len(ids):
        raise InputError(f"--songs-from {settings.songs_from}: no ids in it; write one a line.")
    for uri in settings.run:
        if settings.unforget:
            left = unforget(uri, ids).forgotten
            print(f"forget: {uri}: {len(ids):,} songs may come back with the next run; {left:,} stay forgotten")
            continue
        found = forget(uri, ids)
        collect_kept(uri)
        print(
            f"forget: {uri}: {found.rows:,} rows taken out for {len(ids):,} ids; later runs leave "
            f"{found.forgotten:,} songs out"
        )
    return ALL_DONE


if __name__ == "__main__":
    raise SystemExit(run(main, ForgetSettings))
