"""Check an output directory of extract or tag against its manifest and its schema. Never writes.

python jobs/validate.py --run features/
python jobs/validate.py --run s3://music/tags --deep
"""

from mer_ray.commandline import ALL_DONE, NOT_VALID, run
from mer_ray.runs.settings import ValidateSettings


def main(settings: ValidateSettings) -> int:
    """Check, print a line a check, and say whether all hold."""
    from mer_ray.features import FEATURES
    from mer_ray.runs.validation import validate
    from mer_ray.tagging.contract import tags_content

    report = validate(settings.run, [FEATURES, tags_content(settings.run)], deep=settings.deep, shards=settings.shards)
    print(report, end="")
    return ALL_DONE if report.valid else NOT_VALID


if __name__ == "__main__":
    raise SystemExit(run(main, ValidateSettings))
