"""Take tags elsewhere: a table for a spreadsheet, words in the files' own tags (and out of them again).

python jobs/export.py tags/ --wide moods.csv --catalog manifest.parquet
python jobs/export.py tags/ --long tags.parquet
python jobs/export.py tags/ --write-files
python jobs/export.py tags/ --undo
"""

from mer_ray.commandline import ALL_DONE, run
from mer_ray.tagging.settings import ExportSettings


def main(settings: ExportSettings) -> int:
    """Write what is asked for and say where it is."""
    from mer_ray.tagging.export import export

    for line in export(settings):
        print(f"export: {line}")
    return ALL_DONE


if __name__ == "__main__":
    raise SystemExit(run(main, ExportSettings))
