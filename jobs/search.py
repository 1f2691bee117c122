"""The songs of a feature store that are nearest to any phrase, with scores and percentiles.

python jobs/search.py --query "tender but tense" --features features/ --model model/ -k 20
python jobs/search.py --query "late night drive" --features s3://music/features --model model/ --output found.csv
"""

from mer_ray.commandline import ALL_DONE, run
from mer_ray.tagging.settings import SearchSettings


def main(settings: SearchSettings) -> int:
    """Search, print the table, and write it if asked to."""
    from mer_ray.pages import text_table
    from mer_ray.tagging.search import check_output, search, write_found

    check_output(settings.output)
    table, against = search(settings)
    rows = [
        [str(at), song["track_id"], f"{song['score']:.2f}", f"{song['percentile']:.3f}"]
        for at, song in enumerate(table.to_pylist(), 1)
    ]
    print(f'search: "{settings.query}", measured against {against}\n')
    print(text_table(["", "song", "score", "percentile"], rows))
    if settings.output is not None:
        write_found(settings.output, table)
        print(f"search: {len(table)} songs in {settings.output}")
    return ALL_DONE


if __name__ == "__main__":
    raise SystemExit(run(main, SearchSettings))
