"""Where an extract's time goes: the stages of a real run, and inside its decoder and its encoder.

python -m benchmarks.breakdown [--music DIR] [--songs 40] [--encoder random] [--dtype auto]

Three tables. The run: ``jobs/extract.py`` on the songs, its stages in percent of its wall time; they overlap. The
decoder: the same songs on one core of this process, by function (cProfile's own time). The encoder: some windows of
them on all cores, by operation, as torch's profiler tells it. On the CPU alone.
"""

from __future__ import annotations

import cProfile
import os
import pstats
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.data import songs_of, windows_of
from benchmarks.measure import flags
from benchmarks.stand_ins import extracted
from mer_ray.audio.decoding import decode_windows
from mer_ray.encoders import Encoder, load_encoder
from mer_ray.pages import table

BATCH = 4
FUNCTIONS = 5
"""The decoder's functions that get a row."""
OPERATIONS = 12
"""The encoder's operations that get a row."""


def main() -> None:
    """Run, and print the tables."""
    asked = flags(__doc__, music=None, songs=40, encoder="random", dtype="auto")
    with TemporaryDirectory(prefix="mer-ray-breakdown-") as name:
        paths = songs_of(asked.music, asked.songs, Path(name))
        own = ["--dtype", asked.dtype, "--gpus", 0]
        run = extracted(paths, Path(name) / "features", asked.encoder, job=["jobs/extract.py"], flags=own)
        print(f"{stages(run, f'an extract of {len(paths)} songs')}\n{run['bottleneck']}\n", flush=True)
        print(_decoder(paths), flush=True)
    torch.set_num_threads(os.cpu_count() or 1)
    encoder = load_encoder(asked.encoder, device="cpu", dtype=asked.dtype)
    print(_encoder(encoder, torch.from_numpy(windows_of(asked.music, BATCH))))


def stages(run: dict[str, float], title: str) -> str:
    """Where the wall time of an extract went, by what its summary says of this run; the stages overlap."""
    parts = {
        "Python, settings, Ray's start and end": run["wall"] - run["seconds"],
        "until the encoder is loaded": run["startup_s"],
        "work": run["work_seconds"] - run["startup_s"],
        "- decoders busy": run["decode_s"],
        "- encoders busy": run["encode_s"],
        "accounting": run["seconds"] - run["work_seconds"],
    }
    rows = [[what, f"{spent:.1f}", f"{spent / run['wall']:.1%}"] for what, spent in parts.items()]
    return table([title, "s", "of its wall time"], rows)


def _decoder(paths: list[str]) -> str:
    """Where a decoder's time goes, by function."""
    seen = cProfile.Profile()
    with seen:
        seconds = sum(decode_windows(path).duration_s for path in paths)
    functions = pstats.Stats(seen).get_stats_profile().func_profiles.items()
    named = ((one.tottime, f"{_module(Path(one.file_name))} `{name}`") for name, one in functions)
    own = sorted(named, reverse=True)
    rest = sum(spent for spent, _ in own[FUNCTIONS:])
    whole = sum(spent for spent, _ in own)
    rows = [[where, f"{spent:.2f}", f"{spent / whole:.0%}"] for spent, where in [*own[:FUNCTIONS], (rest, "all other")]]
    return table([f"the decoder, {seconds / 60:.0f} min of audio, one core", "s", "of its time"], rows)


def _module(file: Path) -> str:
    return file.parent.name if file.stem == "__init__" else file.stem.strip("~")


def _encoder(encoder: Encoder, windows: Tensor) -> str:
    """Where an encoder's time goes, by operation."""
    encoder(windows[:1])
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        encoder(windows)
    by_operation = seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=OPERATIONS)
    return f"the encoder, {len(windows)} windows, {encoder.dtype}\n{by_operation}"


if __name__ == "__main__":
    main()
