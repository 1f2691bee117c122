"""Attention over one window (the paper) against attention over a song's windows, on songs with known labels.

python benchmarks/context.py --manifest emotify.parquet --features features/ [--epochs 30] [--seeds 3]

Prints a Markdown table: macro F1 and ROC-AUC on the test songs, mean and spread over seeds. The seed also
draws weights and order; the songs of each split stay the manifest's.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from mer_ray.cluster.train import train
from mer_ray.commandline import parse
from mer_ray.evaluation.assessment import assess
from mer_ray.evaluation.settings import EvaluateSettings
from mer_ray.learning.settings import TrainSettings
from mer_ray.pages import table

FORMS = {
    "segment (the paper)": ["--context", "segment"],
    "track": ["--context", "track"],
    "track, with positions": ["--context", "track", "--positions"],
}
FIGURES = (("window", "macro_f1"), ("song_vote", "macro_f1"), ("song_mean", "macro_f1"), ("song_mean", "roc_auc"))


def main() -> None:
    """Train and test each form with each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--features", required=True)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rows = []
    for name, flags in FORMS.items():
        scores = np.array([_measure(arguments, flags, seed) for seed in range(arguments.seeds)])
        pairs = zip(scores.mean(0), scores.std(0), strict=True)
        rows.append([name, *(f"{mean:.3f} ± {spread:.3f}" for mean, spread in pairs)])
    header = ["context", "macro F1, windows", "macro F1, votes", "macro F1, mean score", "ROC-AUC, mean score"]
    print(table(header, rows))


def _measure(arguments: argparse.Namespace, flags: list[str], seed: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        data = ["--features", arguments.features, "--model", str(Path(folder) / "model")]
        recipe = ["--preset", "paper", "--epochs", str(arguments.epochs), "--seed", str(seed), "--workers", "0", *flags]
        train(parse(TrainSettings, ["--train", arguments.manifest, *data, *recipe]))
        test = ["--test", arguments.manifest, *data, "--output", str(Path(folder) / "evaluation")]
        levels = next(iter(assess(parse(EvaluateSettings, test)).values()))
    return [levels[level].metrics[name] for level, name in FIGURES]


if __name__ == "__main__":
    main()
