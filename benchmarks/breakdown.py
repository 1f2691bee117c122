"""Where an extract's time goes: the stages of a real run, and inside its decoder and its encoder.

python -m benchmarks.breakdown [--music DIR] [--songs 40] [--encoder random] [--dtype auto]

Three tables. The run: ``jobs/extract.py`` on the songs, its stages in percent of its wall time; they overlap. The
decoder: the same songs on one core of this process, by function (cProfile's own time). The encoder: some windows of
them on all cores, by kind of operation, each beside its arithmetic and beside what one large matrix product reaches
on the same cores in the same arithmetic: the rest is what is left to win there. On the CPU alone.
"""

from __future__ import annotations

import cProfile
import os
import pstats
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.data import songs_of, windows_of
from benchmarks.encode import peak_gflops
from benchmarks.measure import flags
from benchmarks.stand_ins import extracted
from mer_ray.audio.decoding import decode_windows
from mer_ray.encoders import Encoder, load_encoder
from mer_ray.pages import table

BATCH = 4
FUNCTIONS = 5
"""The decoder's functions that get a row."""
CONVOLVE = "convolve"
KINDS = {
    CONVOLVE: "convolutions, their GELU",
    "addmm": "linear layers",
    "attention": "attention",
    "gelu": "GELU",
    "convolution": "position convolution",
    "norm": "norms",
    "copy_": "copies",
}
"""Operations by what is in their names or in those that call them; all others are one row."""
OTHERS = "all other"


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
    rows = [[where, f"{spent:.2f}", f"{spent / whole:.0%}"] for spent, where in [*own[:FUNCTIONS], (rest, OTHERS)]]
    return table([f"the decoder, {seconds / 60:.0f} min of audio, one core", "s", "of its time"], rows)


def _module(file: Path) -> str:
    return file.parent.name if file.stem == "__init__" else file.stem.strip("~")


def _encoder(encoder: Encoder, windows: Tensor) -> str:
    """Where an encoder's time goes, by kind of operation."""
    work = _gflop_a_window(encoder, windows[:1])
    states: Any = encoder.encode
    convolve = states.convolve

    def named(windows_BS: Tensor) -> Tensor:
        with record_function(CONVOLVE):
            return convolve(windows_BS)

    states.convolve = named
    encoder(windows[:1])
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        encoder(windows)
    spent: Counter[str] = Counter()
    for event in seen.events():
        spent[_kind(event)] += event.self_cpu_time_total / 1e6 / len(windows)
    peak = peak_gflops(encoder.dtype, "cpu", size=3072)
    whole, least = sum(spent.values()), sum(work.values()) / peak
    rows = []
    for kind in [*KINDS.values(), OTHERS]:
        figures = [f"{work[kind]:.0f}", f"{work[kind] / spent[kind] / peak:.0%}"] if kind in work else ["–", "–"]
        rows.append([kind, f"{spent[kind]:.3f}", f"{spent[kind] / whole:.0%}", *figures])
    header = ["the encoder, a window", "s", "of its time", "GFLOP", "of a matrix product's rate"]
    return (
        f"{table(header, rows)}\n{encoder.dtype}: {whole:.2f} s a window; its {sum(work.values()):.0f} GFLOP "
        f"at the {peak:,.0f} GFLOP/s of one large matrix product would take {least:.2f} s ({least / whole:.0%})."
    )


def _kind(event: Any) -> str:
    """The row of an operation: that of the convolutions if it is part of them, else by its own name."""
    above = event
    while above is not None:
        if above.name == CONVOLVE:
            return KINDS[CONVOLVE]
        above = above.cpu_parent
    return next((kind for part, kind in KINDS.items() if part in event.name), OTHERS)


def _gflop_a_window(encoder: Encoder, window: Tensor) -> dict[str, float]:
    """Multiplications and additions of the rows that have most of them, counted in the library's own model."""
    model: Any = encoder.encode.model  # type: ignore[attr-defined]
    asked = model.config._attn_implementation
    model.set_attn_implementation("eager")  # one that the counter knows
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(window.to(model.dtype))
    model.set_attn_implementation(asked)
    counts = {str(name): flop / 1e9 for name, flop in counter.get_flop_counts()["Global"].items()}
    inside = sum(counter.get_flop_counts()[f"{type(model).__name__}.feature_extractor"].values()) / 1e9
    return {
        KINDS[CONVOLVE]: inside,
        KINDS["addmm"]: counts["aten.addmm"],
        KINDS["attention"]: counts["aten.bmm"],
        KINDS["convolution"]: counts["aten.convolution"] - inside,
    }


if __name__ == "__main__":
    main()
