"""The songs of a feature store that are nearest to any phrase, or to a song, with scores and percentiles.

python jobs/search.py --query "tender but tense" --features features/ --model model/ -k 20
python jobs/search.py --query calm --query epic --not sad --features features/ --model model/ --playlists lists/
python jobs/search.py --like song.mp3 --catalog mine.parquet --features features/ --model model/ --output like.m3u8
"""

from mer_ray.commandline import ALL_DONE, run
from mer_ray.tagging.settings import SearchSettings


def main(settings: SearchSettings) -> int:
    """Search, print the answers, and write them if asked to."""
    from mer_ray.pages import text_table
    from mer_ray.tagging.search import check_output, search, write_found, write_playlists

    check_output(settings)
    table, against = search(settings)
    answers: dict[str, list[list[str]]] = {}
    for song in table.to_pylist():
        name = " - ".join(filter(None, (song["artist"], song["title"]))) or song["track_id"]
        figures = [f"{song['score']:.2f}", f"{song['percentile']:.3f}"]
        answers.setdefault(song["query"], []).append([str(song["rank"]), name, *figures])
    unwanted = f", not {', '.join(settings.not_)}" if settings.not_ else ""
    for query, rows in answers.items():
        print(f'search: "{query}"{unwanted}, measured against {against}\n')
        print(text_table(["", "song", "score", "percentile"], rows))
    if settings.output is not None:
        write_found(settings.output, table)
        print(f"search: {len(table)} songs in {settings.output}")
    if settings.playlists is not None:
        names = write_playlists(settings.playlists, table)
        print(f"search: {', '.join(names)} in {settings.playlists}")
    return ALL_DONE


if __name__ == "__main__":
    raise SystemExit(run(main, SearchSettings))
