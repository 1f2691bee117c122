"""The whole way on a small composed catalogue, and on a folder of your own music if you like; no network needed.

python jobs/demo.py
python jobs/demo.py --music ~/Music
"""

import json
import runpy
import shlex
from pathlib import Path

from mer_ray import models
from mer_ray.commandline import ALL_DONE, parse, run
from mer_ray.demo.settings import DemoSettings
from mer_ray.settings import JobSettings

KNOWN, UNSEEN = "demo-gems", "demo-jamendo"
OWN_WORDS = "calm, dreamy, energetic, gloomy, joyful, late night drive, romantic, tense, triumphant, wistful"
SHIPPED = {"descriptors": "gems"}
"""The model that ships for an encoder; what another encodes is tagged by the model trained here."""
QUICK = ("descriptors", "tiny")
"""Encoders that need no GPU."""

_ESTIMATE = "demo: about {} minutes on a quiet machine of two cores{}; each step says how long it has left"
_UNTRAINED = (
    "The encoder here is '{}', a twin of MERT with random, untrained weights: the figures show that the machinery "
    "works, not how well it tags.\nThe trained one: python jobs/demo.py --encoder m-a-p/MERT-v1-95M "
    "--output demo-mert (fetched from the hub; CC-BY-NC-4.0)."
)


def main(settings: DemoSettings) -> int:
    """Compose, catalogue, extract, train, evaluate and tag with the real jobs, then say how well it went."""
    out = Path(settings.output)
    mine = None if settings.music is None else check_music(settings.music)
    minutes = "four" if settings.encoder in QUICK else "fifteen"
    print(_ESTIMATE.format(minutes, f", and {mine:,} songs of yours" if mine else ""), flush=True)
    compose(settings, out / "music")
    known, unseen = (out / f"{dataset}.parquet" for dataset in (KNOWN, UNSEEN))
    encoded = ("--encoder", settings.encoder, *(("--gpus", 0) if settings.encoder in QUICK else ()))
    for manifest in (known, unseen):
        job("catalog", "--source", out / "music" / f"{manifest.stem}.tsv", "--output", manifest)
        job("extract", "--catalog", manifest, *encoded, "--features", out / "features")
    model = ("--features", out / "features", "--model", out / "model")
    job("train", "--train", known, *model, "--epochs", settings.epochs, "--seed", settings.seed)
    job("evaluate", "--test", known, "--test", unseen, *model, "--output", out / "evaluation")
    words = out / "words.txt"
    words.write_text("\n".join(OWN_WORDS.split(", ")) + "\n")
    tagged = ("--labels", words, "--timeline", "--no-page")
    tagger = SHIPPED.get(settings.encoder)
    by = tagger if tagger in models.names() else out / "model"
    if settings.music is None:
        job("tag", "--features", out / "features", "--model", by, *tagged, "--output", out / "tags")
        tags, title = out / "tags", "Composed music by mood"
    else:
        job("catalog", "--source", settings.music, "--output", out / "my-songs.parquet")
        songs = ("--catalog", out / "my-songs.parquet", *encoded)
        own = ("--features", out / "my-features", "--model", by)
        job("tag", *songs, *own, *tagged, "--output", out / "my-tags")
        tags, title = out / "my-tags", f"{Path(settings.music).name}: your music by mood"
    job("page", tags, "--title", title, "--output", out / "page.html")
    print(conclusion(settings, out, tags))
    return ALL_DONE


def check_music(folder: str) -> int:
    """How many songs lie there; raises InputError at once if none do, and not after minutes."""
    from mer_ray.catalog.sources import scan_folder

    return len(scan_folder(folder))


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


def conclusion(settings: DemoSettings, out: Path, tags: Path) -> str:
    """The short table, and where everything lies."""
    from mer_ray.features import Store

    metrics = json.loads((out / "evaluation" / "metrics.json").read_text())
    untrained = "untrained" in Store.open(str(out / "features")).encoder["licence"]
    encoder = _UNTRAINED if untrained else "The encoder is {}."
    lines = ["\nHeld-out pieces, song level (mean score)         macro F1  chance    ROC-AUC  chance"]
    datasets = {"words it was trained on (GEMS)": KNOWN, "words it never saw (of MTG-Jamendo)": UNSEEN}
    for words, dataset in datasets.items():
        ours, chance = metrics[dataset]["song_mean"], metrics[dataset]["random"]
        f1 = f"{ours['macro_f1']:>8.3f}  {chance['macro_f1']:>6.3f}"
        lines.append(f"{words:<47}  {f1}    {ours['roc_auc']:>7.3f}  {chance['roc_auc']:>6.3f}")
    lines += [
        f"\n{encoder.format(settings.encoder)}\n",
        f"tags      {tags}  (Parquet: DuckDB, pandas, Polars and Spark read it)",
        f"report    {out / 'evaluation' / 'report.html'}",
        f"model     {out / 'model' / 'README.md'}",
        f"\nOpen this in a browser: {(out / 'page.html').resolve()}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(run(main, DemoSettings))
