"""Say what an output directory holds and who works on it: done, failed, left, rate, lock. Never writes.

python jobs/status.py --run features/
python jobs/status.py --run s3://music/tags --json
"""

from mer_ray.commandline import ALL_DONE, run
from mer_ray.runs.settings import StatusSettings


def main(settings: StatusSettings) -> int:
    """Look, and print what was seen."""
    from mer_ray.runs.status import look
    from mer_ray.runs.status_words import in_words
    from mer_ray.storage import as_json

    status = look(settings.run)
    print(as_json(vars(status)).decode() if settings.json_ else in_words(status), end="")
    return ALL_DONE


if __name__ == "__main__":
    raise SystemExit(run(main, StatusSettings))
