"""Score a model on songs whose labels are known, beside random and most frequent labels.

python jobs/evaluate.py --model model/ --test emotify.parquet --features features/ --output evaluation/
"""

from mer_ray.commandline import ALL_DONE, run
from mer_ray.evaluation.settings import EvaluateSettings


def main(settings: EvaluateSettings) -> int:
    """Evaluate, write the report and print its tables."""
    from mer_ray.evaluation.assessment import assess
    from mer_ray.evaluation.report import heading, summary_grid
    from mer_ray.pages import text_table

    for dataset, levels in assess(settings).items():
        print(f"evaluate: {heading(dataset, levels)}\n")
        print(text_table(*summary_grid(levels)))
    print("evaluate: [low, high] are 95 % intervals over the songs")
    print(f"evaluate: report in {settings.output.rstrip('/')}/report.html")
    return ALL_DONE


if __name__ == "__main__":
    raise SystemExit(run(main, EvaluateSettings))
