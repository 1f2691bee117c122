"""The whole way on a small composed catalogue, and on a folder of your own music if you like; no network needed.

python jobs/demo.py
python jobs/demo.py --music ~/Music
"""

from __future__ import annotations

import json
import runpy
import shlex
from pathlib import Path
from typing import Any

from mer_ray.commandline import ALL_DONE, parse, run
from mer_ray.demo.settings import DemoSettings
from mer_ray.settings import JobSettings

KNOWN, UNSEEN = "demo-gems", "demo-jamendo"
OWN_WORDS = "calm, dreamy, energetic, gloomy, joyful, late night drive, romantic, tense, triumphant, wistful"


def main(settings: DemoSettings) -> int:
    """Compose, catalogue, extract, train, evaluate and tag with the real jobs, then say how well it went."""
    out = Path(settings.output)
    compose(settings, out / "music")
    for dataset in (KNOWN, UNSEEN):
        job("catalog", "--source", out / "music" / f"{dataset}.tsv", "--output", out / f"{dataset}.parquet")
    encoder = ("--encoder", settings.encoder, "--features", out / "features")
    for dataset in (KNOWN, UNSEEN):
        job("extract", "--catalog", out / f"{dataset}.parquet", *encoder)
    model = ("--features", out / "features", "--model", out / "model")
    job("train", "--train", out / f"{KNOWN}.parquet", *model, "--epochs", settings.epochs, "--seed", settings.seed)
    tests = [flag for dataset in (KNOWN, UNSEEN) for flag in ("--test", out / f"{dataset}.parquet")]
    job("evaluate", *tests, *model, "--output", out / "evaluation")
    words = out / "words.txt"
    words.write_text("\n".join(OWN_WORDS.split(", ")) + "\n")
    job("tag", *model, "--labels", words, "--output", out / "tags")
    if settings.music is not None:
        mine = ("--catalog", settings.music, "--encoder", settings.encoder, "--features", out / "my-features")
        job("tag", *mine, "--model", out / "model", "--labels", words, "--output", out / "my-tags")
    print(conclusion(settings, out))
    return ALL_DONE


def compose(settings: DemoSettings, folder: Path) -> None:
    """Write the two small datasets, unless an earlier demo of the same seed and size has."""
    from mer_ray.demo.composer import write_world

    recipe = json.dumps({"songs": settings.songs, "seed": settings.seed})
    stamp = folder / ".recipe.json"
    if stamp.is_file() and stamp.read_text() == recipe:
        return
    print(f"demo: composing 2 x {settings.songs} pieces of music in {folder}", flush=True)
    write_world(folder, songs_per_dataset=settings.songs, seed=settings.seed)
    stamp.write_text(recipe)


def job(name: str, *flags: object) -> None:
    """Run one job with its own command line, in this process, so that one Ray serves them all."""
    arguments = [str(flag) for flag in flags]
    print(f"\n$ python jobs/{name}.py {shlex.join(arguments)}", flush=True)
    module = runpy.run_path(str(Path(__file__).with_name(f"{name}.py")))
    cls: type[JobSettings] = module[f"{name.capitalize()}Settings"]
    module["main"](parse(cls, arguments))


def conclusion(settings: DemoSettings, out: Path) -> str:
    """The short table, and where everything lies."""
    from mer_ray.features import Store

    metrics = json.loads((out / "evaluation" / "metrics.json").read_text())
    untrained = "untrained" in Store.open(str(out / "features")).encoder["licence"]
    encoder = (
        f"The encoder here is '{settings.encoder}', a twin of MERT with random, untrained weights: the figures show "
        "that the machinery works, not how well it tags.\nThe trained one: "
        "python jobs/demo.py --encoder m-a-p/MERT-v1-95M --output demo-mert (fetched from the hub; CC-BY-NC-4.0)."
        if untrained
        else f"The encoder is {settings.encoder}."
    )
    lines = [
        "",
        "Held-out pieces, song level (mean score)         macro F1  chance    ROC-AUC  chance",
        _row("words it was trained on (GEMS)", metrics[KNOWN]),
        _row("words it never saw (of MTG-Jamendo)", metrics[UNSEEN]),
        "",
        encoder,
        "",
        f"tags      {out / 'tags'}  (Parquet: duckdb -c \"from '{out / 'tags'}/*.parquet'\")",
        f"report    {out / 'evaluation' / 'report.html'}",
        f"model     {out / 'model' / 'README.md'}",
    ]
    if settings.music is not None:
        lines.append(f"your music  {out / 'my-tags'}")
    return "\n".join(lines)


def _row(name: str, levels: dict[str, dict[str, Any]]) -> str:
    ours, chance = levels["song_mean"], levels["random"]
    return (
        f"{name:<47}  {ours['macro_f1']:>8.3f}  {chance['macro_f1']:>6.3f}    {ours['roc_auc']:>7.3f}  "
        f"{chance['roc_auc']:>6.3f}"
    )


if __name__ == "__main__":
    raise SystemExit(run(main, DemoSettings))
