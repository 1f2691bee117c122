"""Fit a projector from stored features to the embeddings of emotion words; goes on where it stopped.

python jobs/train.py --train emotify.parquet --features features/ --model model/
python jobs/train.py --train jamendo.parquet --train cal500.parquet --features s3://music/features \\
    --model s3://music/model --lambda 2.5 --workers 4
"""

from mer_ray.commandline import ALL_DONE, run
from mer_ray.learning.settings import TrainSettings


def main(settings: TrainSettings) -> int:
    """Train and say how well and where."""
    from mer_ray.cluster.train import train

    metrics = train(settings)
    for split, reasons in metrics["absent"].items():
        for reason, count in reasons.items():
            print(f"train: {split}: {count:,} songs left out, no features ({reason})")
    best = metrics["best"]
    found = f"{best['macro_f1']:.3f} in epoch {best['epoch'] + 1:.0f}"
    print(f"train: best validation macro F1 {found}; model in {settings.model}")
    return ALL_DONE


if __name__ == "__main__":
    raise SystemExit(run(main, TrainSettings))
