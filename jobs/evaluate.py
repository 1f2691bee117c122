"""Score a model on songs whose labels are known, beside random and most frequent labels.

python jobs/evaluate.py --model model/ --test emotify.parquet --features features/ --output evaluation/
"""

from __future__ import annotations

from mer_ray.settings import ALL_DONE, EvaluateSettings, run


def main(settings: EvaluateSettings) -> int:
    """Evaluate, write the report and print its tables."""
    from mer_ray.assessment import assess
    from mer_ray.report import summary_table

    for dataset, levels in assess(settings).items():
        facts = levels["song_vote"].metrics
        print(f"evaluate: {dataset}, {facts['songs']:,.0f} songs, {facts['k']:.0f} labels each")
        print(summary_table(levels))
    print(f"evaluate: report in {settings.output}/report.md")
    return ALL_DONE


if __name__ == "__main__":
    raise SystemExit(run(main, EvaluateSettings))
