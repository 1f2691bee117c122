"""Rank any list of words for every song of a feature store, or of a catalogue; goes on where it stopped.

python jobs/tag.py --features features/ --model model/ --labels words.txt --output tags/
python jobs/tag.py --catalog s3://music/2026/ --features s3://music/features --model model/ --labels gems \\
    --output s3://music/tags
"""

from mer_ray.cluster.settings import TagSettings
from mer_ray.commandline import run


def main(settings: TagSettings) -> int:
    """Tag, print what came of it, and judge the share of failures."""
    from mer_ray.cluster.drive import exit_code, report
    from mer_ray.cluster.tag import tag
    from mer_ray.page.composing import page_of_run

    summary = tag(settings)
    report(summary, settings.output)
    if settings.page:
        print(f"tag: {page_of_run(settings.output)}")
    return exit_code(summary, settings)


if __name__ == "__main__":
    raise SystemExit(run(main, TagSettings))
